"""Model files on this disk: split sets, folders, and everything that is no model file."""

import os

import pytest

from planner.errors import BadInputError, MissingInputError
from planner.gguf.local import local_models, local_parts


@pytest.fixture
def folder(tmp_path):
    """Two quantizations, one of them split, a projector beside them, and things that are no models."""
    for name in ("Q4_K_M.gguf", "mmproj-F16.gguf", "README.md", ".hidden.gguf"):
        (tmp_path / name).touch()
    for number in (1, 2, 3):
        (tmp_path / f"Q8_0-{number:05}-of-00003.gguf").touch()
    (tmp_path / "folder.gguf").mkdir()
    return tmp_path


def test_a_file_stands_for_itself(folder):
    """One path in, the same path out."""
    assert local_parts(folder / "Q4_K_M.gguf") == (folder / "Q4_K_M.gguf",)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_part_stands_for_its_whole_set_in_order(folder, number):
    """People complete a name with the tab key and get any of them."""
    parts = local_parts(folder / f"Q8_0-{number:05}-of-00003.gguf")
    assert [part.name for part in parts] == [f"Q8_0-{each:05}-of-00003.gguf" for each in (1, 2, 3)]


def test_missing_parts_are_named(folder):
    """Not "incomplete": which files, so that they can be fetched."""
    (folder / "Q8_0-00002-of-00003.gguf").unlink()
    with pytest.raises(MissingInputError, match=r"missing: Q8_0-00002-of-00003\.gguf") as caught:
        local_parts(folder / "Q8_0-00001-of-00003.gguf")
    assert caught.value.code == "incomplete-split"
    found = {each.name: each.missing for each in local_models(folder).models}
    assert found == {"Q4_K_M.gguf": (), "Q8_0.gguf": ("Q8_0-00002-of-00003.gguf",)}


def test_a_set_of_99999_parts_is_refused_in_one_line(tmp_path):
    """A name can promise anything; the message stays short."""
    (tmp_path / "a-00001-of-99999.gguf").touch()
    with pytest.raises(MissingInputError) as caught:
        local_parts(tmp_path / "a-00001-of-99999.gguf")
    assert len(caught.value.message) < 600


@pytest.mark.parametrize("number", ["00000-of-00003", "00004-of-00003", "00001-of-00000"])
def test_an_impossible_number_is_refused(tmp_path, number):
    """There is no part 0, and none behind the last."""
    (tmp_path / f"a-{number}.gguf").touch()
    with pytest.raises(BadInputError):
        local_parts(tmp_path / f"a-{number}.gguf")


def test_a_folder_holds_models_and_projectors(folder):
    """Each quantization is a model of its own; the projector is none."""
    found = local_models(folder)
    assert [(each.name, len(each.parts)) for each in found.models] == [("Q4_K_M.gguf", 1), ("Q8_0.gguf", 3)]
    assert [path.name for path in found.projectors] == ["mmproj-F16.gguf"]


@pytest.mark.parametrize("name", ["nothing.gguf", "nowhere/nothing.gguf"])
def test_what_is_not_there_is_missing(tmp_path, name):
    """Exit code 66, not a traceback."""
    with pytest.raises(MissingInputError):
        local_parts(tmp_path / name)
    with pytest.raises(MissingInputError):
        local_models(tmp_path / name)


def test_an_empty_folder_is_missing_input(tmp_path):
    """A folder without any model."""
    with pytest.raises(MissingInputError, match=r"no \.gguf file"):
        local_models(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    """Opening a pipe that nobody writes to blocks for ever."""
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(BadInputError, match="no plain file"):
        local_parts(tmp_path / "pipe.gguf")
    with pytest.raises(BadInputError, match="a folder"):
        local_parts(tmp_path)
