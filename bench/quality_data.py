"""The published scores as numbers to fit: which entry (model and mode), item (benchmark and setting) and groups.

Prevents three mistakes: scores of one model with and without thinking in one heap, two settings of a benchmark (or two
versions of an index) taken for one, and a repeated row counted twice.
"""

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from planner import catalogue
from planner.catalogue.quality import is_coder, model_features, years_since_2025
from planner.types.quality import TaskGroup

__all__ = [
    "DATA",
    "GROUPS",
    "Attributes",
    "Entry",
    "Item",
    "Mode",
    "Row",
    "features",
    "floor_of",
    "read_attributes",
    "read_rows",
    "score_of",
]

DATA = Path(__file__).with_name("data")
GROUPS: tuple[TaskGroup, ...] = get_args(TaskGroup)

Mode = Literal["direct", "thinking", "base", "unknown"]
"""``base``: before it was tuned for chat. ``unknown``: a model that can do both, and the source does not say which."""

_CHAT, _CODE, _REASONING, _MULTILINGUAL, _DOCUMENTS = ({group: 1.0} for group in GROUPS)
_MATH_IN_LANGUAGES = {"multilingual": 0.5, "reasoning": 0.5}
_GENERAL = {"chat": 1 / 3, "code": 1 / 3, "reasoning": 1 / 3}
"""An index over everything speaks about the mean of three groups, and never makes one of them count as measured."""

LOADINGS: dict[str, Mapping[str, float]] = {
    **dict.fromkeys(("mmlu", "mmlu_redux", "mmlu_pro", "ceval", "cmmlu", "agieval", "gaokao"), _CHAT),
    **dict.fromkeys(("arena_hard", "ifeval", "lmarena_text_2026_09"), _CHAT),
    **dict.fromkeys(("triviaqa", "chineseqa", "chinese_simpleqa", "simpleqa", "simpleqa_verified"), _CHAT),
    **dict.fromkeys(("livecodebench", "humaneval", "mbpp", "usaco", "codeforces", "aider_polyglot", "scicode"), _CODE),
    **dict.fromkeys(("swe_bench_verified", "swe_bench_pro", "swe_atlas", "bfcl", "aa_coding_index"), _CODE),
    **dict.fromkeys(("aa_coding_agent_index", "terminal_bench", "whatmodel_code"), _CODE),
    **dict.fromkeys(
        ("gpqa", "gpqa_diamond", "hle", "aime24", "aime25", "hmmt25", "math", "math500", "gsm8k"), _REASONING
    ),
    **dict.fromkeys(("bbh", "zebralogic"), _REASONING),
    "supergpqa": {"chat": 0.5, "reasoning": 0.5},
    **dict.fromkeys(("aa_index", "aa_index_2026_03", "aa_index_v4_3_2", "livebench", "whatmodel"), _GENERAL),
    **dict.fromkeys(("mmmlu", "include", "mlogiqa", "multi_if", "mmlu_prox", "m3exam"), _MULTILINGUAL),
    **dict.fromkeys(("mt_aime24", "polymath"), _MATH_IN_LANGUAGES),
    **dict.fromkeys(("ruler", "longbench_v2", "aa_lcr"), _DOCUMENTS),
}
"""What each benchmark speaks about. Mathematics asked in other languages is half mathematics."""

_FOUR_CHOICES = ("mmlu", "mmlu_redux", "ceval", "cmmlu", "gaokao", "gpqa", "gpqa_diamond", "mmmlu", "include")
_FLOORS = {
    **dict.fromkeys((*_FOUR_CHOICES, "mlogiqa", "m3exam", "longbench_v2", "agieval"), 25.0),
    **dict.fromkeys(("mmlu_pro", "mmlu_prox", "supergpqa"), 10.0),
}
"""What guessing scores, in percent: a quarter of four choices, a tenth of ten."""

