"""One row of evidence for each model of the catalogue: the engine's verdict, the counts, the published sizes.

The functions of ``catalogue.py`` and of the test that runs it. One engine child answers everything, a dry run is made
once for all models of a shape, and no number is compared with itself: the layout gives tensors and parameters, the
engine counts and quantizes, ``data/file_sizes.toml`` says what others published.
"""

import math
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import published_sizes

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.phantom import write_phantom
from planner.errors import PlannerError
from planner.gguf.ggml_types import TYPES, tensor_bytes
from planner.types.model import Layout, Model, TensorSpec

__all__ = ["ALWAYS", "TOLERANCE", "Evidence", "Printed", "Row", "Size", "examine", "label_holds", "read_evidence"]

ALWAYS = ("Q4_K_M", "Q8_0", "Q6_K")
"""Dry runs of every model, published or not; what else a page names is asked as well."""
TOLERANCE = 0.01


class Variant(NamedTuple):
    """A layout as a publisher converted it: with or without a copy of the head that is the embedding table."""

    shape_key: str
    copied_head: bool


class DryRun(NamedTuple):
    """What one quantization takes: all tensors, and the embedding table among them."""

    tensor_bytes: int
    table_bytes: int


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """One published size beside the dry run. ``deviation`` is against the middle of what the page can mean."""

    quantization: str
    published: str
    expected_bytes: int
    deviation: float
    held: bool
    source: str
    cause: str | None = None
    mix: str | None = None


