"""Terraform's external data source: its query is read as the command line is, its answer is one flat object of strings.

The protocol is tested as its documentation states it: JSON object of strings on stdin; on success exit 0 and one JSON
object of strings on stdout; on failure a message on stderr and another exit code.
"""

import json
import re
import subprocess
from pathlib import Path

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.json import decode
from msgspec.structs import replace

from planner.cli.plan import command
from planner.cli.terraform import query_words
from planner.errors import BadInputError, PlannerError
from planner.render.terraform import terraform_result
from planner.types.artifact import Artifact, Part
from planner.types.plan import Goal, Plan

SAMPLE = decode((Path(__file__).parents[1] / "render/samples/plan.json").read_bytes(), type=Plan)
UNTOUCHED = {"help", "as_json", "output_file", "protocol"}
OPTIONS = {
    option.opts[0].lstrip("-"): option
    for option in command.params
    if isinstance(option, click.Option) and option.name not in UNTOUCHED
}


@pytest.fixture
def ask(program, tmp_path):
    """Run the command as Terraform does: a query on stdin, everything else from the outside."""

    def call(query: bytes, *words: str) -> subprocess.CompletedProcess[bytes]:
        arguments = [*program, "plan", "--protocol", "terraform", *words]
        return subprocess.run(arguments, input=query, capture_output=True, check=False, cwd=tmp_path, timeout=60)

    return call


def test_a_query_gets_one_flat_object_of_strings(ask):
    """Nothing else on stdout, nothing on stderr: Terraform reads both whole."""
    done = ask(b'{"model": "qwen3-8b", "context": "32k", "no_measure": "true", "family": ""}')
    assert (done.returncode, done.stderr) == (0, b"")
    answer = json.loads(done.stdout)
    assert all(isinstance(value, str) for value in answer.values())
    assert json.loads(answer["plan_json"])["schema"] == "planner/plan/1"
    assert json.loads(answer["argv_json"])[0] == "llama-server"
    assert int(answer["context_tokens"]) > 0


def test_every_option_of_a_query_reaches_the_workflow(workflow, invoke, monkeypatch):
    """The query says what the command line would; where both speak the query wins."""
    query = {
        "for": "code", "context": "32k", "parallel": "4", "min_speed": "12.5", "family": "qwen, deepseek",
        "license": "commercial", "machine": "rtx-4090", "model": "qwen3-8b", "quant": "q4_k_m", "kv_type": "q8_0",
        "load-mode": "none", "reserve": "2GiB", "quick": "true", "engine_python": "/opt/python", "local": "false",
    }  # fmt: skip
    monkeypatch.setattr("sys.stdin", stdin_of(json.dumps(query).encode()))
    words = ("plan", "--protocol", "terraform", "--for", "reasoning", "--language", "ar")
    code, _, err = invoke(*words)
    assert (code, err) == (0, "")
    (((goal,), named),) = workflow.calls
    assert goal == Goal(
        use="code",
        context_tokens=32768,
        parallel=4,
        min_tokens_per_s=12.5,
        families=("qwen", "deepseek"),
        languages=("ar",),
        commercial_license=True,
        model="qwen3-8b",
        quantization="Q4_K_M",
        cache_type="q8_0",
        load_mode="none",
        reserve_bytes=2 << 30,
    )
    assert (named["machine"], named["measure"], named["engine_python"]) == ("rtx-4090", "quick", "/opt/python")


def stdin_of(data: bytes) -> object:
    """Something with a ``buffer``, as stdin has one."""
    import io

    return io.TextIOWrapper(io.BytesIO(data))


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        (b"", 65, "no JSON"),
        (b"[]", 65, "no JSON object"),
        (b'{"context": 8192}', 65, "'context' is no string"),
        (b'{"context": "8192", "context": "1"}', 65, "twice"),
        (b'{"contxt": "8192"}', 65, "'contxt'"),
        (b'{"json": "true"}', 65, "'json'"),
        (b'{"output": "/etc/x"}', 65, "'output'"),
        (b'{"quick": "yes"}', 65, "true or false"),
        (b'{"context": "many"}', 2, "many"),
        (b'{"for": "cooking"}', 2, "cooking"),
        (b'{"quick": "1", "no_measure": "1"}', 2, "exclude each other"),
        (b'{"model": "\xff"}', 65, "no JSON"),
        (b'{"model": "\\u0000"}', 65, "control character"),
        (b'{"model": "\\ud800"}', 65, "control character"),
        (b"[" * 100_000, 65, "no JSON"),
        (b'{"model": "' + b"x" * (1 << 20) + b'"}', 65, "longer than"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_query_is_an_error_on_stderr_alone(ask, query, code, words):
    """Stdout stays empty, the exit code is not zero, and the message names the place."""
    done = ask(query)
    assert (done.returncode, done.stdout) == (code, b"")
    assert words in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_the_protocol_and_json_exclude_each_other(ask):
    """Each would want stdout for itself."""
    done = ask(b"{}", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "usage"


def test_a_plan_without_a_choice_is_an_error_that_says_what_came_closest():
    """A configuration must not go on with nothing."""
    nothing = replace(SAMPLE, chosen=None, commands=None)
    with pytest.raises(PlannerError, match=re.escape(SAMPLE.reasons[0].text)) as caught:
        terraform_result(nothing)
    assert (caught.value.exit_code, caught.value.code) == (10, "nothing-chosen")


TEXT = st.text(max_size=20)


@given(
    name=TEXT, sha=st.none() | TEXT, size=st.none() | st.integers(0, 2**63), artifact=st.booleans(), speed=st.booleans()
)
@settings(max_examples=500)
def test_whatever_is_unknown_the_keys_are_the_same_and_all_values_strings(name, sha, size, artifact, speed):
    """Names of strangers come back exact through a JSON parser; unknown is an empty string."""
    chosen = SAMPLE.chosen
    assert chosen is not None
    part = Part(path=name, sha256=sha, size_bytes=size)
    found = Artifact(hub="hf", name=name, parts=(part,), repo=name, commit=sha) if artifact else None
    changed = replace(chosen, artifact=found, speed=chosen.speed if speed else type(chosen.speed)(), index=None)
    answer = json.loads(terraform_result(replace(SAMPLE, chosen=changed)))
    assert answer.keys() == json.loads(terraform_result(SAMPLE)).keys()
    assert all(isinstance(value, str) for value in answer.values())
    assert answer["repo"] == (name if artifact else "")
    assert json.loads(answer["sha256_json"]) == ({name: sha} if artifact else {})
    assert (answer["tokens_per_s"] == "") is not speed


@given(st.dictionaries(st.sampled_from(sorted(OPTIONS)), TEXT, max_size=3))
@settings(max_examples=2000, deadline=None)
def test_no_value_of_a_query_is_taken_for_an_option(query):
    """Each word is one option with its value: parsed by click, it comes back as it was, or is refused."""
    try:
        words = query_words(command, json.dumps(query).encode())
    except BadInputError as error:
        if "control" in error.message:
            assert not all(value.isprintable() for value in query.values())
        return
    given_names = {word.partition("=")[0].lstrip("-") for word in words}
    assert given_names <= set(query)
    try:
        context = command.make_context("plan", words, resilient_parsing=False)
    except click.ClickException:
        return
    for name in ("model", "machine"):
        if query.get(name):
            assert context.params[name] == query[name].strip() or context.params[name] == query[name]
