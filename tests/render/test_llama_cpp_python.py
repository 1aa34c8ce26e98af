import ast
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from planner.render.llama_cpp_python import arguments, snippet
from planner.types.settings import CACHE_TYPES, Settings

SETTINGS = Settings(context_tokens=8192, threads=8, threads_batch=8, openmp_wait="active")

some_settings = st.builds(
    Settings,
    context_tokens=st.integers(256, 1 << 20),
    parallel=st.integers(1, 8),
    cache_type_k=st.sampled_from(CACHE_TYPES),
    cache_type_v=st.sampled_from(CACHE_TYPES),
    flash_attention=st.sampled_from(["auto", "on", "off"]),
    load_mode=st.sampled_from(["none", "mmap", "mlock", "mmap+mlock", "dio"]),
    repack=st.booleans(),
    gpu_layers=st.integers(-1, 99),
    split_mode=st.sampled_from(["none", "layer", "row"]),
    tensor_split=st.sampled_from([(), (1.0, 2.0)]),
    cpu_moe_layers=st.integers(-1, 9),
    tensor_overrides=st.sampled_from([(), (("output", "CPU"),)]),
    host_buffer=st.booleans(),
    main_gpu=st.integers(0, 3),
    swa_full=st.booleans(),
    speculation=st.sampled_from(["none", "draft-mtp", "draft-simple"]),
)


def call(source):
    """The keyword arguments of the ``Llama(...)`` call in a snippet, as syntax."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    llama = next(node for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr == "Llama")
    assert not llama.args
    return {keyword.arg: keyword.value for keyword in llama.keywords}


@given(some_settings, st.booleans())
def test_the_snippet_is_python_for_every_setting(settings, offload):
    """It compiles, and waits for OpenMP before the library is imported."""
    source = snippet(settings, weights_file="it's a model.gguf", offload=offload, yarn=(4, 32768))
    compile(source, "snippet", "exec")
    assert source.index("OMP_WAIT_POLICY") < source.index("import llama_cpp")
    assert ast.literal_eval(call(source)["model_path"]) == "it's a model.gguf"


@pytest.mark.engine
def test_every_argument_and_constant_exists_in_the_installed_engine():
    """A misspelt keyword would vanish in ``**kwargs`` without a word."""
    llama_cpp = pytest.importorskip("llama_cpp")
    known = set(inspect.signature(llama_cpp.Llama.__init__).parameters)
    for cache_type in CACHE_TYPES:
        for split_mode in ("none", "layer", "row"):
            settings = replace(SETTINGS, cache_type_k=cache_type, split_mode=split_mode, tensor_split=(1.0, 1.0))
            keywords = call(snippet(settings, weights_file="m.gguf", offload=True, yarn=(4, 32768)))
            assert set(keywords) <= known
            for value in keywords.values():
                # Evaluating needs nothing but the module: constants that do not exist raise here.
                eval(compile(ast.Expression(value), "value", "eval"), {"llama_cpp": llama_cpp})  # noqa: S307 - our own source


@pytest.mark.engine
@pytest.mark.parametrize("load_mode", ["none", "mmap", "mlock", "mmap+mlock"])
def test_the_load_mode_is_the_one_that_llama_makes_of_its_two_switches(load_mode):
    """The class maps (use_mmap, use_mlock) to a mode; ours must come out as planned."""
    given_arguments = arguments(replace(SETTINGS, load_mode=load_mode), offload=False)
    # Llama.__init__ of 0.3.36: both → mmap+mlock, mlock alone, mmap alone, neither → none.
    modes = {("True", "True"): "mmap+mlock", ("False", "True"): "mlock", ("True", "False"): "mmap"}
    assert modes.get((given_arguments["use_mmap"], given_arguments["use_mlock"]), "none") == load_mode


def test_the_class_serves_one_sequence_and_gets_one_share_of_the_context():
    """Four users with 8192 tokens each are 8192 here, and the snippet says what is lost."""
    settings = replace(SETTINGS, context_tokens=32768, parallel=4)
    source = snippet(settings, weights_file="m.gguf", offload=False)
    assert ast.literal_eval(call(source)["n_ctx"]) == 8192
    assert "# One sequence here" in source


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"load_mode": "dio"}, "Direct I/O"),
        ({"repack": False}, "Repacking"),
        ({"cpu_moe_layers": 3}, "Experts"),
        ({"cpu_moe_layers": -1}, "Experts"),
        ({"tensor_overrides": (("output", "CPU"),)}, "Single tensors"),
        ({"host_buffer": False}, "Pinned memory"),
        ({"lazy_mode": "off"}, "Lazy mode"),
        ({"speculation": "draft-mtp"}, "Drafting"),
    ],
)
def test_a_setting_that_the_class_lacks_is_said_in_a_comment(changes, word):
    """Silence would promise the planned memory and not keep it."""
    source = snippet(replace(SETTINGS, **changes), weights_file="m.gguf", offload=True)
    assert any(line.startswith("# ") and word in line for line in source.splitlines())
    assert "# " not in snippet(SETTINGS, weights_file="m.gguf", offload=True).split("import llama_cpp")[1]


def test_the_golden_snippet(samples):
    """One whole snippet, so that a change shows in the diff."""
    golden = (samples / "snippet.py.txt").read_text(encoding="utf-8")
    assert snippet(SETTINGS, weights_file="Qwen3-8B-Q4_K_M.gguf", offload=False) == golden
