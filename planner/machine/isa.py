"""Instruction sets in llama.cpp's own spelling, and names of processors that only tell numbers.

The spelling is that of the feature list of ggml's CPU backend (``llama_print_system_info``), so that the engine's
build and the machine can be compared word for word. Kernel flag names: Linux arch/x86/include/asm/cpufeatures.h and
Documentation/arch/arm64/elf_hwcaps.rst. Arm part numbers: the Main ID Register values in each core's Arm reference
manual.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["arm_name", "arm_vendor", "isa_of", "isa_of_sysctl", "vendor_name"]

# In the order in which the engine prints them.
_FLAGS: tuple[tuple[str, frozenset[str]], ...] = (
    ("SSE3", frozenset({"pni", "sse3"})),
    ("SSSE3", frozenset({"ssse3"})),
    ("AVX", frozenset({"avx", "avx1.0"})),
    ("AVX_VNNI", frozenset({"avx_vnni"})),
    ("AVX2", frozenset({"avx2"})),
    ("F16C", frozenset({"f16c"})),
    ("FMA", frozenset({"fma"})),
    ("BMI2", frozenset({"bmi2"})),
    ("AVX512", frozenset({"avx512f"})),
    ("AVX512_VBMI", frozenset({"avx512vbmi"})),
    ("AVX512_VNNI", frozenset({"avx512_vnni", "avx512vnni"})),
    ("AVX512_BF16", frozenset({"avx512_bf16"})),
    ("AMX_INT8", frozenset({"amx_int8"})),
    ("NEON", frozenset({"asimd", "neon"})),
    ("ARM_FMA", frozenset({"asimd", "vfpv4"})),
    ("FP16_VA", frozenset({"asimdhp"})),
    ("MATMUL_INT8", frozenset({"i8mm"})),
    ("SVE", frozenset({"sve"})),
    ("DOTPROD", frozenset({"asimddp"})),
    ("SME", frozenset({"sme"})),
    ("SME2", frozenset({"sme2"})),
    ("RISCV_V", frozenset({"riscv_v"})),
    ("VSX", frozenset({"vsx"})),
    ("VXE", frozenset({"vxe"})),
)
_SYSCTL = {
    "hw.optional.arm.AdvSIMD": "asimd",
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.neon": "asimd",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.arm.FEAT_SME2": "sme2",
}
_VENDORS = {
    "GenuineIntel": "Intel",
    "AuthenticAMD": "AMD",
    "HygonGenuine": "Hygon",
    "CentaurHauls": "Zhaoxin",
    "Shanghai": "Zhaoxin",
}
_ARM_VENDORS = {
    0x41: "Arm",
    0x42: "Broadcom",
    0x43: "Cavium",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x50: "Applied Micro",
    0x51: "Qualcomm",
    0x61: "Apple",
    0x6D: "Microsoft",
    0x70: "Phytium",
    0xC0: "Ampere",
}
_ARM_PARTS = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77",
    (0x41, 0xD0E): "Cortex-A76AE",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD44): "Cortex-X1",
    (0x41, 0xD46): "Cortex-A510",
    (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4B): "Cortex-A78C",
    (0x41, 0xD4D): "Cortex-A715",
    (0x41, 0xD4E): "Cortex-X3",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720",
    (0x41, 0xD82): "Cortex-X4",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD85): "Cortex-X925",
    (0x41, 0xD87): "Cortex-A725",
    (0x41, 0xD8E): "Neoverse-N3",
    (0x46, 0x001): "A64FX",
    (0x48, 0xD01): "Kunpeng 920",
    (0x4E, 0x004): "Carmel",
    (0x51, 0x001): "Oryon",
    (0x6D, 0xD49): "Azure Cobalt 100",
    (0xC0, 0xAC3): "Ampere-1",
    (0xC0, 0xAC4): "Ampere-1a",
}


def isa_of(flags: "Iterable[str]") -> tuple[str, ...]:
    """Instruction sets that llama.cpp's kernels use, from the kernel's flag names."""
    present = {flag.lower() for flag in flags}
    return tuple(name for name, spellings in _FLAGS if spellings & present)


def isa_of_sysctl(sysctl: "Mapping[str, str]") -> tuple[str, ...]:
    """The same from macOS's ``hw.optional`` (Apple silicon) or ``machdep.cpu`` features (Intel)."""
    flags = [flag for key, flag in _SYSCTL.items() if sysctl.get(key) == "1"]
    for key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
        flags += sysctl.get(key, "").split()
    return isa_of(flags)


def vendor_name(vendor_id: str) -> str:
    """A vendor's usual name from its CPUID string; unknown ones stay as they are."""
    return _VENDORS.get(vendor_id, vendor_id)


def arm_vendor(implementer: int) -> str | None:
    """Who made an Arm core, from the implementer field of its Main ID Register."""
    return _ARM_VENDORS.get(implementer)


def arm_name(implementer: int, part: int) -> str | None:
    """Name of an Arm core, from implementer and part number."""
    return _ARM_PARTS.get((implementer, part))
