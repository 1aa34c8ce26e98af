"""The headers of a file set as files here, part by part: from a local copy, else the cache, else the network."""

from pathlib import Path

from planner.errors import MissingInputError
from planner.hub import huggingface, modelscope, web
from planner.hub.access import Access
from planner.hub.cache import known_header, remember_header
from planner.hub.faults import Place
from planner.hub.faults import offline as offline_error
from planner.hub.header_bytes import read_header
from planner.hub.patience import PATIENCE, Patience, within
from planner.types.artifact import Artifact, HeaderFile, Part

__all__ = ["header_files"]


def header_files(artifact: Artifact, *, offline: bool = False, patience: Patience = PATIENCE) -> tuple[HeaderFile, ...]:
    """The header of each part, in order; only what is neither on this disk nor in the cache is read over the network.

    Raises PlannerError: an incomplete set (66, naming what is missing), a header that is wrong (65), and what
    :func:`planner.hub.header_bytes.read_header` raises.
    """
    if not artifact.complete:
        lacks = ", ".join(artifact.missing[:3]) + (" …" if len(artifact.missing) > 3 else "")
        raise MissingInputError(
            f"{artifact.name} is incomplete: {lacks or 'every part'} is missing",
            hint="fetch the missing parts, or name another file",
            code="incomplete-set",
        )
    return tuple(
        _local(part) or known_header(artifact, part) or _read(artifact, part, number == 0, offline, patience)
        for number, part in enumerate(artifact.parts)
    )


def _local(part: Part) -> HeaderFile | None:
    if part.local_path is None:
        return None
    try:
        size = Path(part.local_path).stat().st_size
    except OSError:
        return None  # it was moved since the listing; a part without an address ends in an error below
    return HeaderFile(path=part.local_path, file_bytes=size, part=part)


def _read(artifact: Artifact, part: Part, first: bool, offline: bool, patience: Patience) -> HeaderFile:
    if part.url is None:
        raise MissingInputError(f"{part.local_path or part.path}: there is no such file", hint="check the path")
    if offline or huggingface.switched_off():
        raise offline_error(f"the header of {part.path}")
    who, place = _who(artifact, part, part.url, patience)
    header = read_header(part, who, place, commit=artifact.commit, first=first, patience=patience)
    return remember_header(artifact, part, header)


def _who(artifact: Artifact, part: Part, url: str, patience: Patience) -> tuple[Access, Place]:
    if artifact.hub == "hf" and artifact.repo:
        # The library may have to renew the login first, over the network.
        who = within(patience, f"hf:{artifact.repo}", lambda _: huggingface.access())
        return who, huggingface.place_of(artifact.repo, who, file=part.path)
    if artifact.hub == "ms" and artifact.repo:
        who = modelscope.access()
        return who, modelscope.place_of(artifact.repo, who, file=part.path)
    return web.access(url), web.place_of(url)
