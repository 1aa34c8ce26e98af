"""What the engine says a projector holds, against projectors that it really loads, and against published logs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from planner.engine.child import EngineChild
from planner.engine.devices import PhantomDevice
from planner.engine.headers import read_header
from planner.engine.phantom import write_phantom
from planner.engine.projector import ProjectorSettings, ask_projector, projector_layout
from planner.errors import BadInputError
from planner.types.header import Header

_SPECIFICATION = importlib.util.spec_from_file_location(
    "projector_layouts", Path(__file__).with_name("projector_layouts.py")
)
layouts = importlib.util.module_from_spec(_SPECIFICATION)
_SPECIFICATION.loader.exec_module(layouts)

pytestmark = pytest.mark.engine

MIB = 1 << 20
CARD = PhantomDevice(backend="cuda", free_bytes=20 << 30, total_bytes=24 << 30)
NO_GPU = ()

# The public C API of libmtmd loads a projector for real, weights and warm-up; its own log is the truth.
REAL_LOAD = """
import ctypes, json, pathlib, sys
import llama_cpp
folder = pathlib.Path(llama_cpp.__file__).parent / "lib"
mtmd = ctypes.CDLL(str(next(folder.glob("libmtmd.*"))))
lines = []
log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda l, t, d: lines.append(t.decode()))
mtmd.mtmd_log_set(log, None)
class Params(ctypes.Structure):
    _fields_ = [("use_gpu", ctypes.c_bool), ("device", ctypes.c_void_p), ("timings", ctypes.c_bool),
                ("threads", ctypes.c_int), ("image_marker", ctypes.c_char_p), ("media_marker", ctypes.c_char_p),
                ("flash", ctypes.c_int), ("warmup", ctypes.c_bool), ("low", ctypes.c_int), ("high", ctypes.c_int),
                ("eval", ctypes.c_void_p), ("data", ctypes.c_void_p), ("batch", ctypes.c_int),
                ("progress", ctypes.c_void_p), ("more", ctypes.c_void_p)]
mtmd.mtmd_context_params_default.restype = Params
params = mtmd.mtmd_context_params_default()
params.use_gpu, params.flash, params.high = False, int(sys.argv[2]), int(sys.argv[3])
mtmd.mtmd_init_from_file.restype = ctypes.c_void_p
mtmd.mtmd_init_from_file.argtypes = [ctypes.c_char_p, ctypes.c_void_p, Params]
assert mtmd.mtmd_init_from_file(sys.argv[1].encode(), None, params)
print("".join(lines))
"""


@pytest.fixture(scope="module")
def child():
    """One worker for the module."""
    with EngineChild() as running:
        yield running


def really_loaded(path: Path, flash: int = -1, image_max_tokens: int = -1) -> tuple[float, float]:
    """MiB of weights and of compute memory that the engine logs when it loads the projector on the CPU."""
    command = [sys.executable, "-c", REAL_LOAD, str(path), str(flash), str(image_max_tokens)]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return (
        float(re.findall(r"model size: +([\d.]+) MiB", said)[-1]),
        float(re.findall(r"CPU compute buffer size = +([\d.]+) MiB", said)[-1]),
    )


@pytest.mark.parametrize(
    ("name", "layout", "flash", "image_max_tokens"),
    [
        ("qwen2-vl", layouts.qwen2_vl(layers=2), "auto", 0),
        ("qwen2-vl", layouts.qwen2_vl(layers=2), "off", 0),
        ("qwen2.5-vl", layouts.qwen25_vl(layers=9), "on", 0),
        ("qwen3-vl", layouts.qwen3_vl(layers=3, deep=(1,)), "auto", 400),
        ("gemma3", layouts.gemma3(layers=2), "off", 0),
        ("qwen2-audio", layouts.qwen2_audio(layers=2), "auto", 0),
    ],
)
def test_a_real_load_on_the_cpu_takes_what_was_foretold(child, tmp_path, name, layout, flash, image_max_tokens):
    """Weights and warm-up compute of a projector that is really loaded are those told from its header, to 0.01 MiB."""
    path = tmp_path / f"{name}.gguf"
    write_phantom(path, layout)
    numbers = {"auto": -1, "off": 0, "on": 1}
    weights, compute = really_loaded(path, numbers[flash], image_max_tokens or -1)
    settings = ProjectorSettings(flash_attention=flash, image_max_tokens=image_max_tokens)
    part = ask_projector(child, layout, [settings], devices=NO_GPU)[0].parts[0]
    assert part.on_host
    assert part.weights == {"CPU": pytest.approx(weights * MIB, abs=0.006 * MIB)}
    assert part.warmup == {"CPU": pytest.approx(compute * MIB, abs=0.006 * MIB)}


def test_a_card_that_is_not_here_takes_what_a_published_log_prints(child):
    """The projector of Qwen3.6-27B (BF16) on a CUDA card: 887.99 MiB of weights and 248.10 of compute memory.

    So a llama-server with that model logs it (record L0219 of the collected load logs).
    """
    tower = layouts.qwen3_vl(out=5120, deep=(), type_="BF16")
    part = ask_projector(child, tower, [ProjectorSettings()], devices=[CARD])[0].parts[0]
    assert not part.on_host
    assert round(part.weights["CUDA0"] / MIB, 2) == 887.99
    assert round(part.warmup["CUDA0"] / MIB, 2) == 248.10


@pytest.mark.parametrize(
    ("layout", "published"),
    [(layouts.qwen25_vl(), 1_354_163_040), (layouts.qwen3_vl(), 1_159_029_824)],
    ids=["Qwen2.5-VL-7B", "Qwen3-VL-8B"],
)
def test_the_towers_of_these_tests_have_their_published_sizes(child, layout, published):
    """The layouts are the real ones: weights and the published F16 file differ by the file's header alone.

    The files are those of unsloth/Qwen2.5-VL-7B-Instruct-GGUF and Qwen/Qwen3-VL-8B-Instruct-GGUF on Hugging Face.
    """
    part = ask_projector(child, layout, [ProjectorSettings()], devices=NO_GPU)[0].parts[0]
    assert 0 < published - part.weights["CPU"] < 64 << 10


def test_a_larger_picture_takes_more_and_a_cap_takes_it_back(child):
    """Compute memory grows from the warm-up to the largest picture; ``image_max_tokens`` bounds the picture."""
    free, capped, tight = (
        ask_projector(child, layouts.qwen25_vl(layers=8), [ProjectorSettings(image_max_tokens=cap)], devices=[CARD])[
            0
        ].parts[0]
        for cap in (0, 2400, 512)
    )
    assert (free.width, free.height, free.tokens) == (1792, 1792, 4096)
    assert capped.tokens <= 2400
    assert free.largest["CUDA0"] > 2 * free.warmup["CUDA0"]
    assert free.largest["CUDA0"] > capped.largest["CUDA0"] > capped.warmup["CUDA0"]
    # The warm-up ignores the cap, so a tight one saves nothing.
    assert tight.largest == tight.warmup == free.warmup


def test_without_flash_attention_memory_is_quadratic(child):
    """One head's K·Q of all patches: 16 heads × 8464² × 4 bytes stand in the compute buffer at least."""
    on, off = ask_projector(
        child,
        layouts.qwen2_vl(layers=1),
        [ProjectorSettings(flash_attention="on"), ProjectorSettings(flash_attention="off")],
        devices=[CARD],
    )
    assert off.parts[0].warmup["CUDA0"] - on.parts[0].warmup["CUDA0"] > 16 * 8464**2 * 4 * 0.9


