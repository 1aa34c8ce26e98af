import json
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from planner.measure.llama_bench import rows
from planner.render.json import to_json
from planner.render.llama_bench import FORMATS
from planner.types.plan import Goal

COMMANDS = (
    ("plan",),
    ("detect",),
    ("models",),
    ("show", "qwen3-8b"),
    ("models", "--local"),
    ("inspect", "hf:sample/Sample-30B-A3B-GGUF:Q4_K_M"),
    ("estimate", "qwen3-8b"),
    ("measure", "qwen3-8b"),
    ("measure", "--list"),
    ("measure", "--import", "theirs.csv"),
    ("tune", "qwen3-8b"),
    ("why-not", "qwen3-32b"),
    ("schema", "plan"),
    ("schema", "why-not"),
)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_json_is_exactly_one_document_and_stderr_is_silent(words, invoke):
    """A script reads stdout whole."""
    code, out, err = invoke(*words, "--json")
    assert code == 0
    assert isinstance(json.loads(out), dict)
    assert out.endswith("}\n")
    assert err == ""


@pytest.mark.parametrize("words", COMMANDS[:-2], ids=" ".join)
def test_text_for_people_is_no_json_and_has_no_colour_in_a_pipe(words, invoke):
    """Escapes never reach a file."""
    code, out, _ = invoke(*words)
    assert code == 0
    assert not out.startswith("{")
    assert "\x1b" not in out


def test_every_option_of_the_goal_reaches_the_workflow(workflow, invoke):
    """One test for the whole wiring: nothing is dropped or renamed on the way."""
    words = (
        "plan --for code --context 32k --parallel 4 --min-speed 12.5 --family qwen --family deepseek "
        "--license commercial --machine rtx-4090 --model qwen3-8b --quant q4_k_m --kv-type q8_0 --load-mode none "
        "--reserve 2GiB --quick "
        "--engine-python /opt/python"
    )
    invoke(*words.split())
    (((goal,), named),) = workflow.calls
    assert goal == Goal(
        use="code",
        context_tokens=32768,
        parallel=4,
        min_tokens_per_s=12.5,
        families=("qwen", "deepseek"),
        commercial_license=True,
        model="qwen3-8b",
        quantization="Q4_K_M",
        cache_type="q8_0",
        load_mode="none",
        reserve_bytes=2 << 30,
    )
    assert named["machine"] == "rtx-4090"
    assert named["measure"] == "quick"
    assert named["engine_python"] == "/opt/python"


def test_without_options_the_goal_is_the_default_goal(workflow, invoke):
    """The command line has no second set of defaults."""
    invoke("plan")
    (((goal,), named),) = workflow.calls
    assert goal == Goal()
    assert named["measure"] == "full"
    invoke("plan", "--no-measure")
    assert workflow.calls[-1][1]["measure"] == "none"


def test_why_not_asks_for_the_same_goal_as_plan(workflow, invoke):
    """The answer is about the plan that the same options make."""
    options = ("--for", "reasoning", "--context", "4096", "--kv-type", "q8_0")
    invoke("plan", *options)
    invoke("why-not", "qwen3-32b:Q8_0", *options)
    (((plan_goal,), _), ((goal, name), _)) = workflow.calls
    assert goal == plan_goal
    assert name == "qwen3-32b:Q8_0"


