"Tutorials and chapters run from the installed wheel alone, in any folder, without nbdev"

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from plain_shell import Shell, environment, install

BADGE = "https://colab.research.google.com/github/{}/blob/main/nbs/tutorials/{}.ipynb"
PAGES = sorted((ROOT / "nbs").rglob("*.ipynb"))
TUTORIALS = [  # those that need nothing but the wheel; others show what a benchmark has measured
    page for page in PAGES if page.parent.name == "tutorials" and "%pip" in page.read_text("utf-8")
]
SAMPLE = [page for page in PAGES if page.parent.name[0].isdigit()][3::20]
CHECKOUT = {"16_templates_of_the_field"}  # takes its tokenizers from the tests


def cells(page: Path) -> list[dict]:
    return json.loads(page.read_text(encoding="utf-8"))["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"]) if cell["cell_type"] == "code" else ""


def name(page: Path) -> str:
    return page.relative_to(ROOT / "nbs").with_suffix("").as_posix()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return install(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def shell(site):
    process = Shell(site)
    yield process
    process.close()


@pytest.mark.parametrize("page", TUTORIALS, ids=name)
def test_form(page):
    import tomllib

    every = cells(page)
    assert len(every) <= 15
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    repository = project["urls"]["Repository"].removeprefix("https://github.com/")
    assert BADGE.format(repository, page.stem) in "".join(every[0]["source"])
    first = "".join(next(cell for cell in every if cell["cell_type"] == "code")["source"])
    assert re.search(r"is None:\n    %pip install -q \S*toolcall-tune", first)
    assert not re.search(r"fastcore|nbdev", json.dumps([cell["source"] for cell in every]))


def test_no_page_imports_the_tools_that_write_it():
    code = {page: "\n".join(map(source, cells(page))) for page in PAGES}
    needed = r"^ *(?:from|import) (?:fastcore|nbdev|execnb)\b"
    assert len(code) > 150
    assert not [name(page) for page, text in code.items() if re.search(needed, text, re.M)]


@pytest.mark.parametrize("page", [*TUTORIALS, *SAMPLE], ids=name)
def test_light_cells(page, shell):
    "All cells but those that are marked slow or gpu"
    failure = shell.run(page)
    assert not failure, failure


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page.stem not in CHECKOUT], ids=name)
def test_every_page(page, shell):
    failure = shell.run(page)
    assert not failure, failure


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=name)
def test_whole_tutorial(page, site, tmp_path):
    "All cells, in a kernel of their own"
    command = [sys.executable, "-m", "jupyter", "execute", page, "--output", tmp_path / "out.ipynb"]
    subprocess.run(command, cwd=tmp_path, env=environment(site), check=True)
