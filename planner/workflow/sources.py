"""Every model that a run speaks about: those of the catalogue, and those whose GGUF headers were read.

The mistake it prevents is two paths through the planner: a file from a hub and a model of the catalogue answer the same
questions (layout, shape key, quantizations), so searching, estimating and measuring do not know which is which. The
difference is where types come from: the engine's dry run for the catalogue, the header itself for a file.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import msgspec

from planner import hub
from planner.catalogue import Catalogue
from planner.catalogue.headers import model_from_header
from planner.engine.child import EngineChild
from planner.engine.headers import read_header
from planner.engine.oracle import LayoutSource
from planner.errors import BadInputError, MissingInputError, UsageError
from planner.gguf.layout import header_layout, header_shape_key
from planner.types.artifact import Artifact, Reference, Repository
from planner.types.header import Header
from planner.types.model import Layout, Model, Quantization

__all__ = ["FileModel", "Sources", "find_files"]

_MOST_MODELS = 32
_MOST_TRIED = 3
_SPLIT = re.compile(r"-\d{5}-of-\d{5}$")
_TYPICAL = ("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q4_0", "Q8_0")
"""The quantizations whose header is read first, where there is a choice: any tells shape and parameters."""


def find_files(reference: Reference) -> Repository:
    """The complete models that a reference names, narrowed to the quantization or file it asks for.

    Raises :class:`MissingInputError` when a set has gaps, naming them, and what :func:`planner.hub.find` raises.
    """
    found = hub.find(reference)
    complete = tuple(artifact for artifact in found.models if artifact.complete)
    if complete:
        return msgspec.structs.replace(found, artifacts=complete)
    broken = found.models[0]
    raise MissingInputError(
        f"{reference.text}: the set {broken.name} is not complete, {', '.join(broken.missing[:3])} is not there",
        hint="get the missing parts, or name another quantization",
        code="incomplete-set",
    )


class FileModel:
    """One model in files: a quantization each, whose header is read when it is needed."""

    def __init__(self, name: str, artifacts: Sequence[Artifact], known: Catalogue, child: EngineChild) -> None:
        self._child = child
        self._headers: dict[str, Header] = {}
        self.artifacts: Mapping[str, Artifact] = MappingProxyType(_labelled(artifacts))
        self.typical, self.model = self._first_readable(name, known)
        self.quantizations: Mapping[str, Quantization] = MappingProxyType(
            {label: self._quantization(label, artifact, known) for label, artifact in self.artifacts.items()}
        )

    def _first_readable(self, name: str, known: Catalogue) -> tuple[str, Model]:
        """A quantization and the model that its header tells: one broken file does not hide its sound sisters."""
        order = sorted(self.artifacts, key=lambda label: _TYPICAL.index(label) if label in _TYPICAL else len(_TYPICAL))
        *first, last = order[:_MOST_TRIED]
        for label in first:
            with contextlib.suppress(BadInputError):
                return label, model_from_header(self.header(label), id=name, known=known)
        return last, model_from_header(self.header(last), id=name, known=known)

    def header(self, quantization: str) -> Header:
        """The header of a quantization, read and checked once."""
        if quantization not in self._headers:
            artifact = self.artifacts[quantization]
            files = hub.header_files(artifact)
            self._headers[quantization] = read_header(
                self._child,
                [Path(each.path) for each in files],
                file_bytes=[each.file_bytes for each in files],
                name=artifact.name,
            )
        return self._headers[quantization]

    def _quantization(self, label: str, artifact: Artifact, known: Catalogue) -> Quantization:
        """The recipe as a value: what it loses is known by its name, its bits are the file's own."""
        size_bytes = artifact.size_bytes or self.header(label).data_bytes
        bits = 8.0 * size_bytes / self.model.parameters
        recipe = known.quantizations.get(label)
        if recipe is None:
            return Quantization(name=label, ftype=None, bits_per_weight=bits, kld=None, kld_source=None)
        return msgspec.structs.replace(recipe, ftype=None, bits_per_weight=bits, moe_only=False)


def _labelled(artifacts: Sequence[Artifact]) -> dict[str, Artifact]:
    """The artifacts by quantization; where two have the same, or one has none, the file's name tells them apart."""
    labels = [artifact.quantization for artifact in artifacts]
    return {
        label if label is not None and labels.count(label) == 1 else _file_name(artifact): artifact
        for label, artifact in zip(labels, artifacts, strict=True)
    }


def _by_model(repository: Repository) -> dict[str, list[Artifact]]:
    """The artifacts of each model: files whose names differ in the quantization alone are one model."""
    groups: dict[str, list[Artifact]] = {}
    for artifact in repository.models:
        groups.setdefault(_stem(artifact), []).append(artifact)
    if repository.hub in {"hf", "ms"}:
        names = dict.fromkeys(groups, f"{repository.hub}:{repository.name}")
        return {names[stem] if len(groups) == 1 else f"{names[stem]}/{stem}": each for stem, each in groups.items()}
    return groups


