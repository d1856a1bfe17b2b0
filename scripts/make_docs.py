"Build the documentation site in `_docs/site`: nbdev's pages → Markdown → Zensical"

import argparse
import ast
import base64
import html
import os
import re
import shutil
import subprocess
import sys
import textwrap
from itertools import groupby
from pathlib import Path

import yaml
from docs_api import ROOT, Entry, public_names
from fastcore.nbio import read_nb
from nbdev.process import NBProcessor
from nbdev.processors import (
    filter_stream_,
    hide_,
    hide_line,
    populate_language,
    strip_ansi,
)

NOTEBOOKS = ROOT / "nbs"
PROSE = ["CHANGELOG.md", "SECURITY.md", "CONTRIBUTING.md"]
# nbdev's own list also runs every exported cell for its tables, and leaves the code out
PROCESSORS = [populate_language, strip_ansi, hide_line, filter_stream_, hide_]
IMPORTS = '??? note "Imports"'
CODE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]+`)", re.M | re.S)
# `](file#anchor)` of Markdown, `src="file"` of HTML
LINK = re.compile(r"""(\]\(|(?:src|srcset|href)=")(?!\w+:)([^)\s#"]+)((?:#[^)"]*)?[)"])""")
TUTORIALS = [  # in this order; others come after them
    *("quick_start", "your_own_log", "what_is_in_a_log", "what_is_wrong", "when_not_to_call"),
    *("configuration", "serve_it", "as_a_library", "many_devices", "leaving_openai"),
]


class Site:
    "The pages of the site, and what links between them need"

    def __init__(self, folder: Path):
        self.folder = folder
        self.entries = public_names()
        notebooks = sorted(NOTEBOOKS.rglob("*.ipynb"))
        self.notebooks = [path for path in notebooks if ".ipynb_checkpoints" not in path.parts]
        self.pages = {
            path: path.relative_to(NOTEBOOKS).with_suffix(".md") for path in self.notebooks
        }
        self.pages |= {ROOT / name: Path(name.lower()) for name in PROSE}
        self.pages[ROOT / "README.md"] = Path("index.md")
        self.titles: dict[Path, tuple[str, str]] = {}  # page → title, description
        self.names = {}
        for entry in self.entries:
            shown = [entry.anchor, entry.name, f"{entry.module}.{entry.name}"]
            shown += [f"{entry.name}.{method.name}" for method in entry.methods]
            for name in shown:
                self.names.setdefault(name, entry)

    def write(self, page: Path, text: str) -> None:
        title = re.search(r"^# (.+)$", text, re.M)
        lead = re.search(r"^> (.+)$", text, re.M)
        self.titles[page] = (title[1] if title else page.stem, lead[1] if lead else "")
        target = self.folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")

    def linked(self, text: str, source: Path) -> str:
        "Links to notebooks and files become links to pages; names of the library, links to the API"
        page, used = self.pages[source], set()

        def link(found: re.Match) -> str:
            target = self._target(source, found[2])
            return f"{found[1]}{_relative(target, page)}{found[3]}"

        def name(part: str, before: str) -> str:
            entry = self.names.get(part.strip("`"))
            plain = re.fullmatch(r"`[a-z]+`", part)  # such as `run`: as likely a key or a folder
            if not entry or plain or part in used or before.endswith("["):
                return part
            used.add(part)
            return f"[{part}]({_relative(api_page(entry), page)}#{entry.anchor})"

        parts = CODE.split(text)
        for i, part in enumerate(parts):
            if not part.startswith("`"):
                part = re.sub(r"!\[([^\]]*)\]\(https?:[^)]*\)", r"\1", part)  # a badge: its words
                parts[i] = LINK.sub(link, part)
            elif not part.startswith("```"):
                line = (parts[i - 1] if i else "").rpartition("\n")[2]
                parts[i] = part if line.startswith("#") else name(part, line)
        return "".join(parts)

    def _target(self, source: Path, link: str) -> Path:
        "The page of a link's file; a file that is no page comes along"
        for base in (source.parent, ROOT):
            file = (base / link).resolve()
            if file in self.pages:
                return self.pages[file]
            if file.is_file():
                target = Path("files") / file.relative_to(ROOT)
                (self.folder / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, self.folder / target)
                return target
        raise SystemExit(f"{source}: there is no file for the link {link}")


def _relative(target: Path, page: Path) -> str:
    return Path(os.path.relpath(target, page.parent)).as_posix()


def api_page(entry: Entry) -> Path:
    return Path("api") / f"{entry.chapter.partition('_')[2]}.md"


def notebook_page(site: Site, path: Path) -> str:
    "Turn a notebook's cells into Markdown"
    notebook = read_nb(path)
    notebook.path_ = str(path)
    exported = [c.cell_type == "code" and c.source.startswith("#| export") for c in notebook.cells]
    for cell, is_exported in zip(notebook.cells, exported):
        cell.is_exported = is_exported
    first = "".join(cell.source for cell in notebook.cells[:1])
    named = re.match(r"#\| default_exp (\S+)", first)
    module = f"toolcall/{named[1].replace('.', '/')}.py" if named else ""
    NBProcessor(nb=notebook, procs=PROCESSORS).process()
    figures = site.folder / site.pages[path].with_suffix("")
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(site.linked(re.sub(r"^#\|.*\n", "", cell.source), path))
        elif cell.cell_type == "code" and cell.source.strip():
            parts += _folded(_code(cell, module if cell.is_exported else ""), cell.source)
        for output in cell.get("outputs", []):
            parts.append(_output(output, f"{figures}.{cell.id}"))
    text = "\n\n".join(part for part in parts if part) + "\n"
    return re.sub(
        rf"(?<=\n    ```\n)\n{re.escape(IMPORTS)}\n", "\n", text
    )  # one fold for two cells


def _code(cell: dict, module: str) -> list[str]:
    source = cell.source.strip()
    if not module:
        return [f"{_fence(source)}python\n{source}\n{_fence(source)}"]
    names = re.findall(r"^(?:class|def) (\w+)|^([A-Za-z]\w*)(?:: [^=\n]+)? = ", source, re.M)
    anchors = "".join(f'<span id="source-{one or other}"></span>' for one, other in names)
    return [anchors, f'{_fence(source)} {{ .python title="{module}" }}\n{source}\n{_fence(source)}']


def _folded(parts: list[str], source: str) -> list[str]:
    "Fold a cell of imports, so that a page begins with what it is about"
    imports = (ast.Import, ast.ImportFrom)
    nodes = [node for node in _tree(source).body if "TYPE_CHECKING" not in ast.unparse(node)]
    if not nodes or not all(isinstance(node, imports) for node in nodes):
        return parts
    inside = textwrap.indent("\n\n".join(filter(None, parts)), "    ")
    return [f"{IMPORTS}\n{inside}"]


def _tree(source: str) -> ast.Module:
    try:
        return ast.parse(source)
    except SyntaxError:  # a shell command, such as `!ls`
        return ast.Module([], [])


def _fence(text: str) -> str:
    longest = max(map(len, re.findall(r"`{3,}", text)), default=2)
    return "`" * (longest + 1)


def _output(output: dict, figure: str) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        return f'<div class="output">\n{"".join(data["text/html"]).strip()}\n</div>'
    for kind, ending in (("image/svg+xml", "svg"), ("image/png", "png")):
        if kind in data:
            content = "".join(data[kind])
            target = Path(f"{figure}.{ending}")
            target.parent.mkdir(parents=True, exist_ok=True)
            raw = base64.b64decode(content) if ending == "png" else content.encode()
            target.write_bytes(raw)
            return f"![The plot of the code above]({target.name}){{ .figure }}"
    if "text/markdown" in data:
        return "".join(data["text/markdown"]).strip()
    text = "".join(data.get("text/plain", output.get("text", ""))).rstrip()
    return f"{_fence(text)} {{ .text .output }}\n{text}\n{_fence(text)}" if text.strip() else ""


def _table(entry: Entry) -> str:
    "Parameters and result of a function, fields of a class"
    if not entry.rows and not entry.returns[0]:
        return ""

    def cell(text: str, code: bool = False) -> str:
        shown = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
        return f"<td><code>{shown}</code></td>" if code and text else f"<td>{shown}</td>"

    lines = [
        f"<tr>{cell(name, True)}{cell(kind, True)}{cell(default, True)}{cell(text)}</tr>"
        for name, kind, default, text in entry.rows
    ]
    kind, text = entry.returns
    if kind:
        lines.append(f"<tr><td>returns</td>{cell(kind, True)}<td></td>{cell(text)}</tr>")
    head = "<tr><th>name</th><th>type</th><th>default</th><th>what it is</th></tr>"
    return "\n".join(['<div class="parameters"><table>', head, *lines, "</table></div>"])


def _entry(site: Site, entry: Entry) -> str:
    page = api_page(entry)
    chapter = _relative(site.pages[ROOT / entry.page], page)
    where = f"[Source]({chapter}#source-{entry.name}) in `{entry.module}`"
    parts = [f"## `{entry.name}` {{ #{entry.anchor} }}"]
    parts.append(f"```python\nfrom {entry.path} import {entry.name}\n\n{entry.signature}\n```")
    if entry.also:
        where += f"; also offered by `{'`, `'.join(entry.also)}`"
    parts += [entry.doc, _table(entry), where]
    for method in entry.methods:
        parts.append(f"### `{entry.name}.{method.name}` {{ #{entry.anchor}.{method.name} }}")
        parts += [f"```python\n{method.signature}\n```", method.doc, _table(method)]
    return "\n\n".join(part for part in parts if part)


def api_pages(site: Site) -> list[Path]:
    "Write a page a chapter with its public names, and the list of all"
    rows = ["# API reference", "> Every public name, where to import it from, and what it does."]
    pages = []
    for page, group in groupby(site.entries, key=api_page):
        entries = list(group)
        chapter = Path(entries[0].chapter) / "index.md"
        title, lead = site.titles[chapter]
        head = f"# API: {title}\n> {lead}\n\nThe chapter: [{title}]({_relative(chapter, page)})."
        site.write(page, "\n\n".join([head, *(_entry(site, entry) for entry in entries)]) + "\n")
        table = ["| name | import from | |", "|---|---|---|"]
        for entry in entries:
            doc = entry.doc.partition("\n")[0].replace("|", "\\|")
            link = f"[`{entry.name}`]({page.name}#{entry.anchor})"
            table.append(f"| {link} | `{entry.path}` | {doc} |")
        rows += [f"## {title}", "\n".join(table)]
        pages.append(page)
    site.write(Path("api/index.md"), "\n\n".join(rows) + "\n")
    return [Path("api/index.md"), *pages]


def sections(site: Site, api: list[Path]) -> dict[str, dict[str, list[Path]]]:
    "Tabs of the site and their sections: start, the chapters in order, API, project"
    tutorials, chapters = [], {}
    for page in sorted(site.pages.values(), key=lambda page: (page.stem != "index", page)):
        if page.parts[0] == "tutorials":
            tutorials.append(page)
        elif len(page.parts) > 1:
            chapters.setdefault(page.parts[0], []).append(page)
    rank = {name: place for place, name in enumerate(TUTORIALS)}
    tutorials.sort(key=lambda page: rank.get(page.stem, len(rank)))
    titled = {site.titles[pages[0]][0]: pages for _, pages in sorted(chapters.items())}
    project = [Path(name.lower()) for name in PROSE]
    return {
        "Start": {"": [Path("index.md"), *tutorials]},
        "Chapters": titled,
        "API": {"": api},
        "Project": {"": project},
    }


def navigation(site: Site, tabs: dict[str, dict[str, list[Path]]]) -> list:
    "What the settings call `nav`"

    def entries(pages: list[Path]) -> list:
        named = [{_plain(site.titles[page][0]): page.as_posix()} for page in pages]
        front = [pages[0].as_posix()] if pages[0].stem == "index" else []  # of its section
        return front + named[len(front) :]

    return [
        {
            tab: entries(parts[""])
            if "" in parts
            else [{_plain(title): entries(pages)} for title, pages in parts.items()]
        }
        for tab, parts in tabs.items()
    ]


def _plain(title: str) -> str:
    return title.replace("`", "").removeprefix("API: ")


def llms(site: Site, tabs: dict[str, dict[str, list[Path]]], public: Path) -> None:
    "Write llms.txt, the list of pages, and llms-full.txt, those that tell how to use the library"
    title, lead = site.titles[Path("index.md")]
    lines, full = [f"# {title}", f"> {lead}"], []
    for tab, parts in tabs.items():
        for section, pages in parts.items():
            lines.append(f"\n## {_plain(section) or tab}\n")
            for page in pages:
                name, lead = site.titles[page]
                lines.append(f"- [{_plain(name)}]({page.as_posix()}): {lead}".removesuffix(": "))
                shutil.copy(site.folder / page, public / page)
                if tab != "Chapters" or page.stem == "index":
                    text = (site.folder / page).read_text(encoding="utf-8")
                    full.append(re.sub(r'<div class="output">.*?\n</div>\n', "", text, flags=re.S))
    (public / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (public / "llms-full.txt").write_text("\n\n".join(full), encoding="utf-8")


def make(out: Path) -> None:
    "Write the pages and the settings, and build the site"
    shutil.rmtree(out, ignore_errors=True)
    site = Site(out / "pages")
    for path in site.notebooks:
        site.write(site.pages[path], notebook_page(site, path))
    for name in PROSE:
        site.write(
            Path(name.lower()), site.linked((ROOT / name).read_text(encoding="utf-8"), ROOT / name)
        )
    settings = yaml.safe_load((ROOT / "scripts/docs/mkdocs.yml").read_text(encoding="utf-8"))
    tabs = sections(site, api_pages(site))
    settings |= {"docs_dir": "pages", "site_dir": "site", "nav": navigation(site, tabs)}
    settings["theme"]["custom_dir"] = "overrides"
    shutil.copytree(ROOT / "scripts/docs/overrides", out / "overrides")
    shutil.copy(ROOT / "scripts/docs/toolcall.css", out / "pages")
    (out / "mkdocs.yml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    builder = [sys.executable, "-m", "zensical", "build", "--strict", "-f", str(out / "mkdocs.yml")]
    if subprocess.run(builder).returncode:
        raise SystemExit("the site has broken links; see above")
    llms(site, tabs, out / "site")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "_docs", help="folder to build in")
    make(parser.parse_args().out.resolve())
