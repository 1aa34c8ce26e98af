"""Somebody's own llama-bench: what it is told, how often, and what becomes of its failures.

The program here is a script that answers as llama-bench does, in the order and with the fields that a real one was seen
to use. With ``PLANNER_LLAMA_BENCH`` the real one is run as well.
"""

import os
import stat
import sys
from pathlib import Path

import pytest

from planner.engine.phantom import write_phantom
from planner.errors import EngineDiedError, EngineError, MissingInputError, UsageError
from planner.measure import llama_bench_run
from planner.measure.llama_bench_run import arguments, find_llama_bench, measure_with_llama_bench
from planner.types.measurement import Measurement
from planner.types.measurement import Test as Timed
from planner.types.settings import Settings

SCRIPT = '''#!{python}
import json, os, sys, time
words = sys.argv[1:]
HELP = """usage: llama-bench
  -m, --model <f>   -p, --n-prompt <n>  -n, --n-gen <n>  -pg <pp,tg>  -d, --n-depth <n>  -o, --output <f>
  -b, --batch-size <n>  -ub, --ubatch-size <n>  -ctk, --cache-type-k <t>  -ctv, --cache-type-v <t>  -t, --threads <n>
  -fa, --flash-attn <{flash}>  -lm, --load-mode <m>  -ngl, --n-gpu-layers <n>  -r, --repetitions <n>
"""
if "--help" in words:
    print(HELP); sys.exit(0)
with open({log!r}, "a") as log:
    log.write(json.dumps([words, os.environ.get("OMP_WAIT_POLICY")]) + "\\n")
{extra}
def option(name, default):
    return [words[at + 1] for at, word in enumerate(words) if word == name] or [default]
def numbers(text):
    return [int(each) for each in text.split(",") if int(each)]
tests = [(p, 0) for p in numbers(option("-p", "512")[0])] + [(0, n) for n in numbers(option("-n", "128")[0])]
tests += [tuple(map(int, pair.split(","))) for pair in option("-pg", "0,0") if pair != "0,0"]
print(json.dumps([
    {{"build_commit": "abc", "build_number": 7, "cpu_info": "c", "gpu_info": "", "backends": "CPU",
      "model_filename": option("-m", "")[0], "model_type": "t", "model_size": 10, "model_n_params": 20,
      "n_threads": int(option("-t", "1")[0]), "n_prompt": p, "n_gen": g, "n_depth": d,
      "avg_ts": (p + g) * 1e9 / 2000000, "stddev_ts": 0.0, "samples_ns": [2000000]}}
    for p, g in tests for d in (list(map(int, option("-d", "0")[0].split(","))))
]))
'''
SETTINGS = Settings(context_tokens=512, threads=2, threads_batch=2)
TESTS = (
    Timed(kind="prompt", tokens=32),
    Timed(kind="generate", tokens=8),
    Timed(kind="mixed", tokens=20, prompt_tokens=16),
)


