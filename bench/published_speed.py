"""Claim: for machines nobody measured, planner's speeds are off by 15 % in the median and by 45 % in nine cases of ten.

Refits the physical model of ``planner.estimate.physical`` on published llama-bench rows without whole devices, and
without whole models, and predicts what was left out; beside it the formulas of llmfit and whichllm on the same rows.
Refuted (exit 1) by a median above 15 %, a p90 above 45 % or more than 0.6 of a rival's median error for decode at
depth 0 on devices left out, or by intervals that cover less than 75 % or more than 85 % of these rows.

    python bench/published_speed.py ROWS            # print, and write bench/results/published_speed.json
    python bench/published_speed.py ROWS --write    # also write profiles/speed: the constants and how far to trust them
    python bench/published_speed.py ROWS --shipped  # judge what is shipped on rows it has not seen, without any fit

ROWS is a JSON Lines file of rows as llama-bench prints them, with device and model (see ``published_speed_rows``).
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from published_speed_fit import CONSTANTS, Fitted, Problem, leave_out, quantile, weights_of
from published_speed_rivals import llmfit, whichllm
from published_speed_rows import Case, Kind, read_cases

from planner.estimate.physical_constants import Quantity, speed_model
from planner.estimate.physical_trust import doubt_of, features_of
from planner.files import atomic_write

HERE = Path(__file__).parent
RESULT = HERE / "results" / "published_speed.json"
PROFILES = HERE.parent / "profiles" / "speed"
KINDS: tuple[Kind, ...] = ("decode", "decode-deep", "prefill", "prefill-deep", "experts-on-cpu")
QUANTITIES: dict[Kind, Quantity] = {
    "decode": "decode",
    "decode-deep": "decode-deep",
    "prefill": "prompt",
    "prefill-deep": "prompt",
}
NOMINAL = 0.8
_OTHERS_COUNT_AS = 4.0
"""A backend's spread comes from its own left-out devices and from those of all others, which count as this many."""

_LEAST_WIDENING = 1.15
"""What is new widens an interval by this power at least: that few cases missed by no more is luck."""


class Judged(NamedTuple):
    """A case with what was predicted for it by a fit that had not seen it."""

    case: Case
    seconds: float
    features: frozenset[str]
    seen: dict[str, frozenset[str]]

    @property
    def miss(self) -> float:
        """Logarithm of measured over predicted speed."""
        return math.log(self.case.tokens_per_s * self.seconds)

    @property
    def error(self) -> float:
        """Absolute relative error of the predicted speed."""
        return abs(math.exp(-self.miss) - 1)

    @property
    def unfamiliar(self) -> int:
        """How many features of the case no other device of its backend showed."""
        return min(2, len(self.features - self.seen.get(self.case.backend, frozenset())))


