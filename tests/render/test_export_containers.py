"""Containers: nothing inside that was not planned, nothing outside but one address, names exact in what mounts them."""

import csv
import functools
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from planner.errors import BadInputError, UsageError
from planner.render.export import export
from planner.render.export.yaml_block import block
from planner.types.deployment import ExportOptions, GpuUse

yaml = pytest.importorskip("yaml")

IMAGE = "ghcr.io/ggml-org/llama.cpp:server-b9999"
OPTIONS = ExportOptions(image=IMAGE)
DIGEST = "sha256:" + "0123456789abcdef" * 4
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
CARDS = {
    "cpu": (),
    "nvidia": tuple(GpuUse(device=f"CUDA{n}", backend="cuda", vendor="nvidia") for n in (0, 1)),
    "amd": (GpuUse(device="ROCm0", backend="rocm", vendor="amd"),),
    "intel": (GpuUse(device="SYCL0", backend="sycl", vendor="intel"),),
}
CONTAINERS = ("compose", "quadlet", "kubernetes")
QUADLET = next(
    filter(None, map(shutil.which, ("quadlet", "/usr/libexec/podman/quadlet", "/usr/lib/podman/quadlet"))), None
)


def load(text):
    """Every document of a YAML stream."""
    return list(yaml.load_all(text, Loader=LOADER))


def arguments_of(made, weights, host="0.0.0.0"):  # noqa: S104 - what stands inside a container
    """The words after the program, as they must stand inside a container."""
    words = [*made.argv[1:2], weights, *made.argv[3:]]
    words[words.index("--host") + 1] = host
    return words


@pytest.mark.parametrize("form", CONTAINERS)
@pytest.mark.parametrize(
    ("image", "code"),
    [
        (None, "no-image"), ("", "no-image"), ("x y", "no-image"), ("$(id)", "no-image"), ("a\nb:1.0", "no-image"),
        ("ghcr.io/ggml-org/llama.cpp", "unpinned-image"), ("ghcr.io/ggml-org/llama.cpp:server", "unpinned-image"),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda13", "unpinned-image"), ("me/x:latest", "unpinned-image"),
        ("host:5000/x", "unpinned-image"),
        (IMAGE, None), (f"me/x@{DIGEST}", None), (f"me/x:latest@{DIGEST}", None), ("me/x:v1.2", None),
        ("ghcr.io/ggml-org/llama.cpp:server-cuda-b9999", None), ("host:5000/x:1.2.3", None),
    ],
)  # fmt: skip
def test_an_image_is_pinned_or_refused_with_what_to_give(form, image, code, deployed):
    """A tag that moves would start another engine than the one that was planned with."""
    if code is None:
        assert image in "".join(export(form, deployed(), ExportOptions(image=image)).values())
        return
    with pytest.raises(UsageError) as raised:
        export(form, deployed(), ExportOptions(image=image))
    assert raised.value.code == code
    assert "--image ghcr.io" in raised.value.hint


def test_the_hint_names_the_image_of_the_backend(deployed):
    """The plain one has no kernels for a card."""
    with pytest.raises(UsageError) as raised:
        export("compose", replace(deployed(), gpus=CARDS["nvidia"]))
    assert "server-cuda-bNNNN" in raised.value.hint


@pytest.mark.parametrize("form", CONTAINERS)
def test_metal_is_not_for_containers(form, deployed):
    """No container on macOS sees the GPU."""
    with pytest.raises(UsageError):
        export(form, replace(deployed(), gpus=(GpuUse(device="MTL0", backend="metal"),)), OPTIONS)


@pytest.mark.parametrize("form", CONTAINERS)
def test_the_key_stands_nowhere_but_its_file(form, deployed):
    """Inside, the server is told the place of the mount."""
    made = deployed(host="192.0.2.7", api_key_file="/etc/llama/keys")
    text = "".join(export(form, made, OPTIONS).values())
    assert ("/etc/llama/keys" in text) == (form != "kubernetes")
    assert "--api-key " not in text
    assert re.search(r"/run/secrets/(llama/)?api-key", text)


