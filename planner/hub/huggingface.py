"""Repositories on Hugging Face, or on what HF_ENDPOINT names: listed in one request, through huggingface_hub.

The library reads its environment when it is imported; endpoint and token are therefore passed to it each time, so that
this process may change its mind. The token comes from the library alone (HF_TOKEN, then its file) and stays in an
:class:`~planner.hub.access.Access`.
"""

import os
import re
from typing import Any
from urllib.parse import quote, urlsplit

from planner.errors import PlannerError, UnavailableError
from planner.hub import library
from planner.hub.access import Access, endpoint_from, is_true
from planner.hub.faults import Place, broken, fault_of
from planner.hub.names import artifacts_of, is_model_file
from planner.hub.patience import Clock, Patience, persist, within
from planner.types.artifact import Part, Reference, Repository

__all__ = ["access", "list_repository", "page_of", "place_of", "switched_off"]

_SIGN_IN = "set HF_TOKEN or run: hf auth login"
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def switched_off() -> bool:
    """Whether the user has forbidden the network to Hugging Face's tools (HF_HUB_OFFLINE)."""
    return is_true(os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE"))


def access() -> Access:
    """The endpoint, and the token if there is one and HF_HUB_DISABLE_IMPLICIT_TOKEN does not hold it back."""
    endpoint = endpoint_from("HF_ENDPOINT", "https://huggingface.co")
    token = None
    if not is_true(os.environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")):
        token = library.stored_token()
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return Access(endpoint, headers)


def page_of(repo: str) -> str:
    """The page of a repository, where terms are accepted."""
    return f"{endpoint_from('HF_ENDPOINT', 'https://huggingface.co')}/{repo}"


def place_of(repo: str, who: Access, *, file: str | None = None) -> Place:
    """What messages call a repository, or a file in it."""
    name = f"hf:{repo}" if file is None else f"{file} of hf:{repo}"
    return Place(name=name, page=page_of(repo), sign_in=_SIGN_IN, signed_in=who.signed_in)


def list_repository(reference: Reference, patience: Patience) -> Repository:
    """All model files of a repository at one commit, with what its card says.

    Raises PlannerError: not there (66), gated or not permitted (77), rate limited (75), unreachable (69).
    """
    repo = reference.repo or ""

    def question(clock: Clock) -> Repository:
        who = access()
        place = place_of(repo, who)
        info = persist(patience, clock, lambda: _info(repo, reference.revision, who, place, clock, patience))
        return _repository(info, reference, who)

    return within(patience, f"hf:{repo}", question)


def _info(repo: str, revision: str | None, who: Access, place: Place, clock: Clock, patience: Patience) -> Any:  # noqa: ANN401 - the library's struct, checked field by field below
    clock.check()
    token = who.headers_for(who.endpoint).get("authorization", "").removeprefix("Bearer ") or None
    timeout_s = min(patience.idle_s, max(0.1, clock.left_s))
    try:
        return library.model_info(repo, revision=revision, endpoint=who.endpoint, token=token, timeout_s=timeout_s)
    except Exception as error:
        response = getattr(error, "response", None)
        if response is not None:  # the library's errors carry the answer; our words, not the server's, are told
            raise fault_of(int(response.status_code), response.headers, place) from None
        fault = broken(error, urlsplit(who.endpoint).hostname or who.endpoint, place.name)
        if fault is None and isinstance(error, ValueError | TypeError | KeyError):
            fault = _no_listing(place)
        if fault is None:
            raise
        raise fault from None


def _no_listing(place: Place) -> PlannerError:
    return UnavailableError(
        f"{place.name}: the answer is no listing", hint="check HF_ENDPOINT", code="unexpected-answer"
    )


def _repository(info: Any, reference: Reference, who: Access) -> Repository:  # noqa: ANN401 - the library's struct
    repo = reference.repo or ""
    commit = info.sha if isinstance(info.sha, str) and _COMMIT.fullmatch(info.sha) else None
    at = commit or reference.revision or "main"
    parts = [part for entry in info.siblings or () if (part := _part(entry, who.endpoint, repo, at)) is not None]
    tags = tuple(tag for tag in info.tags or () if isinstance(tag, str) and tag.isprintable())
    return Repository(
        hub="hf",
        name=repo,
        page=page_of(repo),
        revision=reference.revision,
        commit=commit,
        gated=None if info.gated is None else bool(info.gated),
        licence=_licence(tags, info),
        tags=tags,
        base_models=tuple(dict.fromkeys(tag.rsplit(":", 1)[-1] for tag in tags if tag.startswith("base_model:"))),
        artifacts=artifacts_of(parts, hub="hf", repo=repo, commit=commit),
    )


def _licence(tags: tuple[str, ...], info: Any) -> str | None:  # noqa: ANN401 - the library's struct
    """The licence's identifier; where that is only ``other``, the name that the card gives it."""
    tagged = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), None)
    named = getattr(info.card_data, "license_name", None) if tagged == "other" else None
    return named if isinstance(named, str) and named.isprintable() else tagged


def _part(entry: Any, endpoint: str, repo: str, revision: str) -> Part | None:  # noqa: ANN401 - the library's struct
    path = entry.rfilename
    if not isinstance(path, str) or not is_model_file(path):
        return None
    sha256 = getattr(entry.lfs, "sha256", None)
    size = entry.size
    return Part(
        path=path,
        url=f"{endpoint}/{repo}/resolve/{quote(revision, safe='')}/{quote(path)}",
        size_bytes=size if isinstance(size, int) and size >= 0 else None,
        sha256=sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None,
    )
