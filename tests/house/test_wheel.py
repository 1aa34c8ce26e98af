"""The wheel holds what it should, installs without a compiler, and works without the engine."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
WITHOUT_ENGINE = ["models", "detect", "schema"]


def names_in(wheel: Path) -> set[str]:
    """Every file name in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_package_the_profiles_and_nothing_else(
    wheel: Path, root: Path, our_files: list[Path]
) -> None:
    """No file of the package is forgotten, and neither tests nor bench programs travel along."""
    relative = [path.relative_to(root) for path in our_files]
    expected = {str(path) for path in relative if path.parts[0] == "planner"}
    expected |= {f"planner/{path}" for path in relative if path.parts[0] == "profiles"}
    expected |= {f"llama_planner-{version(root)}.dist-info/{name}" for name in METADATA}
    expected.add(f"llama_planner-{version(root)}.data/data/share/man/man1/planner.1")
    assert names_in(wheel) == expected
    for landmark in ("planner/py.typed", "planner/engine/worker/__main__.py", "planner/profiles/models/qwen3.toml"):
        assert landmark in expected


def version(root: Path) -> str:
    """The version that pyproject.toml states."""
    import tomllib

    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def test_the_package_knows_its_version(root: Path) -> None:
    """``planner.__version__`` and the distribution agree."""
    import planner

    assert planner.__version__ == version(root)


def test_the_source_archive_builds_the_same_wheel(
    sdist: Path, wheel: Path, tmp_path: Path, builder: Callable[[Path, str, Path], Path]
) -> None:
    """Somebody who packages the source archive gets the wheel that we release."""
    with tarfile.open(sdist) as archive:
        # Python 3.11.2, which Debian 12 has, knows no filters yet; later ones insist on one.
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # noqa: S202 - ours
    (source,) = tmp_path.iterdir()
    assert {"tests", "bench", "docs", "Makefile", "CHANGELOG.md"} <= {path.name for path in source.iterdir()}
    assert names_in(builder(source, "wheel", tmp_path / "dist")) == names_in(wheel)


@pytest.fixture(scope="module")
def empty(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts folder of an environment that holds the wheel and what it declares, binary packages only."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    scripts = folder / "bin"
    done = subprocess.run(
        [
            scripts / "python",
            "-m",
            "pip",
            "-qq",
            "--disable-pip-version-check",
            "install",
            "--only-binary",
            ":all:",
            wheel,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        "the wheel could not be installed with binary packages only. Without a network this check cannot be made: it "
        f"takes the base dependencies from the package index that pip is set up for.\n{done.stderr}"
    )
    return scripts


def planner(scripts: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the installed command as a stranger would: elsewhere, with a home of its own, without our checkout."""
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PLANNER", "VIRTUAL"))
    }
    return subprocess.run(
        [scripts / "planner", *arguments],
        cwd=home,
        env=variables | {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_both_commands_are_installed(empty: Path) -> None:
    """``planner`` and ``llama-planner`` are there, for those who have another planner already."""
    assert (empty / "planner").is_file()
    assert (empty / "llama-planner").is_file()


def test_the_base_install_brings_no_engine(empty: Path) -> None:
    """The engine is compiled, so only the extra asks for it."""
    done = subprocess.run([empty / "python", "-c", "import llama_cpp"], capture_output=True, text=True, check=False)
    assert "ModuleNotFoundError" in done.stderr


def test_the_installed_planner_lists_its_models(empty: Path, tmp_path: Path) -> None:
    """The profiles are found inside the package, not in a checkout beside it."""
    done = planner(empty, tmp_path, "models", "--json")
    assert done.returncode == 0, done.stderr
    names = {model["name"] for model in json.loads(done.stdout)["models"]}
    assert {"qwen3-8b", "qwen3-30b-a3b", "deepseek-r1", "deepseek-r1-distill-qwen-7b"} <= names


def test_the_installed_planner_says_in_one_line_how_to_get_the_engine(empty: Path, tmp_path: Path) -> None:
    """An estimate needs the engine; without it the remedy is a command to copy."""
    done = planner(empty, tmp_path, "estimate", "qwen3-8b")
    assert done.returncode == 69, done.stdout + done.stderr
    assert "llama-planner[engine]" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert not done.stdout


@pytest.mark.parametrize("command", WITHOUT_ENGINE)
def test_what_needs_no_engine_works_without_it(empty: Path, tmp_path: Path, command: str) -> None:
    """Looking at the machine and the catalogue takes no compiler."""
    done = planner(empty, tmp_path, command, *(["plan"] if command == "schema" else []))
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
