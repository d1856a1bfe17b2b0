"A run that is killed goes on from its last checkpoint and ends with the same losses"

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

SCRIPT = """
import os, signal, sys

sys.path.insert(0, sys.argv[1])
from conftest import make_tiny_model
from transformers import TrainerCallback
from toolcall.chatml import ChatML, encode
from toolcall.curate import curate
from toolcall.logs import read_logs
from toolcall.models import load_tokenizer
from toolcall.samples import sample_log
from toolcall.train import finetuning


class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if state.global_step == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)


build = finetuning.build_trainer


def with_kill(*args, **kwargs):
    trainer = build(*args, **kwargs)
    trainer.add_callback(Kill())
    return trainer


finetuning.build_trainer = with_kill

tokenizer = load_tokenizer("SmolLM2-135M-Instruct")
conversations = curate(read_logs(sample_log()).conversations).conversations[:14]
examples = encode(ChatML(tokenizer), conversations).examples
args = finetuning.training_arguments(
    sys.argv[2],
    num_train_epochs=3,
    per_device_train_batch_size=4,
    save_steps=3,
    logging_steps=1,
    bf16=False,
    use_cpu=True,
    disable_tqdm=True,
    learning_rate=1e-2,
)
finetuning.finetune(make_tiny_model(tokenizer), tokenizer, examples, args=args)
"""


def start(folder: Path, kill_at: int) -> int:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT / "tests"), str(folder), str(kill_at)],
        capture_output=True,
    ).returncode


def losses(folder: Path) -> list[float]:
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))["history"]
    return [entry["loss"] for entry in history if "loss" in entry]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert start(folder, -1) == 0
    return losses(folder)


@pytest.mark.attack("kill")
@pytest.mark.parametrize("kill_at", [5, 9])
def test_kill_and_go_on(kill_at, uninterrupted, tmp_path):
    assert start(tmp_path, kill_at) == -signal.SIGKILL
    assert not (tmp_path / "history.json").exists()
    # a checkpoint that the kill left half-written is passed over
    (tmp_path / "checkpoint-999").mkdir()
    assert start(tmp_path, -1) == 0
    again = losses(tmp_path)
    assert len(again) == len(uninterrupted) >= 12
    assert max(abs(a - b) for a, b in zip(again, uninterrupted)) < 1e-6
