"The rules of CONTRIBUTING.md, read off the exported modules and the notebooks"

import ast
import json
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "toolcall"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").strip("."): (
        path.read_text(encoding="utf-8")
    )
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.name != "_modidx.py"
}
TREES = {name: ast.parse(source) for name, source in MODULES.items()}
FACES = {name for name in MODULES if (PACKAGE / name.replace(".", "/") / "__init__.py").exists()}
PAGES = sorted((ROOT / "nbs").glob("[0-9]*/*.ipynb"))


def cells(page: Path) -> list[dict]:
    return json.loads(page.read_text(encoding="utf-8"))["cells"]


def source(cell: dict) -> str:
    return "".join(cell["source"])


def is_export(cell: dict) -> bool:
    return cell["cell_type"] == "code" and source(cell).startswith("#| export")


def imported_module(node: ast.ImportFrom, module: str) -> str | None:
    "The module of the package that a statement imports from, without `toolcall.`"
    if not node.level:
        root, _, inner = (node.module or "").partition(".")
        return inner if root == "toolcall" else None
    folder = module if module in FACES else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        folder = folder.rpartition(".")[0]
    return ".".join(part for part in (folder, node.module) if part)


def imports(module: str) -> set[str]:
    "Modules that are loaded when this one is"
    nodes = [node for node in TREES[module].body if isinstance(node, ast.ImportFrom)]
    loaded = {imported_module(node, module) for node in nodes}
    loaded |= {
        f"{base}.{alias.name}"
        for node in nodes
        if (base := imported_module(node, module)) is not None
        for alias in node.names
    }
    return loaded & MODULES.keys() - {module}


@cache
def longest_chain(module: str) -> list[str]:
    chains = [longest_chain(other) for other in imports(module)]
    return [module, *max(chains, key=len, default=[])]


def test_import_chains_are_short():
    longest = max(map(longest_chain, MODULES), key=len)
    assert len(MODULES) > 80 and len(longest) > 4
    assert len(longest) <= 10, " → ".join(longest)


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_are_short(module):
    lines = len(MODULES[module].splitlines())
    assert lines <= 300, f"{module} has {lines} lines"
    functions = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.FunctionDef)]
    long = [node.name for node in functions if node.end_lineno - node.lineno >= 40]
    assert not long


def test_no_base_class_has_one_subclass():
    "Unless the base is made itself, in the package or on a page"
    classes = {
        (module, node.name): node
        for module, tree in TREES.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.endswith("Error")
    }
    subclasses: dict[tuple[str, str], list[str]] = {key: [] for key in classes}
    for (module, name), node in classes.items():
        for base in node.bases:
            key = (defining_module(module, ast.unparse(base)), ast.unparse(base))
            if key in subclasses:
                subclasses[key].append(name)
    code = "\n".join([*MODULES.values(), *(source(cell) for page in PAGES for cell in cells(page))])
    assert len(classes) > 50 and max(map(len, subclasses.values())) > 1
    assert not {
        name: below
        for (_, name), below in subclasses.items()
        if len(below) == 1 and not re.search(rf"(?<!class )\b{name}\(", code)
    }


def defining_module(module: str, name: str) -> str | None:
    "Where a class that a module uses is defined, when that is in the package"
    for node in TREES[module].body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return module
        if isinstance(node, ast.ImportFrom) and name in [alias.name for alias in node.names]:
            home = imported_module(node, module)
            return home if home in MODULES else None
    return None


def test_private_names_stay_in_their_module():
    across = [
        (module, alias.name)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and imported_module(node, module) is not None
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert not across


def public(module: str) -> list[str]:
    "What nbdev puts into the `__all__` of a module that is no face"
    for node in TREES[module].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    return []


def test_public_names_are_few():
    names = [name for module in MODULES.keys() - FACES for name in public(module)]
    assert 100 < len(names) <= 220


def test_faces_name_what_type_checkers_see():
    for face in FACES - {""}:
        tree = TREES[face]
        [guard] = [node for node in tree.body if isinstance(node, ast.If)]
        seen = {(node.module, alias.name) for node in guard.body for alias in node.names}
        [call] = [
            n.value
            for n in tree.body
            if isinstance(n, ast.Assign) and isinstance(n.value, ast.Call)
        ]
        package, table = map(ast.literal_eval, call.args)
        assert package == f"toolcall.{face}"
        assert seen == {(module, name) for module, names in table.items() for name in names}


def unasserted(page: Path) -> list[str]:
    "Exported definitions that no cell asserts anything of before the next export"
    every = cells(page)
    exported = [number for number, cell in enumerate(every) if is_export(cell)]
    missing = []
    for number, after in zip(exported, [*exported[1:], len(every)]):
        defined = re.findall(r"^(?:def|class) ([^\W_]\w*)", source(every[number]), re.M)
        following = [cell for cell in every[number + 1 : after] if cell["cell_type"] == "code"]
        examples = " ".join(map(source, following))
        if defined and not re.search(r"\bassert\b|\btest_\w+\(|expect_fail", examples):
            missing += defined[:1]
    return missing


def test_nine_of_ten_definitions_have_an_asserting_example():
    defining = [
        cell
        for page in PAGES
        for cell in cells(page)
        if is_export(cell) and re.search(r"^(?:def|class) [^\W_]", source(cell), re.M)
    ]
    missing = [name for page in PAGES for name in unasserted(page)]
    assert len(defining) > 200 and len(missing) <= len(defining) / 10


def test_there_is_enough_prose():
    kinds = [cell["cell_type"] for page in PAGES for cell in cells(page)]
    assert kinds.count("markdown") >= 0.6 * kinds.count("code")


def is_one_class(code: str) -> bool:
    body = [node for node in ast.parse(code).body if not isinstance(node, ast.Assign)]
    return len(body) == 1 and isinstance(body[0], ast.ClassDef)


def test_cells_are_short():
    "A class is shown whole, and may be longer"
    long = [
        (page.stem, len(source(cell).splitlines()))
        for page in PAGES
        for cell in cells(page)
        if is_export(cell) and len(source(cell).splitlines()) > 60
        if not is_one_class(source(cell))
    ]
    assert not long


def test_every_folder_has_its_index():
    folders = {page.parent for page in PAGES}
    assert len(folders) == 12 and all((folder / "index.ipynb").exists() for folder in folders)


def test_light_rooms_load_no_torch():
    code = (
        "import sys, toolcall.evaluate, toolcall.report, toolcall.generate, toolcall.curate\n"
        "from toolcall.chatml import Parsed, parse_calls\n"
        "from toolcall.evaluate import compare, evaluate\n"
        "from toolcall.generate import EndpointEngine, ToolCaller, predict\n"
        "from toolcall.report import Report\n"
        "import toolcall.replay, toolcall.pipeline.commands\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "False"]


def test_security_lists_the_attempts(request):
    collected = {item.path.name for item in request.session.items}
    if collected != {path.name for path in (ROOT / "tests").glob("test_*.py")}:
        pytest.skip("not all tests are run")
    markers = [item.get_closest_marker("attack") for item in request.session.items]
    attempts = Counter(marker.args[0] for marker in markers if marker)
    table = re.findall(
        r"^\| ([a-z ]+) \| ([\d,]+) \|$", (ROOT / "SECURITY.md").read_text("utf-8"), re.M
    )
    assert {kind: int(n.replace(",", "")) for kind, n in table} == attempts


def test_one_function_prints():
    "What may come from a log is made safe there"
    prints = [
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("print", "pprint", "tqdm.write")
    ]
    assert prints == ["terminal"]