def _stem(artifact: Artifact) -> str:
    """A file's name without its quantization, the number of its part, and its ending."""
    name = _SPLIT.sub("", _file_name(artifact).removesuffix(".gguf").removesuffix(".GGUF"))
    label = re.escape(artifact.quantization or "")
    return re.sub(rf"[-._]?{label}$", "", name, flags=re.IGNORECASE) or name


def _file_name(artifact: Artifact) -> str:
    """The name of the first file; where that says nothing (a blob called by its digest), the artifact's own."""
    name = artifact.parts[0].path.rsplit("/", 1)[-1] if artifact.parts else artifact.name
    return name if name.lower().endswith(".gguf") else artifact.name


class Sources:
    """The catalogue and the opened files under one set of questions."""

    def __init__(self, known: Catalogue) -> None:
        self.catalogue = known
        self._recipes = tuple(known.quantizations.values())
        self._files: dict[str, FileModel] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._layouts: dict[str, Layout] = {}

    def open(self, repository: Repository, child: EngineChild) -> tuple[FileModel, ...]:
        """Reads a first header of each model in ``repository`` and adds it to those that can be asked about."""
        groups = _by_model(repository)
        if len(groups) > _MOST_MODELS:
            raise UsageError(
                f"{repository.name} holds {len(groups)} different models", hint="name one of its files or subfolders"
            )
        opened = tuple(FileModel(name, files, self.catalogue, child) for name, files in groups.items())
        self._files.update({each.model.id: each for each in opened})
        return opened

    @property
    def opened(self) -> tuple[Model, ...]:
        """The models of files that were opened."""
        return tuple(each.model for each in self._files.values())

    def artifact(self, model: str, quantization: str) -> Artifact | None:
        """The files of a model in a quantization; ``None`` for a model of the catalogue, which names none."""
        opened = self._files.get(model)
        return None if opened is None else opened.artifacts.get(quantization)

    def find(self, model: str) -> Model | None:
        """The model of that id, ``None`` when this run does not know it: a measurement may be of a file seen once."""
        opened = self._files.get(model)
        return opened.model if opened is not None else self.catalogue.models.get(model)

    def model(self, model: str) -> Model:
        """The model of that id; raises :class:`UsageError` for an unknown one."""
        opened = self._files.get(model)
        return opened.model if opened is not None else self.catalogue.model(model)

    def quantizations(self, model: Model) -> tuple[Quantization, ...]:
        """The quantizations that exist for a model: all recipes for one of the catalogue, else its files."""
        opened = self._files.get(model.id)
        return self._recipes if opened is None else tuple(opened.quantizations.values())

    def quantization(self, model: str, name: str) -> Quantization:
        """One of them by name; raises :class:`UsageError` naming what there is."""
        opened = self._files.get(model)
        if opened is None:
            return self.catalogue.quantization(name)
        by_upper = {known.upper(): quantization for known, quantization in opened.quantizations.items()}
        found = by_upper.get(name.strip().upper())
        if found is None:
            raise UsageError(
                f"{model} has no file in {name}",
                hint=f"it has {', '.join(opened.quantizations)}",
                code="unknown-quantization",
            )
        return found

    def shape_key(self, model: Model, quantization: Quantization) -> str:
        """The key under which the engine's answers are kept: the shape for the catalogue, the header for a file."""
        opened = self._files.get(model.id)
        name = (model.id, quantization.name if opened is not None else "")
        if name not in self._keys:
            self._keys[name] = (
                header_shape_key(opened.header(quantization.name))
                if opened is not None
                else self.catalogue.shape_key(model)
            )
        return self._keys[name]

    def asked_about(self, shape_key: str) -> str | None:
        """The first model of that shape that this run asked about."""
        return next((model for (model, _), key in self._keys.items() if key == shape_key), None)

    def layout(self, model: Model, quantization: Quantization, layers: Sequence[int] | None = None) -> Layout:
        """Metadata and tensors of a model or of a slice of its layers; typed already where it comes from a file."""
        opened = self._files.get(model.id)
        if opened is not None:
            return header_layout(opened.header(quantization.name), layers)
        return self.catalogue.layout(model, layers)

    def layout_source(self, model: Model, quantization: Quantization) -> LayoutSource:
        """Builds the whole layout when somebody really needs it, once for all models of its shape."""

        def build() -> Layout:
            key = self.shape_key(model, quantization)
            if key not in self._layouts:
                self._layouts[key] = self.layout(model, quantization)
            return self._layouts[key]

        return build
