"""A tuning as text and as commands: what was tried with its ratio to the anchor, what is recommended, how to run it.

The mistake it prevents: settings without their surroundings. Pinning, pages and waiting belong to the process, so the
command begins with them, and the Python call says what must stand before it.
"""

from collections.abc import Iterator, Sequence

from planner import units
from planner.render.layout import INDENT, bullets, columns, facts, paragraph, section
from planner.render.llama_cpp_python import arguments
from planner.render.llama_server import argv, shell_lines
from planner.render.printable import printable
from planner.render.style import PLAIN, WIDTH, Style
from planner.render.text import finish, settings_lines
from planner.render.untrusted import cleaned
from planner.render.waiting import waits
from planner.types.tuning import Ratio, Setup, Trial, Tuning

__all__ = ["python_call", "server_command", "tuning_text"]

_ADVICE = "close what else computes, plug the machine in, and tune again; nothing was kept"
_WORDS = {"no-gain": "no gain", "accepted": "accepted"}


def server_command(
    setup: Setup, *, weights_file: str, offload: bool, yarn: tuple[int, int] | None = None
) -> tuple[str, ...]:
    """The argv of ``llama-server`` under this setup; ``taskset`` before it where threads are confined to CPUs."""
    pinned = ("taskset", "--cpu-list", ",".join(map(str, setup.cpus))) if setup.cpus else ()
    numa = () if setup.numa == "off" else ("--numa", setup.numa)
    return (*pinned, *argv(setup.settings, weights_file=weights_file, offload=offload, yarn=yarn), *numa)


def python_call(setup: Setup, environment: dict[str, str], *, weights_file: str, offload: bool) -> str:
    """Python that makes a ``llama_cpp.Llama`` of this setup, with what must be set before the import."""
    given = arguments(setup.settings, offload=offload)
    if setup.numa != "off":
        given["numa"] = f"llama_cpp.GGML_NUMA_STRATEGY_{setup.numa.upper()}"
    lines = ["import os", ""]
    if "GLIBC_TUNABLES" in environment:
        # The C library reads it when the process starts: too late from inside.
        lines.append(f"# start Python with GLIBC_TUNABLES={environment['GLIBC_TUNABLES']}")
    waiting = setup.settings.openmp_wait
    if waiting != "default":
        lines.append(f'os.environ["OMP_WAIT_POLICY"] = "{waiting}"  # read when llama_cpp is imported')
    if setup.cpus:
        lines.append(f"os.sched_setaffinity(0, {set(setup.cpus)})")
    if not setup.settings.repack:
        lines.append("# repacking cannot be switched off here; llama-server can")
    lines += ["import llama_cpp", "", "llm = llama_cpp.Llama(", f"    model_path={weights_file!r},"]
    return "\n".join([*lines, *(f"    {name}={value}," for name, value in given.items()), ")", ""])


def tuning_text(tuning: Tuning, style: Style = PLAIN) -> str:
    """What was tried, what is recommended and gains how much, the command, the call, and what was wrong."""
    told = cleaned(tuning)
    lines = [*(style.heading(line) for line in paragraph(_title(told), indent="")), ""]
    lines += section("Tried, one against the other", _table(told.trials), style)
    if told.recommended is not None:
        lines += section("Recommended", _recommended(told, told.recommended, style), style)
        command = shell_lines(told.llama_server, told.environment, width=WIDTH, indent=INDENT)
        lines += section("Run", command, style)
        lines += section("Or from Python", _code(tuning), style)
    lines += section("How it was timed", paragraph(facts([*_about(told)], style)), style)
    left = [f"no time was left to try {', '.join(told.not_tried)}"] if told.not_tried else []
    lines += section("Notes", bullets([*told.notes, *left], style), style)
    if told.conditions.disturbed:
        title = style.bad("Disturbed: nothing is recommended")
        lines += section(title, bullets([*told.conditions.disturbed, _ADVICE], style), style)
    return finish(lines)


def _code(tuning: Tuning) -> list[str]:
    """The call line by line: its line breaks are our own, what is in a line may be a stranger's."""
    return [f"{INDENT}{printable(line)}".rstrip() for line in tuning.llama_cpp_python.rstrip().split("\n")]


def _title(told: Tuning) -> str:
    request = f"{told.prompt_tokens} tokens read, {told.answer_tokens} written"
    return f"Tuning of {told.model} {told.quantization} for {told.use} ({request})"


def _table(trials: Sequence[Trial]) -> list[str]:
    header = ("setting", "option", "answer", "decode", "prompt", "to default", "pairs", "outcome")
    rows = [
        (
            trial.factor,
            trial.option,
            _times(trial.answer),
            _times(trial.generate),
            _times(trial.prompt),
            _interval(trial.to_default),
            str(_pairs(trial)),
            " ".join(filter(None, (_WORDS.get(trial.outcome, trial.outcome), trial.note and f"({trial.note})"))),
        )
        for trial in trials
    ]
    return columns(header, rows, right=range(2, 7)) if rows else []


def _pairs(trial: Trial) -> int:
    return max((each.pairs for each in (trial.answer, trial.generate, trial.prompt) if each is not None), default=0)


def _times(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f}"


def _interval(ratio: Ratio | None) -> str:
    return "" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _recommended(told: Tuning, setup: Setup, style: Style) -> list[str]:
    if setup == told.default:
        tried = " of what there was time for" if told.not_tried else ""
        lines = paragraph(f"llama.cpp's defaults: nothing{tried} was clearly faster")
    else:
        gains = ((told.answer, "a typical answer"), (told.generate, "decoding"), (told.prompt, "prompts"))
        words = [f"{name} {_interval(ratio)} times as fast as llama.cpp's defaults" for ratio, name in gains if ratio]
        lines = [line for each in words for line in paragraph(each)]
    return [*lines, *(line for fact in _settings(setup, style) for line in paragraph(fact))]


def _settings(setup: Setup, style: Style) -> Iterator[str]:
    settings = setup.settings
    yield from settings_lines(settings, style)
    yield facts(
        [
            f"{settings.threads} threads to decode, {settings.threads_batch} for prompts",
            waits(setup.settings.openmp_wait),
            f"on the CPUs {', '.join(map(str, setup.cpus))}" if setup.cpus else None,
            None if setup.numa == "off" else f"NUMA {setup.numa}",
            "huge pages" if setup.huge_pages else None,
        ],
        style,
    )


def _about(told: Tuning) -> Iterator[str | None]:
    part = "the whole model" if told.layers_timed == told.layers_total else f"{told.layers_timed} layers"
    of = "" if told.layers_timed == told.layers_total else f" of {told.layers_total}"
    yield f"{part}{of}, {'its file' if told.contents == 'file' else 'a phantom'}"
    yield f"{units.duration(told.seconds)} in all"
    yield f"engine build {told.engine_build}"
    yield f"taken at {told.taken_at}"
