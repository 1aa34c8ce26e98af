"""What file names say: labels, splits, purposes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.hub.names import artifacts_of, is_model_file, kind_of, quantization_of, same_quantization
from planner.types.artifact import Part


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "Q4_K_M"),
        ("Qwen3-8B.Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M"),
        ("Qwen3-30B-A3B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("UD-IQ1_S/DeepSeek-R1-UD-IQ1_S-00001-of-00003.gguf", "UD-IQ1_S"),
        ("Model.i1-IQ3_XXS.gguf", "i1-IQ3_XXS"),
        ("Qwen3-8B-IQ4_NL.gguf", "IQ4_NL"),
        ("Qwen3-8B-IQ4_XS.gguf", "IQ4_XS"),
        ("Qwen3-8B-BF16.gguf", "BF16"),
        ("BF16/Qwen3-235B-BF16-00001-of-00010.gguf", "BF16"),
        ("qwen2-7b-fp16.gguf", "F16"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("gpt-oss-20b-MXFP4_MOE.gguf", "MXFP4_MOE"),
        ("x-NVFP4.gguf", "NVFP4"),
        ("x-TQ1_0.gguf", "TQ1_0"),
        ("x-Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("x-Q8_0.gguf", "Q8_0"),
        ("x-Q6_K.gguf", "Q6_K"),
        ("x-Q2_K_L.gguf", "Q2_K_L"),
        ("Q4_K_M/model-00001-of-00002.gguf", "Q4_K_M"),
        ("mmproj-F16.gguf", "F16"),
        ("Qwen3-8B.gguf", None),
        ("QwQ-32B.gguf", None),
        ("folder/thing.gguf", None),
    ],
)
def test_a_label_is_read_from_the_name_or_the_folder(path, label):
    """As publishers write them."""
    assert quantization_of(path) == label


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("Qwen3-8B-Q4_K_M.gguf", "model"),
        ("mmproj-F16.gguf", "mmproj"),
        ("Qwen3-VL-8B-mmproj-BF16.gguf", "mmproj"),
        ("mtp-Qwen3.6-27B-Q8_0.gguf", "mtp"),
        ("Qwen3.6-27B-MTP-Q4_K_M.gguf", "model"),
        ("eagle3-Qwen3-8B-BF16.gguf", "draft"),
        ("Qwen3-0.6B-draft-Q8_0.gguf", "draft"),
        ("imatrix_unsloth.dat", "imatrix"),
        ("Qwen3-8B.imatrix.gguf", "imatrix"),
        ("my-lora-f16.gguf", "adapter"),
        ("explorable-Q4_0.gguf", "model"),
    ],
)
def test_a_purpose_is_read_from_the_name(path, kind):
    """Only models are candidates."""
    assert kind_of(path) == kind


@pytest.mark.parametrize(
    "path", ["README.md", "model.safetensors", "../x.gguf", "a/../x.gguf", "/x.gguf", "a//x.gguf", "x\n.gguf", "w.dat"]
)
def test_other_files_and_hostile_paths_are_left_out(path):
    """A listing is a stranger's."""
    assert not is_model_file(path)


@pytest.mark.parametrize(
    ("asked", "label", "exactly", "same"),
    [
        ("q4_k_m", "Q4_K_M", True, True),
        ("fp16", "F16", True, True),
        ("Q4_K_XL", "UD-Q4_K_XL", True, False),
        ("Q4_K_XL", "UD-Q4_K_XL", False, True),
        ("iq3_xxs", "i1-IQ3_XXS", False, True),
        ("Q4_K", "Q4_K_M", False, False),
        ("Q8_0", None, False, False),
    ],
)
def test_a_label_is_asked_for_in_any_case(asked, label, exactly, same):
    """And a publisher's mix answers when there is nothing closer."""
    assert same_quantization(asked, label, exactly=exactly) is same


@given(st.integers(1, 40), st.data())
def test_a_set_is_whole_or_names_what_it_lacks(count, data):
    """Order in the listing does not matter; parts come in order, and none is counted twice or lost."""
    there = data.draw(st.sets(st.integers(1, count), min_size=1))
    names = [f"d/m-Q4_0-{number:05}-of-{count:05}.gguf" for number in data.draw(st.permutations(sorted(there)))]
    (artifact,) = artifacts_of([Part(path=name, size_bytes=7) for name in names], hub="hf")
    assert [part.path for part in artifact.parts] == sorted(names)
    assert len(artifact.parts) + len(artifact.missing) == count
    assert not set(artifact.missing) & set(names)
    assert artifact.complete == (len(there) == count)
    assert artifact.size_bytes == (7 * count if artifact.complete else None)


def test_sets_of_other_folders_and_lengths_are_other_sets():
    """The same name in another folder is another model; so is another number of parts."""
    names = ["a/m-00001-of-00001.gguf", "b/m-00001-of-00001.gguf", "a/m-00001-of-00002.gguf", "a/m-00002-of-00002.gguf"]
    artifacts = artifacts_of([Part(path=name) for name in names], hub="hf")
    assert [len(artifact.parts) for artifact in artifacts] == [1, 2, 1]
    assert all(artifact.complete for artifact in artifacts)


def test_an_unknown_size_makes_the_sum_unknown():
    """Never zero."""
    parts = [Part(path="m-00001-of-00002.gguf", size_bytes=5), Part(path="m-00002-of-00002.gguf")]
    (artifact,) = artifacts_of(parts, hub="hf")
    assert artifact.complete
    assert artifact.size_bytes is None
