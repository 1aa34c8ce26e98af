"""The files that receipts speak of, and which of them are a hub's cache's: link, blob and all, but nobody else's.

The mistake it prevents is removing a link and leaving fifty gigabytes behind it, or removing a blob that another commit
still points to.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from planner.files import data_dir
from planner.hub.caches import huggingface, modelscope
from planner.hub.storing import held_now
from planner.types.receipt import Receipt

__all__ = ["Weights", "receipts_here", "weights_of"]

_LONGEST_BYTES = 4 << 20


class Weights(NamedTuple):
    """A receipt, where it is kept, and whether all that it speaks of is gone."""

    path: Path
    receipt: Receipt
    gone: bool


def receipts_here() -> Iterator[Weights]:
    """Every receipt that can be read."""
    for path in sorted((data_dir() / "receipts").glob("*.json")):
        try:
            if path.stat().st_size > _LONGEST_BYTES:
                continue
            receipt = msgspec.json.decode(path.read_bytes(), type=Receipt)
        except (OSError, msgspec.MsgspecError):
            continue
        yield Weights(path, receipt, not any(Path(file.local_path).exists() for file in receipt.files))


def weights_of(found: Weights) -> tuple[list[Path], list[Path]]:
    """The files of a receipt that lie in a hub's cache (links before what they lead to), and those that do not."""
    roots = [root.resolve() for root in (*huggingface.roots(), *modelscope.roots())]
    mine: list[Path] = []
    others: list[Path] = []
    for file in found.receipt.files:
        path = Path(file.local_path)
        if not path.exists():
            continue
        if not any(path.parent.resolve().is_relative_to(root) for root in roots):
            others.append(path)
            continue
        mine.append(path)
        blob = path.resolve()
        inside = any(blob.is_relative_to(root) for root in roots)
        if path.is_symlink() and inside and not _linked_from_elsewhere(blob, path):
            mine += [blob, *_lock_of(blob)]
    return mine, others


def _lock_of(blob: Path) -> list[Path]:
    """The lock that was taken while the blob arrived, where it is there and free."""
    repo = blob.parent.parent
    lock = repo.parent / ".locks" / repo.name / f"{blob.name}.lock"
    with held_now(lock) as free:
        return [lock] if free and lock.is_file() else []


def _linked_from_elsewhere(blob: Path, link: Path) -> bool:
    """Whether another snapshot of the repository leads to the same blob."""
    snapshots = blob.parent.parent / "snapshots"
    return any(
        other.is_symlink() and other.resolve() == blob and other.absolute() != link.absolute()
        for other in snapshots.rglob(link.name)
    )
