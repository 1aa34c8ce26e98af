"""What this computer is: collect raw answers, interpret them, replay recorded and described machines."""

from planner.machine.answers import Capture
from planner.machine.detection import collect, detect, interpret
from planner.machine.engine_match import match_engine
from planner.machine.host import Host
from planner.machine.identity import machine_key
from planner.machine.library import load, names

__all__ = ["Capture", "Host", "collect", "detect", "interpret", "load", "machine_key", "match_engine", "names"]
