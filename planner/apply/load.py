"""Requests as an OpenAI client sends them, timed as it sees them: streaming, several at once.

The mistake it prevents is a speed that nobody experiences: kernels timed alone leave out the server, its queue, the
sampling of each token and the way back. Everything here is measured at the client's end of the connection.
"""

import json
import random
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from planner.errors import UnavailableError
from planner.types.serving import ServerKind
from planner.types.verification import ChatSample

__all__ = ["ChatClient", "PromptMaker", "first_prompt"]

_WORDS = (
    "time", "year", "work", "hand", "life", "world", "house", "place", "week", "point", "group", "night", "water",
    "month", "book", "story", "state", "study", "power", "money", "side", "line", "city", "name", "hour", "game",
    "body", "face", "door", "reason", "guy", "war",
)  # fmt: skip
_ASKED = ": tell a long story with these words."
_SLOWEST_ANSWER_S = 1800.0


class ChatClient:
    """Talks to one server; use as a context manager. Safe to use from several threads.

    ``kind`` says which extras of the protocol the server knows; ``None`` keeps to what every one does.
    """

    def __init__(
        self, url: str, *, model: str, kind: ServerKind | None, api_key: str | None = None, connections: int = 64
    ) -> None:
        import httpx2  # noqa: PLC0415 - takes longer to import than most commands take

        self._model, self._kind = model, kind
        self._error: type[Exception] = httpx2.HTTPError
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._client: Any = httpx2.Client(
            base_url=url,
            headers=headers,
            timeout=httpx2.Timeout(_SLOWEST_ANSWER_S, connect=10.0),
            # A connection each: llama-server closes idle ones, and a request that meets the closing end fails.
            limits=httpx2.Limits(max_connections=connections, max_keepalive_connections=0),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def chat(self, prompt: str, *, tokens: int, cached: bool = False) -> ChatSample:
        """One streamed answer of ``tokens`` tokens (fewer where the server ends it first).

        ``cached`` lets the server reuse what it remembers of the prompt; without it llama-server reads all of it.

        Raises :class:`UnavailableError` (code ``server-failed``) when the server refuses, cuts the answer or goes.
        """
        body = {**self._body(prompt, tokens, cached), "stream": True, "stream_options": {"include_usage": True}}
        reading = _Reading()
        try:
            with self._client.stream("POST", "/v1/chat/completions", json=body) as answer:
                if answer.status_code != 200:
                    raise _failed(f"it answers {answer.status_code}: {answer.read().decode(errors='replace')[:300]}")
                for line in answer.iter_lines():
                    reading.take(line)
        except self._error as error:
            raise _failed(str(error) or type(error).__name__) from error
        return reading.sample(cached=cached)

    def together(self, prompts: Sequence[str], *, tokens: int, cached: bool = False) -> list[ChatSample]:
        """One answer to each prompt, all of them asked at the same moment; raises what :meth:`chat` raises."""
        found: list[ChatSample | UnavailableError | None] = [None] * len(prompts)
        gate = threading.Barrier(len(prompts))

        def ask(place: int, prompt: str) -> None:
            gate.wait()
            try:
                found[place] = self.chat(prompt, tokens=tokens, cached=cached)
            except UnavailableError as error:
                found[place] = error

        threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in enumerate(prompts)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        samples = [each for each in found if isinstance(each, ChatSample)]
        for each in found:
            if isinstance(each, UnavailableError):
                raise each
        if len(samples) != len(prompts):
            raise _failed("a request ended without an answer")
        return samples

    def prompt_tokens(self, prompt: str) -> int:
        """How many tokens the server makes of a prompt, its chat template included."""
        told = self._json("POST", "/v1/chat/completions", self._body(prompt, 1))
        usage = told.get("usage")
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if not isinstance(count, int) or count < 1:
            raise _failed("it counts no tokens of a prompt (usage.prompt_tokens)")
        return count

    def properties(self) -> Mapping[str, Any] | None:
        """What llama-server says of itself (``/props``); ``None`` from any other server."""
        try:
            answer = self._client.get("/props")
            told = answer.json() if answer.status_code == 200 else None
        except (self._error, ValueError):
            return None
        return told if isinstance(told, dict) else None

    def _json(self, method: str, path: str, body: Mapping[str, object]) -> Mapping[str, Any]:
        try:
            answer = self._client.request(method, path, json=body)
        except self._error as error:
            raise _failed(str(error) or type(error).__name__) from error
        try:
            told = answer.json()
        except ValueError:
            told = None
        if answer.status_code != 200 or not isinstance(told, dict):
            raise _failed(f"it answers {answer.status_code}: {answer.text[:300]}")
        return told

    def _body(self, prompt: str, tokens: int, cached: bool = False) -> dict[str, object]:
        # The likeliest token each time: sampling costs least, and two runs write the same.
        body: dict[str, object] = {
            "model": self._model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens,
            "temperature": 0,
        }
        return {**body, "ignore_eos": True, "cache_prompt": cached} if self._kind == "llama-server" else body


def first_prompt(words: int) -> str:
    """A prompt of so many short words, for a server whose tokenizer is not known yet."""
    return " ".join(_WORDS[place % len(_WORDS)] for place in range(max(1, words)))


class PromptMaker:
    """Makes prompts of so many tokens, each of its own, for the tokenizer behind a server."""

    def __init__(self, client: ChatClient, seed: int = 20261123) -> None:
        self._random = random.Random(seed)  # noqa: S311 - words of a test, no secrets
        few, many = 4, 64
        first, second = (client.prompt_tokens(self._text(count)) for count in (few, many))
        self._per_word = max((second - first) / (many - few), 0.1)
        self._around = first - few * self._per_word
        self.shortest = first

    def of(self, tokens: int) -> str:
        """A prompt that the server counts as about ``tokens`` tokens, template included, and never as a word more."""
        return self._text(max(1, int((tokens - self._around) / self._per_word) - 1))

    def tokens_of(self, prompt: str) -> int:
        """What the server is expected to count, where it does not tell."""
        return round(self._around + self._per_word * (prompt.count(" ") + 1 - _ASKED.count(" ")))

    def _text(self, words: int) -> str:
        # What differs stands first: a server reuses what two prompts begin with.
        return " ".join(self._random.choices(_WORDS, k=words)) + _ASKED


class _Reading:
    """An answer as its lines come in."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._first: float | None = None
        self._last = self._began
        self._pieces = 0
        self._usage: Mapping[str, Any] = {}
        self._finished = False

    def take(self, line: str) -> None:
        """One line of the stream; comments and empty ones are stepped over."""
        now = time.perf_counter()
        if not line.startswith("data:"):
            return
        text = line[len("data:") :].strip()
        if text == "[DONE]":
            return
        try:
            told = json.loads(text)
        except ValueError as error:
            raise _failed(f"a piece of its answer is no JSON: {text[:80]!r}") from error
        if "error" in told:
            raise _failed(str(told["error"])[:300])
        self._usage = told.get("usage") or self._usage
        for choice in told.get("choices") or ():
            delta = choice.get("delta") or {}
            if delta.get("content") or delta.get("reasoning_content"):
                self._pieces += 1
                self._first = self._first or now
                self._last = now
            self._finished = self._finished or choice.get("finish_reason") is not None

    def sample(self, *, cached: bool) -> ChatSample:
        """What it came to; an answer without an end or without a word is a failure."""
        if self._first is None or not self._finished:
            raise _failed("its answer was cut off" if self._first is not None else "its answer was empty")
        tokens = self._usage.get("completion_tokens")
        prompt = self._usage.get("prompt_tokens")
        return ChatSample(
            first_token_s=self._first - self._began,
            total_s=self._last - self._began,
            tokens=tokens if isinstance(tokens, int) and tokens > 0 else self._pieces,
            prompt_tokens=prompt if isinstance(prompt, int) else None,
            cached=cached,
        )


def _failed(what: str) -> UnavailableError:
    return UnavailableError(f"the server fails a chat request: {what}", hint="its log says more", code="server-failed")
