"""Opens llama.cpp through llama-cpp-python's binding and knows how one Settings object becomes its parameters.

Runs inside the child, under any interpreter that has ``llama_cpp``: standard library and ``llama_cpp`` only. The
mistake it prevents: two places that translate settings into parameters and drift from each other.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional  # noqa: UP035 - as below

from devices import device_list, plain_sizes, raise_failure
from errors import Refused

__all__ = ["MODEL_SETTINGS", "Engine", "engine", "find_library"]

MODEL_SETTINGS = (
    "repack", "lazy_mode", "host_buffer", "gpu_layers", "split_mode", "main_gpu", "tensor_split", "tensor_overrides",
    "cpu_moe_layers", "speculation",
)  # fmt: skip
"""The settings that belong to a loaded model; all others belong to a context on it."""

Devices = Optional[List[Dict[str, Any]]]  # noqa: UP006, UP045 - read at run time, by Python 3.9 too
"""Phantom devices of a question; ``None``: the devices that the engine has."""

_DEBUG = 1  # GGML_LOG_LEVEL_DEBUG
_LOAD_MODES = {"none": 0, "mmap": 1, "mlock": 2, "mmap+mlock": 3, "dio": 4}
_FLASH = {"auto": -1, "off": 0, "on": 1}
_TELLING = re.compile(r"error|fail|invalid|missing|not |unknown|require", re.IGNORECASE)
_SPLIT = {"none": 0, "layer": 1, "row": 2}
_LAZY = {"off": 0, "auto": 1, "on": 2}
_MTP_CONTEXT = 1  # LLAMA_CONTEXT_TYPE_MTP
_EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"  # what --cpu-moe matches (common/common.h)
# ggml_type numbers of the cache types (ggml.h); the public binding names only some of them.
_CACHE_TYPES = {
    "f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30,
}  # fmt: skip


class _BufferOverride(ctypes.Structure):
    """llama_model_tensor_buft_override, which the binding leaves undefined; a list ends with a NULL pattern."""

    _fields_ = [("pattern", ctypes.c_char_p), ("buft", ctypes.c_void_p)]


class Engine:
    """The loaded binding, ggml's libraries, and the log lines the engine wrote since they were last taken."""

    def __init__(self) -> None:
        import llama_cpp
        import llama_cpp.llama_cpp as binding

        self.package_version: str = llama_cpp.__version__
        self.api: Any = binding
        self.folder = Path(binding.__file__).parent / "lib"
        self.llama = ctypes.CDLL(str(find_library(self.folder, "llama")))
        # ggml's functions are looked up through libllama, in the copies that it has loaded. A wheel holds each library
        # under three names that are files, not links: opened by path, ggml would be there twice, and the second copy
        # would have a log of its own that nobody reads and a list of devices that nobody uses.
        self.ggml = self.backends = self.llama
        self.lines: list[str] = []
        self._partial = ""

        @binding.llama_log_callback  # type: ignore[untyped-decorator]  # the binding has no types
        def keep(level: int, text: bytes, _user_data: object) -> None:
            if level == _DEBUG:
                return  # thousands of lines for each context, and nobody reads them
            # The engine writes a line in pieces; only whole lines can be parsed.
            pieces = (self._partial + text.decode("utf-8", "replace")).split("\n")
            self._partial = pieces.pop()
            self.lines.extend(pieces)

        self._keep = keep  # the C side holds only a pointer
        binding.llama_log_set(keep, None)
        binding.llama_backend_init()
        _declare(self.ggml, self.backends)

    def take_lines(self) -> list[str]:
        """Return the log lines so far and forget them."""
        lines, self.lines = self.lines, []
        return lines

    def last_complaint(self) -> str:
        """The most telling log line of a question that failed."""
        telling = [line for line in self.lines if _TELLING.search(line)]
        chosen = telling or self.lines
        return " / ".join(line.strip() for line in chosen[-2:]) or "the engine gave no reason"

    def model_params(self, settings: dict[str, Any], *, no_alloc: bool, devices: Devices = None) -> Any:
        """llama_model_params of ``settings``; under ``no_alloc`` the load mode must be none (the engine asserts it).

        ``devices`` are phantom devices (see ``devices.py``) in the place of those that the engine has: an empty list
        leaves the CPU alone, ``None`` the engine's own. They need ``no_alloc``.
        """
        params = self.api.llama_model_default_params()
        params.load_mode = 0 if no_alloc else _LOAD_MODES[settings.get("load_mode", "mmap")]
        params.no_alloc = no_alloc
        if devices is not None:
            self._devices = device_list(self, devices)
            params.devices = ctypes.addressof(self._devices)
        params.lazy_mode = _LAZY[settings.get("lazy_mode", "auto")]
        params.use_extra_bufts = bool(settings.get("repack", True))
        params.no_host = not settings.get("host_buffer", True)
        params.n_gpu_layers = int(settings.get("gpu_layers", -1))
        params.split_mode = _SPLIT[settings.get("split_mode", "layer")]
        params.main_gpu = int(settings.get("main_gpu", 0))
        params.load_mtp = settings.get("speculation") == "draft-mtp"
        split = tuple(settings.get("tensor_split") or ())
        if split:
            shares = (ctypes.c_float * int(self.api.llama_max_devices()))(*split)
            params.tensor_split = shares
        overrides = self._overrides(settings, devices)
        if overrides is not None:
            params.tensor_buft_overrides = ctypes.addressof(overrides)
        return params

    def _overrides(self, settings: dict[str, Any], devices: Devices) -> Any:
        """The list of tensors that lie elsewhere, in the order in which llama-server's argv names them."""
        wanted = [(str(pattern), str(name)) for pattern, name in settings.get("tensor_overrides") or ()]
        layers = int(settings.get("cpu_moe_layers", 0))
        wanted += [(_EXPERTS, "CPU")] if layers < 0 else [(rf"blk\.{i}{_EXPERTS}", "CPU") for i in range(layers)]
        if not wanted:
            return None
        known = self._buffer_types(devices)
        array = (_BufferOverride * (len(wanted) + 1))()
        for place, (pattern, name) in enumerate(wanted):
            if name not in known:
                told = ", ".join(known)
                raise Refused(f"unknown buffer type {name!r} in the override {pattern}={name}; known here: {told}")
            if "," in pattern or "=" in pattern:
                raise Refused(
                    f"the override {pattern!r} has a comma or an equals sign, where llama-server would cut it"
                )
            array[place].pattern, array[place].buft = pattern.encode(), known[name]
        array[len(wanted)].pattern = None
        self._kept_overrides = array
        return array

    def _buffer_types(self, devices: Devices) -> dict[str, int]:
        """The buffer types that an override can name: that of each device, and the CPU's."""
        if devices is None:
            own = [self.ggml.ggml_backend_dev_get(i) for i in range(self.ggml.ggml_backend_dev_count())]
        else:
            own = list(self._devices[: len(devices)])
        types = [self.ggml.ggml_backend_dev_buffer_type(device) for device in own]
        named = {str(self.ggml.ggml_backend_buft_name(each).decode()): int(each) for each in types if each}
        return {**named, "CPU": self.ggml_cpu_buffer_type()}

    def ggml_cpu_buffer_type(self) -> int:
        """The plain CPU buffer type."""
        return int(self.ggml.ggml_backend_cpu_buffer_type())

    def context_params(self, settings: dict[str, Any], *, drafting: bool = False) -> Any:
        """llama_context_params of ``settings``; ``drafting``: of the context in which the model's own block drafts."""
        params = self.api.llama_context_default_params()
        params.n_ctx = int(settings["context_tokens"])
        params.n_batch = int(settings.get("batch", 2048))
        params.n_ubatch = int(settings.get("ubatch", 512))
        params.n_seq_max = int(settings.get("parallel", 1))
        params.n_outputs_max = int(settings.get("outputs_max", 0))
        # Drafting by the model's own block may take back as many tokens; a recurrent layer keeps its state for each.
        taken_back = settings.get("speculation") == "draft-mtp" and not drafting
        params.n_rs_seq = int(settings.get("draft_tokens", 3)) if taken_back else 0
        params.n_outputs_max_per_seq = 1 if drafting else 0
        params.ctx_type = _MTP_CONTEXT if drafting else 0
        # A window layer keeps its window, as llama-server does; the library's own default keeps the whole context.
        params.swa_full = bool(settings.get("swa_full", False))
        params.kv_unified = bool(settings.get("kv_unified", False))
        params.type_k = _CACHE_TYPES[settings.get("cache_type_k", "f16")]
        params.type_v = _CACHE_TYPES[settings.get("cache_type_v", "f16")]
        params.flash_attn_type = _FLASH[settings.get("flash_attention", "auto")]
        params.offload_kqv = bool(settings.get("kv_offload", True))
        params.op_offload = bool(settings.get("op_offload", True))
        params.n_threads = int(settings.get("threads", 1))
        params.n_threads_batch = int(settings.get("threads_batch", 1))
        params.no_perf = True
        return params

    def load_model(self, path: str, settings: dict[str, Any], *, no_alloc: bool, devices: Devices = None) -> Any:
        """Load a GGUF; raises :class:`Refused` with the engine's own words."""
        if not Path(path).exists():
            raise Refused(f"no such file: {path}")
        self.take_lines()
        params = self.model_params(settings, no_alloc=no_alloc, devices=devices)
        model = self.api.llama_model_load_from_file(path.encode(), params)
        raise_failure()
        if not model:
            complaint = self.last_complaint()
            patterns = " or ".join(repr(pattern) for pattern, _ in settings.get("tensor_overrides") or ())
            where = f" (the pattern {patterns} of the overrides)" if "regular expression" in complaint else ""
            raise Refused(f"the engine cannot load the model: {complaint}{where}")
        return model

    def make_context(self, model: Any, settings: dict[str, Any], *, drafting: bool = False) -> Any:
        """Create a context; raises :class:`Refused` with the engine's own words."""
        if 0 < int(settings.get("outputs_max", 0)) < int(settings.get("parallel", 1)):
            # The engine would not refuse this but abort.
            raise Refused("outputs_max must be at least one for each parallel sequence")
        with plain_sizes(plain=_all_on_devices_in_f16(settings)):
            context = self.api.llama_init_from_model(model, self.context_params(settings, drafting=drafting))
        raise_failure()
        if not context:
            raise Refused(f"the engine refuses these settings: {self.last_complaint()}")
        return context


