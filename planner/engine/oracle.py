"""Asks llama.cpp what a deployment would hold, and remembers the answers while the engine build stays the same.

The mistake it prevents is believing yesterday's engine: every answer is kept under the fingerprint of the very shared
libraries that gave it, one file per model shape, so an upgrade starts from nothing and two models of equal shape
share one answer.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec

from planner.engine.answers import (
    ANSWERS_FORMAT,
    Buffers,
    ShapeAnswers,
    SystemAnswer,
    TensorTable,
    Weights,
    weights_from_rows,
)
from planner.engine.child import EngineChild
from planner.engine.devices import HOST, PhantomDevice, device_of
from planner.engine.drafting import second_context
from planner.engine.drift import DriftWatch, kept_answers
from planner.engine.phantom import write_phantom
from planner.engine.questions import question_key
from planner.files import cache_dir, phantom_folder, try_atomic_write
from planner.types.drift import Change
from planner.types.model import Layout, Quantization, TensorSpec
from planner.types.settings import Settings

__all__ = ["LayoutSource", "Oracle"]

LayoutSource = Callable[[], Layout]
"""Builds a model's full layout when it is really needed; a remembered answer never needs it."""

# The settings that an answer depends on: weights on the first, buffers on both.
_WEIGHTS = (
    "repack", "lazy_mode", "host_buffer", "gpu_layers", "split_mode", "main_gpu", "tensor_split", "tensor_overrides",
    "cpu_moe_layers", "speculation",
)  # fmt: skip
_CONTEXT = (
    "context_tokens", "parallel", "kv_unified", "swa_full", "cache_type_k", "cache_type_v", "flash_attention",
    "batch", "ubatch", "outputs_max", "kv_offload", "op_offload", "threads", "threads_batch",
    "draft_tokens",
)  # fmt: skip
_PADDING_BYTES = 4096  # a buffer's, less than any tensor of a layer but its norms
_ANY = "*"  # in the place of a quantization
_NO_ANSWERS = ShapeAnswers(format=ANSWERS_FORMAT)
_PROCESS_STEP_BYTES = 1 << 20


