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
    Subject("ernie-4.5-0.3b", "Q6_K"),
    Subject("hunyuan-0.5b", "Q8_0"),
    Subject("qwen2.5-0.5b", "Q6_K"),
    Subject("qwen1.5-0.5b", "BF16"),
    Subject("qwen3-0.6b", "Q5_K_M"),
    Subject("qwen3.5-0.8b", "Q4_K_M", deep=False),
    Subject("llama-3.2-1b", "Q8_0"),
    Subject("deepseek-r1-distill-qwen-1.5b", "Q5_K_S"),
    Subject("qwen2.5-1.5b", "Q5_0"),
    Subject("qwen3-1.7b", "IQ4_NL"),
    Subject("hunyuan-1.8b", "Q6_K"),
    Subject("qwen1.5-1.8b", "Q4_K_M"),
    Subject("qwen3.5-2b", "Q4_0", deep=False),
    Subject("qwen2.5-3b", "Q2_K"),
    Subject("llama-3.2-3b", "IQ4_XS"),
    Subject("hunyuan-4b", "Q3_K_M"),
    Subject("qwen3-vl-4b", "Q4_0", deep=False),
    Subject("yi-1.5-6b", "Q4_K_M"),
    Subject("openpangu-embedded-7b", "Q4_0"),
    Subject("glm-4-9b-0414", "Q3_K_M"),
    Subject("deepseekmoe-16b", "Q3_K_M"),
    Subject("deepseek-v2-lite", "IQ4_XS"),
)
"""None of them was timed before the arithmetic, the priors and the rules of judgement were fixed. Whoever changes one
of those after a look at their times marks them as seen. 22 others of the time before are in
``results/speed_earlier.json``."""
