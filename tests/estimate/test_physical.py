"""The physical speed model: what can never happen, on every backend, and what the shipped constants say about trust."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import BadInputError
from planner.estimate.physical import (
    Hardware,
    Work,
    decode_terms,
    least_seconds,
    prompt_terms,
    total_seconds,
)
from planner.estimate.physical_constants import Trust, read_speed_model, speed_model
from planner.estimate.physical_trust import doubt_of, features_of
from planner.estimate.speed import Stage, Structure, generate_speed, prompt_speed

MODEL = speed_model()
BACKENDS = ("cuda", "rocm", "vulkan", "metal", "sycl", "cpu")
TYPES = ("F16", "Q8_0", "Q4_0", "Q4_K_M", "Q6_K", "Q3_K_M", "IQ2_XS")

parts = st.builds(
    lambda backend, bandwidth, rate, memory, generation, threads, size, layers, quantization, mixture, recurrent: (
        Hardware(backend, bandwidth * 1e9, rate * 1e12, memory, generation, threads),
        Work(size * 1e9, size * 1.5e9, layers, size * 1.7e9, quantization, mixture, recurrent, size * 1e8, 1e5),
    ),
    st.sampled_from(BACKENDS),
    st.floats(10, 9000),
    st.floats(0.5, 2500),
    st.sampled_from((None, "hbm", "gddr", "lpddr", "ddr")),
    st.sampled_from((None, "pascal", "ampere", "rdna3", "apple-m3")),
    st.integers(1, 128),
    st.floats(0.1, 400),
    st.integers(1, 120),
    st.sampled_from(TYPES),
    st.booleans(),
    st.booleans(),
)


def decode_seconds(*pipeline):
    """Seconds per decoded token of a pipeline with the shipped constants."""
    return sum(total_seconds(terms, MODEL.constants) for terms in decode_terms(pipeline))


def prompt_seconds(*pipeline, **asked):
    """Seconds per token of a prompt of a pipeline with the shipped constants."""
    return sum(total_seconds(terms, MODEL.constants) for terms in prompt_terms(pipeline, **asked))


@given(part=parts, factor=st.floats(1.0, 10.0))
def test_more_bandwidth_is_never_slower(part, factor):
    """Decoding and reading a prompt alike, on every backend."""
    hardware, work = part
    faster = hardware._replace(bandwidth_bytes_per_s=hardware.bandwidth_bytes_per_s * factor)
    assert decode_seconds((faster, work)) <= decode_seconds(part)
    assert prompt_seconds((faster, work)) <= prompt_seconds(part)


@given(part=parts, factor=st.floats(1.0, 10.0))
def test_a_faster_matrix_unit_is_never_slower_and_does_not_matter_for_decoding(part, factor):
    """One token waits for memory, a prompt for multiplications."""
    hardware, work = part
    faster = hardware._replace(matrix_flops_per_s=hardware.matrix_flops_per_s * factor)
    assert decode_seconds((faster, work)) == decode_seconds(part)
    assert prompt_seconds((faster, work)) <= prompt_seconds(part)


@given(part=parts, more=st.floats(0.0, 1e11), layers=st.integers(0, 50))
def test_more_bytes_layers_or_depth_are_never_faster(part, more, layers):
    """Weights, cache and layers each cost time."""
    hardware, work = part
    before = decode_seconds(part)
    assert decode_seconds((hardware, work._replace(weights_bytes=work.weights_bytes + more))) >= before
    assert decode_seconds((hardware, work._replace(cache_bytes=work.cache_bytes + more))) >= before
    assert decode_seconds((hardware, work._replace(layers=work.layers + layers))) >= before
    assert prompt_seconds(part, depth=4096) >= prompt_seconds(part)
    assert prompt_seconds((hardware, work._replace(resident_bytes=work.resident_bytes + more))) >= prompt_seconds(part)


@given(part=parts)
def test_weights_are_never_read_faster_than_the_memory_delivers_them(part):
    """The constant that multiplies bytes over bandwidth is at least 1 for every backend and every tensor type."""
    hardware, work = part
    assert decode_seconds(part) >= 0.99 * work.weights_bytes / hardware.bandwidth_bytes_per_s
    assert least_seconds(hardware, work) == (work.weights_bytes + work.cache_bytes) / hardware.bandwidth_bytes_per_s


@given(part=parts, tokens=st.integers(32, 511))
def test_a_larger_micro_batch_never_reads_a_prompt_more_slowly(part, tokens):
    """What is read once a micro-batch is shared by its tokens."""
    assert prompt_seconds(part, microbatch=512) <= prompt_seconds(part, microbatch=tokens)


def test_micro_batches_of_several_cuda_devices_overlap_and_those_of_one_do_not():
    """Two devices read 8,192 tokens faster than their times add up to; a single micro-batch gains nothing."""
    half = (Hardware("cuda", 9e11, 1.4e14, "gddr", "ampere"), Work(2e9, 2e9, 16, 4e9, "Q4_K_M"))
    assert prompt_seconds(half, half, tokens=8192) < prompt_seconds(half, half, tokens=512)
    assert prompt_seconds(half, tokens=8192) == prompt_seconds(half, tokens=512)


def test_experts_in_ram_are_copied_to_the_gpu_for_a_prompt_when_there_is_a_link():
    """A faster link never reads a prompt more slowly; without one the CPU multiplies, far more slowly."""
    gpu = (Hardware("cuda", 1e12, 3e14, "gddr", "ada"), Work(2e9, 2e9, 40, 2e9, "Q4_K_M", mixture=True))
    ram = (Hardware("cpu", 9e10, threads=16), Work(1e9, 2e10, 0, 2e9, "Q4_K_M", mixture=True))
    slow, fast = (prompt_seconds(gpu, ram, link_bytes_per_s=link) for link in (20e9, 50e9))
    assert fast < slow < prompt_seconds(gpu, ram)


def test_one_core_of_a_wide_socket_draws_no_more_than_a_core_can():
    """A container with one CPU on a server of 460 GB/s decodes like one on 60 GB/s, and not like the server."""
    work = Work(1e9, 1e9, 28, 2e9, "Q4_K_M")
    wide, narrow = (Hardware("cpu", bandwidth, generation="x86", threads=1) for bandwidth in (460.8e9, 60e9))
    assert decode_seconds((wide, work)) == decode_seconds((narrow, work))
    assert decode_seconds((wide._replace(threads=32), work)) < 0.3 * decode_seconds((wide, work))


def test_an_unknown_rate_is_none_and_not_a_guess():
    """No bandwidth: no decoding; no matrix rate: no prompt; on a CPU both have their own measure, threads."""
    work = Work(2e9, 2e9, 32, 4e9, "Q4_K_M")
    assert decode_terms([(Hardware("cuda", None, 1e14), work)]) is None
    assert prompt_terms([(Hardware("cuda", 1e12, None), work)]) is None
    assert prompt_terms([(Hardware("cuda", None, 1e14), work)]) is None
    assert decode_terms([(Hardware("cpu", None, threads=4), work)]) is not None
    assert decode_terms([(Hardware("cpu", None, threads=0), work)]) is None


def stage(**changes):
    """A plausible GPU stage with its data sheet."""
    fields = {
        "device": "CUDA0",
        "backend": "cuda",
        "weights_bytes": 5 << 30,
        "layers": 36,
        "quantization": "Q4_K_M",
        "parameters_active": 8_000_000_000,
        "bandwidth_bytes_per_s": 936_000_000_000,
        "matrix_flops_per_s": 142e12,
        "memory": "gddr",
        "generation": "ampere",
    }
    return Stage(**{**fields, **changes})


@given(backend=st.sampled_from(BACKENDS), size=st.integers(10**8, 10**12), mixture=st.booleans())
def test_every_interval_holds_its_middle_and_says_what_it_rests_on(backend, size, mixture):
    """Decoding, at depth, and prompts."""
    one = stage(backend=backend, weights_bytes=size, threads=8, structure=Structure(mixture=mixture))
    for speed in (generate_speed([one]), generate_speed([one], at_context_tokens=8192), prompt_speed([one])):
        assert 0 < speed.low <= speed.tokens_per_s <= speed.high
        assert "published devices" in speed.basis
        assert "936 GB/s by its data sheet" in speed.basis


def test_a_card_with_a_data_sheet_has_a_prompt_speed_of_the_published_order():
    """An RTX 3090 reads prompts of an 8B at 4 bits with 2,900 to 4,100 tokens/s in published rows."""
    speed = prompt_speed([stage(parameters_active=7_000_000_000)])
    assert speed.low < 4000 < speed.high
    assert 2000 < speed.tokens_per_s < 6000


def test_what_no_published_device_showed_widens_the_interval_and_is_told():
    """Memory, kind of model, bandwidth far away; each in words."""
    known = (Hardware("metal", 4e11, 1.4e13, "lpddr", "apple-m3"), Work(4e9, 4e9, 32, 7e9, "Q4_K_M"))
    base = doubt_of(MODEL, known, "decode")
    strange = (known[0]._replace(memory="hbm"), known[1])
    recurrent = (known[0], known[1]._replace(recurrent=True))
    far = (known[0]._replace(bandwidth_bytes_per_s=9e12), known[1])
    for part, words in ((strange, "HBM"), (recurrent, "recurrent"), (far, "far from")):
        doubt = doubt_of(MODEL, part, "decode")
        assert doubt.width > base.width
        assert words in doubt.basis
    assert "none of them" not in base.basis
    assert features_of([recurrent]) == {"k4", "lpddr", "recurrent"}


def test_a_backend_nobody_published_is_unknown():
    """No spread, no speed."""
    bare = MODEL._replace(backends={})
    assert doubt_of(bare, (Hardware("cuda", 1e12), Work(1e9, 1e9, 1, 1e9, "Q8_0")), "decode") is None


def test_the_shipped_constants_are_whole_and_physical():
    """Every name a term can carry is there, positive and within four deviations of its physical start."""
    names = {
        name
        for backend in BACKENDS
        for kind in TYPES
        for terms in (
            *decode_terms([(Hardware(backend, 1e12, 1e14, "hbm", "pascal"), Work(1, 1, 1, 1, kind, True, True))] * 2),
            *decode_terms([(Hardware(backend, None), Work(1, 1, 1, 1, kind))] if backend == "cpu" else []),
            *prompt_terms(
                [(Hardware(backend, 1e12, 1e14), Work(1, 1, 1, 1, kind, True, True))] * 2, tokens=4096, depth=1
            ),
        )
        for term in terms
        for name in term.constants
    }
    # A half-width CPU prompt and the like may be named for a type that no row has; every name has a value all the same.
    assert names <= set(MODEL.constants)
    assert all(0 < value < 1000 for value in MODEL.constants.values())
    assert all(MODEL.constants[f"{backend}.read"] >= 1 for backend in BACKENDS)
    for trust in MODEL.backends.values():
        assert trust.devices >= 1
        assert all(1 < factor < 10 for factor in trust.spread.values())
    assert all(power > 1 for power in MODEL.unfamiliar.values())


def test_a_broken_profile_is_named(tmp_path):
    """The file and the key stand in the error."""
    with pytest.raises(BadInputError, match=r"constants\.toml"):
        read_speed_model(tmp_path)
    (tmp_path / "constants.toml").write_text('fitted = "x"\n[constants]\n"a" = { is = "y" }\n')
    with pytest.raises(BadInputError, match=r"constants\.toml.*float"):
        read_speed_model(tmp_path)


def test_a_spread_is_a_factor_on_either_side():
    """Units: a spread of 1.5 makes low two thirds of the middle."""
    trust = Trust(devices=9, rows=90, spread={"decode": 1.5}, features=("k4", "gddr"))
    model = MODEL._replace(backends={"cuda": trust})
    doubt = doubt_of(model, (Hardware("cuda", 1e12, memory="gddr"), Work(1e9, 1e9, 1, 1e9, "Q4_0")), "decode")
    assert doubt.width == pytest.approx(math.log(1.5) * MODEL.unfamiliar["decode"])  # Q4_0: "plain" was not seen
