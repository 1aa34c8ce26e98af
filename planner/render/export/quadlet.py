r"""The deployment as a quadlet: a container unit that Podman's generator turns into a service of systemd.

Two mistakes it prevents. A name that is read three times, by the generator, by systemd and as Podman's list of commas:
each reading is undone in its order. And a container with more than it needs: one port of one address, the very files of
the weights, no capability, and as much memory as was planned.

Rules: podman-systemd.unit(5) of Podman 5.4; ``Mount=`` is a record of CSV.
"""

import re

from planner.errors import UsageError
from planner.render.export.container import KEY, USER, contained, pids
from planner.render.export.systemd import NO_CHARACTERS, quoted
from planner.render.export.words import CONTROLS, comment, refuse
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["render"]

_BARE_FIELD = re.compile(r'[^,"]*')


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:
    """``NAME.container``, for a user's Podman; reads ``image``. Paths must be given from the root on."""
    inside = contained(deployment, options, form="quadlet")
    what = f"{comment(deployment.model)} in {comment(deployment.quantization)}"
    lines = [
        f"# llama-server as planned for {what}.",
        "# Put it into ~/.config/containers/systemd, then: systemctl --user daemon-reload",
        f"# and: systemctl --user start {deployment.name}",
        "[Unit]",
        f"Description=llama-server ({what.replace('%', '%%')})",
        "StartLimitIntervalSec=10min",
        "StartLimitBurst=5",
        "",
        "[Container]",
        f"ContainerName={deployment.name}",
        f"Image={inside.image}",
        f"Exec={' '.join(quoted(word) for word in inside.arguments)}",
        *(f"Environment={quoted(f'{name}={value}')}" for name, value in sorted(deployment.environment.items())),
        f"PublishPort={_bracketed(deployment.host)}:{deployment.port}:{deployment.port}",
        *(f"Mount={_mount(path, target)}" for path, target in inside.files),
        *_keys(deployment),
        f"User={USER}",
        f"Group={USER}",
        f"UserNS=keep-id:uid={USER},gid={USER}",
        "ReadOnly=true",
        "ReadOnlyTmpfs=false",
        "Tmpfs=/tmp:size=64m,mode=1777,noexec,nosuid,nodev",
        "DropCapability=all",
        "NoNewPrivileges=true",
        f"PidsLimit={pids(deployment)}",
        *([f"Ulimit=memlock={deployment.host_memory_bytes}"] if "mlock" in deployment.settings.load_mode else []),
        *_gpus(deployment),
        f"HealthCmd=curl -fsS -o /dev/null http://127.0.0.1:{deployment.port}/health",
        "HealthInterval=30s",
        "HealthStartPeriod=10m",
        "",
        "[Service]",
        f"MemoryMax={deployment.host_memory_bytes}",
        "MemorySwapMax=0",
        "Restart=on-failure",
        "RestartSec=5s",
        "TimeoutStartSec=15min",
        "",
        "[Install]",
        "WantedBy=default.target",
    ]
    return {f"{deployment.name}.container": "\n".join(lines) + "\n"}


def _keys(deployment: Deployment) -> list[str]:
    return [] if deployment.api_key_file is None else [f"Mount={_mount(deployment.api_key_file, KEY)}"]


def _mount(path: str, target: str) -> str:
    """A read-only mount of one file: a CSV record, its words escaped for systemd.

    ``relabel`` lets a container read it where SELinux rules, and does nothing elsewhere.
    """
    if not path.startswith("/"):
        raise UsageError(
            f"quadlet needs paths from the root on, and this is {comment(path)!r}", hint="give --weights /…"
        )
    refuse(path, {*CONTROLS, *NO_CHARACTERS}, form="quadlet", what="the path of a mount")
    source = f"source={path}"
    if not _BARE_FIELD.fullmatch(source):
        source = '"' + source.replace('"', '""') + '"'
    # The command that the generator makes of this has no colon before it: systemd looks for variables in it.
    return quoted(f"type=bind,{source},destination={target},ro=true,relabel=shared".replace("$", "$$"))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _gpus(deployment: Deployment) -> list[str]:
    """NVIDIA's by the names of the Container Device Interface, others by their device files and the user's groups."""
    vendors = {gpu.vendor for gpu in deployment.gpus}
    lines = ["AddDevice=nvidia.com/gpu=all"] if "nvidia" in vendors else []
    if vendors - {"nvidia"}:
        lines += [*(["AddDevice=/dev/kfd"] if "amd" in vendors else []), "AddDevice=/dev/dri", "GroupAdd=keep-groups"]
    return lines
