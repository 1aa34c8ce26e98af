"""A tuning as text and commands: every trial beside its anchor, the process's surroundings in front, doubts told."""

import ast

import pytest
from msgspec.structs import replace

from planner.render.style import WIDTH
from planner.render.tune import python_call, server_command, tuning_text
from planner.types.tuning import Setup


def test_the_text_names_what_was_tried_what_won_and_what_was_left_out(tuning):
    """Ratios with intervals, the outcome of each race, the command."""
    text = tuning_text(tuning)
    for words in ("1.31 (1.27 to 1.35)", "accepted", "no gain", "unusable (refused)", "ubatch 256", "8 layers of 36"):
        assert words in text
    assert "taskset --cpu-list 0,2,4,6" in " ".join(text.split()).replace(" \\", "")
    assert all(len(line) <= WIDTH for line in text.splitlines())


def test_the_python_call_is_printed_line_by_line(tuning):
    """What is copied from a terminal runs."""
    code = python_call(tuning.recommended, {}, weights_file="m.gguf", offload=False)
    text = tuning_text(replace(tuning, llama_cpp_python=code))
    begin = text.index("Or from Python")
    assert text[begin:].count("\n    ") > 10
    assert "  import llama_cpp\n" in text


def test_a_disturbed_tuning_recommends_nothing(tuning):
    """No command that somebody might paste."""
    busy = replace(tuning.conditions, disturbed=("other processes used 1.0 of 2 CPUs",))
    text = tuning_text(replace(tuning, recommended=None, conditions=busy, llama_server=()))
    assert "nothing is recommended" in text
    assert "tune again" in text
    assert "llama-server" not in text


def test_defaults_that_were_not_beaten_are_called_so(tuning):
    """Not a table of gains of nothing."""
    beaten = replace(tuning, recommended=tuning.default, answer=None, generate=None)
    assert "llama.cpp's defaults: nothing of what there was time for was clearly faster" in tuning_text(beaten)
    assert "llama.cpp's defaults: nothing was clearly faster" in tuning_text(replace(beaten, not_tried=()))


def test_the_command_begins_with_the_mask_and_ends_with_numa(tuning):
    """``taskset`` confines all threads of the process, as the race did."""
    setup = tuning.recommended
    command = server_command(setup, weights_file="m.gguf", offload=False)
    assert command[:5] == ("taskset", "--cpu-list", "0,2,4,6", "llama-server", "--model")
    assert command[-2:] == ("--numa", "distribute")
    plain = server_command(tuning.default, weights_file="m.gguf", offload=False)
    assert plain[0] == "llama-server"
    assert "--numa" not in plain


@pytest.mark.parametrize("waiting", ["default", "passive", "active"])
def test_the_python_call_is_python_and_says_what_cannot_be_set_inside(tuning, waiting):
    """The waiting before the import, the mask too, the C library's pages before Python itself."""
    settings = replace(tuning.recommended.settings, repack=False, openmp_wait=waiting)
    setup = replace(tuning.recommended, settings=settings)
    text = python_call(setup, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}, weights_file="m.gguf", offload=False)
    ast.parse(text)
    assert ("OMP_WAIT_POLICY" in text) == (waiting != "default")
    assert "sched_setaffinity(0, {0, 2, 4, 6})" in text
    assert "GLIBC_TUNABLES=glibc.malloc.hugetlb=1" in text
    assert "repacking cannot be switched off here" in text
    assert text.index("setaffinity") < text.index("import llama_cpp")
    bare = python_call(Setup(settings=setup.settings), {}, weights_file="m.gguf", offload=False)
    assert "setaffinity" not in bare
