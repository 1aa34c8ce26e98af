"""An architecture's tensors and metadata as data, worked out for one model's shape.

``profiles/architectures/<name>.toml`` lists what a converted GGUF of that architecture holds: names with ``{i}`` for
the layer, dimensions as expressions over the shape's names, conditions, and the metadata keys. A new architecture is a
new file and no code. Two mistakes this prevents: sizes taken from a model's name, and a layer count that leaks into
the wrong place when a phantom keeps only some layers (``n_layer`` is always the whole model's, ``layers`` what is kept,
``i`` the layer's original index; names are numbered anew).
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from planner.catalogue.expressions import LAYERS, Expression, ExpressionError, Scope, Value, compile_expression
from planner.catalogue.tables import Table, bad_profile, convert, read_table
from planner.types import Record
from planner.types.metadata import GgufType, GgufValue
from planner.types.model import Layout, MetadataValue, Model, Shape, TensorSpec

__all__ = ["Architecture", "read_architecture"]

_TYPES = {"weight": "BF16", "f32": "F32", "constant": "F32"}


class _Tensor(Record, frozen=True, kw_only=True):
    """One line of ``tensors``: ``type`` is ``weight``, ``f32``, ``constant`` (not a parameter) or a ggml type.

    ``when`` says whether the file holds it, ``parameter`` whether it counts (a second copy of a shared matrix does
    not), ``used`` for how much of it one token needs.
    """

    name: str
    dims: tuple[str, ...]
    type: str = "weight"
    when: str = "1"
    parameter: str = "1"
    used: str = "1"


class _Key(Record, frozen=True, kw_only=True):
    """A metadata value that is conditional (``when``), or a list (``each``) with one entry per kept layer.

    With ``trunk`` the list leaves the multi-token-prediction blocks out; with ``entries`` it has so many entries, for
    ``i`` from 0, whatever the layers. ``type`` is for the keys of which the engine takes one type only (``[u64]``).
    """

    value: str | None = None
    each: str | None = None
    entries: str | None = None
    trunk: bool = False
    type: GgufType | None = None
    when: str = "1"


class _Profile(Record, frozen=True, kw_only=True):
    """An architecture file as it is written.

    ``layers`` counts the blocks that a converted file holds, those that predict further tokens (MTP) included where
    the converter keeps them; ``mtp`` is the condition on ``i`` that holds for these. They are in the layout, and no
    parameters of the model. ``layer`` names expressions over ``i`` that the lines of a layer may use (``attends``),
    ``kept`` such over the kept layers.
    """

    architecture: str
    sources: tuple[str, ...]
    shape: tuple[str, ...]
    neutral: tuple[str, ...] = ()
    layers: str = "n_layer"
    mtp: str = "0"
    kept: dict[str, str] = {}
    layer: dict[str, str] = {}
    defaults: dict[str, int | float | bool | str] = {}
    metadata: dict[str, int | float | bool | str | _Key]
    tensors: tuple[_Tensor, ...]


def read_architecture(path: Path) -> "Architecture":
    """The architecture that ``path`` describes. Raises BadInputError naming the file and the key."""
    table: Table = read_table(path)
    profile = convert(path, "", table, _Profile)
    return Architecture(path, profile)


class Architecture:
    """Works out layouts, parameter counts and the shape key of models of one architecture."""

    def __init__(self, path: Path, profile: _Profile) -> None:
        self._path = path
        self._profile = profile
        self._compiled: dict[str, Expression] = {}
        for text, place in _expressions(profile):
            try:
                self._compiled[text] = compile_expression(text)
            except ExpressionError as error:
                raise bad_profile(path, place, str(error)) from error

    def layout(self, model: Model, layers: Sequence[int] | None = None) -> Layout:
        """Metadata and tensors of ``model``, or of a slice that keeps the original ``layers`` (ascending, may repeat).

        Raises BadInputError where the profile is wrong, ValueError for layers that the model does not have.
        """
        scope = self._scope(model)
        kept = self._kept(scope, layers)
        scope = self._around(scope, kept)
        return Layout(
            architecture=self._profile.architecture,
            metadata=self._metadata(scope),
            tensors=tuple(self._tensors(scope, kept)),
            layers=kept,
        )

    def parameters(self, model: Model) -> tuple[int, int]:
        """Parameters in all, and those that one token passes through; equal where nothing is routed.

        Multi-token-prediction blocks and what the converter computes are in the file, and not counted here.
        """
        scope = self._scope(model)
        scope = self._around(scope, self._kept(scope, None))
        total, active, routed = 0, 0.0, False
        for index in (None, *self._trunk(scope)):
            for place, tensor, inner in self._lines(scope, index):
                if tensor.type == "constant" or not self._number(f"{place}.parameter", tensor.parameter, inner):
                    continue
                size = math.prod(self._dims(place, tensor, inner))
                share = self._number(f"{place}.used", tensor.used, inner)
                total += size
                active += size * share
                routed = routed or 0 < share < 1
        return total, round(active) if routed else total

    def shape_key(self, model: Model) -> str:
        """A key that is equal for models of which the engine gives the same sizes and speeds.

        It is the hash of this profile (comments and sources aside) and of the model's shape without the names that
        the profile calls ``neutral``: they change a number in the metadata (rope base, trained context) but no tensor,
        no buffer and no kernel.
        """
        profile = msgspec.structs.replace(self._profile, sources=(), neutral=())
        scope = self._scope(model)
        shape = {name: scope[name] for name in sorted(scope) if name not in self._profile.neutral}
        return hashlib.blake2b(msgspec.json.encode([profile, shape], order="deterministic"), digest_size=8).hexdigest()

    def _scope(self, model: Model) -> dict[str, MetadataValue]:
        profile = self._profile
        known = {*profile.shape, *profile.defaults}
        missing, stray = sorted(set(profile.shape) - set(model.shape)), sorted(set(model.shape) - known)
        if missing or stray:
            problem = f"lacks {', '.join(missing)}" if missing else f"has the unknown {', '.join(stray)}"
            raise bad_profile(self._path, "shape", f"the shape of {model.id} {problem}")
        scope: dict[str, MetadataValue] = {"context_native": model.context_native, **_plain(model.shape)}
        for name, value in profile.defaults.items():
            if name not in scope:
                scope[name] = self._value(f"defaults.{name}", value, scope)
        del scope["context_native"]
        return scope

    def _kept(self, scope: Scope, layers: Sequence[int] | None) -> tuple[int, ...]:
        everything = range(int(self._number("layers", self._profile.layers, scope)))
        kept = tuple(everything if layers is None else layers)
        if not kept or list(kept) != sorted(kept) or kept[0] < 0 or kept[-1] >= len(everything):
            raise ValueError(f"layers must be ascending indices below {len(everything)}, not {kept}")
        return kept

    def _around(self, scope: dict[str, MetadataValue], kept: tuple[int, ...]) -> dict[str, MetadataValue]:
        """The names that every line sees once it is known which layers are kept."""
        scope = {**scope, LAYERS: kept, "layers": len(kept)}
        for name, text in self._profile.kept.items():
            scope[name] = self._value(f"kept.{name}", text, scope)
        return scope

    def _trunk(self, scope: Scope) -> Iterator[int]:
        """The layers that every token passes through: all but the multi-token-prediction blocks."""
        for layer in self._kept(scope, None):
            if not self._predicts(scope, layer):
                yield layer

    def _predicts(self, scope: Scope, layer: int) -> bool:
        return bool(self._number("mtp", self._profile.mtp, {**scope, "i": layer}))

    def _inside(self, scope: Scope, layer: int) -> Scope:
        """The names that a line about one layer sees."""
        inner: dict[str, MetadataValue] = {**scope, "i": layer}
        for name, text in self._profile.layer.items():
            inner[name] = self._value(f"layer.{name}", text, inner)
        return inner

    def _metadata(self, scope: Scope) -> dict[str, MetadataValue]:
        name = self._profile.architecture
        metadata: dict[str, MetadataValue] = {
            "general.architecture": name,
            "general.type": "model",
            "tokenizer.ggml.model": "no_vocab",
        }
        for key, line in self._profile.metadata.items():
            place = f"metadata.{key}"
            full = key if key.startswith("general.") else f"{name}.{key}"
            if not isinstance(line, _Key):
                metadata[full] = self._value(place, line, scope)
            elif self._number(f"{place}.when", line.when, scope):
                value = self._conditional(place, line, scope)
                metadata[full] = value if line.type is None else GgufValue(type=line.type, value=value)
        return metadata

    def _conditional(self, place: str, line: _Key, scope: Scope) -> Value | tuple[int | float | bool, ...]:
        if line.each is None:
            return self._value(f"{place}.value", line.value or "", scope)
        if line.entries is not None:
            count = int(self._number(f"{place}.entries", line.entries, scope))
            return tuple(self._number(f"{place}.each", line.each, {**scope, "i": index}) for index in range(count))
        kept = scope[LAYERS]
        assert isinstance(kept, tuple)  # noqa: S101 - _metadata is only called with the kept layers in scope
        chosen = [int(layer) for layer in kept if not (line.trunk and self._predicts(scope, int(layer)))]
        return tuple(self._number(f"{place}.each", line.each, self._inside(scope, layer)) for layer in chosen)

    def _tensors(self, scope: Scope, kept: tuple[int, ...]) -> Iterator[TensorSpec]:
        for index in (None, *range(len(kept))):
            for place, tensor, inner in self._lines(scope, None if index is None else kept[index]):
                yield TensorSpec(
                    name=tensor.name if index is None else tensor.name.replace("{i}", str(index)),
                    dims=self._dims(place, tensor, inner),
                    type=_TYPES.get(tensor.type, tensor.type),
                )

    def _lines(self, scope: Scope, layer: int | None) -> Iterator[tuple[str, _Tensor, Scope]]:
        """The tensors of one layer (of none: those outside the layers) whose condition holds."""
        inner = scope if layer is None else self._inside(scope, layer)
        for tensor in self._profile.tensors:
            place = f"tensors.{tensor.name}"
            if ("{i}" in tensor.name) is (layer is not None) and self._number(f"{place}.when", tensor.when, inner):
                yield place, tensor, inner

    def _dims(self, place: str, tensor: _Tensor, scope: Scope) -> tuple[int, ...]:
        dims = tuple(self._number(f"{place}.dims", text, scope) for text in tensor.dims)
        if not 1 <= len(dims) <= 4 or any(not isinstance(dim, int) or dim < 1 for dim in dims):
            raise bad_profile(self._path, f"{place}.dims", f"{dims} are no dimensions")
        return tuple(int(dim) for dim in dims)

    def _number(self, place: str, text: str, scope: Scope) -> int | float:
        value = self._value(place, text, scope)
        if isinstance(value, str):
            raise bad_profile(self._path, place, f"{text!r} is text where a number is needed")
        return value

    def _value(self, place: str, value: float | bool | str, scope: Scope) -> Value:
        if not isinstance(value, str):
            return value
        try:
            return self._compiled[value](scope)
        except ExpressionError as error:
            raise bad_profile(self._path, place, str(error)) from error


def _plain(shape: Shape) -> dict[str, MetadataValue]:
    return dict(shape.items())


def _expressions(profile: _Profile) -> Iterator[tuple[str, str]]:
    """Every expression of a profile with the place where it stands."""
    yield profile.layers, "layers"
    yield profile.mtp, "mtp"
    yield from ((text, f"kept.{name}") for name, text in profile.kept.items())
    yield from ((text, f"layer.{name}") for name, text in profile.layer.items())
    for name, value in profile.defaults.items():
        if isinstance(value, str):
            yield value, f"defaults.{name}"
    for key, line in profile.metadata.items():
        if isinstance(line, str):
            yield line, f"metadata.{key}"
        elif isinstance(line, _Key):
            yield line.when, f"metadata.{key}.when"
            texts = (line.value, line.each, line.entries)
            yield from ((text, f"metadata.{key}") for text in texts if text is not None)
    for tensor in profile.tensors:
        place = f"tensors.{tensor.name}"
        yield tensor.when, f"{place}.when"
        yield tensor.parameter, f"{place}.parameter"
        yield tensor.used, f"{place}.used"
        yield from ((dim, f"{place}.dims") for dim in tensor.dims)