def test_estimate_passes_on_what_was_given_and_leaves_out_the_rest(workflow, invoke):
    """Defaults live in the request alone."""
    invoke("estimate", "qwen3-8b")
    words = (
        "estimate qwen3-8b:q4_k_m --context 8192 --parallel 2 --kv-type q8_0 --load-mode mmap --ubatch 256 --batch 1k "
        "--flash-attention on --no-repack --gpu-layers -1 --cpu-moe-layers 3 --threads 2 --machine m --engine-python p "
        "--kv-type-v q4_0 --kv-unified --swa-full --outputs-max 4 --lazy-mode off --split-mode none --main-gpu 1 "
        "--tensor-split 3,1 --override-tensor a=CPU,b=CUDA0 --override-tensor c=CPU --no-host-buffer --no-kv-offload "
        "--no-op-offload --mtp --draft-tokens 2 --draft-kv-type q8_0 --draft-gpu-layers 0"
    )
    invoke(*words.split())
    bare, full = (positional[0] for positional, _ in workflow.calls)
    assert bare == workflow.EstimateRequest(model="qwen3-8b")
    assert full == workflow.EstimateRequest(
        model="qwen3-8b:q4_k_m",
        context_tokens=8192,
        parallel=2,
        cache_type_k="q8_0",
        cache_type_v="q4_0",
        load_mode="mmap",
        ubatch=256,
        batch=1024,
        flash_attention="on",
        repack=False,
        gpu_layers=-1,
        cpu_moe_layers=3,
        kv_unified=True,
        swa_full=True,
        outputs_max=4,
        lazy_mode="off",
        split_mode="none",
        main_gpu=1,
        tensor_split=(3.0, 1.0),
        tensor_overrides=(("a", "CPU"), ("b", "CUDA0"), ("c", "CPU")),
        host_buffer=False,
        kv_offload=False,
        op_offload=False,
        mtp=True,
        draft_tokens=2,
        draft_cache_type_k="q8_0",
        draft_cache_type_v="q8_0",
        draft_gpu_layers=0,
        threads=2,
        machine="m",
        engine_python="p",
    )


def test_tune_passes_on_what_was_given(workflow, invoke):
    """The use, the time and the caches to try go beside the request, the rest into it."""
    invoke("tune", "qwen3-8b")
    words = "tune hf:me/x --quant q8_0 --for code --context 8k --time-limit 30 --try-kv-type q8_0 --ubatch 256"
    invoke(*words.split())
    ((bare,), few), ((full,), many) = workflow.calls
    assert bare == workflow.EstimateRequest(model="qwen3-8b")
    assert (few["use"], few["budget_s"], few["cache_types"]) == ("chat", 60.0, ())
    assert full == workflow.EstimateRequest(model="hf:me/x", quantization="Q8_0", context_tokens=8192, ubatch=256)
    assert (many["use"], many["budget_s"], many["cache_types"]) == ("code", 30.0, ("q8_0",))


def test_a_tuning_that_recommends_nothing_ends_with_12(workflow, invoke):
    """A script sees that nothing may be used."""
    disturbed = replace(workflow.tune(), recommended=None)
    workflow.tune = lambda *_, **__: disturbed
    assert invoke("tune", "qwen3-8b")[0] == 12


def test_measure_passes_on_what_was_given_and_crosses_tests_with_depths(workflow, invoke):
    """Nothing is dropped; without words about tests the workflow takes its own."""
    invoke("measure", "qwen3-8b")
    words = (
        "measure hf:me/x --quant q8_0 --context 8k --parallel 2 --kv-type q8_0 --load-mode none --ubatch 256 "
        "--batch 1k --flash-attention on --gpu-layers -1 --cpu-moe-layers 3 --threads 2 --engine-python p --quick "
        "--tests tg32,PP64,tg32 --depth 0,4k --engine llama-bench=there/llama-bench"
    )
    invoke(*words.split())
    invoke("measure", "qwen3-8b", "--depth", "512")
    bare, full, deep = workflow.calls
    assert bare[0] == (workflow.EstimateRequest(model="qwen3-8b"),)
    assert (bare[1]["effort"], bare[1]["tests"]) == ("full", ())
    assert full[0][0] == workflow.EstimateRequest(
        model="hf:me/x",
        quantization="Q8_0",
        context_tokens=8192,
        parallel=2,
        cache_type_k="q8_0",
        cache_type_v="q8_0",
        load_mode="none",
        ubatch=256,
        batch=1024,
        flash_attention="on",
        gpu_layers=-1,
        cpu_moe_layers=3,
        threads=2,
        engine_python="p",
    )
    assert full[1]["effort"] == "quick"
    labels = ["tg32 x2", "pp64 x2", "tg32 x2 @ d4096", "pp64 x2 @ d4096"]
    assert [test.label for test in full[1]["tests"]] == labels
    assert [test.label for test in deep[1]["tests"]] == ["pp512 @ d512", "tg128 @ d512"]
    assert (bare[1]["llama_bench"], full[1]["llama_bench"]) == (None, Path("there/llama-bench"))


