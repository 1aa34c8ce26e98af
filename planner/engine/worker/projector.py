"""Asks llama.cpp's vision and audio code (libmtmd) what a projector would allocate: weights and compute per device.

llama.cpp loads a projector after the model, reserves compute memory for a warm-up image, and takes more when a larger
picture arrives: a server that starts well dies over the first photo. So the graph of the largest image is planned here
too, by the engine's own code: ``clip_init`` with ``no_alloc``, then its warm-up with the sizes of other images.

``no_alloc`` leaves only the reading of weights out; buffers are still taken. On the CPU they are given an address and
no memory (:func:`_nothing_held`), on phantom devices that is so anyway. What is read of the C++ structs is tried first:
the parameters against libmtmd's own defaults, an image against one that libmtmd made.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Callable, Iterator
from typing import Any

from breakdown import read_map
from devices import device_list
from errors import Refused
from llama import Engine, engine, find_library
from phantom_structs import phantom_buffer

__all__ = ["ask"]

_CLIP_INIT, _CLIP_FREE = "_Z9clip_initPKc19clip_context_params", "_Z9clip_freeP8clip_ctx"
_MEMORY = "_Z18clip_get_mem_usagePK8clip_ctx"
_TOKENS = "_Z20clip_n_output_tokensPK8clip_ctxPK14clip_image_f32"
_WIDTH = "_Z18clip_n_mmproj_embdPK8clip_ctx"
_BATCHES = "_Z18clip_support_batchPK8clip_ctx"
_DUMMY = "_ZN17clip_model_loader15get_dummy_batchER8clip_ctx"
_WARM_UP = "_ZN17clip_model_loader6warmupER8clip_ctxRK20clip_image_f32_batch"
_FLASH = {"auto": -1, "off": 0, "on": 1}
_KINDS = ("vision", "audio", "speech")  # clip_init_result
_ALLOCATE, _OPTIMIZE = 1, 16  # words of a buffer type and of a stream (ggml-backend-impl.h)
_STAND_IN = [{"backend": "whole", "free_bytes": 1 << 40, "total_bytes": 1 << 40}]

_Pointer = ctypes.c_void_p
_Allocate = ctypes.CFUNCTYPE(_Pointer, _Pointer, ctypes.c_size_t)
_Optimize = ctypes.CFUNCTYPE(None, _Pointer, _Pointer, _Pointer)
_Log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, _Pointer)


class _Params(ctypes.Structure):
    """``clip_context_params`` (tools/mtmd/clip.h)."""

    _fields_ = [
        ("use_gpu", ctypes.c_bool), ("device", _Pointer), ("flash_attention", ctypes.c_int),
        ("image_min_tokens", ctypes.c_int), ("image_max_tokens", ctypes.c_int), ("warmup", ctypes.c_bool),
        ("cb_eval", _Pointer), ("cb_eval_data", _Pointer), ("no_alloc", ctypes.c_bool),
        ("progress", _Pointer), ("progress_data", _Pointer),
    ]  # fmt: skip


class _PublicParams(ctypes.Structure):
    """``mtmd_context_params`` (mtmd.h), which grows together with the above."""

    _fields_ = [
        ("use_gpu", ctypes.c_bool), ("device", _Pointer), ("timings", ctypes.c_bool), ("n_threads", ctypes.c_int),
        ("image_marker", _Pointer), ("media_marker", _Pointer), ("flash_attention", ctypes.c_int),
        ("warmup", ctypes.c_bool), ("image_min_tokens", ctypes.c_int), ("image_max_tokens", ctypes.c_int),
        ("cb_eval", _Pointer), ("cb_eval_data", _Pointer), ("batch_max_tokens", ctypes.c_int32),
        ("progress", _Pointer), ("progress_data", _Pointer), ("room", ctypes.c_uint64 * 8),
    ]  # fmt: skip


class _Contexts(ctypes.Structure):
    """``clip_init_result``: for vision, for audio, for speech."""

    _fields_ = [("contexts", _Pointer * 3)]


class _Batch(ctypes.Structure):
    """``clip_image_f32_batch``: a std::vector of images and a flag; larger than needed, so that memory returns it."""

    _fields_ = [("begin", _Pointer), ("end", _Pointer), ("room", _Pointer), ("rest", ctypes.c_uint64 * 5)]


class _Plan(ctypes.Structure):
    """ggml_cplan: only ``work_size``, its first field, is read."""

    _fields_ = [("work_size", ctypes.c_size_t), ("rest", ctypes.c_uint64 * 8)]


def ask(args: dict[str, Any], _emit: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Memory of one projector under several settings: ``{"path", "settings", "devices"?}`` → ``{"answers": [...]}``.

    Settings: ``use_gpu``, ``flash_attention``, ``image_min_tokens``, ``image_max_tokens`` (0: the model's own),
    ``batch_max_tokens``, ``threads``, and ``largest`` (false asks for the warm-up alone). ``devices`` are phantom
    devices, of which the projector takes the first; without them the engine's own.

    An answer has ``parts``, one for each encoder (``vision``, ``audio``): ``weights`` and ``warmup`` and ``largest``
    compute bytes by device, ``work_bytes`` of the CPU's kernels and ``inputs_bytes`` of the graph for the largest, and
    of the largest image ``width``, ``height``, ``count``, ``tokens`` and ``embedding_bytes``; or ``refused`` with the
    engine's reason.
    """
    clip = _Clip(engine())
    return {"answers": [clip.answer(args["path"], each, args.get("devices")) for each in args["settings"]]}


