import json

import jsonschema
import msgspec
import pytest

from planner.render.documents import (
    CompletionDocument,
    ErrorBody,
    ErrorDocument,
    model_document,
    models_document,
    report_document,
)
from planner.render.json import to_json
from planner.render.schema import DOCUMENTS, schema_json, schema_of
from planner.types.deployment import Exported, ExportedFile
from planner.types.imported import Imported, ImportedRow, Kept
from planner.types.plan import Plan
from planner.types.receipt import CleanReport, Fetched, Leftover, Receipt, ReceiptFile
from planner.types.serving import Death, ServeReport
from planner.types.verification import Check, Verification


def test_a_plan_survives_the_journey_through_json_byte_for_byte(plan, samples):
    """Decoded and encoded again it is the same file: deterministic, indented, one newline at the end."""
    data = to_json(plan)
    assert to_json(msgspec.json.decode(data, type=Plan)) == data
    assert data == (samples / "plan.json").read_bytes()
    assert data.endswith(b"}\n")


def test_mappings_are_sorted_whatever_their_order_was(plan):
    """Two equal plans are equal files."""
    commands = msgspec.structs.replace(plan.commands, environment={"B": "2", "A": "1"})
    swapped = msgspec.structs.replace(plan.commands, environment={"A": "1", "B": "2"})
    assert to_json(commands) == to_json(swapped)


@pytest.mark.parametrize("name", ["plan", "tuning"])
def test_the_committed_schema_is_the_generated_one(request, name):
    """`planner schema plan > docs/schema/plan-1.json` was not forgotten."""
    committed = request.config.rootpath / "docs" / "schema" / f"{name}-1.json"
    assert committed.read_bytes() == schema_json(DOCUMENTS[name])


@pytest.mark.parametrize("name", sorted(DOCUMENTS))
def test_every_schema_is_a_schema(name):
    """Valid under JSON Schema 2020-12."""
    jsonschema.Draft202012Validator.check_schema(schema_of(DOCUMENTS[name]))


def test_documents_validate_against_their_schemas(
    plan, chosen, explained, drifted, model, known, inspection, local, calibration, tuning
):
    """What is printed is what is published."""
    error = ErrorDocument(error=ErrorBody(code="usage", exit_code=2, message="m", hint=""))
    row = ImportedRow(test=plan.measurements[0].results[0].test, mean_tokens_per_s=12.5, fields={"n_gen": "128"})
    imported = Imported(source="theirs.csv", format="csv", imported_at="2026-01-01T00:00:00+00:00", rows=(row,))
    when = "2026-01-01T00:00:00+00:00"
    file = ReceiptFile(path="m.gguf", size_bytes=1, sha256="0" * 64, local_path="/m.gguf", modified_ns=0, inode=0)
    receipt = Receipt(
        plan_key="k", model="m", quantization="Q4_K_M", hub="hf", repo="o/m", commit="c", files=(file,),
        chat_template_sha256=None, fetched_at=when, created_by="planner",
    )  # fmt: skip
    exported = ExportedFile(name="m.env", text="A=1")
    check = Check(area="memory", name="resident", status="met")
    documents = {
        "plan": plan,
        "machine": plan.machine,
        "estimate": chosen,
        "explanation": explained,
        "drift": drifted,
        "models": models_document([model], [known], ["qwen3-vl-2b"]),
        "model": model_document(model),
        "inspection": inspection,
        "local-models": local,
        "measurement": plan.measurements[0],
        "calibration": calibration,
        "tuning": tuning,
        "imported": imported,
        "kept": Kept(machine_key="k", measurements=plan.measurements, imported=(imported,)),
        "report": report_document([plan], "text", form="markdown", file=None),
        "fetched": Fetched(receipt=receipt, receipt_path="/r.json", received_bytes=1, resumed_bytes=0),
        "clean": CleanReport(removed=False, leftovers=(Leftover(what="w", path="/p", size_bytes=1),), size_bytes=1),
        "exported": Exported(format="env", name="n", weights=("/m.gguf",), argv=("llama-server",), files=(exported,)),
        "serve": ServeReport(
            name="n", server="llama-server", url="http://127.0.0.1:8080", weights="/m.gguf", phantom=False,
            log="/l", stopped_by="SIGTERM", ready_after_s=1.0, served_s=2.0,
            deaths=(Death(how="killed", after_s=1.0, was_ready=True),),
        ),
        "verification": Verification(
            model="m", quantization="Q4_K_M", verified_at=when, created_by="planner", url="http://127.0.0.1:8080",
            server=None, started=False, phantom=False, quick=True, drifted=False, checks=(check,), seconds=1.0,
            conditions=plan.measurements[0].conditions,
        ),
        "completion": CompletionDocument(shell="bash", script="complete"),  # noqa: S604 - the name of a shell, no call
        "error": error,
    }  # fmt: skip
    assert set(documents) == set(DOCUMENTS)
    for name, document in documents.items():
        jsonschema.validate(json.loads(to_json(document)), schema_of(DOCUMENTS[name]))


def test_a_document_of_another_version_is_refused(plan):
    """The schema's own name is part of the schema."""
    document = json.loads(to_json(plan)) | {"schema": "planner/plan/2"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema_of(Plan))


def test_the_model_list_names_models_by_the_id_that_commands_take(model):
    """``{"models": [{"name": "qwen3-8b"}]}``."""
    document = json.loads(to_json(models_document([model])))
    assert document["models"][0]["name"] == "qwen3-8b"
