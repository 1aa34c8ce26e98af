"""What llama-server comes to take beside the engine's buffers: laws, and figures that others published."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.estimate.server import (
    CACHE_RAM_DEFAULT_MIB,
    CHECKPOINTS_DEFAULT,
    SequenceState,
    affordable_extras,
    sequence_state,
    server_extras,
)

MIB = 1 << 20

_BYTES = st.integers(0, 64 << 30)
_STATES = st.builds(SequenceState, whole_bytes=_BYTES, window_bytes=_BYTES, recurrent_bytes=_BYTES)
_SLOTS = st.integers(1, 16)

ATTENTION = ("llama_kv_cache: size = 2304.00 MiB (  8192 cells,  36 layers,  2/2 seqs), K (f16): 1152.00 MiB, V …",)
SHARED = ("llama_kv_cache: size = 2304.00 MiB ( 16384 cells,  36 layers,  2/1 seqs), K (f16): 1152.00 MiB, V …",)
HYBRID = (
    "llama_kv_cache: size =  384.00 MiB (  8192 cells,  12 layers,  2/2 seqs), K (f16):  192.00 MiB, V (f16): …",
    "llama_memory_recurrent: size =  150.75 MiB (     2 cells,  48 layers,  2 seqs  0 rs_seq), R (f32):    6.75 MiB",
)
WINDOWED = (
    "llama_kv_cache_iswa: creating non-SWA KV cache, size = 8192 cells",
    "llama_kv_cache: size =   64.00 MiB (  8192 cells,   2 layers,  1/1 seqs), K (f16): …",
    "llama_kv_cache_iswa: creating     SWA KV cache, size = 1536 cells",
    "llama_kv_cache: size =   60.00 MiB (  1536 cells,  10 layers,  1/1 seqs), K (f16): …",
)
COMPRESSED = (
    "llama_kv_cache_iswa: creating non-SWA KV cache, size = 8192 cells",
    "llama_kv_cache: size =    0.00 MiB (  8192 cells,   0 layers,  2/2 seqs), K (f16):    0.00 MiB, V (f16):    0.00",
    "llama_kv_cache_iswa: creating     SWA KV cache, size = 768 cells",
    "llama_kv_cache: size =   64.50 MiB (   768 cells,  43 layers,  2/2 seqs), K (f16):   64.50 MiB, V (f16):    0.00",
    "llama_kv_cache_dsv4: creating DSV4 CSA compressed KV cache, size = 2048 cells",
    "llama_kv_cache: size =   84.00 MiB (  2048 cells,  21 layers,  2/2 seqs), K (f16):   84.00 MiB, V (f16):    0.00",
    "llama_dsv4_comp_state: hca ratio = 128, state = 128 x 512, streams = 2, rs_seq = 0, layers = 20, size = 20.00 MiB",
)


def test_a_sequence_has_its_share_of_separate_caches_and_all_of_a_shared_one():
    """Two separate sequences have half each; of a shared cache one sequence may fill every cell."""
    meta = 24 * 8192
    assert sequence_state(ATTENTION).whole_bytes == 1152 * MIB + meta
    assert sequence_state(SHARED).whole_bytes == 2304 * MIB + 2 * meta
    assert sequence_state(ATTENTION).checkpoint_bytes == 0


def test_a_hybrid_copies_its_recurrent_state():
    """One cell of Qwen3-Next is 75.38 MiB, as llama-server's logs print it, whatever the context."""
    state = sequence_state(HYBRID)
    assert round(state.checkpoint_bytes / MIB, 2) == 75.38
    assert state.saved_bytes == state.whole_bytes + state.checkpoint_bytes


def test_planes_for_rolling_back_are_not_copied():
    """With drafting the recurrent memory holds 1 + rs_seq states for each sequence; one of them is saved."""
    line = "llama_memory_recurrent: size = 1047.38 MiB (     1 cells,  64 layers,  1 seqs  6 rs_seq), R (f32): …"
    assert sequence_state([line]).recurrent_bytes == pytest.approx(149.63 * MIB, abs=0.01 * MIB)


def test_window_layers_copy_what_they_still_see():
    """Of 1536 cells 1024 are the window and 512 room for a micro-batch; a full-size window cache rolls back."""
    assert sequence_state(WINDOWED).checkpoint_bytes == 60 * MIB
    assert sequence_state(WINDOWED, window_tokens=1024).checkpoint_bytes == 40 * MIB
    whole = sequence_state(WINDOWED, swa_full=True)
    assert (whole.checkpoint_bytes, whole.whole_bytes) == (0, 124 * MIB + 24 * (8192 + 1536))


def test_compressed_caches_are_whole_and_their_compressors_are_state():
    """DeepSeek-V4: window and compressors are copied by a checkpoint, the compressed caches are not."""
    state = sequence_state(COMPRESSED)
    assert state.whole_bytes == 42 * MIB + 24 * 2048
    assert (state.window_bytes, state.recurrent_bytes) == (32.25 * MIB, 10 * MIB)


