"""Plants a tree of ``/proc``, ``/sys`` and cgroup files from one TOML file, and a host that lives in it.

A tree says where its numbers come from (``source``) and how close it is to a real machine (``origin``): ``recorded``
here with planner's own capture, ``rebuilt`` from a public dump, or ``described`` from documentation. ``[expect]`` holds
what detection must find, path by path.
"""

import re
import tomllib
from pathlib import Path

import pytest

from planner.machine import collect
from planner.machine.answers import Program
from planner.machine.host import Host, Space, System

TREES = Path(__file__).parent / "trees"
_RANGE = re.compile(r"\{(\d+)-(\d+)\}")


class TreeHost(Host):
    """A host whose files lie under a folder and whose programs answer from the tree's file."""

    def __init__(self, root, document):
        """Plant ``document`` under ``root``."""
        super().__init__(root)
        self.document = document
        for path, text in _files(document):
            target = root / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    def run(self, argv):
        """The recorded answer of a program; the NVML child's lines for our own interpreter."""
        text = self.document.get("nvml") if "nvml_child.py" in " ".join(argv) else None
        text = self.document.get("programs", {}).get(" ".join(argv), text)
        if text is None:
            return Program(stdout="", failure="No such file or directory")
        return Program(stdout=text, failure=self.document.get("nvml_failure"))

    def system(self):
        """The system that the tree names."""
        return System(*(self.document["system"][key] for key in ("sysname", "release", "machine")))

    def physical_memory(self):
        """Unknown: a tree must tell it in its files."""

    def space(self, path):
        """A fixed file system: 100 GiB, 40 GiB free."""
        return Space(100 << 30, 40 << 30) if path else None

    def private_words(self):
        """The names that a test wants scrubbed."""
        return tuple(self.document.get("private", ()))

    def home(self):
        """The user's home in every tree."""
        return Path("/home/somebody")


def _files(document):
    """Paths and texts, with ``{0-3}`` in a path repeated and ``{n}`` in a text numbered."""
    for path, value in document.get("files", {}).items():
        match = _RANGE.search(path)
        if match is None:
            yield path, value if isinstance(value, str) else "".join(_repeated(value))
            continue
        numbers = range(int(match[1]), int(match[2]) + 1)
        texts = value if isinstance(value, list) else [value] * len(numbers)
        for number, text in zip(numbers, texts, strict=True):
            yield path.replace(match[0], str(number)), text.replace("{n}", str(number))


def _repeated(block):
    """``count`` numbered copies of a text, as ``/proc/cpuinfo`` has them."""
    return (block["text"].replace("{n}", str(number)) for number in range(block["count"]))


@pytest.fixture
def plant(tmp_path):
    """A function that plants a document (or a tree by name) and returns its host."""

    def planter(tree):
        document = tree if isinstance(tree, dict) else tomllib.loads((TREES / f"{tree}.toml").read_text())
        return TreeHost(tmp_path / "root", document)

    return planter


@pytest.fixture(scope="session")
def captures(tmp_path_factory):
    """The capture of every tree by name."""
    return {
        path.stem: collect(
            TreeHost(tmp_path_factory.mktemp(path.stem), tomllib.loads(path.read_text())), Path("/models")
        )
        for path in sorted(TREES.glob("*.toml"))
    }
