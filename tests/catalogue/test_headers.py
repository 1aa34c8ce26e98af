"""Models out of headers: counts from tensors are the catalogue's, and an origin is only believed when they agree."""

import msgspec
import pytest

from planner.catalogue import load
from planner.catalogue.headers import count_parameters, model_from_header
from planner.errors import BadInputError
from planner.types.header import Header, HeaderFacts
from planner.types.metadata import GgufValue
from planner.types.model import Layout

_KNOWN = load()
# One keeps a second copy of its head in files (as converters of its time did), the other a table that is not counted.
_COUNTED_OTHERWISE = {"qwen1.5-0.5b", "qwen3.8-flash-next"}


def _header(layout: Layout, **facts) -> Header:
    """A header as it would be read from the layout's file."""
    kinds = {bool: "bool", int: "u32", float: "f32", str: "str", tuple: "[u32]"}
    metadata = {
        key: value if isinstance(value, GgufValue) else GgufValue(type=kinds[type(value)], value=value)
        for key, value in layout.metadata.items()
    }
    return Header(
        name="file.gguf",
        architecture=layout.architecture,
        kind="model",
        version=3,
        alignment=32,
        metadata=metadata,
        tensors=layout.tensors,
        vocab_size=None,
        tokenizer_model=None,
        chat_template_sha256=None,
        header_bytes=0,
        data_bytes=0,
        file_bytes=None,
        facts=HeaderFacts(**facts),
    )


@pytest.mark.parametrize("model", _KNOWN.models.values(), ids=lambda model: model.id)
def test_every_model_is_counted_and_recognised_from_its_tensors(model):
    """Parameters in all and active equal the catalogue's; with its name spelled otherwise the model is found again."""
    header = _header(_KNOWN.layout(model), name=model.name.upper().replace("-", " "))
    count = count_parameters(header)
    if model.id not in _COUNTED_OTHERWISE:
        assert (count.total, count.active) == (model.parameters, model.parameters_active)
    found = model_from_header(header, id="local:file", known=_KNOWN)
    assert found.id == "local:file"
    assert (found.family, found.vendor, found.generation) == (model.family, model.vendor, model.generation)
    assert (found.parameters, found.parameters_active) == (model.parameters, model.parameters_active)
    assert found.context_native == header.number("context_length")
    assert found.size("n_layer") == header.block_count


def test_a_famous_name_on_other_tensors_is_not_believed():
    """A file that calls itself Qwen3 8B and holds another model is a stranger."""
    header = _header(_KNOWN.layout(_KNOWN.model("qwen3-4b")), name="Qwen3 8B", basename="Qwen3", size_label="8B")
    found = model_from_header(header, id="x", known=_KNOWN)
    assert (found.family, found.vendor) == ("unknown", "unknown")
    assert found.license.commercial is None


@pytest.mark.parametrize(
    ("facts", "exact"),
    [
        ({"name": "Qwen3-8B-Instruct"}, True),
        ({"basename": "Qwen3", "size_label": "8B"}, True),
        ({"name": "x", "basename": "Qwen3", "size_label": "8B"}, True),
        ({"base_models": ("https://huggingface.co/Qwen/Qwen3-8B",)}, True),
        ({"name": "My Tune", "base_models": ("https://huggingface.co/Qwen/Qwen3-8B/",)}, False),
        (
            {"name": "My Tune", "base_models": ("https://huggingface.co/a/b", "https://huggingface.co/Qwen/Qwen3-8B")},
            None,
        ),
        ({"name": "My Tune"}, None),
    ],
)
def test_a_conversion_is_told_from_a_child_and_a_stranger(facts, exact):
    """A conversion inherits the facts, a child only family and generation, a stranger nothing; notes say why."""
    model = _KNOWN.model("qwen3-8b")
    found = model_from_header(_header(_KNOWN.layout(model), **facts), id="x", known=_KNOWN)
    assert (found.family == model.family) is (exact is not None)
    assert (found.license == model.license) is (exact is True)
    if exact:
        assert "taken for a conversion of qwen3-8b" in (found.notes or "")
    elif exact is False:
        assert "all else is from the header" in (found.notes or "")


@pytest.mark.parametrize(
    ("said", "id_", "commercial"),
    [("apache-2.0", "Apache-2.0", True), ("MIT", "MIT", True), ("other", "other", None), (None, "unknown", None)],
)
def test_a_licence_is_what_the_file_says_and_unknown_stays_unknown(said, id_, commercial):
    """Only two licences are known to allow everything."""
    header = _header(_KNOWN.layout(_KNOWN.model("qwen3-4b"), 2), license=said, languages=("EN", "zh", "en"))
    found = model_from_header(header, id="x", known=_KNOWN)
    assert (found.license.id, found.license.commercial) == (id_, commercial)
    assert found.languages == ("en", "zh")


def test_without_a_catalogue_the_file_speaks_for_itself():
    """No engine room needs the profiles to look at a file."""
    header = _header(_KNOWN.layout(_KNOWN.model("qwen3-4b")), name="Qwen3 4B")
    assert model_from_header(header, id="x").family == "unknown"


@pytest.mark.parametrize("change", [{"kind": "mmproj"}, {"metadata": {}}])
def test_what_is_no_language_model_is_refused(change):
    """A vision projector, or a file without layers."""
    header = msgspec.structs.replace(_header(_KNOWN.layout(_KNOWN.model("qwen3-4b"), 1)), **change)
    with pytest.raises(BadInputError, match="no language model"):
        model_from_header(header, id="x")
