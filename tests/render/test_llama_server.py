import json
import shlex
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from planner.render.commands import commands, offloads, weights_file, yarn
from planner.render.llama_server import argv, environment, shell_lines
from planner.types.settings import CACHE_TYPES, FlashAttention, LazyMode, LoadMode, Settings, Speculation, SplitMode

OPTIONS = json.loads((Path(__file__).parent / "samples" / "llama_server_options.json").read_text())["options"]

settings_st = st.builds(
    Settings,
    context_tokens=st.integers(1, 1 << 31),
    parallel=st.integers(1, 256),
    kv_unified=st.booleans(),
    cache_type_k=st.sampled_from(CACHE_TYPES),
    cache_type_v=st.sampled_from(CACHE_TYPES),
    flash_attention=st.sampled_from(get_args(FlashAttention)),
    batch=st.integers(1, 1 << 16),
    ubatch=st.integers(1, 1 << 16),
    load_mode=st.sampled_from(get_args(LoadMode)),
    repack=st.booleans(),
    gpu_layers=st.integers(-1, 200),
    split_mode=st.sampled_from(get_args(SplitMode)),
    tensor_split=st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.5, 24.0]), max_size=8).map(tuple),
    swa_full=st.booleans(),
    lazy_mode=st.sampled_from(get_args(LazyMode)),
    host_buffer=st.booleans(),
    main_gpu=st.integers(0, 15),
    tensor_overrides=st.lists(
        st.tuples(st.sampled_from([r"blk\.[0-9]\.ffn_.*_exps", "output", "x y"]), st.sampled_from(["CPU", "CUDA1"])),
        max_size=3,
    ).map(tuple),
    cpu_moe_layers=st.integers(-1, 100),
    speculation=st.sampled_from(get_args(Speculation)),
    draft_tokens=st.integers(1, 16),
    draft_cache_type_k=st.sampled_from(CACHE_TYPES),
    draft_cache_type_v=st.sampled_from(CACHE_TYPES),
    draft_gpu_layers=st.integers(-1, 100),
    kv_offload=st.booleans(),
    op_offload=st.booleans(),
    threads=st.integers(1, 512),
    threads_batch=st.integers(1, 512),
    openmp_wait=st.sampled_from(["active", "passive", "default"]),
)


def parse(command):
    """The command line by llama.cpp's own table of options: name → value, or ``True`` for a switch."""
    assert command[0] == "llama-server"
    words = list(command[1:])
    given_flags = {}
    while words:
        name = words.pop(0)
        assert name in OPTIONS, f"llama-server does not know {name}"
        assert name not in given_flags, f"{name} is given twice"
        given_flags[name] = words.pop(0) if OPTIONS[name] else True
    return given_flags


ABOUT_GPUS = (
    "gpu_layers", "split_mode", "main_gpu", "tensor_split", "tensor_overrides", "cpu_moe_layers", "host_buffer",
    "kv_offload", "op_offload", "draft_gpu_layers",
)  # fmt: skip
ABOUT_DRAFTS = ("draft_tokens", "draft_cache_type_k", "draft_cache_type_v", "draft_gpu_layers")


def layers(word):
    """The number of a flag that also takes ``all``."""
    return -1 if word == "all" else int(word)


@given(settings_st, st.booleans())
def test_the_command_line_says_exactly_the_settings(settings, offload):
    """Read back by the engine's own option table, the argv gives the settings it was made from."""
    flags = parse(argv(settings, weights_file="m.gguf", offload=offload, draft_file="d.gguf"))
    assert flags["--model"] == "m.gguf"
    read = Settings(
        context_tokens=int(flags["--ctx-size"]),
        parallel=int(flags["--parallel"]),
        kv_unified="--kv-unified" in flags,
        swa_full="--swa-full" in flags,
        cache_type_k=flags["--cache-type-k"],
        cache_type_v=flags["--cache-type-v"],
        flash_attention=flags["--flash-attn"],
        batch=int(flags["--batch-size"]),
        ubatch=int(flags["--ubatch-size"]),
        load_mode=flags["--load-mode"],
        lazy_mode=flags.get("--lazy-mode", "auto"),
        repack="--no-repack" not in flags,
        speculation=flags.get("--spec-type", "none"),
        threads=int(flags["--threads"]),
        threads_batch=int(flags["--threads-batch"]),
        openmp_wait=environment(settings).get("OMP_WAIT_POLICY", "default"),
    )
    untold = Settings(context_tokens=1)
    silent = set() if offload else set(ABOUT_GPUS)
    if read.speculation == "none":
        silent |= set(ABOUT_DRAFTS)
    else:
        read = replace(
            read,
            draft_tokens=int(flags["--spec-draft-n-max"]),
            draft_cache_type_k=flags["--spec-draft-type-k"],
            draft_cache_type_v=flags["--spec-draft-type-v"],
        )
    if read.speculation == "draft-simple":
        assert flags["--spec-draft-model"] == "d.gguf"
    else:
        silent.add("draft_gpu_layers")
    if offload:
        pairs = [tuple(each.split("=")) for each in flags.get("--override-tensor", "").split(",") if each]
        read = replace(
            read,
            gpu_layers=layers(flags["--n-gpu-layers"]),
            split_mode=flags["--split-mode"],
            main_gpu=int(flags.get("--main-gpu", 0)),
            tensor_split=tuple(float(share) for share in flags.get("--tensor-split", "").split(",") if share),
            tensor_overrides=tuple(pairs),
            cpu_moe_layers=-1 if "--cpu-moe" in flags else int(flags.get("--n-cpu-moe", 0)),
            host_buffer="--no-host" not in flags,
            kv_offload="--no-kv-offload" not in flags,
            op_offload="--no-op-offload" not in flags,
            draft_gpu_layers=layers(flags.get("--spec-draft-ngl", "all")),
        )
    else:
        assert flags["--device"] == "none"
    assert read == replace(settings, **{name: getattr(untold, name) for name in silent})


