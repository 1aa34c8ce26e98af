"""The real NVML child with a real shared library that answers, hangs, crashes or babbles."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from planner.machine import collect, interpret
from planner.machine.host import Host

COMPILER = shutil.which("cc") or shutil.which("gcc")
SOURCE = r"""
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
typedef struct { unsigned long long total, free, used; } memory_t;
static int mode(const char *name) { const char *m = getenv("FAKE_NVML"); return m && !strcmp(m, name); }
int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) {
    if (mode("hang-at-start")) for (;;) sleep(1000);
    if (mode("babble")) { printf("driver says hello\n{broken json\n"); fflush(stdout); }
    snprintf(text, length, "999.99"); return 0;
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index == 1 && mode("hang-at-second")) { signal(SIGTERM, SIG_IGN); for (;;) sleep(1000); }
    if (index == 1 && mode("crash-at-second")) raise(SIGSEGV);
    if (index == 1 && mode("lost")) return 15;
    *handle = (void *)(unsigned long)(index + 1); return 0;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned length) {
    snprintf(text, length, "NVIDIA Fake %d", (int)(unsigned long)handle); return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *info) {
    if (mode("unified")) return 3;
    info->total = 8ULL << 30; info->used = 1;
    info->free = (unsigned long)handle == 2 ? 9ULL << 30 : 7ULL << 30;
    return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    (void)handle; *major = 8; *minor = 6; return 0;
}
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with a libnvidia-ml.so.1 of our own."""
    if COMPILER is None or sys.platform == "darwin":
        pytest.skip("needs a C compiler and ELF")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvml.c").write_text(SOURCE)
    target = folder / "libnvidia-ml.so.1"
    subprocess.run([COMPILER, "-shared", "-fPIC", "-o", target, folder / "nvml.c"], check=True)
    return folder


@pytest.fixture
def detect_with(library, monkeypatch):
    """Detection on this very machine with the fake driver in one of its moods."""

    def detect(mood, **options):
        monkeypatch.setenv("LD_LIBRARY_PATH", str(library))
        monkeypatch.setenv("FAKE_NVML", mood)
        started = time.monotonic()
        capture = collect(Host(**options), Path("/models"))
        return interpret(capture), capture, time.monotonic() - started

    return detect


def test_answers_of_a_real_library_become_gpus(detect_with):
    """Names, memory and capability arrive; free is never more than total; what the library lacks is unknown."""
    machine, capture, _ = detect_with("")
    first, second = machine.gpus[:2]
    assert (first.name, first.memory_total_bytes, first.memory_free_bytes) == ("NVIDIA Fake 1", 8 << 30, 7 << 30)
    assert second.memory_free_bytes == 8 << 30
    assert (first.compute_capability, first.driver, first.unified_memory) == ("8.6", "999.99", False)
    assert first.power_limit_watts is None
    assert first.notes["power_limit_watts"]
    assert capture.answers.programs["nvml"].failure is None


def test_memory_that_nvml_does_not_support_is_system_memory(detect_with):
    """The rule for GB10 and Jetson, through the real binding's own error class."""
    machine, _, _ = detect_with("unified")
    assert machine.gpus[0].unified_memory is True
    assert machine.gpus[0].memory_total_bytes == machine.memory.total_bytes


def test_a_hanging_library_costs_two_seconds_and_a_note(detect_with):
    """Nothing is known, detection goes on."""
    machine, _, seconds = detect_with("hang-at-start", deadline_s=1.0)
    assert machine.gpus == ()
    assert any("did not answer in time" in note for note in machine.notes)
    # A second of deadline; the rest is slack for a machine that is busy with other tests.
    assert seconds < 4


def test_what_was_answered_before_the_hang_is_kept(detect_with):
    """The first GPU is whole although the second never answers, not even to SIGTERM."""
    machine, _, _ = detect_with("hang-at-second", deadline_s=1.5)
    assert [gpu.name for gpu in machine.gpus] == ["NVIDIA Fake 1"]
    assert any("did not answer in time" in note for note in machine.notes)


def test_a_crashing_library_costs_a_note(detect_with):
    """The signal is named and the first GPU kept."""
    machine, _, _ = detect_with("crash-at-second")
    assert [gpu.name for gpu in machine.gpus] == ["NVIDIA Fake 1"]
    assert any("died of SIGSEGV" in note for note in machine.notes)


def test_a_babbling_library_cannot_spoil_the_answers(detect_with):
    """What a driver prints goes to stderr, away from the answers."""
    machine, capture, _ = detect_with("babble")
    assert len(machine.gpus) == 2
    for line in capture.answers.programs["nvml"].stdout.splitlines():
        json.loads(line)


def test_a_lost_gpu_does_not_hide_the_others(detect_with):
    """NVML_ERROR_GPU_IS_LOST for one card leaves the other."""
    machine, _, _ = detect_with("lost")
    assert [gpu.name for gpu in machine.gpus] == ["NVIDIA Fake 1"]


def test_no_child_is_started_where_there_is_no_driver(monkeypatch, plant):
    """Detection on a machine without an NVIDIA driver runs no program at all."""
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert collect(plant("amd-rx-7900-xtx"), Path("/models")).answers.programs == {}
    assert set(collect(plant("nvidia-2x-rtx-3090"), Path("/models")).answers.programs) == {"nvml"}
