"Every notebook is a test case; modules and README are what the notebooks give"
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from nbdev.test import test_nb as run_notebook

from conftest import ROOT

NOTEBOOKS = sorted(path for path in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(notebook, monkeypatch):
    monkeypatch.chdir(notebook.parent)
    success, _ = run_notebook(notebook, skip_flags=["gpu", "slow"])
    assert success, f"{notebook.name} fails; run: nbdev-test {notebook.relative_to(ROOT)}"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_tidy(notebook):
    assert notebook.stat().st_size <= 150_000
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    shown = [cell for cell in cells if cell["cell_type"] == "code" and cell["outputs"]]
    assert len(shown) >= 3, "outputs are committed, so that the notebook reads without running it"


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drift")
    for name in ("nbs", "toolcall"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in ("pyproject.toml", "settings.ini", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def texts(folder: Path, pattern: str) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.rglob(pattern))}


@pytest.mark.parametrize("command, pattern", [("nbdev-export", "*.py"), ("nbdev-clean", "*.ipynb")])
def test_nothing_drifts(copy, command, pattern):
    before = texts(copy / "toolcall" if pattern == "*.py" else copy / "nbs", pattern)
    subprocess.run([Path(sys.executable).with_name(command)], cwd=copy, check=True, capture_output=True)
    after = texts(copy / "toolcall" if pattern == "*.py" else copy / "nbs", pattern)
    assert before and [name for name in after if before.get(name) != after[name]] == []


def test_readme_is_generated():
    subprocess.run([sys.executable, ROOT / "scripts" / "make_readme.py", "--check"], check=True)
