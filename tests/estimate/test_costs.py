"""Amounts of work: additive in layers, never less at depth, and experts counted as often as tokens visit them."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.engine.graphs import Graph, Node, Operand
from planner.estimate.costs import COLUMN_KNOTS, COUNTING, EXPERT_KNOTS, amounts, between
from planner.estimate.costs_attention import Near
from planner.gguf.ggml_types import tensor_bytes


def product(rows: int, width: int, tokens: int, *, place: str = "CPU", kind: str = "q8_0", times: int = 1) -> Node:
    """A product of a weight with ``tokens`` columns."""
    weight, columns = Operand(kind, (width, rows), place), Operand("f32", (width, tokens))
    return Node(times, "MUL_MAT", "f32", (rows, tokens), (weight, columns))


def attention(
    cells: int, tokens: int, *, heads: int = 8, kv_heads: int = 2, kind: str = "f16", width: int = 64, streams: int = 1
) -> Node:
    """Attention of ``tokens`` of each stream over a cache of ``cells``."""
    queries = Operand("f32", (width, tokens, heads, streams))
    keys = Operand(kind, (width, cells, kv_heads, streams), "cache")
    return Node(1, "FLASH_ATTN_EXT", "f32", (width, heads, tokens), (queries, keys, keys, Operand("f16", (cells,))))


def latent(cells: int) -> Node:
    """Attention of one token over one latent vector, the values of which are its beginning."""
    keys, values = (Operand("f16", (width, cells, 1), "cache") for width in (576, 512))
    return Node(1, "FLASH_ATTN_EXT", "f32", (512, 16, 1), (Operand("f32", (576, 1, 16)), keys, values))


def experts(tokens: int, *, count: int = 16, used: int = 2) -> Node:
    """A product of the experts that ``tokens`` are routed to."""
    weight = Operand("q8_0", (256, 128, count), "CPU")
    operands = (weight, Operand("f32", (256, 1, tokens)), Operand("i32", (used, tokens)))
    return Node(1, "MUL_MAT_ID", "f32", (128, used, tokens), operands)


def of_kind(found: dict[str, float], kind: str) -> float:
    """The sum of all amounts whose name starts with ``kind``."""
    return sum(amount for name, amount in found.items() if name.startswith(kind))


@given(st.integers(1, 5), st.integers(1, 600), st.integers(0, 4000))
def test_twice_the_layers_are_twice_the_work_and_one_call(layers, tokens, filled):
    """Everything but the call itself is a sum over layers."""
    layer = (product(128, 256, tokens), attention(8192, tokens), experts(tokens))
    one = amounts(Graph(layer), filled=filled)
    many = amounts(Graph(layer * layers), filled=filled)
    assert many.pop("call") == one.pop("call") == 1.0
    assert many == pytest.approx({name: layers * amount for name, amount in one.items()})


@given(st.integers(1, 600), st.integers(0, 8000), st.integers(0, 8000))
def test_a_deeper_context_is_never_less_work(tokens, one, other):
    """No amount shrinks when more of the cache is filled."""
    shallow, deep = (amounts(Graph((attention(9000, tokens),)), filled=depth) for depth in sorted((one, other)))
    assert all(deep[name] >= amount for name, amount in shallow.items())


def test_attention_counts_what_is_filled_and_not_what_the_cache_could_hold():
    """A token behind 99 others looks at 100 cells, however large the cache is; what it reads is both halves of it."""
    small, large = (amounts(Graph((attention(cells, 1),)), filled=99) for cells in (256, 65536))
    assert small == large
    assert small["attn/single/f16"] == 8 * 100 * (64 + 64)
    assert small["kv/f16"] == 2 * 100 * (64 + 64) * 2


def test_a_token_of_one_sequence_waits_for_the_thread_that_has_most_of_the_cells():
    """Of 513 cells in steps of 256 the first of two threads has 384; several sequences are shared out by heads."""
    near = Near(bytes_per_core=1 << 20, cores=2)
    alone = amounts(Graph((attention(65536, 1),)), filled=512, near=near)
    assert alone["pos/single"] == 8 * 2 * 384
    two = amounts(Graph((attention(65536, 1, streams=2),)), filled=512, near=near)
    assert two["pos/single"] == 2 * 8 * 513


def test_the_values_of_a_latent_vector_are_its_beginning_and_are_read_once():
    """Keys of 576 with values of 512 are one row of 576, and another kind of attention: each head reads it again."""
    found = amounts(Graph((latent(256),)), filled=99)
    assert found["kv/f16"] == 100 * 576 * 2
    assert (found["pos/latent"], found["attn/latent/f16"]) == (100 * 16, 100 * 16 * (576 + 512))
    assert not of_kind(found, "attn/single")


def test_rows_are_shared_out_in_chunks_by_the_rules_of_the_kernel_that_runs():
    """64 rows for one column, 16 for more; kernels of llamafile and tiled ones have none; repacked weights neither."""

    def of(kind: str, tokens: int, place: str = "CPU") -> tuple[float, float]:
        found = amounts(Graph((product(512, width, tokens, kind=kind, place=place),)), filled=0)
        return found.get("chunk", 0.0), found.get("row", 0.0)

    width = 2048
    assert of("q6_k", 1) == of("q8_0", 1) == (8, 0)
    assert of("q6_k", 2) == of("q6_k", 4) == (32, 0)
    assert of("q8_0", 2) == of("q8_0", 8) == of("q8_0", 512) == (0, 512)
    assert of("q6_k", 8) == of("q6_k", 1, "CPU_REPACK") == (0, 0)
    width = 256
    assert 0 < of("q6_k", 1)[0] < 8, "what a cache keeps is begun in less time"
    assert (of("q8_0", 2), of("bf16", 2)) == ((0, 128), (0, 64)), "and of short rows the next ones come along"
    width = 1024
    assert (of("q8_0", 2), of("bf16", 2)) == ((0, 512), (0, 256)), (
        "1,024 numbers are a whole row in blocks, half of one in floats"
    )


def test_tiled_kernels_read_rows_in_the_longest_strips_that_divide_them():
    """Of 768, 512 or 256 numbers, for 8 to 16 columns of blocks of 256 that are not repacked."""

    def strips(width: int, tokens: int = 8, kind: str = "q6_k", place: str = "CPU") -> float:
        node = product(100, width, tokens, kind=kind, place=place)
        return amounts(Graph((node,)), filled=0).get("strip", 0.0) / 100

    assert {width: strips(width) for width in (2048, 2816, 3072, 8960)} == {2048: 4, 2816: 11, 3072: 4, 8960: 35}
    assert strips(2048, 16) == strips(2048, 8)
    assert strips(2048, 4) == strips(2048, 17) == strips(2048, kind="q8_0") == strips(2048, place="CPU_REPACK") == 0


def test_an_expert_that_many_tokens_visit_is_read_in_strips_as_often_as_they_do():
    """Eight tokens that all visit all experts read each row of each expert in strips, seven do not."""
    weight = Operand("q6_k", (2816, 10, 4), "CPU")

    def strips(tokens: int) -> float:
        operands = (weight, Operand("f32", (2816, 1, tokens)), Operand("i32", (4, tokens)))
        return amounts(Graph((Node(1, "MUL_MAT_ID", "f32", (10, 4, tokens), operands),)), filled=0).get("strip", 0.0)

    assert (strips(7), strips(8)) == (0.0, 4 * 10 * 11)


def test_an_expert_is_shared_out_by_the_tokens_that_visit_it_and_not_by_all_of_them():
    """Two tokens that meet in none of many experts read each of theirs in chunks of 64 rows, as one token does."""
    one, two = (amounts(Graph((experts(tokens, count=512, used=8),)), filled=0)["chunk"] for tokens in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.05)
    everybody = amounts(Graph((experts(2, count=8, used=8),)), filled=0)["chunk"]
    assert everybody == 4 * amounts(Graph((experts(1, count=8, used=8),)), filled=0)["chunk"]


def test_a_layer_with_a_window_looks_no_further_back_than_it():
    """Of two caches the smaller one belongs to the layers with a window."""
    graph = Graph((attention(8192, 1), attention(1536, 1)), window=1024)
    assert amounts(graph, filled=7999)["pos/single"] == 8 * (8000 + 1024)


def test_a_long_prompt_is_computed_in_tiles_and_a_compressed_cache_is_not():
    """The engine's own rule (ops.cpp): 64 tokens, both halves of the cache in f16 or f32."""
    assert "attn/tiled/f16" in amounts(Graph((attention(512, 64),)), filled=0)
    assert "attn/single/f16" in amounts(Graph((attention(512, 63),)), filled=0)
    assert "attn/single/q8_0" in amounts(Graph((attention(512, 64, kind="q8_0"),)), filled=0)


