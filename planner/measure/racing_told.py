"""Races as the rows of a document: every ratio beside its anchor's and, through the anchors between, the defaults'.

The mistake it prevents: ratios that are multiplied although they are of different things. Decoding, prompts and the
typical answer each have their own chain. Pure.
"""

import math
from statistics import median

from planner.measure.racing import Found, Raced, Workload, ratio
from planner.types.measurement import TestKind
from planner.types.tuning import Ratio, Setup, Trial

__all__ = ["gains", "trials"]

_KINDS: tuple[TestKind, ...] = ("generate", "prompt")


def trials(found: Found[Setup], workload: Workload) -> tuple[Trial, ...]:
    """Every race as a row, in order."""
    chain: dict[TestKind, float] = dict.fromkeys(_KINDS, 0.0)
    share = _prompt_share(found, workload)
    rows, against = [], "defaults"
    for raced in found.races:
        rows.append(_trial(raced, against, chain, share))
        if raced.outcome == "accepted":
            for kind, logs in raced.by_kind.items():
                chain[kind] += median(logs)
            name = f"{raced.change.factor} {raced.change.option}"
            against = name if against == "defaults" else f"{against}, {name}"
    return tuple(rows)


def gains(found: Found[Setup]) -> tuple[Ratio | None, Ratio | None, Ratio | None]:
    """The winner's speed as a multiple of the defaults': for an answer, for decoding, for prompts."""
    if found.last is None or not found.confirmed:
        return None, None, None
    by_kind = found.last.by_kind
    return ratio(found.last.total), ratio(by_kind.get("generate", ())), ratio(by_kind.get("prompt", ()))


def _trial(raced: Raced[Setup], against: str, chain: dict[TestKind, float], share: float) -> Trial:
    both = len(raced.by_kind) == len(_KINDS)
    if both:
        shift = math.log(share * math.exp(chain["prompt"]) + (1 - share) * math.exp(chain["generate"]))
    else:
        shift = sum(chain[kind] for kind in raced.by_kind)
    by_kind = {kind: ratio(raced.by_kind.get(kind, ())) for kind in _KINDS}
    return Trial(
        factor=raced.change.factor,
        option=raced.change.option,
        against=against,
        outcome=raced.outcome,
        answer=ratio(raced.total) if both else None,
        generate=by_kind["generate"],
        prompt=by_kind["prompt"],
        to_default=ratio(raced.total, shift=shift),
        note=raced.note,
    )


def _prompt_share(found: Found[Setup], workload: Workload) -> float:
    """The share of reading in the time of a typical request under the defaults, by the first race that saw both."""
    for raced in found.races:
        times = raced.anchor_s
        if len(times) == len(_KINDS):
            read = workload.prompt_tokens * times["prompt"]
            return read / (read + workload.answer_tokens * times["generate"])
    return 0.5
