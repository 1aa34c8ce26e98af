"""Headers that lie, one test for each lie: our walk and ggml's parser must both see it, or the difference has a name.

Where upstream's ``test-gguf.cpp`` has a case of the kind, its id stands in capitals in the test's id.
"""

import contextlib
import struct
import time

import pytest

from planner.errors import BadInputError
from planner.gguf import LIMITS, Incomplete, walk_header

U8, I32, U32, U64, BOOL, STRING, ARRAY = 0, 5, 4, 10, 7, 8, 9
F32, Q8_0, I8, I64 = 0, 8, 24, 27

# Where ggml accepts what the walk refuses, each with its reason; nothing goes the other way.
ALLOWED = {
    "no text": "names are shown, hashed and written again: not UTF-8, empty, or ended by a NUL they are none",
    "alignment": "ggml pads to any power of two, 2³¹ too; no real file is aligned to more than a mebibyte",
    "limits": "more keys, tensors, strings or bytes than any model has; ggml would fetch and keep them all",
    "cut off": "ggml's header parser does not compare with the file's end; the loader would refuse later",
    "nothing in it": "a tensor without dimensions or elements; no model has one and sizes divide by it",
    "2^63 bytes": "ggml counts unsigned, up to 2⁶⁴",
    "numbers": "layers, heads, experts and lengths that end the engine's process or make our loops endless",
    "split": "a part number beyond the number of parts",
}


def u32(value):
    """A 32-bit integer as it stands in a file."""
    return struct.pack("<I", value & 0xFFFFFFFF)


def u64(value):
    """A 64-bit integer as it stands in a file."""
    return struct.pack("<Q", value & (2**64 - 1))


def text(data):
    """A string as it stands in a file."""
    data = data.encode() if isinstance(data, str) else data
    return u64(len(data)) + data


def pair(key, kind, value):
    """A key with its type and the value's bytes."""
    return text(key) + u32(kind) + value


def tensor(name, dims, kind=F32, offset=0, n_dims=None):
    """A line of the tensor table."""
    n = len(dims) if n_dims is None else n_dims
    return text(name) + u32(n) + b"".join(map(u64, dims)) + u32(kind) + u64(offset)


def header(pairs=(), tensors=(), *, n_keys=None, n_tensors=None, version=3, magic=b"GGUF", align=32, data=0):
    """A file: header, padding, and ``data`` bytes behind it."""
    n_tensors = len(tensors) if n_tensors is None else n_tensors
    n_keys = len(pairs) if n_keys is None else n_keys
    head = magic + u32(version) + u64(n_tensors) + u64(n_keys) + b"".join(pairs) + b"".join(tensors)
    return head + bytes(-len(head) % align) + bytes(data)


ARCH = pair("general.architecture", STRING, text("qwen3"))
ALIGN = "general.alignment"
ONE = tensor("a", (8,))


def arch(key, kind, value):
    """A file that says one thing about its architecture."""
    return header([ARCH, pair(f"qwen3.{key}", kind, value)])


