"""What systemd's own parser makes of a unit: the dump of a manager that starts nothing."""

import os
import pwd
import re
import subprocess
from pathlib import Path

SYSTEMD = Path("/usr/lib/systemd/systemd")


def read(unit, folder):
    """The words of every ``ExecStart=`` of a unit, and the whole dump of it; systemd must find nothing to say.

    It refuses to run as root, so root hands it to ``nobody``.
    """
    units, runtime = folder / "units", folder / "run"
    units.mkdir()
    runtime.mkdir()
    (units / "many.service").write_text(unit, encoding="utf-8", newline="")
    words = [str(SYSTEMD), "--test", "--user", "--unit=many.service"]
    named = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(runtime, nobody.pw_uid, nobody.pw_gid)
        named = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        for above in (units, *(each for each in units.parents if each.stat().st_uid == 0 and len(each.parts) > 2)):
            above.chmod(above.stat().st_mode | 0o055)
    environment = {
        "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime),
        "SYSTEMD_UNIT_PATH": f"{units}:", "SYSTEMD_LOG_TARGET": "console", "SYSTEMD_LOG_LEVEL": "warning",
    }  # fmt: skip
    run = subprocess.run(words, capture_output=True, check=False, timeout=60, env=environment, **named)
    assert run.stderr.decode() == ""
    dump = run.stdout.decode()
    block = dump[dump.index("-> Unit many.service") :].split("\n\t-> Unit", 1)[0]
    return [_words(line) for line in re.findall(r"^\t+Command Line: (.*)$", block, re.MULTILINE)], block


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


def _words(dumped):
    """The words of a dumped command line, quoted as for a shell with escapes of C in double quotes."""
    words = []
    for quoted, bare in re.findall(r'"((?:\\.|[^"\\])*)"(?= |$)|([^ "]+)(?= |$)', dumped, re.DOTALL):
        words.append(re.sub(r"\\(x[0-9a-f]{2}|[0-7]{3}|.)", _unescaped, quoted, flags=re.DOTALL) if quoted else bare)
    return tuple(words)


def _unescaped(match):
    told = match[1]
    if len(told) == 3:
        return chr(int(told[1:], 16) if told[0] == "x" else int(told, 8))
    return _ESCAPES.get(told, told)
