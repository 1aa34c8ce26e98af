"""The planner asked about a configuration as :mod:`memory` asks it: about the very process that the referee runs.

``planner estimate`` speaks of a whole model, which has a tokenizer, and of a chat; the referee loads a phantom, which
has none, and runs one micro-batch. The estimate is the same, told of both.
"""

from importlib.metadata import version
from pathlib import Path

from memory import Bench
from memory_draw import Case, Part
from rivals_ask import Answer, Subject

from planner import catalogue
from planner.engine.oracle import Oracle
from planner.types.plan import DeviceMemory


class Planner:
    """This project."""

    name = "planner"
    claims = (
        "total: all that the engine reserves, process included (the promise to fit); resident: what one micro-batch and"
        " a chat's single outputs touch; weights, cache and compute: the engine's buffers, repacked copies included"
    )

    def __init__(self, catalogued: catalogue.Catalogue, oracle: Oracle, folder: Path) -> None:
        self._bench = Bench(catalogued, oracle, folder)

    def version(self) -> str:
        """The package's version."""
        return version("llama-planner")

    def ask(self, subject: Subject) -> Answer:
        """The host's row of the configuration."""
        each = subject.configuration
        changes: dict[str, object] = {
            "context_tokens": each.context_tokens,
            "load_mode": each.load_mode,
            "cache_type_k": each.cache_type,
            "cache_type_v": each.cache_type,
            "threads": subject.settings.threads,
            "threads_batch": subject.settings.threads_batch,
        }
        row, _ = self._bench.estimate(Case(Part(each.model), each.quantization, changes))
        return planner_answer(row)


def planner_answer(row: DeviceMemory) -> Answer:
    """The host's row, output buffers counted as compute."""
    compute = row.compute_bytes + row.output_bytes
    return Answer(
        total=row.total_bytes,
        weights=row.weights_bytes,
        cache=row.cache_bytes,
        compute=compute,
        context=row.cache_bytes + compute,
        resident=row.resident_bytes,
    )
