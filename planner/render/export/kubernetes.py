"""The deployment as a Deployment and a Service of Kubernetes, fit for the restricted Pod Security Standard.

Two mistakes it prevents. A server that the whole cluster reaches: without keys it listens to its pod alone, where
``kubectl port-forward`` gets through and nothing else does. And a pod that the node kills later: what it requests is
its limit, and that is the plan.

``$(NAME)`` is replaced in arguments, so ``$`` is doubled. Rules: the API reference of Kubernetes 1.25 to 1.37.
"""

import re

from planner.errors import UsageError
from planner.render.export.container import INSIDE, USER, pinned
from planner.render.export.words import comment
from planner.render.export.yaml_block import Value, block
from planner.types.deployment import Deployment, ExportOptions

__all__ = ["render"]

_KEYS = "/run/secrets/llama"
_RESOURCES = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "intel": "gpu.intel.com/i915"}
"""What the device plugin of each maker calls its GPUs."""
_STARTS_WITH_LETTER = re.compile(r"[a-z]")


def render(deployment: Deployment, options: ExportOptions) -> dict[str, str]:
    """``NAME.yaml``; reads ``image``. The weights lie in a claim ``NAME-weights``, the keys in a secret."""
    image = pinned(deployment, options.image, form="kubernetes")
    name = _name(deployment)
    told = "".join(f"# {line}\n" for line in _told(deployment, name))
    labels: dict[str, Value] = {"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "planner"}
    metadata: dict[str, Value] = {"name": name, "labels": labels}
    pod: dict[str, Value] = {
        "metadata": {
            "labels": labels,
            "annotations": {"planner/model": deployment.model, "planner/quantization": deployment.quantization},
        },
        "spec": _pod(deployment, name, image),
    }
    workload: dict[str, Value] = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "replicas": 1,
            # Two at a time would need twice the memory.
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app.kubernetes.io/name": name}},
            "template": pod,
        },
    }
    service: dict[str, Value] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": "ClusterIP",
            "selector": {"app.kubernetes.io/name": name},
            "ports": [{"name": "http", "port": deployment.port, "targetPort": "http", "protocol": "TCP"}],
        },
    }
    return {f"{name}.yaml": f"{told}{block(workload)}---\n{block(service)}"}


def _pod(deployment: Deployment, name: str, image: str) -> dict[str, Value]:
    mounts: list[Value] = [
        {"name": "weights", "mountPath": INSIDE, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside
    ]
    volumes: list[Value] = [
        {"name": "weights", "persistentVolumeClaim": {"claimName": f"{name}-weights", "readOnly": True}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
    ]
    if deployment.api_key_file is not None:
        mounts.append({"name": "keys", "mountPath": _KEYS, "readOnly": True})
        volumes.append({"name": "keys", "secret": {"secretName": f"{name}-api-key", "defaultMode": 0o440}})
    container: dict[str, Value] = {
        "name": "llama-server",
        "image": image,
        "args": [word.replace("$", "$$") for word in _arguments(deployment)],
        "env": [
            {"name": key, "value": value.replace("$", "$$")} for key, value in sorted(deployment.environment.items())
        ],
        "ports": [{"name": "http", "containerPort": deployment.port, "protocol": "TCP"}],
        "resources": {"requests": _resources(deployment), "limits": _resources(deployment)},
        "startupProbe": {**_probe(deployment), "periodSeconds": 5, "failureThreshold": 180},
        "readinessProbe": {**_probe(deployment), "periodSeconds": 10},
        "livenessProbe": {**_probe(deployment), "periodSeconds": 30, "failureThreshold": 4},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    }
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }


def _arguments(deployment: Deployment) -> list[str]:
    """The words after the program as the pod needs them: weights from the claim, keys from the secret."""
    weights = deployment.weights[0].rsplit("/", 1)[-1]
    words = [deployment.argv[1], f"{INSIDE}/{weights}", *deployment.argv[3:]]
    words[words.index("--host", 2) + 1] = "0.0.0.0" if deployment.exposed else "127.0.0.1"  # noqa: S104 - of the pod
    if deployment.api_key_file is not None:
        words[words.index("--api-key-file", 2) + 1] = f"{_KEYS}/api-key"
    return words


def _probe(deployment: Deployment) -> dict[str, Value]:
    """Whether it is ready: asked over the network where it listens there, else from inside."""
    if deployment.exposed:
        return {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5}
    words: list[Value] = ["curl", "-fsS", "-o", "/dev/null", f"http://127.0.0.1:{deployment.port}/health"]
    return {"exec": {"command": words}, "timeoutSeconds": 5}


def _resources(deployment: Deployment) -> dict[str, Value]:
    """What the pod requests and may take: the plan's memory, its threads, its GPUs."""
    settings = deployment.settings
    given: dict[str, Value] = {
        "memory": str(deployment.host_memory_bytes),
        "cpu": str(max(settings.threads, settings.threads_batch)),
    }
    vendors = {gpu.vendor for gpu in deployment.gpus}
    if not vendors:
        return given
    resource = _RESOURCES.get(next(iter(vendors)) or "") if len(vendors) == 1 else None
    if resource is None:
        raise UsageError(
            "no device plugin is known for the GPUs of this plan", hint="export to compose or quadlet instead"
        )
    return {**given, resource: str(len(deployment.gpus))}


def _name(deployment: Deployment) -> str:
    """The name of both objects: a Service's must begin with a letter (RFC 1035)."""
    name = deployment.name
    return name if _STARTS_WITH_LETTER.match(name) else f"m-{name}"[:63].rstrip("-")


def _told(deployment: Deployment, name: str) -> list[str]:
    what = f"{comment(deployment.model)} in {comment(deployment.quantization)}"
    files = ", ".join(comment(path.rsplit("/", 1)[-1]) for path in deployment.weights)
    lines = [f"llama-server as planned for {what}.", f"The claim {name}-weights holds at its root: {files}"]
    if deployment.exposed:
        lines.append(f"The keys: kubectl create secret generic {name}-api-key --from-file=api-key=FILE")
    else:
        port = deployment.port
        lines.append(f"It listens to its pod alone: kubectl port-forward service/{name} {port}:{port}")
    return lines
