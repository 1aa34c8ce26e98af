from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from planner.types.plan import Plan

_SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="session")
def sample() -> Plan:
    """A complete plan for an invented laptop."""
    return msgspec.json.decode((_SAMPLES / "plan.json").read_bytes(), type=Plan)


@pytest.fixture(scope="session")
def nothing(sample: Plan) -> Plan:
    """The same machine, where nothing meets the goal."""
    return replace(sample, chosen=None, alternatives=(), pareto=(), trade_off="", commands=None, measurements=())


@pytest.fixture(scope="session")
def two_cards(sample: Plan) -> Plan:
    """A plan for a described machine with two cards: the choice lies on three devices, one of them too small."""
    chosen = sample.chosen
    assert chosen is not None
    cpu = chosen.memory[0]
    card = replace(cpu, device="CUDA0", available_bytes=24 << 30, server_bytes=1 << 27, overhead_bytes=1 << 28)
    card = replace(card, total_bytes=card.weights_bytes + card.cache_bytes + card.compute_bytes + card.overhead_bytes)
    small = replace(card, device="CUDA1", available_bytes=4 << 30)
    unknown = replace(cpu, available_bytes=None)
    machine = replace(sample.machine, name="2x-card", kind="described")
    return replace(sample, machine=machine, chosen=replace(chosen, memory=(card, small, unknown)), measurements=())
