"""The catalogue: which models and quantizations exist, what they are made of, where each fact was read.

Everything comes from ``profiles/``, facts with sources that people maintain. Loading is cheap (the architectures are
read only when a layout is asked for) and a wrong profile names itself instead of ending in a traceback.
"""

import difflib
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from planner.catalogue.architectures import Architecture, read_architecture
from planner.catalogue.families import read_family
from planner.catalogue.quantizations import read_quantizations
from planner.catalogue.shared import read_shared
from planner.errors import BadInputError, MissingInputError, UsageError
from planner.files import profiles_dir
from planner.types.model import KnownModel, Layout, Model, Quantization

__all__ = ["Catalogue", "load"]

_SUFFIXES = ("-gguf", "-instruct", "-chat")


def load(profiles: Path | None = None) -> "Catalogue":
    """The catalogue of ``profiles`` (default: the profiles that planner ships).

    Raises BadInputError naming the file and the place in it, MissingInputError when there are no profiles.
    """
    folder = profiles or profiles_dir()
    files = sorted((folder / "models").glob("*.toml"), key=lambda path: path.stem)
    if not files:
        raise MissingInputError(f"no models under {folder / 'models'}", hint="reinstall planner")
    models: list[Model] = []
    known: list[KnownModel] = []
    taken: set[str] = set()
    shared = read_shared(folder)
    for path in files:
        family = read_family(path, shared)
        for name in [*(model.id for model in family.models), *(model.id for model in family.known)]:
            if name in taken:
                raise BadInputError(f"{path}: models.{name}: this id is taken", hint="give it another id")
            taken.add(name)
        models += family.models
        known += family.known
    return Catalogue(folder, models, read_quantizations(folder / "quantizations.toml"), known)


class Catalogue:
    """Models and quantizations by name, and the tensor layout of each model.

    ``known_only`` are models that exist and cannot be planned, each with its reason.
    """

    def __init__(
        self,
        folder: Path,
        models: Iterable[Model],
        quantizations: Iterable[Quantization],
        known_only: Iterable[KnownModel] = (),
    ) -> None:
        self._folder = folder
        self.models: Mapping[str, Model] = MappingProxyType({model.id: model for model in models})
        self.known_only: Mapping[str, KnownModel] = MappingProxyType({model.id: model for model in known_only})
        self.quantizations: Mapping[str, Quantization] = MappingProxyType({q.name: q for q in quantizations})
        self._aliases = _aliases((*self.models.values(), *self.known_only.values()))
        self._architecture = functools.cache(self._read_architecture)
        self._last: tuple[Model, Layout] | None = None

    def model(self, name: str) -> Model:
        """The model of that id, or of that Hugging Face name; case, ``-Instruct``, ``-Chat``, ``-GGUF`` do not matter.

        Raises UsageError: code ``unknown-model`` with the names that come closest, code ``not-plannable`` with the
        reason for a model of ``known_only``.
        """
        found = self.find(name)
        if isinstance(found, Model):
            return found
        raise UsageError(
            f"{found.name} is known but cannot be planned: {found.reason}",
            hint=f"`planner models --family {found.family}` lists what can be",
            code="not-plannable",
        )

    def find(self, name: str) -> Model | KnownModel:
        """As :meth:`model`, but also those of ``known_only``. Raises UsageError (code ``unknown-model``)."""
        asked = name.strip().lower()
        for key in (asked, _short(asked)):
            if key in self._aliases:
                model_id = self._aliases[key]
                return self.models[model_id] if model_id in self.models else self.known_only[model_id]
        raise UsageError(
            f"unknown model {name!r}", hint=_suggest(_short(asked), self.models, "models"), code="unknown-model"
        )

    def quantization(self, name: str) -> Quantization:
        """The quantization of that name, in any case. Raises UsageError (code ``unknown-quantization``)."""
        asked = name.strip().upper()
        if asked in self.quantizations:
            return self.quantizations[asked]
        raise UsageError(
            f"unknown quantization {name!r}",
            hint=_suggest(asked, self.quantizations, "models --json"),
            code="unknown-quantization",
        )

    def layout(self, model: Model, layers: int | Sequence[int] | None = None) -> Layout:
        """Metadata and tensors of ``model`` unquantized (BF16, norms and routers F32).

        ``layers``: ``None`` is the whole model, a number the first so many layers, a sequence the original indices to
        keep, ascending (one may repeat): ``(0, 40, 41)`` of DeepSeek-R1 is a slice of one dense and two MoE layers.
        """
        if layers is None:
            # One model is asked about in many quantizations, and working out its tensors takes longer than the rest.
            if self._last is None or self._last[0] is not model:
                self._last = model, self._architecture(model.architecture).layout(model, None)
            return self._last[1]
        kept = range(layers) if isinstance(layers, int) else layers
        return self._architecture(model.architecture).layout(model, kept)

    def parameters(self, model: Model) -> tuple[int, int]:
        """Parameters computed from the shape: in all, and those that one token passes through."""
        return self._architecture(model.architecture).parameters(model)

    def shape_key(self, model: Model) -> str:
        """A key that models share exactly when the engine's sizes and speeds are the same for them."""
        return self._architecture(model.architecture).shape_key(model)

    def _read_architecture(self, name: str) -> Architecture:
        return read_architecture(self._folder / "architectures" / f"{name}.toml")


def _short(name: str) -> str:
    """A name without its organisation and without what publishers hang on to it."""
    short = name.rsplit("/", 1)[-1]
    for suffix in _SUFFIXES:
        short = short.removesuffix(suffix)
    return short


def _aliases(models: Iterable[Model | KnownModel]) -> dict[str, str]:
    """Every accepted name → id; a name that two models could claim belongs to none, an id always to its model."""
    owners: dict[str, set[str]] = {}
    ids: dict[str, str] = {}
    for model in models:
        ids[model.id] = model.id
        long = [model.name.lower(), *(repo.lower() for repo in (model.hf_repo, model.modelscope_id) if repo)]
        for alias in {*long, *(_short(name) for name in long)}:
            owners.setdefault(alias, set()).add(model.id)
    unique = {alias: next(iter(owner)) for alias, owner in owners.items() if len(owner) == 1}
    return {**unique, **ids}


def _suggest(asked: str, known: Iterable[str], command: str) -> str:
    close = difflib.get_close_matches(asked, list(known), n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"`planner {command}` lists what there is"