REFUSED_BY_BOTH = {
    "an empty file": b"",
    "a file that ends within the magic": b"GGU",
    "another magic HEADER_BAD_MAGIC": header(magic=b"FUGG"),
    "version 0 HEADER_BAD_VERSION_0": header(version=0),
    "version 1 HEADER_BAD_VERSION_1": header(version=1),
    "a version of the future HEADER_BAD_VERSION_FUTURE": header(version=4),
    "the other byte order": header(version=3 << 24),
    "2^64-1 tensors HEADER_BAD_N_TENSORS": header(n_tensors=-1),
    "2^64-1 keys HEADER_BAD_N_KV": header(n_keys=-1),
    "a thousand keys in a hundred bytes": header([ARCH], n_keys=1000),
    "a thousand tensors in a hundred bytes": header([ARCH], [ONE], n_tensors=1000, data=32),
    "a key of 2^64-1 bytes KV_BAD_KEY_SIZE": header([u64(-1) + b"key" + u32(U8) + b"\0"]),
    "an empty key KV_EMPTY_KEY": header([pair("", U32, u32(1))]),
    "a value of type 13 KV_BAD_TYPE": header([pair("key", 13, u32(1))]),
    "a value of type -1": header([pair("key", -1, u32(1))]),
    "a key twice KV_DUPLICATE_KEY": header([pair("key", U32, u32(1)), pair("key", U32, u32(2))]),
    "an alignment of 13 KV_BAD_ALIGN": header([pair(ALIGN, U32, u32(13))]),
    "an alignment of 0": header([pair(ALIGN, U32, u32(0))]),
    "an alignment that is signed KV_WRONG_TYPE_ALIGN": header([pair(ALIGN, I32, u32(32))]),
    "an alignment that is an array": header([pair(ALIGN, ARRAY, u32(U32) + u64(1) + u32(32))]),
    "no value behind the last key": header([text("key") + u32(U32)], align=1),
    "a string of 2^64-1 bytes": header([pair("key", STRING, u64(-1) + b"value")]),
    "a string of 2^30 bytes": header([pair("key", STRING, u64(2**30) + b"value")]),
    "an array of arrays": header([pair("key", ARRAY, u32(ARRAY) + u64(1) + u32(U32) + u64(1) + u32(1))]),
    "an array of type 99": header([pair("key", ARRAY, u32(99) + u64(1) + u32(1))]),
    "an array of 2^63 bytes": header([pair("key", ARRAY, u32(U8) + u64(2**63) + b"\0")]),
    "an array of 2^30 values in a short file": header([pair("key", ARRAY, u32(U32) + u64(2**30) + u32(0))]),
    "an array whose size wraps to nothing": header([pair("key", ARRAY, u32(U64) + u64(2**61))]),
    "strings whose least size wraps to eight": header([pair("key", ARRAY, u32(STRING) + u64(2**61 + 1) + text("a"))]),
    "2^30 strings in a short file": header([pair("key", ARRAY, u32(STRING) + u64(2**30) + text("a"))]),
    "an array whose last string is too long": header(
        [pair("key", ARRAY, u32(STRING) + u64(2) + text("a") + u64(2**40))]
    ),
    "a name of 64 bytes TENSORS_BAD_NAME_SIZE": header([ARCH], [tensor("a" * 64, (8,))], data=32),
    "a name of 2^64-1 bytes": header([ARCH], [u64(-1) + b"a" + u32(1) + u64(8) + u32(F32) + u64(0)], data=32),
    "five dimensions TENSORS_BAD_N_DIMS": header([ARCH], [tensor("a", (1, 1, 1, 1, 8))], data=32),
    "2^32-1 dimensions": header([ARCH], [tensor("a", (8,), n_dims=-1)], data=32),
    "a dimension of -1 TENSORS_BAD_SHAPE": header([ARCH], [tensor("a", (-1, -1))], data=32),
    "elements beyond 2^63 TENSORS_NE_TOO_BIG": header([ARCH], [tensor("a", (2**33, 2**33))], data=32),
    "bytes beyond 2^64 TENSORS_NBYTES_TOO_BIG": header([ARCH], [tensor("a", (2**31, 2**31 - 8), I64)], data=32),
    "bytes that wrap when padded TENSORS_NBYTES_PAD_WRAP": header(
        [ARCH], [tensor("a", (4, 2**30 - 1, 2**30 + 1))], data=32
    ),
    "a type of the future TENSORS_BAD_TYPE": header([ARCH], [tensor("a", (8,), 43)], data=32),
    "a type of -1": header([ARCH], [tensor("a", (8,), -1)], data=32),
    "a type that was removed": header([ARCH], [tensor("a", (32,), 4)], data=32),
    "an offset of 2^64-1 TENSORS_BAD_OFFSET": header([ARCH], [tensor("a", (8,), offset=-1)], data=32),
    "an offset that is not aligned": header([ARCH], [ONE, tensor("b", (8,), offset=36)], data=128),
    "a gap between two tensors": header([ARCH], [ONE, tensor("b", (8,), offset=64)], data=128),
    "two tensors in one place": header([ARCH], [ONE, tensor("b", (8,))], data=64),
    "a tensor twice TENSORS_DUPLICATE_NAME": header([ARCH], [ONE, tensor("a", (8,), offset=32)], data=64),
    "tensors under an alignment of 13 TENSORS_BAD_ALIGN DATA_BAD_ALIGN": header(
        [pair(ALIGN, U32, u32(13))], [ONE], data=64
    ),
    "offsets of another alignment TENSORS_INCONSISTENT_ALIGN DATA_INCONSISTENT_ALIGN": header(
        [ARCH], [tensor("a", (3,)), tensor("b", (3,), offset=12)], align=1, data=64
    ),
    "a row that is no whole number of blocks": header([ARCH], [tensor("a", (33,), Q8_0)], data=64),
    "a table that ends within a tensor": header([ARCH], [ONE[:-4]], align=1),
    "no room for the padding": header([ARCH], [tensor("abcdefg", (8,))], align=1),
}

