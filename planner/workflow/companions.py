"""What runs beside a model and takes memory of its own: whoever drafts for it, its projector, what a server keeps.

The mistake it prevents: a plan that fits the model and fails with the second one, with the first picture, or after a
day of use. Each is asked of the engine under the same devices as the model, and added to the same rows.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import msgspec

from planner import hub
from planner.engine.answers import Buffers
from planner.engine.devices import HOST, device_of
from planner.engine.drafting import draft_model
from planner.engine.headers import read_header
from planner.engine.oracle import Oracle
from planner.engine.projector import ProjectorSettings, ask_projector, projector_layout
from planner.errors import EngineError, UsageError
from planner.estimate.devices import memory_on_devices
from planner.estimate.memory import engine_structures_bytes, host_memory
from planner.estimate.projector import projector_memory
from planner.estimate.server import SequenceState, ServerExtras, affordable_extras, sequence_state, server_extras
from planner.types.artifact import Artifact
from planner.types.machine import Machine
from planner.types.model import Model, Quantization
from planner.types.plan import Candidate
from planner.types.settings import Settings
from planner.workflow.sources import Sources

__all__ = ["Companions", "Drafter", "Projector"]

_SPARE_SHARE = 0.5
"""Of the RAM that a plan leaves free a server is granted half: the rest stays the user's, beside the reserve."""


class Drafter(NamedTuple):
    """A small model that drafts for another one."""

    model: Model
    quantization: Quantization


class Projector(NamedTuple):
    """The files of a projector, and the tokens that a picture may become (0: the projector's own limit)."""

    artifact: Artifact
    image_max_tokens: int = 0


class Companions:
    """The memory of what runs beside models on one machine."""

    def __init__(
        self,
        oracle: Oracle,
        sources: Sources,
        machine: Machine,
        *,
        drafter: Drafter | None = None,
        projector: Projector | None = None,
    ) -> None:
        self._oracle = oracle
        self._sources = sources
        self._machine = machine
        self._drafter = drafter
        self._projector = projector

    def bytes_by_device(self, model: Model, quantization: Quantization, settings: Settings) -> Counter[str]:
        """Bytes of all companions by device; raises :class:`EngineError` where the engine refuses one."""
        total: Counter[str] = Counter()
        if settings.speculation == "draft-mtp":
            total.update(_context_bytes(self._second_context(model, quantization, settings)))
        if settings.speculation == "draft-simple":
            total.update(self._drafter_bytes(settings))
        if self._projector is not None:
            total.update(self._projector_bytes(self._projector, settings))
        return total

    def server(self, model: Model, quantization: Quantization, settings: Settings, full: Buffers) -> ServerExtras:
        """What llama-server comes to keep under ``settings`` beside its slots; ``full`` are the model's buffers."""
        return server_extras(
            sequence_state(full.log, swa_full=settings.swa_full),
            slots=settings.parallel,
            cache_ram_mib=settings.cache_ram_mib,
            checkpoints=settings.checkpoints,
            draft=self._draft_state(model, quantization, settings),
        )

    def granted(self, model: Model, quantization: Quantization, candidate: Candidate, full: Buffers) -> Settings:
        """The settings of a candidate with the checkpoints and saved prompts that half of its spare RAM can hold."""
        settings = candidate.settings
        host = next((row for row in candidate.memory if row.device == HOST), candidate.memory[-1])
        spare = round(_SPARE_SHARE * max(0, host.headroom_bytes or 0))
        checkpoints, cache_ram_mib = affordable_extras(
            sequence_state(full.log, swa_full=settings.swa_full),
            slots=settings.parallel,
            spare_bytes=spare,
            draft=self._draft_state(model, quantization, settings),
        )
        return msgspec.structs.replace(settings, checkpoints=checkpoints, cache_ram_mib=cache_ram_mib)

    def _second_context(self, model: Model, quantization: Quantization, settings: Settings) -> Buffers:
        key, source = self._sources.shape_key(model, quantization), self._sources.layout_source(model, quantization)
        return _accepted(self._oracle.drafting_buffers(key, source, settings, quantization))

    def _draft_state(self, model: Model, quantization: Quantization, settings: Settings) -> SequenceState | None:
        if settings.speculation == "draft-mtp":
            return sequence_state(self._second_context(model, quantization, settings).log, swa_full=settings.swa_full)
        if settings.speculation == "draft-simple":
            return sequence_state(self._drafter_answers(settings)[1].log, swa_full=settings.swa_full)
        return None

    def _drafter_answers(self, settings: Settings) -> tuple[Settings, Buffers]:
        if self._drafter is None:
            raise UsageError("these settings draft with a second model, and none is named", hint="add --draft MODEL")
        own = draft_model(settings)
        key = self._sources.shape_key(*self._drafter)
        source = self._sources.layout_source(*self._drafter)
        return own, _accepted(self._oracle.buffers(key, source, [own], self._drafter.quantization)[0])

    def _drafter_bytes(self, settings: Settings) -> dict[str, int]:
        own, full = self._drafter_answers(settings)
        if self._drafter is None:
            return {}
        key, source = self._sources.shape_key(*self._drafter), self._sources.layout_source(*self._drafter)
        weights = self._oracle.weights(key, source, self._drafter.quantization, own)
        if not self._oracle.has_gpu:
            row = host_memory(own, weights, full, full, process_bytes=0, available_bytes=None)
            return {HOST: row.total_bytes}
        rows = memory_on_devices(self._machine, own, weights, full, process_bytes=0, origin="phantom")
        # The driver's context is there once, with the model's own row.
        return {row.device: row.total_bytes - (row.process_bytes if row.device != HOST else 0) for row in rows}

    def _projector_bytes(self, projector: Projector, settings: Settings) -> dict[str, int]:
        files = hub.header_files(projector.artifact)
        header = read_header(
            self._oracle.child,
            [Path(each.path) for each in files],
            file_bytes=[each.file_bytes for each in files],
            name=projector.artifact.name,
        )
        asked = ProjectorSettings(
            use_gpu=settings.gpu_layers != 0,
            flash_attention=settings.flash_attention,
            image_max_tokens=projector.image_max_tokens,
            threads=settings.threads,
        )
        (answer,) = ask_projector(
            self._oracle.child, projector_layout(header), [asked], devices=self._oracle.phantom_devices
        )
        if answer.refused is not None:
            raise EngineError(f"{projector.artifact.name}: {answer.refused}")
        return {row.device: row.total_bytes for row in projector_memory(answer)}


def _accepted(answer: Buffers) -> Buffers:
    if answer.refused is not None:
        raise EngineError(answer.refused)
    return answer


def _context_bytes(second: Buffers) -> Counter[str]:
    """What a second context on the same weights takes, device by device."""
    total: Counter[str] = Counter()
    for buffer in second.buffers:
        total[device_of(buffer.name)] += buffer.context_bytes + buffer.compute_bytes
    structures = engine_structures_bytes(second, tokenizer=False) - engine_structures_bytes(None)
    total[HOST] += second.output_bytes + (second.work_bytes or 0) + structures
    return total
