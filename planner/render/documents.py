"""The JSON documents that are no struct of :mod:`planner.types`: the list of models, one model, and the error.

They exist so that every document on stdout has a published schema, errors included.
"""

import hashlib
from collections.abc import Iterable
from typing import Literal

from planner.render.plan import answer
from planner.types import Report
from planner.types.artifact import CacheKind, LocalModel
from planner.types.inspection import FileSet, file_set
from planner.types.model import KnownModel, Model
from planner.types.plan import Plan
from planner.types.quality import Capability

__all__ = [
    "CompletionDocument",
    "ErrorBody",
    "ErrorDocument",
    "KnownEntry",
    "LocalDocument",
    "LocalEntry",
    "ModelDocument",
    "ModelEntry",
    "ModelsDocument",
    "ReportDocument",
    "local_document",
    "model_document",
    "models_document",
    "report_document",
]


class ErrorBody(Report, frozen=True, kw_only=True):
    """What went wrong: a stable ``code``, the process's ``exit_code``, one sentence, and the remedy in ``hint``."""

    code: str
    exit_code: int
    message: str
    hint: str


class ErrorDocument(Report, frozen=True, kw_only=True):
    """The one document that a failed command with ``--json`` puts on stdout."""

    error: ErrorBody


class CompletionDocument(Report, frozen=True, kw_only=True):
    """What ``planner completion --json`` prints: the script that a shell reads."""

    schema: str = "planner/completion/1"
    shell: str
    script: str


class ModelEntry(Report, frozen=True, kw_only=True):
    """One model of the catalogue; ``name`` is the id that every command takes."""

    name: str
    title: str
    family: str
    vendor: str
    architecture: str
    parameters: int
    parameters_active: int
    mtp_parameters: int | None
    vision: bool
    mmproj_bytes: int | None
    context_native: int
    context_extended: int | None
    license: str
    license_commercial: bool | None
    languages: tuple[str, ...] | None
    languages_claimed: int | None
    thinking: str
    thinking_tokens: int | None
    uses: tuple[str, ...]
    released: str | None
    hf_repo: str | None
    modelscope_id: str | None
    sources: tuple[str, ...]


class KnownEntry(Report, frozen=True, kw_only=True):
    """A model that is known and cannot be planned; ``reason`` says why."""

    name: str
    title: str
    family: str
    vendor: str
    reason: str
    license: str | None
    license_commercial: bool | None
    released: str | None
    hf_repo: str | None
    sources: tuple[str, ...]


class ModelsDocument(Report, frozen=True, kw_only=True):
    """What ``planner models --json`` prints.

    ``languages_unknown`` names the models that were left out only because no source tells which languages they speak.
    """

    schema: str = "planner/models/1"
    models: tuple[ModelEntry, ...]
    known_only: tuple[KnownEntry, ...] = ()
    languages_unknown: tuple[str, ...] = ()


class ModelDocument(Report, frozen=True, kw_only=True):
    """What ``planner show --json`` prints: ``model`` for one that can be planned, else ``known_only``.

    ``capabilities`` are the model's indices, one for each task group and mode that it has.
    """

    schema: str = "planner/model/1"
    model: Model | None
    known_only: KnownModel | None
    capabilities: tuple[Capability, ...] = ()


class LocalEntry(Report, frozen=True, kw_only=True):
    """A model that is on this machine: in whose cache, from which repository, and which files.

    ``model`` is the catalogue's model that the repository is named after, ``None`` where its name does not say.
    """

    source: CacheKind
    name: str
    repo: str | None
    model: str | None
    files: FileSet


class LocalDocument(Report, frozen=True, kw_only=True):
    """What ``planner models --local --json`` prints.

    ``unrecognised`` counts files that were left out because a fact of the catalogue was asked and nobody knows which
    model they are; ``notes`` says what could not be looked at.
    """

    schema: str = "planner/local-models/1"
    models: tuple[LocalEntry, ...]
    unrecognised: int
    notes: tuple[str, ...]


class ReportDocument(Report, frozen=True, kw_only=True):
    """What ``planner report --json`` prints: where the report is, or its ``text`` where no file was named.

    ``size_bytes`` and ``sha256`` are of the UTF-8 bytes; ``answers`` has one sentence for each plan.
    """

    schema: str = "planner/report/1"
    format: Literal["html", "markdown"]
    file: str | None
    text: str | None
    size_bytes: int
    sha256: str
    answers: tuple[str, ...]


def report_document(
    plans: Iterable[Plan], text: str, *, form: Literal["html", "markdown"], file: str | None
) -> ReportDocument:
    """The report as a document; its text is in it only when no file was written."""
    data = text.encode()
    return ReportDocument(
        format=form,
        file=file,
        text=text if file is None else None,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        answers=tuple(answer(plan) for plan in plans),
    )


def local_document(
    copies: Iterable[tuple[LocalModel, Model | None]], *, unrecognised: int = 0, notes: Iterable[str] = ()
) -> LocalDocument:
    """The models on this machine as a document, by program and name."""
    entries = [
        LocalEntry(
            source=copy.source,
            name=copy.name,
            repo=copy.repo,
            model=model.id if model is not None else None,
            files=file_set(copy.artifact),
        )
        for copy, model in copies
    ]
    entries.sort(key=lambda entry: (entry.source, entry.name, entry.files.path or ""))
    return LocalDocument(models=tuple(entries), unrecognised=unrecognised, notes=tuple(notes))


def models_document(
    models: Iterable[Model], known_only: Iterable[KnownModel] = (), languages_unknown: Iterable[str] = ()
) -> ModelsDocument:
    """The catalogue's models as a document, in the order given."""
    return ModelsDocument(
        models=tuple(_entry(model) for model in models),
        known_only=tuple(_known(model) for model in known_only),
        languages_unknown=tuple(languages_unknown),
    )


def model_document(model: Model | KnownModel, capabilities: Iterable[Capability] = ()) -> ModelDocument:
    """All facts about one model as a document, with its indices."""
    if isinstance(model, Model):
        return ModelDocument(model=model, known_only=None, capabilities=tuple(capabilities))
    return ModelDocument(model=None, known_only=model)


def _entry(model: Model) -> ModelEntry:
    return ModelEntry(
        name=model.id,
        title=model.name,
        family=model.family,
        vendor=model.vendor,
        architecture=model.architecture,
        parameters=model.parameters,
        parameters_active=model.parameters_active,
        mtp_parameters=model.mtp_parameters,
        vision=model.vision is not None,
        mmproj_bytes=model.vision.mmproj_bytes if model.vision is not None else None,
        context_native=model.context_native,
        context_extended=model.context_extended,
        license=model.license.id,
        license_commercial=model.license.commercial,
        languages=model.languages,
        languages_claimed=model.languages_claimed,
        thinking=model.thinking,
        thinking_tokens=model.thinking_tokens,
        uses=model.uses,
        released=model.released,
        hf_repo=model.hf_repo,
        modelscope_id=model.modelscope_id,
        sources=model.sources,
    )


def _known(model: KnownModel) -> KnownEntry:
    terms = model.license
    return KnownEntry(
        name=model.id,
        title=model.name,
        family=model.family,
        vendor=model.vendor,
        reason=model.reason,
        license=terms.id if terms is not None else None,
        license_commercial=terms.commercial if terms is not None else None,
        released=model.released,
        hf_repo=model.hf_repo,
        sources=model.sources,
    )
