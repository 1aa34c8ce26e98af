"""Every way a network can fail, each with a clear error or a retry that ends."""

import time
from pathlib import Path

import msgspec
import pytest

from planner.errors import BadInputError, ExitCode, MissingInputError, PlannerError, UnavailableError
from planner.hub import PATIENCE, Patience, find, header_files, parse_reference
from planner.hub.access import Access
from planner.hub.faults import Place
from planner.hub.patience import Clock
from planner.hub.transport import Transport

LINK = "hf:org/Small-GGUF:Q4_K_M"


@pytest.fixture
def refused(ask):
    """The error that a question ends with, after a look at whether it says what to do."""

    def call(text=LINK, **how) -> PlannerError:
        with pytest.raises(PlannerError) as caught:
            ask(text, **how)
        assert caught.value.hint
        assert text.split(":")[1].split("@")[0] in caught.value.message
        return caught.value

    return call


@pytest.fixture
def whole(hub, ask):
    """The reading succeeds all the same, with the right bytes."""

    def call(text=LINK, name="Small-Q4_K_M.gguf", repo="org/Small-GGUF", **how):
        (file,) = ask(text, **how)
        assert Path(file.path).read_bytes() == hub.repos[repo][name].head

    return call


@pytest.fixture(scope="module")
def long_header(speaker):
    """A header that needs three ranges."""
    head, size = speaker.gguf(tokens=262_144, merges=200_000, data_bytes=64 << 20)
    assert len(head) > 8 << 20
    return head, size


@pytest.fixture
def large(hub, speaker, long_header):
    """A repository with such a header."""
    blob = speaker.Blob(*long_header)
    hub.repos["org/Large-GGUF"] = {"Large-Q4_K_M.gguf": blob}
    return blob


def test_a_cut_goes_on_where_it_was(hub, whole, large):
    """What had arrived is kept: the next range begins behind it."""
    hub.fail("content", cut_at=3 << 20, after=1)
    whole("hf:org/Large-GGUF", name="Large-Q4_K_M.gguf", repo="org/Large-GGUF")
    starts = [int(seen.headers["range"].removeprefix("bytes=").split("-")[0]) for seen in hub.of("content")]
    assert starts[2] > starts[1]
    assert sum(seen.sent for seen in hub.of("content")) < len(large.head) + (8 << 20)


def test_cuts_without_end_end_in_an_error(hub, refused):
    """Four attempts, then the truth."""
    hub.fail("content", cut_at=10, times=100)
    error = refused()
    assert (error.exit_code, error.code) == (ExitCode.UNAVAILABLE, "cut-off")
    assert len(hub.of("content")) == 4


def test_a_connection_that_gives_nothing_is_a_cut(hub, whole):
    """Closed before the first byte of the answer."""
    hub.fail("content", cut_at=0)
    whole()


def test_a_file_of_another_length_than_listed_is_refused(hub, refused):
    """The listing pins the size; a server with another one has another file."""
    hub.fail("content", total=123_456_789, times=100)
    assert refused().code == "wrong-length"


def test_a_wrong_length_without_ranges_is_refused(hub, refused):
    """The same when the whole file is offered."""
    hub.fail("content", total=123_456_789, ignore_range=True, times=100)
    assert refused().code == "wrong-length"


def test_a_server_that_ignores_ranges_is_read_no_further_than_the_header(hub, whole, large):
    """It sends the whole file; we take the front and hang up."""
    hub.fail("content", ignore_range=True, times=100)
    whole("hf:org/Large-GGUF", name="Large-Q4_K_M.gguf", repo="org/Large-GGUF")
    assert len(hub.of("content")) == 1
    # The socket's buffers hold what the server wrote and nobody read.
    assert hub.of("content")[0].sent < len(large.head) + (24 << 20) < large.size


def test_another_range_than_asked_for_is_refused(hub, refused):
    """Bytes of the middle must not pass for the front."""
    hub.fail("content", shift=512, times=100)
    assert refused().code == "unexpected-answer"


def test_a_shorter_range_than_asked_for_is_completed(hub, whole):
    """A server may send less; the rest is asked for."""
    hub.fail("content", short=100)
    whole()
    assert [seen.headers["range"].split("-")[0] for seen in hub.of("content")] == ["bytes=0", "bytes=100"]