class _Clip:
    """libmtmd with its functions declared, and the log of one question."""

    def __init__(self, eng: Engine) -> None:
        self.eng = eng
        self.library = ctypes.CDLL(str(find_library(eng.folder, "mtmd")))
        self.call: dict[str, Any] = {}
        self.text: list[str] = []
        self.work: list[int] = []
        self._keep = _Log(lambda _level, text, _data: self.text.append(text.decode("utf-8", "replace")))
        for name, result, arguments in (
            (_CLIP_INIT, _Contexts, [ctypes.c_char_p, _Params]),
            (_CLIP_FREE, None, [_Pointer]),
            (_MEMORY, None, None),
            (_TOKENS, ctypes.c_int, [_Pointer, _Pointer]),
            (_WIDTH, ctypes.c_int, [_Pointer]),
            (_BATCHES, ctypes.c_bool, [_Pointer]),
            (_DUMMY, _Batch, [_Pointer]),
            (_WARM_UP, None, [_Pointer, ctypes.POINTER(_Batch)]),
            ("mtmd_log_set", None, [_Log, _Pointer]),
            ("mtmd_context_params_default", _PublicParams, []),
            ("mtmd_default_marker", _Pointer, []),
        ):
            function = getattr(self.library, name, None)
            if function is None:
                raise Refused(f"this llama.cpp build does not tell a projector's memory: libmtmd has no {name}")
            if result is not None or arguments is not None:
                function.restype, function.argtypes = result, arguments
            self.call[name] = function
        self._check()
        self.call["mtmd_log_set"](self._keep, None)
        device_list(eng, _STAND_IN)  # tries the structs of devices, and declares what is used of them

    def _check(self) -> None:
        """Compare libmtmd's defaults with the layout known here: another one is noticed before it is used."""
        seen = self.call["mtmd_context_params_default"]()
        marker = self.call["mtmd_default_marker"]()
        told = (seen.use_gpu, seen.warmup, seen.flash_attention, seen.image_min_tokens, seen.image_max_tokens)
        if told != (True, True, -1, -1, -1) or seen.media_marker != marker or seen.batch_max_tokens != 1024:
            raise Refused("this llama.cpp's libmtmd takes other parameters than known here: update planner")

    def answer(self, path: str, settings: dict[str, Any], devices: list[dict[str, Any]] | None) -> dict[str, Any]:
        """One answer of :func:`ask`."""
        try:
            parts = self._plan(path, settings, devices)
        except Refused as refusal:
            return {"refused": str(refusal)}
        # A stand-in for the CPU is shown every graph whole; the CPU's own code sees none before it computes.
        with self._work_planned(int(settings.get("threads", 1))):
            shown = self._plan(path, {**settings, "use_gpu": True}, _STAND_IN)
        for part, twin in zip(parts, shown):  # noqa: B905 - "strict" is of Python 3.10
            part["work_bytes"] = twin["work_bytes"] if part["on_host"] else None
            part["inputs_bytes"] = (twin.get("largest") or twin.get("warmup") or {}).get("CPU")
        return {"parts": parts}

    def _plan(self, path: str, settings: dict[str, Any], devices: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
        """The parts of one answer, without the work space."""
        self.text.clear()
        params = self._params(settings, devices)
        with _nothing_held(self.eng):
            contexts = self.call[_CLIP_INIT](path.encode(), params).contexts
            found = [(kind, contexts[place]) for place, kind in enumerate(_KINDS) if contexts[place]]
            if not found:
                raise Refused(f"the engine cannot load the projector: {self._complaint()}")
            try:
                return [self._part(kind, context, settings) for kind, context in found]
            finally:
                for _, context in found:
                    self.call[_CLIP_FREE](context)

    def _params(self, settings: dict[str, Any], devices: list[dict[str, Any]] | None) -> _Params:
        if settings.get("flash_attention", "auto") not in _FLASH:
            raise Refused(f"flash attention is auto, on or off, not {settings['flash_attention']!r}")
        params = _Params()
        params.use_gpu = bool(settings.get("use_gpu", True)) and devices != []
        if devices:
            params.device = device_list(self.eng, devices)[0]
        params.flash_attention = _FLASH[settings.get("flash_attention", "auto")]
        params.image_min_tokens = int(settings.get("image_min_tokens", 0)) or -1
        params.image_max_tokens = int(settings.get("image_max_tokens", 0)) or -1
        params.no_alloc = True
        return params

    def _part(self, kind: str, context: int, settings: dict[str, Any]) -> dict[str, Any]:
        weights, shown = self._memory(context), len(self.work)
        part: dict[str, Any] = {
            "kind": kind,
            "weights": weights,
            "on_host": list(weights) == ["CPU"],
            "work_bytes": None,
        }
        if kind == "speech":
            return part  # the engine reserves nothing for it before the first sentence
        warm = self._warm_size(kind)
        image = self._image(context, warm)
        self._reserve(context, image.batch(warm, 1))
        part["warmup"] = self._compute(context, weights)
        part["work_bytes"] = max(self.work[shown:], default=None)
        largest = self._largest(kind, context, warm, settings)
        if largest is None:
            return part
        size, count = largest
        batch = image.batch(size, count)
        self._reserve(context, batch)
        tokens = count * int(self.call[_TOKENS](context, batch.begin))
        part["largest"] = self._compute(context, weights)
        part["work_bytes"] = max(self.work[shown:], default=None)
        part.update(width=size[0], height=size[1], count=count, tokens=tokens)
        part["embedding_bytes"] = 4 * tokens * int(self.call[_WIDTH](context))
        return part

    def _image(self, context: int, warm: tuple[int, int]) -> _Image:
        """The layout of an image, learnt once: the pixels of the one that is looked at are never given back."""
        if not _images:
            _images.append(_Image(self.call[_DUMMY](context), warm))
        return _images[0]

    def _reserve(self, context: int, batch: _Batch) -> None:
        self.call[_WARM_UP](context, ctypes.byref(batch))

    def _memory(self, context: int) -> dict[str, int]:
        """Bytes by device: the weights, and once a graph was planned its buffers too."""
        found = read_map(self.library, _MEMORY, context, 1)
        return {self.eng.ggml.ggml_backend_dev_name(device).decode(): sizes[0] for device, sizes in found}

    def _compute(self, context: int, weights: dict[str, int]) -> dict[str, int]:
        compute = {name: size - weights.get(name, 0) for name, size in self._memory(context).items()}
        told = [
            float(size) * (1 << 20)
            for size in re.findall(r"compute buffer size = +([\d.]+) MiB", "".join(self.text))[-len(compute) :]
        ]
        if told and abs(max(told) - max(compute.values())) > 0.011 * (1 << 20):
            raise Refused("the engine contradicts itself: its log tells another compute buffer for the projector")
        return compute

    def _warm_size(self, kind: str) -> tuple[int, int]:
        """Width and height of what the engine warms an encoder up with, as it logs them; sound has frames and bins."""
        said = "".join(self.text)
        if kind == "vision":
            image = re.search(r"warmup with image size = (\d+) x (\d+)", said)
            if image is not None:
                return int(image[1]), int(image[2])
        sound, bins = re.search(r"warmup with audio size = (\d+)", said), self._number("n_mel_bins")
        if kind != "audio" or sound is None or bins is None:
            raise Refused("the engine does not say what it warms the projector up with: update planner")
        return int(sound[1]), bins

    def _largest(
        self, kind: str, context: int, warm: tuple[int, int], settings: dict[str, Any]
    ) -> tuple[tuple[int, int], int] | None:
        """Size of the largest image of one graph, and how many of its size fit into one; ``None``: not to be told.

        A model of any image size is bounded by ``image_max_pixels``; one of a fixed size takes several at a time, up
        to ``batch_max_tokens`` (``mtmd_batch_add_chunk``). A recording is cut into chunks of a fixed length.
        """
        if not settings.get("largest", True):
            return None
        size = self._sound_size(warm) if kind == "audio" else self._picture_size(warm)
        if size is None or not self.call[_BATCHES](context):
            return (size, 1) if size is not None else None
        tokens = max(1, int(self.call[_TOKENS](context, _images[0].batch(size, 1).begin)))
        return size, max(1, int(settings.get("batch_max_tokens", 1024)) // tokens)

    def _picture_size(self, warm: tuple[int, int]) -> tuple[int, int]:
        pixels, patch, merge = (self._number(name) for name in ("image_max_pixels", "patch_size", "n_merge"))
        if not pixels or not patch:
            return warm
        unit = patch * max(1, merge or 1)
        width, height = _fullest(pixels // (unit * unit))
        return max(warm, (width * unit, height * unit), key=lambda size: size[0] * size[1])

    def _sound_size(self, warm: tuple[int, int]) -> tuple[int, int] | None:
        chunk, rate, hop = (self._number(f"audio_{name}") for name in ("chunk_len", "sample_rate", "hop_len"))
        if not chunk or not rate or not hop or min(chunk, rate, hop) < 0:
            return None  # the whole recording is one graph
        return max(warm[0], chunk * rate // hop), warm[1]

    def _number(self, name: str) -> int | None:
        """A number that the engine logs while it reads the header; the last one, which is of the last encoder read."""
        found = re.findall(rf"\b{name}: +(-?\d+)", "".join(self.text))
        return int(found[-1]) if found else None

    def _complaint(self) -> str:
        lines = [line.strip() for line in "".join(self.text).splitlines() if line.strip()]
        return " / ".join(lines[-2:]) or "the engine gave no reason"

    @contextlib.contextmanager
    def _work_planned(self, threads: int) -> Iterator[None]:
        """Note the work space that the CPU's kernels want for each graph that the stand-in is shown meanwhile."""
        ggml = self.eng.ggml
        plan = ctypes.CDLL(str(find_library(self.eng.folder, "ggml-cpu"))).ggml_graph_plan
        plan.restype, plan.argtypes = _Plan, [_Pointer, ctypes.c_int, _Pointer]
        hook = _Optimize(lambda _stream, graph, _how: self.work.append(int(plan(graph, threads, None).work_size)))
        device = device_list(self.eng, _STAND_IN)[0]
        stream = (_Pointer * (_OPTIMIZE + 1)).from_address(ggml.ggml_backend_dev_init(device, None))
        stream[_OPTIMIZE] = ctypes.cast(hook, _Pointer)
        try:
            yield
        finally:
            stream[_OPTIMIZE] = None


class _Image:
    """The layout of ``clip_image_f32``, learnt from one of ``size`` that the engine made."""

    def __init__(self, batch: _Batch, size: tuple[int, int]) -> None:
        self.bytes = (batch.end or 0) - (batch.begin or 0)
        words = (ctypes.c_int32 * (self.bytes // 4)).from_address(batch.begin)
        at = [place for place in range(len(words) - 1) if (words[place], words[place + 1]) == size]
        if len(at) != 1:
            raise Refused("this llama.cpp describes images in another way than known here: update planner")
        self.at = at[0]

    def batch(self, size: tuple[int, int], count: int) -> _Batch:
        """``count`` images of ``size`` without pixels: graphs are planned from sizes alone."""
        words = (ctypes.c_int32 * (count * self.bytes // 4))()
        for index in range(count):
            place = index * self.bytes // 4 + self.at
            words[place], words[place + 1] = size
        begin = ctypes.addressof(words)
        batch = _Batch(begin, begin + ctypes.sizeof(words), begin + ctypes.sizeof(words))
        batch.kept = words  # as long as the batch lives, so do its images
        return batch


_images: list[_Image] = []


def _fullest(tokens: int) -> tuple[int, int]:
    """The rectangle of at most ``tokens`` squares that holds most, the squarest of them."""
    side = max(1, int(tokens**0.5))
    return max(((tokens // each, each) for each in range(side, max(0, side - 16), -1)), key=lambda it: it[0] * it[1])


@contextlib.contextmanager
def _nothing_held(eng: Engine) -> Iterator[None]:
    """While this lasts, CPU buffers have an address and a size and no memory; only for graphs that never compute."""
    table = (_Pointer * (_ALLOCATE + 1)).from_address(eng.ggml_cpu_buffer_type())
    original, functions = table[_ALLOCATE], phantom_buffer()
    hook = _Allocate(lambda kind, size: eng.ggml.ggml_backend_buffer_init(kind, functions, None, size))
    table[_ALLOCATE] = ctypes.cast(hook, _Pointer)
    try:
        yield
    finally:
        table[_ALLOCATE] = original
