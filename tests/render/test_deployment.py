"""A deployment is the plan's own command with this machine's paths and address in it, and never an open server."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from planner.errors import BadInputError, PlannerError, UsageError
from planner.render.deployment import deployment, is_loopback, label, split_names
from planner.types.artifact import Artifact, Part
from planner.types.plan import DeviceMemory

MIB = 1 << 20


def with_memory(plan, *devices):
    """The plan with one row of 1 GiB for each device."""
    rows = tuple(
        DeviceMemory(
            device=name, weights_bytes=1 << 30, cache_bytes=0, compute_bytes=0, overhead_bytes=0,
            total_bytes=1 << 30, available_bytes=None,
        )
        for name in devices
    )  # fmt: skip
    return replace(plan, chosen=replace(plan.chosen, memory=rows))


def words_of(made, flag):
    """Every value that ``flag`` has in the command."""
    return [made.argv[at + 1] for at, word in enumerate(made.argv[:-1]) if word == flag]


def test_the_command_is_the_plans_own_but_for_place_and_address(plan):
    """Nothing that was planned is lost, and nothing is said twice."""
    made = deployment(plan, weights="/models/it is here.gguf", program="/opt/llama-server", port=9000)
    assert made.argv[:3] == ("/opt/llama-server", "--model", "/models/it is here.gguf")
    own = {"--model", "--host", "--port"}
    before = list(plan.commands.llama_server)
    planned = [word for word in before if word not in own and before[before.index(word) - 1] not in own]
    assert set(planned[1:]) <= set(made.argv)
    assert words_of(made, "--port") == ["9000"]
    assert words_of(made, "--host") == ["127.0.0.1"]
    assert words_of(made, "--alias") == [made.name]
    assert {"--no-mmproj", "--offline", "--cache-ram", "--ctx-checkpoints"} <= set(made.argv)
    assert made.environment == plan.commands.environment
    flags = [word for word in made.argv if word.startswith("--")]
    assert len(flags) == len(set(flags))


def test_a_path_that_looks_like_a_flag_stays_a_path(plan):
    """Whoever calls a file ``--host`` gets a model of that name and no other address."""
    for path in ("--host", "--port", "--api-key", "--model"):
        made = deployment(replace(plan, commands=_named(plan, path)))
        assert made.argv[1:3] == ("--model", path)
        tail = ("--host", "127.0.0.1", "--port", "8080", "--alias", made.name, "--no-mmproj", "--offline")
        assert made.argv[-8:] == tail


def _named(plan, path):
    command = list(plan.commands.llama_server)
    command[command.index("--model") + 1] = path
    return replace(plan.commands, llama_server=tuple(command))


def test_weights_come_from_what_is_given_then_from_disk_then_by_name(plan):
    """A set that lies here in part only goes by its names."""
    here = tuple(Part(path=f"q/m-0000{n}-of-00002.gguf", local_path=f"/hub/m-0000{n}-of-00002.gguf") for n in (1, 2))
    names = tuple(part.path.rsplit("/", 1)[1] for part in here)

    def weights(parts, given=None):
        artifact = Artifact(hub="hf", name="m", parts=parts)
        return deployment(replace(plan, chosen=replace(plan.chosen, artifact=artifact)), weights=given).weights

    assert weights(here) == tuple(part.local_path for part in here)
    assert weights((here[0], replace(here[1], local_path=None))) == names
    assert weights(here, "/other/x.gguf") == ("/other/x.gguf",)
    assert weights(here, ["/a.gguf", "/b.gguf"]) == ("/a.gguf", "/b.gguf")
    assert deployment(plan).weights == (plan.commands.llama_server[2],)


def test_the_first_part_names_the_whole_set():
    """Other names are what they are."""
    assert split_names("/a/x-00001-of-00003.gguf") == tuple(f"/a/x-0000{n}-of-00003.gguf" for n in (1, 2, 3))
    for name in ("x.gguf", "x-00002-of-00003.gguf", "x-00001-of-00001.gguf", "x-00001-of-99999.gguf"):
        assert split_names(name) == (name,)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "127.example.com"])  # noqa: S104
def test_an_address_that_others_reach_needs_a_key_file(plan, host):
    """And the key itself never stands anywhere."""
    with pytest.raises(UsageError) as raised:
        deployment(plan, host=host)
    assert raised.value.code == "open-without-key"
    made = deployment(plan, host=host, api_key_file="/etc/llama/keys")
    assert made.exposed
    assert words_of(made, "--api-key-file") == ["/etc/llama/keys"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_key(plan, host):
    """Every spelling of this machine."""
    assert is_loopback(host)
    assert not deployment(plan, host=host).exposed


@pytest.mark.parametrize("host", ["", "a,b", "127.0.0.1,0.0.0.0", "/run/x.sock", "-x", "a b", "$(id)", "a\nb"])
def test_what_is_no_single_address_is_refused(plan, host):
    """llama-server takes lists and sockets there; a plan starts one server at one address."""
    with pytest.raises(UsageError):
        deployment(plan, host=host, api_key_file="/k")


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_is_a_port(plan, port):
    """Port 0 would be another one at each start."""
    with pytest.raises(UsageError):
        deployment(plan, port=port)


def test_a_plan_without_a_choice_is_no_deployment(plan):
    """Exit code 10, as the plan itself ended with."""
    with pytest.raises(PlannerError) as raised:
        deployment(replace(plan, chosen=None, commands=None))
    assert (raised.value.code, int(raised.value.exit_code)) == ("nothing-chosen", 10)
    assert raised.value.hint


def test_a_command_that_leaves_memory_to_the_server_is_refused(plan):
    """An older or a mended plan must not start what nobody worked out; nor one that shows a key to everybody."""
    command = plan.commands.llama_server
    for flag in ("--cache-ram", "--ctx-checkpoints", "--parallel", "--ctx-size", "--fit", "--model"):
        at = command.index(flag)
        less = replace(plan.commands, llama_server=command[:at] + command[at + 2 :])
        with pytest.raises(BadInputError, match=flag):
            deployment(replace(plan, commands=less))
    open_secret = replace(plan.commands, llama_server=(*command, "--api-key", "s3cret"))
    with pytest.raises(BadInputError) as raised:
        deployment(replace(plan, commands=open_secret))
    assert "s3cret" not in raised.value.message
    with pytest.raises(BadInputError):
        deployment(replace(plan, commands=None))


def test_the_limit_on_the_host_is_the_plans_total_there_with_a_margin(plan):
    """The card's memory is its own; where there is one budget, all of it is the host's."""
    assert deployment(plan).host_memory_bytes == 6715 * MIB  # 6395 MiB and 5 %
    both = deployment(with_memory(plan, "CUDA0", "CUDA1", "CPU"))
    assert both.host_memory_bytes == (1024 + 256) * MIB
    assert both.gpu_names == ("CUDA0", "CUDA1")
    assert {gpu.vendor for gpu in both.gpus} == {"nvidia"}
    unified = deployment(with_memory(plan, "Vulkan0"))
    assert unified.host_memory_bytes == (1024 + 256) * MIB
    assert [(gpu.backend, gpu.vendor) for gpu in unified.gpus] == [("vulkan", "amd")]
    with pytest.raises(BadInputError, match="Quantum7"):
        deployment(with_memory(plan, "Quantum7"))


@given(st.text())
def test_a_name_is_always_a_label(text):
    """RFC 1123, whatever a stranger called the model."""
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", label(text))


def test_names_stay_apart_where_letters_are_lost():
    """Two models whose names have no Latin letter, two that differ after 63 characters."""
    assert label("qwen3-8b-Q4_K_M") == "qwen3-8b-q4-k-m"
    assert label("模型一") != label("模型二")
    assert label("a" * 80 + "1") != label("a" * 80 + "2")
