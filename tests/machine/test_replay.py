"""Every tree gives exactly the machine that its file expects, by way of a capture that can be saved and read again."""

import tomllib
from pathlib import Path

import msgspec
import pytest

from planner.machine import Capture, collect, interpret

TREES = Path(__file__).parent / "trees"
NAMES = sorted(path.stem for path in TREES.glob("*.toml"))


def read(name):
    """The document of one tree."""
    return tomllib.loads((TREES / f"{name}.toml").read_text())


def find(value, path):
    """What stands at ``gpus.0.name`` in a plain document; ``absent`` where a list ends before."""
    for part in path.split("."):
        if isinstance(value, list):
            if int(part) >= len(value):
                return "absent"
            value = value[int(part)]
        else:
            value = value[part]
    return value


def known(value):
    """The same value with ``None`` written as TOML can: ``unknown``."""
    if isinstance(value, dict):
        return {key: known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [known(item) for item in value]
    return "unknown" if value is None else value


@pytest.mark.parametrize("name", NAMES)
def test_a_tree_gives_exactly_the_machine_it_expects(name, plant):
    """Each expected path has the expected value; unknown is said as unknown."""
    document = read(name)
    machine = known(msgspec.json.decode(msgspec.json.encode(interpret(collect(plant(document), Path("/models"))))))
    found = {path: find(machine, path) for path in document["expect"]}
    assert found == document["expect"]


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_capture_gives_the_same_machine(name, plant):
    """Encoding a capture and reading it back loses nothing."""
    capture = collect(plant(name), Path("/models"))
    again = msgspec.json.decode(msgspec.json.encode(capture), type=Capture)
    assert interpret(again) == interpret(capture)


@pytest.mark.parametrize("name", NAMES)
def test_every_tree_says_where_it_comes_from(name):
    """Recorded, rebuilt and described are told apart, and each names a source."""
    document = read(name)
    assert document["origin"] in ("recorded", "rebuilt", "described")
    assert len(document["source"]) > 20
    assert document["expect"]


@pytest.mark.parametrize("name", NAMES)
def test_no_detector_broke(name, plant):
    """The net around a vendor's interpreter caught nothing."""
    assert not [note for note in interpret(collect(plant(name), Path("/models"))).notes if "please report" in note]


def test_there_are_at_least_twenty_trees():
    """The promise of the first milestone."""
    assert len(NAMES) >= 20
