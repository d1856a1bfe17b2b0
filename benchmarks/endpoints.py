"""Two servers with one model: spreading prompts by prefix against round robin.

    python benchmarks/endpoints.py [--catalogues 6] [--sessions 2] [--turns 3] [--rounds 1]

Two servers of llama.cpp (the wheel `xllamacpp`) have the embedded model, one slot and one thread
each, on loopback, with llama.cpp's own caches as they are by default: a slot keeps its last prompt,
and prompts before it stay in memory. Each way begins with servers that have just started.

    by prefix       `EndpointEngine([url, url], …)`
    round robin     prompts go to the two servers in turn, in the order of the log, in which
                    sessions of all catalogues are mixed; what a load balancer does
    halves          as round robin, but each server gets its half in an order by prefix
    one is killed   by prefix; one server is killed when half of the answers are there

Answers a second, and tokens of prompts: sent, and computed as the servers report it
(`timings.prompt_n`). The answers of the ways are compared; llama.cpp's rounding depends on what is
cached, so a tie may turn.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from toolcall.chatml import ChatML
from toolcall.conversation import make_tool
from toolcall.generate import EndpointEngine, Output, asking
from toolcall.models import load_model
from toolcall.serve.gguf import write_gguf

ABOUT = ("account", "alarm", "calendar", "contact", "coupon", "delivery")
ABOUT += ("device", "invoice", "lamp", "mail", "map", "menu")
DOES = ("add", "cancel", "change", "find", "list", "move")
DOES += ("open", "read", "remove", "rename", "send", "share")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--catalogues", type=int, default=6, help="of twelve tools each")
    parser.add_argument("--sessions", type=int, default=2, help="with each catalogue")
    parser.add_argument("--turns", type=int, default=3, help="of a session")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=8, help="most tokens of an answer")
    options = parser.parse_args()
    prompts = make_prompts(options)
    print(
        f"{len(prompts)} prompts, {options.catalogues} catalogues, {os.cpu_count()} cores, "
        f"one thread a server, load {os.getloadavg()[0]:.1f} before"
    )
    print(f"{'way':<14} {'seconds':>8} {'answers/s':>10} {'sent':>8} {'computed':>9} {'equal':>7}")
    with tempfile.TemporaryDirectory() as place:
        file = write_model(Path(place))
        first: list[str] = []
        for _ in range(options.rounds):
            for way, answer in WAYS.items():
                with server(file) as one, server(file) as other, counted() as timings:
                    begun = time.perf_counter()
                    outputs = answer((one, other), prompts, options.tokens)
                    seconds = time.perf_counter() - begun
                texts = [output.text for output in outputs]
                first = first or texts
                equal = sum(a == b for a, b in zip(texts, first))
                sent = sum(output.prompt_tokens for output in outputs)
                computed = sum(timing["prompt_n"] for timing in timings)
                print(
                    f"{way:<14} {seconds:>8.1f} {len(prompts) / seconds:>10.2f} {sent:>8,} "
                    f"{computed:>9,} {equal:>4}/{len(prompts)}",
                    flush=True,
                )
                assert len(outputs) == len(prompts) and not any(one.error for one in outputs)
                if shares := Counter(
                    output.answered_by for output in outputs if output.answered_by
                ):
                    print(f"{'':<14} answered by each server: {sorted(shares.values())}")
    print(f"load {os.getloadavg()[0]:.1f} after")


def make_prompts(options: argparse.Namespace) -> list[tuple[list[dict], list[dict]]]:
    "Messages and tools of each turn, in the order in which mixed sessions come"
    draw = random.Random(0)
    rounds: list[list] = [[] for _ in range(options.turns)]
    for catalogue in range(options.catalogues):
        about = [f"{name}_{catalogue}" for name in draw.sample(ABOUT, len(ABOUT))]
        tools = [
            make_tool(
                f"{does}_{name}",
                f"{does.capitalize()} the {name.replace('_', ' ')} of a customer",
                parameters={"type": "object", "properties": {"name": {"type": "string"}}},
            )
            for does, name in zip(DOES, about)
        ]
        for session in range(options.sessions):
            messages: list[dict] = []
            for turn in range(options.turns):
                words = f"Please {draw.choice(DOES)} number {session + 1} of my {about[turn]}."
                messages = [*messages, {"role": "user", "content": words}]
                rounds[turn].append((messages, tools))
                messages = [*messages, {"role": "assistant", "content": f"Done: {about[turn]}."}]
    for one in rounds:
        draw.shuffle(one)
    return [prompt for one in rounds for prompt in one]


def write_model(place: Path) -> str:
    model, tokenizer = load_model("SmolLM2-135M-Instruct", dtype=torch.float32)
    ChatML(tokenizer)  # the template with tools
    model.save_pretrained(place / "model")
    tokenizer.save_pretrained(place / "model")
    return str(write_gguf(place / "model", place / "model.gguf", kind="f16"))


@contextmanager
def server(file: str) -> Iterator[tuple[str, subprocess.Popen]]:
    "A server of llama.cpp: its address and its process"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "toolcall.serve.llama_server", file]
    options = ["--port", str(port), "--context", "4096", "--threads", "1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([*command, *options], **quiet)
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended by itself"
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.kill()
        process.wait()


@contextmanager
def counted() -> Iterator[list[dict]]:
    "What the servers report of each answer"
    timings: list[dict] = []
    read = asking.read_answer

    def keep(status: int, body: bytes, *more):
        timings.append(json.loads(body)["timings"])
        return read(status, body, *more)

    with patch.object(asking, "read_answer", keep):
        yield timings


def make_engine(urls, tokens: int) -> EndpointEngine:
    return EndpointEngine(urls, "m", concurrency=1, max_tokens=tokens)


def by_prefix(servers, prompts, tokens) -> list[Output]:
    return make_engine([url for url, _ in servers], tokens).generate(prompts, progress=False)


def round_robin(servers, prompts, tokens, *, is_sorted: bool = False) -> list[Output]:
    "Each half is asked one by one in its order, or all at once"

    def answer(place: int) -> list[Output]:
        engine = make_engine(servers[place][0], tokens)
        mine = prompts[place :: len(servers)]
        if is_sorted:
            return engine.generate(mine, progress=False)
        return [engine.generate([prompt], progress=False)[0] for prompt in mine]

    with ThreadPoolExecutor(len(servers)) as pool:
        halves = [*pool.map(answer, range(len(servers)))]
    return [halves[n % len(servers)][n // len(servers)] for n in range(len(prompts))]


def halves(servers, prompts, tokens) -> list[Output]:
    return round_robin(servers, prompts, tokens, is_sorted=True)


def one_is_killed(servers, prompts, tokens) -> list[Output]:
    outputs: dict[int, Output] = {}
    engine = make_engine([url for url, _ in servers], tokens)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number, output in engine.stream(prompts, progress=False):
            assert number not in outputs, "answered twice"
            outputs[number] = output
            if len(outputs) == len(prompts) // 2:
                servers[0][1].kill()
    for one in caught:
        print(f"{'':<14} {one.message}")
    return [outputs[number] for number in range(len(prompts))]


WAYS = {
    "by prefix": by_prefix,
    "round robin": round_robin,
    "halves": halves,
    "one is killed": one_is_killed,
}

if __name__ == "__main__":
    main()
