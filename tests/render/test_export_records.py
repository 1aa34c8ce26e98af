"""Formats for provisioning and records: each read back by a real parser, exact or refused."""

import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace

from planner.render.export import export
from planner.types.artifact import Artifact, Part
from planner.types.plan import ModelFacts
from planner.types.receipt import Receipt, ReceiptFile

FACTS = ModelFacts(
    id="qwen3-8b", name="Qwen3-8B", family="Qwen3", vendor="Alibaba", architecture="qwen3", parameters=8_190_735_360,
    parameters_active=8_190_735_360, context_native=32768, thinking="hybrid", license="apache-2.0",
    license_source="https://example.com/LICENSE", hf_repo="Qwen/Qwen3-8B",
)  # fmt: skip
SHA256 = "0123456789abcdef" * 4


def only(form, made, options=None):
    """The text of the one file that a format makes."""
    (text,) = export(form, made, options).values()
    return text


# Ansible, Prometheus


def test_facts_are_json_with_every_name_exact(deployed, hostile_names):
    """Each under its own name; nothing has to be split."""
    for name in hostile_names:
        made = deployed(name)
        facts = json.loads(export("ansible", made)["planner.fact"])
        assert (facts["model"], facts["weights"], facts["argv"]) == (name, list(made.weights), list(made.argv))
    assert facts["host_memory_bytes"] == made.host_memory_bytes


def samples(text):
    """Every sample by Prometheus' own parser: name, labels, value."""
    from prometheus_client.parser import text_string_to_metric_families

    return [
        (sample.name, sample.labels, sample.value, sample.timestamp)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def test_metrics_are_the_plan_and_carry_no_time(deployed):
    """One info metric, memory that adds up to the plan's, the interval of each speed."""
    made = deployed()
    text = only("prometheus", made)
    found = samples(text)
    assert text.endswith("\n")
    assert {timestamp for *_, timestamp in found} == {None}
    memory = [value for name, _, value, _ in found if name == "planner_plan_memory_bytes"]
    assert sum(memory) == sum(row.total_bytes for row in made.memory)
    speeds = {labels["bound"]: v for name, labels, v, _ in found if labels.get("test") == "generate"}
    assert made.speed.generate is not None
    assert speeds == {
        "expected": made.speed.generate.tokens_per_s,
        "low": made.speed.generate.low,
        "high": made.speed.generate.high,
    }
    assert all(name.endswith(("_bytes", "_info", "_seconds", "_tokens", "_sequences", "_second")) for name, *_ in found)
    helps = re.findall(r"^# HELP .*$", text, re.MULTILINE)
    assert helps == re.findall(r"^# HELP .*$", only("prometheus", deployed("other")), re.MULTILINE)


def test_a_label_says_hostile_names_or_refuses_them(deployed, hostile_names, said_or_refused):
    """A line feed is escaped; other controls are refused."""
    refused = []
    for name in hostile_names:
        made = deployed(name)

        def read(files, name=name):
            (text,) = files.values()
            ((_, labels, value, _),) = (each for each in samples(text) if each[0] == "planner_plan_info")
            assert (labels["model"], value) == (name, 1)

        if not said_or_refused("prometheus", made, read):
            refused.append(name)
    assert refused
    assert not any(name.isprintable() for name in refused)


# CycloneDX


@pytest.fixture(scope="module")
def strict():
    """The CycloneDX project's own strict validator of its 1.6 schema."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)

    def check(text):
        error = validator.validate_str(text)
        assert error is None, str(error)[:500]
        return json.loads(text)

    return check


def receipt(made):
    """A receipt of the deployment's weights."""
    files = tuple(
        ReceiptFile(path=path.rsplit("/", 1)[-1], size_bytes=7, sha256=SHA256, local_path=path, modified_ns=1, inode=1)
        for path in made.weights
    )
    return Receipt(
        plan_key="k", model=made.model, quantization=made.quantization, hub="hf", repo="owner/re po", commit="c" * 40,
        files=files, chat_template_sha256=SHA256, fetched_at=made.planned_at, created_by="planner 0.1.0",
    )  # fmt: skip


def test_a_bill_without_a_fetch_says_what_is_known_and_no_more(deployed, strict):
    """No hash, no licence, no source that nobody knows."""
    made = replace(deployed(), facts=None, artifact=None)
    bill = strict(only("cyclonedx", made))
    model = bill["components"][0]
    assert model["type"] == "machine-learning-model"
    assert not {"hashes", "licenses", "externalReferences", "supplier"} & model.keys()
    assert bill == strict(only("cyclonedx", made))


def test_a_bill_after_a_fetch_has_hashes_licence_and_source(deployed, strict):
    """SHA-256 of each file, the SPDX name, the repository at its commit, the template's hash."""
    from planner.types.deployment import ExportOptions

    made = replace(deployed(), facts=FACTS)
    bill = strict(only("cyclonedx", made, ExportOptions(receipt=receipt(made))))
    model, file, engine = bill["components"]
    hashes = [{"alg": "SHA-256", "content": SHA256}]
    assert (model["hashes"], file["hashes"]) == (hashes, hashes)
    assert model["licenses"] == [{"license": {"id": "Apache-2.0", "url": "https://example.com/LICENSE"}}]
    assert model["externalReferences"] == [{"type": "distribution", "url": "https://huggingface.co/owner/re%20po"}]
    told = {each["name"]: each["value"] for each in model["properties"]}
    assert (told["planner:commit"], told["planner:chatTemplateSha256"]) == ("c" * 40, SHA256)
    assert engine["name"] == "llama.cpp"
    other = replace(made, facts=replace(FACTS, license="Qwen Research License", license_source="read in a blog"))
    licence = strict(only("cyclonedx", other))["components"][0]["licenses"]
    assert licence == [{"license": {"name": "Qwen Research License"}}]


def test_a_hash_that_is_none_is_left_out(deployed, strict):
    """A hub is a stranger: what it calls a hash must look like one."""
    part = Part(path="x/qwen3-8b", sha256="; rm -rf", size_bytes=5)
    made = replace(deployed(), artifact=Artifact(hub="ms", name="x", repo="a/b", parts=(part,)), facts=FACTS)
    bill = strict(only("cyclonedx", made))
    assert all("hashes" not in component for component in bill["components"])
    assert "modelscope.cn" in bill["components"][0]["externalReferences"][0]["url"]


def test_every_licence_that_has_an_spdx_name_is_one_of_spdx():
    """The few that are translated are in the list that the validator uses."""
    import cyclonedx.schema._res as resources

    from planner.render.export.cyclonedx import _SPDX

    names = json.loads((Path(resources.__file__).parent / "spdx.SNAPSHOT.schema.json").read_text())["enum"]
    assert set(_SPDX.values()) <= set(names)


def test_a_bill_says_every_hostile_name(deployed, hostile_names, strict):
    """JSON holds every name; every hundredth also goes through the strict validator, which takes its time."""
    for number, name in enumerate(hostile_names):
        made = replace(deployed(name), facts=replace(FACTS, name=name, hf_repo=name, license=name, vendor=name))
        text = only("cyclonedx", made)
        bill = strict(text) if number % 100 == 0 else json.loads(text)
        assert bill["components"][0]["name"] == name
        assert bill["components"][1]["name"] == name
        assert bill["components"][0]["licenses"][0]["license"] == {"name": name, "url": FACTS.license_source}
