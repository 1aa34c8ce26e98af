"""Mains or battery; prevents a speed measured on battery from becoming the machine's speed."""

import re

from planner.machine.answers import Answers, Recorder
from planner.machine.evidence import Evidence
from planner.types.machine import Power

__all__ = ["collect", "interpret"]

_SUPPLIES = "/sys/class/power_supply"
_FIELDS = ("type", "scope", "online", "status", "capacity", "energy_full", "charge_full")


def collect(ask: Recorder) -> None:
    """Read every power supply that Linux lists, or ask macOS's ``pmset``."""
    if ask.host.system().sysname == "Darwin":
        ask.program("pmset", ["/usr/bin/pmset", "-g", "batt"])
        return
    for name in ask.listing(_SUPPLIES):
        for field in _FIELDS:
            ask.file(f"{_SUPPLIES}/{name}/{field}")


def interpret(raw: Answers) -> Power:
    """Whether the machine runs on battery and how full it is."""
    evidence = Evidence()
    if (program := raw.programs.get("pmset")) is not None:
        drawn = re.search(r"drawing from '([^']*)'", program.stdout)
        filled = re.search(r"(\d{1,3})%", program.stdout)
        on_battery = drawn[1] == "Battery Power" if drawn else None
        percent = min(100.0, float(filled[1])) if filled else None
        source, missing = "pmset -g batt", "pmset lists no battery"
    else:
        on_battery, percent = _linux(raw)
        source, missing = _SUPPLIES, "the system lists no power supply, as desktops, servers and containers do"
    return Power(
        on_battery=evidence.take("on_battery", on_battery, source, missing),
        battery_percent=evidence.take("battery_percent", percent, source, "no battery"),
        sources=evidence.sources,
        notes=evidence.notes,
    )


def _linux(raw: Answers) -> tuple[bool | None, float | None]:
    names = [name for name in raw.folder(_SUPPLIES) if _field(raw, name, "scope") != "Device"]
    batteries = [name for name in names if _field(raw, name, "type") == "Battery"]
    mains = [raw.number(f"{_SUPPLIES}/{name}/online") for name in names if _field(raw, name, "type") in _PLUGS]
    discharging = any(_field(raw, name, "status") == "Discharging" for name in batteries)
    if any(mains):
        return False, _percent(raw, batteries)
    if batteries:
        return discharging if not mains else True, _percent(raw, batteries)
    return (False if mains else None), None


_PLUGS = ("Mains", "USB")


def _percent(raw: Answers, batteries: list[str]) -> float | None:
    """How full the batteries are together, weighted by size where every one tells its size."""
    levels = [(raw.number(f"{_SUPPLIES}/{name}/capacity"), _size(raw, name)) for name in batteries]
    known = [(min(100, level), size) for level, size in levels if level is not None]
    if not known:
        return None
    if not all(size for _, size in known):
        known = [(level, 1) for level, _ in known]
    return round(sum(level * size for level, size in known) / sum(size for _, size in known), 1)


def _size(raw: Answers, name: str) -> int:
    energy = raw.number(f"{_SUPPLIES}/{name}/energy_full")
    return energy or raw.number(f"{_SUPPLIES}/{name}/charge_full") or 0


def _field(raw: Answers, name: str, field: str) -> str | None:
    return raw.text(f"{_SUPPLIES}/{name}/{field}")
