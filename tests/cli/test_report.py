import io
import json
import sys

import pytest

from planner.cli import output


@pytest.fixture
def plan_file(workflow, tmp_path):
    """The sample plan in a file."""
    from planner.render.json import to_json

    file = tmp_path / "plan.json"
    file.write_bytes(to_json(workflow.sample))
    return file


def test_the_page_goes_to_the_file_and_nothing_to_stdout(invoke, plan_file, tmp_path):
    """A whole page, no half-written one beside it."""
    page = tmp_path / "deep" / "report.html"
    assert invoke("report", str(plan_file), "--html", str(page)) == (0, "", "")
    assert page.read_text().startswith("<!DOCTYPE html>")
    assert [path.name for path in page.parent.iterdir()] == ["report.html"]


def test_without_a_file_the_page_goes_to_stdout(invoke, plan_file, tmp_path):
    """As much for a pipe; --output says the same with a file."""
    code, out, err = invoke("report", str(plan_file))
    assert (code, err) == (0, "")
    file = tmp_path / "out.html"
    invoke("report", str(plan_file), "--output", str(file))
    assert file.read_text() == out


def test_a_terminal_is_spared_the_markup(invoke, plan_file, monkeypatch):
    """Somebody who forgot the file is told how to name one."""
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    code, out, err = invoke("report", str(plan_file))
    assert (code, out) == (2, "")
    assert "--html FILE" in err
    code, out, _ = invoke("report", str(plan_file), "--markdown")
    assert (code, out[:2]) == (0, "# ")


def test_several_plans_are_one_report(invoke, plan_file):
    """Side by side, in the order given."""
    code, out, _ = invoke("report", str(plan_file), str(plan_file), "--markdown")
    assert code == 0
    assert out.startswith("# 2 plans side by side")


def test_a_plan_comes_from_stdin_once(invoke, plan_file, monkeypatch):
    """A dash is stdin; two dashes would be one plan and nothing."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(plan_file.read_bytes())))
    code, out, _ = invoke("report", "-", "--markdown")
    assert (code, out[:7]) == (0, "# Run q")
    assert invoke("report", "-", "-", "--markdown")[0] == 2


@pytest.mark.parametrize("form", [(), ("--markdown",)], ids=["html", "markdown"])
def test_json_tells_what_was_made(invoke, plan_file, tmp_path, form):
    """Where the report is and its hash, or its text; one document either way."""
    import hashlib

    file = tmp_path / "report"
    code, out, _ = invoke("report", str(plan_file), *form, "--output", str(file), "--json")
    told = json.loads(out)
    assert (code, told["schema"], told["file"], told["text"]) == (0, "planner/report/1", str(file), None)
    assert told["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert told["size_bytes"] == file.stat().st_size
    _, out, _ = invoke("report", str(plan_file), *form, "--json")
    assert json.loads(out)["text"].encode() == file.read_bytes()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nowhere.json",), 66),
        (("--html", "a", "--markdown", "p"), 2),
        (("--html", "a", "--output", "b", "p"), 2),
        ((), 2),
    ],
    ids=["missing", "two forms", "two files", "no plan"],
)
def test_words_that_make_no_report_are_refused(invoke, words, code):
    """Each with the code that its kind of mistake has."""
    assert invoke("report", *words)[0] == code


def test_more_plans_than_a_page_holds_are_refused(invoke, plan_file):
    """The page would grow beyond 2 MB."""
    code, _, err = invoke("report", *[str(plan_file)] * 13, "--markdown")
    assert code == 2
    assert "at most 12" in err


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_without_the_extra_the_hint_names_it(invoke, plan_file, monkeypatch, missing):
    """Markdown needs neither library; the page says what to install."""
    for name in [name for name in sys.modules if name.startswith(("planner.render.report", missing))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    code, out, err = invoke("report", str(plan_file))
    assert (code, out) == (69, "")
    assert "llama-planner[report]" in err
    code, out, _ = invoke("report", str(plan_file), "--json")
    assert json.loads(out)["error"]["code"] == "report-extra-missing"
    assert invoke("report", str(plan_file), "--markdown")[0] == 0
