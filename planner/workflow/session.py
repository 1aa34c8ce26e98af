"""One run's view of the world: the machine that is planned for, the catalogue, and the engine that answers.

The mistake it prevents: mixing this machine with the one that is planned for. ``local`` says whether they are the
same; only then may anything be measured, and only then do the engine's own devices count.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from planner import catalogue, machine
from planner.catalogue.quality import Quality, load_quality
from planner.engine.child import EngineChild
from planner.engine.devices import phantom_devices
from planner.engine.oracle import Oracle
from planner.measure.store import MeasurementStore
from planner.measure.threads import KnownThreads
from planner.types.machine import Engine, Machine
from planner.workflow.sources import Sources

__all__ = [
    "Session",
    "described_engine",
    "models_folder",
    "open_session",
    "remembered",
    "the_machine",
    "threads_here",
]


class Session(NamedTuple):
    """What every step of a run needs."""

    machine: Machine
    local: bool
    sources: Sources
    quality: Quality
    oracle: Oracle
    engine_python: str | None


@contextmanager
def open_session(known: catalogue.Catalogue, machine_name: str | None, engine_python: str | None) -> Iterator[Session]:
    """Detect or load the machine, start the engine's child, and keep what the engine said at the end.

    Raises :class:`EngineMissingError` when there is no engine, and the errors of :func:`planner.machine.load`.
    """
    found, local = the_machine(machine_name)
    devices = None if local else phantom_devices(found.gpus)
    with EngineChild(engine_python) as child, Oracle(child, devices=devices) as oracle:
        # First of all questions: it weighs the idle process, and a large header that was read would count for ever.
        oracle.system()
        if local:
            found = machine.match_engine(found, described_engine(oracle))
        yield Session(found, local, Sources(known), load_quality(), oracle, engine_python)


def the_machine(name: str | None) -> tuple[Machine, bool]:
    """The machine to plan for, and whether it is this one."""
    if name is not None:
        return machine.load(name), False
    return machine.detect(models_dir=models_folder()), True


def remembered(session: Session) -> MeasurementStore:
    """The measurements of this machine with this engine build."""
    return MeasurementStore(machine.machine_key(session.machine), session.oracle.system().build)


def threads_here(session: Session, *, asked_threads: int | None = None) -> KnownThreads:
    """What is known of the threads of this session's machine; of one that is not this one, nothing was tried."""
    store = remembered(session) if session.local else None
    return KnownThreads(session.machine.cpu.usable_threads, store, asked_threads=asked_threads)


def described_engine(oracle: Oracle) -> Engine:
    """The engine as the machine record carries it."""
    told = oracle.system()
    return Engine(
        package_version=told.package_version,
        build=told.build,
        llama_cpp=told.llama_cpp,
        system_info=told.system_info,
        gpu_offload=told.gpu_offload,
        devices=told.devices,
    )


def models_folder() -> Path:
    """Where models would go: the Hugging Face cache, as its own tools find it."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HF_HOME", "hub")):
        value = os.environ.get(variable)
        if value:
            return Path(value) / below
    return Path("~/.cache/huggingface/hub").expanduser()
