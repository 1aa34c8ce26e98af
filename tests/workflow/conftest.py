"""A hub of our own that serves phantoms of real models, and a machine on which nobody has fetched anything."""

import importlib.util
import sys
from pathlib import Path

import msgspec
import pytest

from planner import catalogue
from planner.cli import run
from planner.engine.phantom import write_phantom
from planner.types.metadata import GgufValue

_SERVER = Path(__file__).parents[1] / "hub" / "server.py"
_NAME = "planner_tests_hub_server"
_KNOWN = catalogue.load()


@pytest.fixture(scope="session")
def speaker():
    """The module of the hub's server."""
    if _NAME not in sys.modules:
        specification = importlib.util.spec_from_file_location(_NAME, _SERVER)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[_NAME] = module
        specification.loader.exec_module(module)
    return sys.modules[_NAME]


@pytest.fixture
def hub(speaker, nowhere, monkeypatch):  # noqa: ARG001 - the home folder comes first
    """An empty hub that runs, and this process pointed at it."""
    hub = speaker.Hub()
    for server in hub._servers:
        # A client that has read enough hangs up; the server's traceback of that is no output of ours.
        server.handle_error = lambda *_: None
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.endpoint)
    yield hub
    hub.stop()


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """A home folder with nothing in it, a cache that knows nothing, and no variable that points elsewhere."""
    home = tmp_path / "home"
    home.mkdir()
    for name in (
        "HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE",
        "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "MODELSCOPE_ENDPOINT",
        "MODELSCOPE_DOMAIN", "MODELSCOPE_API_TOKEN", "MODELSCOPE_CACHE", "LLAMA_CACHE", "OLLAMA_MODELS",
        "XDG_CACHE_HOME",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PLANNER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    return home


@pytest.fixture
def planner(capfd):
    """The real command line in this process: exit code, stdout, stderr."""

    def call(*words):
        with pytest.raises(SystemExit) as leaving:
            run([str(word) for word in words])
        out, err = capfd.readouterr()
        return leaving.value.code, out, err

    return call


@pytest.fixture(scope="session")
def tiny_layout():
    """Qwen3's architecture with two layers and a short vocabulary: 20 MB that load in an instant."""
    model = _KNOWN.model("qwen3-0.6b")
    shape = {**model.shape, "n_layer": 2, "n_vocab": 4096}
    layout = _KNOWN.layout(msgspec.structs.replace(model, shape=shape))
    named = {**layout.metadata, "general.name": GgufValue(type="str", value="Tiny")}
    return msgspec.structs.replace(layout, metadata=named)


@pytest.fixture
def tiny(tiny_layout, tmp_path):
    """The same as a file."""
    path = tmp_path / "Tiny-BF16.gguf"
    write_phantom(path, tiny_layout)
    return path


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory):
    """A folder with Qwen3-0.6B as published files have it: three quantizations, the third in two parts."""
    pytest.importorskip("llama_cpp", reason="needs the engine")
    from planner.engine.child import EngineChild
    from planner.engine.oracle import Oracle
    from planner.workflow.sources import Sources

    folder = tmp_path_factory.mktemp("phantoms")
    sources, model = Sources(_KNOWN), _KNOWN.model("qwen3-0.6b")
    with EngineChild() as child, Oracle(child, folder=folder / "answers", devices=()) as oracle:
        for name in ("Q4_K_M", "Q8_0", "Q6_K"):
            recipe = _KNOWN.quantization(name)
            layout = oracle.typed_layout(sources.shape_key(model, recipe), sources.layout_source(model, recipe), recipe)
            named = {**layout.metadata, "general.name": GgufValue(type="str", value="Qwen3 0.6B")}
            layout = msgspec.structs.replace(layout, metadata=named)
            if name == "Q6_K":
                _write_split(folder, f"Qwen3-0.6B-{name}", layout)
            else:
                write_phantom(folder / f"Qwen3-0.6B-{name}.gguf", layout)
    return folder


def _write_split(folder, stem, layout):
    """Two parts as llama-gguf-split makes them: all metadata in the first, half of the tensors in each."""
    half = len(layout.tensors) // 2
    for part, tensors in enumerate((layout.tensors[:half], layout.tensors[half:])):
        split = {
            "split.no": GgufValue(type="u16", value=part),
            "split.count": GgufValue(type="u16", value=2),
            "split.tensors.count": GgufValue(type="i32", value=len(layout.tensors)),
        }
        metadata = {**layout.metadata, **split} if part == 0 else split
        changed = msgspec.structs.replace(layout, metadata=metadata, tensors=tensors)
        write_phantom(folder / f"{stem}-0000{part + 1}-of-00002.gguf", changed)
