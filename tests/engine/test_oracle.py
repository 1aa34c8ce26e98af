"""The engine's answers: equal to what llama.cpp publishes and does, kept per build, asked again when damaged."""

from functools import partial
from pathlib import Path

import msgspec
import psutil
import pytest

from planner import catalogue
from planner.engine.answers import ShapeAnswers
from planner.engine.child import EngineChild
from planner.engine.devices import PhantomDevice
from planner.engine.oracle import Oracle
from planner.types.settings import Settings

pytestmark = pytest.mark.engine
MIB = 1 << 20


@pytest.fixture(scope="module")
def child():
    """One child for the whole module: a start costs more than all its questions."""
    with EngineChild() as running:
        yield running


@pytest.fixture(scope="module")
def known():
    """The shipped catalogue."""
    return catalogue.load()


@pytest.fixture
def oracle(child, tmp_path):
    """An oracle that remembers nothing yet."""
    return Oracle(child, folder=tmp_path)


def shape(known, name):
    """Shape key and layout source of a model."""
    model = known.model(name)
    return known.shape_key(model), partial(known.layout, model)


@pytest.mark.parametrize(
    ("model", "quantization", "mib"),
    # Sizes that llama-quantize itself printed (verified facts of the design): weights without tokenizer.
    [("qwen3-8b", "Q4_K_M", 4789.19), ("deepseek-r1", "Q4_K_M", 385750.6)],
)
def test_the_dry_run_gives_the_sizes_that_llama_quantize_prints(oracle, known, model, quantization, mib):
    """4789.19 MiB for Qwen3-8B, 404.5 GB for DeepSeek-R1."""
    weights = oracle.weights(*shape(known, model), known.quantization(quantization), Settings(context_tokens=512))
    assert weights.file_bytes / MIB == pytest.approx(mib, abs=0.05)


def test_more_bits_never_make_a_smaller_file(oracle, known):
    """Over every recipe: files order as nominal bits per weight order, where those differ by a tenth or more."""
    key, source = shape(known, "qwen3-1.7b")
    dense = [q for q in known.quantizations.values() if not q.moe_only]
    sizes = {q.name: oracle.weights(key, source, q, Settings(context_tokens=512)).file_bytes for q in dense}
    for small in dense:
        for large in dense:
            if large.bits_per_weight > 1.25 * small.bits_per_weight:
                assert sizes[large.name] >= sizes[small.name], (small.name, large.name)


def test_a_tied_head_is_counted_once_in_the_file_and_read_once_per_token(oracle, known):
    """Qwen3-0.6B has one matrix for both; its bytes are the head's, and nothing is left that is only gathered."""
    weights = oracle.weights(*shape(known, "qwen3-0.6b"), known.quantization("Q8_0"), Settings(context_tokens=512))
    parts = weights.head_bytes + weights.input_bytes + sum(x.dense_bytes + x.expert_bytes for x in weights.layers)
    assert weights.tied
    assert weights.input_bytes == 0
    # Only the output norm stands outside.
    assert 0 < weights.file_bytes - parts < 16384


def test_experts_are_told_from_the_dense_part_of_a_mixture(oracle, known):
    """Of Qwen3-30B-A3B nine tenths are experts; dense models have none."""
    settings, recipe = Settings(context_tokens=512), known.quantization("Q4_K_M")
    mixture = oracle.weights(*shape(known, "qwen3-30b-a3b"), recipe, settings)
    dense = oracle.weights(*shape(known, "qwen3-8b"), recipe, settings)
    share = sum(layer.expert_bytes for layer in mixture.layers) / mixture.file_bytes
    assert 0.9 < share < 1
    assert all(layer.expert_bytes == 0 for layer in dense.layers)


def test_buffers_on_a_cpu_do_not_depend_on_the_quantization(child, known, tmp_path):
    """What lets one answer serve all recipes: cache, compute and work space are the same for F16 and Q2_K."""
    model = known.model("qwen3-0.6b")
    settings = Settings(context_tokens=4096, threads=2, threads_batch=2)
    answers = []
    for name in ("F16", "Q2_K"):
        oracle = Oracle(child, folder=tmp_path / name)
        key, recipe = known.shape_key(model), known.quantization(name)
        typed = partial(oracle.typed_layout, key, partial(known.layout, model), recipe)
        answers.append(oracle.buffers(key, typed, [settings], recipe)[0])
    first, second = ([(b.name, b.context_bytes, b.compute_bytes) for b in a.buffers if b.host] for a in answers)
    assert first == second


