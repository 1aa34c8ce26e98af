"""A hub of our own, an empty home, and no patience."""

import importlib.util
import sys
from pathlib import Path

import pytest

from planner.hub import Patience

_SERVER = Path(__file__).with_name("server.py")
_NAME = "planner_tests_hub_server"


def _module():
    if _NAME not in sys.modules:
        specification = importlib.util.spec_from_file_location(_NAME, _SERVER)
        assert specification is not None
        assert specification.loader is not None
        module = importlib.util.module_from_spec(specification)
        sys.modules[_NAME] = module
        specification.loader.exec_module(module)
    return sys.modules[_NAME]


@pytest.fixture(scope="session")
def speaker():
    """The module of the server: its Blob, its gguf(), its COMMIT."""
    return _module()


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home folder with nothing in it, and no variable that points elsewhere."""
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
def hub(speaker, monkeypatch):
    """A running hub with one small repository, and this process pointed at it."""
    hub = speaker.Hub()
    head, size = speaker.gguf()
    hub.repos["org/Small-GGUF"] = {
        "Small-Q4_K_M.gguf": speaker.Blob(head, size, sha256="1" * 64),
        "Small-Q8_0.gguf": speaker.Blob(head, size, sha256="2" * 64),
        "mmproj-F16.gguf": speaker.Blob(head, size, sha256="3" * 64),
    }
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", hub.endpoint)
    yield hub
    hub.stop()


@pytest.fixture
def hasty():
    """Patience for tests: short pauses, and deadlines that a busy machine keeps."""
    return Patience(deadline_s=20.0, idle_s=10.0, connect_s=10.0, retries=3, backoff_s=0.01, longest_wait_s=1.5)


@pytest.fixture
def ask(hub, hasty):  # noqa: ARG001 - there has to be a hub to ask
    """The header files of the one model that a reference names."""
    from planner.hub import find, header_files, parse_reference

    def call(text: str = "hf:org/Small-GGUF:Q4_K_M", patience=hasty):
        reference = parse_reference(text)
        assert reference is not None
        repository = find(reference, patience=patience)
        assert len(repository.models) == 1
        return header_files(repository.models[0], patience=patience)

    return call
