"""What the engine holds beside its buffers follows what it plans: nodes, cells, sequences."""

import pytest

from planner import catalogue
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.types.settings import Settings

pytestmark = pytest.mark.engine
MIB = 1 << 20


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    """``(structures, graph)`` in bytes of a model under some settings."""
    catalogued = catalogue.load()
    with EngineChild() as child, Oracle(child, folder=tmp_path_factory.mktemp("answers")) as oracle:

        def ask(name, **changes):
            model = catalogued.model(name)
            told = oracle.buffers(
                catalogued.shape_key(model),
                lambda: catalogued.layout(model),
                [Settings(context_tokens=8192, **changes)],
                catalogued.quantization("Q4_K_M"),
            )[0]
            return told.structures_bytes, told.graph_bytes

        yield ask


def test_a_hybrid_keeps_graphs_that_grow_with_the_micro_batch(structures):
    """40 nodes a token: 4,096 tokens take 70 MiB a graph, two of them are kept; a dense model's do not grow."""
    small, large = structures("qwen3.5-0.8b", ubatch=512), structures("qwen3.5-0.8b", ubatch=4096, batch=4096)
    assert small[1] < 12 * MIB
    assert 60 * MIB < large[1] < 80 * MIB
    assert large[0] - small[0] > 2 * (large[1] - small[1])
    assert structures("qwen3-0.6b", ubatch=512) == structures("qwen3-0.6b", ubatch=4096, batch=4096)


def test_cells_are_counted_for_each_cache(structures):
    """52 bytes of position, place and sequences for each cell of a long context, in one stream or in several."""
    short, long = structures("qwen3-0.6b"), structures("qwen3-0.6b", parallel=4)
    assert 0 < long[0] - short[0] < MIB
