"""The one place where a device's parts become its total, so that no row can forget a part or count one twice."""

from typing import Literal

from planner.types.plan import DeviceMemory

__all__ = ["device_row"]


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
    untouched: int | None = None,
    available_bytes: int | None,
    origin: Literal["engine", "model"],
) -> DeviceMemory:
    """A row of bytes per part; ``untouched`` is what of it is reserved and never resident (``None``: not known)."""
    weights = mapped + private + repacked
    overhead = output + work + process
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
        total_bytes=total,
        resident_bytes=None if untouched is None else total - untouched,
        available_bytes=available_bytes,
        origin=origin,
    )
