"A full disk in every phase: one sentence, exit code 74, no half file, and the command goes on"

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from zygote import make_project

attack = pytest.mark.attack("disk full")
PAGE = 4096  # bytes that a file of a tmpfs takes at least


class Disk:
    "A file system in memory, of which `fill` leaves some bytes"

    def __init__(self, folder: Path):
        self.folder = folder
        self.ballast = folder / "ballast"

    def mount(self, *options: str) -> None:
        command = ["mount", "-t", "tmpfs", *options, "toolcall-test", str(self.folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    def fill(self, left: int = 0) -> None:
        free = shutil.disk_usage(self.folder).free
        self.ballast.write_bytes(bytes(max(0, free - left)))

    def make_room(self) -> None:
        self.ballast.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path):
    disk = Disk(tmp_path / "disk")
    disk.folder.mkdir()
    disk.mount("-o", "size=24m")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, zygote, small_model):
    config = make_project(tmp_path_factory.mktemp("undisturbed"), small_model)
    assert zygote.run("run", config).code == 0
    return config.parent


def result(project: Path) -> dict[str, object]:
    "What a run gives: weights, sets, training file, losses and scores, as far as they are there"
    from safetensors.numpy import load_file

    found: dict[str, object] = {}
    for path in [project / "train.jsonl", *sorted((project / "run").rglob("*"))]:
        name = str(path.relative_to(project))
        if "checkpoint-" in name or not path.is_file():
            continue
        if path.suffix == ".safetensors":
            found[name] = {key: value.tobytes() for key, value in load_file(path).items()}
        elif path.suffix == ".jsonl" and "predictions" not in name:
            found[name] = path.read_bytes()
        elif path.name == "history.json":
            history = json.loads(path.read_text(encoding="utf-8"))["history"]
            found[name] = [entry["loss"] for entry in history if "loss" in entry]
        elif path.name == "report.json":
            report = json.loads(path.read_text(encoding="utf-8"))
            found[name] = [report["tuned"]["metrics"], report["base"]["metrics"]]
    return found


def no_half_file(folder: Path) -> bool:
    "Whether every file with its final name can be read to its end"
    import numpy as np
    from safetensors.numpy import load_file

    run = folder / "run" if (folder / "run").exists() else folder
    of_folder = ("checkpoint-", "model.part/")  # a manifest, written last, makes it whole
    if not (run / "manifest.json").exists():
        of_folder += ("run/config.json", "run/generation_config", "run/tokenizer", "run/model.")
    for path in folder.rglob("*"):
        in_folder = any(part in str(path) for part in of_folder)
        if in_folder or not path.is_file() or path.name in ("ballast", ".lock"):
            continue
        assert path.suffix != ".part", path
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".jsonl":
            text = path.read_text(encoding="utf-8")
            lines = text.splitlines()[: None if text.endswith("\n") else -1]
            assert all(isinstance(json.loads(line), dict) for line in lines)
        elif path.suffix == ".safetensors":
            load_file(path)
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                assert all(arrays[name] is not None for name in arrays)
        elif path.suffix == ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    return True


def told(ended, *words: str) -> bool:
    "Whether an end is one sentence with exit code 74"
    sentences = [line for line in ended.err.splitlines() if line.startswith("toolcall: ")]
    assert ended.code == 74 and "Traceback" not in ended.err, ended
    assert len(sentences) == 1 and all(word in sentences[0] for word in words), ended.err
    return True


@attack
@pytest.mark.parametrize("pages", [0, 1, 2, 4])
def test_data(zygote, small_model, disk, pages, undisturbed):
    config = make_project(disk.folder, small_model)
    disk.fill(pages * PAGE)
    ended = zygote.run("data", config)
    assert told(ended, str(disk.folder / "run"), "The same command begins again")
    assert no_half_file(disk.folder / "run")
    disk.make_room()
    assert zygote.run("data", config).code == 0
    sets = {name: value for name, value in result(undisturbed).items() if "/data/" in name}
    assert {name: value for name, value in result(disk.folder).items() if name in sets} == sets