def test_measure_crosses_threads_sequences_and_a_prompt_with_its_answer(workflow, invoke):
    """Several threads are tests of their own, a single number is a setting; the context is made for all sequences."""
    invoke("measure", "x", "--tests", "pg512,128,tg8,pp64+tg16,pg4+2", "--threads", "1,2", "--parallel", "1,4")
    invoke("measure", "x", "--threads", "3", "--tests", "tg8")
    (many, one) = workflow.calls
    assert (many[0][0].threads, many[0][0].parallel) == (2, 4)
    tests = many[1]["tests"]
    names = ["pp512+tg128", "tg8", "pp64+tg16", "pp4+tg2"]
    assert [test.short for test in tests] == names * 4
    assert [test.threads for test in tests] == [1] * 8 + [2] * 8
    assert [test.sequences for test in tests] == ([1] * 4 + [4] * 4) * 2
    assert (one[0][0].threads, one[1]["tests"][0].threads) == (3, None)


@pytest.mark.parametrize("name", ["csv", "md", "sql", "jsonl"])
def test_measure_speaks_the_formats_of_llama_bench(workflow, invoke, name):
    """One table on stdout, doubts on stderr, and the code of the run."""
    code, out, _ = invoke("measure", "qwen3-8b", f"--{name}")
    assert code == 0
    sample = workflow.sample.measurements[0]
    assert out == FORMATS[name](rows(sample))


def test_imports_and_what_is_kept_are_printed(workflow, invoke):
    """As text and as documents."""
    code, out, _ = invoke("measure", "--import", "a.csv")
    assert (code, [call[0][0].name for call in workflow.calls]) == (0, ["a.csv"])
    assert "theirs.csv: 1 row of llama-bench's csv" in out
    code, out, _ = invoke("measure", "--list")
    assert "Measured" in out
    assert "Imported from theirs.csv" in out
    code, out, _ = invoke("measure", "--list", "--json")
    assert json.loads(out)["schema"] == "planner/kept/1"
    code, out, _ = invoke("measure", "x", "--against", "before.json")
    assert "against before.json" in out


@pytest.mark.parametrize(
    "words",
    [(), ("x", "--list"), ("--list", "--import", "a"), ("x", "--csv", "--json"), ("--list", "--md")],
    ids=str,
)
def test_measure_says_what_it_wants_one_thing_at_a_time(invoke, words):
    """A model, files to read, or the list."""
    code, out, err = invoke("measure", *words)
    assert code == 2
    assert "--list" in out + err


def test_a_disturbed_measurement_is_printed_and_ends_with_12(workflow, invoke, monkeypatch):
    """The numbers are there, marked; a script sees the code and the sentence."""
    sample = workflow.sample.measurements[0]
    disturbed = replace(sample, conditions=replace(sample.conditions, disturbed=("the machine runs on battery",)))
    monkeypatch.setattr(workflow, "measure", lambda *_, **__: disturbed)
    code, out, _ = invoke("measure", "qwen3-8b")
    assert code == 12
    assert "the machine runs on battery" in out
    assert "do not use these numbers" in out
    code, out, err = invoke("measure", "qwen3-8b", "--json")
    assert (code, err) == (12, "")
    assert json.loads(out)["conditions"]["disturbed"] == ["the machine runs on battery"]


def test_inspect_and_local_pass_on_their_words(workflow, invoke):
    """The reference, the quantization, the interpreter; every filter of the list."""
    invoke("inspect", "./x", "--quant", "q4_0", "--engine-python", "p")
    invoke("models", "--local", "--family", "qwen", "--fits", "--machine", "m", "--max-size", "8GiB")
    inspected, listed = workflow.calls
    assert inspected == (("./x",), {"quantization": "Q4_0", "engine_python": "p"})
    assert listed[0][0] == workflow.ModelFilter(families=("qwen",), fits=True, machine="m", max_bytes=8 << 30)


def test_a_plan_among_local_models_is_asked_for_as_such(workflow, invoke):
    """The goal says it."""
    invoke("plan", "--local")
    assert workflow.calls[-1][0][0] == Goal(local=True)


