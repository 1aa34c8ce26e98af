"""The published JSON Schemas (2020-12), made from the very structs that are printed: there is no second description."""

import msgspec

from planner.measure.calibration import CalibrationTold
from planner.render.documents import (
    CompletionDocument,
    ErrorDocument,
    LocalDocument,
    ModelDocument,
    ModelsDocument,
    ReportDocument,
)
from planner.types.deployment import Exported
from planner.types.drift import DriftReport
from planner.types.explanation import Explanation
from planner.types.imported import Imported, Kept
from planner.types.inspection import Inspection
from planner.types.machine import Machine
from planner.types.measurement import Measurement
from planner.types.plan import Candidate, Plan
from planner.types.receipt import CleanReport, Fetched
from planner.types.serving import ServeReport
from planner.types.tuning import Tuning
from planner.types.verification import Verification

__all__ = ["DOCUMENTS", "schema_json", "schema_of"]

DOCUMENTS: dict[str, type[msgspec.Struct]] = {
    "plan": Plan,
    "machine": Machine,
    "estimate": Candidate,
    "explanation": Explanation,
    "models": ModelsDocument,
    "model": ModelDocument,
    "local-models": LocalDocument,
    "inspection": Inspection,
    "measurement": Measurement,
    "calibration": CalibrationTold,
    "imported": Imported,
    "kept": Kept,
    "tuning": Tuning,
    "drift": DriftReport,
    "fetched": Fetched,
    "clean": CleanReport,
    "serve": ServeReport,
    "verification": Verification,
    "exported": Exported,
    "completion": CompletionDocument,
    "report": ReportDocument,
    "error": ErrorDocument,
}
"""Documents by the name that ``planner schema`` takes; the command adds those whose structs live above this room."""


def schema_of(document: type[msgspec.Struct]) -> dict[str, object]:
    """The JSON Schema of a struct; a document that names its own schema is held to exactly that name."""
    schema: dict[str, object] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    schema.update(msgspec.json.schema(document))
    definitions = schema["$defs"]
    if isinstance(definitions, dict):
        for definition in definitions.values():
            _pin_name(definition)
    return schema


def schema_json(document: type[msgspec.Struct]) -> bytes:
    """The JSON Schema of a struct as bytes, keys sorted: the file that is committed under ``docs/schema``."""
    return msgspec.json.format(msgspec.json.encode(schema_of(document), order="sorted"), indent=2) + b"\n"


def _pin_name(definition: dict[str, dict[str, dict[str, object]]]) -> None:
    name = definition.get("properties", {}).get("schema")
    if name is not None and isinstance(name.get("default"), str):
        name["const"] = name["default"]
