"""What travels: each byte once, on from where it was, never from the wrong place, and never to be taken for whole."""

import threading
from pathlib import Path

import pytest

from planner.apply.fetch import fetch
from planner.apply.receipts import find_receipt
from planner.errors import ExitCode, PlannerError
from planner.hub import transfer
from planner.hub.patience import Patience

IMPATIENT = Patience(deadline_s=60.0, idle_s=10.0, connect_s=10.0, retries=0, backoff_s=0.01, longest_wait_s=1.5)


@pytest.fixture
def refused(plan, hasty, hurried):
    """The error that fetching the plan ends with; it is not ready afterwards."""

    def call(patience=hasty, **how) -> PlannerError:
        with pytest.raises(PlannerError) as caught:
            fetch(plan, patience=patience, pace=hurried, **how)
        assert find_receipt(plan) is None
        return caught.value

    return call


@pytest.fixture
def whole(plan, hasty, hurried, blob):
    """Fetches the plan, and holds every byte against the hub's."""

    def call(**how):
        done = fetch(plan, patience=hasty, pace=hurried, **how)
        assert Path(done.receipt.weights[0]).read_bytes() == blob.body
        assert find_receipt(plan) == done.receipt
        return done

    return call


def starts(hub) -> list[int]:
    """Where each range that was asked of the content server begins."""
    return [int(seen.headers["range"].removeprefix("bytes=").split("-")[0]) for seen in hub.of("content")]


def partials(cache) -> list[Path]:
    """The files on their way."""
    return list(cache.rglob("*.incomplete"))


def test_what_is_here_and_verified_transfers_nothing(whole, hub, plan):
    """Not a byte, not even a question."""
    whole()
    hub.seen.clear()
    assert fetch(plan).received_bytes == 0
    assert not hub.seen


def test_a_cut_goes_on_where_it_was(whole, hub, blob):
    """The server sends every byte once, but for what stood in the buffers of the connection."""
    hub.fail("content", cut_at=1 << 20)
    hub.fail("content", cut_at=1 << 20)
    done = whole()
    assert starts(hub)[0] == 0
    assert starts(hub) == sorted(set(starts(hub)))
    assert done.received_bytes == blob.size
    assert sum(seen.sent for seen in hub.of("content")) < blob.size * 1.4


def test_the_xet_service_is_not_asked(whole, hub):
    """The hub offers it for the file; its transfers cannot be gone on with after a kill."""
    whole()
    assert {seen.kind for seen in hub.seen} == {"head", "resolve", "content"}


def test_a_long_file_is_asked_for_in_pieces(whole, hub, monkeypatch, blob):
    """Each asked of the hub anew: signed addresses expire, and content servers limit what one answer may hold."""
    monkeypatch.setattr(transfer, "_PIECE_BYTES", 1 << 20)
    whole()
    assert starts(hub) == [0, 1 << 20, 2 << 20, 3 << 20]
    assert len(hub.of("resolve")) == 4
    assert sum(seen.sent for seen in hub.of("content")) == blob.size


def test_the_next_run_goes_on_where_the_last_one_ended(whole, refused, hub, blob, cache):
    """What arrived before a failure is kept, and asked for no more."""
    hub.fail("content", cut_at=2 << 20)
    assert refused(patience=IMPATIENT).code == "cut-off"
    (partial,) = partials(cache)
    held = partial.stat().st_size
    assert 0 < held <= 2 << 20
    hub.seen.clear()
    done = whole()
    assert starts(hub) == [held]
    assert (done.resumed_bytes, done.received_bytes) == (held, blob.size - held)
    assert not partials(cache)


def test_a_front_that_was_damaged_is_thrown_away(whole, refused, hub, blob, cache):
    """The hash of the whole tells; then everything comes anew, in the same run."""
    hub.fail("content", cut_at=2 << 20)
    refused(patience=IMPATIENT)
    (partial,) = partials(cache)
    partial.write_bytes(b"x" * partial.stat().st_size)
    hub.seen.clear()
    whole()
    assert starts(hub)[-1] == 0
    assert blob.sha256


def test_a_front_longer_than_the_file_is_thrown_away(whole, refused, hub, blob, cache):
    """It is no front of this file."""
    hub.fail("content", cut_at=1 << 20)
    refused(patience=IMPATIENT)
    (partial,) = partials(cache)
    partial.write_bytes(bytes(blob.size + 1))
    whole()


def test_a_server_that_ignores_ranges_sends_the_whole_once_more(whole, refused, hub, blob):
    """200 on a range is the file from its beginning, never spliced."""
    hub.fail("content", cut_at=2 << 20)
    refused(patience=IMPATIENT)
    hub.fail("content", ignore_range=True)
    hub.seen.clear()
    whole()
    assert [seen.sent for seen in hub.of("content")] == [blob.size]


