"""The deployment as a compose file, for ``docker compose`` and ``podman compose``.

Two mistakes it prevents. A port that is published to the whole network, which is what ``8080:8080`` does, past the
host's firewall: here it is one address. And a name that compose takes for a variable: ``$`` is doubled in every value.

Rules: the Compose Specification.
"""

from planner.render.export.container import KEY, USER, contained, pids
from planner.render.export.words import comment
from planner.render.export.yaml_block import Value, block
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["render"]

_SERVICE = "llama-server"


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:
    """``compose.yaml``; reads ``image``."""
    inside = contained(deployment, options, form="compose")
    service: dict[str, Value] = {
        "image": inside.image,
        "command": [_escaped(word) for word in inside.arguments],
        "environment": {name: _escaped(value) for name, value in sorted(deployment.environment.items())},
        "user": f"${{LLAMA_UID:-{USER}}}:${{LLAMA_GID:-{USER}}}",
        "ports": [
            {
                "target": deployment.port,
                "host_ip": deployment.host,
                "published": str(deployment.port),
                "protocol": "tcp",
            }
        ],
        "volumes": [
            {
                "type": "bind",
                "source": _escaped(_source(path)),
                "target": target,
                "read_only": True,
                # Where SELinux rules, a container reads what is labelled for containers.
                "bind": {"create_host_path": False, "selinux": "z"},
            }
            for path, target in inside.files
        ],
        "read_only": True,
        "tmpfs": ["/tmp:size=64m,mode=1777,noexec,nosuid,nodev"],  # noqa: S108 - inside
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "mem_limit": deployment.host_memory_bytes,
        "memswap_limit": deployment.host_memory_bytes,
        "pids_limit": pids(deployment),
        "ulimits": _limits(deployment),
        "healthcheck": {
            "test": ["CMD", "curl", "-fsS", "-o", "/dev/null", f"http://127.0.0.1:{deployment.port}/health"],
            "interval": "30s",
            "timeout": "10s",
            "retries": 3,
            "start_period": "10m",
        },
        "restart": "unless-stopped",
        "stop_grace_period": "30s",
        **_gpus(deployment),
    }
    document: dict[str, Value] = {"name": deployment.name, "services": {_SERVICE: service}}
    if deployment.api_key_file is not None:
        service["secrets"] = [{"source": "api-key", "target": KEY}]
        document["secrets"] = {"api-key": {"file": _escaped(_source(deployment.api_key_file))}}
    return {"compose.yaml": "".join(f"# {line}\n" for line in _told(deployment)) + block(document)}


def _told(deployment: Deployment) -> list[str]:
    what = f"{comment(deployment.model)} in {comment(deployment.quantization)}"
    lines = [
        f"llama-server as planned for {what}.",
        "Start it with: docker compose up --detach --wait",
        f"User {USER} must be able to read the files; or: LLAMA_UID=$(id -u) LLAMA_GID=$(id -g) docker compose up",
    ]
    if deployment.exposed:
        lines.append("The file of keys must hold one: without any, the server answers everybody.")
    return lines


def _escaped(text: str) -> str:
    return text.replace("$", "$$")


def _source(path: str) -> str:
    """A path that is taken for one: neither for the name of a volume nor for somebody's home."""
    return path if path.startswith("/") else f"./{path}"


def _limits(deployment: Deployment) -> dict[str, Value]:
    limits: dict[str, Value] = {"core": 0}
    if "mlock" in deployment.settings.load_mode:
        limits["memlock"] = deployment.host_memory_bytes
    return limits


def _gpus(deployment: Deployment) -> dict[str, Value]:
    """The reservation of the GPUs; for the makers without a runtime of their own, the device files and their group."""
    vendors = {gpu.vendor for gpu in deployment.gpus}
    given: dict[str, Value] = {}
    if "nvidia" in vendors:
        devices: Value = [{"driver": "nvidia", "count": len(deployment.gpus), "capabilities": ["gpu"]}]
        given["deploy"] = {"resources": {"reservations": {"devices": devices}}}
    if vendors - {"nvidia"}:
        given["devices"] = [*(["/dev/kfd:/dev/kfd"] if "amd" in vendors else []), "/dev/dri:/dev/dri"]
        given["group_add"] = ["${RENDER_GID:?is the group of the GPU: stat -c %g /dev/dri/renderD128}"]
    return given
