"""The one place where a device's parts become its total, so that no row can forget a part or count one twice."""

from collections.abc import Mapping, Sequence

import msgspec

from planner.engine.devices import HOST
from planner.types.plan import DeviceMemory, MemoryOrigin

__all__ = ["device_row", "with_extras"]


def device_row(
    device: str,
    *,
    mapped: int = 0,
    private: int = 0,
    repacked: int = 0,
    cache: int = 0,
    compute: int = 0,
    output: int = 0,
    work: int = 0,
    process: int = 0,
    companion: int = 0,
    server: int = 0,
    margin: int = 0,
    untouched: int | None = None,
    available_bytes: int | None,
    origin: MemoryOrigin,
) -> DeviceMemory:
    """A row of bytes per part; ``untouched`` is what of it is reserved and never resident (``None``: not known)."""
    weights = mapped + private + repacked
    overhead = output + work + process + companion + server + margin
    total = weights + cache + compute + overhead
    return DeviceMemory(
        device=device,
        weights_bytes=weights,
        weights_mapped_bytes=mapped,
        weights_private_bytes=private,
        weights_repacked_bytes=repacked,
        cache_bytes=cache,
        compute_bytes=compute,
        overhead_bytes=overhead,
        output_bytes=output,
        work_bytes=work,
        process_bytes=process,
        companion_bytes=companion,
        server_bytes=server,
        margin_bytes=margin,
        total_bytes=total,
        resident_bytes=None if untouched is None else total - untouched,
        available_bytes=available_bytes,
        origin=origin,
    )


def with_extras(
    rows: Sequence[DeviceMemory], *, companions: Mapping[str, int], server_bytes: int = 0
) -> tuple[DeviceMemory, ...]:
    """The rows with what runs beside the model added, in bytes by device, and what a server keeps in host memory.

    Where the devices share one memory there is one row, and it takes everything.
    """
    names = {row.device for row in rows}
    host = HOST if HOST in names else rows[-1].device
    added = dict.fromkeys(names, 0)
    for device, size in companions.items():
        added[device if device in names else host] += size
    return tuple(_grown(row, added[row.device], server_bytes if row.device == host else 0) for row in rows)


def _grown(row: DeviceMemory, companion: int, server: int) -> DeviceMemory:
    more = companion + server
    return msgspec.structs.replace(
        row,
        companion_bytes=row.companion_bytes + companion,
        server_bytes=row.server_bytes + server,
        overhead_bytes=row.overhead_bytes + more,
        total_bytes=row.total_bytes + more,
        # Companions are loaded with the model; what a server keeps comes with use.
        resident_bytes=None if row.resident_bytes is None else row.resident_bytes + companion,
    )
