"""A process that has imported everything, and forks a child for each command.

Starting Python with torch and transformers takes seconds; a fork takes milliseconds. A child gets
its own standard streams, environment and limits, and runs `main` as the command does."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ended:
    code: int  # Exit code; negative: the signal that killed it
    out: str
    err: str


class Zygote:
    def __init__(self, folder: Path):
        self.folder = folder
        self.count = 0
        environment = {
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "MPLBACKEND": "Agg",
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def _ask(self, **request: Any) -> Any:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *argv: object, **options: Any) -> "Child":
        "Options: stdout and stderr (a path, closed, pipe), stdin, env, cwd, file_size, script"
        self.count += 1
        files = {name: str(self.folder / f"{self.count}.{name}") for name in ("stdout", "stderr")}
        request = {"argv": [str(part) for part in argv]} | files | options
        return Child(self, self._ask(**request), *files.values())

    def run(self, *argv: object, **options: Any) -> Ended:
        return self.start(*argv, **options).wait()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


@dataclass(frozen=True)
class Child:
    zygote: Zygote
    pid: int
    stdout: str
    stderr: str

    def wait(self) -> Ended:
        code = self.zygote._ask(wait=self.pid)
        return Ended(code, self.read(self.stdout), self.read(self.stderr))

    def read(self, file: str) -> str:
        path = Path(file)
        return path.read_bytes().decode("utf-8", "replace") if path.exists() else ""

    def wait_for(self, seen: "Any", seconds: float = 60) -> None:
        "Wait until a function gives something true"
        deadline = time.monotonic() + seconds
        while not seen():
            assert time.monotonic() < deadline, (self.read(self.stdout), self.read(self.stderr))
            time.sleep(0.01)

    def signal(self, number: int, *, group: bool = False) -> Ended:
        "Send a signal, to its workers too as a terminal does, and wait for the end"
        (os.killpg if group else os.kill)(self.pid, number)
        return self.wait()


def _connect(descriptor: int, where: str) -> Any:
    "Connect a standard stream as a shell does, and open it as the interpreter does"
    if where == "closed":
        os.close(descriptor)
        return None
    if where == "pipe":  # whose reader has gone
        reader, file = os.pipe()
        os.close(reader)
    else:
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        file = os.open(where, flags, 0o644)
    os.dup2(file, descriptor)
    os.close(file)
    encoding, _, errors = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    errors = errors or ("backslashreplace" if descriptor == 2 else "strict")
    return open(descriptor, "w" if descriptor else "r", encoding=encoding, errors=errors)


def _child(request: dict) -> int:
    os.setsid()
    os.environ.update(request.get("env", {}))
    os.chdir(request.get("cwd", "."))
    sys.stdin = _connect(0, request.get("stdin", os.devnull))
    sys.stdout = _connect(1, request["stdout"])
    sys.stderr = _connect(2, request["stderr"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in request.get("ignore", []):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if "file_size" in request:
        resource.setrlimit(resource.RLIMIT_FSIZE, (request["file_size"], request["file_size"]))
    exec(request.get("script", ""), {})
    from toolcall.pipeline.commands import main

    code = main(request["argv"])
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError as error:  # as the interpreter does at its exit
        os.write(2, f"Exception ignored: {error}\n".encode())
        return 120
    return code


def _wait(pid: int, seconds: float) -> int:
    "The exit code of a child; one that hangs is killed"
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -signal.SIGKILL


def serve() -> None:
    import transformers.trainer  # noqa: F401

    import toolcall.diagnose  # noqa: F401
    import toolcall.pipeline.watching  # noqa: F401
    import toolcall.report.files  # noqa: F401
    import toolcall.report.page  # noqa: F401
    import toolcall.train.finetuning  # noqa: F401
    from toolcall.pipeline.chain import evaluate_checkpoint  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            print(_wait(request["wait"], seconds=120), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                code = _child(request)
            finally:
                os._exit(code)
        print(pid, flush=True)


def make_small_model(folder: Path) -> None:
    "A model of 100 kB whose tokens are bytes: a whole run takes seconds"
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    special = ["<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens({"eos_token": special[1], "additional_special_tokens": special})
    tokenizer.pad_token = special[1]
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_project(folder: Path, model: Path, **options: Any) -> Path:
    "A log of 24 conversations, and a configuration of 5 steps, which is returned"
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"user": f"Weather in city {n}?", "tool_name": "get_weather", "arguments": {"city": str(n)}}
        for n in range(24)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {"disable_tqdm": True, "bf16": False, "use_cpu": True}
    values = {
        "log_path": str(folder / "log.jsonl"),
        "model_name_or_path": str(model),
        "output_dir": str(folder / "run"),
        "train_data_path": str(folder / "train.jsonl"),
        "batch_size": 4,
        "num_train_epochs": 1,
        "save_steps": 2,
        "logging_steps": 1,
        "training": training,
        "generation": {"max_new_tokens": 2},
        "evaluation": {
            "max_turns": 4,
            "latency_turns": 0,
            "watch_turns": 0,
            "retention": False,
        },
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values | options))
    return folder / "config.yaml"


if __name__ == "__main__":
    serve()
