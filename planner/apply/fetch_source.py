"""Which files a plan wants, and from where: what it names itself, else what the user offers for it.

The mistake it prevents is choosing a stranger's repository for somebody because its name looks right: a plan from the
catalogue names a model and a recipe, and who is trusted with the file is the user's to say.
"""

from typing import NamedTuple

import msgspec

from planner import hub
from planner.apply.fetch_match import differences
from planner.errors import BadInputError, ExitCode, PlannerError, UsageError
from planner.hub.listing import find_projector
from planner.hub.names import kind_of
from planner.types.artifact import Artifact, Reference, Repository
from planner.types.plan import Candidate, Plan

__all__ = ["Wanted", "wanted_files"]


class Wanted(NamedTuple):
    """The file sets to fetch, the model first, and what has to be told about them."""

    artifacts: tuple[Artifact, ...]
    notes: tuple[str, ...]


def wanted_files(
    plan: Plan, *, source: str | None = None, also: tuple[str, ...] = (), accept: bool = False, offline: bool = False
) -> Wanted:
    """The plan's own files, or those of ``source`` when it names the same model; ``also`` are companions by reference.

    Raises PlannerError: nothing chosen (10), no repository named (2, ``no-repository``), another model (65,
    ``another-model``) or another size (65, ``another-size``) than planned, and what listing a repository raises.
    """
    chosen = plan.chosen
    if chosen is None:
        raise PlannerError(
            "the plan chose nothing, so there is nothing to fetch",
            hint="make a plan that meets its goal: planner plan",
            code="nothing-chosen",
            exit_code=ExitCode.NOTHING_MEETS_THE_GOAL,
        )
    notes: tuple[str, ...] = ()
    if source is not None:
        model = _offered(chosen, source, offline)
        notes = _compared(plan, model, accept=accept, offline=offline)
    elif chosen.artifact is None:
        raise _no_repository(plan, chosen)
    else:
        model = _pinned(chosen.artifact, offline)
    companions = tuple(_companion(text, offline) for text in also)
    return Wanted((model, *companions), notes)


def _offered(chosen: Candidate, source: str, offline: bool) -> Artifact:
    reference = _reference(source, "--from")
    if reference.quantization is None and reference.file is None:
        reference = msgspec.structs.replace(reference, quantization=chosen.quantization)
    return _only(hub.find(reference, offline=offline), reference.text)


def _companion(text: str, offline: bool) -> Artifact:
    """A projector where a file of that kind is named, else a model, which can only be one that drafts."""
    reference = _reference(text, "--also")
    if kind_of(reference.file or "") == "mmproj":
        return find_projector(reference, offline=offline)
    found = _only(hub.find(reference, offline=offline), reference.text)
    return msgspec.structs.replace(found, kind="draft")


def _reference(text: str, option: str) -> Reference:
    reference = hub.parse_reference(text)
    if reference is None or reference.kind not in {"hf", "ms"}:
        raise UsageError(
            f"{option} {text}: it names no repository of a hub",
            hint=f"write {option} hf:owner/repo:Q4_K_M or ms:owner/repo:Q4_K_M; a file that is here needs no fetching",
        )
    return reference


def _only(repository: Repository, name: str) -> Artifact:
    whole = [artifact for artifact in repository.models if artifact.complete]
    if len(whole) == 1:
        return whole[0]
    if not whole:
        lacks = ", ".join(repository.models[0].missing[:3])
        raise BadInputError(
            f"{name}: the set is incomplete: {lacks} is missing",
            hint="name another repository",
            code="incomplete-set",
        )
    names = ", ".join(artifact.name for artifact in whole[:8])
    raise UsageError(
        f"{name} means several files: {names}",
        hint=f"name one of them: {repository.hub}:{repository.name}/{whole[0].parts[0].path}",
    )


def _compared(plan: Plan, model: Artifact, *, accept: bool, offline: bool) -> tuple[str, ...]:
    found = differences(plan, model, offline=offline)
    if found and not accept:
        raise BadInputError(
            "; ".join(found),
            hint="it is another mix of types than the plan counted with: make a plan for it (planner plan --model "
            f"{model.hub}:{model.repo}), or take it all the same with --accept",
            code="another-size",
        )
    return found


def _pinned(artifact: Artifact, offline: bool) -> Artifact:
    """The artifact with a commit and addresses: a copy on this disk may be gone, and has neither."""
    if artifact.on_disk or artifact.hub in {"local", "url"}:
        return artifact
    if artifact.hub == "ms" or artifact.commit is not None:
        return artifact
    path = artifact.parts[0].path if artifact.parts else artifact.name
    name = f"{artifact.hub}:{artifact.repo}/{path}"
    found = _only(
        hub.find(Reference(kind=artifact.hub, text=name, repo=artifact.repo, file=path), offline=offline), name
    )
    if artifact.size_bytes not in {None, found.size_bytes}:
        raise PlannerError(
            f"{name} has {found.size_bytes} bytes now, the plan was made for {artifact.size_bytes}",
            hint="make the plan anew",
            code="changed",
            exit_code=ExitCode.BUSY,
        )
    return found


def _no_repository(plan: Plan, chosen: Candidate) -> UsageError:
    repo = plan.model.hf_repo if plan.model is not None else None
    name = repo.rsplit("/", 1)[-1] if repo else chosen.model
    by = f", made from {repo}" if repo else ""
    return UsageError(
        f"the plan names {chosen.model} in {chosen.quantization}{by}, and no repository to fetch it from",
        hint=f"say whose file you trust: --from hf:OWNER/{name}-GGUF:{chosen.quantization}, or ms:…; the publisher's "
        "own repository often ends in -GGUF",
        code="no-repository",
    )
