"""Formats for proxies and other runtimes: each read back by a real parser or the runtime itself, exact or refused."""

import ast
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest
import yaml
from msgspec.structs import replace

from planner.errors import BadInputError, UsageError
from planner.render.export import export


def only(form, made, options=None):
    """The text of the one file that a format makes."""
    (text,) = export(form, made, options).values()
    return text


# llama-swap

# The part of config-schema.json of llama-swap at commit 032d7419 (draft-07) that a single model touches, restated.
LLAMA_SWAP = {
    "type": "object",
    "required": ["models"],
    "additionalProperties": False,
    "properties": {
        "healthCheckTimeout": {"type": "integer", "minimum": 15},
        "models": {
            "type": "object",
            "minProperties": 1,
            "additionalProperties": {
                "type": "object",
                "required": ["cmd"],
                "additionalProperties": False,
                "properties": {
                    "cmd": {"type": "string", "minLength": 1},
                    "proxy": {"type": "string"},
                    "env": {"type": "array", "items": {"type": "string", "pattern": "^[A-Z_][A-Z0-9_]*=.*$"}},
                    "concurrencyLimit": {"type": "integer", "minimum": 0},
                    "capabilities": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {"context": {"type": "integer", "minimum": 0}},
                    },
                },
            },
        },
    },
}


def split_by_llama_swap(command):
    """The words of a command as llama-swap reads it: macros first, then lines, then POSIX quotes (no comments)."""
    assert not re.search(r"\$\{env\.", command)
    command = command.replace("${PORT}", "5800")
    assert not re.search(r"\$\{[a-zA-Z0-9_-]+\}", command), "an unknown macro stops it"
    lines = []
    for line in command.split("\n"):
        trimmed = line.strip()
        if not trimmed.startswith("#"):
            lines.append(trimmed[:-1] + " " if trimmed.endswith("\\") else line)
    lexer = shlex.shlex("\n".join(lines), posix=True, punctuation_chars=False)
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\n", True, ""
    return list(lexer)


def test_llama_swap_gets_a_model_that_its_schema_allows(deployed):
    """Its own keys only, its port, a health check that waits for the weights."""
    from jsonschema import Draft7Validator

    made = deployed()
    document = yaml.safe_load(only("llama-swap", made))
    Draft7Validator(LLAMA_SWAP).validate(document)
    (model,) = document["models"].values()
    assert model["proxy"] == "http://127.0.0.1:${PORT}"
    assert split_by_llama_swap(model["cmd"])[:2] == ["llama-server", "--model"]
    many = replace(made, settings=replace(made.settings, parallel=16))
    assert "concurrencyLimit: 16" in only("llama-swap", many)


def test_llama_swap_says_hostile_names_or_refuses_them(deployed, hostile_names, said_or_refused):
    """Through libyaml, which llama-swap's reader is a port of, and its own way to words; a line feed is refused."""
    refused = []
    for name in hostile_names:
        made = deployed(name)

        def read(files, made=made):
            (text,) = files.values()
            document = yaml.load(text, Loader=yaml.CSafeLoader)
            command = document["models"][made.name]["cmd"]
            expected = list(made.argv)
            expected[expected.index("--port") + 1] = "5800"
            assert split_by_llama_swap(command) == expected

        if not said_or_refused("llama-swap", made, read):
            refused.append(name)
    assert refused
    assert all("\n" in name for name in refused)


# preset


def read_preset(text):
    """The sections of a preset file by the grammar of llama.cpp's reader: a value ends at ; # or the line."""
    sections: dict[str, dict[str, str]] = {}
    here = sections.setdefault("default", {})
    for line in re.split(r"\r\n|\n|\r", text):
        header = re.fullmatch(r"\[[ \t]*([^]]+)\][ \t]*(?:[;#].*)?", line, re.DOTALL)
        pair = re.fullmatch(r"([a-zA-Z_][a-zA-Z0-9_.-]*)[ \t]*=[ \t]*(.*?)[ \t]*(?:[;#].*)?", line, re.DOTALL)
        if header:
            here = sections[header[1]] = {}
        elif pair:
            here[pair[1]] = re.split(r"[ \t]*[;#]", pair[2])[0]
        else:
            assert re.fullmatch(r"[ \t]*(?:[;#].*)?", line, re.DOTALL), line
    return sections


