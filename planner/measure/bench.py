"""Holds the children that time, with the phantoms they have open, and asks them for one run at a time.

OpenMP reads its waiting policy once, when it starts, so each policy is another child; both stay up, so that trials can
be interleaved (an idle one ends its threads and costs nothing). Mistakes it prevents: a phantom or a child left behind
after Ctrl-C, a question without a deadline, and a deadline that a slow but honest machine would miss.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from planner.engine.child import EngineChild
from planner.engine.phantom import write_phantom
from planner.engine.process import waiting_environment
from planner.files import phantom_folder
from planner.measure.slices import weights_bytes
from planner.types.measurement import Described, Test
from planner.types.model import Layout
from planner.types.settings import Settings, Waiting

if TYPE_CHECKING:
    import tempfile

__all__ = ["Bench", "OpenChild", "Progress", "Run", "no_progress"]

OpenChild = Callable[[Mapping[str, str]], EngineChild]
"""Makes a child with additions to its environment; the child starts with its first question."""

Progress = Callable[[str, float, float], None]
"""Told what runs now, the share of it that is done (0 to 1), and how many seconds it takes in all."""

RANDOM_FOR_ROUTING = (
    "ffn_gate_inp.weight",
    "ffn_norm.weight",
    "post_attention_norm.weight",
    "token_embd.weight",
)
"""What must not be zero for tokens to be routed to different experts: what the router sees, and the router.

