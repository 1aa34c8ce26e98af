"""The JSON documents that are no struct of :mod:`planner.types`: the list of models and the error.

They exist so that every document on stdout has a published schema, errors included.
"""

from collections.abc import Iterable

from planner.types import Report
from planner.types.model import Model

__all__ = ["ErrorBody", "ErrorDocument", "ModelEntry", "ModelsDocument", "models_document"]


class ErrorBody(Report, frozen=True, kw_only=True):
    """What went wrong: a stable ``code``, the process's ``exit_code``, one sentence, and the remedy in ``hint``."""

    code: str
    exit_code: int
    message: str
    hint: str


class ErrorDocument(Report, frozen=True, kw_only=True):
    """The one document that a failed command with ``--json`` puts on stdout."""

    error: ErrorBody


class ModelEntry(Report, frozen=True, kw_only=True):
    """One model of the catalogue; ``name`` is the id that every command takes."""

    name: str
    title: str
    family: str
    vendor: str
    architecture: str
    parameters: int
    parameters_active: int
    context_native: int
    context_extended: int | None
    license: str
    license_commercial: bool | None
    thinking: str
    uses: tuple[str, ...]
    released: str | None
    hf_repo: str | None
    modelscope_id: str | None
    sources: tuple[str, ...]


class ModelsDocument(Report, frozen=True, kw_only=True):
    """What ``planner models --json`` prints."""

    schema: str = "planner/models/1"
    models: tuple[ModelEntry, ...]


def models_document(models: Iterable[Model]) -> ModelsDocument:
    """The catalogue's models as a document, in the order given."""
    return ModelsDocument(models=tuple(_entry(model) for model in models))


def _entry(model: Model) -> ModelEntry:
    return ModelEntry(
        name=model.id,
        title=model.name,
        family=model.family,
        vendor=model.vendor,
        architecture=model.architecture,
        parameters=model.parameters,
        parameters_active=model.parameters_active,
        context_native=model.context_native,
        context_extended=model.context_extended,
        license=model.license.id,
        license_commercial=model.license.commercial,
        thinking=model.thinking,
        uses=model.uses,
        released=model.released,
        hf_repo=model.hf_repo,
        modelscope_id=model.modelscope_id,
        sources=model.sources,
    )
