"""One question to the engine as the key of its answer: all that the answer depends on, and enough to ask it again.

Two mistakes it prevents. A key that leaves something out makes two different questions share an answer: the CPU alone
and the engine's own GPUs are told apart here even where every setting is llama.cpp's default. And a key that can only
be compared makes a cache that can only be thrown away when the engine changes, never refreshed and looked at.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from planner.engine.devices import PhantomDevice, rules_mark
from planner.types import Report
from planner.types.settings import Settings

__all__ = ["Question", "parse_question", "question_key"]

OWN: Literal["own"] = "own"
"""Stands for the GPUs that the engine itself has."""

# Those of the settings that place something on GPUs: without a GPU they change nothing.
_PLACEMENT = frozenset(
    ("host_buffer", "gpu_layers", "split_mode", "main_gpu", "tensor_split", "cpu_moe_layers", "kv_offload",
     "op_offload")
)  # fmt: skip
_DEFAULTS = Settings(context_tokens=0)
_PLENTY_BYTES = 1 << 40  # free memory of a phantom where an answer does not depend on it


class Question(Report, frozen=True, kw_only=True):
    """What was asked: ``settings`` have the defaults wherever the answer does not depend on them.

    ``devices`` are ``None`` for the CPU alone, ``"own"`` for the engine's GPUs, else phantoms. ``rules`` tell under
    which version of their rules the phantoms answered; ``drafting`` asks for the second context.
    """

    quantization: str
    settings: Settings
    drafting: bool = False
    devices: tuple[PhantomDevice, ...] | Literal["own"] | None = None
    rules: str = ""

    @property
    def repeatable(self) -> bool:
        """True where the same question can be asked today: phantoms whose rules have changed are other devices."""
        return not self.rules or self.rules == rules_mark()


def question_key(
    quantization: str,
    settings: Settings,
    fields: Iterable[str],
    *,
    devices: Sequence[PhantomDevice] | None,
    own_gpus: bool,
    drafting: bool = False,
) -> str:
    """The key of an answer that depends on ``fields`` of the settings: JSON, only what is not a default, sorted.

    ``devices`` as an :class:`~planner.engine.oracle.Oracle` has them; ``own_gpus`` says whether the engine has any.
    """
    has_gpu = bool(devices) if devices is not None else own_gpus
    told = {
        field: value
        for field in fields
        if (value := getattr(settings, field)) != getattr(_DEFAULTS, field) and (has_gpu or field not in _PLACEMENT)
    }
    key: dict[str, object] = {"of": quantization, "settings": told}
    if drafting:
        key["drafting"] = True
    if has_gpu:
        key["on"] = OWN if devices is None else _devices(devices, settings)
        key["rules"] = "" if devices is None else rules_mark()
    return msgspec.json.encode(key, order="deterministic").decode()


def parse_question(key: str) -> Question | None:
    """The question behind a key; ``None`` for a key that no :func:`question_key` made."""
    try:
        told = msgspec.json.decode(key, type=_Key)
        settings = msgspec.convert({"context_tokens": _DEFAULTS.context_tokens, **told.settings}, Settings)
    except msgspec.MsgspecError:
        return None
    devices = tuple(each.device() for each in told.on) if isinstance(told.on, tuple) else told.on
    return Question(
        quantization=told.of, settings=settings, drafting=told.drafting, devices=devices, rules=told.rules
    )  # fmt: skip


class _DeviceKey(msgspec.Struct, frozen=True, omit_defaults=True):
    """What of a phantom device an answer depends on; free memory only where it decides the split."""

    backend: str
    attention_scratch: bool = True
    compute_capability: str | None = None
    free_mib: int | None = None
    fusion: bool = True
    integrated: bool = False

    def device(self) -> PhantomDevice:
        """A device about which the same question has the same key."""
        free = _PLENTY_BYTES if self.free_mib is None else self.free_mib << 20
        return msgspec.convert(
            {
                "backend": self.backend,
                "attention_scratch": self.attention_scratch,
                "compute_capability": self.compute_capability,
                "fusion": self.fusion,
                "integrated": self.integrated,
                "free_bytes": free,
                "total_bytes": free,
            },
            PhantomDevice,
        )


class _Key(msgspec.Struct, frozen=True):
    """A key as it is written."""

    of: str
    settings: Mapping[str, object]
    drafting: bool = False
    on: tuple[_DeviceKey, ...] | Literal["own"] | None = None
    rules: str = ""


def _devices(devices: Sequence[PhantomDevice], settings: Settings) -> tuple[_DeviceKey, ...]:
    by_memory = len(devices) > 1 and not settings.tensor_split and settings.split_mode != "none"
    return tuple(
        _DeviceKey(
            backend=each.backend,
            attention_scratch=each.attention_scratch,
            compute_capability=each.compute_capability,
            free_mib=each.free_bytes >> 20 if by_memory else None,
            fusion=each.fusion,
            integrated=each.integrated,
        )
        for each in devices
    )
