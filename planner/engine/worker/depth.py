"""Brings the caches of an open model to the depth that a test asks for, and counts what is really in them.

The mistake it prevents is a depth that is not there: after every repetition each sequence is brought back to exactly
the depth asked for, and its length is read from the engine. Depths come in the cheapest way that works: what is too
long is cut off; a state that was computed once is set again (a recurrent layer cannot be cut); a state of zeros is
written; else the tokens are computed. Further sequences get the state of the first.

Runs in the child: standard library and ``llama_cpp`` only, Python 3.9 or newer.
"""

from __future__ import annotations

import ctypes
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from errors import Refused
from llama import engine
from zerostate import HEADER_BYTES, zero_state

__all__ = ["Session", "decode", "following", "go_to"]

Emit = Callable[[dict[str, Any]], None]

_SEED_TOKENS = 2  # the shortest sequence whose saved state shows how cells repeat
_FILL_CHUNK = 512  # tokens between two looks at the clock while a depth is computed
_MOST_SAVED_BYTES = 2 << 30


@dataclass
class Session:
    """One open model with one context; ``random`` gives the same tokens in every run of the same seed.

    ``context_tokens`` is what one sequence may hold, ``cells`` what all of them may. ``saved`` is a computed state and
    its depth, kept so that it is computed once.
    """

    model: Any
    context: Any
    memory: Any
    vocabulary: int
    context_tokens: int
    cells: int
    sequences: int
    batch: int
    seed: int
    saved: tuple[int, Any] | None = None
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.reseed()

    def reseed(self) -> None:
        """Start the token sequence anew."""
        self.random = random.Random(self.seed)  # noqa: S311 - token ids, no secret

    def used(self, sequence: int = 0) -> int:
        """Tokens of one sequence in the cache."""
        return int(engine().api.llama_memory_seq_pos_max(self.memory, sequence)) + 1

    def all_at(self, depth: int, sequences: int) -> bool:
        """Whether the first ``sequences`` hold exactly ``depth`` tokens and the others nothing."""
        return all(self.used(each) == (depth if each < sequences else 0) for each in range(self.sequences))


def following(session: Session, count: int) -> Any:
    """A batch of ``count`` random tokens that continue sequence 0, with the logits of the last; as ``get_one`` has it.

    The engine fills in what is ``None``. Built here, since llama_batch_get_one does not keep the tokens alive.
    """
    tokens = (ctypes.c_int32 * count)(*(session.random.randrange(session.vocabulary) for _ in range(count)))
    return engine().api.llama_batch(
        n_tokens=count, token=tokens, embd=None, pos=None, n_seq_id=None, seq_id=None, logits=None
    )


def decode(session: Session, batch: Any) -> None:
    """Hand one batch to the engine; raises :class:`Refused` with the status where it is not taken."""
    status = engine().api.llama_decode(session.context, batch)
    if status != 0:
        raise Refused(f"llama_decode returned {status} for {batch.n_tokens} tokens at depth {session.used()}")


def go_to(session: Session, depth: int, sequences: int, fill: str, fill_budget_s: float, emit: Emit) -> str:
    """Bring the first ``sequences`` to exactly ``depth`` tokens if the budget allows; answers how they were filled.

    ``fill`` ``decode`` leaves zeros out. The answer is ``""`` where cutting sufficed, else ``zeros`` or ``decode``.
    """
    if _cut(session, depth, sequences):
        return ""
    engine().api.llama_memory_clear(session.memory, False)
    if depth == 0:
        return ""
    if (
        session.saved is not None
        and session.saved[0] == depth
        and _set_all(session, session.saved[1], depth, sequences)
    ):
        return "decode"
    if fill != "decode" and depth > _FILL_CHUNK and _restore_zeros(session, depth, sequences):
        return "zeros"
    engine().api.llama_memory_clear(session.memory, False)
    _compute(session, depth, fill_budget_s, emit)
    if session.used() == depth:
        _share(session, depth, sequences)
    return "decode"


def _cut(session: Session, depth: int, sequences: int) -> bool:
    """Take off what is too much; False where something is missing or cannot be taken off."""
    if session.all_at(depth, sequences):
        return True
    wanted = [depth if each < sequences else 0 for each in range(session.sequences)]
    if any(session.used(each) < wanted[each] for each in range(session.sequences)) or depth == 0:
        return False
    for each, tokens in enumerate(wanted):
        if session.used(each) > tokens:
            engine().api.llama_memory_seq_rm(session.memory, each, tokens or -1, -1)
    return session.all_at(depth, sequences)


def _compute(session: Session, depth: int, fill_budget_s: float, emit: Emit) -> None:
    """Process random tokens in sequence 0 up to ``depth``; stops short when the next chunk would overrun the budget."""
    begin = time.monotonic()
    while session.used() < depth:
        decode(session, following(session, min(_FILL_CHUNK, session.batch, depth - session.used())))
        spent = time.monotonic() - begin
        emit({"stage": "fill", "done": session.used(), "of": depth})
        if session.used() < depth and spent * (1 + _FILL_CHUNK / session.used()) > fill_budget_s:
            return


def _share(session: Session, depth: int, sequences: int) -> None:
    """Keep the computed state of sequence 0, and give it to the others that take part."""
    api = engine().api
    size = int(api.llama_state_seq_get_size(session.context, 0))
    if size > _MOST_SAVED_BYTES and sequences == 1:
        return
    state = (ctypes.c_uint8 * size)()
    written = int(api.llama_state_seq_get_data(session.context, state, size, 0))
    if written != size:
        if sequences > 1:
            raise Refused(
                "the engine does not hand out the state of a sequence, so others cannot be brought to a depth"
            )
        return
    session.saved = (depth, state)
    for each in range(1, sequences):
        _set(session, state, each)
    if not session.all_at(depth, sequences):
        raise Refused(f"{sequences} sequences cannot be brought to a depth of {depth} tokens")


def _set_all(session: Session, state: Any, depth: int, sequences: int) -> bool:
    """Give a state to the first ``sequences``; False, with empty caches, where the engine does not take it."""
    for each in range(sequences):
        _set(session, state, each)
    if session.all_at(depth, sequences):
        return True
    engine().api.llama_memory_clear(session.memory, False)
    return False


def _set(session: Session, state: Any, sequence: int) -> None:
    engine().api.llama_state_seq_set_data(session.context, state, ctypes.sizeof(state), sequence)


def _restore_zeros(session: Session, depth: int, sequences: int) -> bool:
    """Give each sequence ``depth`` tokens of zeros; False, with empty caches, where the engine's layout is unknown."""
    api = engine().api
    decode(session, following(session, _SEED_TOKENS))
    size = int(api.llama_state_seq_get_size(session.context, 0))
    saved = (ctypes.c_uint8 * size)()
    written = int(api.llama_state_seq_get_data(session.context, saved, size, 0))
    state = zero_state(bytes(saved), _SEED_TOKENS, depth) if written == size > HEADER_BYTES else None
    api.llama_memory_clear(session.memory, False)
    if state is None:
        return False
    with state:
        view = (ctypes.c_uint8 * len(state)).from_buffer(state)
        reached = _set_all(session, view, depth, sequences)
        del view  # the mapping cannot be closed while something points into it
    return reached