def test_a_range_in_crumbs_is_left(hub, refused):
    """A byte for each question would take a million of them."""
    hub.fail("content", short=1, times=10_000)
    assert refused().code == "unexpected-answer"
    assert len(hub.of("content")) < 50


def test_a_range_beyond_the_end_means_another_file(hub, refused, speaker, long_header):
    """416 in the middle: the file became shorter, and is so on the second try as well."""
    hub.repos["org/Large-GGUF"] = {"Large-Q4_K_M.gguf": speaker.Blob(*long_header)}
    hub.fail("content", status=416, after=1)
    hub.fail("content", status=416, after=1)
    assert refused("hf:org/Large-GGUF").code == "changed"


def test_an_encoded_body_is_refused(hub, refused):
    """Positions in a compressed body are no positions in the file."""
    hub.fail("content", headers={"Content-Encoding": "gzip"}, times=100)
    assert refused().code == "unexpected-answer"


def test_an_etag_that_changes_between_ranges_starts_over(hub, whole, large):
    """Halves of two files never meet: the second range is answered with the new file, and all is read anew."""
    hub.fail("content", etag='"cdn-2"', after=1, times=100)
    whole("hf:org/Large-GGUF", name="Large-Q4_K_M.gguf", repo="org/Large-GGUF")
    assert [seen.headers.get("if-range") for seen in hub.of("content")][:2] == [None, large.etag]


def test_a_file_that_changes_all_the_time_is_an_error(hub, refused, large):  # noqa: ARG001 - it has to be there
    """Once is bad luck, twice is told."""
    for number in range(4):
        hub.fail("content", etag=f'"cdn-{number}"')
    error = refused("hf:org/Large-GGUF")
    assert (error.exit_code, error.code) == (ExitCode.BUSY, "changed")
    assert len(hub.of("content")) == 4


def test_a_file_that_is_not_the_listed_one_is_refused(hub):
    """The redirect names the hash of what it leads to."""
    repository = find(parse_reference(LINK))
    (part,) = repository.models[0].parts
    other = msgspec.structs.replace(repository.models[0], parts=(msgspec.structs.replace(part, sha256="9" * 64),))
    with pytest.raises(PlannerError) as caught:
        header_files(other)
    assert (caught.value.exit_code, caught.value.code) == (ExitCode.BUSY, "changed")
    assert len(hub.of("content")) == 1


def test_401_asks_to_sign_in(hub, refused):
    """Private or missing: the server does not say which, and neither do we."""
    hub.fail("api", status=401, times=100)
    error = refused()
    assert error.exit_code is ExitCode.NOT_PERMITTED
    assert "HF_TOKEN" in error.hint


def test_a_token_that_is_not_accepted_is_told_apart(hub, refused, monkeypatch):
    """The remedy is another token, not a first one."""
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    hub.fail("api", status=401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}, times=9)
    assert "token is not accepted" in refused().message


def test_a_gated_repository_names_the_page_to_accept(hub, refused):
    """Listing is open, reading is not."""
    hub.gated.add("org/Small-GGUF")
    error = refused()
    assert (error.exit_code, error.code) == (ExitCode.NOT_PERMITTED, "gated")
    assert f"{hub.endpoint}/org/Small-GGUF" in error.hint
    assert "HF_TOKEN" in error.hint


def test_403_with_a_token_that_was_not_granted_access_names_the_page(hub, refused, monkeypatch):
    """Signed in, terms not accepted."""
    monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
    hub.gated.add("org/Small-GGUF")
    error = refused()
    assert (error.exit_code, error.code) == (ExitCode.NOT_PERMITTED, "gated")
    assert "HF_TOKEN" not in error.hint


def test_a_token_with_access_opens_a_gated_repository(hub, whole, monkeypatch):
    """The gate is no wall."""
    hub.gated.add("org/Small-GGUF")
    hub.token = "hf_" + "y" * 34
    monkeypatch.setenv("HF_TOKEN", hub.token)
    whole()


def test_a_repository_that_is_not_there_is_missing_input(hub, ask):  # noqa: ARG001 - an empty hub
    """404, with a look at the spelling."""
    with pytest.raises(MissingInputError) as caught:
        ask("hf:org/Nothing-GGUF")
    assert caught.value.exit_code is ExitCode.MISSING_INPUT


