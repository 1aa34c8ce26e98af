"""What a file's metadata say about the model: names, licence, languages, origin. Best effort, never believed.

Every publisher fills these keys differently, and any of them may hold the wrong type: what is not the expected kind of
value counts as not said.
"""

from collections.abc import Mapping

from planner.types.header import HeaderFacts, LongValue
from planner.types.metadata import GgufValue
from planner.types.model import TensorSpec

__all__ = ["facts_of", "text_of", "vocab_size_of"]

_MOST_BASE_MODELS = 16


def facts_of(metadata: Mapping[str, GgufValue]) -> HeaderFacts:
    """The facts under ``general.`` and ``quantize.`` of a header."""
    languages = metadata.get("general.languages")
    spoken = languages.value if languages is not None and isinstance(languages.value, tuple) else ()
    bases = (text_of(metadata, f"general.base_model.{index}.repo_url") for index in range(_MOST_BASE_MODELS))
    file_type = metadata.get("general.file_type")
    return HeaderFacts(
        name=text_of(metadata, "general.name"),
        basename=text_of(metadata, "general.basename"),
        size_label=text_of(metadata, "general.size_label"),
        finetune=text_of(metadata, "general.finetune"),
        organization=text_of(metadata, "general.organization"),
        license=text_of(metadata, "general.license"),
        languages=tuple(each for each in spoken if isinstance(each, str)),
        base_models=tuple(base for base in bases if base is not None),
        file_type=file_type.value if file_type is not None and type(file_type.value) is int else None,
        quantized_by=text_of(metadata, "general.quantized_by"),
        imatrix=any(key.startswith("quantize.imatrix.") for key in metadata),
    )


def text_of(metadata: Mapping[str, GgufValue], key: str) -> str | None:
    """The text under ``key``; ``None`` when there is none, or something else."""
    found = metadata.get(key)
    return found.value.strip() or None if found is not None and isinstance(found.value, str) else None


def vocab_size_of(
    architecture: str,
    metadata: Mapping[str, GgufValue],
    long: Mapping[str, LongValue],
    tensors: Mapping[str, TensorSpec],
) -> int | None:
    """Tokens as the engine counts them: the tokenizer's list, else the architecture's number, else the embedding."""
    tokens = long.get("tokenizer.ggml.tokens")
    if tokens is not None and tokens.type == "[str]" and tokens.length:
        return tokens.length
    said = metadata.get(f"{architecture}.vocab_size")
    if said is not None and type(said.value) is int:
        return said.value
    embedding = tensors.get("token_embd.weight")
    return embedding.dims[1] if embedding is not None and len(embedding.dims) > 1 else None
