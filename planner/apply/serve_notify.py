"""Tells a service manager what a server is doing, where one listens (``NOTIFY_SOCKET``, sd_notify(3)).

The mistake it prevents is a unit that counts as started while the weights are still loading.
"""

import contextlib
import os
import socket

__all__ = ["notify"]


def notify(**states: str) -> None:
    """Send ``READY="1"``, ``STATUS="…"`` and the like in one message; without a listener nothing happens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # "@" stands for the NUL byte of an abstract socket.
    target = "\0" + address[1:] if address.startswith("@") else address
    message = "\n".join(f"{name}={' '.join(value.split())}" for name, value in states.items())
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(message.encode(), target)