The norm before the experts goes by one of these names (``hc_ffn_norm.weight`` ends with the first).
"""

_FIRST_LOAD_BYTES_PER_S = 0.45e9
"""What is repacked loads so fast on a virtual machine whose memory is touched for the first time. What is only mapped
loads at once, which tells nothing about the next model: no load counts as faster than this."""
_FIRST_LOAD_BYTES = 1e9
_SLOWEST_LOAD_BYTES_PER_S = 50e6
_LOAD_GRACE_S = 30.0
_SEED = 1


class Run(NamedTuple):
    """What one question to the child brought; ``wall_s`` counts everything around the timed part too."""

    samples_ns: tuple[int, ...]
    tokens_timed: int
    depth_reached: int
    filled_by: str
    wall_s: float

    @property
    def ns_per_token(self) -> float:
        """Nanoseconds for one token of the fastest repetition."""
        return min(self.samples_ns) / self.tokens_timed


def no_progress(_stage: str, _done: float, _total_s: float) -> None:
    """Tell nobody."""


class Bench:
    """Children by waiting policy and open phantoms by label; a context manager that leaves nothing behind.

    ``folder`` is where phantoms go (sparse files; default: the cache, else the system's temporary folder).
    ``random_weights`` fills all of them, for GPUs, which draw less power and run faster on zeros; it costs their full
    size on disk.
    """

    def __init__(self, open_child: OpenChild, *, folder: Path | None = None, random_weights: bool = False) -> None:
        self._open_child = open_child
        self._random_weights = random_weights
        self._children: dict[str, EngineChild] = {}
        self._owner: dict[str, EngineChild] = {}
        self._settings: dict[str, Settings] = {}
        self.described: dict[str, Described] = {}
        self._parent = folder
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        # As if one phantom had been loaded already: a small one alone would promise too much.
        self._loaded_bytes, self._loading_s = _FIRST_LOAD_BYTES, _FIRST_LOAD_BYTES / _FIRST_LOAD_BYTES_PER_S

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """End every child and remove every phantom."""
        children, self._children = self._children, {}
        self._owner.clear()
        for child in children.values():
            child.close()
        folder, self._folder = self._folder, None
        if folder is not None:
            folder.cleanup()

    @property
    def pids(self) -> tuple[int, ...]:
        """The children that run."""
        return tuple(child.pid for child in self._children.values() if child.pid is not None)

    @property
    def load_bytes_per_s(self) -> float:
        """How fast phantoms load here, over all loads so far."""
        return self._loaded_bytes / self._loading_s

    def load_s(self, size_bytes: int) -> float:
        """How long loading ``size_bytes`` will take, judged by the loads so far."""
        return size_bytes / self.load_bytes_per_s

    def open(
        self,
        layout: Layout,
        settings: Settings,
        label: str,
        *,
        usable_bytes: int = 0,
        progress: Progress = no_progress,
    ) -> None:
        """Write ``layout`` (with its types) as a phantom and load it as ``label`` in the child that waits as told.

        Where ``usable_bytes`` hold the file and a repacked copy it is mapped, whatever ``settings`` say: steady speed
        does not depend on the load mode, but reading into buffers touches every page twice, and a fresh page costs up
        to 10 microseconds on a virtual machine.
        Routed models get random routers in any case, or every token would go to the same experts.
        """
        size = weights_bytes(layout)
        path = self._path(label)
        routed = any("ffn_gate_inp" in tensor.name for tensor in layout.tensors)
        write_phantom(
            path,
            layout,
            random_seed=_SEED if routed or self._random_weights else None,
            random_only=() if self._random_weights else RANDOM_FOR_ROUTING,
        )
        if settings.load_mode == "none" and 2 * size <= usable_bytes:
            settings = msgspec.structs.replace(settings, load_mode="mmap")
        progress("loading a phantom model", 0.0, self.load_s(size))
        begin = time.monotonic()
        try:
            self.open_file(path, settings, label, size_bytes=size)
        finally:
            # The mapping outlives the name, and a file without a name cannot be left behind.
            path.unlink(missing_ok=True)
        self._loaded_bytes += size
        self._loading_s += max(time.monotonic() - begin, size / _FIRST_LOAD_BYTES_PER_S)

    def open_file(self, path: Path, settings: Settings, label: str, *, size_bytes: int) -> None:
        """Load a GGUF file (of a split set, the first) as ``label``, just as ``settings`` say.

        What the engine tells of the model stands in :attr:`described` afterwards.
        """
        child = self._child(settings.openmp_wait)
        answer = child.ask(
            "timing.open",
            {"path": str(path), "settings": msgspec.to_builtins(settings), "label": label, "seed": _SEED},
            deadline_s=_LOAD_GRACE_S + size_bytes / _SLOWEST_LOAD_BYTES_PER_S,
        )
        opened = msgspec.convert(answer, _Opened)
        self.described[label] = Described(
            model_type=opened.model_type, model_size_bytes=opened.model_size, parameters=opened.model_n_params
        )
        self._owner[label] = child
        self._settings[label] = settings

    def is_open(self, label: str) -> bool:
        """Whether a model is open under ``label``."""
        return label in self._owner

    def close(self, labels: Sequence[str]) -> None:
        """Free the models of ``labels``; the children stay."""
        for label in labels:
            child = self._owner.pop(label, None)
            if child is not None and child.alive:
                child.ask("timing.close", {"label": label}, deadline_s=_LOAD_GRACE_S)

    def run(
        self,
        label: str,
        test: Test,
        *,
        tokens: int,
        deadline_s: float,
        budget_s: float | None = None,
        fill_budget_s: float = 20.0,
        threads: tuple[int, int] | None = None,
        sequences: int | None = None,
    ) -> Run:
        """One repetition of ``test`` shortened to ``tokens`` (and by ``budget_s``) on the model ``label``.

        ``threads`` (decode, prompt) overrides those of the test and of the settings the model was opened with,
        ``sequences`` those of the test; the context must be made for as many (``Settings.parallel``). ``tokens`` and
        the answer's ``tokens_timed`` are of each sequence. Raises what the child raises; :class:`EngineDiedError` when
        nothing came in ``deadline_s``.
        """
        settings = self._settings[label]
        decode, prompt = threads or (test.threads or settings.threads, test.threads or settings.threads_batch)
        args: dict[str, object] = {
            "label": label,
            "kind": test.kind,
            "tokens": tokens,
            "prompt_tokens": _prompt_share(test, tokens),
            "depth": test.depth,
            "sequences": sequences or test.sequences,
            "threads": decode,
            "threads_batch": prompt,
            "repetitions": 1,
            "fill_budget_s": fill_budget_s,
        }
        if budget_s is not None:
            args["budget_s"] = budget_s
        begin = time.monotonic()
        answer = self._owner[label].ask("timing.run", args, deadline_s=deadline_s)
        return msgspec.convert({**answer, "wall_s": time.monotonic() - begin}, _Answer).run()

    def _child(self, waiting: Waiting) -> EngineChild:
        if waiting not in self._children:
            self._children[waiting] = self._open_child(waiting_environment(waiting))
        return self._children[waiting]

    def _path(self, label: str) -> Path:
        if self._folder is None:
            self._folder = phantom_folder(self._parent)
        return Path(self._folder.name) / f"{label}.gguf"


def _prompt_share(test: Test, tokens: int) -> int:
    """How many of a mixed test's ``tokens`` are its prompt: a shortened test keeps the proportion."""
    if test.kind != "mixed":
        return 0
    return min(tokens - 1, max(1, round(tokens * test.prompt_tokens / test.tokens)))


class _Opened(msgspec.Struct, frozen=True):
    """The child's reply to ``timing.open``, as far as it is used."""

    model_type: str
    model_size: int
    model_n_params: int


class _Answer(msgspec.Struct, frozen=True):
    """The child's reply to ``timing.run``, checked."""

    samples_ns: tuple[int, ...]
    tokens_timed: int
    depth_reached: int
    filled_by: str
    wall_s: float

    def run(self) -> Run:
        return Run(self.samples_ns, self.tokens_timed, self.depth_reached, self.filled_by, self.wall_s)
