"""What every house test looks at: the checkout, its files, and a wheel built from it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What .gitignore names, without asking git: an unpacked source archive has none.
NOT_OURS = {".git", ".venv", "__pycache__", "dist", "build"}


def walk(top: Path) -> Iterator[Path]:
    """Every file of ours below ``top``, caches and build products left out."""
    for folder, folders, files in os.walk(top):
        folders[:] = sorted(
            name
            for name in folders
            if name not in NOT_OURS and not name.endswith(("_cache", ".egg-info", ".hypothesis"))
        )
        yield from (Path(folder, name) for name in sorted(files) if not name.endswith((".pyc", ".part")))


@pytest.fixture(scope="session")
def root() -> Path:
    """The top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def our_files() -> list[Path]:
    """Every file of the project."""
    return list(walk(ROOT))


@pytest.fixture(scope="session")
def our_python(our_files: list[Path]) -> list[Path]:
    """Every Python file of the project."""
    files = [path for path in our_files if path.suffix == ".py"]
    assert any(path.parts[-2:] == ("planner", "errors.py") for path in files), "the walk went wrong"
    return files


@pytest.fixture(scope="session")
def package_files() -> list[Path]:
    """Every Python file of the package, the worker's included."""
    return [path for path in walk(ROOT / "planner") if path.suffix == ".py"]


def build(source: Path, target: str, folder: Path) -> Path:
    """Build the ``wheel`` or ``sdist`` of ``source`` into ``folder``."""
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (product,) = folder.glob("*.whl" if target == "wheel" else "*.tar.gz")
    return product


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as a release builds it."""
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive."""
    return build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="session")
def builder() -> object:
    """:func:`build`, for tests that build something else."""
    return build