def main() -> int:
    """Fit, leave out, compare, print, write; 1 when the claim does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--shipped", action="store_true")
    asked = parser.parse_args()
    cases, dropped = read_cases(asked.rows)
    decode, prompt = (Problem([c for c in cases if c.is_prompt == is_prompt]) for is_prompt in (False, True))
    if asked.shipped:
        return _report_shipped(decode, prompt)
    fitted = decode.fit()
    values = fitted.values
    whole = {**prompt.fit(None, values).values, **values}
    by_device = _left_out(decode, prompt, lambda case: case.device)
    by_model = _left_out(decode, prompt, lambda case: case.model)
    seen = _seen(cases)
    trained = [
        Judged(case, float(np.exp(log)), features_of(case.parts), seen)
        for problem in (decode, prompt)
        for case, log in zip(
            problem.cases, problem.logs(Fitted(problem.names, np.log([whole[n] for n in problem.names]))), strict=True
        )
    ]
    spreads, widening = _spreads(by_device)
    document = {
        "claim": (__doc__ or "").splitlines()[0],
        "date": datetime.now(UTC).date().isoformat(),
        "rows": {"judged": len(by_device), "dropped": dict(dropped.most_common())},
        "errors": {
            "devices left out": _table(by_device),
            "models left out": _table(by_model),
            "fitted (nothing left out)": _table(trained),
        },
        "decode at depth 0 beside rivals, devices left out": _rivals(by_device),
        "coverage of the 80 % interval, devices left out": _coverage(by_device),
        "constants": {name: round(value, 5) for name, value in sorted(whole.items())},
        "decode by device, devices left out": _devices(by_device),
    }
    verdict = _verdict(document)
    document["verdict"] = verdict
    atomic_write(RESULT, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode())
    if asked.write:
        _write_profiles(whole, decode, prompt, by_device, spreads, widening)
    _print(document)
    return 0 if all(verdict.values()) else 1


def _left_out(decode: Problem, prompt: Problem, group: Callable[[Case], str]) -> list[Judged]:
    """Every case as predicted without its group; the fixed costs that a prompt shares come from decoding without it."""
    without: dict[str, dict[str, float]] = {}

    def fixed(name: str) -> dict[str, float]:
        if name not in without:
            kept = np.array([group(case) != name for case in decode.cases])
            without[name] = decode.fit(kept).values
        return without[name]

    cases = [*decode.cases, *prompt.cases]
    logs = [*leave_out(decode, group), *leave_out(prompt, group, fixed)]
    grouped = defaultdict(list)
    for case, log in zip(cases, logs, strict=True):
        grouped[group(case)].append((case, log))
    judged = []
    for name, members in grouped.items():
        seen = _seen([case for case in cases if group(case) != name])
        judged += [Judged(case, float(np.exp(log)), features_of(case.parts), seen) for case, log in members]
    return judged


def _seen(cases: Sequence[Case]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        if not case.fork:
            found[case.backend] |= features_of(case.parts)
    return {backend: frozenset(features) for backend, features in found.items()}


def _of(judged: Sequence[Judged], kind: Kind, *, fork: bool = False) -> list[Judged]:
    return [each for each in judged if each.case.kind == kind and each.case.fork == fork]


def _spreads(judged: Sequence[Judged]) -> tuple[dict[tuple[str, Quantity], float], dict[Quantity, float]]:
    """The factor that holds four in five left-out predictions, by backend, and what an unfamiliar feature adds."""
    spreads: dict[tuple[str, Quantity], float] = {}
    widening: dict[Quantity, float] = {}
    for quantity in dict.fromkeys(QUANTITIES.values()):
        of_it = [each for each in judged if QUANTITIES.get(each.case.kind) == quantity and not each.case.fork]
        widening[quantity] = _widening(of_it)
        for backend in sorted({each.case.backend for each in of_it}):
            spreads[backend, quantity] = math.exp(_half_width(of_it, backend, widening[quantity]))
    return spreads, widening


def _widening(judged: Sequence[Judged]) -> float:
    """By what power an interval grows when one feature is new: misses with one over misses without."""
    new, known = [e for e in judged if e.unfamiliar], [e for e in judged if not e.unfamiliar]
    if len({e.case.device for e in new}) < 3 or not known:
        return 1.3
    return min(2.0, max(_LEAST_WIDENING, _q(new) / _q(known)))


def _q(judged: Sequence[Judged]) -> float:
    return quantile(np.abs([e.miss for e in judged]), weights_of([e.case for e in judged]), NOMINAL)


def _half_width(judged: Sequence[Judged], backend: str, widening: float) -> float:
    """Half the interval's width in logarithms before widening; other backends' misses count as a few devices."""
    pool = [e for e in judged if (e.case.backend == "cpu") == (backend == "cpu")]
    weights = weights_of([e.case for e in pool])
    own = np.array([e.case.backend == backend for e in pool])
    others = weights[~own].sum()
    if others:
        weights = np.where(own, weights, weights * _OTHERS_COUNT_AS / others)
    misses = np.array([abs(e.miss) / widening**e.unfamiliar for e in pool])
    return quantile(misses, weights, NOMINAL)


def _coverage(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Share of left-out rows inside an interval that was made without their device."""
    result = {}
    for kind, quantity in QUANTITIES.items():
        inside, used = [], []
        pool = [e for e in judged if QUANTITIES.get(e.case.kind) == quantity and not e.case.fork]
        widths: dict[tuple[str, str], tuple[float, float]] = {}
        for each in _of(judged, kind):
            key = (each.case.device, each.case.backend)
            if key not in widths:
                others = [e for e in pool if e.case.device != each.case.device]
                grows = _widening(others)
                widths[key] = (_half_width(others, each.case.backend, grows), grows)
            width, grows = widths[key]
            inside.append(abs(each.miss) <= width * grows**each.unfamiliar)
            used.append(each.case)
        weights = weights_of(used)
        result[kind] = {
            "rows": round(float(np.mean(inside)), 3),
            "devices": round(float(np.dot(inside, weights) / weights.sum()), 3),
        }
    return result


