"A run that is killed at any moment, and started again, ends bit by bit as one left alone"

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

from toolcall.evaluate import load_evaluation
from toolcall.manifest import manifest_faults
from toolcall.saving import load_conversations


class Server:
    "Runs `killing.py`, which forks a child for each run"

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "killing.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def start(self, folder: Path, **order) -> dict:
        self.process.stdin.write(json.dumps({"folder": str(folder)} | order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.process.stdin.close()
    server.process.wait(timeout=60)


@pytest.fixture(scope="module")
def undisturbed(server, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = server.start(folder)
    assert (result["signal"], result["error"], result["said"]) == (0, "", [])
    made = contents(folder)
    assert (len(made["losses"]), len(made["validation losses"])) == (8, 2)
    return folder, result["passed"], result["seconds"]


def contents(folder: Path) -> dict:
    "What a run made, without paths and times"
    names = sorted(name for name, _ in files(folder) if name != "training_args.bin")
    history = json.loads((folder / "history.json").read_text())["history"]
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_bytes().splitlines()]
    [encoded] = (folder / "encoded").glob("*.npz")  # a kill may leave a part beside it
    return {name: (folder / name).read_bytes() for name in names} | {
        "losses": [entry["loss"] for entry in history if "loss" in entry],
        "validation losses": [entry["eval_loss"] for entry in history if "eval_loss" in entry],
        "rates": [entry["learning_rate"] for entry in history if "loss" in entry],
        "predictions": [(line["key"], line["text"], line["ids"]) for line in lines],
        "scores": [rounded(one) for one in load_evaluation(folder / "evaluation.json").scores],
        "conversations": load_conversations(folder / "data" / "test.jsonl"),
        "encoded": encoded.read_bytes(),
    }


def rounded(score):
    "A score whose probabilities don't depend on the prompts that were answered beside it"
    chance, sureness = score.call_probability, score.sureness
    assert 0 <= chance <= 1 and 0 <= sureness <= 1
    return replace(score, call_probability=round(chance, 3), sureness=round(sureness, 3))


def files(folder: Path) -> list[tuple[str, int]]:
    manifest = json.loads((folder / "manifest.json").read_text())
    return [(file["name"], file["size"]) for file in manifest["files"]]


MOMENTS = (  # beginnings of what the run does next
    "open encoded/",
    "os.rename encoded/",
    "open run.json",
    "os.rename run.json",
    "step 0",
    "step 3",
    "step 7",
    "os.mkdir checkpoint-4",
    "open checkpoint-4/trainer_state.json",
    "open checkpoint-2/manifest.json.part",
    "open checkpoint-6/manifest.json.part",
    "os.rename checkpoint-8/manifest.json.part",
    "shutil.rmtree checkpoint-2",
    "unlink optimizer.pt",
    "unlink manifest.json",
    "os.rmdir checkpoint-4",
    "shutil.rmtree model.part",
    "os.rename model.part/manifest.json.part",
    "os.remove manifest.json",
    "os.rename model.part/model.safetensors",
    "os.rename model.part/config.json",
    "os.rename model.part/manifest.json",
    "os.rmdir model.part",
    "open history.json",
    "os.rename loss.svg",
    "open predictions.jsonl",
    "open evaluation.json",
    "os.rename data/test.jsonl.part",
    "open data/test.jsonl.sha256",
)
HALVES = (  # files that are cut by the kill
    "checkpoint-2/model.safetensors",
    "checkpoint-2/optimizer.pt",
    "checkpoint-4/model.safetensors",
    "checkpoint-4/optimizer.pt",
    "checkpoint-6/scheduler.pt",
    "checkpoint-8/rng_state.pth",
    "model.part/model.safetensors",
)
RANDOM = random.Random(14)
KILLS = (
    [{"moment": moment} for moment in MOMENTS]
    + [{"half": half} for half in HALVES]
    + [{"cut_line": line} for line in (1, 4)]
    + [{"share of moments": RANDOM.random()} for _ in range(6)]
    + [{"share of time": RANDOM.uniform(0.05, 0.95)} for _ in range(6)]
)


def order_of(kill: dict, passed: list[str], seconds: float) -> dict:
    "When to kill, in a run that does what an undisturbed one did"
    if moment := kill.get("moment"):
        at = next(one for one in passed if re.match(re.escape(moment), one))
        return {"kill": {"at": at}}
    if share := kill.get("share of moments"):
        return {"kill": {"number": int(share * len(passed)) + 1}}
    if share := kill.get("share of time"):
        return {"delay": share * seconds}
    return {"kill": kill}


@pytest.mark.attack("kill")
@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: " ".join(map(str, *kill.items())))
def test_a_killed_run_goes_on_and_ends_with_the_same_bits(kill, server, undisturbed, tmp_path):
    whole, passed, seconds = undisturbed
    killed = server.start(tmp_path, **order_of(kill, passed, seconds))
    assert killed["signal"] == signal.SIGKILL or "share of time" in kill
    again = server.start(tmp_path)
    assert (again["signal"], again["error"]) == (0, "")
    assert contents(tmp_path) == contents(whole)
    assert manifest_faults(tmp_path) == []


@pytest.mark.attack("kill")
def test_killed_again_and_again(server, undisturbed, tmp_path):
    for half in ("checkpoint-2/optimizer.pt", "checkpoint-4/optimizer.pt"):
        assert server.start(tmp_path, kill={"half": half})["signal"] == signal.SIGKILL
    at_rotation = {"at": "shutil.rmtree checkpoint-4"}
    assert server.start(tmp_path, kill=at_rotation)["signal"] == signal.SIGKILL
    (tmp_path / "checkpoint-999").mkdir()
    again = server.start(tmp_path)
    assert again["error"] == "" and contents(tmp_path) == contents(undisturbed[0])
    assert "checkpoint-999 passed over: its saving was interrupted" in again["said"]
    left = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert left == ["checkpoint-6", "checkpoint-8", "checkpoint-999"]


@pytest.mark.attack("kill")
@pytest.mark.parametrize(
    "kill", [{"half": "checkpoint-2/optimizer.pt"}, {"at": "step 5"}], ids=["saving", "training"]
)
@pytest.mark.parametrize(
    ("name", "value", "was"),
    [
        ("max_grad_norm", 9.0, 1.0),
        ("optim", "sgd", "adamw_torch_fused"),
        ("adam_beta2", 0.9, 0.999),
    ],
)
def test_another_setting_after_a_kill_is_refused(kill, name, value, was, server, tmp_path):
    assert server.start(tmp_path, kill=kill)["signal"] == signal.SIGKILL
    again = server.start(tmp_path, settings={name: value})
    assert again["error"].startswith("TrainError")
    assert f"{name}: {was} there, {value} now" in again["error"]


def test_harmless_settings_may_change(server, undisturbed, tmp_path):
    assert server.start(tmp_path, kill={"at": "step 5"})["signal"] == signal.SIGKILL
    settings = {"save_steps": 3, "logging_steps": 2, "gradient_checkpointing": True}
    again = server.start(tmp_path, settings=settings)
    assert again["error"] == ""
    weights = [(folder / "model.safetensors").read_bytes() for folder in (tmp_path, undisturbed[0])]
    assert weights[0] == weights[1]


def test_a_finished_run_that_is_started_again_changes_nothing(server, undisturbed, tmp_path):
    whole = undisturbed[0]
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    again = server.start(tmp_path)
    assert (again["error"], again["said"]) == ("", [])
    assert contents(tmp_path) == contents(whole)
    assert not any("line" in moment or "step" in moment for moment in again["passed"])
