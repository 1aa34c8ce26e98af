"""What one model's GGUF header says: the exact metadata and tensors, and the facts that publishers write into it.

A header is a claim of whoever made the file. Sizes and types in it were checked against each other and by two readers;
names, licences and languages were not, and stay words.
"""

from planner.types import Report
from planner.types.metadata import GgufType, GgufValue
from planner.types.model import TensorSpec

__all__ = ["Header", "HeaderFacts", "LongValue"]


class LongValue(Report, frozen=True, kw_only=True):
    """A value that was not copied: its type, its elements (bytes, for text), and the SHA-256 of a text."""

    type: GgufType
    length: int
    sha256: str | None = None


class HeaderFacts(Report, frozen=True, kw_only=True):
    """What the file says about itself under ``general.``; ``None`` or empty where it is silent.

    ``base_models`` are the repositories it says it was made from, ``file_type`` llama.cpp's number of the quantization
    recipe, ``imatrix`` whether it says that an importance matrix was used.
    """

    name: str | None = None
    basename: str | None = None
    size_label: str | None = None
    finetune: str | None = None
    organization: str | None = None
    license: str | None = None
    languages: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    file_type: int | None = None
    quantized_by: str | None = None
    imatrix: bool = False


class Header(Report, frozen=True, kw_only=True):
    """One model's header, the parts of a split set put together.

    ``metadata`` holds scalars, texts and short arrays with their types, without the tokenizer's arrays; ``long`` what
    was too long to copy. ``tensors`` are in file order, part after part. ``data_bytes`` is the length of the data
    sections, ``file_bytes`` of the files (``None``: nobody told). ``vocab_size`` counts tokens as the engine does.
    ``kind`` is ``general.type`` (``model``, ``mmproj``, ``adapter``).
    """

    name: str
    architecture: str
    kind: str
    version: int
    alignment: int
    metadata: dict[str, GgufValue]
    long: dict[str, LongValue] = {}
    tensors: tuple[TensorSpec, ...]
    vocab_size: int | None
    tokenizer_model: str | None
    chat_template_sha256: str | None
    header_bytes: int
    data_bytes: int
    file_bytes: int | None
    parts: int = 1
    facts: HeaderFacts = HeaderFacts()
    warnings: tuple[str, ...] = ()

    def number(self, key: str) -> int | None:
        """The whole number under ``<architecture>.<key>``; ``None`` when there is none."""
        found = self.metadata.get(f"{self.architecture}.{key}")
        return found.value if found is not None and type(found.value) is int else None

    @property
    def block_count(self) -> int:
        """Layers in the file, those of a multi-token-prediction block included; 0 when it names none."""
        return self.number("block_count") or 0
