"""Option values in the words people use (``32k`` tokens, ``2GiB``) and the ranges outside which they mean nothing.

The mistake it prevents is a number that is silently taken for something else: a size must name its unit, and ``nan`` is
no speed.
"""

import math
import re
from pathlib import Path

import click

__all__ = [
    "CACHE_TYPES",
    "FLASH_ATTENTION",
    "LAZY_MODES",
    "LOAD_MODES",
    "MOST_SEQUENCES",
    "MOST_TOKENS",
    "SPLIT_MODES",
    "USES",
    "depths",
    "engine_program",
    "language_code",
    "overrides",
    "sequences",
    "shares",
    "size_bytes",
    "tests",
    "thread_counts",
    "tokens",
    "tokens_per_s",
]

# The literals of planner.types.settings and planner.types.plan once more: importing those costs msgspec, and
# ``--help`` needs only the words. A test holds them equal.
CACHE_TYPES = ("f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl", "f32")
LOAD_MODES = ("none", "mmap", "mlock", "mmap+mlock", "dio")
FLASH_ATTENTION = ("auto", "on", "off")
LAZY_MODES = ("auto", "on", "off")
SPLIT_MODES = ("none", "layer", "row")
USES = ("chat", "code", "reasoning", "documents")

_TEST = re.compile(
    r"(?:pp(?P<pp>[0-9]{1,7}))?\+?(?:tg(?P<tg>[0-9]{1,7}))?|pg(?P<p>[0-9]{1,7})\+(?P<g>[0-9]{1,7})", re.ASCII
)
MOST_TOKENS = 2**31 - 1
MOST_SEQUENCES = 256
"""``LLAMA_MAX_SEQ`` of llama.cpp at commit 0c1e57098: more sequences in one context are refused by the engine."""
_MOST_THREADS = 4096
_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
    "t": 2**40,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def tokens(value: str) -> int:
    """A number of tokens, at least 1; ``32k`` is 32768 and ``1m`` is 1048576.

    Raises :class:`click.BadParameter` saying what is allowed, as every function here does.
    """
    match = re.fullmatch(r"([0-9]{1,12})([kKmM]?)", value.strip(), re.ASCII)
    if match is None:
        raise click.BadParameter(f"{value!r} is no number of tokens; write 8192 or 32k")
    count = int(match[1]) * {"": 1, "k": 1 << 10, "m": 1 << 20}[match[2].lower()]
    if not 1 <= count <= MOST_TOKENS:
        raise click.BadParameter(f"{value} tokens are outside 1 to {MOST_TOKENS}")
    return count


def tests(value: str) -> tuple[tuple[int, int], ...]:
    """Tests by llama-bench's names as tokens of prompt and answer: ``pp512,tg128`` is ``((512, 0), (0, 128))``.

    A prompt and its answer timed as one are ``pp512+tg128``, ``pg512+128`` or, as after llama-bench's ``-pg``,
    ``pg512,128``.
    """
    found = []
    for name in re.sub(r"(pg\s*[0-9]+)\s*,\s*(?=[0-9])", r"\1+", value.lower()).split(","):
        match = _TEST.fullmatch(name.strip())
        prompt, answer = (int(match["pp"] or match["p"] or 0), int(match["tg"] or match["g"] or 0)) if match else (0, 0)
        zero = match is not None and any(text is not None and int(text) == 0 for text in match.groups())
        if match is None or zero or not prompt + answer:
            raise click.BadParameter(
                f"{name.strip()!r} is no test; write pp512, tg128 or pp512+tg128, more with commas between"
            )
        found.append((prompt, answer))
    return tuple(dict.fromkeys(found))


def sequences(value: str) -> tuple[int, ...]:
    """Numbers of sequences with commas between: ``1,2,4``, each once, at most what llama.cpp allows."""
    return _counts(value, MOST_SEQUENCES)


def thread_counts(value: str) -> tuple[int, ...]:
    """Numbers of threads with commas between: ``4`` or ``1,2,4``, each once."""
    return _counts(value, _MOST_THREADS)


def _counts(value: str, most: int) -> tuple[int, ...]:
    found = []
    for each in value.split(","):
        number = each.strip()
        if not re.fullmatch(r"[0-9]{1,6}", number, re.ASCII) or not 1 <= int(number) <= most:
            raise click.BadParameter(f"{number!r} is not from 1 to {most}; write 1,2,4")
        found.append(int(number))
    return tuple(dict.fromkeys(found))


def engine_program(value: str) -> Path:
    """The program of ``llama-bench=PATH``."""
    name, equals, path = value.partition("=")
    if name != "llama-bench" or not equals or not path:
        raise click.BadParameter(f"{value!r} names no program; write llama-bench=PATH")
    return Path(path)


def depths(value: str) -> tuple[int, ...]:
    """Numbers of tokens, zero included: ``0,4k`` is ``(0, 4096)``, each once."""
    return tuple(dict.fromkeys(0 if each.strip() == "0" else tokens(each) for each in value.split(",")))


def overrides(value: str) -> tuple[tuple[str, str], ...]:
    """Patterns of tensor names with a buffer type each: ``exps=CPU,output=CUDA1``, split as llama-server splits it."""
    pairs = [each.partition("=") for each in value.split(",")]
    for pattern, equals, buffer in pairs:
        if not (pattern and equals and buffer):
            raise click.BadParameter(f"{value!r} is no PATTERN=BUFFER; write exps=CPU, more with commas between")
    return tuple((pattern, buffer) for pattern, _, buffer in pairs)


def shares(value: str) -> tuple[float, ...]:
    """Shares of several GPUs, in any unit: ``3,1`` puts three quarters on the first."""
    try:
        found = tuple(float(each) for each in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} are no shares; write 3,1") from None
    if not all(math.isfinite(each) and each >= 0 for each in found) or not any(found):
        raise click.BadParameter(f"{value} are no shares; write zero or more for each GPU, and not zero for all")
    return found


def language_code(value: str) -> str:
    """A language's ISO 639 code in lower case; a region is left out (``pt-BR`` is ``pt``)."""
    code = re.split(r"[-_]", value.strip().lower())[0]
    if not re.fullmatch(r"[a-z]{2,3}", code, re.ASCII):
        raise click.BadParameter(f"{value!r} is no language code; write ar, vi or pt")
    return code


def tokens_per_s(value: str | float) -> float:
    """A speed in tokens per second, zero or more."""
    try:
        speed = float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no number of tokens per second") from None
    if not math.isfinite(speed) or speed < 0:
        raise click.BadParameter(f"{value} is no speed; write zero or more tokens per second")
    return speed


def size_bytes(value: str) -> int:
    """A size with its unit in bytes: ``2GiB``, ``500MB``, ``1.5G`` (binary), or a bare ``0``."""
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s*([a-zA-Z]*)", value.strip(), re.ASCII)
    if match is None:
        raise click.BadParameter(f"{value!r} is no size; write 2GiB or 500MB")
    number, unit = float(match[1]), match[2].lower()
    if not unit and number:
        raise click.BadParameter(f"{value!r} names no unit; write {value}GiB or {value}MiB")
    if unit and unit not in _UNITS:
        raise click.BadParameter(f"{match[2]!r} is no unit of size; write GiB, MiB, GB or MB")
    size = int(number * _UNITS[unit or "b"])
    if size >= 2**63:
        raise click.BadParameter(f"{value} is more memory than any machine has")
    return size