def test_a_fixed_size_is_batched_and_a_recording_is_cut(child):
    """Gemma 3 sees 896 × 896 whatever is sent; Qwen2-Audio hears 30 seconds at a time: the warm-up is the largest."""
    for layout, size in ((layouts.gemma3(layers=1), (896, 896)), (layouts.qwen2_audio(layers=1), (3000, 128))):
        part = ask_projector(child, layout, [ProjectorSettings()], devices=NO_GPU)[0].parts[0]
        assert (part.width, part.height, part.count) == (*size, 1)
        assert part.largest == part.warmup


def test_off_the_gpu_everything_is_on_the_host(child):
    """``--no-mmproj-offload``: no byte on a card that is there."""
    part = ask_projector(child, layouts.qwen2_vl(layers=1), [ProjectorSettings(use_gpu=False)], devices=[CARD])[
        0
    ].parts[0]
    assert set(part.weights) | set(part.warmup) | set(part.largest) == {"CPU"}
    assert part.work_bytes > 0


def test_nothing_is_held_by_a_question(child):
    """A question about 30 GiB of compute memory leaves the worker as it was, to 32 MiB."""
    settings = [ProjectorSettings(flash_attention="off", image_max_tokens=4096 * 2)]
    ask_projector(child, layouts.qwen3_vl(layers=1, deep=()), settings, devices=NO_GPU)
    before = _resident(child.pid)
    part = ask_projector(child, layouts.qwen3_vl(), settings, devices=NO_GPU)[0].parts[0]
    assert part.largest["CPU"] > 30 << 30
    assert _resident(child.pid) - before < 32 * MIB


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) * 1024


def test_a_damaged_projector_is_refused_in_the_engines_words(child):
    """A missing tensor is a refusal that names it, not a crash."""
    whole = layouts.qwen2_vl(layers=1)
    broken = type(whole)(
        architecture="clip",
        metadata=whole.metadata,
        tensors=tuple(tensor for tensor in whole.tensors if tensor.name != "mm.2.weight"),
        layers=(),
    )
    answer = ask_projector(child, broken, [ProjectorSettings()], devices=NO_GPU)[0]
    assert answer.parts == ()
    assert "mm.2.weight" in (answer.refused or "")


def test_a_header_says_as_much_as_the_file(child, tmp_path):
    """The first bytes of a projector, read as any header is, give the same answer as its whole layout."""
    layout = layouts.qwen3_vl(layers=2, deep=(0,))
    path = tmp_path / "mmproj.gguf"
    write_phantom(path, layout)
    header = read_header(child, [path])
    from_header = projector_layout(header)
    assert from_header.tensors == layout.tensors
    settings = [ProjectorSettings(threads=2)]
    assert ask_projector(child, from_header, settings, devices=[CARD]) == ask_projector(
        child, layout, settings, devices=[CARD]
    )


def test_a_model_is_no_projector():
    """A header of another architecture is refused before the engine sees it."""
    header = Header(
        name="model.gguf", architecture="qwen3", kind="model", version=3, alignment=32, metadata={}, tensors=(),
        vocab_size=None, tokenizer_model=None, chat_template_sha256=None, header_bytes=0, data_bytes=0, file_bytes=None,
    )  # fmt: skip
    with pytest.raises(BadInputError) as caught:
        projector_layout(header)
    assert caught.value.code == "not-a-projector"
