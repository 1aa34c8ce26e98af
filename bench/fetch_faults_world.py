"""A home for one case: an empty machine, a hub with one model, a plan for that model, and the questions of a judge.

What is judged is what lies on the disk, read here once more, and never what the program says of itself.
"""

import contextlib
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from planner.apply.clean import clean
from planner.apply.receipts import find_receipt
from planner.hub import find, parse_reference
from planner.hub.patience import Patience
from planner.hub.transfer import Pace
from planner.types.plan import Plan

__all__ = ["DATA_BYTES", "FILE", "HASTY", "HURRIED", "REPO", "World", "document", "load_server", "world"]

ROOT = Path(__file__).resolve().parents[1]
REPO, FILE = "org/Small-GGUF", "Small-Q4_K_M.gguf"
HASTY = Patience(deadline_s=60.0, idle_s=5.0, connect_s=5.0, retries=1, backoff_s=0.01, longest_wait_s=0.1)
HURRIED = Pace(window_s=0.4, window_bytes=1 << 10)
DATA_BYTES = 3 << 20
_THEIRS = ("CACHEDIR.TAG", ".lock")
"""What the hubs' own libraries leave in their own caches beside a file that was fetched."""


def load_server() -> ModuleType:
    """The module of the server that the tests use."""
    name = "planner_tests_hub_server"
    specification = importlib.util.spec_from_file_location(name, ROOT / "tests/hub/server.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module


class World:
    """An empty machine with a hub; ``scheme`` is ``hf`` or ``ms``."""

    def __init__(self, server: ModuleType, folder: Path, scheme: str) -> None:
        self.folder = folder
        self.hub = server.Hub()
        self.blob = server.whole(seed=1, data_bytes=DATA_BYTES, template="{{ hello }}")
        self.another = server.whole(seed=2, data_bytes=DATA_BYTES, template="{{ hello }}")
        self.hub.repos[REPO] = {FILE: self.blob}
        self.environment = {
            "HOME": str(folder / "home"),
            "PLANNER_CACHE_DIR": str(folder / "cache"),
            "PLANNER_DATA_DIR": str(folder / "data"),
            "PLANNER_LOCK_FILE": str(folder / "measure.lock"),
            "HF_HOME": str(folder / "hf"),
            "MODELSCOPE_CACHE": str(folder / "ms"),
            "HF_ENDPOINT": self.hub.endpoint,
            "MODELSCOPE_ENDPOINT": self.hub.endpoint,
            "NO_PROXY": "127.0.0.1,localhost",
            "MODELSCOPE_DOWNLOAD_MAX_RETRIES": "0",
        }
        os.environ.update(self.environment)
        self.plan = self._plan(f"{scheme}:{REPO}:Q4_K_M")
        self.plan_file = folder / "plan.json"
        self.plan_file.write_bytes(msgspec.json.encode(self.plan))
        self.hub.seen.clear()

    def _plan(self, text: str) -> Plan:
        sample = msgspec.json.decode((ROOT / "tests/render/samples/plan.json").read_bytes(), type=Plan)
        reference = parse_reference(text)
        assert reference is not None
        assert sample.chosen is not None
        artifact = find(reference).models[0]
        return msgspec.structs.replace(sample, chosen=msgspec.structs.replace(sample.chosen, artifact=artifact))

    def wrongly_ready(self) -> str:
        """What is wrong with a receipt that counts; empty when there is none, or every byte is right."""
        receipt = find_receipt(self.plan)
        if receipt is None:
            return ""
        right = Path(receipt.weights[0]).read_bytes() == self.blob.body
        return "" if right else "a receipt for wrong bytes"

    def not_whole(self) -> str:
        """What is wrong after a run that should have ended well."""
        receipt = find_receipt(self.plan)
        return "no receipt after a good run" if receipt is None else self.wrongly_ready()

    def held_bytes(self) -> int:
        """Bytes of the model on the disk: all of them under a name of its own, or those of the partial file."""
        files = [path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink()]
        if any(path.stat().st_size == self.blob.size and path.read_bytes() == self.blob.body for path in files):
            return self.blob.size
        return sum(path.stat().st_size for path in files if path.name.endswith(".incomplete"))

    def sent_bytes(self) -> int:
        """Bytes that the content server wrote."""
        return sum(seen.sent for seen in self.hub.of("content"))

    def left(self) -> list[str]:
        """Files that are still there after a clean, but for the plan, verified weights and the libraries' own."""
        clean(remove=True)
        receipt = find_receipt(self.plan)
        known = {str(self.plan_file)}
        if receipt is not None:
            known |= {file.local_path for file in receipt.files} | {str(Path(receipt.weights[0]).resolve())}
            known |= {str(path) for path in (self.folder / "data/receipts").glob("*.json")}
        files = [path for path in self.folder.rglob("*") if not path.is_dir() or path.is_symlink()]
        return [str(path.relative_to(self.folder)) for path in files if not self._expected(path, known)]

    def _expected(self, path: Path, known: set[str]) -> bool:
        theirs = path.name.endswith(_THEIRS) and path.stat().st_size < 1000
        return str(path) in known or theirs

    def close(self) -> None:
        """Stop the hub and remove the machine."""
        self.hub.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def world(server: ModuleType, scratch: Path, number: int, scheme: str) -> Iterator[World]:
    """A world for the time of one case."""
    folder = scratch / f"case-{number}"
    folder.mkdir()
    here = World(server, folder, scheme)
    try:
        yield here
    finally:
        here.close()


def document(text: str) -> dict[str, Any]:
    """The JSON document of a run, empty where it printed none."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
