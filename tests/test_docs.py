"The documentation site: built strictly, complete, offline, and opened in a browser"

import ast
import html
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from browser import CHROMIUM, Browser
from conftest import ROOT
from filelock import FileLock

pytest.importorskip("zensical", reason="the site is built with Zensical: pip install '.[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The built site; with several workers, one of them builds it"
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "docs"
    with FileLock(out.with_suffix(".lock")):
        if not (out / "site" / "llms-full.txt").exists():  # what is written last
            command = [sys.executable, ROOT / "scripts" / "make_docs.py", "--out", out]
            built = subprocess.run(command, capture_output=True, text=True)
            assert built.returncode == 0, built.stdout + built.stderr
    return out / "site"


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def ids_of(page: Path) -> set[str]:
    return set(re.findall(r'\bid="?([^\s">]+)', text_of(page)))


def pages_of(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_notebook_is_a_page(site):
    notebooks = [path.relative_to(ROOT / "nbs") for path in (ROOT / "nbs").rglob("*.ipynb")]
    notebooks = [path for path in notebooks if ".ipynb_checkpoints" not in path.parts]
    assert len(notebooks) > 300
    missing = [path for path in notebooks if not (site / path.with_suffix(".html")).exists()]
    assert not missing
    listed = (site / "llms.txt").read_text(encoding="utf-8")
    assert not [path for path in notebooks if f"({path.with_suffix('.md')})" not in listed]
    full = (site / "llms-full.txt").read_text(encoding="utf-8")
    assert "## `read_logs`" in full and "<svg" not in full


def public_names() -> set[str]:
    "Full names of what nbdev exports and of what the faces offer, where it is defined"
    names = set()
    for file in (ROOT / "toolcall").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names |= {f"{module}.{name}" for name in ast.literal_eval(node.value)}
            is_face = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            if is_face and file.name == "__init__.py":
                parts = [part for part in node.body if isinstance(part, ast.ImportFrom)]
                names |= {f"{p.module}.{alias.name}" for p in parts for alias in p.names}
    return names


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(text_of(ROOT / f"{module.replace('.', '/')}.py"))


def defined(full_name: str) -> ast.AST | None:
    module, _, name = full_name.rpartition(".")
    tree = tree_of(module)
    kinds = (ast.FunctionDef, ast.ClassDef)
    return next((n for n in tree.body if isinstance(n, kinds) and n.name == name), None)


def parameters(node: ast.AST | None) -> list[str]:
    if isinstance(node, ast.FunctionDef):
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        return [one.arg for one in given if one.arg not in ("self", "cls")]
    body = node.body if isinstance(node, ast.ClassDef) else []
    made = [part for part in body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
    if made:
        return parameters(made[0])
    fields = [ast.unparse(part.target) for part in body if isinstance(part, ast.AnnAssign)]
    return [name for name in fields if not name.startswith("_")]


def test_every_public_name_is_documented_with_its_parameters(site):
    api = "\n".join(text_of(page) for page in (site / "api").glob("*.html"))
    parts = re.split(r"<h2 ", api)[1:]
    sections: dict[str, list[str]] = {}
    for part in parts:
        if named := re.match(r'id="?([\w.]+)\.(\w+)"?', part):
            sections.setdefault(named[2], []).append(html.unescape(part))
    names = public_names()
    assert len(names) > 200
    wrong = []
    for full_name in sorted(names):
        name = full_name.rpartition(".")[2]
        rows = [f"<td><code>{one}</code></td>" for one in parameters(defined(full_name))]
        shown = sections.get(name, [])
        if not any(all(row in one for row in rows) and ">Source</a>" in one for one in shown):
            wrong.append(full_name)
    assert not wrong
    [read_logs] = sections["read_logs"]
    assert "Share of rejected records above which the log is refused" in read_logs
    assert "<td>returns</td><td><code>Log</code></td>" in read_logs
    assert "../02_logs/04_log.html#source-read_logs" in read_logs


def test_links_lead_somewhere(site):
    broken = []
    for page in pages_of(site):
        if page.name == "404.html":
            continue
        for link in set(re.findall(r'<(?:a|img)\s[^>]*?(?:href|src)="?([^"\s>]+)', text_of(page))):
            link = unquote(html.unescape(link))
            if re.match(r"https?:|mailto:|data:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (anchor and anchor not in ids_of(target)):
                broken.append((page.relative_to(site).as_posix(), link))
    assert not broken


def test_nothing_is_loaded_from_elsewhere(site):
    tags = "script|img|iframe|link|source|video|use"
    loads = rf'<(?:{tags})\s[^>]*?(?:src|href)="?(?:https?:)?//[^">]*'
    outside = [
        (page.name, found)
        for page in pages_of(site)
        for found in re.findall(loads, text_of(page))
        if 'rel="canonical"' not in found
    ]
    styles = "".join(text_of(path) for path in site.rglob("*.css"))
    outside += re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", styles)
    assert not outside


def test_outputs_stand_as_in_the_notebook(site):
    def outputs(page, kind):
        notebook = json.loads((ROOT / "nbs" / f"{page}.ipynb").read_text(encoding="utf-8"))
        found = [o.get("data", {}) for c in notebook["cells"] for o in c.get("outputs", [])]
        return ["".join(data[kind]).strip() for data in found if kind in data]

    views = outputs("00_record/02_conversation", "text/html")
    page = text_of(site / "00_record/02_conversation.html")
    assert views and all(view in page for view in views)
    drawn = outputs("04_chatml/14_views", "image/svg+xml")
    files = [file.read_text(encoding="utf-8").strip() for file in site.rglob("04_chatml/*.svg")]
    assert drawn and set(drawn) <= set(files)
    assert list((site / "09_report").glob("*.svg"))


PAGES = [
    ("index.html", 1280, False),
    ("04_chatml/14_views.html", 1280, True),
    ("api/logs.html", 390, False),
    ("09_report/00_plots.html", 390, True),
    ("tutorials/what_is_wrong.html", 1280, False),
]


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
def test_five_pages_in_a_browser(site):
    with Browser() as browser:
        for page, width, dark in PAGES:
            browser.open(site / page, width=width, dark=dark)
            assert browser.run("document.querySelector('h1').innerText.length > 2")
            assert browser.run("document.documentElement.scrollWidth") <= width, page
            scheme = "slate" if dark else "default"
            browser.wait(f"document.body.dataset.mdColorScheme == '{scheme}'")
            assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth)")
            assert not browser.requests()
            assert not browser.complaints(), page


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
def test_search_finds_a_name_without_a_server(site):
    found = "[...document.querySelectorAll('div')].find(div => div.shadowRoot)?.shadowRoot"
    with Browser() as browser:
        browser.open(site / "index.html")
        browser.run("document.querySelector('label[for=__search]').click()")
        browser.wait(f"{found}?.querySelector('input') == {found}?.activeElement")
        browser.ask("Input.insertText", text="read_logs")
        browser.wait(f"{found}.querySelectorAll('[role=listbox] a').length > 3")
        first = browser.run(f"{found}.querySelector('[role=listbox] a').href")
        assert re.search(r"/api/logs\.html\S*#toolcall\.logs\.read_logs$", first)
        assert not browser.requests()
        assert not browser.complaints()
