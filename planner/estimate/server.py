"""What llama-server takes from RAM after a clean start: saved prompts, context checkpoints, states for drafting.

None of it is in a buffer that the engine prints, all of it is host memory even where the model lies on a GPU, and it
grows with use: the mistake it prevents is a plan that fits on Monday and is killed on Thursday. A hybrid model's
checkpoints alone come to 4.7 GiB for each slot with llama-server's defaults (Qwen3.5-27B: 32 of 150 MiB).

Rules of ``tools/server/server-context.cpp`` (``prompt_save``, ``create_checkpoint``, ``process_single_task``),
``tools/server/server-task.cpp`` (``server_prompt_cache``) and ``common/common.h`` of llama.cpp at commit 0c1e57098:

* A slot that turns to another conversation, or lies idle when a task starts, has its whole state saved, with copies of
  its checkpoints. An entry larger than ``--cache-ram`` is not saved and older ones make room first, so the limit is
  strict. Builds before https://github.com/ggml-org/llama.cpp/pull/25070 (July 2026) saved first.
* A slot keeps up to ``--ctx-checkpoints`` copies of what cannot be rolled back: recurrent state, and what a window
  layer still sees. A model without either gets none, whatever the setting.
* Drafting keeps one more such copy for each slot (``spec_ckpt``).
"""

import re
from collections.abc import Sequence

from planner.types import Report

__all__ = [
    "CACHE_RAM_DEFAULT_MIB",
    "CHECKPOINTS_DEFAULT",
    "SLOTS_AUTO",
    "SequenceState",
    "ServerExtras",
    "affordable_extras",
    "sequence_state",
    "server_extras",
]

CACHE_RAM_DEFAULT_MIB = 8192
"""llama-server's ``--cache-ram`` where nobody says; -1 is without limit, 0 is off."""
CHECKPOINTS_DEFAULT = 32
"""Its ``--ctx-checkpoints``, for each slot."""
SLOTS_AUTO = 4
"""Its ``--parallel`` where nobody says; the slots then share one cache (``--kv-unified``)."""

_MIB = 1 << 20
# A saved cell's position, number of sequences, sequence and place in a picture (llama_kv_cache::state_write_meta).
_CELL_META_BYTES = 4 + 4 + 4 + 12
_CACHE = re.compile(r"llama_kv_cache: size = +([\d.]+) MiB \( *(\d+) cells, +\d+ layers, +\d+/(\d+) seqs\)")
_RECURRENT = re.compile(r"llama_memory_recurrent: size = +([\d.]+) MiB \( *(\d+) cells, .* (\d+) rs_seq\)")
_COMPRESSOR = re.compile(r"llama_dsv4_comp_state: .*streams = (\d+), rs_seq = (\d+), .*size = +([\d.]+) MiB")
_WINDOW = re.compile(r"creating +SWA KV cache")
_OTHER = re.compile(r"creating .*KV cache")


class SequenceState(Report, frozen=True, kw_only=True):
    """What saving one sequence copies, at most: ``whole_bytes`` grows with its tokens and is that of a full context.

    ``window_bytes`` is of window layers, ``recurrent_bytes`` of recurrent layers and compressors; both are the same
    at every length.
    """

    whole_bytes: int = 0
    window_bytes: int = 0
    recurrent_bytes: int = 0

    @property
    def saved_bytes(self) -> int:
        """The whole state of a sequence that fills its context."""
        return self.whole_bytes + self.checkpoint_bytes if not self._copies_all else self.checkpoint_bytes

    @property
    def checkpoint_bytes(self) -> int:
        """One checkpoint; 0 where the model needs none.

        Recurrent layers beside window layers copy everything (``llama_memory_hybrid_iswa::state_write`` knows no
        partial state).
        """
        partial = self.window_bytes + self.recurrent_bytes
        return partial + self.whole_bytes if self._copies_all else partial

    @property
    def _copies_all(self) -> bool:
        return bool(self.window_bytes and self.recurrent_bytes)


