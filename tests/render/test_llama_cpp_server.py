"""The configuration of llama-cpp-python's server says what the plan says, in words that the installed server knows."""

import ast
import importlib.util
from pathlib import Path

import pytest

from planner.render.llama_cpp_server import server_config, server_differences
from planner.types.settings import Settings

SETTINGS = Settings(context_tokens=8192, parallel=2, cache_type_k="q8_0", load_mode="mmap+mlock", threads=3)
GPU = Settings(context_tokens=4096, split_mode="row", tensor_split=(3.0, 1.0), kv_offload=False, gpu_layers=12)


def config(settings: Settings, **words):
    """The document for one model."""
    given = {"weights_file": "m.gguf", "name": "m", "host": "127.0.0.1", "port": 8000, "offload": False, **words}
    return server_config(settings, **given)


@pytest.mark.engine
def test_every_name_is_one_that_the_installed_server_takes():
    """Fields of its settings classes, read from its source: an unknown one would be ignored without a word."""
    package = importlib.util.find_spec("llama_cpp")
    assert package is not None
    assert package.origin is not None
    tree = ast.parse((Path(package.origin).parent / "server" / "settings.py").read_text(encoding="utf-8"))
    fields = {
        node.name: {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }
    whole = config(GPU, offload=True, yarn=(4, 32768), thinking=True, api_key="k")
    models = whole.pop("models")
    assert set(models[0]) <= fields["ModelSettings"]
    assert set(whole) <= fields["ServerSettings"]


def test_a_plan_keeps_its_settings():
    """One share of the context, the cache's types by ggml's numbers, both kinds of threads, no logits of all tokens."""
    whole = config(SETTINGS)
    model = whole["models"][0]
    assert model["n_ctx"] == 4096
    assert (model["type_k"], model["type_v"]) == (8, 1)
    assert (model["use_mmap"], model["use_mlock"], model["logits_all"]) == (True, True, False)
    assert model["n_threads"] == 3
    assert model["n_gpu_layers"] == 0
    assert whole["interrupt_requests"] is False
    assert "api_key" not in whole


def test_a_gpu_is_used_as_planned_and_a_context_stretched():
    """Layers, split and the inverse of the scale."""
    model = config(GPU, offload=True, yarn=(4, 32768))["models"][0]
    assert (model["n_gpu_layers"], model["split_mode"], model["tensor_split"]) == (12, 2, [3.0, 1.0])
    assert (model["rope_scaling_type"], model["rope_freq_scale"], model["yarn_orig_ctx"]) == (2, 0.25, 32768)
    assert model["offload_kqv"] is False


def test_what_it_cannot_do_is_said():
    """Parallel answers, for one; a plain plan is done whole."""
    assert server_differences(Settings(context_tokens=4096), offload=False) == ()
    assert any("the plan wants 2" in sentence for sentence in server_differences(SETTINGS, offload=False))