ACCEPTED_BY_BOTH = {
    "nothing in it HEADER_EMPTY": header(),
    "version 2": header([ARCH], version=2),
    "every kind of value KV_RANDOM_KV": header(
        [pair(f"k{kind}", kind, bytes(size)) for kind, size in ((0, 1), (1, 1), (2, 2), (3, 2), (4, 4), (5, 4), (6, 4))]
        + [pair("k7", BOOL, b"\1"), pair("k8", STRING, text("")), pair("k9", ARRAY, u32(STRING) + u64(1) + text("a"))]
        + [pair(f"k{kind}", kind, bytes(8)) for kind in (10, 11, 12)]
    ),
    "one tensor TENSORS_SUCCESS DATA_SUCCESS": header([ARCH], [ONE], data=32),
    "an alignment of 1 TENSORS_CUSTOM_ALIGN DATA_CUSTOM_ALIGN": header(
        [pair(ALIGN, U32, u32(1))], [tensor("a", (3,)), tensor("b", (1,), offset=12)], align=1, data=16
    ),
    "a key that a Python reader keeps for itself": header([pair("GGUF.version", U32, u32(7))]),
    "a NUL in a key": header([pair("a\0b", U32, u32(1)), pair("a", U32, u32(1))]),
    "a truth value of 2": header([pair("key", BOOL, b"\2")]),
    "bytes behind the last tensor": header([ARCH], [ONE], data=4096),
    "a name of 63 bytes": header([ARCH], [tensor("a" * 63, (8,))], data=32),
    "an empty array": header([pair("key", ARRAY, u32(U32) + u64(0))]),
    "the last tensor without its padding": header([ARCH], [tensor("a", (1,))], data=4),
}