def test_recurrent_layers_beside_window_layers_copy_everything():
    """The engine's memory for both knows no partial state: each checkpoint is the whole sequence."""
    both = SequenceState(whole_bytes=100, window_bytes=10, recurrent_bytes=1)
    assert both.checkpoint_bytes == both.saved_bytes == 111


def test_the_defaults_of_llama_server_cost_what_its_users_met():
    """Qwen3.5-27B with four slots: 8 GiB of saved prompts and 18.7 GiB of checkpoints, none of it in a buffer line."""
    state = SequenceState(whole_bytes=0, recurrent_bytes=round(149.62 * MIB))
    extras = server_extras(state, slots=4, cache_ram_mib=CACHE_RAM_DEFAULT_MIB, checkpoints=CHECKPOINTS_DEFAULT)
    assert extras.prompt_cache_bytes == 8 << 30
    assert round(extras.checkpoints_bytes / (1 << 30), 1) == 18.7
    assert extras.peak_bytes == extras.prompt_cache_bytes + extras.checkpoints_bytes


def test_an_older_build_goes_over_its_limit_by_one_entry():
    """2460 MiB were saved under a limit of 1200 (issue 21690 of llama.cpp): the promise covers that."""
    state = SequenceState(whole_bytes=2460 * MIB)
    strict = server_extras(state, slots=1, cache_ram_mib=1200, checkpoints=0)
    late = server_extras(state, slots=1, cache_ram_mib=1200, checkpoints=0, strict_limit=False)
    assert strict.peak_bytes == 1200 * MIB
    assert late.peak_bytes >= 2460 * MIB


def test_without_a_limit_there_is_no_bound():
    """``--cache-ram -1``: unknown is None, never 0."""
    extras = server_extras(SequenceState(whole_bytes=1), slots=1, cache_ram_mib=-1, checkpoints=0)
    assert extras.prompt_cache_bytes is None
    assert extras.peak_bytes is None


@given(state=_STATES, draft=st.none() | _STATES, slots=_SLOTS, limit=st.integers(0, 1 << 20), kept=st.integers(0, 64))
def test_more_of_anything_never_takes_less(state, draft, slots, limit, kept):
    """Slots, the limit, checkpoints and a draft only ever add; attention alone has no checkpoints."""
    here = server_extras(state, slots=slots, cache_ram_mib=limit, checkpoints=kept, draft=draft).peak_bytes
    assert here >= limit * MIB
    for more in (
        server_extras(state, slots=slots + 1, cache_ram_mib=limit, checkpoints=kept, draft=draft),
        server_extras(state, slots=slots, cache_ram_mib=limit + 1, checkpoints=kept, draft=draft),
        server_extras(state, slots=slots, cache_ram_mib=limit, checkpoints=kept + 1, draft=draft),
        server_extras(state, slots=slots, cache_ram_mib=limit, checkpoints=kept, draft=draft, strict_limit=False),
    ):
        assert more.peak_bytes >= here
    if draft is not None:
        alone = server_extras(state, slots=slots, cache_ram_mib=limit, checkpoints=kept)
        assert alone.peak_bytes <= here
    if not state.checkpoint_bytes:
        assert here == limit * MIB


@given(state=_STATES, draft=st.none() | _STATES, slots=_SLOTS, spare=st.integers(0, 1 << 40))
def test_what_is_afforded_fits_and_nothing_worth_having_is_left_out(state, draft, slots, spare):
    """The chosen extras stay within what is spare, and one more checkpoint would not, unless enough are kept."""
    fixed = server_extras(state, slots=slots, cache_ram_mib=0, checkpoints=0, draft=draft).peak_bytes
    checkpoints, limit = affordable_extras(state, slots=slots, spare_bytes=spare, draft=draft)
    extras = server_extras(state, slots=slots, cache_ram_mib=limit, checkpoints=checkpoints, draft=draft)
    assert extras.peak_bytes <= max(spare, fixed)
    assert limit <= CACHE_RAM_DEFAULT_MIB
    if extras.checkpoint_bytes and checkpoints < 8:
        more = server_extras(state, slots=slots, cache_ram_mib=0, checkpoints=checkpoints + 1, draft=draft)
        assert more.peak_bytes > spare
    if limit:
        assert limit * MIB >= extras.state_bytes


def test_a_cache_that_holds_no_whole_conversation_is_left_off():
    """An entry over the limit is never saved: a cache too small for one full state would only cost memory."""
    state = SequenceState(whole_bytes=3 << 30)
    assert affordable_extras(state, slots=1, spare_bytes=(3 << 30) - 1) == (0, 0)
    assert affordable_extras(state, slots=1, spare_bytes=4 << 30) == (0, 4096)