@given(st.sampled_from(COLUMN_KNOTS))
def test_at_a_knot_the_weights_count_once_at_that_knot(columns):
    """No share of a neighbour where the number of columns was timed itself."""
    found = amounts(Graph((product(128, 256, columns),)), filled=0)
    assert found[f"mm/q8_0/plain@{columns}"] == tensor_bytes("Q8_0", (256, 128))
    assert of_kind(found, "mm/") == pytest.approx(tensor_bytes("Q8_0", (256, 128)))


@given(st.integers(1, COLUMN_KNOTS[-1]), st.sampled_from(["CPU", "CPU_REPACK"]))
def test_shares_of_the_knots_reproduce_a_straight_line(columns, place):
    """A kernel whose time is a + b·n is predicted exactly between the knots, repacked or not."""
    found = amounts(Graph((product(128, 256, columns, place=place),)), filled=0)
    size = tensor_bytes("Q8_0", (256, 128))
    time = sum(
        (3.0 + 0.5 * int(name.partition("@")[2])) * amount for name, amount in found.items() if name.startswith("mm/")
    )
    assert time == pytest.approx(size * (3.0 + 0.5 * columns))


def test_repacked_weights_take_four_columns_at_once_and_the_rest_one_by_one():
    """Six columns are a step of four and twice what a second column adds."""
    found = amounts(Graph((product(128, 256, 6, place="CPU_REPACK"),)), filled=0)
    size = tensor_bytes("Q8_0", (256, 128))
    assert found["mm/q8_0/repacked@4"] == size
    assert found["mm/q8_0/repacked@2"] == 2 * size
    assert found["mm/q8_0/repacked@1"] == -2 * size