class Oracle:
    """The engine's answers about model shapes; use as a context manager so that they are kept.

    ``shape_key`` names all that the engine's answer can depend on (see ``Catalogue.shape_key``). ``devices`` are
    phantoms that stand for the GPUs of a machine that is not this one (none: its CPU alone); ``None`` leaves the engine
    the devices that it has.
    """

    def __init__(
        self, child: EngineChild, *, folder: Path | None = None, devices: Sequence[PhantomDevice] | None = None
    ) -> None:
        self._child = child
        self._devices = None if devices is None else tuple(devices)
        self._folder = folder if folder is not None else cache_dir() / "engine"
        self._shapes: dict[str, ShapeAnswers] = {}
        self._changed: set[str] = set()
        self._system: SystemAnswer | None = None
        self._sent: set[str] = set()
        self._watch: DriftWatch | None = None
        self._on_devices: dict[tuple[str, str], Buffers] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    @property
    def child(self) -> EngineChild:
        """The child process that answers; measuring uses the same one."""
        return self._child

    def system(self) -> SystemAnswer:
        """What the engine is: versions, build fingerprint, devices, resident bytes of an idle process."""
        if self._system is None:
            told = msgspec.convert(self._child.ask("system"), SystemAnswer)
            self._system = msgspec.structs.replace(told, process_bytes=self._process_bytes(told))
        return self._system

    def _process_bytes(self, told: SystemAnswer) -> int | None:
        """What an idle process held when this build was first asked: it varies by pages, and plans must not."""
        path = self._folder / told.build / "process.json"
        with contextlib.suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return msgspec.json.decode(path.read_bytes(), type=int)
        if told.process_bytes is None:
            return None
        rounded = -(-told.process_bytes // _PROCESS_STEP_BYTES) * _PROCESS_STEP_BYTES
        try_atomic_write(path, msgspec.json.encode(rounded))
        return rounded

    @property
    def drift(self) -> tuple[Change, ...]:
        """What this build answered in this run, for the first time, differently than the last other build had."""
        return () if self._watch is None else tuple(self._watch.changes)

    @property
    def has_gpu(self) -> bool:
        """True when there is a GPU, its own or a phantom, so that placement settings mean something to the engine."""
        if self._devices is not None:
            return bool(self._devices)
        return any(device.kind in ("gpu", "igpu") for device in self.system().devices)

    @property
    def phantom_devices(self) -> tuple[PhantomDevice, ...] | None:
        """The phantoms that stand for its GPUs; ``None`` where it answers with the engine's own devices."""
        return self._devices

    @property
    def with_phantoms(self) -> bool:
        """True when its GPUs are phantoms: exact by the backends' published rules, and not checked on the card."""
        return bool(self._devices)

    def typed_layout(self, shape_key: str, layout: LayoutSource, quantization: Quantization) -> Layout:
        """The layout with every tensor's type and the file order that ``llama-quantize`` gives it.

        A layout that was read from a file's header has its types already (``quantization.ftype`` is ``None``).
        """
        if quantization.ftype is None:
            return layout()
        names, types = self._types(shape_key, layout, quantization)
        source = layout()
        by_name = {tensor.name: tensor for tensor in source.tensors}
        tensors = tuple(
            TensorSpec(name=name, dims=by_name[name].dims, type=kind.upper())
            for name, kind in zip(names, types, strict=True)
        )
        return msgspec.structs.replace(source, tensors=tensors)

    def weights(self, shape_key: str, layout: LayoutSource, quantization: Quantization, settings: Settings) -> Weights:
        """Where the weights of one quantization go under ``settings``; raises :class:`EngineError` when refused."""
        key = self._key(quantization, settings, _WEIGHTS)
        known = self._shape(shape_key).weights.get(key)
        if known is not None:
            return known
        told = self.tensors(shape_key, layout, quantization, settings)
        weights = weights_from_rows(list(told.rows), told.buffers, told.mapped, told.loading, told.lazy_bytes)
        self._keep(shape_key, weights={key: weights})
        return weights

    def tensors(
        self, shape_key: str, layout: LayoutSource, quantization: Quantization, settings: Settings
    ) -> TensorTable:
        """Every tensor with its place, as the engine puts them under ``settings``; too long to be kept."""
        asked = {"settings": msgspec.to_builtins(settings)}
        answer = self.ask_model("weights", shape_key, layout, quantization, asked)
        return TensorTable(
            rows=msgspec.convert(answer["tensors"], tuple[tuple[str, int, str, int], ...]),
            buffers=msgspec.convert(answer["buffers"], dict[str, int]),
            mapped=msgspec.convert(answer["mapped"], dict[str, int]),
            loading=msgspec.convert(answer["loading"], dict[str, tuple[int, int, int]]),
            lazy_bytes=msgspec.convert(answer["lazy_bytes"], int),
        )

    def buffers(
        self, shape_key: str, layout: LayoutSource, settings: Sequence[Settings], quantization: Quantization
    ) -> list[Buffers]:
        """Cache, compute buffers and work space for each of ``settings``, in order.

        Quickest where they agree in what belongs to a loaded model (placement, repacking, who drafts), and quicker yet
        where they differ in the number of outputs alone.
        """
        return self._contexts(shape_key, layout, settings, quantization, drafting=False)

    def drafting_buffers(
        self, shape_key: str, layout: LayoutSource, settings: Settings, quantization: Quantization
    ) -> Buffers:
        """The buffers of the second context, in which the model drafts for itself (``speculation="draft-mtp"``).

        ``settings`` are those of the first context; the second's are derived as llama-server derives them.
        """
        second = second_context(settings)
        return self._contexts(shape_key, layout, [second], quantization, drafting=True)[0]

    def _contexts(
        self,
        shape_key: str,
        layout: LayoutSource,
        settings: Sequence[Settings],
        quantization: Quantization,
        *,
        drafting: bool,
    ) -> list[Buffers]:
        keys = [self._key(quantization, each, (*_WEIGHTS, *_CONTEXT), drafting=drafting) for each in settings]
        known = self._shape(shape_key).buffers
        missing = {key: each for key, each in zip(keys, settings, strict=True) if key not in known}
        alike = {} if drafting else self._alike(shape_key, missing, quantization)
        for key, same in alike.items():
            if same in self._on_devices:
                self._keep(shape_key, buffers={key: self._on_devices[same]})
                del missing[key]
        for group in _by_model(missing):
            asked = {"settings": [msgspec.to_builtins(missing[key]) for key in group], "drafting": drafting}
            answer = self.ask_model("buffers", shape_key, layout, quantization, asked)
            found = msgspec.convert(answer["answers"], list[Buffers])
            self._keep(shape_key, buffers=dict(zip(group, found, strict=True)))
            self._on_devices |= {alike[key]: told for key, told in zip(group, found, strict=True) if key in alike}
        known = self._shape(shape_key).buffers
        return [known[key] for key in keys]

    def _alike(
        self, shape_key: str, missing: Mapping[str, Settings], quantization: Quantization
    ) -> dict[str, tuple[str, str]]:
        """What the answers to ``missing`` depend on where it is not the quantization: all but the look-up on phantoms.

        Types decide which kernels the CPU takes, how much they work in and what it repacks, and of a graph that
        devices compute alone nothing (``tests/engine/test_oracle.py`` asks both). Known for weights that were asked.
        """
        found = {}
        for key, settings in missing.items() if self.with_phantoms else ():
            weights = self._shape(shape_key).weights.get(self._key(quantization, settings, _WEIGHTS))
            if weights is not None and _on_devices_alone(weights, settings):
                told = question_key(_ANY, settings, (*_WEIGHTS, *_CONTEXT), devices=self._devices, own_gpus=False)
                found[key] = (shape_key, told)
        return found

    def flush(self) -> None:
        """Keep what was learnt; a read-only or full disk costs only the next run's time."""
        for shape_key in sorted(self._changed):
            try_atomic_write(self._path(shape_key), msgspec.json.encode(self._shapes[shape_key]))
        self._changed.clear()

    def ask_about(self, op: str, layout: Layout, args: dict[str, object]) -> dict[str, object]:
        """The child's answer to a question about a phantom of ``layout``, asked afresh and not kept."""
        with _phantom(layout) as path:
            return self._ask(op, {"path": path, **args})

    def ask_model(
        self,
        op: str,
        shape_key: str,
        layout: LayoutSource,
        quantization: Quantization,
        args: dict[str, object],
    ) -> dict[str, object]:
        """Ask about a model by name; its phantom is written only where the child has not got it loaded."""
        key = f"{shape_key} {quantization.name}"
        if key in self._sent:
            answer = self._ask(op, {"key": key, **args})
            if not answer.get("unknown"):
                return answer
        with _phantom(self.typed_layout(shape_key, layout, quantization)) as path:
            answer = self._ask(op, {"key": key, "path": path, **args})
        self._sent.add(key)
        return answer

    def _ask(self, op: str, args: dict[str, object]) -> dict[str, object]:
        devices = None if self._devices is None else msgspec.to_builtins(self._devices)
        return self._child.ask(op, {**args, "devices": devices})

    def _types(
        self, shape_key: str, layout: LayoutSource, quantization: Quantization
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        known = self._shape(shape_key).types.get(quantization.name)
        if known is not None:
            return known
        with _phantom(layout()) as path:
            recipe = {"ftype": quantization.ftype, "imatrix": quantization.needs_imatrix}
            answer = self._child.ask("types", {"path": path, "recipes": [recipe]})
        names = msgspec.convert(answer["names"], tuple[str, ...])
        types = msgspec.convert(answer["types"], list[tuple[str, ...]])[0]
        self._keep(shape_key, types={quantization.name: (names, types)})
        return names, types

    def _key(
        self, quantization: Quantization, settings: Settings, fields: tuple[str, ...], *, drafting: bool = False
    ) -> str:
        return question_key(
            quantization.name,
            settings,
            fields,
            devices=self._devices,
            own_gpus=self._devices is None and self.has_gpu,
            drafting=drafting,
        )

    def _path(self, shape_key: str) -> Path:
        return self._folder / self.system().build / f"{shape_key}.json"

    def _shape(self, shape_key: str) -> ShapeAnswers:
        if shape_key not in self._shapes:
            # Not asked yet, or a file that something else damaged: the engine is asked again.
            self._shapes[shape_key] = kept_answers(self._path(shape_key)) or _NO_ANSWERS
        return self._shapes[shape_key]

    def _keep(
        self,
        shape_key: str,
        *,
        types: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] | None = None,
        weights: Mapping[str, Weights] | None = None,
        buffers: Mapping[str, Buffers] | None = None,
    ) -> None:
        if self._watch is None:
            self._watch = DriftWatch(self._folder, self.system().build)
        self._watch.see(shape_key, weights or {}, buffers or {})
        old = self._shape(shape_key)
        self._shapes[shape_key] = ShapeAnswers(
            format=ANSWERS_FORMAT,
            types={**old.types, **(types or {})},
            weights={**old.weights, **(weights or {})},
            buffers={**old.buffers, **(buffers or {})},
        )
        self._changed.add(shape_key)


def _on_devices_alone(weights: Weights, settings: Settings) -> bool:
    """Whether the CPU holds the table of the token embedding at most, and no part of the cache."""
    on_host = sum(size for name, size in weights.buffers.items() if device_of(name) == HOST)
    table = weights.head_bytes if weights.tied else weights.input_bytes
    return settings.kv_offload and on_host <= table + _PADDING_BYTES


def _by_model(wanted: Mapping[str, Settings]) -> list[list[str]]:
    """The keys of settings in groups that one loaded model can answer for."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for key, settings in wanted.items():
        groups.setdefault(tuple(getattr(settings, field) for field in _WEIGHTS), []).append(key)
    return list(groups.values())


@contextlib.contextmanager
def _phantom(layout: Layout) -> Iterator[str]:
    """A phantom file that exists as long as the question about it is asked."""
    with phantom_folder() as folder:
        path = Path(folder) / "phantom.gguf"
        write_phantom(path, layout)
        yield str(path)