def test_a_preset_says_the_whole_command_but_what_the_router_sets(deployed):
    """Each flag is a key; a switch is true; address, port, key and alias are the router's."""
    made = deployed(host="127.0.0.1", api_key_file="/k")
    sections = read_preset(only("preset", made))
    assert sections["default"] == {"version": "1"}
    options = sections[made.name]
    flags = {word.removeprefix("--") for word in made.argv[1:] if word.startswith("--")}
    assert flags - options.keys() == {"host", "port", "alias", "api-key-file"}
    assert options["model"] == made.weights[0]
    assert options["no-kv-unified"] == "true"
    assert options["ctx-size"] == str(made.settings.context_tokens)


def test_a_preset_says_hostile_names_or_refuses_them(deployed, hostile_names, said_or_refused):
    """What would be cut or trimmed is refused with the character."""
    refused = []
    for name in hostile_names:
        made = deployed(name)

        def read(files, made=made):
            (text,) = files.values()
            assert read_preset(text)[made.name]["model"] == made.weights[0]

        if not said_or_refused("preset", made, read):
            refused.append(name)
    assert refused
    assert all(set(name) & set(";#\n\r") or name != name.strip(" \t") for name in refused)


@pytest.fixture
def router(tmp_path):
    """What a real llama-server makes of a preset file: the argv of each model, by its name; nothing is loaded."""
    program = os.environ.get("LLAMA_SERVER") or shutil.which("llama-server")
    if program is None:
        pytest.skip("no llama-server on PATH, and LLAMA_SERVER names none")

    def start(text):
        path = tmp_path / "preset.ini"
        path.write_text(text)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [program, "--models-preset", str(path), "--host", "127.0.0.1", "--port", str(port), "--offline"]
        # Where it looks for models of its own there are none.
        env = os.environ | {"LLAMA_CACHE": str(tmp_path), "HF_HUB_CACHE": str(tmp_path)}
        with (tmp_path / "log").open("wb") as log:
            server = subprocess.Popen(words, stdout=log, stderr=log, env=env)
        try:
            return argv_of_models(server, port, tmp_path / "log")
        finally:
            server.kill()
            server.wait()

    return start


def argv_of_models(server, port, log):
    """Ask until the router answers."""
    until = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < until:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/models", timeout=10) as answer:
                return {each["id"]: each["status"]["args"] for each in json.load(answer)["data"]}
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError(log.read_text(errors="replace")[-2000:])


def test_a_real_router_starts_the_very_command_with_every_name_that_is_said(deployed, hostile_names, router):
    """All names that are not refused in one file: what llama-server would start is the deployment, option by option."""
    text, expected = "version = 1\n", {}
    for number, name in enumerate(hostile_names):
        made = deployed(name)
        try:
            section = only("preset", made).partition("version = 1\n")[2]
        except BadInputError:
            continue
        # Two hostile names may have one label.
        text += section.replace(f"[{made.name}]", f"[m{number}]")
        expected[f"m{number}"] = made
    assert len(expected) > 1000
    started = router(text)
    for name, made in expected.items():
        said = options_of(started[name][1:])
        planned = options_of(made.argv[1:])
        for of_the_router in ("--host", "--port", "--alias"):
            said.pop(of_the_router, None)
            planned.pop(of_the_router, None)
        assert said == planned


OTHER_NAMES = {"--no-mmproj-auto": "--no-mmproj", "--swa-checkpoints": "--ctx-checkpoints"}
"""Flags that llama-server itself writes by another of their names."""


