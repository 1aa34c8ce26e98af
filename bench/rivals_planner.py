"""The planner asked about a configuration as :mod:`memory` asks it: the very process that the referee runs.

``planner estimate`` speaks of a whole model, which has a tokenizer, and of a chat; the referee loads a phantom, which
has none, and runs one micro-batch. The estimate is the same function, told of both.
"""

from importlib.metadata import version

from memory import what_runs
from rivals_ask import Answer, Subject

from planner import catalogue
from planner.engine.oracle import Oracle
from planner.estimate.memory import host_memory
from planner.types.plan import DeviceMemory


class Planner:
    """This project."""

    name = "planner"
    claims = (
        "total: all that the engine reserves, process included (the promise to fit); resident: what a chat touches (one"
        " output a sequence); weights, cache and compute: the engine's buffers, repacked copies included"
    )

    def __init__(self, catalogued: catalogue.Catalogue, oracle: Oracle) -> None:
        self._catalogued = catalogued
        self._oracle = oracle

    def version(self) -> str:
        """The package's version."""
        return version("llama-planner")

    def ask(self, subject: Subject) -> Answer:
        """``host_memory`` for a process without a tokenizer."""
        each, settings = subject.configuration, subject.settings
        key, quantization = self._catalogued.shape_key(subject.model), self._catalogued.quantization(each.quantization)
        source = lambda: self._catalogued.layout(subject.model)  # noqa: E731 - the oracle may never call it
        weights = self._oracle.weights(key, source, quantization, settings)
        full, lean = self._oracle.buffers(key, source, [settings, what_runs(settings)], quantization)
        process_bytes = self._oracle.system().process_bytes or 0
        return planner_answer(
            host_memory(
                settings, weights, full, lean, process_bytes=process_bytes, available_bytes=None, tokenizer=False
            )
        )


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