@given(st.integers(1, 512), st.integers(1, 8))
def test_tokens_are_shared_out_to_the_experts_that_they_visit(tokens, used):
    """Each token visits ``used`` experts: the visits add up, and no expert is read more often than there are any."""
    found = amounts(Graph((experts(tokens, used=used),)), filled=0)
    one = tensor_bytes("Q8_0", (256, 128))
    visits = sum(int(name.partition("@")[2]) * amount for name, amount in found.items() if name.startswith("id/"))
    assert visits == pytest.approx(tokens * used * one, rel=1e-6)
    if tokens <= EXPERT_KNOTS[2]:
        expected = 16 * (1 - (1 - used / 16) ** tokens) * one
        assert of_kind(found, "id/") == pytest.approx(expected, rel=1e-6)


def test_a_reset_of_states_that_the_graph_shows_is_not_counted():
    """Only new sequences start from nothing; a copy of the same size is work."""
    state = Operand("f32", (524288,), "cache")
    reset, copy = Node(1, "SCALE", "f32", (524288,), (state,)), Node(1, "CPY", "f32", (524288,), (state, state))
    assert of_kind(amounts(Graph((reset,)), filled=0), "op/") == 0
    assert amounts(Graph((copy,)), filled=0)["op/CPY"] == 2 * 4 * 524288


@given(st.floats(1, 2000))
def test_beyond_the_last_knot_time_grows_in_proportion(at):
    """Two thousand columns are four times five hundred and twelve."""
    shares = between(COLUMN_KNOTS, at)
    if at >= COLUMN_KNOTS[-1]:
        assert shares == {COLUMN_KNOTS[-1]: at / COLUMN_KNOTS[-1]}
    else:
        assert sum(shares.values()) == pytest.approx(1.0)
        assert sum(knot * share for knot, share in shares.items()) == pytest.approx(at)


def test_whoever_changes_what_is_counted_changes_the_number_that_calibrations_are_signed_with():
    """A kept calibration knows costs of the amounts of its day: under other amounts they are wrong and look right."""
    nodes = [product(512, 2048, tokens, kind=kind) for tokens in (1, 3, 8, 512) for kind in ("q8_0", "q6_k")]
    nodes += [product(512, 1024, 2, kind=kind) for kind in ("bf16", "q4_0")]
    nodes += [product(512, 2048, 6, kind="q4_k", place="CPU_REPACK"), experts(1), experts(40), experts(300)]
    nodes += [
        attention(9000, tokens, heads=16, kv_heads=kv_heads, width=width)
        for tokens in (1, 64)
        for kv_heads, width in ((2, 64), (16, 64), (2, 128), (4, 128), (16, 128))
    ]
    nodes.append(latent(9000))
    found = amounts(Graph(tuple(nodes)), filled=8000, near=Near(bytes_per_core=1 << 20, cores=2))
    text = " ".join(f"{name}={amount:.9g}" for name, amount in sorted(found.items()))
    assert (COUNTING, hashlib.sha256(text.encode()).hexdigest()[:12]) == (6, "e9d201170804")
