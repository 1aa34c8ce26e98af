"""The machine of the plan beside the machine that is here: what changed, and whether the plan depends on it.

The mistake it prevents is an alarm for a new kernel and none for half the memory. A change is a broken promise only
where the plan needs what is gone; everything else is told and counts as met.
"""

from collections.abc import Iterator

from planner.types.machine import Gpu, Machine
from planner.types.plan import Candidate, Plan
from planner.types.verification import Check, CheckStatus
from planner.units import gib

__all__ = ["machine_checks"]


def machine_checks(plan: Plan, now: Machine, *, held_bytes: int = 0) -> tuple[Check, ...]:
    """One check for each property of the machine that a plan rests on.

    ``held_bytes`` is what the server holds already, so that its own memory is not missed.
    """
    chosen = plan.chosen
    if chosen is None:
        return ()
    return (
        *_cpu(plan.machine, now, chosen),
        *_memory(plan.machine, now, chosen, held_bytes),
        *_gpus(plan.machine, now, chosen),
        *_engine(plan, now),
        _plain("kernel", plan.machine.kernel, now.kernel),
    )


def _check(name: str, status: CheckStatus, planned: object, found: object, text: str = "") -> Check:
    def words(value: object) -> str | None:
        return None if value is None else str(value)

    return Check(area="machine", name=name, status=status, planned=words(planned), found=words(found), text=text)


def _plain(name: str, planned: str | None, found: str | None) -> Check:
    """Something that no number of the plan was made from."""
    if planned is None or found is None:
        return _check(name, "unknown", planned, found, "the system does not tell, or did not")
    return _check(name, "met" if planned == found else "differs", planned, found)


def _cpu(then: Machine, now: Machine, chosen: Candidate) -> Iterator[Check]:
    same = then.cpu.model == now.cpu.model
    if then.cpu.model is None or now.cpu.model is None:
        yield _check("cpu", "unknown", then.cpu.model, now.cpu.model, "the system does not name its processor")
    else:
        text = "" if same else "the plan's speeds are of another processor; plan again here"
        yield _check("cpu", "met" if same else "missed", then.cpu.model, now.cpu.model, text)
    lost = sorted(set(then.cpu.isa) - set(now.cpu.isa))
    gained = sorted(set(now.cpu.isa) - set(then.cpu.isa))
    yield _check(
        "instruction-sets",
        "missed" if lost else "differs" if gained else "met",
        ", ".join(then.cpu.isa) or None,
        ", ".join(now.cpu.isa) or None,
        f"{', '.join(lost)} went, with the kernels that use it" if lost else "",
    )
    needed = max(chosen.settings.threads, chosen.settings.threads_batch)
    enough = now.cpu.usable_threads >= needed
    yield _check(
        "threads",
        "met" if enough else "missed",
        needed,
        now.cpu.usable_threads,
        "" if enough else "affinity or quota leave fewer cores than the plan computes with",
    )


def _memory(then: Machine, now: Machine, chosen: Candidate, held_bytes: int) -> Iterator[Check]:
    same = abs(then.memory.total_bytes - now.memory.total_bytes) < 0.02 * then.memory.total_bytes
    yield _check(
        "ram", "met" if same else "differs", gib(then.memory.total_bytes), gib(now.memory.total_bytes)
    )  # fmt: skip
    limits = [min((limit.limit_bytes for limit in each.memory.limits), default=None) for each in (then, now)]
    before, after = ("none" if limit is None else gib(limit) for limit in limits)
    yield _check("memory-limit", "met" if before == after else "differs", before, after)
    rows = [row for row in chosen.memory if row.device == "CPU" or row.device.startswith("Host")]
    # Unified memory: the GPU's row is the host's.
    needed = sum(row.total_bytes for row in rows or chosen.memory)
    # Pages of a mapped file count as free and as held by the server that maps them.
    there = min(now.memory.usable_bytes + held_bytes, now.memory.total_bytes)
    enough = needed <= there
    yield _check(
        "usable-memory",
        "met" if enough else "missed",
        gib(needed),
        gib(there),
        "" if enough else "less is free than the plan takes; end other programs, or plan again",
    )


def _gpus(then: Machine, now: Machine, chosen: Candidate) -> Iterator[Check]:
    used = [row for row in chosen.memory if row.device != "CPU" and not row.device.startswith("Host")]
    if not used:
        if then.gpus or now.gpus:
            before, after = _names(then.gpus), _names(now.gpus)
            yield _check("gpus", "met" if before == after else "differs", before, after, "the plan uses none")
        return
    for index, planned in enumerate(then.gpus):
        here = next((each for each in now.gpus if each.index == planned.index), None)
        name = f"gpu-{index}"
        if here is None or here.name != planned.name:
            yield _check(name, "missed", planned.name, here.name if here else None, "the plan computes on it")
            continue
        yield _check(name, "met", planned.name, here.name)
        yield _gpu_memory(name, planned, here)
        yield _plain(f"{name}-driver", planned.driver, here.driver)


def _gpu_memory(name: str, planned: Gpu, here: Gpu) -> Check:
    if planned.memory_total_bytes is None or here.memory_total_bytes is None:
        return _check(f"{name}-memory", "unknown", None, None, "the driver does not tell")
    enough = here.memory_total_bytes >= 0.98 * planned.memory_total_bytes
    words = gib(planned.memory_total_bytes), gib(here.memory_total_bytes)
    return _check(f"{name}-memory", "met" if enough else "missed", *words)


def _names(gpus: tuple[Gpu, ...]) -> str:
    return ", ".join(gpu.name or "unnamed" for gpu in gpus) or "none"


def _engine(plan: Plan, now: Machine) -> Iterator[Check]:
    if now.engine is None:
        yield _check("engine", "unknown", plan.engine_build, None, "llama-cpp-python is not installed here")
        return
    same = plan.engine_build == now.engine.build
    text = "" if same else "the plan's bytes are another build's; planner drift tells which of them moved"
    yield _check("engine", "met" if same else "differs", plan.engine_build, now.engine.build, text)