def test_a_split_set_is_mounted_part_by_part(deployed):
    """The engine finds the other parts by the name of the first, so all keep the form of such names."""
    made = deployed(weights="/m/it's-00001-of-00003.gguf")
    (document,) = load(export("compose", made, OPTIONS)["compose.yaml"])
    service = document["services"]["llama-server"]
    assert [each["source"] for each in service["volumes"]] == list(made.weights)
    assert [each["target"] for each in service["volumes"]] == [
        f"/models/model-0000{n}-of-00003.gguf" for n in (1, 2, 3)
    ]
    assert service["command"][:2] == ["--model", "/models/model-00001-of-00003.gguf"]
    plain = deployed(weights="/m/x-00001-of-00002.gguf")
    (document,) = load(export("compose", plain, OPTIONS)["compose.yaml"])
    assert document["services"]["llama-server"]["command"][1] == "/models/x-00001-of-00002.gguf"


def check_service(service, made):
    """What every compose service must be, as the file has it."""
    assert service["image"] == IMAGE
    assert service["ports"][0]["host_ip"] == made.host
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert int(service["mem_limit"]) == int(service["memswap_limit"]) == made.host_memory_bytes
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & set(service)
    assert all(each["read_only"] for each in service["volumes"])


@functools.cache
def compose_program():
    """``docker compose`` or ``docker-compose`` of version 2, whose ``config`` needs no daemon."""
    for name, *more in (("docker", "compose"), ("docker-compose",)):
        program = shutil.which(name)
        if program is not None:
            words = [program, *more]
            run = subprocess.run(
                [*words, "version", "--short"], capture_output=True, text=True, check=False, timeout=30
            )
            if run.returncode == 0 and re.match(r"v?[2-9]", run.stdout):
                return words
    return None


def config(program, folder):
    """What compose resolves the file in a folder to."""
    words = [*program, "-f", "compose.yaml", "config", "--format", "json"]
    environment = {**os.environ, "RENDER_GID": "104"}
    run = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def test_compose_says_every_name_in_the_mount_alone(deployed, hostile_names, tmp_path):
    """By a YAML reader and compose's rule that two dollar signs are one, and by compose itself where it is here."""
    relative = [deployed(name, weights=name) for name in hostile_names[:200]]
    mounts = []
    for made in (*relative, *map(deployed, hostile_names)):
        (document,) = load(export("compose", made, OPTIONS)["compose.yaml"])
        service = document["services"]["llama-server"]
        check_service(service, made)
        (mount,) = service["volumes"]
        source = mount["source"].replace("$$", "\0")
        assert "$" not in source
        assert source.replace("\0", "$").removeprefix("./") == made.weights[0]
        assert service["command"] == arguments_of(made, mount["target"])
        assert re.fullmatch(r"/models/[A-Za-z0-9._-]+", mount["target"])
        mounts.append((made.weights[0], mount))
    program = compose_program()
    if program is not None:
        mounts = mounts[len(relative) :]
        targets = [{**mount, "target": f"/models/{number}"} for number, (_, mount) in enumerate(mounts)]
        text = block({"name": "hostile", "services": {"x": {"image": IMAGE, "volumes": targets}}})
        (tmp_path / "compose.yaml").write_text(text, encoding="utf-8", newline="")
        resolved = config(program, tmp_path)["services"]["x"]["volumes"]
        # What it prints can be read by it again: every dollar sign is doubled.
        assert [each["source"].replace("$$", "$") for each in resolved] == [path for path, _ in mounts]


@pytest.mark.parametrize("vendor", CARDS)
@pytest.mark.parametrize("exposed", [False, True], ids=["loopback", "exposed"])
def test_compose_accepts_every_shape(vendor, exposed, deployed, tmp_path):
    """The file as it is written; the reservation of GPUs arrives."""
    program = compose_program()
    if program is None:
        pytest.skip("no docker compose of version 2 is here")
    (tmp_path / "keys").write_text("k\n")
    named = {"host": "::", "api_key_file": str(tmp_path / "keys")} if exposed else {}
    made = replace(deployed(**named), gpus=CARDS[vendor])
    made = replace(made, settings=replace(made.settings, load_mode="mmap+mlock"))
    (tmp_path / "compose.yaml").write_text(export("compose", made, OPTIONS)["compose.yaml"])
    service = config(program, tmp_path)["services"]["llama-server"]
    check_service(service, made)
    assert service["user"] == "65532:65532"
    if vendor == "nvidia":
        assert service["deploy"]["resources"]["reservations"]["devices"][0]["count"] == 2
    elif vendor != "cpu":
        assert service["group_add"] == ["104"]
        assert any("/dev/dri" in str(device) for device in service["devices"])