REFUSED_BY_US = {
    "a key that is not UTF-8": ("no text", header([pair(b"\xff\xfe", U32, u32(1))])),
    "a tensor's name that is not UTF-8": ("no text", header([ARCH], [tensor(b"\xff", (8,))], data=32)),
    "a NUL in a tensor's name": ("no text", header([ARCH], [tensor("a\0b", (8,))], data=32)),
    "a tensor without a name": ("no text", header([ARCH], [tensor("", (8,))], data=32)),
    "an alignment of 2^31": ("alignment", header([pair(ALIGN, U32, u32(2**31))])),
    "an alignment of 2 MiB": ("alignment", header([pair(ALIGN, U32, u32(2**21))])),
    "a key of 64 KiB": ("limits", header([pair("a" * 65536, U32, u32(1))])),
    "a value of more than 1 MiB": ("limits", header([pair("a", STRING, text(bytes(2**20 + 1)))])),
    "more keys than any model has": ("limits", header([pair(str(i), U8, b"\0") for i in range(4097)])),
    "more strings than any tokenizer has": (
        "limits",
        header([pair("a", ARRAY, u32(STRING) + u64(2**20 + 1) + bytes(8 * 2**20 + 8))]),
    ),
    "data cut off DATA_NOT_ENOUGH_DATA": ("cut off", header([ARCH], [ONE], data=31)),
    "a tensor of an exabyte": ("cut off", header([ARCH], [tensor("a", (2**58,), I8)], data=32)),
    "no dimensions": ("nothing in it", header([ARCH], [tensor("a", ())], data=32)),
    "a dimension of 0 TENSORS_ZERO_DIM": ("nothing in it", header([ARCH], [tensor("a", (8, 0))], data=32)),
    "a tensor of 2^63 bytes": ("2^63 bytes", header([ARCH], [tensor("a", (2**61,))], data=32)),
    "two tensors of nearly 2^63 bytes DATA_MEM_SIZE_OVERFLOW": (
        "2^63 bytes",
        header([ARCH], [tensor("a", (2**63 - 64,), I8), tensor("b", (2**63 - 64,), I8, 2**63 - 64)], data=32),
    ),
    "an architecture that is a number": ("numbers", header([pair("general.architecture", U32, u32(1))])),
    "an architecture without a name": ("numbers", header([pair("general.architecture", STRING, text(""))])),
    "no layers": ("numbers", arch("block_count", U32, u32(0))),
    "1000 layers": ("numbers", arch("block_count", U32, u32(1000))),
    "2^32-1 layers": ("numbers", arch("block_count", U32, u32(-1))),
    "-1 layers": ("numbers", arch("block_count", I32, u32(-1))),
    "layers in words": ("numbers", arch("block_count", STRING, text("many"))),
    "layers as an array": ("numbers", arch("block_count", ARRAY, u32(U32) + u64(1) + u32(4))),
    "a context of 0": ("numbers", arch("context_length", U32, u32(0))),
    "a context of 2^64-1": ("numbers", arch("context_length", U64, u64(-1))),
    "an embedding of 0": ("numbers", arch("embedding_length", U32, u32(0))),
    "2^20 experts": ("numbers", arch("expert_count", U32, u32(2**20))),
    "heads of 2^31 in one layer": (
        "numbers",
        arch("attention.head_count", ARRAY, u32(U32) + u64(2) + u32(8) + u32(2**31)),
    ),
    "a head count for each of 600 layers": (
        "numbers",
        arch("attention.head_count", ARRAY, u32(U32) + u64(600) + 600 * u32(8)),
    ),
    "more experts used than there are": (
        "numbers",
        header([ARCH, pair("qwen3.expert_count", U32, u32(4)), pair("qwen3.expert_used_count", U32, u32(8))]),
    ),
    "more MTP layers than layers": (
        "numbers",
        header([ARCH, pair("qwen3.block_count", U32, u32(4)), pair("qwen3.nextn_predict_layers", U32, u32(8))]),
    ),
    "part 3 of 2": ("split", header([pair("split.no", 2, b"\3\0"), pair("split.count", 2, b"\2\0")])),
    "a part number in words": ("split", header([pair("split.no", STRING, text("1")), pair("split.count", 2, b"\2\0")])),
}


def walked(data):
    """What our walk finds in a whole file."""
    return walk_header(data, file_bytes=len(data))


def needed_bytes(data):
    """What a remote reader, who does not know the file's length, is told to fetch; one byte more when all is there."""
    try:
        return len(data) + 1 if walk_header(data).header_bytes <= len(data) else 0
    except Incomplete as more:
        return more.needed_bytes


def test_at_least_the_35_cases_of_the_notes_and_at_most_eight_kinds_of_difference():
    """The lists above are the promise; every kind of difference is used by a case, and none is missing its reason."""
    assert len(REFUSED_BY_BOTH) + len(REFUSED_BY_US) >= 35
    assert len(ALLOWED) <= 8
    assert {kind for kind, _ in REFUSED_BY_US.values()} == set(ALLOWED)


@pytest.mark.parametrize("lie", REFUSED_BY_BOTH)
def test_refused_by_both(lie):
    """The walk refuses it with one kind of error that names the place and the remedy."""
    with pytest.raises(BadInputError) as caught:
        walked(REFUSED_BY_BOTH[lie])
    assert caught.value.code == "bad-gguf"
    assert "byte " in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("oddity", ACCEPTED_BY_BOTH)
def test_accepted_by_both(oddity):
    """Odd is not wrong; what is worth a word becomes a warning."""
    found = walked(ACCEPTED_BY_BOTH[oddity])
    assert bool(found.warnings) is (oddity in {"a truth value of 2", "bytes behind the last tensor"})


@pytest.mark.parametrize("lie", REFUSED_BY_US)
def test_refused_by_us_alone(lie):
    """What ggml would let pass is refused here, with the same kind of error."""
    with pytest.raises(BadInputError) as caught:
        walked(REFUSED_BY_US[lie][1])
    assert caught.value.code == "bad-gguf"
    assert "byte " in caught.value.message


