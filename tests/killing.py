"""A process that has everything imported and forks a child for each run, which may be killed

Each line of standard input is a JSON object: the folder of the run, and when it is killed. The
answer is a line with the signal or the exit code, the moments that were passed, and what was said.
"""

import gc
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

if __name__ == "__main__":  # before torch is imported
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "Agg"}

import torch
from conftest import make_tiny_model
from transformers import LlamaForCausalLM, TrainerCallback

from toolcall.chatml import ChatML
from toolcall.chatml.encoding_cache import encode_cached
from toolcall.conversation import Conversation
from toolcall.curate import curate
from toolcall.errors import ToolcallError
from toolcall.evaluate import evaluate
from toolcall.generate import HFEngine, predict, predictions
from toolcall.logs import read_logs
from toolcall.models import load_model, load_tokenizer
from toolcall.samples import sample_log
from toolcall.saving import save_conversations
from toolcall.train import Run, finetune, training_arguments
from toolcall.train.trainer import ToolTrainer

WRITES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree"}


class Moments:
    "Counts what a run does in its folder, and ends the process at a chosen moment"

    def __init__(self, folder: str, kill: dict):
        self.folder, self.kill, self.passed = folder, kill, []

    def audit(self, event: str, args: tuple) -> None:
        if event == "open":
            writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            if not writes:
                return
        elif event not in WRITES:
            return
        if event == "os.remove" and args[1] >= 0:  # beside a folder that is being deleted
            self.passes(f"unlink {args[0]}")
        elif args and isinstance(args[0], (str, Path)) and str(args[0]).startswith(self.folder):
            self.passes(f"{event} {Path(args[0]).relative_to(self.folder)}")

    def passes(self, moment: str) -> None:
        moment = moment.replace(f".{os.getpid()}.", ".")
        self.passed.append(moment)
        seen = self.passed.count(moment) if self.kill.get("at") == moment else 0
        if seen == self.kill.get("time", 1) or len(self.passed) == self.kill.get("number"):
            os.kill(os.getpid(), signal.SIGKILL)

    def wrote(self, path: str | Path) -> None:
        "A file was written by native code; it may have been cut by the kill"
        name = Path(path).name
        if self.kill.get("half") == f"{Path(path).parent.name}/{name}":
            os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        self.passes(f"wrote {Path(path).relative_to(self.folder)}")

    def appends(self, line: bytes) -> bytes:
        "A prediction is about to be appended; the kill may cut it"
        self.passes("line")
        if self.passed.count("line") == self.kill.get("cut_line"):
            with open(Path(self.folder, "predictions.jsonl"), "ab") as file:
                file.write(line[: len(line) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return line


class Steps(TrainerCallback):
    def __init__(self, moments: Moments):
        self.moments = moments

    def on_step_begin(self, args, state, control, **_):
        self.moments.passes(f"step {state.global_step}")


@cache
def prepared() -> tuple[ChatML, list[Conversation]]:
    "A small vocabulary in the template of the embedded model, and conversations"
    sample = curate(read_logs(sample_log()).conversations).conversations[:6]
    texts = [json.dumps(conversation.to_dict()) for conversation in sample]
    embedded = load_tokenizer("SmolLM2-135M-Instruct")
    return ChatML(embedded.train_new_from_iterator(texts, vocab_size=600)), sample


def tiny(tokenizer) -> LlamaForCausalLM:
    return make_tiny_model(tokenizer, attention_dropout=0.1, tie_word_embeddings=True)


def train(folder: Path, *callbacks: TrainerCallback, **settings) -> Run:
    chatml, conversations = prepared()
    examples = encode_cached(chatml, conversations, folder / "encoded").examples
    options = dict(num_train_epochs=2, per_device_train_batch_size=2, save_steps=2, warmup_steps=1)
    quiet = dict(bf16=False, use_cpu=True, disable_tqdm=True, logging_steps=1, learning_rate=1e-2)
    args = training_arguments(folder, **options | quiet | settings)

    def prepare(trainer: ToolTrainer) -> None:
        for callback in callbacks:
            trainer.add_callback(callback)

    model, sets = tiny(chatml.tokenizer), {"train": examples[:8], "validation": examples[8:]}
    return finetune(model, chatml.tokenizer, **sets, args=args, prepare=prepare)


def whole_run(folder: Path, *callbacks: TrainerCallback, **settings) -> None:
    "Encode, train, predict, evaluate, save"
    chatml, conversations = prepared()
    train(folder, *callbacks, **settings)
    model, tokenizer = load_model(folder)
    engine = HFEngine(model, ChatML(tokenizer), max_new_tokens=4, batch_size=2)
    examples = encode_cached(chatml, conversations, folder / "encoded").examples[:8]
    outputs = predict(engine, examples, path=folder / "predictions.jsonl", progress=False)
    evaluate(examples, outputs, parse=chatml.parse).save(folder / "evaluation.json")
    save_conversations(conversations, folder / "data" / "test.jsonl")


def child(order: dict, answer: int) -> None:
    folder = Path(order["folder"])
    moments = Moments(str(folder), order.get("kill", {}))
    sys.addaudithook(moments.audit)
    save, save_model = torch.save, ToolTrainer._save

    def counted_save(content, path, *args, **options):
        save(content, path, *args, **options)
        moments.wrote(path)

    def counted_save_model(trainer, output_dir=None, state_dict=None):
        save_model(trainer, output_dir, state_dict)
        moments.wrote(Path(output_dir, "model.safetensors"))

    torch.save, ToolTrainer._save = counted_save, counted_save_model
    to_line = predictions._to_line
    predictions._to_line = lambda key, output: moments.appends(to_line(key, output))
    error = ""
    with warnings.catch_warnings(record=True) as caught, redirect_stderr(io.StringIO()):
        warnings.simplefilter("always")
        try:
            with redirect_stdout(io.StringIO()):
                whole_run(folder, Steps(moments), **order.get("settings", {}))
        except ToolcallError as problem:
            error = f"{type(problem).__name__}: {problem}"
        except BaseException:
            error = "TRACEBACK " + traceback.format_exc()
    said = [str(warning.message) for warning in caught]
    result = {"passed": moments.passed, "said": said, "error": error}
    with open(answer, "w") as pipe:
        json.dump(result, pipe)


def run(order: dict) -> dict:
    "Fork a child for a run, and say how it ended"
    reading, writing = os.pipe()
    started = time.monotonic()
    process = os.fork()
    if not process:
        try:
            os.close(reading)
            child(order, writing)
        finally:
            os._exit(0)
    os.close(writing)
    timer = threading.Timer(order["delay"], os.kill, (process, signal.SIGKILL))
    timer.start()
    with open(reading) as pipe:
        text = pipe.read()
    _, status = os.waitpid(process, 0)
    timer.cancel()
    ended = {"signal": os.WTERMSIG(status), "seconds": time.monotonic() - started}
    return (json.loads(text) if text else {}) | ended


if __name__ == "__main__":
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print
    prepared()
    Run(".", [{"step": 1, "loss": 1.0}], 1, 1.0, 1)._repr_svg_()  # loads fonts
    gc.freeze()
    for line in sys.stdin:
        print(json.dumps(run({"delay": 60} | json.loads(line))), file=answers, flush=True)