def test_more_context_never_needs_less_memory(oracle, known):
    """Cache plus compute grow with the context, for a dense model and for latent attention."""
    for name in ("qwen3-4b", "deepseek-v2-lite"):
        key, source = shape(known, name)
        settings = [Settings(context_tokens=1024 << power) for power in range(6)]
        answers = oracle.buffers(key, source, settings, known.quantization("Q8_0"))
        totals = [sum(b.context_bytes + b.compute_bytes for b in answer.buffers) for answer in answers]
        assert totals == sorted(totals)
        assert totals[-1] > totals[0]


def test_the_engines_refusal_comes_back_in_its_own_words(oracle, known):
    """A quantized V cache without flash attention is refused, and the next question is answered."""
    key, source = shape(known, "qwen3-0.6b")
    impossible = Settings(context_tokens=512, cache_type_v="q8_0", flash_attention="off")
    refused, fine = oracle.buffers(key, source, [impossible, Settings(context_tokens=512)], known.quantization("Q8_0"))
    assert "flash" in (refused.refused or "").lower()
    assert fine.refused is None
    assert fine.buffers


def test_answers_are_kept_for_the_same_build_and_asked_anew_for_another(child, known, tmp_path):
    """A second oracle answers from the file; one that sees another fingerprint does not even open it."""
    recipe, settings = known.quantization("Q4_0"), Settings(context_tokens=512)
    key, source = shape(known, "qwen2.5-0.5b")
    with Oracle(child, folder=tmp_path) as first:
        told = first.weights(key, source, recipe, settings)

    def unreachable():
        raise AssertionError("the layout was asked for although the answer is kept")

    assert Oracle(child, folder=tmp_path).weights(key, unreachable, recipe, settings) == told
    newer = Oracle(child, folder=tmp_path)
    newer._system = msgspec.structs.replace(newer.system(), build="another")
    with pytest.raises(AssertionError, match="although"):
        newer.weights(key, unreachable, recipe, settings)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"types": 3}', b"[]"])
def test_a_damaged_answer_is_asked_again(child, known, tmp_path, damage):
    """Whatever stands in the file, the answer is the engine's."""
    recipe, settings = known.quantization("Q4_0"), Settings(context_tokens=512)
    key, source = shape(known, "qwen2.5-0.5b")
    with Oracle(child, folder=tmp_path) as first:
        told = first.weights(key, source, recipe, settings)
    path = next(path for path in tmp_path.rglob("*.json") if path.stem == key)
    path.write_bytes(damage)
    with Oracle(child, folder=tmp_path) as second:
        assert second.weights(key, source, recipe, settings) == told
    assert msgspec.json.decode(path.read_bytes(), type=ShapeAnswers).weights


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_cache(child, known, tmp_path):
    """A file where the folder should be: the question is answered all the same."""
    (tmp_path / "occupied").write_text("in the way")
    with Oracle(child, folder=tmp_path / "occupied" / "engine") as oracle:
        key, source = shape(known, "qwen2.5-0.5b")
        assert oracle.weights(key, source, known.quantization("Q4_0"), Settings(context_tokens=512)).file_bytes > 0


def test_no_phantom_is_left_behind(oracle, known, monkeypatch, tmp_path):
    """After questions, also after a refused one, the phantom folder is empty."""
    monkeypatch.setenv("PLANNER_CACHE_DIR", str(tmp_path / "cache"))
    key, source = shape(known, "qwen2.5-0.5b")
    oracle.weights(key, source, known.quantization("Q4_0"), Settings(context_tokens=512))
    assert list((tmp_path / "cache" / "phantoms").iterdir()) == []


