"""A verification as JUnit XML, which every CI system shows: one test case for each promise.

The mistake it prevents is a skipped check that looks like a passed one: what is unknown is ``skipped`` with its reason,
and only what was missed is a ``failure``.
"""

import xml.etree.ElementTree as ET

from planner.render.untrusted import cleaned
from planner.types.verification import Check, Verification

__all__ = ["junit_xml"]


def junit_xml(report: Verification) -> bytes:
    """The report as a document of the Jenkins JUnit schema: one suite for each area, in the order of the checks."""
    told = cleaned(report)
    name = f"planner verify {told.model} {told.quantization}"
    root = ET.Element("testsuites", {"name": name, **_counts(told.checks), "time": f"{told.seconds:.3f}"})
    for area in dict.fromkeys(check.area for check in told.checks):
        checks = tuple(check for check in told.checks if check.area == area)
        suite = ET.SubElement(
            root, "testsuite", {"name": area, **_counts(checks), "time": "0", "timestamp": told.verified_at[:19]}
        )
        _properties(suite, told)
        for check in checks:
            _case(suite, check)
    ET.indent(root)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _counts(checks: tuple[Check, ...]) -> dict[str, str]:
    return {
        "tests": str(len(checks)),
        "failures": str(sum(check.status == "missed" for check in checks)),
        "errors": "0",
        "skipped": str(sum(check.status == "unknown" for check in checks)),
    }


def _properties(suite: ET.Element, told: Verification) -> None:
    box = ET.SubElement(suite, "properties")
    pairs = {
        "created_by": told.created_by,
        "server": told.server or "unknown",
        "url": told.url,
        "phantom": str(told.phantom).lower(),
        "quick": str(told.quick).lower(),
        "disturbed": "; ".join(told.conditions.disturbed),
    }
    for name, value in pairs.items():
        ET.SubElement(box, "property", {"name": name, "value": value})


def _case(suite: ET.Element, check: Check) -> None:
    case = ET.SubElement(suite, "testcase", {"name": check.name, "classname": f"planner.{check.area}", "time": "0"})
    words = f"planned {check.planned or 'nothing'}, found {check.found or 'nothing'}"
    told = f"{words}; {check.text}" if check.text else words
    if check.status == "missed":
        ET.SubElement(case, "failure", {"message": told, "type": "missed"}).text = told
    elif check.status == "unknown":
        ET.SubElement(case, "skipped", {"message": check.text or words})
    else:
        ET.SubElement(case, "system-out").text = f"{check.status}: {told}"
