"""Where a file's bytes are: totals equal sums, every tensor of every architecture has its group."""

import math

import msgspec
import pytest

from planner.catalogue import load
from planner.catalogue.contents import GROUPS, bits_per_weight, group_of, shares_by_group, shares_by_type
from planner.gguf.ggml_types import tensor_bytes
from planner.types.header import Header
from planner.types.metadata import GgufValue
from planner.types.model import TensorSpec

_KNOWN = load()


def header_of(layout):
    """A header with the tensors and counts of a layout."""
    counts = {
        key: GgufValue(type="u32", value=value) for key, value in layout.metadata.items() if isinstance(value, int)
    }
    return Header(
        name="x",
        architecture=layout.architecture,
        kind="model",
        version=3,
        alignment=32,
        metadata=counts,
        tensors=layout.tensors,
        vocab_size=None,
        tokenizer_model=None,
        chat_template_sha256=None,
        header_bytes=0,
        data_bytes=0,
        file_bytes=None,
    )


def _one_of_each():
    found = {}
    for model in _KNOWN.models.values():
        found.setdefault(model.architecture, model)
    return sorted(found.values(), key=lambda model: model.architecture)


@pytest.mark.parametrize("model", _one_of_each(), ids=lambda model: model.architecture)
def test_both_tables_add_up_to_all_tensors(model):
    """By type and by group: the same tensors, numbers and bytes, shares of one."""
    header = header_of(_KNOWN.layout(model))
    total = sum(tensor_bytes(tensor.type, tensor.dims) for tensor in header.tensors)
    for shares in (shares_by_type(header), shares_by_group(header)):
        assert sum(share.tensors for share in shares) == len(header.tensors)
        assert sum(share.values for share in shares) == sum(math.prod(tensor.dims) for tensor in header.tensors)
        assert sum(share.size_bytes for share in shares) == total
        assert sum(share.share for share in shares) == pytest.approx(1)
    values = sum(share.values for share in shares_by_type(header))
    assert bits_per_weight(header) == pytest.approx(8 * total / values)


@pytest.mark.parametrize("model", _one_of_each(), ids=lambda model: model.architecture)
def test_little_of_any_architecture_is_nowhere(model):
    """``other`` is for norms and constants; weights that a newcomer would miss have a group."""
    shares = {share.name: share for share in shares_by_group(header_of(_KNOWN.layout(model)))}
    assert set(shares) <= set(GROUPS)
    assert {"embedding", "attention", "feed-forward"} <= set(shares)
    assert ("experts" in shares) == bool(model.size("n_expert"))
    assert ("head" in shares) == (not model.shape.get("tied", False))
    assert shares["other"].share < 0.03


def test_types_come_with_the_largest_first_and_groups_in_the_order_of_the_model():
    """What decides stands on top."""
    header = header_of(_KNOWN.layout(_KNOWN.model("qwen3-30b-a3b")))
    sizes = [share.size_bytes for share in shares_by_type(header)]
    assert sizes == sorted(sizes, reverse=True)
    names = [share.name for share in shares_by_group(header)]
    assert names == [name for name in GROUPS if name in names]


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("blk.0.ffn_gate_exps.weight", "experts"),
        ("blk.0.ffn_up_chexps.weight", "experts"),
        ("blk.0.ffn_gate_shexp.weight", "feed-forward"),
        ("blk.0.ffn_gate_inp.weight", "feed-forward"),
        ("blk.0.ssm_out.weight", "attention"),
        ("blk.0.indexer.attn_k.weight", "attention"),
        ("blk.9.ffn_gate_exps.weight", "mtp"),
        ("blk.9.nextn.eh_proj.weight", "mtp"),
        ("output.weight", "head"),
        ("output_norm.weight", "other"),
        ("rope_freqs.weight", "other"),
        ("blk.99999.attn_q.weight", "other"),
        ("\x1b[2J", "other"),
    ],
)
def test_a_tensor_belongs_where_llama_cpp_uses_it(name, group):
    """Routed experts alone are experts; what lies behind the trunk predicts further tokens, whatever it is called."""
    assert group_of(name, 9) == group


def test_a_file_without_tensors_has_no_shares():
    """No division by nothing."""
    empty = header_of(_KNOWN.layout(_KNOWN.model("qwen3-0.6b"), 1))
    none = msgspec.structs.replace(empty, tensors=())
    assert shares_by_type(none) == shares_by_group(none) == ()
    assert bits_per_weight(none) == 0.0
    one = TensorSpec(name="output.weight", dims=(256, 2), type="Q4_K")
    assert bits_per_weight(msgspec.structs.replace(empty, tensors=(one,))) == 4.5