def _all_on_devices_in_f16(settings: dict[str, Any]) -> bool:
    """Whether no layer is left to the host, so that no weight is staged, and the cache is the usual one."""
    usual = all(settings.get(name, "f16") == "f16" for name in ("cache_type_k", "cache_type_v"))
    left = settings.get("cpu_moe_layers") or settings.get("tensor_overrides")
    return usual and not left and int(settings.get("gpu_layers", -1)) < 0


_engine: Engine | None = None


def engine() -> Engine:
    """The one engine of this process; loads the shared libraries on first use."""
    global _engine  # noqa: PLW0603 - one process holds one copy of the libraries
    if _engine is None:
        _engine = Engine()
    return _engine


def find_library(folder: Path, name: str) -> Path:
    """The very file that the binding loaded, so that every symbol is of one build."""
    for suffix in (".dylib", ".so") if sys.platform == "darwin" else (".so",):
        path = folder / f"lib{name}{suffix}"
        if path.exists():
            return path
    raise Refused(f"lib{name} is not beside the llama_cpp binding in {folder}")


def _declare(ggml: Any, backends: Any) -> None:
    """Tell ctypes the pointer-returning functions of ggml's public C API; the default int would cut pointers."""
    pointer, sizes = ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)
    for library, name, result, arguments in (
        (ggml, "ggml_backend_buft_name", ctypes.c_char_p, [pointer]),
        (ggml, "ggml_backend_buft_is_host", ctypes.c_bool, [pointer]),
        (ggml, "ggml_backend_buft_get_device", pointer, [pointer]),
        (ggml, "ggml_backend_buffer_get_type", pointer, [pointer]),
        (ggml, "ggml_backend_dev_buffer_type", pointer, [pointer]),
        (ggml, "ggml_backend_dev_name", ctypes.c_char_p, [pointer]),
        (ggml, "ggml_backend_dev_description", ctypes.c_char_p, [pointer]),
        (ggml, "ggml_backend_dev_type", ctypes.c_int, [pointer]),
        (ggml, "ggml_backend_dev_memory", None, [pointer, sizes, sizes]),
        (ggml, "ggml_backend_cpu_buffer_type", pointer, []),
        (ggml, "ggml_nbytes", ctypes.c_size_t, [pointer]),
        (ggml, "ggml_version", ctypes.c_char_p, []),
        (ggml, "ggml_commit", ctypes.c_char_p, []),
        (ggml, "ggml_type_name", ctypes.c_char_p, [ctypes.c_int]),
        (backends, "ggml_backend_dev_count", ctypes.c_size_t, []),
        (backends, "ggml_backend_dev_get", pointer, [ctypes.c_size_t]),
        (ggml, "gguf_init_from_file", pointer, None),
        (ggml, "gguf_free", None, [pointer]),
        (ggml, "gguf_get_n_kv", ctypes.c_int64, [pointer]),
        (ggml, "gguf_get_n_tensors", ctypes.c_int64, [pointer]),
        (ggml, "gguf_get_key", ctypes.c_char_p, [pointer, ctypes.c_int64]),
        (ggml, "gguf_get_kv_type", ctypes.c_int, [pointer, ctypes.c_int64]),
        (ggml, "gguf_get_arr_type", ctypes.c_int, [pointer, ctypes.c_int64]),
        (ggml, "gguf_get_arr_n", ctypes.c_size_t, [pointer, ctypes.c_int64]),
        (ggml, "gguf_get_val_data", pointer, [pointer, ctypes.c_int64]),
        (ggml, "gguf_get_val_str", ctypes.c_char_p, [pointer, ctypes.c_int64]),
        (ggml, "gguf_get_data_offset", ctypes.c_size_t, [pointer]),
        (ggml, "gguf_get_alignment", ctypes.c_size_t, [pointer]),
        (ggml, "gguf_get_tensor_name", ctypes.c_char_p, [pointer, ctypes.c_int64]),
        (ggml, "gguf_get_tensor_offset", ctypes.c_size_t, [pointer, ctypes.c_int64]),
        (ggml, "gguf_get_tensor_type", ctypes.c_int, [pointer, ctypes.c_int64]),
        (ggml, "gguf_get_tensor_size", ctypes.c_size_t, [pointer, ctypes.c_int64]),
        (ggml, "ggml_get_tensor", pointer, [pointer, ctypes.c_char_p]),
    ):  # fmt: skip
        try:
            function = getattr(library, name)
        except AttributeError:
            continue  # an older or newer build; the operation that needs it says so
        function.restype = result
        if arguments is not None:
            function.argtypes = arguments
