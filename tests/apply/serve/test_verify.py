"""A running server is held against its plan: what is kept is met, what is broken ends with 11, the rest is unknown."""

import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET

import msgspec
import psutil
import pytest

from planner.apply.serve_weights import Weights
from planner.apply.verify import VerifyRequest, verify
from planner.apply.verify_file import file_checks
from planner.apply.verify_machine import machine_checks
from planner.apply.verify_memory import memory_checks
from planner.apply.verify_speed import judge, promise_at
from planner.catalogue import load
from planner.engine.byte_vocabulary import with_byte_vocabulary
from planner.engine.child import EngineChild
from planner.engine.oracle import Oracle
from planner.engine.phantom import write_phantom
from planner.errors import BadInputError, UnavailableError, UsageError
from planner.measure.statistics import spread
from planner.render.junit import junit_xml
from planner.render.verify import verification_text
from planner.types.artifact import Artifact, Part
from planner.types.measurement import Conditions
from planner.types.plan import Speed, Speeds
from planner.types.verification import Check, Verification
from planner.units import gib
from planner.workflow.plan_file import read_plan

FAST = Speed(tokens_per_s=2e6, low=1e6, high=3e6, origin="measured")
WIDE = Speed(tokens_per_s=100.0, low=0.1, high=1e7, origin="predicted")


def quietly(_note: str) -> None:
    """Nobody listens."""


def by_name(report: Verification) -> dict[str, Check]:
    """The checks of a report by name."""
    return {check.name: check for check in report.checks}


@pytest.mark.engine
def test_a_plan_that_holds_is_met_with_both_servers(make_plan, tiny_weights, this_machine, real_server):
    """Memory and every promised speed are inside, what nobody could look at is unknown, and no process is left."""
    plan = read_plan(make_plan(parallel=2))
    request = VerifyRequest(weights=str(tiny_weights), server=real_server, quick=True)
    report = verify(plan, request, this_machine, tell=quietly)
    checks = by_name(report)
    assert not report.drifted, verification_text(report)
    assert {checks[name].status for name in ("resident", "resident-loaded", "generate", "prompt", "chat")} == {"met"}
    assert checks["generate-at-depth"].status == "met"
    assert checks["generate-together"].status == "unknown"
    assert checks["size"].status == checks["sha256"].status == "unknown"
    assert report.loaded_bytes is not None
    assert report.loaded_bytes > 10 << 20
    deep = next(each for each in report.timings if each.name == "generate-at-depth")
    assert abs(deep.depth_tokens - 456) <= 20  # a sequence's share is 512, and the answer has to fit
    together = [each for each in report.timings if each.at_once == 2]
    assert len(together) == (0 if real_server == "llama-cpp-python" else 1)
    assert not [each for each in psutil.Process().children(recursive=True) if "llama" in " ".join(each.cmdline())]