def _errors(errors: Sequence[float], cases: Sequence[Case]) -> dict[str, float]:
    values, weights = np.array(errors), weights_of(cases)
    return {
        "rows": len(errors),
        "devices": len({(c.device, c.backend) for c in cases}),
        "median": round(float(np.median(values)), 3),
        "p90": round(float(np.quantile(values, 0.9)), 3),
        "median by device": round(quantile(values, weights, 0.5), 3),
        "p90 by device": round(quantile(values, weights, 0.9), 3),
    }


def _table(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    table = {}
    for kind in KINDS:
        members = _of(judged, kind)
        table[kind] = _errors([e.error for e in members], [e.case for e in members])
        for backend in sorted({e.case.backend for e in members}) if kind in ("decode", "prefill") else ():
            own = [e for e in members if e.case.backend == backend]
            table[f"{kind}: {backend}"] = _errors([e.error for e in own], [e.case for e in own])
    forks = [e for e in judged if e.case.fork]
    for name, chosen in (
        ("forks: decode", [e for e in forks if not e.case.is_prompt and e.case.kind != "experts-on-cpu"]),
        ("forks: experts on CPU", [e for e in forks if e.case.kind == "experts-on-cpu"]),
    ):
        if chosen:
            table[name] = _errors([e.error for e in chosen], [e.case for e in chosen])
    return table


def _rivals(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """All formulas on the rows for which each gives a number."""
    members = [e for e in _of(judged, "decode") if llmfit(e.case) and whichllm(e.case)]
    cases = [e.case for e in members]
    return {
        "planner": _errors([e.error for e in members], cases),
        "llmfit": _errors([abs((llmfit(c) or 0) / c.tokens_per_s - 1) for c in cases], cases),
        "whichllm": _errors([abs((whichllm(c) or 0) / c.tokens_per_s - 1) for c in cases], cases),
    }


def _devices(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    grouped = defaultdict(list)
    for each in _of(judged, "decode"):
        grouped[f"{each.case.backend}: {each.case.device}"].append(math.exp(-each.miss))
    return {
        name: {"rows": len(ratios), "predicted ÷ measured": round(float(np.median(ratios)), 2)}
        for name, ratios in sorted(grouped.items())
    }


def _verdict(document: dict[str, Any]) -> dict[str, bool]:
    decode = document["errors"]["devices left out"]["decode"]
    rivals = document["decode at depth 0 beside rivals, devices left out"]
    covered = document["coverage of the 80 % interval, devices left out"]["decode"]
    best = min(rivals["llmfit"]["median"], rivals["whichllm"]["median"])
    return {
        "median at most 15 %": decode["median"] <= 0.15,
        "p90 at most 45 %": decode["p90"] <= 0.45,
        "at most 0.6 of each rival's median": rivals["planner"]["median"] <= 0.6 * best,
        "interval covers 75 to 85 % by device": 0.75 <= covered["devices"] <= 0.85,
    }


def _report_shipped(decode: Problem, prompt: Problem) -> int:
    model = speed_model()
    judged = []
    for problem in (decode, prompt):
        logs = problem.logs(Fitted(problem.names, np.log([model.constants.get(n, 1.0) for n in problem.names])))
        seen = {name: frozenset(trust.features) for name, trust in model.backends.items()}
        judged += [
            Judged(case, float(np.exp(log)), features_of(case.parts), seen)
            for case, log in zip(problem.cases, logs, strict=True)
        ]
    print(json.dumps({"errors": _table(judged), "rivals": _rivals(judged), "inside": _inside(judged)}, indent=1))
    return 0


def _inside(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Share of rows inside the intervals that planner ships."""
    model, result = speed_model(), {}
    for kind, quantity in QUANTITIES.items():
        members = [e for e in _of(judged, kind) if e.case.backend in model.backends]
        if not members:
            continue
        inside = [
            (doubt := doubt_of(model, e.case.parts[0], quantity)) is not None and abs(e.miss) <= doubt.width
            for e in members
        ]
        weights = weights_of([e.case for e in members])
        result[kind] = {
            "rows": round(float(np.mean(inside)), 3),
            "devices": round(float(np.dot(inside, weights) / weights.sum()), 3),
        }
    return result


def _write_profiles(
    values: dict[str, float],
    decode: Problem,
    prompt: Problem,
    judged: Sequence[Judged],
    spreads: dict[tuple[str, Quantity], float],
    widening: dict[Quantity, float],
) -> None:
    today = datetime.now(UTC).date().isoformat()
    how = f"{today}, bench/published_speed.py --write: published llama-bench rows, every device with the same weight"
    lines = [
        "# Constants of the physical speed model (planner/estimate/physical.py). Written by bench/published_speed.py.",
        "#",
        "# is: the fitted value. start, doubt: where the fit began and one standard deviation of its logarithm.",
        "# devices: how many published devices it counts for; 0 says that no row spoke and the start stands.",
        "",
        f"fitted = {_toml(how)}",
        "",
        "[constants]",
    ]
    for name, start in sorted(CONSTANTS.items()):
        told = [problem.devices_of(name) for problem in (decode, prompt) if name in problem.names]
        value = values.get(name, start.value)
        lines.append(
            f"{_toml(name)} = {{ is = {value:.4g}, unit = {_toml(start.unit)}, means = {_toml(start.means)}, "
            f"start = {start.value:g}, doubt = {start.doubt:g}, devices = {max(told, default=0)} }}"
        )
    atomic_write(PROFILES / "constants.toml", ("\n".join(lines) + "\n").encode())
    lines = [
        "# How far to trust the physical speed model, by backend. Written by bench/published_speed.py.",
        "#",
        "# spread: the factor within which four of five predictions for devices left out of the fit lay; unfamiliar:",
        "# the power by which each feature that was not among those seen widens it. features: of model, of device.",
        "",
        f"fitted = {_toml(how)}",
        "",
        "[unfamiliar]",
        *(f"{_toml(quantity)} = {power:.3g}" for quantity, power in widening.items()),
    ]
    own = [e.case for e in judged if not e.case.fork]
    for backend in sorted({case.backend for case in own}):
        members = [case for case in own if case.backend == backend]
        bandwidths = [b / 1e9 for c in members for h, _ in c.parts[:1] if (b := h.bandwidth_bytes_per_s)]
        lines += [
            "",
            f"[backends.{backend}]",
            f"devices = {len({case.device for case in members})}",
            f"rows = {len(members)}",
            f"features = [{', '.join(_toml(f) for f in sorted(_seen(members)[backend]))}]",
            *([f"bandwidth_gb_per_s = [{min(bandwidths):g}, {max(bandwidths):g}]"] if bandwidths else []),
            "",
            f"[backends.{backend}.spread]",
            *(f"{_toml(q)} = {spreads[b, q]:.3g}" for b, q in spreads if b == backend),
        ]
    atomic_write(PROFILES / "trust.toml", ("\n".join(lines) + "\n").encode())


def _toml(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _print(document: dict[str, Any]) -> None:
    for title, table in document["errors"].items():
        print(f"\n{title}: absolute relative error")
        _print_table(table)
    print("\ndecode at depth 0, devices left out, same rows")
    _print_table(document["decode at depth 0 beside rivals, devices left out"])
    print("\n80 % interval covers", document["coverage of the 80 % interval, devices left out"])
    for claim, holds in document["verdict"].items():
        print("yes" if holds else "NO ", claim)


def _print_table(table: dict[str, dict[str, float]]) -> None:
    for name, row in table.items():
        print(
            f"  {name:24s} rows {row['rows']:4.0f} devices {row['devices']:3.0f}  median {row['median']:6.1%} "
            f"p90 {row['p90']:6.1%}  by device: median {row['median by device']:6.1%} p90 {row['p90 by device']:6.1%}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
