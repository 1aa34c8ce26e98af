"""Speeds of one model from its graphs and a machine's costs: at the start, at depth, in a batch, and for a prompt.

The mistake it prevents is one speed for everything: a token at the end of a full context, a token among eight
sequences and a token of a prompt are different work, and each is predicted from its own graph.
Pure: graphs and costs in, speeds out.
"""

from collections.abc import Sequence

import msgspec

from planner.engine.graphs import Graph, GraphQuestion
from planner.estimate.costs import amounts
from planner.estimate.costs_table import CostTable, Took
from planner.types.plan import Speed, Speeds
from planner.types.settings import Settings

__all__ = ["alone", "batch_time", "generate_time", "graph_questions", "prompt_time", "speeds_from_costs"]

_ANSWER_TOKENS = 128
_PROMPT_TOKENS = 512


def graph_questions(settings: Settings) -> tuple[GraphQuestion, ...]:
    """The graphs for :func:`speeds_from_costs`: one token, a micro-batch of a prompt, a token of each sequence."""
    micro = _micro_batch(settings)
    one = GraphQuestion(settings=alone(settings), tokens=1)
    prompt = GraphQuestion(settings=alone(settings), tokens=micro)
    if settings.parallel == 1:
        return (one, prompt)
    together = GraphQuestion(
        settings=settings, tokens=settings.parallel, sequences=settings.parallel, outputs=settings.parallel
    )
    return (one, prompt, together)


def alone(settings: Settings) -> Settings:
    """The settings of one of the parallel sequences as if it were the only one: its graphs are the same."""
    return msgspec.structs.replace(settings, parallel=1, context_tokens=settings.context_tokens // settings.parallel)


def speeds_from_costs(table: CostTable, graphs: Sequence[Graph], settings: Settings, *, basis: str) -> Speeds:
    """Speeds of the graphs of :func:`graph_questions`; what the costs say too little about is ``None``.

    ``generate`` and ``prompt`` are llama-bench's tg128 and pp512. ``generate_at_depth`` is at half the context of one
    sequence, ``generate_full`` at its end.
    """
    one, prompt, *others = graphs
    per_sequence = settings.context_tokens // settings.parallel
    half = per_sequence // 2
    answer = min(_ANSWER_TOKENS, per_sequence)
    read = min(_PROMPT_TOKENS, per_sequence)
    micro = _micro_batch(settings)
    return Speeds(
        generate=_speed(generate_time(table, one, depth=0, tokens=answer), 1, 0, basis),
        prompt=_speed(prompt_time(table, prompt, micro=micro, tokens=read), read, 0, basis),
        generate_at_depth=_speed(generate_time(table, one, depth=half, tokens=answer), 1, half, basis),
        generate_full=_speed(
            generate_time(table, one, depth=per_sequence - answer, tokens=answer), 1, per_sequence, basis
        ),
        generate_together=_speed(batch_time(table, others[0], depth=0, tokens=answer), 1, 0, basis) if others else None,
        first_token_s=_first_token_s(table, one, prompt, micro, half),
    )


def _first_token_s(table: CostTable, one: Graph, prompt: Graph, micro: int, tokens: int) -> float | None:
    read = prompt_time(table, prompt, micro=micro, tokens=max(1, tokens))
    token = generate_time(table, one, depth=tokens, tokens=1)
    return None if read is None or token is None else (read.middle_ns + token.middle_ns) / 1e9


def generate_time(table: CostTable, graph: Graph, *, depth: int, tokens: int) -> Took | None:
    """Nanoseconds of one token, on average over an answer of ``tokens`` behind ``depth``."""
    return table.took(amounts(graph, filled=depth + (tokens - 1) / 2, near=table.near))


def batch_time(table: CostTable, graph: Graph, *, depth: int, tokens: int) -> Took | None:
    """Nanoseconds of one step, in which every sequence of ``graph`` gets its next token."""
    return generate_time(table, graph, depth=depth, tokens=tokens)


def prompt_time(table: CostTable, graph: Graph, *, micro: int, tokens: int, depth: int = 0) -> Took | None:
    """Nanoseconds of a prompt of ``tokens`` behind ``depth`` in batches of ``micro``, of which ``graph`` is one."""
    batches = tokens / micro
    took = table.took(amounts(graph, filled=depth + max(0.0, tokens - micro) / 2, near=table.near))
    return None if took is None else Took(*(batches * each for each in took))


def _micro_batch(settings: Settings) -> int:
    return max(1, min(_PROMPT_TOKENS, settings.ubatch, settings.context_tokens // settings.parallel))


def _speed(took: Took | None, tokens: int, depth: int, basis: str) -> Speed | None:
    if took is None:
        return None
    return Speed(
        tokens_per_s=tokens * 1e9 / took.middle_ns,
        low=tokens * 1e9 / took.high_ns,
        high=tokens * 1e9 / took.low_ns,
        origin="predicted",
        at_context_tokens=depth,
        basis=basis,
    )
