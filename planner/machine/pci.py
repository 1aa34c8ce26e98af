"""Graphics and accelerator devices on the PCI bus; shared by the vendors' files, so that none walks the bus again.

A device without a driver is still seen: that is the commonest reason why "the planner does not find my GPU".
"""

import re
from typing import NamedTuple

from planner.machine.answers import Answers, Recorder

__all__ = ["ROOT", "PciDevice", "collect", "devices", "link"]

ROOT = "/sys/bus/pci/devices"
_CLASSES = ("0x03", "0x12")
"""Display controllers and processing accelerators (PCI Code and ID Assignment Specification)."""
_ID_FILES = ("/usr/share/hwdata/pci.ids", "/usr/share/misc/pci.ids", "/usr/share/pci.ids")


class PciDevice(NamedTuple):
    """One device: address, vendor and device number, driver, and a marketing name where a table knows it."""

    address: str
    vendor: int
    device: int
    revision: int | None
    driver: str | None
    name: str | None

    @property
    def folder(self) -> str:
        """Where its files are."""
        return f"{ROOT}/{self.address}"


def collect(ask: Recorder) -> tuple[PciDevice, ...]:
    """Read identity, driver and link of every graphics device."""
    found = False
    for address in ask.listing(ROOT):
        base = f"{ROOT}/{address}"
        if not (ask.file(f"{base}/class") or "").startswith(_CLASSES):
            continue
        found = True
        for name in ("vendor", "device", "revision", "max_link_speed", "max_link_width", "current_link_width"):
            ask.file(f"{base}/{name}")
        ask.lines(f"{base}/uevent", ("DRIVER=",))
    if found:
        _collect_names(ask)
    return devices(ask.answers())


def _collect_names(ask: Recorder) -> None:
    """Record the few lines of the PCI names table that are about these devices (it has a megabyte)."""
    wanted = {(device.vendor, device.device) for device in devices(ask.answers())}
    for path in _ID_FILES:
        if ask.excerpt(path, lambda text: _excerpt(text, wanted)):
            return


def _excerpt(text: str, wanted: set[tuple[int, int]]) -> str:
    vendors = {f"{vendor:04x}" for vendor, _ in wanted}
    names = {f"{vendor:04x}{device:04x}" for vendor, device in wanted}
    kept: list[str] = []
    vendor = ""
    for line in text.splitlines(keepends=True):
        if line[:1] not in "\t#\n":
            vendor = line[:4]
        if (vendor in vendors and line.startswith(vendor)) or (line[:1] == "\t" and vendor + line[1:5] in names):
            kept.append(line)
    return "".join(kept)


def devices(raw: Answers) -> tuple[PciDevice, ...]:
    """Graphics devices in bus order."""
    found = []
    for address in raw.folder(ROOT):
        base = f"{ROOT}/{address}"
        vendor, device = raw.number(f"{base}/vendor"), raw.number(f"{base}/device")
        if vendor is None or device is None or not raw.files.get(f"{base}/class", "").startswith(_CLASSES):
            continue
        driver = (raw.text(f"{base}/uevent") or "").removeprefix("DRIVER=") or None
        name = _name(raw, vendor, device)
        found.append(PciDevice(address, vendor, device, raw.number(f"{base}/revision"), driver, name))
    return tuple(found)


def _name(raw: Answers, vendor: int, device: int) -> str | None:
    """The device's name in ``pci.ids``; the part in brackets is the marketing name."""
    for path in _ID_FILES:
        inside = False
        for line in raw.files.get(path, "").splitlines():
            if line[:1] not in "\t#":
                inside = line.lower().startswith(f"{vendor:04x}  ")
            elif inside and line.lower().startswith(f"\t{device:04x}  "):
                text = line[7:].strip()
                marketing = re.search(r"\[([^\]]+)\]", text)
                return marketing[1] if marketing else text
    return None


def link(raw: Answers, device: PciDevice) -> tuple[int | None, int | None]:
    """PCIe generation (from the highest transfer rate) and number of lanes."""
    speed = (raw.text(f"{device.folder}/max_link_speed") or "").split()
    generation = _GENERATIONS.get(speed[0]) if speed else None
    lanes = raw.number(f"{device.folder}/current_link_width") or raw.number(f"{device.folder}/max_link_width")
    return generation, lanes if lanes in (1, 2, 4, 8, 12, 16, 32) else None


_GENERATIONS = {
    "2.5": 1,
    "5.0": 2,
    "5": 2,
    "8.0": 3,
    "8": 3,
    "16.0": 4,
    "16": 4,
    "32.0": 5,
    "32": 5,
    "64.0": 6,
    "64": 6,
}
