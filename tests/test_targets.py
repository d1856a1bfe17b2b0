"Inputs are never targets, and an output folder has one run: refused runs have changed nothing"

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from zygote import make_project

from toolcall.chatml import parse_log_to_chatml
from toolcall.errors import ConfigError
from toolcall.pipeline.chain import evaluate_run, run
from toolcall.pipeline.commands import main
from toolcall.pipeline.config import load_config
from toolcall.pipeline.data import make_data
from toolcall.pipeline.outputs import check_paths
from toolcall.pipeline.training import train

COMMANDS = ("run", "data", "train", "eval")


def tree(folder: Path) -> dict[str, object]:
    "Everything below a folder: links, contents, times and inodes"
    return {
        str(path.relative_to(folder)): (
            os.readlink(path)
            if path.is_symlink()
            else (
                path.stat().st_ino,
                path.stat().st_mtime_ns,
                hashlib.md5(path.read_bytes()).digest(),
            )
            if path.is_file()
            else "folder"
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def project(tmp_path, monkeypatch):
    make_project(tmp_path, tmp_path / "model")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(project: Path, place: str) -> Path:
    "A copy of the log at another place"
    path = project / place
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(project / "log.jsonl", path))


def link(place: Path, to: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(to)
    return place


def hard(place: Path, to: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    os.link(to, place)
    return place


WRITTEN = (
    *("data/train.jsonl", "data/test.jsonl", "data/validation.jsonl", "data/rejects.jsonl"),
    *("data/README.md", "encoded/0123.npz", "predictions/base.jsonl", "evaluations/tuned.json"),
    *("checkpoint-10/log.jsonl", "checkpoint-3/a/log.jsonl", "adapter/log.jsonl", "config.json"),
    *("model.safetensors", "tokenizer.json", "training_args.bin", "run.json", "history.json"),
    *("report.html", "report.json", "report.md", "loss.svg", ".lock"),
)
CASES = {
    **{
        f"log at run/{name}": lambda p, name=name: [f"log_path={put(p, f'run/{name}')}"]
        for name in WRITTEN
    },
    "training file is the log": lambda p: ["train_data_path=log.jsonl"],
    "by another way": lambda p: [f"train_data_path={p}/run/../log.jsonl"],
    "a link": lambda p: [f"train_data_path={link(p / 'link.jsonl', p / 'log.jsonl')}"],
    "a linked log": lambda p: [
        f"log_path={link(p / 'link.jsonl', p / 'log.jsonl')}",
        "train_data_path=log.jsonl",
    ],
    "a hard link": lambda p: [f"train_data_path={hard(p / 'hard.jsonl', p / 'log.jsonl')}"],
    "a hard link in the folder": lambda p: [
        f"log_path={p}/log.jsonl",
        f"output_dir={hard(p / 'run/history.json', p / 'log.jsonl').parent}",
    ],
    "a linked folder": lambda p: [
        f"log_path={put(p, 'elsewhere/train.jsonl')}",
        f"output_dir={link(p / 'run/data', p / 'elsewhere').parent}",
    ],
    "a linked output_dir": lambda p: [
        f"log_path={put(p, 'real/data/train.jsonl')}",
        f"output_dir={link(p / 'linked', p / 'real')}",
    ],
    "one file of a pattern": lambda p: [
        f"log_path={put(p, 'run/data/train.jsonl').parent}/*.jsonl"
    ],
    "a deep pattern": lambda p: [
        f"log_path={put(p, 'run/data/test.jsonl').parents[2]}/**/*.jsonl",
    ],
    "tools": lambda p: [f"logs.tools={put(p, 'run/data/rejects.jsonl')}"],
    "tools and training file": lambda p: [
        f"logs.tools={put(p, 'mcp.jsonl')}",
        "train_data_path=mcp.jsonl",
    ],
    "the configuration": lambda p: ["train_data_path=config.yaml"],
    "the model is the output": lambda p: ["output_dir=model"],
    "the model is the output, linked": lambda p: [f"output_dir={link(p / 'm', p / 'model')}"],
    "the model is a checkpoint": lambda p: [
        f"model_name_or_path={put(p, 'run/checkpoint-10/config.json').parent}"
    ],
    "the model's adapter": lambda p: [
        f"model_name_or_path={put(p, 'run/adapter/config.json').parent}"
    ],
    "a file of the model": lambda p: ["train_data_path=model/tokenizer.json"],
    "another file that is read": lambda p: [
        f"training.deepspeed={put(p, 'run/history.json')}",
    ],
    "twice: a set": lambda p: ["train_data_path=run/data/train.jsonl"],
    "twice: the report": lambda p: ["train_data_path=run/Report.JSON"],
    "twice: a linked report": lambda p: [
        f"train_data_path={link(p / 'r.json', p / 'run' / 'report.json')}"
    ],
    "twice: a checkpoint": lambda p: ["train_data_path=run/checkpoint-1/x.jsonl"],
    "twice: the model": lambda p: ["train_data_path=run/model.safetensors"],
    "a folder": lambda p: ["train_data_path=model"],
    "a device": lambda p: ["train_data_path=/dev/null"],
    "standard output": lambda p: ["train_data_path=/dev/stdout"],
    "a folder that nobody can make": lambda p: ["output_dir=/proc/toolcall"],
    "below a file": lambda p: ["output_dir=log.jsonl"],
    "further below a file": lambda p: ["output_dir=log.jsonl/a/b"],
    "above the output_dir": lambda p: [
        f"train_data_path={put(p, 'runs/x/other').parents[1]}",
        "output_dir=runs/x",
    ],
    "empty": lambda p: ["output_dir="],
    "null": lambda p: ['output_dir="a\\0b"'],
    "null in the file": lambda p: ['train_data_path="a\\0b"'],
    "a set that is a folder": lambda p: [
        f"output_dir={put(p, 'run/data/train.jsonl/file').parents[2]}"
    ],
}


@pytest.mark.attack("inputs as targets")
@pytest.mark.parametrize("case", CASES)
def test_refused_before_anything_is_written(project, capsys, case):
    overrides = CASES[case](project)
    before = tree(project)
    for command in COMMANDS:
        assert main([command, "config.yaml", *overrides]) == 2, command
        error = capsys.readouterr().err
        assert error.startswith("toolcall: ") and error.count("\n") == 1, error
    assert tree(project) == before


@pytest.mark.attack("inputs as targets")
@pytest.mark.parametrize("function", [train, make_data, run, evaluate_run])
def test_functions_refuse_too(project, function):
    config = load_config("config.yaml", ["train_data_path=log.jsonl"])
    before = tree(project)
    with pytest.raises(ConfigError, match="would write over it"):
        function(config)
    assert tree(project) == before


@pytest.mark.attack("inputs as targets")
def test_each_file_of_a_run_is_a_target(zygote, small_model, tmp_path):
    "A log under the name of any file that a run has written is refused"
    file = make_project(tmp_path, small_model)
    assert zygote.run("run", file).code == 0
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(written) > 30
    for path in written:
        with pytest.raises(ConfigError, match="would write over it"):
            check_paths(load_config(file, [f"log_path={path}"]))


def test_a_refused_log_leaves_no_folder(project, capsys):
    (project / "bad.jsonl").write_text('{"a": 1}\n')
    before = tree(project)
    assert main(["data", "config.yaml", "log_path=bad.jsonl", "output_dir=new/deep/run"]) == 2
    assert tree(project) == before and "records rejected" in capsys.readouterr().err


@pytest.mark.attack("inputs as targets")
@pytest.mark.parametrize("override", ["train_data_path=config.json", "output_dir={log}/x"])
def test_the_demo_refuses_too(project, override, capsys):
    from toolcall.samples import sample_log

    link(project / "config.json", Path(sample_log()))
    before = tree(project)
    assert main(["demo", override.format(log=sample_log()), "output_dir=runs"][:2]) == 2
    assert tree(project) == before and capsys.readouterr().err.count("\n") == 1


PAGES = {
    "the log": lambda p: "log.jsonl",
    "a link": lambda p: link(p / "page.html", p / "log.jsonl"),
    "a hard link": lambda p: hard(p / "page.html", p / "log.jsonl"),
    "no page": lambda p: "config.yaml",
    "a folder": lambda p: "model",
    "a device": lambda p: "/dev/null",
    "standard output": lambda p: "/dev/stdout",
    "below a file": lambda p: "log.jsonl/page.html",
}


@pytest.mark.attack("inputs as targets")
@pytest.mark.parametrize("case", PAGES)
def test_a_page_is_never_written_over_an_input(project, case, capsys):
    page = PAGES[case](project)
    html = project / "log.jsonl"
    html.write_text("<!doctype html>" if case == "the log" else html.read_text())
    before = tree(project)
    assert main(["inspect", "log.jsonl", "--html", str(page)]) == 2
    assert tree(project) == before and capsys.readouterr().err.count("\n") == 1


@pytest.mark.attack("inputs as targets")
def test_redirected_standard_input(project):
    "The shell has opened the log; the command sees a number"
    page = project / "page.html"
    page.write_text("<!doctype html>")
    code = "from toolcall.pipeline.commands import main; raise SystemExit(main())"
    for name in ("-", "/dev/stdin"):
        with open(page) as log:
            ended = subprocess.run(
                [sys.executable, "-c", code, "inspect", name, "--html", str(page)],
                stdin=log,
                capture_output=True,
                text=True,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )
        assert ended.returncode == 2 and "would write over it" in ended.stderr
    assert page.read_text() == "<!doctype html>"


def test_what_is_no_overlap_is_allowed(project):
    "A log and a configuration in the output folder, under names that the run doesn't write"
    log = put(project, "run/data/curated.jsonl")
    file = project / "run" / "config.yaml"
    shutil.copy("config.yaml", file)
    options = [f"log_path={log}", f"train_data_path={project / 'run' / 'toolcall_train.jsonl'}"]
    for _ in range(2):
        assert main(["data", str(file), *options]) == 0
    assert main(["data", "config.yaml", "output_dir=model/run"]) == 0
    assert log.read_bytes() == (project / "log.jsonl").read_bytes()


@pytest.mark.attack("inputs as targets")
def test_the_simple_file_is_not_written_over_its_log(project):
    before = tree(project)
    for name in ("log.jsonl", "../" + project.name + "/log.jsonl"):
        with pytest.raises(ConfigError, match="would write over it"):
            parse_log_to_chatml("log.jsonl", name)
    assert tree(project) == before


two_runs = pytest.mark.attack("two runs")
HOLD = """
import toolcall.pipeline.data as data
describe = data.describe

def slow(result):
    open({seen!r}, "w").close()
    while not __import__("os").path.exists({go!r}):
        __import__("time").sleep(0.01)
    return describe(result)

data.describe = slow
"""


@pytest.fixture
def held(zygote, small_model, tmp_path):
    "A training that holds its folder, in another process"
    config = make_project(tmp_path, small_model)
    seen, go = tmp_path / "seen", tmp_path / "go"
    script = HOLD.format(seen=str(seen), go=str(go))
    child = zygote.start("train", config, script=script)
    child.wait_for(seen.exists)
    yield config, child, go
    if not go.exists():
        go.touch()
        child.wait()


@two_runs
def test_a_second_run_is_refused(zygote, held):
    config, child, go = held
    folder = config.parent / "run"
    link(config.parent / "same", folder)
    before = tree(folder)
    second = [[command, config] for command in COMMANDS]
    second += [["train", "--dry-run", config], ["data", config, f"output_dir={folder}/../same"]]
    for argv in [*second, ["demo", f"output_dir={folder}"]]:
        ended = zygote.run(*argv)
        assert ended.code == 2 and f"is in use by process {child.pid}." in ended.err, argv
        assert ended.err.count("\n") == 1 and tree(folder) == before
    go.touch()
    assert child.wait().code == 0 and (folder / "history.json").exists()


@two_runs
@pytest.mark.parametrize("function", [train, make_data, run, evaluate_run])
def test_functions_take_the_lock_too(held, function):
    config, child, _ = held
    with pytest.raises(ConfigError, match=f"in use by process {child.pid}"):
        function(load_config(config))


@two_runs
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_killed_run_leaves_no_lock(zygote, held, name):
    config, child, go = held
    child.signal(getattr(signal, name))
    go.touch()
    assert main(["data", str(config)]) == 0


@two_runs
def test_many_at_once(zygote, small_model, tmp_path):
    "Of eight that start together some are refused; the folder is that of a single run"
    config = make_project(tmp_path, small_model)
    go = tmp_path / "go"
    script = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.001)"
    children = [zygote.start("data", config, script=script) for _ in range(8)]
    go.touch()
    codes = [child.wait().code for child in children]
    assert set(codes) <= {0, 2} and 0 in codes
    names = sorted(path.name for path in (tmp_path / "run" / "data").iterdir())
    sets = ["test.jsonl", "train.jsonl", "validation.jsonl"]
    assert names == sorted(
        ["README.md", "rejects.jsonl", *sets, *(f"{name}.sha256" for name in sets)]
    )
