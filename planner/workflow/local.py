"""Models that are on this machine already: found in other programs' caches, recognised, opened, preferred.

The mistake it prevents is telling somebody to download fifty gigabytes that lie on the disk, and its opposite: starting
a file that only bears the model's name. A copy is recognised by its repository's name, its quantization and its size.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from planner import catalogue, hub
from planner.errors import MissingInputError, PlannerError
from planner.types import Report
from planner.types.artifact import Artifact, LocalModel, Repository
from planner.types.model import Model
from planner.workflow.listing import ModelFilter, check_names, has_facts, room_bytes
from planner.workflow.session import Session

__all__ = [
    "LocalCopy",
    "LocalListing",
    "complete_copies",
    "copies_here",
    "copy_of",
    "local_models",
    "model_named",
    "open_copies",
]

_TOKENIZER_BYTES = 32 << 20
_TOLERANCE = 0.01
"""A published file differs from the dry run of its recipe by its tokenizer and at most 1 %; more is another mix."""
_MOST_MODELS = 64
_NOT_HERE = (
    "no complete model is in the caches of Hugging Face, ModelScope, llama.cpp, LM Studio or Ollama on this machine"
)


class LocalCopy(Report, frozen=True, kw_only=True):
    """A model in some program's cache, and the catalogue's model that its repository is named after."""

    copy: LocalModel
    model: Model | None


class LocalListing(Report, frozen=True, kw_only=True):
    """What is here and was asked for; ``unrecognised`` counts what was left out because nobody knows what it is."""

    copies: tuple[LocalCopy, ...]
    unrecognised: int
    notes: tuple[str, ...]


def local_models(asked: ModelFilter) -> LocalListing:
    """The models in the caches of this machine that are all of what is asked; no file is opened.

    Sizes are those of the files. Family, licence, languages and thinking are facts of the catalogue, so a file that is
    not recognised does not pass when one of them is asked. Raises as :func:`planner.workflow.listing.select`.
    """
    known = catalogue.load()
    check_names(asked, known)
    models = tuple(known.models.values())
    limits = [limit for limit in (asked.max_bytes, room_bytes(asked)) if limit is not None]
    scan = hub.local_scan()
    weights = (each for each in scan.models if each.artifact.kind == "model")
    copies = [LocalCopy(copy=each, model=model_named(each.repo, models)) for each in weights if _within(each, limits)]
    facts = asked.families or asked.commercial or asked.languages or asked.thinking is not None
    passing = [each for each in copies if not facts or (each.model is not None and has_facts(asked, each.model))]
    return LocalListing(
        copies=tuple(passing),
        unrecognised=sum(each.model is None for each in copies) if facts else 0,
        notes=scan.notes,
    )


def model_named(repo: str | None, models: Iterable[Model]) -> Model | None:
    """The catalogue's model that a repository is named after: its own, or anybody's ``-GGUF`` sibling of it.

    The whole name has to agree (``Qwen3-8B-Base`` is not ``Qwen3-8B``); ``Qwen_Qwen3-8B`` names the owner within it.
    """
    if repo is None:
        return None
    whole = repo.casefold().removesuffix("-gguf")
    name = whole.rsplit("/", 1)[-1]
    named: dict[str, Model] = {}
    for model in models:
        for known in (model.hf_repo, model.modelscope_id):
            if known is not None:
                owner, _, short = known.casefold().partition("/")
                if whole == f"{owner}/{short}":
                    return model
                if name in {short, f"{owner}_{short}"}:
                    named[model.id] = model
    return next(iter(named.values())) if len(named) == 1 else None


def complete_copies(models: Iterable[Model], local: Iterable[LocalModel]) -> Mapping[tuple[str, str], Artifact]:
    """The complete copies of the catalogue's models by id and quantization, the first found of each."""
    known = tuple(models)
    found: dict[tuple[str, str], Artifact] = {}
    for each in local:
        label = each.artifact.quantization
        model = model_named(each.repo, known) if _is_usable(each) else None
        if model is not None and label is not None:
            found.setdefault((model.id, label.upper()), each.artifact)
    return found


def copy_of(
    copies: Mapping[tuple[str, str], Artifact], model: str, quantization: str, weights_bytes: int
) -> Artifact | None:
    """The copy of a model in a quantization, when its size is that of the weights that were planned for."""
    found = copies.get((model, quantization.upper()))
    size = found.size_bytes if found is not None else None
    if size is None:
        return None
    slack = _TOLERANCE * weights_bytes
    return found if -slack <= size - weights_bytes <= slack + _TOKENIZER_BYTES else None


def copies_here(session: Session) -> Mapping[tuple[str, str], Artifact]:
    """As :func:`complete_copies`, on this machine; nothing when another one is planned for."""
    if not session.local:
        return {}
    return complete_copies(session.sources.catalogue.models.values(), hub.local_models())


def open_copies(session: Session) -> tuple[str, ...]:
    """Opens every complete model that is on this machine; gives a warning for each that cannot be read.

    Raises :class:`MissingInputError` (code ``no-local-models``) when none is left.
    """
    scan = hub.local_scan()
    warnings = list(scan.notes)
    repositories = _repositories(scan.models)
    if len(repositories) > _MOST_MODELS:
        warnings.append(f"{len(repositories) - _MOST_MODELS} of {len(repositories)} local models were not looked at")
    for repository in repositories[:_MOST_MODELS]:
        try:
            session.sources.open(repository, session.oracle.child)
        except PlannerError as error:
            warnings.append(f"{repository.name} was left out: {error.message}")
    if not session.sources.opened:
        why = f" ({'; '.join(warnings[:3])})" if warnings else ""
        raise MissingInputError(
            f"{_NOT_HERE}{why}", hint="planner models --local shows what was found", code="no-local-models"
        )
    return tuple(warnings)


def _repositories(local: Iterable[LocalModel]) -> list[Repository]:
    """Complete models by the repository they came from, each once, however many programs or commits hold it."""
    contents: set[str] = set()
    found: dict[str, Repository] = {}
    for each in local:
        marks = {part.sha256 or part.local_path or part.path for part in each.artifact.parts}
        if not _is_usable(each) or marks <= contents:
            continue
        contents |= marks
        hub_kind = each.hub if each.hub is not None and each.repo is not None else "local"
        name = each.repo or each.name
        key = f"{hub_kind}:{name}".casefold()
        before = found.setdefault(key, Repository(hub=hub_kind, name=name))
        if each.artifact.name not in {artifact.name for artifact in before.artifacts}:
            found[key] = msgspec.structs.replace(before, artifacts=(*before.artifacts, each.artifact))
    return list(found.values())


def _is_usable(each: LocalModel) -> bool:
    return each.artifact.kind == "model" and each.artifact.on_disk


def _within(each: LocalModel, limits: Sequence[int]) -> bool:
    size = each.artifact.size_bytes
    return all(size is not None and size <= limit for limit in limits)
