"""The documentation names every command and exit code, decisions share a form, and schemas are valid."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.errors import ExitCode

SECTIONS = ["Context", "Decision", "Consequences"]


def commands() -> list[str]:
    """Every command that ``planner --help`` offers."""
    import click

    from planner.cli import cli

    return cli.list_commands(click.Context(cli))


def decisions(root: Path) -> list[Path]:
    """The decision files, in order."""
    return sorted((root / "docs/decisions").glob("*.md"))


def test_the_documentation_names_every_command(root: Path) -> None:
    """A command that no page mentions does not exist for a newcomer."""
    text = "\n".join(path.read_text() for path in [root / "README.md", *sorted((root / "docs").rglob("*.md"))])
    names = commands()
    assert {"plan", "detect", "models", "estimate", "why-not", "schema"} <= set(names)
    assert not [name for name in names if f"planner {name}" not in text]


def test_the_documentation_names_every_exit_code(root: Path) -> None:
    """The page lists exactly the codes that the program knows, each with its name."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", (root / "docs/exit-codes.md").read_text(), re.MULTILINE)
    known = [(code.value, code.name.replace("_", " ").lower()) for code in ExitCode]
    assert [(int(number), name.strip().lower()) for number, name in rows] == known


def test_every_decision_has_the_same_short_form(root: Path) -> None:
    """A numbered title, context, decision, consequences, on half a page."""
    for path in decisions(root):
        lines = path.read_text().splitlines()
        assert lines[0].startswith(f"# {path.name[:4]}. "), path
        assert [line[3:] for line in lines if line.startswith("## ")] == SECTIONS, path
        assert len(lines) <= 45, path


def test_decisions_are_numbered_without_gaps_and_indexed(root: Path) -> None:
    """A number is given once, and the index leads to each page."""
    files = decisions(root)
    assert [path.name[:4] for path in files] == [f"{number:04}" for number in range(1, len(files) + 1)]
    index = (root / "docs/README.md").read_text()
    assert not [path.name for path in files if f"decisions/{path.name}" not in index]


def test_no_link_between_our_pages_is_dead(root: Path, our_files: list[Path]) -> None:
    """Every relative link in a Markdown page leads to a file."""
    links = [
        (page, target)
        for page in our_files
        if page.suffix == ".md"
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target
    ]
    assert links
    assert not [f"{page.relative_to(root)}: {target}" for page, target in links if not (page.parent / target).exists()]


def published(root: Path) -> list[Path]:
    """The schemas in ``docs/schema``."""
    return sorted((root / "docs/schema").glob("*.json"))


def test_published_schemas_are_valid_json_schema(root: Path) -> None:
    """Each document in docs/schema is valid against the 2020-12 meta-schema and says that it is one."""
    from jsonschema import Draft202012Validator

    files = published(root)
    assert any("plan" in path.name for path in files)
    for path in files:
        schema = json.loads(path.read_text())
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema", path
        Draft202012Validator.check_schema(schema)


def strings(value: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string in a TOML document with the name of the key it stands under."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from strings(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner, key)
    elif isinstance(value, str):
        yield key, value


@pytest.mark.parametrize("folder", ["models", "architectures", "machines", "."])
def test_every_profile_names_its_sources(root: Path, folder: str) -> None:
    """A number without the place it was read at cannot be checked later."""
    files = sorted((root / "profiles" / folder).glob("*.toml"))
    assert files
    for path in files:
        keys = {key for key, text in strings(tomllib.loads(path.read_text())) if text.strip()}
        assert any("source" in key for key in keys), f"{path} names no source"
