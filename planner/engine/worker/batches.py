"""Builds the batches of several sequences that are decoded together, all of them before the clock starts.

The definition is llama-batched-bench's (tools/batched-bench at commit 0c1e57098): while answers are written every step
holds one token of each sequence and asks for the logits of all; prompts follow each other sequence by sequence, cut
where ``n_batch`` is full, with the logits of each sequence's last token. The mistake it prevents is a batch that is
put together inside the timed part, or logits that nobody would ask for.

Runs in the child: standard library and ``llama_cpp`` only, Python 3.9 or newer.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llama import engine

if TYPE_CHECKING:
    from depth import Session

__all__ = ["prompts", "step"]


def step(session: Session, sequences: int, position: int) -> Any:
    """One token of each of the first ``sequences`` at ``position``, all with logits."""
    return _batch(session, [(position, each, True) for each in range(sequences)])


def prompts(session: Session, sequences: int, tokens: int, position: int) -> list[Any]:
    """``tokens`` of each of the first ``sequences`` from ``position`` on, in batches of at most ``n_batch``."""
    rows = [(position + at, each, at == tokens - 1) for each in range(sequences) for at in range(tokens)]
    return [_batch(session, rows[at : at + session.batch]) for at in range(0, len(rows), session.batch)]


def _batch(session: Session, rows: Sequence[tuple[int, int, bool]]) -> Any:
    """A batch of (position, sequence, whether its logits are asked for), with random tokens.

    ctypes keeps the arrays alive that its pointers point to.
    """
    api, count = engine().api, len(rows)
    owners = [(ctypes.c_int32 * 1)(sequence) for _, sequence, _ in rows]
    pointer = ctypes.POINTER(ctypes.c_int32)
    return api.llama_batch(
        n_tokens=count,
        token=(ctypes.c_int32 * count)(*(session.random.randrange(session.vocabulary) for _ in rows)),
        embd=None,
        pos=(ctypes.c_int32 * count)(*(position for position, _, _ in rows)),
        n_seq_id=(ctypes.c_int32 * count)(*([1] * count)),
        seq_id=(pointer * count)(*(ctypes.cast(owner, pointer) for owner in owners)),
        logits=(ctypes.c_int8 * count)(*(int(wanted) for _, _, wanted in rows)),
    )