@pytest.fixture
def script(tmp_path: Path):
    """Makes the script, with a few lines of trouble where they are wanted; its calls stand in ``calls``."""

    def make(extra: str = "", flash: str = "on|off|auto") -> Path:
        path = tmp_path / "llama-bench"
        text = SCRIPT.format(python=sys.executable, log=str(tmp_path / "calls"), extra=extra, flash=flash)
        path.write_text(text, encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path

    return make


def measured(path: Path, tests: tuple[Timed, ...] = TESTS, settings: Settings = SETTINGS, **more) -> Measurement:
    """A quick measurement of a file that the script never opens."""
    program = find_llama_bench(path)
    named = {"model": "m", "quantization": "q", "machine_key": "k", "layers": 1, "contents": "file", "budget_s": 2.0}
    return measure_with_llama_bench(
        program, more.pop("file", Path("a.gguf")), settings, tests, effort="quick", **{**named, **more}
    )


def test_rounds_run_over_all_tests_and_the_first_does_not_count(script, tmp_path):
    """One call a round with every test and depth in it; at least three counted; the policy of waiting is handed on."""
    deep = tuple(
        Timed(kind=t.kind, tokens=t.tokens, prompt_tokens=t.prompt_tokens, depth=d) for d in (0, 64) for t in TESTS
    )
    found = measured(script(), deep)
    calls = (tmp_path / "calls").read_text().splitlines()
    counts = {len(result.samples_ns) for result in found.results}
    assert counts == {len(calls) - 1}
    assert min(counts) >= 3
    assert [result.test for result in found.results] == list(deep)
    assert all(f'"{word}"' in calls[0] for word in ("-r", "-pg", "16,4", "0,64", "passive"))
    assert found.results[2].tokens_per_s.median == pytest.approx(20 * 1e9 / 2e6)
    assert (found.engine, found.contents, found.described.build_commit) == ("llama-bench", "file", "abc")
    assert found.engine_build.startswith("llama-bench-")


def test_threads_are_calls_of_their_own(script, tmp_path):
    """llama-bench would run every test at every number of threads; here only what was asked for."""
    tests = (Timed(kind="generate", tokens=8, threads=1), Timed(kind="prompt", tokens=32, threads=2))
    found = measured(script(), tests)
    assert [result.test.threads for result in found.results] == [1, 2]
    first, second = (tmp_path / "calls").read_text().splitlines()[:2]
    assert '"-t", "1", "-p", "0", "-n", "8"' in first
    assert '"-t", "2", "-p", "32", "-n", "0"' in second


def test_only_what_differs_from_llama_benchs_defaults_is_named(script):
    """So that older builds understand; what a build does not know is refused by name."""
    program = find_llama_bench(script())
    assert arguments(program, SETTINGS) == []
    changed = Settings(context_tokens=512, ubatch=256, cache_type_k="q8_0", flash_attention="on", gpu_layers=7)
    assert arguments(program, changed) == ["-ub", "256", "-ctk", "q8_0", "-fa", "on", "-ngl", "7"]
    old = find_llama_bench(script(flash="0|1"))
    assert arguments(old, changed)[4:6] == ["-fa", "1"]
    with pytest.raises(UsageError, match="no --repack"):
        arguments(program, Settings(context_tokens=512, repack=False))


@pytest.mark.parametrize(
    ("extra", "error", "words"),
    [
        ("sys.stderr.write('no such model\\n'); sys.exit(1)", EngineError, "code 1: no such model"),
        ("print('hello'); sys.exit(0)", EngineError, "not what llama-bench writes"),
        ("words = words[:words.index('-n')] + ['-n', '0']", EngineError, "did not time tg8"),
        ("os.kill(os.getpid(), 9)", EngineError, "code -9"),
    ],
)
def test_a_failure_is_told_in_the_programs_own_words(script, extra, error, words):
    """And is no measurement."""
    with pytest.raises(error, match=words):
        measured(script(extra))


def test_a_program_that_hangs_is_ended(script, monkeypatch):
    """Whatever the first round may take elsewhere."""
    monkeypatch.setattr(llama_bench_run, "_FIRST_ROUND_S", 0.5)
    with pytest.raises(EngineDiedError, match="no answer"):
        measured(script("time.sleep(60)"))


def test_what_is_no_llama_bench_is_refused(tmp_path):
    """A missing file, a file that cannot run, another program."""
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(MissingInputError):
            find_llama_bench(path)
    with pytest.raises(UsageError, match="no llama-bench"):
        find_llama_bench(Path(sys.executable))


@pytest.mark.skipif("PLANNER_LLAMA_BENCH" not in os.environ, reason="PLANNER_LLAMA_BENCH names no llama-bench")
def test_a_real_llama_bench_times_a_phantom(tiny, tmp_path):
    """The program itself, all three kinds of test, at a depth."""
    path = tmp_path / "tiny.gguf"
    write_phantom(path, tiny())
    tests = tuple(Timed(kind=t.kind, tokens=t.tokens, prompt_tokens=t.prompt_tokens, depth=32) for t in TESTS)
    found = measured(Path(os.environ["PLANNER_LLAMA_BENCH"]), tests, file=path, contents="phantom")
    assert [result.test for result in found.results] == list(tests)
    assert all(min(result.samples_ns) > 0 for result in found.results)
    assert found.described.parameters is not None
