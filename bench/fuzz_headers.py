"""Mutated GGUF headers, our walk against ggml's parser: no hang, no foreign exception, no difference without a name.

Valid small headers are taken apart into fields (counts, lengths, types, texts, dimensions, offsets), and each mutant
changes one to three of them: to the numbers at which arithmetic breaks, to a neighbour's value, by dropping, doubling
or swapping records, by cutting or flipping bytes. Equal seeds give equal mutants. Claims held, exit code 1 if not: the
walk raises nothing but BadInputError and Incomplete, none takes a second of processor time, the process grows by at
most 64 MiB, and where the two readers differ it is ours that refuses, for a reason in the table below.

    python bench/fuzz_headers.py [--mutants 100000] [--seed 1] [--without-engine] [--output FILE]
"""

import argparse
import itertools
import json
import random
import re
import resource
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from planner.engine.child import EngineChild
from planner.errors import BadInputError
from planner.gguf import Incomplete, walk_header

BATCH = 1000
LONGEST_S = 1.0
MOST_EXTRA_BYTES = 64 << 20

# What the walk refuses and ggml accepts, told by the walk's own words (tests/gguf/test_hostile.py gives the reasons).
ALLOWED = {
    "no text": r"is not UTF-8|is no name of a tensor",
    "alignment": r"is no power of two from",
    "limits": r"claims \d+ bytes, more than|are more than (?:\d|are read)|its keys take more|its header needs",
    "cut off": r"the file was cut off",
    "nothing in it": r"has 0 dimensions|impossible shape \(.*\b0\b",
    "2^63 bytes": r"takes \d+ bytes|take 2\^63 bytes",
    "numbers": r"is not in -?\d+ to|a number is needed|a short text|is more than \w+_count",
    "split": r"it is part|no possible number",
}
NUMBERS = (
    *range(10), 12, 13, 31, 32, 33, 63, 64, 255, 256, 512, 513, 1000, 4096, 4097, 65_535, 65_536,
    1 << 20, (1 << 20) + 1, 1 << 24, 1 << 26, 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32,
    1 << 58, 1 << 60, (1 << 61) - 1, 1 << 61, (1 << 61) + 1, 1 << 62,
    (1 << 63) - 64, (1 << 63) - 1, 1 << 63, (1 << 64) - 32, (1 << 64) - 1,
)  # fmt: skip

Record = list[bytes]  # the fields of one key or tensor; numbers are fields of 4 or 8 bytes


def u32(value: int) -> bytes:
    """Four bytes."""
    return struct.pack("<I", value)


def u64(value: int) -> bytes:
    """Eight bytes."""
    return struct.pack("<Q", value)


def text(value: str) -> Record:
    """Length and letters, as two fields."""
    data = value.encode()
    return [u64(len(data)), data]


def scalar(key: str, kind: int, value: bytes) -> Record:
    """A key with one value."""
    return [*text(key), u32(kind), value]


def strings(key: str, values: list[str]) -> Record:
    """A key with an array of strings."""
    return [*text(key), u32(9), u32(8), u64(len(values)), *(field for value in values for field in text(value))]


def numbers(key: str, kind: int, form: str, values: list[int]) -> Record:
    """A key with an array of numbers."""
    return [*text(key), u32(9), u32(kind), u64(len(values)), *(struct.pack(form, value) for value in values)]


def tensor(name: str, dims: list[int], kind: int, offset: int) -> Record:
    """A line of the tensor table."""
    return [*text(name), u32(len(dims)), *map(u64, dims), u32(kind), u64(offset)]


def bases() -> list[tuple[list[Record], list[Record]]]:
    """Small valid headers: keys and tensors of a dense model, a mixture of experts, a later part, an odd alignment."""
    name = [*text("general.architecture"), u32(8), *text("qwen3")]
    dense = [
        name,
        scalar("qwen3.block_count", 4, u32(2)),
        scalar("qwen3.context_length", 4, u32(40_960)),
        scalar("qwen3.embedding_length", 4, u32(256)),
        scalar("qwen3.attention.head_count", 4, u32(8)),
        scalar("general.parameter_count", 10, u64(1 << 40)),
        scalar("qwen3.rope.freq_base", 6, struct.pack("<f", 1e6)),
        scalar("qwen3.flag", 7, b"\1"),
        strings("tokenizer.ggml.tokens", ["a", "bc", "", "déf"]),
        numbers("tokenizer.ggml.token_type", 5, "<i", [1, 2, 3, 4]),
    ]
    tables = [tensor("token_embd.weight", [256, 4], 12, 0), tensor("blk.0.ffn_up.weight", [256, 2, 2], 8, 576)]
    moe = [
        name,
        scalar("general.alignment", 4, u32(64)),
        scalar("qwen3.expert_count", 4, u32(8)),
        scalar("qwen3.expert_used_count", 4, u32(2)),
        numbers("qwen3.attention.head_count_kv", 4, "<I", [0, 2, 0]),
    ]
    part = [
        scalar("split.no", 2, struct.pack("<H", 1)),
        scalar("split.count", 2, struct.pack("<H", 3)),
        scalar("split.tensors.count", 5, u32(7)),
    ]
    return [
        (dense, tables),
        (dense, []),
        (moe, [tensor("a", [32], 0, 0), tensor("b", [32, 2], 2, 128), tensor("c", [1, 1, 1, 1], 27, 192)]),
        (part, [tensor("blk.1.attn_k.weight", [64], 1, 0)]),
    ]


