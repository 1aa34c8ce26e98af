"""How capable a model is and what a quantization takes from it: indices with intervals, fitted from published scores.

The mistake it prevents is a single number without its doubt: every index carries an 80 % interval and says whether
scores of the very model stand behind it or only its size and age.
"""

from typing import Literal

from planner.types import Report

__all__ = ["Capability", "Retention", "TaskGroup"]

TaskGroup = Literal["chat", "code", "reasoning", "multilingual", "documents"]
"""What a capability index is about: chat and knowledge, code, reasoning (mathematics, science), languages other than
English and Chinese, long documents."""


class Capability(Report, frozen=True, kw_only=True):
    """A model's index in one task group and one mode, 0 to 100, with its 80 % interval.

    ``index`` is the expected score, in percent, on the profile's fixed basket of benchmarks of that group. ``origin``
    is ``measured`` when scores of this very model in this very mode and group entered the fit, ``related`` when only
    its other groups, its other mode or its close siblings did, ``inferred`` when nothing but size and generation is
    known. ``scores`` counts the published scores behind it.
    """

    group: TaskGroup
    thinking: bool
    index: float
    low: float
    high: float
    origin: Literal["measured", "related", "inferred"]
    scores: int = 0


class Retention(Report, frozen=True, kw_only=True):
    """The share of an index that survives a quantization, at most 1, with its 80 % interval.

    ``kld`` is the mean Kullback-Leibler divergence and ``agreement`` the share of equal top-1 tokens that the curve
    gives for this type and model size. ``origin`` is ``measured`` when the type itself was published for models near
    that size, ``interpolated`` when it comes from neighbouring sizes or types.
    """

    share: float
    low: float
    high: float
    kld: float
    agreement: float | None
    origin: Literal["measured", "interpolated"]
