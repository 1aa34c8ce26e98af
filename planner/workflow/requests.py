"""What a command asks about one model: its name or files, its quantization, its settings; told before an engine starts.

The mistake it prevents: ``estimate``, ``measure`` and ``inspect`` reading the same MODEL argument in three ways.
"""

from planner import hub
from planner.catalogue import Catalogue
from planner.errors import UsageError
from planner.types import Report
from planner.types.artifact import Repository
from planner.types.machine import Machine
from planner.types.model import Model, Quantization
from planner.types.settings import (
    CacheType,
    FlashAttention,
    LazyMode,
    LoadMode,
    Settings,
    Speculation,
    SplitMode,
    TensorOverride,
)
from planner.workflow.companions import Companions, Drafter, Projector
from planner.workflow.session import Session
from planner.workflow.sources import find_files

__all__ = [
    "DEFAULT_CONTEXT_TOKENS",
    "EstimateRequest",
    "check_context",
    "companions_in",
    "files_named",
    "named_files",
    "requested_settings",
    "split_name",
    "subject_in",
]

_DEFAULT_QUANTIZATION = "Q4_K_M"
DEFAULT_CONTEXT_TOKENS = 8192
"""Tokens per sequence where nobody asks for another context, and the model has them."""
_DERIVED = ("context_tokens", "parallel", "threads", "threads_batch", "speculation")


class EstimateRequest(Report, frozen=True, kw_only=True):
    """One model and the settings that were asked for; what is ``None`` takes llama.cpp's default.

    ``model`` is a name of the catalogue, with or without ``:QUANT``, or a reference to files (``hf:owner/repo:QUANT``,
    a path, an address). ``context_tokens`` is per sequence, as in a goal. ``machine`` is a shipped name or a file;
    ``None`` is this one. ``mtp`` drafts with the model's own block for several tokens, ``draft`` names the small model
    that drafts instead. ``mmproj`` names the files of a projector as ``model`` does, ``image_max_tokens`` caps what a
    picture becomes. ``if_memory`` asks how fast it would be with memory that this machine lacks. The other names are
    those of :class:`Settings`.
    """

    model: str
    quantization: str | None = None
    context_tokens: int | None = None
    parallel: int = 1
    cache_type_k: CacheType | None = None
    cache_type_v: CacheType | None = None
    load_mode: LoadMode | None = None
    ubatch: int | None = None
    batch: int | None = None
    flash_attention: FlashAttention | None = None
    repack: bool | None = None
    gpu_layers: int | None = None
    cpu_moe_layers: int | None = None
    kv_unified: bool | None = None
    swa_full: bool | None = None
    outputs_max: int | None = None
    lazy_mode: LazyMode | None = None
    split_mode: SplitMode | None = None
    main_gpu: int | None = None
    tensor_split: tuple[float, ...] | None = None
    tensor_overrides: tuple[TensorOverride, ...] | None = None
    host_buffer: bool | None = None
    kv_offload: bool | None = None
    op_offload: bool | None = None
    mtp: bool = False
    draft: str | None = None
    draft_tokens: int | None = None
    draft_cache_type_k: CacheType | None = None
    draft_cache_type_v: CacheType | None = None
    draft_gpu_layers: int | None = None
    mmproj: str | None = None
    image_max_tokens: int = 0
    cache_ram_mib: int | None = None
    checkpoints: int | None = None
    threads: int | None = None
    if_memory: bool = False
    machine: str | None = None
    engine_python: str | None = None


def split_name(model: str, quantization: str | None) -> tuple[str, str | None]:
    """A name of the catalogue and the quantization that came with it (``qwen3-8b:Q8_0``) or beside it.

    Raises :class:`UsageError` when there are two.
    """
    name, _, after = model.partition(":")
    if after and quantization is not None:
        raise UsageError(f"{model} names a quantization already", hint="leave out --quant")
    return name, quantization or after.upper() or None