def mutants(seed: int, count: int) -> Iterator[bytes]:
    """``count`` headers; the same for equal seeds."""
    pick = random.Random(seed)  # noqa: S311 - mutants, no secrets
    sources = bases()
    for _ in range(count):
        keys, tensors = pick.choice(sources)
        fields = [b"GGUF", u32(3), u64(len(tensors)), u64(len(keys))]
        records = [list(record) for record in keys + tensors]
        whole = [fields, *records]
        for _ in range(pick.choice((1, 1, 1, 1, 2, 3))):
            pick.choice((_number, _number, _number, _shift, _swap, _drop, _double, _retext))(whole, pick)
        data = b"".join(field for record in whole for field in record)
        data += bytes(-len(data) % pick.choice((32, 32, 64, 64, 1))) + bytes(
            pick.choice((4096, 4096, 4096, 4096, 640, 0))
        )
        yield pick.choice((_as_is, _as_is, _as_is, _as_is, _as_is, _as_is, _cut, _flip))(data, pick)


def _number(whole: list[Record], pick: random.Random) -> None:
    """A number becomes one at which arithmetic breaks."""
    record = pick.choice(whole)
    places = [place for place, field in enumerate(record) if len(field) in (1, 2, 4, 8)]
    if places:
        place = pick.choice(places)
        width = len(record[place])
        value = pick.choice(NUMBERS) if pick.random() < 0.9 else pick.getrandbits(8 * width)
        record[place] = (value % (1 << 8 * width)).to_bytes(width, "little")


def _shift(whole: list[Record], pick: random.Random) -> None:
    """A number grows or shrinks by a little."""
    record = pick.choice(whole)
    places = [place for place, field in enumerate(record) if len(field) in (4, 8)]
    if places:
        place = pick.choice(places)
        width = len(record[place])
        value = int.from_bytes(record[place], "little") + pick.choice((-32, -8, -1, 1, 8, 32))
        record[place] = (value % (1 << 8 * width)).to_bytes(width, "little")


def _swap(whole: list[Record], pick: random.Random) -> None:
    """Two records change places, or a field takes the value of another."""
    if pick.random() < 0.5:
        first, second = pick.randrange(len(whole)), pick.randrange(len(whole))
        whole[first], whole[second] = whole[second], whole[first]
    else:
        source, target = pick.choice(whole), pick.choice(whole)
        if source and target:
            target[pick.randrange(len(target))] = pick.choice(source)


def _drop(whole: list[Record], pick: random.Random) -> None:
    """A record or a field is missing."""
    if len(whole) > 1 and pick.random() < 0.5:
        del whole[pick.randrange(1, len(whole))]
    elif record := pick.choice(whole):
        del record[pick.randrange(len(record))]


def _double(whole: list[Record], pick: random.Random) -> None:
    """A record or a field stands twice."""
    if pick.random() < 0.5:
        whole.insert(pick.randrange(1, len(whole) + 1), list(pick.choice(whole)))
    elif record := pick.choice(whole):
        record.insert(pick.randrange(len(record)), pick.choice(record))


def _retext(whole: list[Record], pick: random.Random) -> None:
    """A name becomes empty, long, foreign bytes, or another key's name; its length follows."""
    record = pick.choice(whole)
    if len(record) > 1:
        names = (
            b"",
            b"a" * 64,
            b"a" * 70_000,
            b"\xff\xfe",
            b"a\0b",
            b"general.alignment",
            b"split.count",
            b"qwen3.block_count",
        )
        record[1] = pick.choice(names)
        record[0] = u64(len(record[1]))


def _as_is(data: bytes, _pick: random.Random) -> bytes:
    return data


def _cut(data: bytes, pick: random.Random) -> bytes:
    return data[: pick.randrange(len(data) + 1)]


