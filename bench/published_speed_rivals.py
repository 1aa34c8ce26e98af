"""What llmfit and whichllm answer for the same published rows: their formulas, restated from their sources.

Both get the device's bandwidth from planner's table, not from their own (parts of which are wrong), and llmfit the
active bytes of a mixture, so that what is compared is the formula. Prevents winning by a rival's typing error.
"""

from published_speed_rows import Case

__all__ = ["llmfit", "whichllm"]

# llmfit 1.x: one share of bandwidth on every device (github.com/AlexsJones/llmfit).
_LLMFIT_SHARE = 0.55

# whichllm, src/whichllm/engine/performance.py at commit a5da49d6 (github.com/Andyyyy64/whichllm).
_WHICHLLM_TYPES = {
    0.30: ("F32",),
    0.40: ("F16", "BF16", "IQ2_S", "IQ2_M"),
    0.45: ("Q8_0", "Q2_K", "IQ3_S", "IQ3_M", "IQ3_XS"),
    0.50: ("Q6_K", "Q5_0", "Q3_K_M", "Q3_K_L", "IQ4_NL"),
    0.52: ("Q5_K_M", "Q5_K_S", "IQ4_XS"),
    0.55: ("Q4_K_M", "Q4_K_S"),
    0.53: ("Q4_0",),
    0.48: ("Q3_K_S",),
}
_WHICHLLM_SHARE = {name: share for share, names in _WHICHLLM_TYPES.items() for name in names}
_WHICHLLM_OTHER = 0.45
_WHICHLLM_VENDOR = {"nvidia": 1.0, "amd": 0.78, "apple": 0.82, "intel": 0.65}
_WHICHLLM_CPU_BILLIONS = 18.0
_WHICHLLM_SEVERAL = 0.70


def llmfit(case: Case) -> float | None:
    """Tokens per second by 0.55 of the bandwidth; ``None`` without a bandwidth."""
    bandwidth = case.parts[0][0].bandwidth_bytes_per_s
    return _LLMFIT_SHARE * bandwidth / case.bytes_active if bandwidth else None


def whichllm(case: Case) -> float | None:
    """Tokens per second by its shares per type and vendor; on a CPU by billions of parameters alone."""
    share = _WHICHLLM_SHARE.get(case.quantization, _WHICHLLM_OTHER)
    if case.backend == "cpu":
        return max(0.3, _WHICHLLM_CPU_BILLIONS / max(case.active / 1e9, 0.5) * share / _WHICHLLM_OTHER)
    bandwidth = case.parts[0][0].bandwidth_bytes_per_s
    if not bandwidth:
        return None
    part = 1.0
    if case.active < case.parameters:
        floor = min(0.25, 0.05 * max(1.0, bandwidth / 256e9))
        part = max(case.active / case.parameters, floor)
    one = bandwidth / (case.bytes_file * part) * share * _WHICHLLM_VENDOR.get(case.vendor, 0.7)
    return one * case.devices * _WHICHLLM_SEVERAL if case.devices > 1 else one