class Printed(msgspec.Struct, frozen=True, kw_only=True):
    """A count that llama.cpp printed for somebody's file of this model, and whether the catalogue computes the same."""

    parameters: str
    held: bool
    source: str


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model: what the engine says, what the catalogue says, what was published."""

    model: str
    family: str
    architecture: str
    loads: bool
    problem: str | None = None
    milliseconds: float | None = None
    computed: int | None = None
    stated: int
    in_file: int | None = None
    engine: int | None = None
    label: float | None = None
    label_deviation: float | None = None
    label_held: bool | None = None
    printed: tuple[Printed, ...] = ()
    dry_run_bytes: dict[str, int] = {}
    sizes_of: str | None = None
    sizes: tuple[Size, ...] = ()

    @property
    def counts_agree(self) -> bool:
        """The engine counts what the layout holds, and the catalogue states what the layout computes."""
        return self.engine is not None and self.engine == self.in_file and self.computed == self.stated

    @property
    def quantizations_compared(self) -> set[str]:
        """Quantizations of which a size was published that can be compared."""
        return {each.quantization for each in self.sizes if each.mix is None}


class Judge:
    """Asks one engine child about phantoms; a dry run of a variant is made once, whatever models share its shape."""

    def __init__(self, catalogued: catalogue.Catalogue, child: EngineChild, folder: Path) -> None:
        self._catalogued = catalogued
        self._child = child
        self._path = folder / "phantom.gguf"
        self._dry_runs: dict[tuple[Variant, str, bool], DryRun] = {}
        self._header_bytes: dict[Variant, int] = {}

    def load(self, layout: Layout) -> tuple[int, float]:
        """The engine's own parameter count of a phantom of ``layout``, and the milliseconds it took to say so."""
        write_phantom(self._path, layout)
        began = time.perf_counter()
        # 671 billion parameters answer in 0.1 s; ten of these models at once on a busy core are still far from this.
        answer = self._child.ask("weights", {"path": str(self._path), "settings": {"load_mode": "none"}})
        return msgspec.convert(answer["parameters"], int), 1000 * (time.perf_counter() - began)

    def dry_runs(self, model: Model, variant: Variant, wanted: Iterable[tuple[str, bool]]) -> None:
        """Ask for the sizes of all ``wanted`` (quantization, importance matrix) that are not known yet, in one go."""
        missing = sorted({pair for pair in wanted if (variant, *pair) not in self._dry_runs})
        if not missing:
            return
        layout = variant_layout(self._catalogued, model, variant)
        written = write_phantom(self._path, layout)
        self._header_bytes[variant] = written.size_bytes - sum(
            -(-tensor_bytes(tensor.type, tensor.dims) // 32) * 32 for tensor in layout.tensors
        )
        dims = {tensor.name: tensor.dims for tensor in layout.tensors}
        recipes = [
            {"ftype": self._catalogued.quantization(name).ftype, "imatrix": imatrix or self._needs(name)}
            for name, imatrix in missing
        ]
        answer = self._child.ask("types", {"path": str(self._path), "recipes": recipes}, deadline_s=60.0)
        names = msgspec.convert(answer["names"], list[str])
        for pair, types in zip(missing, msgspec.convert(answer["types"], list[list[str]]), strict=True):
            sizes = {name: tensor_bytes(kind.upper(), dims[name]) for name, kind in zip(names, types, strict=True)}
            self._dry_runs[variant, *pair] = DryRun(sum(sizes.values()), sizes["token_embd.weight"])

    def dry_run(self, variant: Variant, quantization: str, *, imatrix: bool) -> DryRun:
        """What that quantization takes; :meth:`dry_runs` asked for it before."""
        return self._dry_runs[variant, quantization, imatrix]

    def header(self, variant: Variant) -> int:
        """Bytes of the GGUF header without a tokenizer."""
        return self._header_bytes[variant]

    def _needs(self, quantization: str) -> bool:
        return self._catalogued.quantization(quantization).needs_imatrix


def variant_layout(catalogued: catalogue.Catalogue, model: Model, variant: Variant) -> Layout:
    """The layout of ``model`` as a publisher's file has it."""
    layout = catalogued.layout(model)
    if not variant.copied_head:
        return layout
    table = next(tensor for tensor in layout.tensors if tensor.name == "token_embd.weight")
    head = TensorSpec(name="output.weight", dims=table.dims, type=table.type)
    return msgspec.structs.replace(layout, tensors=(*layout.tensors, head))


class Evidence(NamedTuple):
    """What others published: pages with sizes by shape key, printed counts by model."""

    pages: Mapping[str, Sequence[published_sizes.Published]]
    counts: Mapping[str, Sequence[published_sizes.Counted]]


def read_evidence(catalogued: catalogue.Catalogue) -> Evidence:
    """Everything in ``data/file_sizes.toml``. Raises UsageError for a model that the catalogue does not know."""
    counts: dict[str, list[published_sizes.Counted]] = {}
    for counted in published_sizes.read_counts():
        counts.setdefault(catalogued.model(counted.model).id, []).append(counted)
    return Evidence(by_shape(catalogued, published_sizes.read()), counts)


def examine(catalogued: catalogue.Catalogue, models: Iterable[Model], evidence: Evidence) -> Iterator[Row]:
    """One row for each of ``models``, in order, all from one engine child."""
    with tempfile.TemporaryDirectory() as folder, EngineChild() as child:
        judge = Judge(catalogued, child, Path(folder))
        for model in models:
            yield row(catalogued, judge, model, evidence)


def by_shape(
    catalogued: catalogue.Catalogue, published: Iterable[published_sizes.Published]
) -> dict[str, list[published_sizes.Published]]:
    """The pages by shape key: models of one shape have one size. Raises UsageError for a model nobody knows."""
    pages: dict[str, list[published_sizes.Published]] = {}
    for page in published:
        try:
            key = catalogued.shape_key(catalogued.model(page.model))
        except PlannerError as error:
            if error.code == "unknown-model":
                raise
            continue  # no layout of that architecture: its row says so
        pages.setdefault(key, []).append(page)
    return pages


def row(catalogued: catalogue.Catalogue, judge: Judge, model: Model, evidence: Evidence) -> Row:
    """Everything about one model."""
    plain = Row(
        model=model.id,
        family=model.family,
        architecture=model.architecture,
        loads=False,
        stated=model.parameters,
        label=model.parameters_published,
    )
    try:
        layout = catalogued.layout(model)
        computed, _ = catalogued.parameters(model)
        engine, milliseconds = judge.load(layout)
        key = catalogued.shape_key(model)
        pages = evidence.pages.get(key, ())
        dry_run_bytes, sizes = compare(judge, model, key, pages)
    except PlannerError as error:
        return msgspec.structs.replace(plain, problem=str(error))
    label, counted = model.parameters_published, as_published(model, computed)
    deviation = None if label is None or counted is None else counted / label - 1
    names = sorted({catalogued.model(page.model).id for page in pages})
    return msgspec.structs.replace(
        plain,
        loads=True,
        milliseconds=round(milliseconds, 1),
        computed=computed,
        in_file=layout.elements,
        engine=engine,
        label_deviation=deviation,
        label_held=None if label is None or counted is None else label_holds(label, counted),
        printed=tuple(printed(model, computed, each) for each in evidence.counts.get(model.id, ())),
        dry_run_bytes=dry_run_bytes,
        sizes_of=", ".join(names) or None,
        sizes=sizes,
    )


def printed(model: Model, computed: int, said: published_sizes.Counted) -> Printed:
    """A printed count beside the catalogue's, the prediction block included where the file holds it."""
    count = computed + ((model.mtp_parameters or 0) if said.mtp else 0)
    return Printed(parameters=said.parameters, held=said.names(count), source=said.source)


def as_published(model: Model, computed: int) -> int | None:
    """The parameters that the published number counts; ``None`` where the catalogue does not know a part of them."""
    if model.published_counts == "text-without-embeddings":
        table = (model.size("n_vocab") or 0) * (model.size("n_embd") or 0)
        return computed - (table if model.shape.get("tied") else 2 * table)
    if model.published_counts == "text-without-lookup":
        return None if model.lookup_parameters is None else computed - model.lookup_parameters
    vision = None if model.vision is None else model.vision.parameters
    parts = {"text": (), "text+mtp": (model.mtp_parameters,), "text+mtp+vision": (model.mtp_parameters, vision)}
    more = parts[model.published_counts]
    return None if None in more else computed + sum(part for part in more if part is not None)


def label_holds(label: float, counted: int) -> bool:
    """Whether a label names a count: within 1 %, or rounded or cut off at its last digit ("32B" for 32.6 billion)."""
    digits = f"{round(label)}".rstrip("0")
    step = 10.0 ** (math.floor(math.log10(label)) + 1 - len(digits))
    return abs(counted / label - 1) <= TOLERANCE or -step / 2 <= counted - label < step


def compare(
    judge: Judge, model: Model, key: str, pages: Sequence[published_sizes.Published]
) -> tuple[dict[str, int], tuple[Size, ...]]:
    """The dry runs that every model gets, and one :class:`Size` for each number on ``pages``."""
    plain = Variant(key, copied_head=False)
    wanted: dict[Variant, set[tuple[str, bool]]] = {plain: {(name, False) for name in ALWAYS}}
    for page in pages:
        variant = Variant(key, page.output == "copied")
        wanted.setdefault(variant, set()).update((name, page.imatrix) for name in page.sizes)
    for variant, pairs in wanted.items():
        judge.dry_runs(model, variant, pairs)
    sizes = tuple(size(judge, model, key, page, name) for page in pages for name in page.sizes)
    return {name: judge.dry_run(plain, name, imatrix=False).tensor_bytes for name in ALWAYS}, sizes


def size(judge: Judge, model: Model, key: str, page: published_sizes.Published, name: str) -> Size:
    """One published number beside what the dry run expects of it."""
    variant = Variant(key, page.output == "copied")
    dry_run = judge.dry_run(variant, name, imatrix=page.imatrix)
    weights = dry_run.tensor_bytes + (dry_run.table_bytes if page.output == "counted twice" else 0)
    if page.blocks == "and mtp":
        kind = TYPES[name]
        weights += (model.mtp_parameters or 0) * kind.size_bytes // kind.block
    expected = published_sizes.Interval(weights, weights)
    if page.counts == "file":
        header = judge.header(variant)
        tokenizer = published_sizes.tokenizer_bytes(model.size("n_vocab") or 0)
        expected = expected + tokenizer + published_sizes.Interval(header, header)
    said = published_sizes.interval(page, name)
    return Size(
        quantization=name,
        published=f"{page.sizes[name]} {page.unit}",
        expected_bytes=round(expected.middle),
        deviation=expected.middle / said.middle - 1,
        held=abs(expected.gap(said)) <= TOLERANCE,
        source=page.source,
        cause=page.differs.get(name),
        mix=page.mix,
    )