def test_the_engine_describes_itself_and_its_cpu(oracle):
    """Version, a fingerprint of the libraries, one CPU, and the memory that an idle process takes."""
    told = oracle.system()
    assert tuple(map(int, told.package_version.split("."))) >= (0, 3, 36)
    assert len(told.build) == 16
    cpus = [device for device in told.devices if device.kind == "cpu"]
    assert len(cpus) == 1
    # ggml reports the CPU's free memory as its total; that is no fact and is not passed on.
    assert cpus[0].memory_free_bytes is None
    assert told.process_bytes is None or 10 * MIB < told.process_bytes < 400 * MIB


def test_a_header_is_read_by_ggmls_own_parser(child, known, tmp_path):
    """What a phantom was written with comes back: metadata, names, shapes, types."""
    from planner.engine.phantom import write_phantom

    layout = known.layout(known.model("qwen3-0.6b"), 2)
    write_phantom(tmp_path / "slice.gguf", layout)
    told = child.ask("header", {"path": str(tmp_path / "slice.gguf")})
    assert told["metadata"]["general.architecture"] == ["str", "qwen3"]
    assert told["metadata"]["qwen3.block_count"] == ["u32", 2]
    written = {tensor.name: (list(tensor.dims), tensor.type.lower()) for tensor in layout.tensors}
    assert {name: (dims, kind) for name, dims, kind, _size, _offset in told["tensors"]} == written


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_the_state_of_a_recurrent_model_is_told_and_never_written(known, tmp_path):
    """Qwen3.8-2.4T keeps 590 MiB of state for one sequence; the child that says so stays small."""
    settings = Settings(context_tokens=4096)
    with EngineChild() as running:
        oracle = Oracle(running, folder=tmp_path)
        (answer,) = oracle.buffers(*shape(known, "qwen3.8-2.4t-a95b"), [settings], known.quantization("Q4_K_M"))
        newest = max(psutil.Process().children(), key=lambda process: process.create_time())
        peak_kib = int(Path(f"/proc/{newest.pid}/status").read_text().split("VmHWM:")[1].split()[0])
    assert sum(buffer.context_bytes for buffer in answer.buffers) > 500 * MIB
    assert peak_kib < 200 * 1024


@pytest.mark.parametrize("backend", ["cuda", "vulkan", "metal"])
@pytest.mark.parametrize("name", ["qwen3.5-4b", "deepseek-v2-lite"])
def test_what_devices_hold_alone_is_asked_once_for_all_quantizations(child, known, tmp_path, backend, name):
    """The second quantization's buffers cost no question, and are those that the engine tells when it is asked."""
    whole = Settings(context_tokens=8192, gpu_layers=-1, load_mode="mmap", threads=4, threads_batch=4)
    card = PhantomDevice(backend=backend, free_bytes=80 << 30, total_bytes=80 << 30, integrated=backend == "metal")
    first, fresh = (Oracle(child, folder=tmp_path / each, devices=[card]) for each in ("first", "fresh"))
    key, source = shape(known, name)
    for settings, shared in ((whole, True), (msgspec.structs.replace(whole, gpu_layers=5), False)):
        for quantization in map(known.quantization, ("Q4_K_M", "Q2_K")):
            first.weights(key, source, quantization, settings)
            asked = CountedAsks(child)
            (told,) = first.buffers(key, source, [settings], quantization)
            assert asked.stop() == int(not shared or quantization.name == "Q4_K_M")
            (truth,) = fresh.buffers(key, source, [settings], quantization)
            assert without_weights(told) == without_weights(truth)


class CountedAsks:
    """Counts what a child is asked until :meth:`stop`."""

    def __init__(self, child):
        self._child, self._ask, self._count = child, child.ask, 0
        child.ask = self

    def __call__(self, *args, **more):
        """Ask, and count."""
        self._count += 1
        return self._ask(*args, **more)

    def stop(self):
        """How often it was asked; no more are counted."""
        del self._child.ask
        return self._count


def without_weights(told):
    """An answer without the bytes of weights in it and the log, by the name of the buffer."""
    rows = sorted((each.name, each.context_bytes, each.compute_bytes) for each in told.buffers)
    return rows, told.output_bytes, told.work_bytes, told.structures_bytes, told.graph_bytes, told.refused