@pytest.mark.parametrize(
    "how", [{"shift": 7}, {"status": 416}, {"headers": {"Content-Encoding": "gzip"}}, {"short": 9}]
)
def test_an_answer_in_the_wrong_place_is_asked_for_again(whole, hub, how):
    """Another range, no range, an encoding, a range that ends early."""
    hub.fail("content", **how)
    whole()


def test_a_wrong_byte_is_found_and_nothing_of_it_stays(refused, hub, cache, blob):
    """Right size, wrong hash: no blob, no link, no partial file, no receipt."""
    hub.fail("content", flip_at=1 << 20, times=9)
    error = refused()
    assert (error.exit_code, error.code) == (ExitCode.UNAVAILABLE, "wrong-content")
    assert not partials(cache)
    assert not [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size == blob.size]


def test_a_file_of_another_length_is_refused(refused, hub):
    """The hub says one size, the content server another."""
    hub.fail("content", total=99_999_999, times=99)
    assert refused().code == "wrong-length"


def test_a_drip_is_left(refused, hub, hurried):
    """A byte now and then is never silent; the pace ends it."""
    hub.fail("content", drip_s=0.02, times=99)
    assert hurried.window_s < 1
    assert refused(patience=IMPATIENT).code == "too-slow"


def test_a_header_that_trickles_is_left(whole, hub):
    """No timeout of the client counts there; the next attempt is served, and what comes late is out of step."""
    hub.fail("content", drip_head_s=0.02)
    whole()


def test_an_address_that_expired_is_asked_for_anew(whole, hub):
    """The hub gives another one; 403 of the content server is no gate."""
    hub.fail("content", status=403)
    whole()
    assert len(hub.of("resolve")) == 2


def test_another_commit_than_the_planned_is_refused(refused, hub):
    """The address names the commit; a server that answers for another one has another file."""
    hub.fail("head", commit="f" * 40, times=9)
    error = refused()
    assert (error.exit_code, error.code) == (ExitCode.BUSY, "changed")
    assert not hub.of("content")


def test_another_file_under_the_same_name_is_refused(refused, hub, speaker):
    """Uploaded over since the plan was made."""
    hub.repos["org/Small-GGUF"]["Small-Q4_K_M.gguf"] = speaker.whole(seed=9, data_bytes=3 << 20)
    assert refused().code == "changed"


@pytest.mark.parametrize("kind", ["head", "resolve", "content"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_fault_that_passes_is_survived(whole, hub, kind, status):
    """Once, wherever it stands."""
    hub.fail(kind, status=status, headers={"Retry-After": "0"})
    whole()


@pytest.mark.parametrize("kind", ["head", "resolve", "content"])
def test_a_fault_that_stays_is_told(refused, hub, kind):
    """As many attempts as there is patience for, then the truth."""
    hub.fail(kind, status=503, times=99)
    assert refused().exit_code is ExitCode.UNAVAILABLE
    assert len(hub.of(kind)) == 4


def test_a_limit_for_long_says_when_to_come_back(refused, hub):
    """Ten minutes are not waited."""
    hub.fail("head", status=429, headers={"Retry-After": "600"}, times=9)
    error = refused()
    assert error.exit_code is ExitCode.BUSY
    assert "in 600 s" in error.hint


def test_a_gated_model_names_the_page_to_accept(refused, hub):
    """Not a byte is asked for, no folder is made."""
    hub.gated.add("org/Small-GGUF")
    error = refused()
    assert (error.exit_code, error.code) == (ExitCode.NOT_PERMITTED, "gated")
    assert f"{hub.endpoint}/org/Small-GGUF" in error.hint
    assert not hub.of("content")


def test_a_server_that_is_gone_is_unavailable(refused, plan, monkeypatch):
    """Nobody listens there."""
    assert plan
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert refused().code == "unreachable"


def test_two_fetches_at_once_transfer_once(whole, hub, blob):
    """The second waits, says so, and finds the file."""
    hub.fail("content", drip_head_s=0.005)
    said: list[tuple[str, str, int, int]] = []
    threads = [threading.Thread(target=whole, kwargs={"watch": lambda *told: said.append(told)}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(seen.sent for seen in hub.of("content")) == blob.size
    assert any(told[0] == "waiting" for told in said)


def test_a_transfer_is_told_as_it_goes(whole, blob):
    """What happens, to which file, how far."""
    said: list[tuple[str, str, int, int]] = []
    whole(watch=lambda *told: said.append(told))
    assert said[-1] == ("fetching", "Small-Q4_K_M.gguf of hf:org/Small-GGUF", blob.size, blob.size)
    assert [told[2] for told in said] == sorted(told[2] for told in said)
