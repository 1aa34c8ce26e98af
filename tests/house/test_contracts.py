"""Imports point down, pure rooms stay pure, and a breach of either is found."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINT = "from importlinter.cli import lint_imports_command as lint; lint()"
MEANT_AS_EXIT = {"exit", "_exit", "SystemExit", "quit"}


def lint(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on ``checkout`` with its own pyproject.toml, and on no other copy of the package."""
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache", "--no-logo"],
        cwd=checkout,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A copy of the package that a test may spoil."""
    shutil.copytree(root / "planner", tmp_path / "planner", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def imports_of(path: Path) -> set[str]:
    """Top-level names of every module that a file imports, late imports included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_imports_point_down_the_house(root: Path) -> None:
    """The contracts of pyproject.toml hold."""
    done = lint(root)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        pytest.param("errors.py", "import planner.types.plan", id="upward"),
        pytest.param("machine/__init__.py", "import planner.catalogue", id="between siblings"),
        pytest.param("units.py", "import os", id="system in a pure room"),
        pytest.param("choose/__init__.py", "def late():\n    from time import sleep\n", id="system inside a function"),
        pytest.param("sideboard.py", '"""A room without a place."""', id="room outside the list"),
    ],
)
def test_a_breach_of_the_contracts_is_found(copy: Path, module: str, line: str) -> None:
    """The contracts are able to fail: one spoilt line in a copy breaks them."""
    with (copy / "planner" / module).open("a") as file:
        file.write(f"\n{line}\n")
    done = lint(copy)
    assert done.returncode != 0
    assert "BROKEN" in done.stdout


def test_only_the_command_line_prints_or_exits(root: Path, package_files: list[Path]) -> None:
    """A room that prints or exits cannot be used by another one."""
    for path in package_files:
        if is_program(path) or root / "planner/cli" in path.parents or root / "planner/engine/worker" in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            assert name not in MEANT_AS_EXIT | {"print", "input"}, f"{path}:{node.lineno}"


def is_program(path: Path) -> bool:
    """Whether a file runs as a process of its own, whose end is an exit."""
    return any(
        isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"
        for node in ast.parse(path.read_bytes()).body
    )


def test_the_planner_never_imports_the_engine_into_its_own_process(root: Path, package_files: list[Path]) -> None:
    """llama_cpp ends a process at will, so only the worker loads it, and the file that becomes a server."""
    worker, server = root / "planner/engine/worker", root / "planner/apply/python_server.py"
    guilty = [path for path in package_files if worker not in path.parents and "llama_cpp" in imports_of(path)]
    assert guilty == [server]
    assert is_program(server)


def test_the_worker_runs_under_any_interpreter(root: Path) -> None:
    """The worker imports the standard library, llama_cpp and its own files, nothing that would have to be installed."""
    files = sorted((root / "planner/engine/worker").rglob("*.py"))
    assert files
    own = {path.stem for path in files}
    for path in files:
        foreign = imports_of(path) - own - set(sys.stdlib_module_names) - {"llama_cpp"}
        assert not foreign, path