_KEYS = (
    ("humanity", "hle"),
    ("aa-lcr", "aa_lcr"),
    ("agieval", "agieval"),
    ("aider", "aider_polyglot"),
    ("artificial analysis coding agent", "aa_coding_agent_index"),
    ("artificial analysis coding", "aa_coding_index"),
    ("chinese simpleqa", "chinese_simpleqa"),
    ("chineseqa", "chineseqa"),
    ("codeforces", "codeforces"),
    ("gaokao", "gaokao"),
    ("hmmt", "hmmt25"),
    ("livebench", "livebench"),
    ("longbench", "longbench_v2"),
    ("m3exam", "m3exam"),
    ("math", "math"),
    ("mbpp", "mbpp"),
    ("swe-atlas", "swe_atlas"),
    ("scicode", "scicode"),
    ("simpleqa-verified", "simpleqa_verified"),
    ("simpleqa", "simpleqa"),
    ("supergpqa", "supergpqa"),
    ("terminal", "terminal_bench"),
    ("triviaqa", "triviaqa"),
    ("usaco", "usaco"),
    ("whatmodel", "whatmodel"),
    ("zebralogic", "zebralogic"),
)
"""How names that carry no key begin, and the key they get."""

_RATINGS = {"codeforces": 1400.0, "lmarena_text_2026_09": 1400.0}
RATING_PER_LOGIT = 400 / math.log(10)
"""Elo: 400 points are odds of ten to one, so 173.7 points are one logit."""

_READING, _SECOND_HAND = 0.015, 0.06
"""Doubt of a score as a share of its range: rounding and sampling of a test of some hundred questions; numbers whose
collector says that they are rounded, second-hand and partly interpolated."""

_LEADERBOARDS = ("artificialanalysis.ai", "labs.scale.com", "swebench.com", "aider.chat", "openrouter.ai")
"""Who runs every model in a harness of its own: its scores are another item than the vendors' under the same name."""


class Attributes(NamedTuple):
    """What is known of a model without any score."""

    name: str
    family: str
    vendor: str
    parameters: float
    active: float
    released: str | None
    thinking: str
    coder: bool
    plannable: bool


class Entry(NamedTuple):
    """A model in one mode: what has an ability."""

    model: str
    mode: Mode


class Item(NamedTuple):
    """A benchmark in one setting (and language): what has a difficulty. ``key`` joins the settings of a benchmark."""

    key: str
    setting: str


class Row(NamedTuple):
    """One published score. ``logit`` is its place between guessing and everything right; ``slack`` its own doubt."""

    entry: Entry
    item: Item
    score: float
    logit: float
    slack: float
    source: str

    @property
    def rated(self) -> bool:
        """Whether the score is a rating, which has no percent."""
        return self.item.key in _RATINGS

    @property
    def loadings(self) -> Mapping[str, float]:
        """How much of each group the benchmark speaks about."""
        return LOADINGS[self.item.key]


def read_attributes() -> dict[str, Attributes]:
    """Every model of the catalogue by name, then those of ``quality_models.toml`` that it does not have."""
    found = {
        model.name: Attributes(
            name=model.name,
            family=model.family,
            vendor=model.vendor,
            parameters=float(model.parameters),
            active=float(model.parameters_active),
            released=model.released,
            thinking=model.thinking,
            coder=is_coder(model.family, model.name),
            plannable=True,
        )
        for model in catalogue.load().models.values()
    }
    for table in _tables().get("models", ()):
        if table["name"] not in found:
            coder = is_coder(table["family"], table["name"])
            defaults = {"active": table["parameters"], "thinking": "none", "coder": coder, "plannable": False}
            found[table["name"]] = Attributes(**{**defaults, **table})
    return found


def features(attributes: Attributes, mode: Mode) -> dict[str, float]:
    """What the prior of an entry is a linear function of: the planner's features, and whether it is a base model."""
    years = years_since_2025(attributes.released) or 0.0
    thinks = {"thinking": 1.0, "unknown": 0.5}.get(mode, 0.0)
    known = dict(model_features(attributes.parameters, attributes.active, years, thinks, coder=attributes.coder))
    del known["level"]  # the difficulties of the benchmarks hold it
    return {**known, "base": float(mode == "base")}


