"""Adds up what a projector (mmproj) holds on each device, from the engine's answers about it.

The mistake it prevents: a plan that fits until somebody sends a photo. The largest picture's graph counts, not that of
the warm-up, and while a picture is encoded the host holds it several times, wherever the encoder runs.
"""

from planner.engine.devices import HOST, device_of
from planner.engine.projector import ProjectorAnswer, ProjectorPart
from planner.types import Report

__all__ = ["ProjectorMemory", "projector_memory"]

_CHANNELS, _FLOAT_BYTES = 3, 4
# A picture's numbers stand in what made them, in its chunk and in the batch's copy of the chunk (tools/mtmd/mtmd.cpp,
# mtmd_batch_encode_impl), and each slot keeps its last task's chunks (server-context.cpp, task_prev); the graph's
# inputs, pixels and masks, are vectors first (clip.cpp, clip_encode). All at commit 0c1e57098. A real server's peak
# had one copy more in one run of two: the next picture is prepared while the last is still held.
_COPIES_AS_NUMBERS = 3
# Metadata of a graph of up to 8192 nodes, its scheduler and libmtmd's own pages, for each encoder. With this at zero a
# real llama-server held 8 MiB more than foretold, whether that was 323 or 2934 MiB (bench/server_memory.py).
_ENCODER_STRUCTURES_BYTES = 10 << 20


class ProjectorMemory(Report, frozen=True, kw_only=True):
    """A projector's bytes on one device; ``total_bytes`` = weights + compute + work + pictures + process.

    ``compute_bytes`` is for the largest picture, ``warmup_bytes`` what the engine has reserved after its start, before
    any picture. ``work_bytes`` is taken by the CPU's kernels. ``pictures_bytes`` is what the host holds of a picture
    while it is encoded, ``process_bytes`` what encoders take beside every buffer. ``bounded`` is false where the engine
    does not bound the picture (or the recording): ``compute_bytes`` is then the warm-up's, and larger input takes more.
    """

    device: str
    weights_bytes: int = 0
    compute_bytes: int = 0
    warmup_bytes: int = 0
    work_bytes: int = 0
    pictures_bytes: int = 0
    process_bytes: int = 0
    bounded: bool = True

    @property
    def total_bytes(self) -> int:
        """What the device must have beside everything else."""
        return self.weights_bytes + self.compute_bytes + self.work_bytes + self.pictures_bytes + self.process_bytes


def projector_memory(answer: ProjectorAnswer, *, slots: int = 1) -> tuple[ProjectorMemory, ...]:
    """What a projector holds, device by device, the host last; nothing for an answer that was refused.

    One picture is encoded at a time, whatever ``slots`` there are, but each keeps the pixels of its last one.

    The engine puts a projector on one device: that of ``--mmproj-device`` (or ``MTMD_BACKEND_DEVICE``), else the first
    of ``--device``, else the first GPU. Not counted are the picture as it was sent and decoded when it is larger than
    the model takes (3 bytes a pixel), and a recording of any length.
    """
    rows: dict[str, dict[str, int]] = {}
    unbounded: set[str] = set()
    for part in answer.parts:
        _add_part(rows, part, slots)
        if part.largest is None:
            unbounded.update(map(device_of, (*part.weights, *part.warmup)))
    ordered = sorted(rows, key=lambda device: (device == HOST, device))
    return tuple(ProjectorMemory(device=device, **rows[device], bounded=device not in unbounded) for device in ordered)


def _add_part(rows: dict[str, dict[str, int]], part: ProjectorPart, slots: int) -> None:
    largest = part.warmup if part.largest is None else part.largest
    for field, sizes in (("weights_bytes", part.weights), ("compute_bytes", largest), ("warmup_bytes", part.warmup)):
        for name, size in sizes.items():
            _add(rows, device_of(name), field, size)
    _add(rows, HOST, "work_bytes", part.work_bytes or 0)
    _add(rows, HOST, "pictures_bytes", _pictures_bytes(part, slots))
    _add(rows, HOST, "process_bytes", _ENCODER_STRUCTURES_BYTES)


def _pictures_bytes(part: ProjectorPart, slots: int) -> int:
    """What the host holds of the largest picture, and of the tokens that it becomes (the output and a copy of it).

    The graph's inputs count once more than in compute memory. They are small but for attention in windows, which has a
    mask of patches by patches: 1 GiB for Qwen2.5-VL's largest picture.
    """
    values = part.width * part.height * part.count * _CHANNELS if part.kind == "vision" else 0
    inputs = values * _FLOAT_BYTES if part.inputs_bytes is None else part.inputs_bytes
    return values * (1 + (_COPIES_AS_NUMBERS + slots) * _FLOAT_BYTES) + inputs + 2 * part.embedding_bytes


def _add(rows: dict[str, dict[str, int]], device: str, field: str, size: int) -> None:
    row = rows.setdefault(device, {})
    row[field] = row.get(field, 0) + size