FILL = """
import importlib
module = importlib.import_module({module!r})
owner = getattr(module, {owner!r}) if {owner!r} else module
function = getattr(owner, {name!r})
calls = [0]

def fill():
    import os, shutil
    free = shutil.disk_usage({disk!r}).free - {left!r}
    with open({disk!r} + "/ballast", "wb") as file:
        file.write(bytes(max(0, free)))

def before(*args, **options):
    calls[0] += 1
    if calls[0] == {call!r}:
        fill()
    return function(*args, **options)

setattr(owner, {name!r}, before)
import toolcall.train.trainer
toolcall.train.trainer.check_room = lambda *args: None
"""
# phase: module, class, function, its call that fills the disk before, bytes that are left, words
MOMENTS = {
    "encoded": ("toolcall.chatml.encoding_cache", "", "encode", 1, 0, "begins again"),
    "training file": ("toolcall.text", "", "dumps", 1, 0, "begins again"),
    "first checkpoint": ("transformers", "Trainer", "save_model", 1, 0, "begins again"),
    "tokenizer of a checkpoint": ("transformers", "Trainer", "save_model", 2, 80000, "int-2"),
    "optimizer": ("torch", "", "save", 6, PAGE, "from checkpoint-2"),
    "final model": ("transformers", "Trainer", "save_model", 4, 0, "from checkpoint-5"),
    "tokenizer of the model": ("transformers", "Trainer", "save_model", 4, 70000, "int-5"),
    "history": ("toolcall.train.run", "Run", "save", 1, 0, "from checkpoint-5"),
    "plot": ("toolcall.train.run", "Run", "save", 1, PAGE, "from checkpoint-5"),
    "sets": ("toolcall.pipeline.data", "", "save_data", 1, 2 * PAGE, "from checkpoint-5"),
    "predictions": ("toolcall.generate.predictions", "", "predict", 3, 0, "answers are kept"),
    "report": ("toolcall.report.files", "", "save_report", 1, PAGE, "answers are kept"),
    "evaluations": ("toolcall.report.files", "", "save_report", 1, 90000, "answers are kept"),
}


@attack
@pytest.mark.parametrize("phase", MOMENTS)
def test_every_phase_of_a_run(zygote, small_model, disk, phase, undisturbed):
    module, owner, name, call, left, words = MOMENTS[phase]
    config = make_project(disk.folder, small_model)
    script = FILL.format(
        module=module, owner=owner, name=name, call=call, left=left, disk=str(disk.folder)
    )
    assert told(zygote.run("run", config, script=script), str(disk.folder), words)
    assert no_half_file(disk.folder)
    disk.make_room()
    ended = zygote.run("run", config)
    assert ended.code == 0, ended.err
    assert result(disk.folder) == result(undisturbed)


@attack
def test_no_room_for_a_checkpoint_is_known_before(zygote, small_model, disk, undisturbed):
    config = make_project(disk.folder, small_model)
    disk.fill(10 * 2**20)
    assert told(zygote.run("train", config), "The same command begins again")
    assert not list((disk.folder / "run").glob("checkpoint-*/optimizer.pt"))
    disk.make_room()
    assert zygote.run("run", config).code == 0
    assert result(disk.folder) == result(undisturbed)


@attack
def test_training_file_on_another_disk(zygote, small_model, disk, tmp_path):
    config = make_project(tmp_path, small_model)
    disk.fill()
    file = disk.folder / "train.jsonl"
    assert told(zygote.run("train", config, f"train_data_path={file}"), str(file))
    assert not file.exists()


@attack
@pytest.mark.parametrize("left", [0, PAGE, 8 * PAGE])
def test_a_page(zygote, small_model, disk, left):
    make_project(disk.folder, small_model)
    page = disk.folder / "page.html"
    disk.fill(left)
    ended = zygote.run("inspect", disk.folder / "log.jsonl", "--html", page)
    assert told(ended, str(page)) and not page.exists()
    disk.make_room()
    assert zygote.run("inspect", disk.folder / "log.jsonl", "--html", page).code == 0


@attack
@pytest.mark.parametrize("size", [1000, 9000, 30_000])
def test_a_limit_of_the_file_size(zygote, small_model, tmp_path, size, undisturbed):
    "Needs no file system of its own: writes fail with `File too large`"
    config = make_project(tmp_path, small_model)
    quiet = {"stdout": "/dev/null", "stderr": "/dev/null"}
    ended = zygote.run("run", config, file_size=size, **quiet)
    assert ended.code == 74 and no_half_file(tmp_path / "run")
    assert zygote.run("run", config).code == 0
    assert result(tmp_path) == result(undisturbed)


@attack
@pytest.mark.parametrize("command", ["data", "train", "run"])
@pytest.mark.parametrize(
    "folder, reason",
    [
        ("/sys/toolcall", ""),
        ("{read_only}/run", "Read-only"),
        ("{tmp}/" + "x" * 300, "name too long"),
    ],
)
def test_a_folder_that_cannot_be_written(zygote, small_model, tmp_path, command, folder, reason):
    if "{read_only}" in folder:
        disk = Disk(tmp_path / "read_only")
        disk.folder.mkdir()
        disk.mount("-o", "size=1m,ro")
    config = make_project(tmp_path, small_model)
    place = folder.format(read_only=tmp_path / "read_only", tmp=tmp_path)
    ended = zygote.run(command, config, f"output_dir={place}")
    if "{read_only}" in folder:
        subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)
    assert ended.code == 2 and "Traceback" not in ended.err
    assert ended.err.startswith("toolcall: ") and place in ended.err and reason in ended.err
    assert ended.err.count("\n") == 1
