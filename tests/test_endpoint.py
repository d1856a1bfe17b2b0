"A real server gives the metrics of the local engine, and loses nothing when it dies"

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
import torch
from conftest import ROOT

from toolcall.chatml import ChatML, encode
from toolcall.curate import curate, split
from toolcall.evaluate import evaluate
from toolcall.generate import EndpointEngine, GenerateError, HFEngine, predict
from toolcall.logs import read_logs
from toolcall.models import load_model
from toolcall.samples import sample_log


def test_the_endpoint_the_tool_loop_and_the_replay_load_no_torch():
    code = (
        "import sys, toolcall.replay\n"
        "from toolcall.generate import EndpointEngine, ToolCaller, predict\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "[]"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    "What `make demo` has trained, or else the embedded model with our template"
    if (ROOT / "runs" / "demo" / "model.safetensors").exists():
        return ROOT / "runs" / "demo"
    model, tokenizer = load_model("SmolLM2-135M-Instruct")
    ChatML(tokenizer)
    folder = tmp_path_factory.mktemp("served")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def local(checkpoint):
    model, tokenizer = load_model(checkpoint, dtype=torch.float32)
    chatml = ChatML(tokenizer)
    examples = encode(
        chatml, split(curate(read_logs(sample_log()).conversations).conversations).test
    ).examples[:20]
    return HFEngine(model, chatml, max_new_tokens=64), examples, chatml


class Server:
    def __init__(self, checkpoint):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url, self.checkpoint = f"http://127.0.0.1:{self.port}", checkpoint

    def __enter__(self):
        command = [
            sys.executable,
            "-c",
            "from transformers.cli.transformers import main; main()",
            "serve",
            str(self.checkpoint),
            "--device",
            "cpu",
            "--dtype",
            "float32",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return self
            except OSError:
                assert self.process.poll() is None, "the server ended by itself"
                time.sleep(0.5)
        raise AssertionError("the server did not start in two minutes")

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def test_a_served_checkpoint_has_the_metrics_of_the_local_one(checkpoint, local):
    engine, examples, chatml = local
    here = evaluate(examples, predict(engine, examples, progress=False), parse=chatml.parse)
    with Server(checkpoint) as server:
        remote = EndpointEngine(f"{server.url}/v1", str(checkpoint), concurrency=1, max_tokens=64)
        outputs = predict(remote, examples, progress=False)
    there = evaluate(examples, outputs, parse=chatml.parse)
    assert {name: metric.value for name, metric in there.metrics.items()} == {
        name: metric.value for name, metric in here.metrics.items()
    }
    assert [(score.outcome, score.predicted, score.cut) for score in there.scores] == [
        (score.outcome, score.predicted, score.cut) for score in here.scores
    ]
    assert all(
        output.prompt_tokens == len(example.prompt_ids)
        for output, example in zip(outputs, examples)
    )


def test_a_server_that_dies_loses_no_finished_row(checkpoint, local, tmp_path):
    _, examples, _ = local
    examples = examples[:10]
    file = tmp_path / "outputs.jsonl"
    with Server(checkpoint) as server:
        remote = EndpointEngine(
            f"{server.url}/v1", str(checkpoint), concurrency=1, max_tokens=4, retries=0
        )
        threading.Thread(target=kill_after, args=(server, file, 3), daemon=True).start()
        with pytest.raises(GenerateError, match="of 10 prompts, then failed"):
            predict(remote, examples, path=file, progress=False)
    kept = file.read_text(encoding="utf-8").splitlines()
    assert 3 <= len(kept) < 10
    with Server(checkpoint) as again:
        # the same engine, at another port
        remote.server = EndpointEngine(f"{again.url}/v1", str(checkpoint)).server
        asked = []
        request = remote.request
        remote.request = lambda *prompt: asked.append(prompt) or request(*prompt)
        assert len(predict(remote, examples, path=file, progress=False)) == 10
    assert len(asked) == 10 - len(kept)
    assert file.read_text(encoding="utf-8").splitlines()[: len(kept)] == kept


def kill_after(server, file, rows):
    while not file.exists() or file.read_bytes().count(b"\n") < rows:
        time.sleep(0.01)
    server.process.kill()