def files_named(model: str | None, quantization: str | None = None) -> Repository | None:
    """The files that a MODEL argument names, ``None`` for a name of the catalogue; the network is asked here."""
    reference = None if model is None else hub.parse_reference(model)
    if reference is None:
        return None
    if reference.quantization is not None and quantization is not None:
        raise UsageError(f"{reference.text} names a quantization already", hint="leave out --quant")
    return find_files(reference)


def named_files(known: Catalogue, request: EstimateRequest) -> Repository | None:
    """The files of a request, or ``None`` once its names are known to the catalogue.

    A typing slip is answered here, at once, without an engine and without starting one.
    """
    files = files_named(request.model, request.quantization)
    if files is None:
        name, recipe = split_name(request.model, request.quantization)
        known.quantization(recipe or _DEFAULT_QUANTIZATION)
        check_context(known.model(name), request.context_tokens or 1)
    return files


def subject_in(session: Session, request: EstimateRequest, files: Repository | None) -> tuple[Model, Quantization, int]:
    """The model, quantization and context per sequence of a request; of several files the typical quantization."""
    if files is None:
        name, recipe = split_name(request.model, request.quantization)
        known = session.sources.catalogue
        model, quantization = known.model(name), known.quantization(recipe or _DEFAULT_QUANTIZATION)
    else:
        opened, *others = session.sources.open(files, session.oracle.child)
        if others:
            names = ", ".join(each.model.id for each in (opened, *others))
            raise UsageError(f"{request.model} holds several models: {names}", hint="name the file of one")
        model = opened.model
        quantization = session.sources.quantization(model.id, request.quantization or opened.typical)
    context = request.context_tokens or min(DEFAULT_CONTEXT_TOKENS, model.context_native)
    check_context(model, context)
    return model, quantization, context


def companions_in(session: Session, request: EstimateRequest) -> Companions:
    """Who drafts and who sees beside the model of a request; the network is asked for what is not here."""
    drafter = projector = None
    if request.draft is not None:
        asked = EstimateRequest(model=request.draft)
        model, quantization, _ = subject_in(session, asked, named_files(session.sources.catalogue, asked))
        drafter = Drafter(model, quantization)
    if request.mmproj is not None:
        reference = hub.parse_reference(request.mmproj)
        if reference is None:
            raise UsageError(
                f"{request.mmproj} names no files",
                hint="name a projector as a file, an address or hf:owner/repo; the catalogue holds none",
            )
        projector = Projector(hub.find_projector(reference), request.image_max_tokens)
    return Companions(session.oracle, session.sources, session.machine, drafter=drafter, projector=projector)


def check_context(model: Model, context_tokens: int) -> None:
    """Raise :class:`UsageError` (``impossible-context``) for a context that the model was never made for."""
    longest = max(model.context_native, model.context_extended or 0)
    if context_tokens > longest:
        raise UsageError(
            f"{model.id} has a context of {model.context_native} tokens"
            + (f" ({longest} with YaRN)" if longest > model.context_native else "")
            + f", {context_tokens} were asked for",
            hint=f"ask for at most --context {longest}",
            code="impossible-context",
        )


def requested_settings(request: EstimateRequest, found: Machine, context: int) -> Settings:
    """The settings of a request on a machine: as asked, the rest as llama.cpp has it, a thread for each usable core."""
    threads = request.threads or max(1, found.cpu.usable_threads)
    asked = {
        name: value
        for name in Settings.__struct_fields__
        if name not in _DERIVED and (value := getattr(request, name, None)) is not None
    }
    return Settings(
        context_tokens=context * request.parallel,
        parallel=request.parallel,
        threads=threads,
        threads_batch=threads,
        speculation=_speculation(request),
        **asked,
    )


def _speculation(request: EstimateRequest) -> Speculation:
    if request.mtp and request.draft is not None:
        raise UsageError("a model drafts for itself or another drafts for it, not both")
    if request.mtp:
        return "draft-mtp"
    return "none" if request.draft is None else "draft-simple"
