"""From a reference to the files it means: listed by whoever knows them, narrowed, and matched with local copies.

The mistake it prevents is silence: an unknown quantization names those that are there, a listing from the cache says of
when it is, and a set that lacks a part is told with its name.
"""

import msgspec

from planner.errors import MissingInputError
from planner.hub import folder, huggingface, modelscope, web
from planner.hub.cache import known_listing, remember_listing
from planner.hub.faults import offline as offline_error
from planner.hub.local_caches import from_copies, local_models, with_copies
from planner.hub.names import same_quantization
from planner.hub.patience import PATIENCE, Patience
from planner.types.artifact import Artifact, LocalModel, Reference, Repository

__all__ = ["find", "find_projector", "narrowed"]


def find(reference: Reference, *, offline: bool = False, patience: Patience = PATIENCE) -> Repository:
    """The files that ``reference`` means, its quantization or file already chosen where it names one.

    Without the network (``offline``, or HF_HUB_OFFLINE) the last listing serves, else the copies on this disk. Raises
    PlannerError: not there (66), gated or not permitted (77), rate limited (75), unreachable or unknown offline (69).
    """
    return narrowed(_everything(reference, offline, patience), reference)


def find_projector(reference: Reference, *, offline: bool = False, patience: Patience = PATIENCE) -> Artifact:
    """The projector (mmproj) that ``reference`` names, or that its repository holds; of several F16 or the first.

    Raises :class:`MissingInputError` (``no-projector``) where there is none, and what :func:`find` raises.
    """
    repository = _everything(reference, offline, patience)
    here = [artifact for artifact in repository.artifacts if artifact.complete]
    if reference.kind in {"local", "url"} and len(here) == 1:
        return here[0]  # somebody who names one file means it, whatever it is called; its header tells
    found = [each for each in here if each.kind == "mmproj" and _names_file(each, reference.file)]
    if not found:
        raise MissingInputError(
            f"{reference.text}: there is no projector in it",
            hint="name the mmproj-….gguf that its publisher put beside the model",
            code="no-projector",
        )
    return min(found, key=lambda each: ("F16" not in each.name.upper().replace("BF16", ""), each.name))


def _everything(reference: Reference, offline: bool, patience: Patience) -> Repository:
    """All that a reference's place holds, not narrowed."""
    if reference.kind == "local":
        return folder.list_path(reference)
    local = local_models()
    if offline or huggingface.switched_off():
        repository = known_listing(_key(reference)) or _on_disk(reference, local)
    else:
        repository = _listed(reference, patience)
        remember_listing(_key(reference), repository)
    return with_copies(repository, local)


def narrowed(repository: Repository, reference: Reference) -> Repository:
    """The repository with the models left that the reference asks for, and all that is no model.

    Raises :class:`MissingInputError` when none is left, naming those that are there.
    """
    chosen = [artifact for artifact in repository.models if _names_file(artifact, reference.file)]
    if reference.quantization is not None:
        wanted = reference.quantization
        exact = [artifact for artifact in chosen if same_quantization(wanted, artifact.quantization)]
        chosen = exact or [
            artifact for artifact in chosen if same_quantization(wanted, artifact.quantization, exactly=False)
        ]
    if not chosen:
        raise _nothing_left(repository, reference)
    others = [artifact for artifact in repository.artifacts if artifact.kind != "model"]
    return msgspec.structs.replace(repository, artifacts=(*chosen, *others))


def _names_file(artifact: Artifact, file: str | None) -> bool:
    if file is None or artifact.hub in {"url", "local"}:
        return True
    return any(part.path == file for part in artifact.parts) or file in artifact.missing


def _nothing_left(repository: Repository, reference: Reference) -> MissingInputError:
    name = reference.text
    if not repository.models:
        return MissingInputError(
            f"{name}: there is no GGUF model in it",
            hint="name a repository with GGUF files; their names often end in -GGUF",
            code="no-gguf",
        )
    wanted = reference.file or reference.quantization
    there = dict.fromkeys(artifact.quantization or artifact.name for artifact in repository.models)
    return MissingInputError(
        f"{name}: {wanted} is not among its files", hint=f"it has {', '.join(there)}", code="unknown-quantization"
    )


def _key(reference: Reference) -> str:
    """What a listing is kept under: the reference without what only narrows it, and the server it was asked of."""
    if reference.kind == "url":
        return f"url {reference.url}"
    endpoint = (huggingface if reference.kind == "hf" else modelscope).page_of(reference.repo or "")
    return f"{reference.kind} {endpoint.lower()} {reference.revision or ''}"


def _listed(reference: Reference, patience: Patience) -> Repository:
    if reference.kind == "hf":
        return huggingface.list_repository(reference, patience)
    if reference.kind == "ms":
        return modelscope.list_repository(reference, patience)
    return web.list_address(reference, patience)


def _on_disk(reference: Reference, local: tuple[LocalModel, ...]) -> Repository:
    known = from_copies(reference.kind, reference.repo, local) if reference.repo else None
    if known is None:
        raise offline_error(reference.text)
    return known