def read_rows(attributes: Mapping[str, Attributes]) -> tuple[list[Row], dict[str, int]]:
    """Every score that enters the fit, and how many rows were left out for which reason."""
    tables = _tables()
    left_out: dict[str, int] = {}
    kept: dict[tuple[object, ...], Row] = {}
    raw = [json.loads(line) for line in (DATA / "quality.jsonl").read_text(encoding="utf-8").splitlines()]
    # Rows that say the mode come first: one that does not and has the same score is their copy.
    for record in sorted(raw, key=lambda record: record["thinking"] is None):
        reason = tables["left_out"].get(record["model"]) or tables["left_out_benchmarks"].get(record["benchmark"])
        row = None if reason else _row(record, attributes, tables["bases"])
        if row is not None:
            said = () if record["thinking"] is None else (row.entry.mode,)
            same = (row.entry.model, row.item.key, record.get("language"), row.score)
            if (*same, *said) in kept:
                reason = "the same score again"
            else:
                kept[*same, row.entry.mode] = row
                if said:
                    kept.setdefault(same, row)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
    return list(dict.fromkeys(kept.values())), left_out


def _row(record: Mapping[str, Any], attributes: Mapping[str, Attributes], bases: Mapping[str, str]) -> Row:
    model, key = bases.get(record["model"], record["model"]), record["benchmark_key"] or _key(record["benchmark"])
    mode: Mode
    if record["model"] in bases:
        mode = "base"
    elif record["thinking"] is None:
        alone: dict[str, Mode] = {"none": "direct", "always": "thinking"}
        mode = alone.get(attributes[model].thinking, "unknown")
    else:
        mode = "thinking" if record["thinking"] else "direct"
    setting = " ".join(
        part for part in (_plain(record["benchmark"]), record.get("language"), _board(record["source"])) if part
    )
    doubt = _SECOND_HAND if "second-hand" in record.get("note", "") else _READING
    logit, slack = _logit(key, float(record["score"]), doubt)
    return Row(Entry(model, mode), Item(key, setting), float(record["score"]), logit, slack, record["source"])


def _key(benchmark: str) -> str:
    return next(key for start, key in _KEYS if benchmark.lower().startswith(start))


def _plain(benchmark: str) -> str:
    return re.sub(r"[^a-z0-9+.]+", " ", benchmark.lower()).strip()


def _board(source: str) -> str | None:
    return next((board for board in _LEADERBOARDS if board in source), None)


def _logit(key: str, score: float, doubt: float) -> tuple[float, float]:
    """The score on the logit scale of its range, and there the standard deviation that is ``doubt`` of that range."""
    if key in _RATINGS:
        return (score - _RATINGS[key]) / RATING_PER_LOGIT, 0.1
    floor = _FLOORS.get(key, 0.0)
    share = min(max((score - floor) / (100 - floor), 0.01), 0.99)
    return math.log(share / (1 - share)), doubt / (share * (1 - share))


def score_of(key: str, logit: float) -> float:
    """The score that stands at a place on the logit scale: the reverse of what rows carry."""
    if key in _RATINGS:
        return _RATINGS[key] + RATING_PER_LOGIT * logit
    floor = floor_of(key)
    return floor + (100 - floor) / (1 + math.exp(-logit))


def floor_of(key: str) -> float:
    """What guessing scores on a benchmark, in percent."""
    return _FLOORS.get(key, 0.0)


def _tables() -> dict[str, Any]:
    return tomllib.loads((DATA / "quality_models.toml").read_text(encoding="utf-8"))


def group_rows(rows: Iterable[Row], group: str, *, at_least: float = 0.5) -> list[Row]:
    """The rows that speak mainly about a group."""
    return [row for row in rows if row.loadings.get(group, 0.0) >= at_least]