def _flip(data: bytes, pick: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(pick.randint(1, 4)):
        if changed:
            changed[pick.randrange(min(len(changed), 1024))] = pick.getrandbits(8)
    return bytes(changed)


class Tally:
    """What happened to the mutants, and every claim that was broken."""

    def __init__(self) -> None:
        self.walked = Counter[str]()
        self.differences = Counter[str]()
        self.broken: list[str] = []
        self.slowest_s = 0.0

    def walk(self, data: bytes) -> str | None:
        """The walk's complaint about a whole file, ``None`` when it accepts; its remote face is tried as well."""
        begin = time.process_time()
        complaint: str | None = None
        try:
            walk_header(data, file_bytes=len(data))
        except BadInputError as error:
            complaint = error.message
        except Exception as error:  # noqa: BLE001 - the claim is that there is no other
            self._break(data, f"{type(error).__name__}: {error}")
            complaint = "foreign"
        self._walk_without_length(data)
        took = time.process_time() - begin
        self.slowest_s = max(self.slowest_s, took)
        if took > LONGEST_S:
            self._break(data, f"took {took:.1f} s")
        self.walked["accepted" if complaint is None else "refused"] += 1
        return complaint

    def _walk_without_length(self, data: bytes) -> None:
        try:
            walk_header(data)
        except Incomplete as more:
            if more.needed_bytes <= len(data):
                self._break(data, f"needs {more.needed_bytes} bytes and has {len(data)}")
        except BadInputError:
            pass
        except Exception as error:  # noqa: BLE001 - as above
            self._break(data, f"{type(error).__name__}: {error}")

    def compare(self, data: bytes, ours: str | None, theirs: str | None) -> None:
        """Hold the two answers against each other."""
        if (ours is None) == (theirs is None):
            return
        if ours is None:
            self._break(data, f"accepted here, refused by ggml: {theirs}")
            return
        kind = next((kind for kind, words in ALLOWED.items() if re.search(words, ours)), None)
        if kind is None:
            self._break(data, f"accepted by ggml, refused here without a name: {ours}")
        else:
            self.differences[kind] += 1

    def _break(self, data: bytes, what: str) -> None:
        self.broken.append(f"{what} ({data[:400].hex()})")


def run(seed: int, count: int, child: EngineChild | None) -> Tally:
    """Walk ``count`` mutants and, with a child, ask ggml about each."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "batch"
        stream = mutants(seed, count)
        while batch := list(itertools.islice(stream, BATCH)):
            ours = [tally.walk(data) for data in batch]
            if child is None:
                continue
            path.write_bytes(b"".join(batch))
            lengths = [len(data) for data in batch]
            answer = child.ask("header.verdicts", {"path": str(path), "lengths": lengths}, deadline_s=60)
            theirs: list[str | None] = answer["complaints"]  # type: ignore[assignment]  # a list of them, by its contract
            for data, mine, other in zip(batch, ours, theirs, strict=True):
                tally.compare(data, mine, other)
    return tally


def _record(options: argparse.Namespace, tally: Tally, extra_bytes: int) -> dict[str, object]:
    """What a run found, for ``bench/results``."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "mutants": options.mutants,
        "seed": options.seed,
        "second_reader": not options.without_engine,
        "walk": dict(sorted(tally.walked.items())),
        "refused_by_the_walk_alone": dict(sorted(tally.differences.items())),
        "slowest_ms": round(tally.slowest_s * 1000, 1),
        "extra_bytes": extra_bytes,
        "broken": tally.broken,
    }


def main() -> int:
    """Run, print the table, tell by the exit code whether every claim held."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--mutants", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without-engine", action="store_true", help="only the walk, no second reader")
    parser.add_argument("--output", type=Path, help="where to write the counts as JSON")
    options = parser.parse_args()
    scale = 1 if sys.platform == "darwin" else 1024
    run(0, 2000, None)  # what the first mutants allocate is Python's own
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    begin = time.monotonic()
    if options.without_engine:
        tally = run(options.seed, options.mutants, None)
    else:
        with EngineChild() as child:
            tally = run(options.seed, options.mutants, child)
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale - before
    if extra > MOST_EXTRA_BYTES:
        tally.broken.append(f"the process grew by {extra >> 20} MiB")
    if options.output is not None:
        options.output.write_text(json.dumps(_record(options, tally, extra), indent=1) + "\n")
    print(f"{options.mutants} mutants of seed {options.seed} in {time.monotonic() - begin:.0f} s")
    print(f"walk: {dict(tally.walked)}, slowest {tally.slowest_s * 1000:.1f} ms, process grew by {extra >> 20} MiB")
    print(f"refused here, accepted by ggml: {dict(sorted(tally.differences.items()))}")
    for line in tally.broken[:10]:
        print(f"BROKEN {line}")
    print(f"{len(tally.broken)} claims broken")
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
