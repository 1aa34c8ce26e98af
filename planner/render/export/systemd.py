r"""A hardened unit for systemd, once for the system and once for one user's own manager.

Two mistakes it prevents. Quoting as for a shell: systemd has its own rules (``%`` is a specifier everywhere, ``\``
joins lines, ``$`` is replaced in a command), so ``ExecStart=`` begins with ``:``, which leaves ``$`` alone, and the
rest is escaped. And a server with the rights of whoever starts it: it gets a user of its own, no device it does
not need, no network but its port, and as much memory as was planned.

Rules: systemd.service(5), systemd.exec(5) and systemd.syntax(7) of systemd 252.
"""

import re

from planner.errors import UsageError
from planner.render.export.words import CONTROLS, comment, refuse
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["NO_CHARACTERS", "quoted", "render"]

_BARE = re.compile(r"[A-Za-z0-9_./:,@+=-]+")
_KEY = "api-key"
_PLANES = range(0, 0x110000, 0x10000)
NO_CHARACTERS = frozenset(
    map(chr, [*range(0xFDD0, 0xFDF0), *(each + end for each in _PLANES for end in (0xFFFE, 0xFFFF))])
)
"""Unicode's noncharacters: systemd calls a line with one of them unclean and ignores it."""
_DEVICES = {
    "nvidia": ("/dev/nvidiactl", "char-nvidia*"),
    "amd": ("/dev/kfd", "char-drm"),
    "intel": ("char-drm",),
}
"""Device files by maker, as ``DeviceAllow=`` takes them: names of groups in /proc/devices, with wildcards."""

_FILTERS = """\
NoNewPrivileges=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0077
LimitCORE=0""".splitlines()
"""What the kernel refuses a process without any privilege of whoever asks for it."""

_CPU_ONLY = ("SystemCallFilter=~@resources", "MemoryDenyWriteExecute=yes")
"""What the drivers of GPUs do as a matter of course: bind memory and threads to nodes, make code."""

_WALLS = """\
ProtectSystem=strict
ProtectHome=tmpfs
PrivateTmp=yes
PrivateMounts=yes
PrivateUsers=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectControlGroups=yes
ProtectClock=yes
ProtectHostname=yes
ProtectProc=invisible
RemoveIPC=yes
CapabilityBoundingSet=
AmbientCapabilities=""".splitlines()
"""What takes namespaces and capabilities: only the system's manager has them everywhere."""

_HIDDEN = tuple(f"/{each}/" for each in ("home", "root", "run/user", "tmp", "var/tmp"))
"""Places that the system's unit does not see."""


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:  # noqa: ARG001 - every format's signature
    """``system/NAME.service`` and ``user/NAME.service``.

    Weights and keys must be given from the root on; what a unit's line cannot hold is refused: a control character in
    a path that is mounted, a program with one.
    """
    for path in deployment.weights:
        _check_path(path, "the weights' path", "--weights")
    if deployment.api_key_file is not None:
        _check_path(deployment.api_key_file, "the path of the keys", "--api-key-file")
    refuse(deployment.argv[0], {*CONTROLS, *"\"'\\%$"}, form="systemd", what="the program")
    if any(gpu.backend == "metal" for gpu in deployment.gpus):
        raise UsageError("this plan is for Metal, and there is no systemd on macOS", hint="export to script")
    name = f"{deployment.name}.service"
    return {f"system/{name}": _system(deployment), f"user/{name}": _user(deployment)}


def quoted(word: str) -> str:
    r"""A word of ``ExecStart=:`` or ``Environment=``: in double quotes where it is not plain, controls as ``\x01``."""
    if _BARE.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return '"' + re.sub(r"[\x01-\x1f\x7f]", lambda match: f"\\x{ord(match[0]):02x}", escaped) + '"'


def _system(deployment: Deployment) -> str:
    program = deployment.argv[0]
    # Beside the program lie its libraries.
    folders = [program.rsplit("/", 1)[0]] if program.startswith(_HIDDEN) else []
    return _unit(
        deployment,
        after="network-online.target" if deployment.exposed else "network.target",
        keys=f"%d/{_KEY}",
        lines=[
            "DynamicUser=yes",
            *(["SupplementaryGroups=video render"] if _vendors(deployment) & {"amd", "intel"} else []),
            "",
            "# What it may see and do: of the homes and of /tmp nothing but the very files it needs.",
            *_FILTERS,
            *_WALLS,
            *(f"BindReadOnlyPaths={_mounted(path)}" for path in (*deployment.weights, *folders)),
            *_devices(deployment),
            *_network(deployment),
        ],
        target="multi-user.target",
    )