def test_a_revision_that_is_not_there_says_so(hub, refused):
    """The repository is fine, the branch is not."""
    hub.fail("api", status=404, headers={"X-Error-Code": "RevisionNotFound"})
    error = refused("hf:org/Small-GGUF@nope:Q4_K_M")
    assert error.exit_code is ExitCode.MISSING_INPUT
    assert "revision" in error.message


def test_a_file_that_vanished_is_missing_input(hub, refused):
    """Listed a moment ago, gone now."""
    hub.fail("resolve", status=404, headers={"X-Error-Code": "EntryNotFound"}, times=9)
    error = refused()
    assert error.exit_code is ExitCode.MISSING_INPUT
    assert "the file" in error.message


@pytest.mark.parametrize("kind", ["api", "resolve", "content"])
def test_429_waits_as_long_as_it_is_told(hub, whole, kind):
    """A second is worth waiting."""
    hub.fail(kind, status=429, headers={"Retry-After": "1"})
    start = time.monotonic()
    whole()
    assert time.monotonic() - start >= 1.0


@pytest.mark.parametrize("kind", ["api", "resolve", "content"])
def test_429_for_long_says_when_to_come_back(hub, refused, kind):
    """Ten minutes are not waited: the error carries them, and nothing is asked again."""
    hub.fail(kind, status=429, headers={"Retry-After": "600"}, times=100)
    error = refused()
    assert error.exit_code is ExitCode.BUSY
    assert "in 600 s" in error.hint
    assert len(hub.of(kind)) == 1


def test_429_with_hugging_faces_own_header_is_understood(hub, refused):
    """No request left, more of them in ten minutes."""
    hub.fail("api", status=429, headers={"RateLimit": '"api";r=0;t=599'}, times=100)
    assert "in 600 s" in refused().hint


def test_429_with_a_date_is_understood(hub, refused):
    """Retry-After has two forms."""
    hub.fail("api", status=429, headers={"Retry-After": "Fri, 01 Jan 2100 00:00:00 GMT"}, times=100)
    assert refused().exit_code is ExitCode.BUSY


@pytest.mark.parametrize("kind", ["api", "resolve", "content"])
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_5xx_passes_or_ends_in_an_error(hub, whole, refused, kind, status):
    """Three bad answers are survived, four are not."""
    hub.fail(kind, status=status, times=4)
    error = refused()
    assert (error.exit_code, error.code) == (ExitCode.UNAVAILABLE, "service-fault")
    assert len(hub.of(kind)) == 4
    hub.fail(kind, status=status, times=3)
    whole()


@pytest.mark.parametrize("kind", ["api", "content"])
def test_a_slow_loris_meets_the_deadline(hub, refused, kind):
    """A byte now and then is never silent, so only a deadline for the whole ends it."""
    hub.fail(kind, drip_s=0.05, times=100)
    start = time.monotonic()
    error = refused(patience=Patience(deadline_s=0.6, idle_s=5.0, retries=0))
    assert error.code == "too-slow"
    assert time.monotonic() - start < 3.0


def test_headers_that_trickle_meet_the_deadline(hub, refused):
    """No timeout of the client counts while a header goes on for ever."""
    hub.fail("content", drip_head_s=0.05, times=100)
    start = time.monotonic()
    assert refused(patience=Patience(deadline_s=0.6, idle_s=5.0, retries=0)).code == "too-slow"
    assert time.monotonic() - start < 3.0


def test_a_silent_server_is_tried_again_and_told(hub, refused):
    """Silence is a fault that may pass."""
    hub.fail("content", drip_s=3.0, times=100)
    error = refused(patience=Patience(deadline_s=20.0, idle_s=0.5, retries=1, backoff_s=0.01))
    assert "went silent" in error.message
    assert len(hub.of("content")) == 2


