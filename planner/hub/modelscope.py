"""Repositories on ModelScope, or on what MODELSCOPE_ENDPOINT names, by its HTTP interface.

Its own package is not used: it brings a second HTTP stack, and it keeps the login as a pickle, which is code to run.
The token comes from MODELSCOPE_API_TOKEN alone, and is sent as that package sends it: as a bearer and as a cookie.
The answers' fields were read from modelscope 1.40.2 and modelscope_hub 0.5.1; each is checked before it is used.
"""

import os
import re
from typing import Any
from urllib.parse import quote, quote_plus

from planner.errors import UnavailableError
from planner.hub.access import Access, endpoint_from
from planner.hub.faults import Place, refusal
from planner.hub.names import artifacts_of, is_model_file
from planner.hub.patience import Patience
from planner.hub.transport import read_json
from planner.types.artifact import Part, Reference, Repository

__all__ = ["access", "list_repository", "page_of", "place_of"]

_SIGN_IN = "set MODELSCOPE_API_TOKEN"
_DEFAULT_ENDPOINT = "https://modelscope.cn"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_TRUNCATED_AT = 3000
"""Entries of one listing from which on the server may have left some out; the package of ModelScope says so."""


def access() -> Access:
    """The endpoint, and the token if there is one."""
    token = (os.environ.get("MODELSCOPE_API_TOKEN") or "").strip()
    headers = {"authorization": f"Bearer {token}", "cookie": f"m_session_id={token}"} if _sendable(token) else {}
    return Access(_endpoint(), headers)


def page_of(repo: str) -> str:
    """The page of a repository, where access is asked for."""
    return f"{_endpoint()}/models/{repo}"


def place_of(repo: str, who: Access, *, file: str | None = None) -> Place:
    """What messages call a repository, or a file in it."""
    name = f"ms:{repo}" if file is None else f"{file} of ms:{repo}"
    return Place(name=name, page=page_of(repo), sign_in=_SIGN_IN, signed_in=who.signed_in)


def list_repository(reference: Reference, patience: Patience) -> Repository:
    """All model files of a repository at one revision, with what its page says: two requests.

    Raises PlannerError: not there (66), gated or not permitted (77), rate limited (75), unreachable (69).
    """
    repo, revision = reference.repo or "", reference.revision or "master"
    who = access()
    place = place_of(repo, who)
    base = f"{who.endpoint}/api/v1/models/{quote(repo)}"
    facts = _data(read_json(f"{base}?Revision={quote_plus(revision)}", who, place, patience), place)
    tree_url = f"{base}/repo/files?Revision={quote_plus(revision)}&Recursive=True"
    tree = _data(read_json(tree_url, who, place, patience), place)
    files = [entry for entry in _list(tree, "Files") if isinstance(entry, dict)]
    commit = _text(_dict(tree, "LatestCommitter"), "Id")
    commit = commit.lower() if commit and _COMMIT.fullmatch(commit.lower()) else None
    parts = [part for entry in files if (part := _part(entry, base, revision)) is not None]
    note = f"ms:{repo} has {len(files)} files or more; the listing may lack some"
    return Repository(
        hub="ms",
        name=repo,
        page=page_of(repo),
        revision=reference.revision,
        commit=commit,
        gated=facts["ProtectedMode"] if isinstance(facts.get("ProtectedMode"), bool) else None,
        licence=_text(facts, "License"),
        tags=tuple(tag for tag in _list(facts, "Tags") if isinstance(tag, str) and tag.isprintable()),
        base_models=tuple(name for name in _list(facts, "BaseModel") if isinstance(name, str) and name.isprintable()),
        artifacts=artifacts_of(parts, hub="ms", repo=repo, commit=commit),
        notes=(note,) if len(files) >= _TRUNCATED_AT else (),
    )


def _endpoint() -> str:
    variable = "MODELSCOPE_ENDPOINT" if os.environ.get("MODELSCOPE_ENDPOINT") else "MODELSCOPE_DOMAIN"
    return endpoint_from(variable, _DEFAULT_ENDPOINT)


def _sendable(token: str) -> bool:
    """Whether a token can stand in a header and a cookie."""
    return bool(token) and token.isascii() and token.isprintable() and not set(token) & set(' ;,"\\')


def _data(answer: Any, place: Place) -> dict[str, Any]:  # noqa: ANN401 - JSON of a stranger
    """The payload of an answer; a refusal may come with status 200 and its code inside."""
    if not isinstance(answer, dict):
        raise UnavailableError(f"{place.name}: the answer is no listing", hint="check MODELSCOPE_ENDPOINT")
    code = answer.get("Code", 200)
    if answer.get("Success") is False or code != 200:
        raise refusal(code if isinstance(code, int) and 400 <= code < 500 else 404, {}, place)
    data = answer.get("Data")
    return data if isinstance(data, dict) else {}


def _part(entry: dict[str, Any], base: str, revision: str) -> Part | None:
    path = _text(entry, "Path")
    if path is None or entry.get("Type") == "tree" or not is_model_file(path):
        return None
    size, sha256 = entry.get("Size"), (_text(entry, "Sha256") or "").lower()
    return Part(
        path=path,
        url=f"{base}/repo?Revision={quote_plus(revision)}&FilePath={quote_plus(path)}",
        size_bytes=size if isinstance(size, int) and size >= 0 else None,
        sha256=sha256 if _SHA256.fullmatch(sha256) else None,
    )


def _text(data: dict[str, Any], key: str) -> str | None:
    value = data.get(key)
    return value if isinstance(value, str) and value and value.isprintable() else None


def _list(data: dict[str, Any], key: str) -> list[Any]:
    value = data.get(key)
    return value if isinstance(value, list) else []


def _dict(data: dict[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
