"""Model files on this disk: split sets, folders, and everything that is no model file."""

import os

import pytest

from planner.errors import FileIOError, MissingInputError
from planner.hub.folder import list_path
from planner.types.artifact import Reference


@pytest.fixture
def folder(tmp_path):
    """Two quantizations, one of them split, a projector beside them, and things that are no models."""
    for name in ("Q4_K_M.gguf", "mmproj-F16.gguf", "README.md", ".hidden.gguf"):
        (tmp_path / name).touch()
    for number in (1, 2, 3):
        (tmp_path / f"Q8_0-{number:05}-of-00003.gguf").touch()
    (tmp_path / "folder.gguf").mkdir()
    return tmp_path


def listed(path):
    """What a path on this disk names."""
    return list_path(Reference(kind="local", text=str(path), path=str(path)))


def names(artifact):
    """The names of an artifact's files, in order."""
    return [part.path.rsplit("/", 1)[-1] for part in artifact.parts]


def test_a_file_stands_for_itself(folder):
    """One path in, the same path out, absolute."""
    (found,) = listed(folder / "Q4_K_M.gguf").models
    assert [part.local_path for part in found.parts] == [str(folder / "Q4_K_M.gguf")]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_part_stands_for_its_whole_set_in_order(folder, number):
    """People complete a name with the tab key and get any of them."""
    (found,) = listed(folder / f"Q8_0-{number:05}-of-00003.gguf").models
    assert names(found) == [f"Q8_0-{each:05}-of-00003.gguf" for each in (1, 2, 3)]
    assert found.complete


def test_missing_parts_are_named(folder):
    """Not "incomplete": which files, so that they can be fetched."""
    (folder / "Q8_0-00002-of-00003.gguf").unlink()
    (found,) = listed(folder / "Q8_0-00001-of-00003.gguf").models
    assert not found.complete
    assert [each.rsplit("/", 1)[-1] for each in found.missing] == ["Q8_0-00002-of-00003.gguf"]


@pytest.mark.parametrize("number", ["00000-of-00003", "00004-of-00003", "00001-of-00000", "00001-of-99999"])
def test_an_impossible_number_makes_no_set(tmp_path, number):
    """There is no part 0, none behind the last, and no set of 99,999: such a file stands for itself."""
    (tmp_path / f"a-{number}.gguf").touch()
    (found,) = listed(tmp_path / f"a-{number}.gguf").models
    assert names(found) == [f"a-{number}.gguf"]


def test_a_folder_holds_models_and_projectors(folder):
    """Each quantization is a file set of its own; the projector is no model."""
    found = listed(folder)
    assert sorted(len(each.parts) for each in found.models) == [1, 3]
    assert [names(each) for each in found.artifacts if each.kind == "mmproj"] == [["mmproj-F16.gguf"]]


@pytest.mark.parametrize("name", ["nothing.gguf", "nowhere/nothing.gguf"])
def test_what_is_not_there_is_missing(tmp_path, name):
    """Exit code 66, not a traceback."""
    with pytest.raises(MissingInputError):
        listed(tmp_path / name)


def test_an_empty_folder_is_missing_input(tmp_path):
    """A folder without any model."""
    with pytest.raises(MissingInputError, match=r"no \.gguf file"):
        listed(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    """Opening a pipe that nobody writes to blocks for ever."""
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(FileIOError, match="cannot be read"):
        listed(tmp_path / "pipe.gguf")