def options_of(words):
    """Each flag with its value, ``None`` for a switch."""
    options, words = {}, list(words)
    while words:
        flag = words.pop(0)
        flag = OTHER_NAMES.get(flag, flag)
        options[flag] = words.pop(0) if words and (flag == "--model" or not words[0].startswith("--")) else None
    return options


# Modelfile


def read_modelfile(text):
    """The commands of a Modelfile by the rules of Ollama's parser, with what it drops."""
    commands = []
    for line in re.split(r"[\r\n]", text):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, rest = line.partition(" ")
        value = "".join(each for each in rest if each.isprintable() or each == "\t").strip()
        if value.startswith('"""'):
            assert len(value) >= 6
            assert value.endswith('"""')
            value = value[3:-3]
        elif value.startswith('"'):
            assert value.endswith('"')
            value = value[1:-1]
        commands.append((name, value))
    return commands


def test_a_modelfile_says_where_the_weights_are_and_one_users_context(deployed):
    """A bare name is a file beside it, never a model of the registry; what Ollama decides is not promised."""
    made = deployed()
    parallel = replace(made, settings=replace(made.settings, context_tokens=16384, parallel=2))
    assert read_modelfile(only("modelfile", parallel)) == [("FROM", "/models/qwen3-8b"), ("PARAMETER", "num_ctx 8192")]
    bare = replace(made, weights=("qwen3:8b",))
    assert ("FROM", "./qwen3:8b") in read_modelfile(only("modelfile", bare))
    with pytest.raises(UsageError, match="one file"):
        export("modelfile", replace(made, weights=("a-00001-of-00002.gguf", "a-00002-of-00002.gguf")))


def test_a_modelfile_says_hostile_names_or_refuses_them(deployed, hostile_names, said_or_refused):
    """Ollama's parser drops what is not printable without a word: refused."""
    refused = []
    for name in hostile_names:
        made = deployed(name)

        def read(files, made=made):
            (text,) = files.values()
            assert read_modelfile(text)[0] == ("FROM", made.weights[0])

        if not said_or_refused("modelfile", made, read):
            refused.append(name)
    assert refused
    assert all(not name.isprintable() for name in refused)


# llama-cpp-python


def test_the_python_server_takes_every_hostile_name(deployed, hostile_names):
    """JSON for the server, a literal in the program: both exact."""
    for name in hostile_names:
        made = deployed(name)
        files = export("python", made)
        config = json.loads(files[f"{made.name}.config.json"])
        assert config["models"][0]["model"] == made.weights[0]
        assert (config["host"], config["port"]) == (made.host, made.port)
        tree = ast.parse(files[f"{made.name}.py"])
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        (path,) = (key.value for call in calls for key in call.keywords if key.arg == "model_path")
        assert ast.literal_eval(path) == made.weights[0]


@pytest.mark.engine
def test_the_python_server_knows_every_setting(deployed):
    """The installed package's own model of its configuration accepts it, and holds the same values."""
    settings = pytest.importorskip("llama_cpp.server.settings", reason="the extra 'server' is not installed")
    made = deployed()
    config = json.loads(export("python", made)[f"{made.name}.config.json"])
    parsed = settings.ConfigFileSettings.model_validate_json(json.dumps(config))
    for name, value in config["models"][0].items():
        assert getattr(parsed.models[0], name) == value
    assert set(config["models"][0]) <= set(settings.ModelSettings.model_fields)
    assert set(config) - {"models"} <= set(settings.ServerSettings.model_fields)


@pytest.mark.parametrize("form", ["python", "modelfile", "llama-swap"])
def test_formats_without_a_file_of_keys_do_not_open_a_server(form, deployed):
    """An open server without a key is never made by a format that cannot say the key."""
    with pytest.raises(UsageError):
        export(form, deployed(host="0.0.0.0", api_key_file="/k"))  # noqa: S104 - nothing is started