@pytest.mark.engine
def test_a_broken_promise_ends_with_eleven(make_plan, tiny_weights, tmp_path):
    """The command tells it in the document and in JUnit, and nothing else on stdout."""
    path = make_plan(speeds=Speeds(generate=FAST, prompt=WIDE), total_bytes=8 << 20)
    words = ["verify", str(path), "--weights", str(tiny_weights), "--server", "llama-cpp-python", "--quick", "--json"]
    junit = tmp_path / "report.xml"
    done = subprocess.run(
        [sys.executable, "-m", "planner", *words, "--junit", str(junit)], capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 11, done.stderr.decode()
    report = msgspec.json.decode(done.stdout, type=Verification)
    missed = {check.name for check in report.checks if check.status == "missed"}
    assert missed == {"generate", "resident", "resident-loaded"}
    assert by_name(report)["generate"].place == "below"
    root = ET.fromstring(junit.read_bytes())  # noqa: S314 - written a moment ago
    assert {case.get("name") for case in root.iter("testcase") if case.find("failure") is not None} == missed
    assert int(root.get("failures", "")) == 3
    assert int(root.get("tests", "")) == len(report.checks)


@pytest.mark.parametrize(
    ("started", "kept_mib", "status"),
    [(True, 100, "missed"), (True, 0, "missed"), (False, 100, "unknown"), (False, 0, "missed")],
)
def test_a_server_that_answered_before_may_hold_earlier_prompts(make_plan, started, kept_mib, status):
    """What it holds beyond its weights is a broken promise only where it can be nothing else; the whole always is."""
    chosen = read_plan(make_plan(total_bytes=600 << 20)).chosen
    rows = tuple(msgspec.structs.replace(row, server_bytes=kept_mib << 20) for row in chosen.memory)
    chosen = msgspec.structs.replace(chosen, memory=rows)
    above = (601 - kept_mib) << 20
    loaded, most = memory_checks(chosen, kind="llama-server", started=started, loaded_bytes=above, most_bytes=601 << 20)
    assert (loaded.status, most.status) == (status, "missed")
    assert loaded.found == gib(above)
    inside, _ = memory_checks(chosen, kind="llama-server", started=started, loaded_bytes=1, most_bytes=1)
    assert inside.status == "met"


@pytest.mark.engine
def test_a_server_that_runs_is_asked_and_left_running(make_plan, served, this_machine):
    """With --url: its process is weighed, and it still answers afterwards."""
    path = make_plan()
    serving = served("llama-cpp-python", plan=path)
    serving.until("is ready")
    report = verify(read_plan(path), VerifyRequest(url=serving.url, quick=True), this_machine, tell=quietly)
    assert not report.drifted, verification_text(report)
    assert report.started is False
    assert report.resident_bytes is not None
    assert serving.process.poll() is None
    assert serving.end(signal.SIGTERM)[0] == 0


def test_a_server_that_is_healthy_and_cannot_chat_is_no_success(make_plan, wayward, tiny_weights, this_machine):
    """Exit code 69, whatever its health says."""
    request = VerifyRequest(weights=str(tiny_weights), server=str(wayward("good").program))
    with pytest.raises(UnavailableError, match="fails a chat request") as error:
        verify(read_plan(make_plan()), request, this_machine, tell=quietly)
    assert error.value.code == "server-failed"


def test_addresses_are_checked(make_plan, this_machine):
    """What is no address is a usage error; a machine that does not answer is unavailable."""
    plan = read_plan(make_plan())
    for url in ("ftp://127.0.0.1", "http://127.0.0.1:99999", "http://"):
        with pytest.raises(UsageError):
            verify(plan, VerifyRequest(url=url), this_machine, tell=quietly)
    with pytest.raises(UnavailableError, match="no server answers"):
        verify(plan, VerifyRequest(url="http://no-such-host.invalid:8080"), this_machine, tell=quietly)


def test_the_machine_that_was_planned_for_has_not_changed(make_plan, this_machine):
    """Nothing is missed on the very machine; what the plan does not need may change; what it needs may not."""
    plan = read_plan(make_plan())

    def statuses(now, name):
        return {check.name: check.status for check in machine_checks(plan, now)}[name]

    def changed(part, **values):
        return msgspec.structs.replace(
            this_machine, **{part: msgspec.structs.replace(getattr(this_machine, part), **values)}
        )

    assert "missed" not in {check.status for check in machine_checks(plan, this_machine)}
    assert statuses(msgspec.structs.replace(this_machine, kernel="99.1"), "kernel") == "differs"
    assert statuses(changed("cpu", model="Another CPU"), "cpu") == "missed"
    assert statuses(changed("cpu", isa=()), "instruction-sets") == "missed"
    assert statuses(changed("cpu", isa=(*this_machine.cpu.isa, "AMX")), "instruction-sets") == "differs"
    assert statuses(changed("cpu", usable_threads=0), "threads") == "missed"
    assert statuses(changed("memory", usable_bytes=100), "usable-memory") == "missed"
    assert statuses(changed("memory", total_bytes=3 * this_machine.memory.total_bytes), "ram") == "differs"
    held = machine_checks(plan, changed("memory", usable_bytes=100), held_bytes=1 << 40)
    (room,) = [check for check in held if check.name == "usable-memory"]
    assert room.status == "met"
    # What a mapped file takes is free and held at once: there is never more than there is.
    assert room.found == gib(this_machine.memory.total_bytes)


def test_speeds_are_judged_by_their_median():
    """Below the interval is missed, above it is met and said, without a promise nothing is judged."""
    promise = Speed(tokens_per_s=20.0, low=10.0, high=40.0, origin="measured")
    for values, status, place in (
        ([9.4, 9.0, 50.0], "missed", "below"),
        ([9.6, 9.0, 50.0], "met", "below"),
        ([10.0, 1.0, 10.0], "met", "inside"),
        ([41.0, 42.0, 1.0], "met", "above"),
    ):
        check = judge("generate", promise, spread(values), "now")
        assert (check.status, check.place) == (status, place)
    assert judge("generate", None, spread([1.0]), "now").status == "unknown"
    assert judge("generate", promise, None, "now").status == "unknown"


def test_a_promise_between_two_depths_lies_between_theirs():
    """At depth 0 and beyond half the context nothing is interpolated; between, seconds for each token add up."""
    deep = Speed(tokens_per_s=10.0, low=5.0, high=20.0, origin="measured", at_context_tokens=1000)
    start = Speed(tokens_per_s=20.0, low=10.0, high=40.0, origin="measured")
    speeds = Speeds(generate=start, generate_at_depth=deep)
    assert promise_at(speeds, 0) is start
    middle = promise_at(speeds, 500)
    assert middle is not None
    assert 1 / middle.tokens_per_s == pytest.approx((1 / 10 + 1 / 20) / 2)
    assert deep.low < middle.low < start.low
    assert promise_at(Speeds(), 500) is None


@pytest.mark.engine
def test_the_file_that_was_planned_is_told_from_others(make_plan, tmp_path):
    """Its size, its content, its tensors: the planned one is met; another mix, a changed byte are not."""
    known = load()
    model = known.model("qwen3-0.6b")
    path = tmp_path / "planned.gguf"
    with EngineChild() as child, Oracle(child, devices=()) as oracle:

        def typed(quantization):
            recipe = known.quantization(quantization)
            return oracle.typed_layout(known.shape_key(model), lambda: known.layout(model), recipe)

        layout, other = typed("Q4_K_M"), typed("Q8_0")
    size = write_phantom(path, with_byte_vocabulary(layout)).size_bytes
    bytes_planned = sum(row.size_bytes for row in _walk(path))
    part = Part(path="planned.gguf", size_bytes=size, sha256="0" * 64)
    chosen = msgspec.structs.replace(
        read_plan(make_plan()).chosen,
        model="qwen3-0.6b",
        quantization="Q4_K_M",
        file_bytes=bytes_planned,
        artifact=Artifact(hub="hf", name="planned.gguf", parts=(part,)),
    )

    def statuses(file, *, hashed=False):
        checks = file_checks(chosen, Weights((file,), "given"), hashed=hashed, engine_python=None, tell=quietly)
        return {check.name: check.status for check in checks}

    assert statuses(path) == {"size": "met", "sha256": "unknown", "tensor-bytes": "met", "tensors": "met"}
    assert statuses(path, hashed=True)["sha256"] == "missed"
    larger = tmp_path / "larger" / "planned.gguf"
    write_phantom(larger, with_byte_vocabulary(other))
    assert statuses(larger) == {"size": "missed", "sha256": "unknown", "tensor-bytes": "missed", "tensors": "missed"}
    os.truncate(larger, 1 << 20)
    with pytest.raises(BadInputError):
        statuses(larger)


def _walk(path):
    from planner.apply.serve_weights import check_whole

    return check_whole(Weights((path,), "given"))[0].tensors


def test_the_report_says_the_worst_first_and_hides_no_stranger():
    """What was missed and what disturbed stand on top; control characters of a server's words are gone in each form."""
    checks = (
        Check(
            area="speed", name="generate", status="missed", planned="10", found="1\x1b[31m", text="slow", place="below"
        ),
        Check(area="file", name="weights", status="unknown", text="nobody said"),
        Check(area="machine", name="cpu", status="met", planned="a", found="a"),
    )
    quiet = Conditions(load_1min=None, steal_ratio=None, on_battery=None, disturbed=("other processes used 2 of 2",))
    report = Verification(
        model="m", quantization="Q", verified_at="2026-11-23T00:00:00+00:00", created_by="planner", url="http://x",
        server=None, started=False, phantom=False, quick=False, drifted=True, checks=checks, conditions=quiet,
        seconds=1.0,
    )  # fmt: skip
    text = verification_text(report)
    assert text.startswith("Not as planned: 1 missed, 1 kept, 1 unknown")
    assert text.index("Missed") < text.index("Disturbed") < text.index("Machine")
    assert "\x1b" not in text
    root = ET.fromstring(junit_xml(report))  # noqa: S314 - our own
    assert [case.get("name") for case in root.iter("testcase") if case.find("skipped") is not None] == ["weights"]
    assert json.loads(msgspec.json.encode(report))["drifted"] is True