def test_a_refused_connection_is_unavailable(hub, refused, monkeypatch):
    """Nobody listens there: told at once, with the switch for going on without."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    error = refused()
    assert (error.exit_code, error.code) == (ExitCode.UNAVAILABLE, "unreachable")
    assert "refuses connections" in error.message
    assert not hub.seen


def test_a_name_that_does_not_resolve_is_told_apart(hub, refused, monkeypatch):  # noqa: ARG001 - for its end
    """``.invalid`` never resolves; the patience is long enough for a slow resolver."""
    monkeypatch.setenv("HF_ENDPOINT", "http://no-such-host.invalid")
    monkeypatch.setenv("NO_PROXY", "*")
    error = refused(patience=Patience(deadline_s=30.0))
    assert error.exit_code is ExitCode.UNAVAILABLE
    assert "cannot be looked up" in error.message


def test_a_server_without_tls_is_told_apart(hub, refused, monkeypatch):
    """An https address of a port that speaks http."""
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint.replace("http:", "https:"))
    assert "TLS" in refused().message


def test_offline_and_unknown_says_how_to_go_online(hub, monkeypatch, ask):
    """The switch is obeyed: not one request."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UnavailableError, match="network may not be used") as caught:
        ask()
    assert "HF_HUB_OFFLINE" in caught.value.hint
    assert not hub.seen


@pytest.mark.parametrize("location", ["ftp://127.0.0.1/file", "file:///etc/passwd", "", "https://[broken"])
def test_a_redirect_to_no_usable_address_is_refused(hub, refused, location):
    """Only http and https lead anywhere."""
    hub.fail("resolve", status=302, headers={"Location": location}, times=9)
    assert refused().exit_code is ExitCode.UNAVAILABLE


def test_a_redirect_from_an_encrypted_to_an_open_address_is_refused():
    """Whoever sits on the line would choose the header."""
    who = Access("https://hub.example")
    transport = Transport(who, Place(name="x"), PATIENCE, Clock(PATIENCE, "x"))
    assert transport._next("https://hub.example/a", "/b") == "https://hub.example/b"
    assert transport._next("http://hub.example/a", "http://cdn.example/b") == "http://cdn.example/b"
    with pytest.raises(UnavailableError, match="unencrypted"):
        transport._next("https://hub.example/a", "http://cdn.example/b")


def test_redirects_in_a_circle_end(hub, refused):
    """Five hops are enough for everybody."""
    hub.fail("resolve", location="/org/Small-GGUF/resolve/main/Small-Q4_K_M.gguf", times=100)
    assert refused().code == "redirects"
    assert len(hub.of("resolve")) == 6


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"siblings": 3}', b'{"id": 3, "siblings": [{}]}'])
def test_a_listing_that_is_none_is_told(hub, refused, body):
    """A captive portal, a proxy's page, a stranger's JSON."""
    hub.fail("api", body=body, times=9)
    assert refused().exit_code in {ExitCode.UNAVAILABLE, ExitCode.MISSING_INPUT}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"Code": 404}', b'{"Data": {"Files": [3, {}]}}'])
def test_a_listing_of_modelscope_that_is_none_is_told(hub, refused, body):
    """The same for the other hub."""
    hub.fail("api", body=body, times=9)
    assert refused("ms:org/Small-GGUF").exit_code in {ExitCode.UNAVAILABLE, ExitCode.MISSING_INPUT}


def test_a_file_that_is_no_gguf_is_bad_input(hub, ask, speaker):
    """A page of HTML under a model's name, seen after one range."""
    hub.repos["org/Small-GGUF"] = {"Small-Q4_K_M.gguf": speaker.Blob(b"<!DOCTYPE html>" + bytes(5000), 5015)}
    with pytest.raises(BadInputError, match="Small-Q4_K_M"):
        ask()
    assert len(hub.of("content")) == 1


def test_a_file_that_ends_inside_its_header_is_bad_input(hub, ask, speaker):
    """Cut off at upload."""
    head, _ = speaker.gguf(tokens=10_000)
    hub.repos["org/Small-GGUF"] = {"Small-Q4_K_M.gguf": speaker.Blob(head[:50_000], 50_000)}
    with pytest.raises(BadInputError):
        ask()


def test_an_address_that_expired_is_asked_for_anew(hub, whole, large):
    """Signed addresses do not live for ever: the hub gives another."""
    hub.fail("content", status=403, after=1)
    whole("hf:org/Large-GGUF", name="Large-Q4_K_M.gguf", repo="org/Large-GGUF")
    assert len(hub.of("resolve")) == 2
    assert large.etag
