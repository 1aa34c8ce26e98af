"""Races settings against the best so far until one is clearly faster or clearly not worth it. Pure: times come in.

The best so far (the anchor) is timed again beside every challenger, turn by turn, and only ratios of such pairs count:
a machine that warms up or gets busy hits both. A challenger needs a gain larger than a floor and than the noise; it
leaves as soon as it cannot reach that. At the end the winner must beat the defaults once more, in runs that nobody
chose by, or the defaults are what is recommended. Mistakes it prevents: the lucky run that wins among many, the search
that ends below where it began, and the time spent on settings that are alike.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

from planner.errors import ExitCode, PlannerError
from planner.measure.statistics import median_error, robust_deviation, student_quantile
from planner.types.measurement import TestKind
from planner.types.tuning import Outcome, Ratio

__all__ = ["BOTH", "GAIN", "Change", "Found", "Raced", "Track", "UnusableError", "Workload", "judge", "ratio", "search"]

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)

BOTH: tuple[TestKind, ...] = ("generate", "prompt")
GAIN = 0.03
"""The least gain in time that is worth another setting."""

_NOISE_FLOOR = 0.01
"""No pair of runs is believed to scatter by less: three equal ones are luck."""
_FEWEST, _MOST, _MOST_AT_LAST = 3, 12, 16
_SURE, _HOPELESS = 0.995, 0.95
_FAR_BEHIND = math.log(1.25)
_NOT_AGAIN = math.log(1.15)
"""A setting so far behind one anchor is not raced against the next."""
_ENOUGH = 4
_MOST_DISTURBED = 2
"""From so many disturbed races on the search ends, if they are half of all."""
_LAST_SHARE = 0.15
"""Of the time, kept for the last race against the defaults."""
_PASSES = 2


class Scatter(NamedTuple):
    """A deviation of pairs with its degrees of freedom."""

    deviation: float
    freedom: int

    def joined(self, deviation: float, freedom: int) -> "Scatter":
        """This one and another, as the variances of one population are pooled."""
        total = self.freedom + freedom
        variance = (self.freedom * self.deviation**2 + freedom * deviation**2) / total
        return Scatter(math.sqrt(variance), total)


_UNSEEN = Scatter(0.02, 2)
"""Before any race: what an idle machine shows, worth three pairs."""
_MOST_FREEDOM = 20
"""Earlier races count as so many pairs at most: a machine may become noisier."""

Verdict = Literal["faster", "behind", "open"]


class UnusableError(PlannerError):
    """A setting cannot be run here: the engine refuses it, or dies over it."""

    exit_code = ExitCode.UNAVAILABLE
    code = "unusable-setting"


class Workload(NamedTuple):
    """A typical request: tokens that are read and tokens that are written."""

    prompt_tokens: int
    answer_tokens: int

    def seconds(self, prompt_s: float, generate_s: float) -> float:
        """Seconds of the request from seconds a token."""
        return self.prompt_tokens * prompt_s + self.answer_tokens * generate_s


class Track(Protocol[S_contra]):
    """Where setups run: real children of the engine, or a simulated machine in a test."""

    def enter(self, setups: Sequence[S_contra]) -> None:
        """Make these setups ready to run and let go of all others; raises :class:`UnusableError`."""

    def time_s(self, setup: S_contra, kind: TestKind) -> float:
        """Seconds for one token of a setup that has entered; raises :class:`UnusableError`."""

    def leave(self) -> bool:
        """End what :meth:`enter` began; whether nothing disturbed it."""

    def now_s(self) -> float:
        """The time on the track's own clock."""


class Change(NamedTuple, Generic[S]):
    """A setting to try: what it makes of a setup (``None``: no sense there), the tests it touches, the gain needed."""

    factor: str
    option: str
    made_of: Callable[[S], S | None]
    kinds: tuple[TestKind, ...] = BOTH
    gain: float = GAIN


