"""What is started where: the plan's choice with the paths, the address and the limits of one deployment.

The mistake it prevents: every output format reading the plan in its own way, so that a unit file and a compose file
made from one plan start different servers.
"""

from planner.types import Record, Report
from planner.types.artifact import Artifact
from planner.types.machine import Backend
from planner.types.plan import DeviceMemory, ModelFacts, Speeds
from planner.types.receipt import Receipt
from planner.types.settings import Settings

__all__ = ["Deployment", "ExportOptions", "Exported", "ExportedFile", "GpuUse"]


class GpuUse(Report, frozen=True, kw_only=True):
    """One GPU that takes part: the engine's name of the device (``CUDA0``), its backend, its maker where known."""

    device: str
    backend: Backend
    vendor: str | None = None


class Deployment(Report, frozen=True, kw_only=True):
    """One server to start, complete: whoever renders it asks nobody else.

    ``name`` is an RFC 1123 label made of model and quantization, and the name under which the server offers the model.
    ``model`` and ``weights`` are a stranger's words: any character may stand in them.
    ``weights`` are all parts, the first is loaded; paths, or bare file names where nobody knows yet where they lie.
    ``argv`` is complete, ``argv[0]`` the program, the weights and the address inside; ``environment`` belongs to it.
    ``exposed`` says that others than this machine reach ``host``. ``api_key_file`` is the path of a file with keys, one
    on a line; no key itself is ever part of a deployment.

    ``host_memory_bytes`` is what a limit on the host's memory must allow: the plan's total for RAM (file pages that are
    mapped included, which a control group counts as well) and a margin for what no buffer line shows, the kernel's
    page tables and the text of requests: 5 %, at least 256 MiB.
    """

    name: str
    model: str
    quantization: str
    weights: tuple[str, ...]
    argv: tuple[str, ...]
    environment: dict[str, str]
    host: str
    port: int
    exposed: bool
    api_key_file: str | None
    settings: Settings
    memory: tuple[DeviceMemory, ...]
    host_memory_bytes: int
    gpus: tuple[GpuUse, ...]
    engine_build: str
    file_bytes: int
    speed: Speeds
    thinking: bool = False
    facts: ModelFacts | None = None
    artifact: Artifact | None = None
    machine: str = ""
    planned_at: str = ""
    planned_by: str = ""

    @property
    def gpu_names(self) -> tuple[str, ...]:
        """The engine's names of the GPUs that take part."""
        return tuple(gpu.device for gpu in self.gpus)


class ExportOptions(Record, frozen=True, kw_only=True):
    """What a format may need beside the deployment; each format says which it reads.

    ``image`` is a container image with its tag or digest. ``receipt`` is that of the weights, where they were fetched.
    """

    image: str | None = None
    receipt: Receipt | None = None


class ExportedFile(Report, frozen=True, kw_only=True):
    """One file of an export: where it was written and whether that changed anything, or its text where it was not."""

    name: str
    path: str | None = None
    text: str | None = None
    changed: bool | None = None


class Exported(Report, frozen=True, kw_only=True):
    """The document of ``planner export --json``; ``weights`` and ``argv`` are those of the deployment."""

    schema: str = "planner/exported/1"
    format: str
    name: str
    weights: tuple[str, ...]
    argv: tuple[str, ...]
    files: tuple[ExportedFile, ...]
