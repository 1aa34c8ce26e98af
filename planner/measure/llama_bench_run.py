"""Runs a llama-bench that is already there, and makes of its answers a measurement like ours.

Somebody with a build for their own GPU measures with that very build. The program keeps its definitions and its own
warm-up, since every round is a fresh process; what is added is what it lacks: rounds over all tests instead of one test
to its end, a first round that does not count, the median, and a verdict on the machine. The mistake it prevents is a
setting that an older build does not know and that is silently left out: it is refused by name.
"""

import hashlib
import os
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from planner.engine.process import waiting_environment
from planner.errors import BadInputError, EngineDiedError, EngineError, MissingInputError, UsageError
from planner.measure.bench import Progress, no_progress
from planner.measure.budget import EFFORTS, Effort
from planner.measure.conditions import Watch
from planner.measure.llama_bench_import import read_rows
from planner.measure.statistics import disturbances, noise_note, outlier_note, rates, relative_mad, spread
from planner.types.imported import ImportedRow
from planner.types.measurement import Contents, Measurement, Test, TestResult
from planner.types.settings import Settings

__all__ = ["LlamaBench", "arguments", "find_llama_bench", "measure_with_llama_bench"]

_ASKING_S = 60.0
_FIRST_ROUND_S = 3600.0
_PATIENCE, _GRACE_S = 10.0, 60.0
_STEADY = 0.02
_OPTION = re.compile(r"(?<![\w-])(--?[a-z][a-z0-9-]*)(?=[,\s])")


class LlamaBench(NamedTuple):
    """An executable, the options that its help names, the help itself, and a mark of this very build."""

    path: Path
    options: frozenset[str]
    help: str
    build: str


class _Group(NamedTuple):
    """Tests that one call of the program runs: all with the same threads."""

    threads: int
    tests: tuple[Test, ...]