def quadlet_of(made):
    """The text of a quadlet."""
    return export("quadlet", made, OPTIONS)[f"{made.name}.container"]


def generated(folder):
    """What Podman's own generator makes of the quadlets in a folder, by their names."""
    environment = {**os.environ, "QUADLET_UNIT_DIRS": str(folder)}
    words = [QUADLET, "-dryrun", "-user"]
    run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, env=environment)
    assert run.returncode == 0, run.stderr[-500:]
    assert not [line for line in run.stderr.splitlines() if "Loading source unit" not in line]
    units = re.split(r"^---(.*)\.service---\n", run.stdout, flags=re.MULTILINE)[1:]
    return dict(zip(units[::2], units[1::2], strict=True))


needs_quadlet = pytest.mark.skipif(QUADLET is None, reason="Podman's quadlet (4.4 or newer) is not here")


@needs_quadlet
def test_podmans_generator_and_systemd_read_exactly_the_mounts(deployed, hostile_names, tmp_path, read_by_systemd):
    """Two thousand quadlets through the generator, its commands through systemd, the mounts through CSV."""
    made, refused = [], {}
    folder = tmp_path / "quadlets"
    folder.mkdir()
    for name in hostile_names:
        each = deployed(name)
        try:
            text = quadlet_of(each)
        except BadInputError as error:
            refused[name] = error.message
            continue
        (folder / f"q{len(made)}.container").write_text(text, encoding="utf-8", newline="")
        made.append(each)
    assert len(made) > 1200
    assert all(re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ufffe]", name) for name in refused)
    assert all("U+" in message for message in refused.values())
    units = generated(folder)
    starts = [
        re.search(r"^ExecStart=(.*)$", units[f"q{number}"].replace("\u2028", ""), re.MULTILINE)[0]
        for number in range(len(made))
    ]
    commands, _ = read_by_systemd("\n".join(["[Service]", "Type=oneshot", *starts]) + "\n")
    assert len(commands) == len(made)
    for each, command in zip(made, commands, strict=True):
        (fields,) = csv.reader([command[command.index("--mount") + 1].replace("$$", "$")])
        mount = dict(field.partition("=")[::2] for field in fields)
        assert mount["source"] == each.weights[0]
        at = command.index(IMAGE)
        assert list(command[at + 1 :]) == arguments_of(each, mount["destination"])


@needs_quadlet
@pytest.mark.parametrize("vendor", CARDS)
@pytest.mark.parametrize("exposed", [False, True], ids=["loopback", "exposed"])
def test_the_generated_service_is_locked_down(vendor, exposed, deployed, tmp_path):
    """Podman is told all of it, and systemd finds nothing to say about the result."""
    named = {"host": "::", "api_key_file": "/etc/keys"} if exposed else {}
    made = replace(deployed(**named), gpus=CARDS[vendor])
    (tmp_path / "x.container").write_text(quadlet_of(made))
    unit = generated(tmp_path)["x"]
    for told in (
        "--cap-drop all", "--read-only ", "--security-opt=no-new-privileges", "--user 65532:65532",
        f"--publish {'[::]' if exposed else '127.0.0.1'}:8080:8080", f"MemoryMax={made.host_memory_bytes}\n",
    ):  # fmt: skip
        assert told in unit
    assert ("nvidia.com/gpu=all" in unit) == (vendor == "nvidia")
    assert ("/dev/dri" in unit) == (vendor in {"amd", "intel"})
    assert "privileged " not in unit.replace("no-new-privileges", "")
    analyze, podman = shutil.which("systemd-analyze"), Path("/usr/bin/podman")
    if analyze is not None and podman.exists():
        path = tmp_path / "x.service"
        path.write_text(unit)
        environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
        words = [analyze, "verify", "--user", str(path)]
        run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=30, env=environment)
        assert (run.stdout, run.stderr, run.returncode) == ("", "", 0)


