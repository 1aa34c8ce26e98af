"""A plan turned into one deployment: the plan's own command with this machine's paths and address put in.

Two mistakes it prevents. Deriving the command anew, so that what is started is not what was planned and shown. And an
open server by oversight: an address that others can reach is refused as long as no key file is named.
"""

import hashlib
import ipaddress
import re
from collections.abc import Sequence

from planner.errors import BadInputError, ExitCode, PlannerError, UsageError
from planner.types.artifact import Artifact
from planner.types.deployment import Deployment, GpuUse
from planner.types.machine import Backend, Gpu
from planner.types.plan import Candidate, DeviceMemory, Plan

__all__ = ["DEFAULT_HOST", "DEFAULT_PORT", "deployment", "is_loopback", "label", "split_names"]

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8080

_MIB = 1 << 20
_LEAST_MARGIN_BYTES = 256 * _MIB
_MARGIN_SHARE = 0.05
_LONGEST_LABEL = 63  # RFC 1123
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_SPLIT = re.compile(r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf", re.DOTALL)
_MOST_PARTS = 1000
_WRITTEN_OUT = ("--ctx-size", "--parallel", "--cache-ram", "--ctx-checkpoints", "--fit")
"""What llama-server would otherwise decide on its own, and take memory for."""
_BACKENDS: dict[str, Backend] = {
    "CUDA": "cuda",
    "ROCm": "rocm",
    "Vulkan": "vulkan",
    "SYCL": "sycl",
    "MTL": "metal",
    "Metal": "metal",
}
_DEVICE = re.compile(r"(?P<prefix>[A-Za-z]+)(?P<number>\d{0,4})")
_VENDORS: dict[Backend, str] = {"cuda": "nvidia", "rocm": "amd", "sycl": "intel", "metal": "apple"}


def deployment(
    plan: Plan,
    *,
    weights: str | Sequence[str] | None = None,
    program: str = "llama-server",
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    api_key_file: str | None = None,
) -> Deployment:
    """The deployment of what ``plan`` chose; ``weights`` say where the files lie (of a split set the first is enough).

    Without ``weights`` the files that the plan found on disk are taken, else their bare names. Raises
    :class:`PlannerError` (code ``nothing-chosen``, exit 10) for a plan without a choice, :class:`UsageError` (code
    ``open-without-key``) for an address that is not loopback without a key file, and :class:`BadInputError` for a plan
    whose command lacks what a server must be told.
    """
    chosen = plan.chosen
    if chosen is None:
        raise PlannerError(
            "this plan chose nothing, so there is nothing to deploy",
            hint="its reasons say what came closest; plan again with another goal",
            code="nothing-chosen",
            exit_code=ExitCode.NOTHING_MEETS_THE_GOAL,
        )
    _check_address(host, port, api_key_file)
    if plan.commands is None:
        raise _broken("it has no command")
    name = label(f"{chosen.model}-{chosen.quantization}")
    files = _files(plan.commands.llama_server, chosen.artifact, weights)
    return Deployment(
        name=name,
        model=chosen.model,
        quantization=chosen.quantization,
        weights=files,
        argv=_argv(plan.commands.llama_server, program, files[0], name, host, port, api_key_file),
        environment=dict(plan.commands.environment),
        host=host,
        port=port,
        exposed=not is_loopback(host),
        api_key_file=api_key_file,
        settings=chosen.settings,
        memory=chosen.memory,
        host_memory_bytes=_host_memory_bytes(chosen),
        gpus=tuple(_gpu(row, plan.machine.gpus) for row in chosen.memory if not _on_host(row)),
        engine_build=plan.engine_build,
        file_bytes=chosen.file_bytes,
        speed=chosen.speed,
        thinking=chosen.thinking,
        facts=plan.model,
        artifact=chosen.artifact,
        machine=plan.machine.name,
        planned_at=plan.created_at,
        planned_by=plan.created_by,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address; a name other than ``localhost`` counts as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def label(text: str) -> str:
    """An RFC 1123 label that says ``text``: lower case, digits, hyphens, at most 63 characters.

    Where much of the text is lost (foreign letters, length) a hash of it keeps two texts apart.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    letters = sum(each.isalnum() for each in text)
    lost = letters != sum(each.isalnum() for each in plain)
    if not lost and plain and len(plain) <= _LONGEST_LABEL:
        return plain
    mark = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{plain[: _LONGEST_LABEL - 9].strip('-') or 'model'}-{mark}"


def split_names(first: str) -> tuple[str, ...]:
    """All parts of the set that ``first`` opens (``x-00001-of-00003.gguf``); ``first`` alone if it is no such name."""
    match = _SPLIT.fullmatch(first)
    if match is None or int(match["part"]) != 1 or not 1 < int(match["parts"]) <= _MOST_PARTS:
        return (first,)
    stem, parts = match["stem"], match["parts"]
    return tuple(f"{stem}-{number:05}-of-{parts}.gguf" for number in range(1, int(parts) + 1))


def _check_address(host: str, port: int, api_key_file: str | None) -> None:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not _HOST_NAME.fullmatch(host):
            raise UsageError(f"{host!r} is no address", hint="name one IP address or host name") from None
    if not 0 < port < 1 << 16:
        raise UsageError(f"{port} is no port", hint="name one from 1 to 65535")
    if not is_loopback(host) and not api_key_file:
        raise UsageError(
            f"a server on {host} without a key answers everybody who reaches this machine",
            hint="name a file of keys with --api-key-file, or stay on 127.0.0.1",
            code="open-without-key",
        )


def _files(command: Sequence[str], artifact: Artifact | None, given: str | Sequence[str] | None) -> tuple[str, ...]:
    """The parts of the weights: as given, else where the plan found them, else by their bare names."""
    if given:
        files = split_names(given) if isinstance(given, str) else tuple(given)
    elif artifact is not None and artifact.parts:
        # Half a set on disk is no set: then all go by their names.
        files = tuple(part.local_path or "" for part in artifact.parts)
        if not all(files):
            files = tuple(part.path.rsplit("/", 1)[-1] for part in artifact.parts)
    else:
        at = _place(command, "--model")
        files = split_names(command[at])
    if "\0" in "".join(files) or not all(files):
        raise BadInputError("a path of the weights is empty or holds a NUL character", hint="name the file anew")
    return files


def _argv(
    command: Sequence[str], program: str, weights: str, name: str, host: str, port: int, api_key_file: str | None
) -> tuple[str, ...]:
    at = _place(command, "--model")
    # From here on no word is a stranger's: only the weights' path could look like a flag.
    rest = [*command[1 : at - 1], *command[at + 1 :]]
    missing = [flag for flag in _WRITTEN_OUT if flag not in rest]
    if missing:
        raise _broken(f"its command leaves {', '.join(missing)} to the server")
    if "--api-key" in rest:
        raise _broken("its command holds a key, which every user of the machine could read")
    for flag, value in (("--host", host), ("--port", str(port)), ("--alias", name)):
        rest = [*_without(rest, flag), flag, value]
    if api_key_file:
        rest = [*_without(rest, "--api-key-file"), "--api-key-file", api_key_file]
    # A projector beside the weights and a look at the network are no part of any plan.
    rest += [flag for flag in ("--no-mmproj", "--offline") if flag not in rest]
    return (program, "--model", weights, *rest)


def _place(command: Sequence[str], flag: str) -> int:
    """Where the value of ``flag`` stands."""
    if flag not in command[:-1]:
        raise _broken(f"its command names no {flag}")
    return list(command).index(flag) + 1


def _without(command: list[str], flag: str) -> list[str]:
    at = command.index(flag) if flag in command else len(command)
    return [*command[:at], *command[at + 2 :]]


def _broken(what: str) -> BadInputError:
    return BadInputError(f"the plan is not complete: {what}", hint="plan again with this planner", code="bad-plan")


def _on_host(row: DeviceMemory) -> bool:
    return row.device == "CPU" or row.device.startswith("Host")


def _host_memory_bytes(chosen: Candidate) -> int:
    rows = [row for row in chosen.memory if _on_host(row)]
    # One row for a GPU whose memory is the host's: then it is all in RAM.
    total = sum(row.total_bytes for row in rows or chosen.memory)
    margin = max(_LEAST_MARGIN_BYTES, round(total * _MARGIN_SHARE))
    return -(-(total + margin) // _MIB) * _MIB


def _gpu(row: DeviceMemory, gpus: Sequence[Gpu]) -> GpuUse:
    match = _DEVICE.fullmatch(row.device)
    backend = _BACKENDS.get(match["prefix"]) if match is not None else None
    if match is None or backend is None:
        raise _broken(f"nobody knows the backend of its device {row.device!r}")
    vendor = _VENDORS.get(backend)
    if vendor is None:
        same = [gpu for gpu in gpus if gpu.backend == backend]
        vendor = same[min(int(match["number"] or 0), len(same) - 1)].vendor if same else None
    return GpuUse(device=row.device, backend=backend, vendor=vendor)
