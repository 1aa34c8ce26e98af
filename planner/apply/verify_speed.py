"""The plan's speeds asked of a running server: the same depths, as many answers at once, medians of repetitions.

The mistakes it prevents: a prompt that the server remembers counted as read, an answer of three tokens called a speed,
and a check at full depth that takes an hour: what would take too long is left out, and said.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from planner.apply.load import ChatClient, PromptMaker, first_prompt
from planner.measure.statistics import spread
from planner.types.measurement import Spread
from planner.types.plan import Candidate, Speed, Speeds
from planner.types.verification import ChatSample, ChatTiming, Check
from planner.units import duration, rate

__all__ = ["CLIENT_SHARE", "Effort", "SpeedChecks", "judge", "promise_at"]

CLIENT_SHARE = 0.05
"""What may stand between the engine and a client, of the time for each token: sampling from a large vocabulary.

An allowance for GPUs, where a token takes milliseconds. On two CPU cores nothing of it can be measured: with and
without samplers a token of a vocabulary of 248,000 took as long, and llama-server's own clock and the client's agree
within 0.1 % (``engine_over_client`` in bench/results/serve.json)."""

_FIRST_WORDS = 300
_SPARE_TOKENS = 16  # of a context, for the end of a template


class Effort(NamedTuple):
    """How much is timed: tokens of each answer, repetitions at depth 0 and at others, seconds in all."""

    answer_tokens: int
    repeats: int
    deep_repeats: int
    prompt_tokens: int
    budget_s: float


FULL = Effort(answer_tokens=64, repeats=5, deep_repeats=3, prompt_tokens=512, budget_s=300.0)
QUICK = Effort(answer_tokens=32, repeats=3, deep_repeats=1, prompt_tokens=256, budget_s=45.0)


class SpeedChecks:
    """Times one server; :meth:`run` gives the checks, ``timings`` what was measured for them."""

    def __init__(
        self,
        client: ChatClient,
        chosen: Candidate,
        effort: Effort,
        *,
        one_at_a_time: bool,
        tell: Callable[[str], None],
    ) -> None:
        self._client, self._chosen, self._effort, self._tell = client, chosen, effort, tell
        settings = chosen.settings
        self._room = settings.context_tokens if settings.kv_unified else settings.context_tokens // settings.parallel
        self._parallel = 1 if one_at_a_time else settings.parallel
        self._prompts: PromptMaker | None = None
        self._began = time.monotonic()
        self.timings: list[ChatTiming] = []

    def first_answer(self) -> None:
        """One answer to a prompt that touches the buffers, not counted; the server has nothing to save yet."""
        self._client.chat(first_prompt(min(_FIRST_WORDS, self._room // 8)), tokens=8)

    def warm_up(self) -> None:
        """Learn the tokenizer, and one short answer, not counted."""
        self._prompts = PromptMaker(self._client)
        self._client.chat(self._prompts.of(self._prompts.shortest), tokens=8)

    def run(self) -> Iterator[Check]:
        """Every speed that the plan promises, in the order of what it takes."""
        speeds, effort = self._chosen.speed, self._effort
        answers = self._alone("answer", 0, effort.repeats)
        depth = answers.depth_tokens + effort.answer_tokens // 2
        told = f"while answering, {depth} tokens deep in the middle"
        yield judge("generate", promise_at(speeds, depth), answers.tokens_per_s, told)
        reading = self._alone("reading", min(effort.prompt_tokens, self._room // 2), effort.deep_repeats, tokens=2)
        yield judge("prompt", speeds.prompt, reading.prompt_tokens_per_s, f"reading {reading.depth_tokens} tokens")
        yield from self._at_depth("generate-at-depth", speeds.generate_at_depth)
        yield from self._at_depth("generate-full", speeds.generate_full)
        yield from self._together()

    def _at_depth(self, name: str, speed: Speed | None) -> Iterator[Check]:
        if speed is None:
            return
        depth = min(speed.at_context_tokens, self._room - self._effort.answer_tokens - _SPARE_TOKENS)
        late = self._too_long(depth, 1)
        if late is not None:
            yield Check(area="speed", name=name, status="unknown", planned=_interval(speed), text=late)
            return
        timing = self._alone(name, depth, self._effort.deep_repeats)
        yield judge(name, speed, timing.tokens_per_s, f"after {timing.depth_tokens} tokens")
        if name == "generate-at-depth":
            yield from self._first_token(timing)

    def _first_token(self, timing: ChatTiming) -> Iterator[Check]:
        """The wait for an answer to half a context; its interval is that of the speed of reading."""
        planned_s, prompt = self._chosen.speed.first_token_s, self._chosen.speed.prompt
        if planned_s is None or prompt is None or timing.first_token_s is None:
            return
        longest_s, found_s = planned_s * prompt.tokens_per_s / prompt.low, timing.first_token_s.median
        yield Check(
            area="speed",
            name="first-token",
            status="met" if found_s <= longest_s else "missed",
            planned=f"{planned_s:.1f} s, at most {longest_s:.1f} s",
            found=f"{found_s:.1f} s",
            text=f"until the first word about {timing.depth_tokens} tokens",
            place="inside" if found_s <= longest_s else "above",
        )

    def _together(self) -> Iterator[Check]:
        wanted, speed = self._chosen.settings.parallel, self._chosen.speed.generate_together
        if wanted == 1:
            return
        if self._parallel == 1:
            text = f"this server answers one at a time, the plan wants {wanted}"
            yield Check(area="speed", name="generate-together", status="unknown", planned=_interval(speed), text=text)
            return
        short = self._group("together", 0, self._effort.deep_repeats)
        if speed is None:
            each, count = short.tokens_per_s, short.at_once
            found = None if each is None else f"{rate(each.median)} for each of {count}"
            text = "the plan promises no speed for several at once: only a calibration knows it"
            yield Check(area="speed", name="generate-together", status="unknown", found=found, text=text)
            return
        depth = min(speed.at_context_tokens, self._room - self._effort.answer_tokens - _SPARE_TOKENS)
        late = self._too_long(depth, wanted)
        if late is not None:
            yield Check(area="speed", name="generate-together", status="unknown", planned=_interval(speed), text=late)
            return
        deep = short if depth <= self._shortest else self._group("together-deep", depth, self._effort.deep_repeats)
        yield judge("generate-together", speed, deep.tokens_per_s, f"each of {wanted} at once")

    @property
    def _shortest(self) -> int:
        return self._maker.shortest

    @property
    def _maker(self) -> PromptMaker:
        if self._prompts is None:
            self.warm_up()
        assert self._prompts is not None  # noqa: S101 - warm_up sets it
        return self._prompts

    def _alone(self, name: str, depth: int, repeats: int, *, tokens: int | None = None) -> ChatTiming:
        """Answers one after the other; a deep prompt is read once and then remembered, unless reading is timed."""
        self._tell(f"timing {name}")
        reading = tokens is not None
        wanted = tokens or self._effort.answer_tokens
        samples: list[ChatSample] = []
        prompt = self._maker.of(max(depth, self._shortest))
        for number in range(repeats):
            remembered = number > 0 and depth > self._shortest and not reading
            if not remembered:
                prompt = self._maker.of(max(depth, self._shortest))
            sample = self._client.chat(prompt, tokens=wanted, cached=remembered)
            samples.append(self._counted(sample, prompt))
        return self._kept(name, depth, 1, samples)

    def _group(self, name: str, depth: int, repeats: int) -> ChatTiming:
        """As many answers at once as are planned; deep prompts are read in a first round and remembered in the next."""
        self._tell(f"timing {self._parallel} at once, {name}")
        samples: list[ChatSample] = []
        prompts = [self._maker.of(max(depth, self._shortest)) for _ in range(self._parallel)]
        deep = depth > self._shortest
        if deep:
            self._client.together(prompts, tokens=1)
        for _ in range(repeats):
            samples += [
                self._counted(sample, prompt)
                for sample, prompt in zip(
                    self._client.together(prompts, tokens=self._effort.answer_tokens, cached=deep), prompts, strict=True
                )
            ]
            prompts = prompts if deep else [self._maker.of(self._shortest) for _ in prompts]
        return self._kept(name, depth, self._parallel, samples)

    def _counted(self, sample: ChatSample, prompt: str) -> ChatSample:
        """The sample with the length of its prompt, foretold where the server did not tell."""
        if sample.prompt_tokens is not None:
            return sample
        told = self._maker.tokens_of(prompt)
        return ChatSample(
            first_token_s=sample.first_token_s,
            total_s=sample.total_s,
            tokens=sample.tokens,
            prompt_tokens=told,
            cached=sample.cached,
        )

    def _kept(self, name: str, depth: int, at_once: int, samples: Sequence[ChatSample]) -> ChatTiming:
        fresh = [sample for sample in samples if not sample.cached]
        read = [each.prompt_tokens / each.first_token_s for each in fresh if each.prompt_tokens and at_once == 1]
        written = [value for each in samples if (value := each.tokens_per_s) is not None]
        timing = ChatTiming(
            name=name,
            depth_tokens=samples[0].prompt_tokens or depth,
            at_once=at_once,
            samples=tuple(samples),
            tokens_per_s=_spread(written),
            prompt_tokens_per_s=_spread(read),
            first_token_s=_spread([each.first_token_s for each in fresh]),
        )
        self.timings.append(timing)
        return timing

    def _too_long(self, depth: int, at_once: int) -> str | None:
        """Why a depth is left out: the sentence, where it would take more than is left of the time."""
        spent_s = time.monotonic() - self._began
        read = next((each.prompt_tokens_per_s for each in self.timings if each.name == "reading"), None)
        write = next((each.tokens_per_s for each in self.timings if each.name == "answer"), None)
        if read is None or write is None:
            return None
        tokens = self._effort.answer_tokens * self._effort.deep_repeats
        # Both slow down with depth, by two as a rule of thumb.
        needed_s = 2 * at_once * (depth / read.median + tokens / write.median)
        if spent_s + needed_s <= self._effort.budget_s:
            return None
        left_s = max(0.0, self._effort.budget_s - spent_s)
        return f"left out: it would take about {duration(needed_s)}, {duration(left_s)} are left"


def promise_at(speeds: Speeds, depth: int) -> Speed | None:
    """The promised speed of writing after ``depth`` tokens, between those of depth 0 and of half a context.

    Seconds for each token grow with the depth in a straight line (attention reads that many rows).
    """
    start, deep = speeds.generate, speeds.generate_at_depth
    if start is None or deep is None or not 0 < depth < deep.at_context_tokens:
        return start
    share = depth / deep.at_context_tokens

    def between(first: float, second: float) -> float:
        return 1 / ((1 - share) / first + share / second)

    return Speed(
        tokens_per_s=between(start.tokens_per_s, deep.tokens_per_s),
        low=between(start.low, deep.low),
        high=between(start.high, deep.high),
        origin=start.origin,
        at_context_tokens=depth,
        basis=start.basis,
    )


def judge(name: str, promised: Speed | None, found: Spread | None, when: str) -> Check:
    """The median of what was timed against the promised interval; faster than promised is kept, and said.

    An interval is of the engine's own work. A server samples as well, so a median up to :data:`CLIENT_SHARE` below it
    is kept too, and said.
    """
    if found is None or promised is None:
        text = f"nothing could be timed {when}" if found is None else f"the plan promises none, {when}"
        words = None if found is None else _measured(found)
        return Check(area="speed", name=name, status="unknown", planned=_interval(promised), found=words, text=text)
    below, above = found.median < promised.low, found.median > promised.high
    missed = found.median < (1 - CLIENT_SHARE) * promised.low
    near = ", just below, as sampling may explain" if below and not missed else ""
    return Check(
        area="speed",
        name=name,
        status="missed" if missed else "met",
        planned=_interval(promised),
        found=_measured(found),
        text=f"{when}{', faster than promised' if above else near}",
        place="below" if below else "above" if above else "inside",
    )


def _spread(values: list[float]) -> Spread | None:
    return spread(values) if values else None


def _interval(speed: Speed | None) -> str | None:
    if speed is None:
        return None
    return f"{rate(speed.tokens_per_s)} ({rate(speed.low)} to {rate(speed.high)}) tokens/s, {speed.origin}"


def _measured(found: Spread) -> str:
    return f"{rate(found.median)} ({rate(found.low)} to {rate(found.high)}) tokens/s"
