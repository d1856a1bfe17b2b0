"The public names of the package with their parameters, read off the exported modules"

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "toolcall"
Row = tuple[str, str, str, str]  # name, type, default, text


@dataclass
class Entry:
    "A public name, and where it is written"

    name: str
    module: str
    page: Path  # The notebook, from the root of the repository
    signature: str
    doc: str = ""
    rows: list[Row] = field(default_factory=list)
    returns: tuple[str, str] = ("", "")
    methods: list["Entry"] = field(default_factory=list)
    path: str = (
        ""  # The module that it is imported from: the first face that offers it, if one does
    )
    also: list[str] = field(default_factory=list)  # Further faces that offer it
    chapter: str = ""  # The folder of the page that it is imported from

    @property
    def anchor(self) -> str:
        return f"{self.path}.{self.name}".replace("__", "")  # which Markdown takes for emphasis


class Module:
    "One exported module: its tree, its comments and the page of it"

    def __init__(self, file: Path):
        source = file.read_text(encoding="utf-8")
        parts = file.relative_to(ROOT).with_suffix("").parts
        self.name = ".".join(parts).removesuffix(".__init__")
        self.is_face = file.name == "__init__.py"
        self.tree = ast.parse(source)
        self.comments = _comments(source)
        edited = re.search(r"File to edit: [./]*(nbs/\S+\.ipynb)", source)
        self.page = Path(edited[1]) if edited else Path("nbs/index.ipynb")

    def public(self) -> list[str]:
        "What nbdev writes into `__all__`"
        for node in self.tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                return ast.literal_eval(node.value)
        return []

    def offered(self) -> dict[str, str]:
        "Names of a face to the modules that define them"
        return {
            alias.name: node.module or ""
            for guard in self.tree.body
            if isinstance(guard, ast.If)
            for node in guard.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }

    def entry(self, name: str) -> Entry | None:
        "What is documented of a name that is defined here"
        for node in self.tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                return self._defined(node)
            targets = node.targets if isinstance(node, ast.Assign) else []
            targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
            if name in map(ast.unparse, targets):
                text = ast.unparse(node)
                shown = text if len(text) < 200 else text[:200] + " …"
                comment = self.comments.get(node.end_lineno or 0, "")
                return Entry(name, self.name, self.page, shown, comment)
        return None

    def _defined(self, node: ast.ClassDef | ast.FunctionDef) -> Entry:
        if isinstance(node, ast.ClassDef):
            return self._class(node)
        entry = Entry(node.name, self.name, self.page, _signature(node))
        entry.doc = ast.get_docstring(node) or ""
        entry.rows = self._parameters(node)
        if node.returns:
            text = self.comments.get(node.returns.end_lineno or 0, "")
            entry.returns = (_type(node.returns), text)
        return entry

    def _class(self, node: ast.ClassDef) -> Entry:
        bases = ", ".join(map(ast.unparse, node.bases))
        entry = Entry(node.name, self.name, self.page, f"class {node.name}({bases})")
        entry.doc = ast.get_docstring(node) or ""
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
                default = ast.unparse(part.value) if part.value else ""
                text = self.comments.get(part.end_lineno or 0, "")
                row = (ast.unparse(part.target), _type(part.annotation), default, text)
                entry.rows.append(row)
            if isinstance(part, ast.FunctionDef) and part.name == "__init__":
                entry.rows = self._parameters(part)
            elif isinstance(part, ast.FunctionDef) and (
                not part.name.startswith("_") or part.name == "__call__"
            ):
                entry.methods.append(self._defined(part))
        return entry

    def _parameters(self, node: ast.FunctionDef) -> list[Row]:
        given = node.args
        plain = [*given.posonlyargs, *given.args]
        defaults = [None] * (len(plain) - len(given.defaults)) + given.defaults
        pairs = [*zip(plain, defaults), *zip(given.kwonlyargs, given.kw_defaults)]
        pairs += [(part, None) for part in (given.vararg, given.kwarg) if part]
        starred = {id(given.vararg): "*", id(given.kwarg): "**"}
        rows = []
        for part, default in pairs:
            if part.arg in ("self", "cls"):
                continue
            line = (default or part).end_lineno or 0
            text = self.comments.get(line, "") if line > node.lineno else ""
            name = starred.get(id(part), "") + part.arg
            shown = ast.unparse(default) if default else ""
            rows.append((name, _type(part.annotation), shown, text))
        return rows


def _comments(source: str) -> dict[int, str]:
    "Comments by the line that they begin on; one that goes on below, on lines of its own, is one"
    comments: dict[int, str] = {}
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            line, text = token.start[0], token.string.lstrip("# ")
            if line == last + 1 and token.line.lstrip().startswith("#"):
                comments[first] += f" {text}"
            else:
                comments[line] = text
                first = line
            last = line
    return comments


def _type(node: ast.expr | None) -> str:
    if node is None:
        return ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return ast.unparse(node)


def _signature(node: ast.FunctionDef) -> str:
    "Name, parameters with their defaults, and result; types stand in the table"
    bare = ast.parse(ast.unparse(node)).body[0]
    assert isinstance(bare, ast.FunctionDef)
    given = bare.args
    for part in [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]:
        if part:
            part.annotation = None
    given.args = [part for part in given.args if part.arg not in ("self", "cls")]
    result = f" -> {_type(bare.returns)}" if bare.returns else ""
    inside = ast.unparse(given)
    if len(bare.name) + len(inside) + len(result) > 80:
        inside = "\n    " + re.sub(r", (?=[\w*]+(?:=|,|$))", ",\n    ", inside) + ",\n"
    return f"{bare.name}({inside}){result}"


def public_names() -> list[Entry]:
    "Each name of a face and of each module's `__all__`, in the order of the pages"
    files = [file for file in sorted(PACKAGE.rglob("*.py")) if file.name != "_modidx.py"]
    modules = {module.name: module for module in map(Module, files)}
    ordered = sorted(modules.values(), key=lambda module: module.page)
    offers: dict[tuple[str, str], list[str]] = {}  # (name, defining module) → where to import it
    for module in ordered:
        if module.is_face:
            for name, home in module.offered().items():
                offers.setdefault((name, home), []).append(module.name)
    for module in ordered:
        for name in module.public():
            offers.setdefault((name, module.name), [module.name])
    entries = []
    for (name, home), paths in offers.items():
        makers = [modules[home], *modules.values()]  # the others, for a name that is passed on
        entry = next(found for module in makers if (found := module.entry(name)))
        entry.path, *entry.also = paths
        entry.chapter = modules[entry.path].page.parts[1]
        entries.append(entry)
    return sorted(entries, key=lambda entry: entry.chapter)
