"Every notebook is a test case; modules and README are what the notebooks give"

import ast
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from nbdev.test import test_nb as run_notebook

NOTEBOOKS = sorted(
    path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts
)


@pytest.mark.parametrize(
    "notebook",
    NOTEBOOKS,
    ids=lambda path: path.relative_to(ROOT / "nbs").with_suffix("").as_posix(),
)
def test_notebook_runs(notebook, monkeypatch):
    monkeypatch.chdir(notebook.parent)
    success, _ = run_notebook(notebook, skip_flags=["gpu", "slow"])
    assert success, f"{notebook.name} fails; run: nbdev-test {notebook.relative_to(ROOT)}"


@pytest.mark.parametrize(
    "notebook",
    NOTEBOOKS,
    ids=lambda path: path.relative_to(ROOT / "nbs").with_suffix("").as_posix(),
)
def test_notebook_is_tidy(notebook):
    assert notebook.stat().st_size <= 150_000
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert "site-packages" not in json.dumps(outputs), "a path of the machine that ran the page"
    shown = [cell for cell in cells if cell["cell_type"] == "code" and cell["outputs"]]
    enough = 2 if notebook.stem == "index" else 3
    assert len(shown) >= enough, "outputs are committed, so that a page reads without running it"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    for name in ("nbs", "toolcall"):
        shutil.copytree(
            ROOT / name,
            folder / name,
            ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"),
        )
    for name in ("pyproject.toml", "settings.ini", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def texts(folder: Path, pattern: str) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted(folder.rglob(pattern))
    }


@pytest.mark.parametrize("command, pattern", [("nbdev-export", "*.py"), ("nbdev-clean", "*.ipynb")])
def test_nothing_drifts(copy, command, pattern):
    before = texts(copy / "toolcall" if pattern == "*.py" else copy / "nbs", pattern)
    subprocess.run(
        [Path(sys.executable).with_name(command)], cwd=copy, check=True, capture_output=True
    )
    after = texts(copy / "toolcall" if pattern == "*.py" else copy / "nbs", pattern)
    assert before and [name for name in after if before.get(name) != after[name]] == []


def imported(notebook: Path) -> set[str]:
    "Modules of the package that a notebook's cells import when they run"
    code = [
        "".join(cell["source"])
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    nodes = [
        node for source in code for node in ast.walk(ast.parse(re.sub(r"(?m)^[%!].*", "", source)))
    ]
    return {
        node.module
        for node in nodes
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("toolcall.")
    }


def test_no_page_imports_a_later_one():
    pages = [
        path
        for path in NOTEBOOKS
        if path.parent.parent == ROOT / "nbs" and path.parent.name[0].isdigit()
    ]
    exports = {
        path: re.search(
            r"#\| default_exp (\S+?)(?:\.__init__)?\\?[\"\n]", path.read_text(encoding="utf-8")
        )
        for path in pages
    }
    place = {
        f"toolcall.{found[1]}": number
        for number, (path, found) in enumerate(exports.items())
        if found
    }
    assert len(place) > 70
    later = [
        (path.name, module)
        for number, path in enumerate(pages)
        for module in imported(path)
        if place.get(module, -1) > number
    ]
    assert not later


def test_readme_is_generated():
    subprocess.run([sys.executable, ROOT / "scripts" / "make_readme.py", "--check"], check=True)
