"""Every file is short, speaks for itself and names nothing that belongs to one person's machine."""

import ast
import re
from pathlib import Path

FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "managers", "misc"}
# Both patterns are written in pieces, so that this file does not contain what it looks for.
REGISTRIES = ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"), ("deb", "debian"), ("crates", "io")
REGISTRY_HOSTS = re.compile("|".join(rf"\b{name}\.{end}\b" for name, end in REGISTRIES))
# The names of nobody, for documentation and for the tests of the scrubber.
PRIVATE_PATHS = re.compile(
    r"(?<![\w.:/-])/(?:home|Users)/(?!(?:user|example|somebody|alice)\b)[A-Za-z]\w*"
    r"|(?<![\w.:/-])/" + r"root/|(?<![\w.:/-])/" + r"work/(?:main|shared)|/tmp" + r"/w/"
)
TEXT = {".py", ".md", ".toml", ".json", ".jsonl", ".txt", ".csv", ".cfg", ".yml", ".yaml", ".sh", ""}


def read(path: Path) -> str:
    """The text of a file, whatever odd bytes a recorded dump holds."""
    return path.read_text(encoding="utf-8", errors="replace")


def test_no_python_file_is_longer_than_400_lines(our_python: list[Path]) -> None:
    """A longer file knows two things and should be two files."""
    long = {str(path): lines for path in our_python if (lines := read(path).count("\n")) > 400}
    assert not long


def test_no_room_is_a_junk_drawer(our_python: list[Path], root: Path) -> None:
    """A file or folder called utils has no reason to refuse anything."""
    names = {path: {*path.relative_to(root).parts[:-1], path.stem} for path in our_python}
    assert not [path for path, parts in names.items() if parts & FORBIDDEN_NAMES]


def test_every_module_says_what_it_knows(package_files: list[Path]) -> None:
    """A module opens with a docstring of at least one whole sentence."""
    for path in package_files:
        docstring = ast.get_docstring(ast.parse(path.read_bytes()))
        assert docstring, path
        assert docstring.rstrip().endswith((".", "``", "?")), path


def test_every_module_names_its_public_parts(package_files: list[Path]) -> None:
    """``__all__`` stands in every module that has something to offer, and names only what is there."""
    for path in package_files:
        bound = bound_at_top(ast.parse(path.read_bytes()))
        offered = bound.pop("__all__", None)
        if offered is None:
            assert not [name for name in bound if not name.startswith("_")], f"{path} has no __all__"
        else:
            assert isinstance(offered, ast.Assign | ast.AnnAssign)
            assert offered.value is not None
            assert set(ast.literal_eval(offered.value)) <= bound.keys(), path


def bound_at_top(tree: ast.Module) -> dict[str, ast.AST]:
    """Each name that a module binds outside functions, with the statement that binds it."""
    bound: dict[str, ast.AST] = {}
    waiting: list[ast.AST] = [*tree.body]
    for node in waiting:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound[name] = node
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                bound |= {(alias.asname or alias.name).split(".")[0]: node for alias in names}
            case ast.Assign() | ast.AnnAssign():
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                bound |= {
                    part.id: node for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)
                }
            case _:
                waiting.extend(ast.iter_child_nodes(node))
    return bound


def test_no_file_names_a_person_a_registry_or_this_machine(our_files: list[Path], root: Path) -> None:
    """Home folders, the hosts of package registries and the place of the checkout stay out of the project."""
    found = []
    for path in our_files:
        if path.suffix not in TEXT:
            continue
        text = read(path)
        found += [
            f"{path.relative_to(root)}: {m[0]}" for p in (REGISTRY_HOSTS, PRIVATE_PATHS) for m in p.finditer(text)
        ]
    assert not found


def test_the_search_for_private_paths_is_able_to_find_one() -> None:
    """The patterns above match what they are for, and leave the placeholders alone."""
    assert PRIVATE_PATHS.search("see /home/" + "bob/models")
    assert PRIVATE_PATHS.search("'/root" + "/x'")
    assert not PRIVATE_PATHS.search("/home/user/models and https://example.com/home/bob")
    assert REGISTRY_HOSTS.search("https://files." + "pythonhosted" + ".org/x")


def test_no_stub_is_left_behind(package_files: list[Path]) -> None:
    """Nothing waits to be written: no placeholder, no reminder."""
    reminder = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    for path in package_files:
        text = read(path)
        assert not reminder.search(text), path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = [
                    part
                    for part in node.body
                    if not (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
                ]
                assert not (len(body) == 1 and isinstance(body[0], ast.Pass)), f"{path}:{node.lineno}"