class ServerExtras(Report, frozen=True, kw_only=True):
    """Host memory that llama-server comes to take beside the engine's buffers.

    ``state_bytes`` is the saved state of one full sequence, ``checkpoint_bytes`` one checkpoint. ``prompt_cache_bytes``
    is what saved prompts come to (``None``: without limit), ``checkpoints_bytes`` all checkpoints of all slots,
    ``overshoot_bytes`` what a build that checks the limit too late takes above it for a moment.
    """

    state_bytes: int
    checkpoint_bytes: int
    prompt_cache_bytes: int | None
    checkpoints_bytes: int
    overshoot_bytes: int = 0

    @property
    def peak_bytes(self) -> int | None:
        """What it may take at most; ``None``: there is no bound."""
        if self.prompt_cache_bytes is None:
            return None
        return self.prompt_cache_bytes + self.checkpoints_bytes + self.overshoot_bytes


def sequence_state(log: Sequence[str], *, swa_full: bool = False, window_tokens: int | None = None) -> SequenceState:
    """What one sequence keeps, read from the engine's own lines about its caches (``Buffers.log``).

    In a cache that sequences share (``--kv-unified``) one of them may fill it all. A window cache has room for a
    micro-batch too, which is not saved: ``window_tokens`` (the model's window) tells how much is. With ``swa_full``
    a window layer rolls back like any other and is counted as whole.
    """
    whole = window = recurrent = 0.0
    in_window = False
    for line in log:
        if _OTHER.search(line):
            in_window = bool(_WINDOW.search(line)) and not swa_full
        elif match := _CACHE.search(line):
            share, length = float(match[1]) / int(match[3]), int(match[2])
            if in_window:
                window += share * min(1.0, window_tokens / length if window_tokens else 1.0)
            else:
                whole += share + length * _CELL_META_BYTES / _MIB * bool(share)
            in_window = False
        elif match := _RECURRENT.search(line):
            recurrent += float(match[1]) / max(1, int(match[2])) / (1 + int(match[3]))
        elif match := _COMPRESSOR.search(line):
            recurrent += float(match[3]) / int(match[1]) / (1 + int(match[2]))
    return SequenceState(whole_bytes=_bytes(whole), window_bytes=_bytes(window), recurrent_bytes=_bytes(recurrent))


def server_extras(
    state: SequenceState,
    *,
    slots: int,
    cache_ram_mib: int,
    checkpoints: int,
    draft: SequenceState | None = None,
    strict_limit: bool = True,
) -> ServerExtras:
    """Host memory of a llama-server with these settings once it has been used for long.

    ``draft`` is the second context of speculative decoding, saved together with the first. ``strict_limit`` is false
    for builds that check ``cache_ram_mib`` only after a state was saved.
    """
    both = (state,) if draft is None else (state, draft)
    saved = sum(each.saved_bytes for each in both)
    checkpoint = sum(each.checkpoint_bytes for each in both) if state.checkpoint_bytes else 0
    kept = checkpoint * (checkpoints + (draft is not None))
    entry = saved + checkpoint * checkpoints
    return ServerExtras(
        state_bytes=saved,
        checkpoint_bytes=checkpoint,
        prompt_cache_bytes=cache_ram_mib * _MIB if cache_ram_mib >= 0 else None,
        checkpoints_bytes=slots * kept,
        overshoot_bytes=0 if strict_limit or not cache_ram_mib else entry,
    )


def affordable_extras(
    state: SequenceState,
    *,
    slots: int,
    spare_bytes: int,
    draft: SequenceState | None = None,
    checkpoints_wanted: int = 8,
) -> tuple[int, int]:
    """``(checkpoints, cache_ram_mib)`` that fit into ``spare_bytes`` of RAM, and what they take never exceeds it.

    Checkpoints come first: without one a hybrid or window model reads its whole conversation again when the last
    answer is worded anew in the history. The prompt cache gets what is left, up to llama-server's own default, and
    nothing if that holds less than one full state: it would save only prompts that are read quickly.
    """
    probe = server_extras(state, slots=slots, cache_ram_mib=0, checkpoints=0, draft=draft)
    left = spare_bytes - probe.checkpoints_bytes
    checkpoints = 0
    if probe.checkpoint_bytes:
        checkpoints = max(0, min(checkpoints_wanted, left // (slots * probe.checkpoint_bytes)))
        left -= checkpoints * slots * probe.checkpoint_bytes
    room_mib = min(CACHE_RAM_DEFAULT_MIB, max(0, left) // _MIB)
    worth = probe.state_bytes + checkpoints * probe.checkpoint_bytes
    return checkpoints, room_mib if room_mib * _MIB >= worth else 0


def _bytes(mib: float) -> int:
    return round(mib * _MIB)
