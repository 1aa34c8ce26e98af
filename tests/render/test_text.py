import os
import re
from dataclasses import dataclass
from typing import get_args

import pytest
from msgspec.structs import replace

from planner.render.commands import commands
from planner.render.detect import machine_text
from planner.render.estimate import estimate_text
from planner.render.inspect import inspection_text
from planner.render.local import local_text, shortened
from planner.render.measure import measurement_text
from planner.render.models import models_text
from planner.render.plan import plan_text
from planner.render.rejected import REASON_WORDS
from planner.render.show import show_text
from planner.render.style import PLAIN, WIDTH, Style
from planner.render.why_not import why_not_text
from planner.types.plan import Candidate, DeviceMemory, Reason, ReasonCode
from planner.types.quality import Capability

CAPABILITIES = (
    Capability(group="chat", thinking=False, index=80.9, low=77.8, high=83.7, origin="measured", scores=9),
    Capability(group="code", thinking=True, index=66.1, low=60.2, high=71.4, origin="related"),
)
ASCII = Style(colour=False, unicode=False)


@dataclass(frozen=True)
class Answer:
    """A why-not answer as the workflow gives it."""

    model: str
    quantization: str | None
    chosen: str | None
    reason: Reason
    candidate: Candidate | None


@pytest.fixture
def texts(plan, chosen, model, known, inspection, measurement, local):
    """Every text renderer applied to the sample, by the name of its golden file."""
    why_not = Answer("qwen3-32b", "Q4_K_M", "qwen3-8b:Q4_K_M", Reason(code="too-big", text="It needs 20 GiB."), chosen)
    nothing = replace(plan, chosen=None, alternatives=(), pareto=(), trade_off="", commands=None, reasons=())
    listed = replace(inspection, contents=None, notes=("the listing is of yesterday",))
    return {
        "inspect": lambda style: inspection_text(inspection, style),
        "listing": lambda style: inspection_text(listed, style),
        "measure": lambda style: measurement_text(measurement, style),
        "local": lambda style: local_text(local, home="/homes/somebody", style=style),
        "plan": lambda style: plan_text(plan, style),
        "nothing": lambda style: plan_text(nothing, style),
        "machine": lambda style: machine_text(
            replace(plan.machine, notes=(*plan.machine.notes, "no engine was asked")), style
        ),
        "estimate": lambda style: estimate_text(chosen, style),
        "models": lambda style: models_text([model], [known], ["qwen3-vl-2b"], style=style),
        "show": lambda style: show_text(model, CAPABILITIES, style=style),
        "known": lambda style: show_text(known, style=style),
        "why-not": lambda style: why_not_text(why_not, style),
    }