def _user(deployment: Deployment) -> str:
    """The unit for a user's manager: what needs namespaces is left out, because many systems refuse them to users."""
    keys = deployment.api_key_file and quoted(deployment.api_key_file)
    own = ["", "# What it may do.", *_FILTERS]
    if not deployment.gpus:
        own += _CPU_ONLY
    return _unit(deployment, after=None, keys=keys, lines=own, target="default.target")


def _unit(deployment: Deployment, *, after: str | None, keys: str | None, lines: list[str], target: str) -> str:
    what = f"{comment(deployment.model)} in {comment(deployment.quantization)}"
    head = [
        f"# llama-server as planned for {what}.",
        "[Unit]",
        f"Description=llama-server ({what.replace('%', '%%')})",
        *([f"After={after}"] if after else []),
        *([f"Wants={after}"] if after == "network-online.target" else []),
        "StartLimitIntervalSec=10min",
        "StartLimitBurst=5",
        "",
        "[Service]",
        "Type=exec",
        *_start(deployment, keys),
        "Restart=on-failure",
        "RestartSec=5s",
        "TimeoutStopSec=30s",
        "",
        "# As much as was planned.",
        *_limits(deployment),
    ]
    return "\n".join([*head, *lines, "", "[Install]", f"WantedBy={target}"]) + "\n"


def _start(deployment: Deployment, keys: str | None) -> list[str]:
    """Variables and command; ``keys`` is where the process finds its file of keys, as the unit says it."""
    said = list(map(quoted, deployment.argv))
    lines = [f"Environment={quoted(f'{name}={value}')}" for name, value in sorted(deployment.environment.items())]
    if deployment.api_key_file is not None and keys is not None:
        said[deployment.argv.index("--api-key-file", 3) + 1] = keys
        if keys.startswith("%d/"):
            lines.append(f"LoadCredential={_KEY}:{deployment.api_key_file.replace('%', '%%')}")
        # An empty file is no key at all, and the server would answer everybody.
        lines.append(f"ExecStartPre=:grep -q ^[^#] {keys}")
    return [*lines, f"ExecStart=:{' '.join(said)}"]


def _limits(deployment: Deployment) -> list[str]:
    lines = [
        f"MemoryMax={deployment.host_memory_bytes}",
        "MemorySwapMax=0",
        "OOMPolicy=stop",
        f"TasksMax={deployment.settings.threads + deployment.settings.threads_batch + 512}",
    ]
    if "mlock" in deployment.settings.load_mode:
        lines.append(f"LimitMEMLOCK={deployment.host_memory_bytes}")
    return lines


def _devices(deployment: Deployment) -> list[str]:
    """A server on the CPU sees no device and cannot make code; drivers of GPUs need their device files and do."""
    if not deployment.gpus:
        return [*_CPU_ONLY, "PrivateDevices=yes", "ProcSubset=pid", "DevicePolicy=closed"]
    files = dict.fromkeys(file for vendor in sorted(_vendors(deployment)) for file in _DEVICES[vendor])
    return ["DevicePolicy=closed", *(f"DeviceAllow={file} rw" for file in files)]


def _vendors(deployment: Deployment) -> set[str]:
    return {gpu.vendor for gpu in deployment.gpus if gpu.vendor in _DEVICES}


def _network(deployment: Deployment) -> list[str]:
    port = ["SocketBindDeny=any", f"SocketBindAllow=tcp:{deployment.port}"]
    return port if deployment.exposed else ["IPAddressDeny=any", "IPAddressAllow=localhost", *port]


def _mounted(path: str) -> str:
    """A path as ``BindReadOnlyPaths=`` reads it: split at blanks and colons, a backslash keeps the next character."""
    return re.sub(r"""([\s:"'\\])""", r"\\\1", path).replace("%", "%%")


def _check_path(path: str, what: str, option: str) -> None:
    if not path.startswith("/"):
        raise UsageError(
            f"systemd needs {what} from the root on, and this is {comment(path)!r}", hint=f"give {option} /…"
        )
    refuse(path, {*CONTROLS, *NO_CHARACTERS}, form="systemd", what=what)
    if path != path.rstrip() or path.endswith("\\"):
        refuse(path, path[-1], form="systemd", what=what)