def find_llama_bench(path: Path) -> LlamaBench:
    """The program at ``path``; raises :class:`MissingInputError` where there is none, UsageError for something else."""
    if not path.is_file() or not os.access(path, os.X_OK):
        raise MissingInputError(f"{path} is no program that can be run", hint="name the llama-bench executable")
    try:
        told = subprocess.run([path, "--help"], capture_output=True, text=True, timeout=_ASKING_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{path} cannot be asked what it is: {error}", hint="name llama-bench") from error
    text = told.stdout + told.stderr
    options = frozenset(_OPTION.findall(text))
    if not {"-p", "-n", "-o"} <= options or "--n-prompt" not in options:
        raise UsageError(f"{path} is no llama-bench: its --help names no --n-prompt", hint="name llama-bench")
    digest = hashlib.sha256()
    for each in (path, *sorted(path.parent.glob("lib*"))):
        state = each.stat()
        digest.update(f"{each.name}:{state.st_size}:{state.st_mtime_ns}".encode())
    return LlamaBench(path, options, text, f"llama-bench-{digest.hexdigest()[:12]}")


def measure_with_llama_bench(
    program: LlamaBench,
    file: Path,
    settings: Settings,
    tests: Sequence[Test],
    *,
    model: str,
    quantization: str,
    machine_key: str,
    layers: int,
    contents: Contents,
    budget_s: float,
    effort: Effort = "full",
    progress: Progress = no_progress,
) -> Measurement:
    """Time ``tests`` on ``file`` with ``program``: a round that does not count, then as many as the budget allows.

    At least three rounds are timed, whatever they take. Raises :class:`UsageError` for a setting that the program does
    not know, :class:`EngineError` with its last words where it fails, :class:`EngineDiedError` where it hangs.
    """
    race = _Race(program, file, settings, _groups(settings, tests))
    progress("warming up", 0.0, budget_s)
    begin = time.monotonic()
    told = race.round(_FIRST_ROUND_S)
    deadline_s = _GRACE_S + _PATIENCE * (time.monotonic() - begin)
    watch = Watch(threads=max(group.threads for group in race.groups))
    limits, rounds, begin = EFFORTS[effort], list[dict[tuple[int, Test], ImportedRow]](), time.monotonic()
    while True:
        progress("timing", min(len(rounds) / limits.repetitions, 1.0), budget_s)
        rounds.append(race.round(deadline_s))
        enough = len(rounds) >= limits.repetitions and all(relative_mad(each) <= _STEADY for each in _samples(rounds))
        out_of_time = (time.monotonic() - begin) * (len(rounds) + 1) / len(rounds) > budget_s
        if len(rounds) >= limits.most or (len(rounds) >= limits.at_least and (enough or out_of_time)):
            break
    conditions = watch.finish()
    results = [_result(key, samples) for key, samples in zip(told, _samples(rounds), strict=True)]
    found = [f"{each.test.words}: {why}" for each in results for why in disturbances(each.samples_ns)]
    notes = [
        f"{each.test.words}: {note}"
        for each in results
        for note in (noise_note(each.samples_ns), outlier_note(each.samples_ns))
        if note is not None
    ]
    return Measurement(
        model=model,
        quantization=quantization,
        settings=settings,
        engine_build=program.build,
        machine_key=machine_key,
        taken_at=datetime.now(UTC).isoformat(timespec="seconds"),
        layers_timed=layers,
        layers_total=layers,
        results=tuple(results),
        conditions=msgspec.structs.replace(conditions, disturbed=(*conditions.disturbed, *found)),
        contents=contents,
        engine="llama-bench",
        described=next(iter(told.values())).described,
        notes=tuple(dict.fromkeys(notes)),
    )


class _Race:
    """The calls of one round, and what each of them brought."""

    def __init__(self, program: LlamaBench, file: Path, settings: Settings, groups: Sequence[_Group]) -> None:
        self._program = program
        self._waiting = settings.openmp_wait
        self.groups = groups
        common = [str(program.path), "-m", str(file), "-o", "json", "-r", "1", *arguments(program, settings)]
        self._calls = [[*common, "-t", str(group.threads), *_tests(group.tests)] for group in groups]

    def round(self, deadline_s: float) -> dict[tuple[int, Test], ImportedRow]:
        """One repetition of every test, in the order of the tests, by threads and test."""
        found: dict[tuple[int, Test], ImportedRow] = {}
        for group, call in zip(self.groups, self._calls, strict=True):
            rows = {row.test: row for row in self._ask(call, deadline_s)}
            for test in group.tests:
                row = rows.get(msgspec.structs.replace(test, threads=None))
                if row is None or not row.samples_ns:
                    raise EngineError(
                        f"{self._program.path.name} did not time {test.words}",
                        hint="run it by hand with -o json; a build that prints no samples_ns is too old",
                    )
                found[group.threads, test] = row
        return found

    def _ask(self, call: Sequence[str], deadline_s: float) -> Sequence[ImportedRow]:
        waits = waiting_environment(self._waiting)
        environment = {name: value for name, value in {**os.environ, **waits}.items() if value or name not in waits}
        name = self._program.path.name
        try:
            told = subprocess.run(call, capture_output=True, timeout=deadline_s, check=False, env=environment)
        except subprocess.TimeoutExpired as error:
            raise EngineDiedError(f"{name} gave no answer in {deadline_s:.0f} s", how="hung") from error
        except OSError as error:
            raise EngineError(f"{name} cannot be run: {error}", hint="name the llama-bench executable") from error
        words = told.stderr.decode("utf-8", "replace").strip()
        if told.returncode != 0:
            last = " / ".join(words.splitlines()[-2:]) or "it said nothing"
            raise EngineError(f"{name} ended with code {told.returncode}: {last}", hint="run it by hand to see more")
        try:
            return read_rows(told.stdout.decode("utf-8", "replace"), name)[1]
        except BadInputError as error:
            raise EngineError(f"the answer of {error.message}", hint=error.hint) from error


def _groups(settings: Settings, tests: Sequence[Test]) -> list[_Group]:
    """Tests by threads and by what one call can name: every test of a call is run at every depth of that call."""
    found: list[_Group] = []
    for threads in dict.fromkeys(test.threads or settings.threads for test in tests):
        mine = [test for test in tests if (test.threads or settings.threads) == threads]
        depths = {depth: [test for test in mine if test.depth == depth] for depth in {test.depth for test in mine}}
        if len({frozenset(test.short for test in each) for each in depths.values()}) == 1:
            found.append(_Group(threads, tuple(mine)))
        else:
            found.extend(_Group(threads, tuple(depths[depth])) for depth in sorted(depths))
    return found


def _tests(tests: Sequence[Test]) -> list[str]:
    """The options that name the tests of one call; zero stands for no such test."""
    prompts = dict.fromkeys(test.tokens for test in tests if test.kind == "prompt")
    answers = dict.fromkeys(test.tokens for test in tests if test.kind == "generate")
    pairs = {(test.prompt_tokens, test.tokens - test.prompt_tokens): None for test in tests if test.kind == "mixed"}
    mixed = [word for prompt, answer in pairs for word in ("-pg", f"{prompt},{answer}")]
    depths = _joined(dict.fromkeys(test.depth for test in tests))
    return [
        "-p",
        _joined(prompts) or "0",
        "-n",
        _joined(answers) or "0",
        *mixed,
        *([] if depths == "0" else ["-d", depths]),
    ]


def _joined(values: Iterable[int]) -> str:
    return ",".join(map(str, values))


def arguments(program: LlamaBench, settings: Settings) -> list[str]:
    """The options for what ``settings`` change; what is llama-bench's own default is left out, for older builds' sake.

    Raises :class:`UsageError` for a setting that this build does not know.
    """
    old_flash = re.search(r"--flash-attn <0\|1>", program.help) is not None
    flash = {"on": "1", "off": "0"}.get(settings.flash_attention) if old_flash else settings.flash_attention
    newer = "-lm" in program.options
    overrides = ";".join(f"{pattern}={buffer}" for pattern, buffer in settings.tensor_overrides)
    # Each: the option, its value, and whether it is wanted.
    wanted = [
        ("-b", str(settings.batch), settings.batch != 2048),
        ("-ub", str(settings.ubatch), settings.ubatch != 512),
        ("-ctk", settings.cache_type_k, settings.cache_type_k != "f16"),
        ("-ctv", settings.cache_type_v, settings.cache_type_v != "f16"),
        ("-fa", flash or "", settings.flash_attention != "auto"),
        ("-lm", settings.load_mode, settings.load_mode != "mmap" and newer),
        ("-mmp", "0", settings.load_mode == "none" and not newer),
        ("--load-mode", settings.load_mode, settings.load_mode not in {"mmap", "none"} and not newer),
        ("-lzm", settings.lazy_mode, settings.lazy_mode != "auto"),
        ("--repack", "0", not settings.repack),
        ("-ngl", str(settings.gpu_layers), settings.gpu_layers >= 0),
        ("-ncmoe", str(settings.cpu_moe_layers if settings.cpu_moe_layers > 0 else 999), settings.cpu_moe_layers != 0),
        ("-sm", settings.split_mode, settings.split_mode != "layer"),
        ("-mg", str(settings.main_gpu), settings.main_gpu != 0),
        ("-ts", "/".join(f"{share:g}" for share in settings.tensor_split), bool(settings.tensor_split)),
        ("-ot", overrides, bool(overrides)),
        ("-nkvo", "1", not settings.kv_offload),
        ("-nopo", "1", not settings.op_offload),
        ("--no-host", "1", not settings.host_buffer),
    ]  # fmt: skip
    found: list[str] = []
    for option, value, asked in wanted:
        if not asked:
            continue
        if option not in program.options:
            raise UsageError(
                f"this llama-bench knows no {option}", hint="leave that setting out, or take a newer build"
            )
        found += [option, value]
    return found


def _samples(rounds: Sequence[dict[tuple[int, Test], ImportedRow]]) -> list[tuple[int, ...]]:
    """Nanoseconds by test, one for each round."""
    return [tuple(each[key].samples_ns[0] for each in rounds) for key in rounds[0]]


def _result(key: tuple[int, Test], samples: tuple[int, ...]) -> TestResult:
    test = key[1]
    return TestResult(
        test=test, tokens_timed=test.tokens, samples_ns=samples, tokens_per_s=spread(rates(test.tokens, samples))
    )