@pytest.mark.engine
@pytest.mark.parametrize("lie", REFUSED_BY_BOTH)
def test_ggml_refuses_it_too(lie, ggml_says):
    """Agreement with the runtime, lie by lie."""
    assert ggml_says(REFUSED_BY_BOTH[lie])[0] is not None


@pytest.mark.engine
@pytest.mark.parametrize("oddity", [*ACCEPTED_BY_BOTH, *REFUSED_BY_US])
def test_ggml_accepts_it(oddity, ggml_says):
    """Agreement on what is odd; and each allowed difference is one, or it would have to leave the list."""
    data = ACCEPTED_BY_BOTH[oddity] if oddity in ACCEPTED_BY_BOTH else REFUSED_BY_US[oddity][1]
    assert ggml_says(data) == [None]


@pytest.mark.parametrize("lie", [*REFUSED_BY_BOTH, *(name for name in REFUSED_BY_US if name != "limits")])
def test_a_lie_is_no_reason_to_fetch_much_more(lie):
    """A remote reader sees the same bytes without the file's length: it hears bad, or a need below the limit."""
    data = REFUSED_BY_BOTH[lie] if lie in REFUSED_BY_BOTH else REFUSED_BY_US[lie][1]
    with contextlib.suppress(BadInputError):
        assert len(data) < needed_bytes(data) <= LIMITS.header_bytes


def test_a_message_never_repeats_control_characters_or_kilobytes_of_a_foreign_name():
    """A key can hold an escape sequence, a right-to-left mark or 60 kB; the terminal sees none of it."""
    for name in ("\x1b[2J\u202e" + "x" * 60_000, "\n\r\u2028"):
        with pytest.raises(BadInputError) as caught:
            walked(header([pair(name, 13, u32(1))]))
        assert caught.value.message.isascii()
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    "largest",
    [
        pytest.param(
            header([pair("a", ARRAY, u32(STRING) + u64(2**23 - 64) + bytes(2**26 - 512))]), id="empty strings"
        ),
        pytest.param(
            header([pair(str(i), ARRAY, u32(STRING) + u64(2**17) + bytes(2**20)) for i in range(16)]), id="many arrays"
        ),
        pytest.param(header([pair(f"{i:1010}", U8, b"\0") for i in range(4095)]), id="long keys"),
        pytest.param(
            header([ARCH], [tensor(f"{i:062}", (1, 1, 1, 1), F32, 32 * i) for i in range(65_536)]), id="many tensors"
        ),
        pytest.param(header([pair("a", ARRAY, u32(U8) + u64(2**26 - 512) + bytes(2**26 - 512))]), id="one large array"),
    ],
)
def test_the_largest_headers_take_less_than_a_second_of_work(largest):
    """The worst that fits into the limits, in processor time, which a busy machine does not stretch."""
    begin = time.process_time()
    with contextlib.suppress(BadInputError):
        walk_header(largest)
    assert time.process_time() - begin < 1.0


def test_a_header_beyond_64_mib_is_refused_before_it_is_fetched():
    """An array that would need 80 MiB is no reason to ask for them."""
    with pytest.raises(BadInputError, match="cannot stand in"):
        walk_header(header([pair("a", ARRAY, u32(U8) + u64(80 << 20) + bytes(100))]))


def test_a_slow_header_is_given_up():
    """The wall clock is a limit as well."""
    import msgspec

    limits = msgspec.structs.replace(LIMITS, seconds=-1.0)
    with pytest.raises(BadInputError, match="takes longer"):
        walk_header(ACCEPTED_BY_BOTH["one tensor TENSORS_SUCCESS DATA_SUCCESS"], limits=limits)


@pytest.mark.parametrize(
    ("begin", "word"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "LFS"), (b"<!DOCTYPE html>", "web page"), (b"PK\3\4", "zip")],
)
def test_what_is_no_gguf_at_all_is_called_by_its_name(begin, word):
    """The three things that people have in its place."""
    with pytest.raises(BadInputError, match=word):
        walked(begin + bytes(200))
