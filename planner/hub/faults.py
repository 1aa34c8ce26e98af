"""What a server's refusal or a broken connection means, in words that name the remedy.

The mistake it prevents is one error for everything: "not found" for what is merely gated, a stack of a library's
exceptions for a name that does not resolve. Nothing of a server's own words is repeated: they are a stranger's, and may
echo a secret.
"""

import ssl
from collections.abc import Iterator, Mapping
from socket import gaierror

from planner.errors import ExitCode, MissingInputError, PlannerError, UnavailableError
from planner.hub.patience import TransientFault, rate_limited, retry_after_s
from planner.types import Record

__all__ = ["Place", "broken", "fault_of", "offline", "refusal"]


class Place(Record, frozen=True, kw_only=True):
    """What was asked for, in the words of messages: its name, its page, and how to sign in there."""

    name: str
    page: str | None = None
    sign_in: str = ""
    signed_in: bool = False


def fault_of(status: int, headers: Mapping[str, str], place: Place) -> PlannerError | TransientFault:
    """The exception for an answer that is no success: transient when another attempt may go better."""
    if status == 429:
        wait_s = retry_after_s(headers)
        remedy = f"; who signs in may ask more: {place.sign_in}" if place.sign_in and not place.signed_in else ""
        return TransientFault(rate_limited(place.name, wait_s, remedy), wait_s=wait_s)
    if status >= 500 or status == 408:
        error = UnavailableError(
            f"{place.name}: the server has a fault of its own (status {status})",
            hint="try again later",
            code="service-fault",
        )
        return TransientFault(error, wait_s=retry_after_s(headers))
    return refusal(status, headers, place)


def refusal(status: int, headers: Mapping[str, str], place: Place) -> PlannerError:
    """The error for an answer in the 400s (or an unexpected success): gated, not permitted, not there."""
    word = headers.get("x-error-code") or ""
    if word == "GatedRepo" or (status == 403 and place.page is not None and not word):
        return _gated(place)
    if status == 401 and word != "RepoNotFound":
        return _not_permitted(place)
    if status == 403:
        return _not_permitted(place)
    if status in {404, 410} or word in {"RepoNotFound", "RevisionNotFound", "EntryNotFound"}:
        what = {"RevisionNotFound": "the revision is not there", "EntryNotFound": "the file is not there"}.get(word)
        private = "" if place.signed_in or not place.sign_in else f"; for a private one, {place.sign_in}"
        return MissingInputError(
            f"{place.name}: {what or 'there is no such thing, or it is private'}",
            hint=f"check the spelling{private}",
            code="not-found",
        )
    return UnavailableError(
        f"{place.name}: the server answered with status {status}", hint="try again later", code="unexpected-answer"
    )


def _gated(place: Place) -> PlannerError:
    page = place.page or "the model's page"
    then = "" if place.signed_in else f" and {place.sign_in}" if place.sign_in else ""
    return PlannerError(
        f"{place.name} is gated: its owners ask for their terms to be accepted first",
        hint=f"accept them on {page}{then}",
        code="gated",
        exit_code=ExitCode.NOT_PERMITTED,
    )


def _not_permitted(place: Place) -> PlannerError:
    if place.signed_in:
        message = f"{place.name}: the token is not accepted, or it gives no access to this"
        hint = f"check that it is valid and may read this; to sign in anew, {place.sign_in}"
    else:
        message = f"{place.name}: not to be read without signing in; it is private, or it does not exist"
        hint = f"check the spelling; to sign in, {place.sign_in}" if place.sign_in else "check the spelling"
    return PlannerError(message, hint=hint, code="not-permitted", exit_code=ExitCode.NOT_PERMITTED)


def offline(name: str) -> UnavailableError:
    """The error of a question that would need the network while it may not be used."""
    return UnavailableError(
        f"{name}: not known here, and the network may not be used",
        hint="unset HF_HUB_OFFLINE, or name a file that is on this disk",
        code="offline",
    )


def broken(error: BaseException, host: str, name: str) -> PlannerError | TransientFault | None:
    """The exception for a connection that broke, from the HTTP client's own; None when it is not of that kind."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "OfflineModeIsEnabled" in kinds:
        return offline(name)
    if "ConnectError" in kinds or "ProxyError" in kinds:
        return UnavailableError(f"{name}: {_why_unreachable(error, host)}", hint=_REMEDY, code="unreachable")
    if "TimeoutException" in kinds:
        silence = UnavailableError(
            f"{name}: {host} went silent", hint="check the connection, or try again later", code="too-slow"
        )
        return TransientFault(silence)
    if "TransportError" in kinds or "StreamError" in kinds:
        cut = UnavailableError(
            f"{name}: the connection to {host} was cut", hint="check the connection, or try again", code="cut-off"
        )
        return TransientFault(cut)
    if "InvalidURL" in kinds or "UnsupportedProtocol" in kinds:
        return UnavailableError(f"{name}: {host} sent us to no usable address", hint=_REMEDY, code="unexpected-answer")
    return None


_REMEDY = "check the network, HTTPS_PROXY and the endpoint; HF_HUB_OFFLINE=1 uses what is known here"


def _why_unreachable(error: BaseException, host: str) -> str:
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError):
            return f"the certificate of {host} is not trusted, or it does not speak TLS"
        if isinstance(cause, gaierror):
            return f"the name {host} cannot be looked up"
        if isinstance(cause, ConnectionRefusedError):
            return f"{host} refuses connections"
    return f"{host} cannot be reached"


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(16):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or seen.__context__
