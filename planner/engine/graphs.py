"""The engine's own graphs of a model: what it computes for a micro-batch, operation by operation, and who asks for it.

Answers are remembered under the fingerprint of the engine build, one file for each shape. The mistake it prevents is
an operation that we did not think of: whatever the engine would run for a token stands here with its types and shapes.
"""

import contextlib
import zlib
from collections.abc import Sequence
from pathlib import Path

import msgspec

from planner.engine.oracle import LayoutSource, Oracle
from planner.engine.questions import question_key
from planner.errors import EngineError
from planner.files import cache_dir, try_atomic_write
from planner.types import Report
from planner.types.model import Quantization
from planner.types.settings import Settings

__all__ = ["Graph", "GraphQuestion", "Graphs", "Node", "Operand"]

_FORMAT = 1
# All that changes a graph or where its weights lie; how it is loaded and how many threads compute it do not.
_ASKED = (
    "repack", "lazy_mode", "host_buffer", "gpu_layers", "split_mode", "main_gpu", "tensor_split", "tensor_overrides",
    "cpu_moe_layers", "context_tokens", "parallel", "kv_unified", "swa_full", "cache_type_k", "cache_type_v",
    "flash_attention", "ubatch", "kv_offload", "op_offload",
)  # fmt: skip


class Operand(msgspec.Struct, frozen=True, array_like=True):
    """What an operation reads: a type by its name, a shape without ones at its end, and the buffer type of a leaf."""

    type: str
    shape: tuple[int, ...]
    place: str = ""

    @property
    def elements(self) -> int:
        """How many values it holds."""
        return _product(self.shape)


class Node(msgspec.Struct, frozen=True, array_like=True):
    """``times`` equal operations of one graph."""

    times: int
    op: str
    type: str
    shape: tuple[int, ...]
    operands: tuple[Operand, ...]

    @property
    def elements(self) -> int:
        """How many values each of them makes."""
        return _product(self.shape)


class Graph(msgspec.Struct, frozen=True):
    """The operations of one micro-batch; ``window`` is how far back a layer with a window looks (0: there is none)."""

    nodes: tuple[Node, ...]
    window: int = 0


class GraphQuestion(Report, frozen=True, kw_only=True):
    """A micro-batch: ``tokens`` in all, of ``sequences``, logits for ``outputs`` of them, in a full cache."""

    settings: Settings
    tokens: int
    sequences: int = 1
    outputs: int = 1


class _Kept(Report, frozen=True, kw_only=True):
    format: int
    graphs: dict[str, Graph]


class Graphs:
    """Graphs by question, from the engine or as it answered earlier; :meth:`flush` keeps what is new."""

    def __init__(self, oracle: Oracle, *, folder: Path | None = None) -> None:
        self._oracle = oracle
        self._folder = folder if folder is not None else cache_dir() / "graphs"
        self._shapes: dict[str, dict[str, Graph]] = {}
        self._changed: set[str] = set()

    def ask(
        self, shape_key: str, layout: LayoutSource, quantization: Quantization, questions: Sequence[GraphQuestion]
    ) -> tuple[Graph, ...]:
        """The graph of each question, in order; all of them about one loaded model.

        Raises :class:`EngineError` when the engine refuses the settings or this build does not show its graphs.
        """
        shape = self._shape(shape_key)
        keys = [f"{self._key(quantization, each)} {each.tokens}/{each.sequences}/{each.outputs}" for each in questions]
        missing = {key: each for key, each in zip(keys, questions, strict=True) if key not in shape}
        if missing:
            answer = self._oracle.ask_model(
                "costs", shape_key, layout, quantization, {"asked": msgspec.to_builtins(list(missing.values()))}
            )
            told = msgspec.convert(answer["graphs"], list[dict[str, msgspec.Raw | object]])
            for key, graph in zip(missing, told, strict=True):
                if "refused" in graph:
                    raise EngineError(f"the engine does not show its graph: {graph['refused']}")
                shape[key] = msgspec.convert(graph, Graph)
            self._changed.add(shape_key)
        return tuple(shape[key] for key in keys)

    def flush(self) -> None:
        """Keep what was learnt; a disk that cannot be written costs only the next run's time."""
        for shape_key in sorted(self._changed):
            kept = msgspec.json.encode(_Kept(format=_FORMAT, graphs=self._shapes[shape_key]))
            try_atomic_write(self._path(shape_key), zlib.compress(kept, 1))
        self._changed.clear()

    def _key(self, quantization: Quantization, question: GraphQuestion) -> str:
        return question_key(
            quantization.name,
            question.settings,
            _ASKED,
            devices=self._oracle.phantom_devices,
            own_gpus=self._oracle.phantom_devices is None and self._oracle.has_gpu,
            drafting=False,
        )

    def _path(self, shape_key: str) -> Path:
        return self._folder / self._oracle.system().build / f"{shape_key}.json.z"

    def _shape(self, shape_key: str) -> dict[str, Graph]:
        if shape_key not in self._shapes:
            self._shapes[shape_key] = {}
            # Not asked yet, or a file that something else damaged: the engine is asked again.
            with contextlib.suppress(OSError, msgspec.MsgspecError, zlib.error, UnicodeDecodeError):
                kept = msgspec.json.decode(zlib.decompress(self._path(shape_key).read_bytes()), type=_Kept)
                if kept.format == _FORMAT:
                    self._shapes[shape_key] = dict(kept.graphs)
        return self._shapes[shape_key]


def _product(shape: Sequence[int]) -> int:
    found = 1
    for each in shape:
        found *= each
    return found
