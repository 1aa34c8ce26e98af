"""Receipts: kept where data is kept, found by what a plan says about its weights, believed only while the files are so.

The mistake it prevents is a false "ready". A receipt is written after the last byte was hashed and never before; a file
that was moved, cut or written to since makes it count as not there.
"""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec

from planner.files import data_dir
from planner.types.plan import Candidate, Plan
from planner.types.receipt import Receipt, ReceiptFile

__all__ = ["find_receipt", "hash_file", "known_hash", "read_receipt", "receipt_key", "receipt_path", "verify_files"]

_LONGEST_BYTES = 4 << 20
_CHUNK_BYTES = 4 << 20


def receipt_key(plan: Plan) -> str:
    """The hash of what the plan says about its weights: model, quantization, and the files where it names some.

    Two plans for other machines or settings share it when they want the same weights. Empty for a plan without a
    choice.
    """
    return _key(plan.chosen) if plan.chosen is not None else ""


def receipt_path(key: str) -> Path:
    """Where the receipt of that key is kept."""
    return data_dir() / "receipts" / f"{key}.json"


def find_receipt(plan: Plan) -> Receipt | None:
    """The receipt of the plan's weights, when every file of it is where it was and as it was; else ``None``.

    Size, time of change and inode are compared, nothing is hashed: that is :func:`verify_files` with ``hash``.
    """
    receipt = read_receipt(plan)
    return receipt if receipt is not None and not verify_files(receipt, hash=False) else None


def read_receipt(plan: Plan) -> Receipt | None:
    """What was written down for the plan's weights, whether or not the files are still there; ``None``: nothing."""
    key = receipt_key(plan)
    path = receipt_path(key)
    try:
        if not key or path.stat().st_size > _LONGEST_BYTES:
            return None
        receipt = msgspec.json.decode(path.read_bytes(), type=Receipt)
    except (OSError, msgspec.MsgspecError):
        return None
    whole = receipt.schema == "planner/receipt/1" and receipt.plan_key == key and receipt.weights
    return receipt if whole else None


def verify_files(
    receipt: Receipt,
    *,
    hash: bool,  # noqa: A002 - the word that callers read
    on_bytes: Callable[[int], None] | None = None,
) -> tuple[str, ...]:
    """What is wrong with the files of a receipt, a sentence for each; empty when they are as they were.

    With ``hash`` every byte is read again (``on_bytes`` hears how many); without, a file that was changed since counts
    as a problem, because what was verified is not what lies there.
    """
    problems = (_problem(file, hash, on_bytes) for file in receipt.files)
    return tuple(problem for problem in problems if problem is not None)


def known_hash(receipt: Receipt | None, path: Path) -> str | None:
    """The hash that a receipt holds for a file which is still the very one that was read; ``None``: read it again."""
    for file in receipt.files if receipt is not None else ():
        if file.local_path == str(path) and _problem(file, False, None) is None:
            return file.sha256
    return None


def hash_file(path: Path, on_bytes: Callable[[int], None] | None = None) -> str:
    """The SHA-256 of a whole file, read once; raises OSError."""
    digest = hashlib.sha256()
    buffer = bytearray(_CHUNK_BYTES)
    with path.open("rb", buffering=0) as stream:
        while taken := stream.readinto(buffer):
            digest.update(memoryview(buffer)[:taken])
            if on_bytes is not None:
                on_bytes(taken)
    return digest.hexdigest()


def _key(chosen: Candidate) -> str:
    artifact = chosen.artifact
    files = [[part.path, part.size_bytes, part.sha256] for part in artifact.parts] if artifact is not None else []
    origin = [artifact.hub, artifact.repo] if artifact is not None else []
    said = msgspec.json.encode([chosen.model, chosen.quantization, chosen.file_bytes, origin, files])
    return hashlib.sha256(said).hexdigest()


def _problem(file: ReceiptFile, hashed: bool, on_bytes: Callable[[int], None] | None) -> str | None:
    path = Path(file.local_path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return f"{path} is no file any more"
        if found.st_size != file.size_bytes:
            return f"{path} has {found.st_size} bytes, {file.size_bytes} were verified"
        if hashed:
            return None if hash_file(path, on_bytes) == file.sha256 else f"{path} holds other bytes than were verified"
        if not os.access(path, os.R_OK):
            return f"{path} may not be read"
    except OSError as error:
        return f"{path}: {error.strerror or error}"
    same = (found.st_mtime_ns, found.st_ino) == (file.modified_ns, file.inode)
    return None if same else f"{path} was changed after it was verified"