def test_an_error_with_tricks_in_it_is_letters(workflow, invoke, monkeypatch):
    """Names of files and words of servers come to errors, too."""
    from planner.errors import BadInputError

    def fail(*_, **__):
        raise BadInputError("x\x1b[2J\x9b\u202e.gguf: no sound GGUF", hint="\x07")

    monkeypatch.setattr(workflow, "inspect", fail)
    code, _, err = invoke("inspect", "./x")
    assert code == 65
    assert all(line.isprintable() for line in err.splitlines())
    _, out, _ = invoke("inspect", "./x", "--json")
    assert all(line.isprintable() for line in out.splitlines())
    assert json.loads(out)["error"]["message"].startswith("x\x1b[2J")


def test_a_plan_that_chose_nothing_is_printed_and_ends_with_10(workflow, invoke, monkeypatch):
    """Nothing that fits is an answer, in text and in JSON."""
    nothing = replace(workflow.sample, chosen=None, commands=None, alternatives=())
    monkeypatch.setattr(workflow, "plan", lambda *_, **__: nothing)
    code, out, _ = invoke("plan")
    assert code == 10
    assert out.startswith("Nothing meets the goal")
    code, out, _ = invoke("plan", "--json")
    assert code == 10
    assert json.loads(out)["chosen"] is None


def test_output_writes_the_json_plan_and_leaves_text_on_stdout(workflow, invoke, tmp_path):
    """The file is the document, stdout stays for people, and no temporary file stays behind."""
    file = tmp_path / "deep" / "plan.json"
    code, out, _ = invoke("plan", "--output", str(file))
    assert code == 0
    assert file.read_bytes() == to_json(workflow.sample)
    assert out.startswith("Run qwen3-8b")
    assert [path.name for path in file.parent.iterdir()] == ["plan.json"]
    _, out, _ = invoke("plan", "--json", "--output", str(file))
    assert out.encode() == file.read_bytes()


def test_detect_adds_the_workflows_notes_to_the_machine(invoke):
    """A missing engine is seen in both forms."""
    _, out, _ = invoke("detect", "--json")
    assert json.loads(out)["notes"][-1].startswith("engine not installed")
    _, out, _ = invoke("detect")
    assert "engine not installed" in out


def test_a_capture_is_saved_whole_and_stdout_keeps_the_machine(invoke, tmp_path):
    """The raw answers go to the file, one note to stderr."""
    file = tmp_path / "capture.json"
    code, out, err = invoke("detect", "--json", "--capture", str(file))
    assert code == 0
    assert file.read_bytes() == b'{"raw": true}\n'
    assert json.loads(out)["schema"] == "planner/machine/1"
    assert str(file) in err


def test_the_schemas_name_their_documents(invoke):
    """The printed schema is the committed one."""
    _, out, _ = invoke("schema", "plan")
    assert json.loads(out)["$defs"]["Plan"]["properties"]["schema"]["const"] == "planner/plan/1"


def test_the_words_of_the_options_are_the_literals_of_the_types():
    """The light copies in the command line never drift from the structs."""
    from typing import get_args

    from planner.cli import schema, values
    from planner.render.schema import DOCUMENTS
    from planner.types.plan import Use
    from planner.types.settings import CacheType, FlashAttention, LazyMode, LoadMode, SplitMode

    assert get_args(CacheType) == values.CACHE_TYPES
    assert get_args(LoadMode) == values.LOAD_MODES
    assert get_args(LazyMode) == values.LAZY_MODES
    assert get_args(SplitMode) == values.SPLIT_MODES
    assert get_args(FlashAttention) == values.FLASH_ATTENTION
    assert get_args(Use) == values.USES
    assert set(schema.NAMES) == {*DOCUMENTS, "why-not"}


def test_json_of_a_struct_that_is_printed_can_be_read_back(workflow, invoke):
    """``planner plan --json`` is the plan, nothing more."""
    _, out, _ = invoke("plan", "--json")
    assert msgspec.json.decode(out, type=type(workflow.sample)) == workflow.sample
