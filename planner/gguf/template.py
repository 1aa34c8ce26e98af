"""The chat template of a whole file on this disk, as a hash: enough to tell two templates apart, never rendered."""

import hashlib
from pathlib import Path

from planner.gguf.walk import walk_stream

__all__ = ["chat_template_sha256"]

_KEY = "tokenizer.chat_template"


def chat_template_sha256(path: Path) -> str | None:
    """The SHA-256 of the template in the header of ``path``; ``None`` where it holds none.

    Raises BadInputError (code ``bad-gguf``) for a header that is wrong, OSError for a file that cannot be read.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        spot = walk_stream(stream, size, file_bytes=size).keys.get(_KEY)
        if spot is None or spot.type != "str":
            return None
        stream.seek(spot.offset)
        return hashlib.sha256(stream.read(spot.length)).hexdigest()
