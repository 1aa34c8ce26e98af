"""The deployment as a bill of materials (CycloneDX 1.6, ML-BOM): which model, which files and hashes, which engine.

The mistake it prevents: a bill that says more than is known. A hash stands in it where a fetch computed it or a hub
names it, a licence by its SPDX name only where it is one, and nothing is made up to fill a field.

Format: JSON schema of CycloneDX 1.6, which a test checks strictly with the project's own validator.
"""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime

from planner.types.deployment import Deployment, ExportOptions
from planner.types.receipt import Receipt

__all__ = ["render"]

_SPDX = {name.lower(): name for name in ("Apache-2.0", "MIT", "AGPL-3.0-only", "CC-BY-4.0", "CC-BY-NC-4.0")}
"""Licences of models that SPDX has a name for, in lower case as hubs write them; all others go by their own name."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_IN_A_PATH = re.compile(r"[^A-Za-z0-9._~/-]")
"""What RFC 3986 does not leave as it is in a path."""
_HUBS = {"hf": "https://huggingface.co/", "ms": "https://modelscope.cn/models/"}
_Json = dict[str, object]


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:
    """``NAME.cdx.json``; the hashes are those of the receipt of ``planner fetch``, where there is one."""
    files = _files(deployment, options.receipt)
    model, engine = _model(deployment, options.receipt, files), _engine(deployment)
    document: _Json = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": _metadata(deployment),
        "components": [model, *files, engine],
        "dependencies": [
            {"ref": "deployment", "dependsOn": ["model", "engine"]},
            {"ref": "model", "dependsOn": [each["bom-ref"] for each in files]},
            {"ref": "engine"},
            *({"ref": each["bom-ref"]} for each in files),
        ],
    }
    # Named by its contents, so that the same plan gives the same bill.
    name = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    text = json.dumps({"serialNumber": name.urn, **document}, indent=2, ensure_ascii=False)
    return {f"{deployment.name}.cdx.json": text + "\n"}


def _metadata(deployment: Deployment) -> _Json:
    name, _, version = deployment.planned_by.partition(" ")
    tool: _Json = {"type": "application", "name": name or "planner", **({"version": version} if version else {})}
    told: _Json = {
        "tools": {"components": [tool]},
        "component": {"type": "application", "bom-ref": "deployment", "name": deployment.name},
    }
    try:
        aware = datetime.fromisoformat(deployment.planned_at).tzinfo is not None
    except ValueError:
        aware = False
    return {"timestamp": deployment.planned_at, **told} if aware else told


def _model(deployment: Deployment, receipt: Receipt | None, files: Sequence[_Json]) -> _Json:
    facts = deployment.facts
    component: _Json = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": deployment.model,
        "version": deployment.quantization,
        "modelCard": _card(deployment),
        "properties": _properties(
            {
                "quantization": deployment.quantization,
                "weightsBytes": deployment.file_bytes,
                "parameters": facts.parameters if facts is not None else None,
                "parametersActive": facts.parameters_active if facts is not None else None,
                "contextTokens": deployment.settings.context_tokens,
                "hub": receipt.hub if receipt is not None else None,
                "commit": _commit(deployment, receipt),
                "chatTemplateSha256": receipt.chat_template_sha256 if receipt is not None else None,
            }
        ),
    }
    if len(files) == 1 and "hashes" in files[0]:
        component["hashes"] = files[0]["hashes"]
    if references := _references(deployment, receipt):
        component["externalReferences"] = references
    if facts is not None:
        component["supplier"] = {"name": facts.vendor}
        component["licenses"] = [{"license": _license(facts.license, facts.license_source)}]
        if facts.hf_repo:
            base: _Json = {"type": "machine-learning-model", "name": facts.hf_repo}
            component["pedigree"] = {"ancestors": [base]}
    return component


def _card(deployment: Deployment) -> _Json:
    speed = deployment.speed.generate
    parameters: _Json = {"task": "text-generation", "inputs": [{"format": "text"}], "outputs": [{"format": "text"}]}
    if deployment.facts is not None:
        parameters["modelArchitecture"] = deployment.facts.architecture
    card: _Json = {"modelParameters": parameters}
    if speed is not None:
        metric = {
            "type": f"tokens per second, {speed.origin}",
            "value": f"{speed.tokens_per_s:.6g}",
            "slice": f"at a depth of {speed.at_context_tokens} tokens",
            "confidenceInterval": {"lowerBound": f"{speed.low:.6g}", "upperBound": f"{speed.high:.6g}"},
        }
        card["quantitativeAnalysis"] = {"performanceMetrics": [metric]}
    return card


def _files(deployment: Deployment, receipt: Receipt | None) -> list[_Json]:
    """One component for each part of the weights, with its size and hash where they are known."""
    known: dict[str, tuple[int | None, str | None]] = {}
    for part in deployment.artifact.parts if deployment.artifact is not None else ():
        known[_base(part.local_path or part.path)] = (part.size_bytes, part.sha256)
    for file in receipt.files if receipt is not None else ():
        known[_base(file.local_path)] = (file.size_bytes, file.sha256)
    components = []
    for number, path in enumerate(deployment.weights, 1):
        size, sha256 = known.get(_base(path), (None, None))
        component: _Json = {"type": "file", "bom-ref": f"file-{number}", "name": _base(path)}
        if sha256 is not None and _SHA256.fullmatch(sha256.lower()):
            component["hashes"] = [{"alg": "SHA-256", "content": sha256.lower()}]
        if size is not None:
            component["properties"] = _properties({"sizeBytes": size})
        components.append(component)
    return components


def _engine(deployment: Deployment) -> _Json:
    return {
        "type": "application",
        "bom-ref": "engine",
        "name": "llama.cpp",
        "licenses": [{"license": {"id": "MIT"}}],
        "externalReferences": [{"type": "vcs", "url": "https://github.com/ggml-org/llama.cpp"}],
        "properties": _properties({"engineBuild": deployment.engine_build or None}),
    }


def _license(name: str, source: str | None) -> _Json:
    told: _Json = {"id": _SPDX[name.lower()]} if name.lower() in _SPDX else {"name": name}
    return {**told, "url": source} if source is not None and re.fullmatch(r"https://[!-;=?-~]+", source) else told


def _references(deployment: Deployment, receipt: Receipt | None) -> list[_Json]:
    artifact = deployment.artifact
    hub = receipt.hub if receipt is not None else artifact.hub if artifact is not None else None
    repo = receipt.repo if receipt is not None else artifact.repo if artifact is not None else None
    if hub not in _HUBS or not repo:
        return []
    return [{"type": "distribution", "url": _HUBS[hub] + _IN_A_PATH.sub(_percent, repo)}]


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def _commit(deployment: Deployment, receipt: Receipt | None) -> str | None:
    if receipt is not None:
        return receipt.commit
    return deployment.artifact.commit if deployment.artifact is not None else None


def _properties(values: Mapping[str, object]) -> list[_Json]:
    return [{"name": f"planner:{name}", "value": str(value)} for name, value in values.items() if value is not None]


def _base(path: str) -> str:
    return path.rsplit("/", 1)[-1]
