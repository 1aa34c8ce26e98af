"""What a fetch leaves behind: which files lie where, and the hash that was computed over every byte of them.

The mistake it prevents is a file that counts as the model because it has its name: a plan is ready to start only when
a receipt says that each file was read to its end and had the hash that was expected.
"""

from planner.types import Report
from planner.types.artifact import ArtifactKind, HubKind

__all__ = ["CleanReport", "Fetched", "Leftover", "Receipt", "ReceiptFile"]


class ReceiptFile(Report, frozen=True, kw_only=True):
    """One file that was verified: its path in the repository, and where it lies on this disk.

    ``sha256`` was computed here; ``compared`` says whether the hub names the same one (False: it names none).
    ``modified_ns`` and ``inode`` tell whether the file is still the one that was read.
    """

    kind: ArtifactKind = "model"
    path: str
    size_bytes: int
    sha256: str
    compared: bool = True
    local_path: str
    modified_ns: int
    inode: int


class Receipt(Report, frozen=True, kw_only=True):
    """That the files of one plan are here: from which repository at which commit, each with its hash.

    ``plan_key`` is the hash of what the plan says about its weights; ``chat_template_sha256`` that of the template in
    the first file, ``None`` where it holds none. ``fetched_at`` is UTC.
    """

    schema: str = "planner/receipt/1"
    plan_key: str
    model: str
    quantization: str
    hub: HubKind
    repo: str | None
    commit: str | None
    files: tuple[ReceiptFile, ...]
    chat_template_sha256: str | None
    fetched_at: str
    created_by: str

    @property
    def weights(self) -> tuple[str, ...]:
        """Where the parts of the model lie, in order; the first is the one to load."""
        return tuple(file.local_path for file in self.files if file.kind == "model")

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)


class Fetched(Report, frozen=True, kw_only=True):
    """What ``planner fetch`` did: the receipt, and how many bytes came over the network for it this time.

    ``resumed_bytes`` were here already as the front of a file that an earlier run could not finish.
    """

    schema: str = "planner/fetched/1"
    receipt: Receipt
    receipt_path: str
    received_bytes: int
    resumed_bytes: int
    notes: tuple[str, ...] = ()


class Leftover(Report, frozen=True, kw_only=True):
    """Something that ``planner clean`` removes: what it is, where, how many bytes it takes on the disk."""

    what: str
    path: str
    size_bytes: int
    files: int = 1


class CleanReport(Report, frozen=True, kw_only=True):
    """What ``planner clean`` found; ``removed`` says whether it is gone, ``kept`` what could not be removed and why."""

    schema: str = "planner/clean/1"
    removed: bool
    leftovers: tuple[Leftover, ...]
    size_bytes: int
    kept: tuple[str, ...] = ()