def test_a_quadlet_needs_paths_from_the_root_on(deployed):
    """A relative one would be taken for the name of a volume."""
    with pytest.raises(UsageError, match="from the root on"):
        quadlet_of(deployed(weights="x.gguf"))


def objects_of(made):
    """The Deployment and the Service."""
    (text,) = export("kubernetes", made, OPTIONS).values()
    return load(text)


def expanded(word):
    """An argument as the kubelet passes it on: two dollar signs are one, and no variable of these names is set."""
    return re.sub(r"\$\$|\$\([^)]*\)", lambda match: "$" if match[0] == "$$" else match[0], word)


@pytest.mark.parametrize("vendor", CARDS)
@pytest.mark.parametrize("exposed", [False, True], ids=["loopback", "exposed"])
def test_kubernetes_schemas_accept_both_objects(vendor, exposed, deployed):
    """The oldest and the newest version that the package knows, strictly."""
    validate = pytest.importorskip("kubernetes_validate")
    named = {"host": "::", "api_key_file": "/etc/keys"} if exposed else {}
    for each in objects_of(replace(deployed(**named), gpus=CARDS[vendor])):
        for version in ("1.25", "1.31", validate.latest_version()):
            validate.validate(each, version, strict=True)


@pytest.mark.parametrize("vendor", CARDS)
@pytest.mark.parametrize("exposed", [False, True], ids=["loopback", "exposed"])
def test_the_pod_is_restricted_and_takes_what_was_planned(vendor, exposed, deployed):
    """The rules of the restricted Pod Security Standard; requests are limits are the plan."""
    named = {"host": "::", "api_key_file": "/etc/keys"} if exposed else {}
    made = replace(deployed(**named), gpus=CARDS[vendor])
    workload, service = objects_of(made)
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    assert {key for volume in pod["volumes"] for key in volume if key != "name"} <= allowed
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers"} & set(pod)
    assert "hostPort" not in str(workload)
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    assert requests == limits
    assert int(limits["memory"]) == made.host_memory_bytes
    extended = {key: int(value) for key, value in limits.items() if "/" in key}
    assert extended == {"cpu": {}, "nvidia": {"nvidia.com/gpu": 2}, "amd": {"amd.com/gpu": 1},
                        "intel": {"gpu.intel.com/i915": 1}}[vendor]  # fmt: skip
    words = container["args"]
    assert words[words.index("--host") + 1] == ("0.0.0.0" if exposed else "127.0.0.1")  # noqa: S104 - of the pod
    assert ("--api-key-file" in words) == exposed
    assert ("exec" in container["startupProbe"]) == (not exposed)
    assert service["spec"]["type"] == "ClusterIP"
    assert service["spec"]["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()


def test_kubernetes_says_every_name(deployed, hostile_names):
    """In the argument, by the kubelet's rule for dollar signs, and in the annotation."""
    for name in hostile_names:
        made = deployed(name)
        (text,) = export("kubernetes", made, OPTIONS).values()
        workload, _ = text.split("\n---\n")
        (workload,) = load(workload)
        template = workload["spec"]["template"]
        (container,) = template["spec"]["containers"]
        words = list(map(expanded, container["args"]))
        assert words == arguments_of(made, made.weights[0], "127.0.0.1")
        assert template["metadata"]["annotations"]["planner/model"] == name
        assert re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", workload["metadata"]["name"])


keys = st.sampled_from(["a", "bb", "app.kubernetes.io/name", "x-y"])
scalars = st.one_of(
    st.text(max_size=12), st.booleans(), st.integers(), st.sampled_from(["on", "1e3", "12:30", "~", "null", "=", "<<"])
)
nested = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(keys, nested, max_size=3))
def test_yaml_in_blocks_is_read_back_as_it_was(data):
    """Whatever is in it, and every text stays text."""
    assert load(block(data))[0] == data
