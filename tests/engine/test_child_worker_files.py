"""The worker's folder keeps its promise: any Python from 3.9, standard library and llama_cpp, no name in the way."""

import ast
import sys

import pytest

from planner.engine.child import WORKER

FILES = sorted(WORKER.glob("*.py"))
OWN = {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_file_of_the_worker_runs_on_python_3_9_with_llama_cpp_alone(file):
    """Its grammar is that of 3.9, annotations are never evaluated, and its imports are few."""
    tree = ast.parse(file.read_text("utf-8"), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a plain file has no relative imports"
            imported.add((node.module or "").partition(".")[0])
    assert imported <= set(sys.stdlib_module_names) | OWN | {"llama_cpp"}
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))
    future = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    assert [alias.name for node in future for alias in node.names] == ["annotations"]


def test_no_file_of_the_worker_hides_a_module_of_the_standard_library():
    """The folder comes first in sys.path, so a file named like one would be imported in its stead."""
    assert {name for name in OWN if name in sys.stdlib_module_names} == set()


def test_each_registered_operation_is_a_function_of_arguments_and_emit():
    """A wrong name in the table would only show when the question is asked."""
    table = next(
        ast.literal_eval(node.value)
        for node in ast.parse((WORKER / "__main__.py").read_text("utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "OPS"
    )
    assert "ping" in table
    for operation, target in table.items():
        module, _, function = target.partition(":")
        tree = ast.parse((WORKER / f"{module}.py").read_text("utf-8"))
        takes = {node.name: len(node.args.args) for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert takes.get(function) == 2, operation