NAMES = (
    "plan", "nothing", "machine", "estimate", "models", "show", "known", "why-not", "inspect", "listing", "measure",
    "local",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_text_is_the_committed_one(name, texts, samples):
    """A change of wording shows in the diff; PLANNER_UPDATE_GOLDEN=1 writes it anew."""
    golden = samples / f"{name}.txt"
    if os.environ.get("PLANNER_UPDATE_GOLDEN"):
        golden.write_text(texts[name](PLAIN), encoding="utf-8")
    assert texts[name](PLAIN) == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_no_line_is_wider_than_the_terminal_and_the_text_ends_with_one_newline(name, texts):
    """A hundred columns, in both alphabets."""
    for style in (PLAIN, ASCII):
        text = texts[name](style)
        assert max(len(line) for line in text.splitlines()) <= WIDTH
        assert text.endswith("\n")
        assert not text.endswith("\n\n")
        assert not any(line != line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("name", NAMES)
def test_colour_adds_nothing_but_escapes(name, texts):
    """Without its escape sequences the coloured text is the plain one: no meaning lives in colour."""
    coloured = texts[name](Style(colour=True))
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9]*m", "", coloured) == texts[name](PLAIN)


@pytest.mark.parametrize("name", ["plan", "nothing", "estimate", "why-not", "inspect", "measure"])
def test_a_terminal_without_unicode_gets_ascii(name, texts):
    """An old locale sees letters, not question marks."""
    assert texts[name](ASCII).isascii()


def test_every_reason_code_has_words():
    """A new reason cannot be forgotten in the summary."""
    assert set(REASON_WORDS) == set(get_args(ReasonCode))


def test_a_plan_that_chose_nothing_says_so_and_offers_a_way_on(texts):
    """No half empty sections, but a next step."""
    text = texts["nothing"](PLAIN)
    assert text.startswith("Nothing meets the goal on this machine.")
    assert "--min-speed" in text
    assert "Choice" not in text
    assert "llama-server" not in text


def test_a_plan_for_another_machine_never_speaks_of_this_one(plan):
    """The name of the described machine stands where "this machine" would."""
    other = replace(plan, machine=replace(plan.machine, kind="described", name="epyc-768gb"), chosen=None)
    text = plan_text(other)
    assert text.startswith("Nothing meets the goal on epyc-768gb.")
    assert "Machine (not this one)" in text
    assert "epyc-768gb (described)" in text


def test_equal_gpus_are_counted_and_others_are_not(plan):
    """Eight times the same paragraph helps nobody."""
    gpu = plan.machine.gpus[0]
    gpus = (*(replace(gpu, index=index) for index in range(8)), replace(gpu, index=8, name="Other"))
    text = machine_text(replace(plan.machine, gpus=gpus))
    assert "GPU 0 to 7  Radeon 780M" in text
    assert "GPU 8       Other" in text
    assert "8 × Radeon 780M" in plan_text(replace(plan, machine=replace(plan.machine, gpus=gpus)))


def test_an_unmeasured_speed_never_looks_measured(plan, chosen):
    """Predicted numbers say predicted in the choice and carry a sign in the table."""
    assert chosen.speed.generate is not None
    guess = replace(chosen, speed=replace(chosen.speed, generate=replace(chosen.speed.generate, origin="predicted")))
    text = plan_text(replace(plan, chosen=guess))
    line = next(line for line in text.splitlines() if "writes an answer" in line)
    assert "predicted" in line
    assert "measured on" not in line
    assert "≈13.2" in text


def test_an_unknown_speed_is_called_unknown(plan, chosen):
    """None is not zero tokens per second."""
    speed = replace(chosen.speed, generate=None, prompt=None, generate_at_depth=None)
    text = plan_text(replace(plan, chosen=replace(chosen, speed=speed)))
    assert "writes an answer   unknown" in text
    assert "per second" not in text.splitlines()[0]


def test_what_does_not_fit_says_where_and_how_much_is_missing(chosen):
    """The verdict names the device and the gap."""
    memory = chosen.memory[0]
    short = replace(chosen, verdict="too-big", memory=(replace(memory, available_bytes=memory.total_bytes),))
    assert "does not fit; CPU lacks 1.00 GiB" in estimate_text(short)


def test_nine_devices_stay_inside_the_terminal(chosen):
    """Eight GPUs and the CPU: the table breaks between devices, never inside one."""
    memory = chosen.memory[0]
    devices = tuple(replace(memory, device=name) for name in ("CPU", *(f"CUDA{index}" for index in range(8))))
    text = estimate_text(replace(chosen, memory=devices))
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert all(f"CUDA{index}" in text for index in range(8))


def test_the_shell_command_of_the_plan_is_the_argv_of_the_plan(plan):
    """What a person pastes is what a program reads: the printed lines parse back to environment and argv."""
    import shlex

    text = plan_text(plan)
    start = text.index("OMP_WAIT_POLICY=")
    pasted = text[start : text.index("\n\n", start)].replace("\\\n", " ")
    assert plan.commands is not None
    words = [f"{name}={value}" for name, value in plan.commands.environment.items()]
    assert shlex.split(pasted) == [*words, *plan.commands.llama_server]


def test_the_sample_plan_has_the_commands_that_are_rendered_today(plan, chosen, model):
    """The golden text stays honest: its commands come from the renderer, not from an old file."""
    assert plan.commands == commands(chosen, model)


def test_an_empty_catalogue_is_a_sentence():
    """No header above nothing."""
    assert models_text([]) == "No model of the catalogue is all of that.\n"


def test_unknown_memory_is_called_unknown(chosen):
    """A device that does not tell its memory shows what is needed and claims nothing about what is left."""
    memory: DeviceMemory = replace(chosen.memory[0], available_bytes=None)
    text = estimate_text(replace(chosen, memory=(memory,)))
    assert re.search(r"available +unknown", text)
    assert re.search(r"left over +unknown", text)


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/homes/me/x.gguf", "~/x.gguf"),
        ("/homes/meadow/x.gguf", "/homes/meadow/x.gguf"),
        ("/homes/me/" + "a/" * 60 + "x.gguf", "~/" + "a/" * 9 + "…/x.gguf"),
        ("/data/" + "y" * 80 + ".gguf", "/…/" + "y" * 80 + ".gguf"),
    ],
)
def test_a_long_path_keeps_its_end(path, short):
    """The home folder is a tilde, folders in the middle go first, the name never."""
    assert shortened(path, "/homes/me", 28) == short


def test_a_set_that_lacks_a_part_says_so(texts):
    """In the listing of a repository and in that of this machine."""
    assert re.search(r"LM Studio .* lacks 1 ", texts["local"](PLAIN))
    assert re.search(r"Q6_K .* 1 of 2 ", texts["listing"](PLAIN))


def test_a_disturbed_measurement_warns_before_anybody_copies_a_number(texts):
    """The word stands in the text and what to do beside it."""
    text = texts["measure"](PLAIN)
    assert "do not use these numbers" in text
    assert "measure again" in text
    assert "composed from slices" in text


def test_a_setting_that_few_people_set_is_said_where_it_is_set():
    """Two configurations that hold different memory never read the same."""
    from msgspec.structs import replace

    from planner.render.text import settings_lines
    from planner.types.settings import Settings

    usual = Settings(context_tokens=4096)
    changes = (
        {"kv_unified": True}, {"swa_full": True}, {"lazy_mode": "off"}, {"split_mode": "row"}, {"main_gpu": 1},
        {"tensor_split": (3.0, 1.0)}, {"tensor_overrides": (("exps", "CPU"),)}, {"host_buffer": False},
        {"kv_offload": False}, {"op_offload": False}, {"speculation": "draft-mtp"}, {"speculation": "draft-simple"},
        {"cpu_moe_layers": -1}, {"repack": False},
    )  # fmt: skip
    lines = [settings_lines(usual, ASCII), *(settings_lines(replace(usual, **each), ASCII) for each in changes)]
    assert len({tuple(each) for each in lines}) == len(lines)
    assert len(lines[0]) == 2
