"""What a MODEL argument names when it is not a name of the catalogue: a repository, an address or a path.

The mistake it prevents is guessing: a plain name is never taken for a folder that happens to be called the same, a
path that climbs out of a repository is refused, and an address that carries a secret never enters a plan or a cache.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from planner.errors import UsageError
from planner.types.artifact import Reference

__all__ = ["is_loopback", "parse_reference"]

_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_REVISION = r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,127}"
_QUANTIZATION = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,47}"
_REPOSITORY = re.compile(
    rf"(?P<repo>{_NAME}/{_NAME})(?P<file>/[^@:]+)?"
    rf"(?:@(?P<before>{_REVISION}))?(?::(?P<quantization>{_QUANTIZATION}))?(?:@(?P<after>{_REVISION}))?"
)
_SCHEME = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]*:")
_FORM = "{kind}:owner/repo, {kind}:owner/repo:Q4_K_M or {kind}:owner/repo@revision"
_HUGGING_FACE = {"huggingface.co", "www.huggingface.co", "hf.co"}
_MODELSCOPE = {"modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai"}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
_FILE_WORDS = {"resolve", "blob", "raw", "file"}


def parse_reference(text: str) -> Reference | None:
    """What a MODEL argument names outside the catalogue; None for a plain name, which only the catalogue may know.

    Raises :class:`UsageError` for a reference that is malformed: wrong characters, a path that climbs, an address that
    is not encrypted or that carries a secret.
    """
    lower = text.lower()
    if any(ord(character) < 32 or ord(character) == 127 for character in text):
        raise UsageError("a model reference holds control characters", hint="write it by hand")
    for start, kind in (("hf://", "hf"), ("hf:", "hf"), ("hf.co/", "hf"), ("ms://", "ms"), ("ms:", "ms")):
        if lower.startswith(start):
            return _in_repository(kind, text[len(start) :], text)
    return _address(text) if "://" in text else _path(text, lower)


def _path(text: str, lower: str) -> Reference | None:
    if text.startswith(("./", "../", "/", "~")) or lower.endswith(".gguf") or text in {".", ".."}:
        return Reference(kind="local", text=text, path=str(_expanded(text)))
    if _SCHEME.match(text):
        return None  # "name:tag" is the catalogue's to know or to refuse
    if "/" in text and os.path.exists(text):  # noqa: PTH110 - unlike Path.exists it never raises
        return Reference(kind="local", text=text, path=text)
    return None


def is_loopback(host: str | None) -> bool:
    """Whether a host is this machine itself: the only one that may be spoken to without encryption unasked."""
    return (host or "").lower() in _LOOPBACK


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{text}: there is no such user's home folder", hint="write the whole path") from error


def _in_repository(kind: str, rest: str, text: str) -> Reference:
    form = _FORM.format(kind=kind)
    match = _REPOSITORY.fullmatch(rest)
    if match is None or (match["before"] and match["after"]):
        raise UsageError(f"{_shown(text)} is not a repository reference", hint=f"write {form}")
    revision = match["before"] or match["after"]
    file = match["file"][1:] if match["file"] else None
    for name, value in (("repository", match["repo"]), ("revision", revision), ("file", file)):
        _refuse_climbing(name, value, text)
    if file is not None and not file.lower().endswith(".gguf"):
        raise UsageError(f"{_shown(text)}: {file} is not a GGUF file", hint=f"write {form}, or name a .gguf file in it")
    return Reference(
        kind="hf" if kind == "hf" else "ms",
        text=text,
        repo=match["repo"],
        file=file,
        revision=revision,
        quantization=match["quantization"],
    )


def _refuse_climbing(name: str, value: str | None, text: str) -> None:
    segments = (value or "x").split("/")
    if any(segment in {"", ".", ".."} for segment in segments) or ".." in (value or "" if name != "file" else ""):
        raise UsageError(
            f"{_shown(text)}: the {name} has an empty or climbing part", hint="name it as the hub shows it"
        )


def _address(text: str) -> Reference:
    try:
        address = urlsplit(text)
        host, _ = address.hostname, address.port
    except ValueError as error:
        raise UsageError("the address of a model cannot be understood", hint="write https://host/file.gguf") from error
    if not host or address.scheme.lower() not in {"http", "https"}:
        raise UsageError(f"{address.scheme}:// is no address to read a model from", hint="write https://host/file.gguf")
    if address.username or address.password:
        # Neither part is repeated: the message would carry the secret.
        raise UsageError(
            f"the address on {host} holds a user name or password", hint="leave it out; use hf: with a token"
        )
    if address.scheme.lower() == "http" and not is_loopback(host):
        raise UsageError(f"http://{host} is not encrypted, so what it sends proves nothing", hint="write https://")
    known = _known_page(host, address.path, text)
    if known is not None:
        return known
    if address.query and not re.fullmatch(r"download=(?:true|1)", address.query):
        raise UsageError(
            f"the address on {host} has a query, which may hold a secret and would be kept in plans and caches",
            hint="name the plain address, use hf: or ms:, or download the file and name its path",
        )
    if not unquote(address.path).lower().endswith(".gguf"):
        raise UsageError(
            f"https://{host}{address.path} does not name a .gguf file", hint="name one file, or use hf: or ms:"
        )
    _refuse_climbing("file", unquote(address.path).lstrip("/"), f"{host}{address.path}")
    plain = address._replace(query="", fragment="").geturl()
    return Reference(kind="url", text=plain, url=plain, file=unquote(address.path).rsplit("/", 1)[-1])


def _known_page(host: str, path: str, text: str) -> Reference | None:
    """A page of a hub, as copied from a browser, is the repository itself: listed, authenticated and pinned."""
    segments = [unquote(segment) for segment in path.split("/") if segment]
    if host in _MODELSCOPE and segments[:1] == ["models"]:
        kind, segments = "ms", segments[1:]
    elif host in _HUGGING_FACE:
        kind = "hf"
    else:
        return None
    if len(segments) < 2 or (kind == "hf" and segments[0] in {"datasets", "spaces", "api"}):
        raise UsageError(f"{_shown(text)} is not a model's page", hint=f"write {_FORM.format(kind=kind)}")
    rest = "/".join(segments[:2])
    if len(segments) > 4 and segments[2] in _FILE_WORDS and segments[-1].lower().endswith(".gguf"):
        skip = 5 if segments[2:4] == ["file", "view"] else 4
        rest += f"/{'/'.join(segments[skip:])}@{segments[skip - 1]}"
    elif len(segments) > 3 and segments[2] == "tree":
        rest += f"@{segments[3]}"
    return _in_repository(kind, rest, f"{kind}:{rest}")


def _shown(text: str) -> str:
    """What was written, without a query that may hold a secret."""
    return text.split("?", 1)[0]