def test_a_second_model_that_drafts_must_be_named():
    """Without its file llama-server would serve without drafts, in less memory than was planned."""
    with pytest.raises(ValueError, match="file of the model that drafts"):
        argv(Settings(context_tokens=512, speculation="draft-simple"), weights_file="m.gguf", offload=False)


@given(settings_st)
def test_memory_that_the_server_takes_on_its_own_is_switched_off_in_words(settings):
    """Prompt cache, checkpoints and --fit are written out, and either form of the unified cache."""
    flags = parse(argv(settings, weights_file="m.gguf", offload=False, draft_file="d.gguf"))
    assert flags["--cache-ram"] == "0"
    assert flags["--ctx-checkpoints"] == "0"
    assert flags["--fit"] == "off"
    assert ("--kv-unified" in flags) != ("--no-kv-unified" in flags)


@given(settings_st)
def test_nothing_listens_beyond_this_machine(settings):
    """The server has no key, so it stays on the loopback."""
    assert parse(argv(settings, weights_file="m.gguf", offload=True, draft_file="d.gguf"))["--host"] == "127.0.0.1"


@given(st.lists(st.text(max_size=20), min_size=1, max_size=12), st.dictionaries(st.just("OMP_WAIT_POLICY"), st.text()))
def test_shell_lines_parse_back_to_the_argv(words, variables):
    """Whatever stands in a word (spaces, quotes, newlines), the shell reads the same argv."""
    words = [word.replace("\0", "") for word in words]
    variables = {name: value.replace("\0", "") for name, value in variables.items()}
    lines = shell_lines(words, variables, width=60, indent="  ")
    pasted = "\n".join(lines).replace(" \\\n", " ")
    assert shlex.split(pasted) == [*(f"{name}={value}" for name, value in variables.items()), *words]
    assert shlex.split(shlex.join(words)) == words


def test_the_golden_command_line(chosen, model):
    """One whole command, so that a change of flags shows in the diff."""
    assert shlex.join(commands(chosen, model).llama_server) == (
        "llama-server --model Qwen3-8B-Q4_K_M.gguf --ctx-size 8192 --parallel 1 --no-kv-unified --cache-type-k f16 "
        "--cache-type-v f16 --flash-attn auto --batch-size 2048 --ubatch-size 512 --reasoning off --load-mode none "
        "--device none --threads 8 --threads-batch 8 --cache-ram 0 --ctx-checkpoints 0 --fit off "
        "--host 127.0.0.1 --port 8080"
    )


@pytest.mark.parametrize(
    ("context", "parallel", "unified", "stretch"),
    [
        (32768, 1, False, None),
        (32769, 1, False, (2, 32768)),
        (131072, 1, False, (4, 32768)),
        (131072, 4, False, None),
        (131072, 4, True, (4, 32768)),
    ],
)
def test_yarn_is_switched_on_exactly_beyond_the_native_context(chosen, model, context, parallel, unified, stretch):
    """What counts is one sequence's context; without YaRN the model would talk nonsense past its native length."""
    settings = replace(chosen.settings, context_tokens=context, parallel=parallel, kv_unified=unified)
    candidate = replace(chosen, settings=settings)
    assert yarn(candidate, model) == stretch
    flags = parse(commands(candidate, model).llama_server)
    assert (flags.get("--rope-scaling") == "yarn") == (stretch is not None)
    if stretch is not None:
        assert (int(flags["--rope-scale"]), int(flags["--yarn-orig-ctx"])) == stretch


def test_what_the_file_claims_to_be_trained_for_needs_no_yarn(chosen, model):
    """Qwen3's files say 40960 for a native context of 32768."""
    trained = replace(model, shape={"n_ctx_train": 40960})
    assert yarn(replace(chosen, settings=replace(chosen.settings, context_tokens=40960)), trained) is None
    assert yarn(replace(chosen, settings=replace(chosen.settings, context_tokens=40961)), trained) == (2, 32768)


def test_a_gpu_takes_part_when_a_device_other_than_the_cpu_holds_memory(chosen):
    """The CPU's own buffers, pinned ones included, are no GPU."""
    memory = chosen.memory[0]
    assert not offloads(chosen)
    assert offloads(replace(chosen, memory=(memory, replace(memory, device="CUDA0"))))


def test_a_model_without_a_repository_still_has_a_file_name(chosen, model):
    """Spaces and slashes never reach the command line."""
    nameless = replace(model, hf_repo=None, name="Some Model/v2")
    assert weights_file(chosen, nameless) == "Some-Model-v2-Q4_K_M.gguf"
    assert "Some Model/v2" in commands(chosen, nameless).weights_hint