class Raced(NamedTuple, Generic[S]):
    """A race that is over: logarithms of time ratios, challenger by anchor, pair by pair.

    ``anchor_s`` are the anchor's median seconds for one token.
    """

    change: Change[S]
    anchor: S
    challenger: S
    outcome: Outcome
    total: tuple[float, ...] = ()
    by_kind: dict[TestKind, tuple[float, ...]] = {}
    anchor_s: dict[TestKind, float] = {}
    note: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the challenger won."""
        return self.outcome == "accepted"


class Found(NamedTuple, Generic[S]):
    """The end of a search: what is recommended, how it did against the defaults, every race, what was left out."""

    winner: S
    last: Raced[S] | None
    races: tuple[Raced[S], ...]
    not_tried: tuple[Change[S], ...]

    @property
    def confirmed(self) -> bool:
        """Whether another setup than the defaults won, and won again at the end."""
        return self.last is not None and self.last.accepted

    @property
    def cut_short(self) -> bool:
        """Whether the time ended before every setting had its race, and every race its end."""
        ended = [_ended(raced, _MOST) for raced in self.races]
        return (
            bool(self.not_tried) or not all(ended) or (self.last is not None and not _ended(self.last, _MOST_AT_LAST))
        )


def _ended(raced: Raced[S], most: int) -> bool:
    """Whether a race ended by itself: decided, or still open after as many pairs as there may be."""
    return raced.outcome != "undecided" or len(raced.total) >= most


def judge(logs: Sequence[float], *, seen: "Scatter | None" = None, gain: float = GAIN) -> Verdict:
    """What pairs say so far of a challenger: ``logs`` are logarithms of its time ÷ the anchor's.

    ``faster`` when the median gain exceeds ``gain`` and zero lies beyond a 99.5 % bound of Student's t around the
    median, with four of five pairs agreeing; ``behind`` as soon as a 95 % bound leaves ``gain`` out of reach.
    The scatter is that of earlier races, ``seen``, and of these pairs together, each with its degrees of freedom.
    """
    count, wanted = len(logs), math.log(1 - gain)
    if count == _FEWEST - 1 and min(logs) > _FAR_BEHIND:
        return "behind"
    if count < _FEWEST:
        return "open"
    middle = median(logs)
    scatter, freedom = (seen or _UNSEEN).joined(robust_deviation(logs), count - 1)
    error = median_error(max(scatter, _NOISE_FLOOR), count)
    agreeing = sum(1 for each in logs if each < 0)
    surely = middle + student_quantile(_SURE, freedom) * error < 0
    if middle < wanted and surely and agreeing >= math.ceil(0.8 * count):
        return "faster"
    return "behind" if middle - student_quantile(_HOPELESS, freedom) * error > wanted else "open"


def ratio(logs: Sequence[float], *, shift: float = 0.0) -> Ratio | None:
    """Speed of a challenger as a multiple of the anchor's, with a 90 % interval; ``None`` without pairs.

    ``shift`` is added to the logarithms: the anchor's own time ratio to something before it.
    """
    if not logs:
        return None
    middle, count = median(logs) + shift, len(logs)
    error = median_error(max(robust_deviation(logs), _NOISE_FLOOR), count)
    half = student_quantile(0.95, count - 1) * error if count > 1 else math.log(1.5)
    return Ratio(median=math.exp(-middle), low=math.exp(-middle - half), high=math.exp(-middle + half), pairs=count)


def search(
    track: Track[S], default: S, changes: Iterable[Change[S]], workload: Workload, *, budget_s: float
) -> Found[S]:
    """The best setup that ``changes`` lead to from ``default``, in about ``budget_s`` of the track's clock.

    Changes are tried in their order, each on the best so far; what was near is tried once more where that has changed.
    """
    race = _Search(track, default, workload, track.now_s() + budget_s, _LAST_SHARE * budget_s)
    race.run(tuple(changes))
    return race.end()


class _Search(Generic[S]):
    """The state of one search: the best so far, every race, and the scatter they showed."""

    def __init__(self, track: Track[S], default: S, workload: Workload, until_s: float, last_s: float) -> None:
        self._track = track
        self._default = default
        self._workload = workload
        self._until_s, self._last_s = until_s, last_s
        self._residuals: list[float] = []
        self._anchor = default
        self._races: list[Raced[S]] = []
        self._skipped: list[Change[S]] = []

    def run(self, changes: tuple[Change[S], ...]) -> None:
        """Try all changes, and those that were near once more."""
        for number in range(_PASSES):
            before = self._anchor
            for change in changes:
                if self._is_busy():
                    return
                self._try(change, again=number > 0)
            if self._anchor == before or self._out_of_time():
                return

    def end(self) -> Found[S]:
        """The winner, once it has beaten the defaults again; else the defaults."""
        races, skipped = tuple(self._races), tuple(self._skipped)
        if self._anchor == self._default:
            return Found(self._default, None, races, skipped)
        last = self._race(Change("all", "the winner", lambda _: None), self._default, self._anchor, last=True)
        winner = self._anchor if last.outcome == "accepted" else self._default
        return Found(winner, last, races, skipped)

    def _try(self, change: Change[S], *, again: bool) -> None:
        challenger = change.made_of(self._anchor)
        if challenger is None or challenger == self._anchor or self._have_raced(challenger):
            return
        if again and not self._worth_again(change):
            return
        if self._out_of_time():
            if not again:
                self._skipped.append(change)
            return
        raced = self._race(change, self._anchor, challenger, last=False)
        self._races.append(raced)
        if raced.outcome == "accepted":
            self._anchor = challenger

    def _have_raced(self, challenger: S) -> bool:
        """Whether these two met before, whichever of them was the anchor then."""
        return any({self._anchor, challenger} == {raced.anchor, raced.challenger} for raced in self._races)

    def _worth_again(self, change: Change[S]) -> bool:
        earlier = [raced for raced in self._races if raced.change is change]
        return all(raced.outcome != "unusable" and median(raced.total or (0.0,)) < _NOT_AGAIN for raced in earlier)

    def _is_busy(self) -> bool:
        """Whether so much was disturbed that the rest would be, too."""
        disturbed = sum(1 for raced in self._races if raced.outcome == "disturbed")
        return disturbed >= _MOST_DISTURBED and 2 * disturbed >= len(self._races)

    def _out_of_time(self) -> bool:
        return self._track.now_s() >= self._until_s - self._last_s

    def _race(self, change: Change[S], anchor: S, challenger: S, *, last: bool) -> Raced[S]:
        pairs = _Pairs(self._workload, BOTH if last else change.kinds)
        outcome: Outcome = "undecided"
        try:
            self._track.enter(tuple(dict.fromkeys((self._default, anchor, challenger))))
            try:
                outcome = self._run(pairs, change, anchor, challenger, last=last)
            finally:
                quiet = self._track.leave()
        except UnusableError as error:
            return Raced(change, anchor, challenger, "unusable", note=error.message)
        if not quiet:
            outcome = "disturbed"
        middle = median(pairs.total) if pairs.total else 0.0
        self._residuals += [each - middle for each in pairs.total]
        by_kind = {kind: tuple(logs) for kind, logs in pairs.by_kind.items()}
        anchor_s = {kind: median(times) for kind, times in pairs.anchor_s.items() if times}
        return Raced(change, anchor, challenger, outcome, tuple(pairs.total), by_kind, anchor_s)

    def _run(self, pairs: "_Pairs", change: Change[S], anchor: S, challenger: S, *, last: bool) -> Outcome:
        """Pair after pair until they decide, or time or patience ends."""
        limit = self._until_s if last else self._until_s - self._last_s
        for number in range(_MOST_AT_LAST if last else _MOST):
            # Which of the two runs first alternates, or a steady drift would be a gain.
            order = (anchor, challenger) if number % 2 == 0 else (challenger, anchor)
            times = {each: {kind: self._track.time_s(each, kind) for kind in pairs.by_kind} for each in order}
            pairs.add(times[anchor], times[challenger])
            verdict = self._last_verdict(pairs) if last else judge(pairs.total, seen=self._scatter(), gain=change.gain)
            if verdict != "open":
                return "accepted" if verdict == "faster" else "no-gain"
            if self._track.now_s() >= limit and (number + 1 > _FEWEST or not last):
                break
        return "undecided"

    def _last_verdict(self, pairs: "_Pairs") -> Verdict:
        """Whether the winner beats the defaults in something and loses nothing beyond noise in the whole."""
        if len(pairs.total) <= _FEWEST:
            return "open"
        verdicts = [judge(logs, seen=self._scatter()) for logs in (pairs.total, *pairs.by_kind.values())]
        if "faster" in verdicts and median(pairs.total) < _NOISE_FLOOR:
            return "faster"
        return "behind" if all(each == "behind" for each in verdicts) else "open"

    def _scatter(self) -> Scatter:
        """What the races so far showed; each of them took one degree of freedom for its median."""
        freedom = min(len(self._residuals) - len(self._races), _MOST_FREEDOM)
        return _UNSEEN if freedom < _ENOUGH else Scatter(robust_deviation(self._residuals), freedom)


class _Pairs:
    """Logarithms of time ratios, of the whole request and of each kind of test."""

    def __init__(self, workload: Workload, kinds: Sequence[TestKind]) -> None:
        self._workload = workload
        self.total: list[float] = []
        self.by_kind: dict[TestKind, list[float]] = {kind: [] for kind in kinds}
        self.anchor_s: dict[TestKind, list[float]] = {kind: [] for kind in kinds}

    def add(self, theirs: Mapping[TestKind, float], mine: Mapping[TestKind, float]) -> None:
        """Add one pair: seconds for one token of the anchor and of the challenger, by kind."""
        for kind, logs in self.by_kind.items():
            logs.append(math.log(mine[kind] / theirs[kind]))
            self.anchor_s[kind].append(theirs[kind])
        if len(self.by_kind) == 1:
            (only,) = self.by_kind.values()
            self.total.append(only[-1])
        else:
            whole = [self._workload.seconds(each["prompt"], each["generate"]) for each in (mine, theirs)]
            self.total.append(math.log(whole[0] / whole[1]))
