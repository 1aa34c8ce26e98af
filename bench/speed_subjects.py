"""What the speed proof times: full phantoms of many architectures and quantizations, and how each test is run.

None of them is in the calibration, which times a few layers of made-up sizes. Those that were looked at while the
arithmetic was written are marked: the others are the judges. The order spreads architectures and sizes, so that a run
that is cut short still says something about each.
"""

from typing import NamedTuple

__all__ = ["DEPTH", "SEQUENCES", "SUBJECTS", "Subject"]

DEPTH = 8192
"""The depth that is predicted from depths of 2048 at most."""
SEQUENCES = (2, 4, 8)


class Subject(NamedTuple):
    """One model of the catalogue in one quantization.

    ``seen`` says that its times were known while the costs' arithmetic was written, ``deep`` that the depth is timed: a
    recurrent state is reached by reading the whole context, which takes longer than all else.
    """

    model: str
    quantization: str
    seen: bool = False
    deep: bool = True

    @property
    def name(self) -> str:
        """The name under which its results are kept."""
        return f"{self.model} {self.quantization}"


SUBJECTS = (
    Subject("hunyuan-0.5b", "Q4_K_M", seen=True),
    Subject("qwen1.5-moe-a2.7b", "Q4_K_M"),
    Subject("qwen3.5-0.8b", "Q8_0", deep=False),
    Subject("qwen3-1.7b", "BF16", seen=True),
    Subject("qwen2.5-1.5b", "Q4_K_M"),
    Subject("llama-3.2-3b", "Q4_0"),
    Subject("qwen1.5-0.5b", "Q5_K_M"),
    Subject("hunyuan-1.8b", "IQ4_XS", seen=True),
    Subject("qwen3-4b", "Q5_K_S"),
    Subject("qwen3-0.6b", "Q8_0", seen=True),
    Subject("qwen2.5-3b", "Q4_K_S"),
    Subject("deepseek-coder-v2-lite", "Q4_0", seen=True),
    Subject("llama-3.2-1b", "Q6_K", seen=True),
    Subject("ernie-4.5-0.3b", "Q8_0"),
    Subject("qwen3-8b", "Q3_K_M"),
    Subject("qwen3.5-2b", "Q6_K", deep=False),
    Subject("ernie-4.5-0.3b", "BF16", seen=True),
    Subject("qwen3-1.7b", "Q3_K_M"),
    Subject("deepseek-v2-lite", "Q4_K_M"),
    Subject("llama-3.2-1b", "IQ4_NL"),
    Subject("qwen3-vl-2b", "Q4_0", deep=False),
    Subject("hunyuan-0.5b", "Q6_K"),
)
