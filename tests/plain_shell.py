"""Run notebooks as somebody who has installed the wheel, and nothing of this checkout.

`install` builds the wheel and puts it into a folder of its own. A process that starts with that
folder sees the packages of this environment, but neither the checkout nor the packages that only
the project's own tools need. `Shell` is such a process: it has imported everything, and forks a
child with IPython's shell, which a kernel has too, for each notebook."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("toolcall", "pyproject.toml", "settings.ini", "setup.py", "MANIFEST.in")
WITHOUT = ("fastcore", "nbdev", "execnb", "ghapi")
START = f"""
import sys
from importlib.machinery import PathFinder


class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] in {WITHOUT!r}:
            return None
        return super().find_spec(name, path, target)


finders = [finder for finder in sys.meta_path if "editable" not in str(finder)]
sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in finders]
sys.path[:] = [place for place in sys.path if place not in ("", {str(ROOT)!r})]
"""


def install(folder: Path) -> Path:
    "Build the wheel of the checkout as it is, install it into a folder, and return that"
    source = folder / "source"
    source.mkdir()
    for name in (*SOURCES, "README.md", "LICENSE"):
        place = ROOT / name
        if place.is_dir():
            shutil.copytree(place, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(place, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source]
    subprocess.run([*pip, *wheel], check=True, capture_output=True)
    [file] = folder.glob("toolcall_tune-*.whl")
    target = ["install", "--no-deps", "--no-compile", "--target", folder / "site", file]
    subprocess.run([*pip, *target], check=True, capture_output=True)
    (folder / "site" / "sitecustomize.py").write_text(START, encoding="utf-8")
    return folder / "site"


def environment(site: Path) -> dict[str, str]:
    "The environment of a process that sees the installed wheel"
    return os.environ | {
        "PYTHONPATH": str(site),
        "IPYTHONDIR": str(site.parent / "ipython"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


class Shell:
    def __init__(self, site: Path):
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=site.parent,
            env=environment(site) | {"OMP_NUM_THREADS": "1"},
        )

    def run(self, page: Path, skip: tuple[str, ...] = ("slow", "gpu")) -> str:
        "Run a notebook in a new folder, beside its data if it has some; return how it failed"
        self.process.stdin.write(json.dumps({"page": str(page), "skip": skip}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def _directives(source: str) -> set[str]:
    lines = [line.removeprefix("#|").strip() for line in source.splitlines() if line[:2] == "#|"]
    return {line.replace(" ", "") for line in lines}


def _run(page: str, skip: list[str]) -> None:
    from IPython.core.interactiveshell import InteractiveShell

    import toolcall

    assert ROOT not in Path(toolcall.__file__).parents, toolcall.__file__
    shell = InteractiveShell.instance()
    for cell in json.loads(Path(page).read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not _directives(source) & {*skip, "eval:false"}:
            shell.run_cell(source).raise_error()


def _serve() -> None:
    import matplotlib.pyplot  # noqa: F401
    import transformers.trainer  # noqa: F401

    import toolcall.diagnose  # noqa: F401
    import toolcall.pipeline.chain  # noqa: F401
    import toolcall.report.page  # noqa: F401
    import toolcall.train.finetuning  # noqa: F401

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
            page = Path(request["page"])
            for data in page.parent.glob(f"{page.stem}.jsonl"):
                shutil.copy(data, folder)
            if not (pid := os.fork()):
                os.chdir(folder)
                sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                code = 1
                try:
                    _run(**request)
                    code = 0
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            failed = os.waitpid(pid, 0)[1]
            output.seek(0)
            tail = output.read().decode("utf-8", "replace")[-3000:]
        print(json.dumps(f"{failed}: {tail}" if failed else ""), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
