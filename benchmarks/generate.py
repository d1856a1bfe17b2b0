"""Answers a second: toolcall, transformers' `generate` and `generate_batch`, llama.cpp's server.

    python benchmarks/generate.py LOG [--prompts 24] [--rounds 3] [--model FOLDER] [--ways …]

All answer the same held-out prompts of the log with the same weights, greedily, and stop at the
same tokens, in turn, on the same threads.

    toolcall          `HFEngine`: what the prompts share is computed once
    batch             the model's own `generate`, all prompts in one batch, padded on the left
    alone             the model's own `generate`, one prompt at a time
    generate_batch    transformers' continuous batching, which keeps common prefixes in its cache;
                      its default settings on a GPU, and on a CPU those of `--requests`, because
                      there its mask makes every request of a batch dearer
    llama.cpp, N      the server of `xllamacpp` with N slots that answer in parallel, for each N of
                      `--slots`; a slot keeps its last prompt and computes only what differs, and
                      the file holds the weights in the same type

Outputs are compared token by token with those of toolcall. In float32 they must be equal for the
ways of transformers; llama.cpp's own rounding may turn a tie. Times are without loading. Ratios
are of medians, toolcall over the fastest of the others.
"""

import argparse
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from toolcall.chatml import ChatML, encode
from toolcall.curate import curate, split
from toolcall.generate import HFEngine
from toolcall.logs import read_logs
from toolcall.models import best_device, load_model

WAYS = ("toolcall", "batch", "generate_batch", "llama.cpp", "alone")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("log", help="a log of any format")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="a folder or a name")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--requests", type=int, default=8, help="of a batch of `generate_batch`")
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 4], help="of llama.cpp")
    parser.add_argument("--ways", nargs="+", default=WAYS[:-1], choices=WAYS)
    options = parser.parse_args()
    model, tokenizer = load_model(options.model, dtype=getattr(torch, options.dtype))
    chatml = ChatML(tokenizer)
    held_out = split(curate(read_logs(options.log).conversations).conversations).test
    examples = encode(chatml, held_out).examples[: options.prompts]
    prompts = [example.prompt_ids for example in examples]
    with ExitStack() as stack:
        makers: dict[str, Callable] = {}
        for way in options.ways:
            if way == "llama.cpp":
                makers |= {f"llama.cpp, {slots}": llama_cpp(slots) for slots in options.slots}
            else:
                makers[way] = MAKERS[way]
        answers = {
            way: stack.enter_context(make(model, chatml, prompts, options))
            for way, make in makers.items()
        }
        seconds: dict[str, list[float]] = {way: [] for way in answers}
        outputs: dict[str, list[list[int]]] = {}
        HFEngine(model, chatml, max_new_tokens=2).generate(prompts[:1], progress=False)  # warm up
        for _ in range(options.rounds):
            for way, answer in answers.items():
                started = time.perf_counter()
                outputs[way] = answer()
                seconds[way].append(time.perf_counter() - started)
    show(seconds, outputs, prompts, options)


def show(
    seconds: dict[str, list[float]],
    outputs: dict[str, list[list[int]]],
    prompts: list[list[int]],
    options: argparse.Namespace,
) -> None:
    first = next(iter(outputs))
    print(
        f"{len(prompts)} prompts of {statistics.median(map(len, prompts)):.0f} tokens, "
        f"{sum(map(len, outputs[first]))} new tokens, {options.dtype}, {best_device()}, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}, {options.rounds} rounds"
    )
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    best = min((time for way, time in medians.items() if way != first), default=medians[first])
    print(f"{'way':<15} {'answers/s':>10} {'range':>14} {'x this':>7} {'equal outputs':>14}")
    for way, times in seconds.items():
        equal = sum(a == b for a, b in zip(outputs[way], outputs[first]))
        many = len(prompts)
        speed_range = f"{many / max(times):.2f}–{many / min(times):.2f}"
        print(
            f"{way:<15} {many / medians[way]:>10.2f} {speed_range:>14} "
            f"{medians[way] / medians[first]:>7.1f} {equal:>11}/{many}"
        )
    print(f"{first} answers {best / medians[first]:.2f} times as fast as the best of the others")


def until_stop(ids: list[int], stops: set[int]) -> list[int]:
    end = next((place + 1 for place, token in enumerate(ids) if token in stops), len(ids))
    return ids[:end]


@contextmanager
def toolcall_engine(model, chatml, prompts, options) -> Iterator[Callable]:
    engine = HFEngine(model, chatml, batch_size=len(prompts), max_new_tokens=options.max_new_tokens)
    yield lambda: [list(output.ids) for output in engine.generate(prompts, progress=False)]


def generation_config(chatml: ChatML, options: argparse.Namespace) -> GenerationConfig:
    return GenerationConfig(
        do_sample=False,
        max_new_tokens=options.max_new_tokens,
        eos_token_id=sorted(chatml.stops),
        pad_token_id=chatml.tokenizer.pad_token_id,
    )


def padded_batches(size: int | None) -> Callable:
    "Batches of the model's own `generate`"

    @contextmanager
    def make(model, chatml, prompts, options) -> Iterator[Callable]:
        config = generation_config(chatml, options)

        def answer_part(part: list[list[int]]) -> list[list[int]]:
            width = max(map(len, part))
            ids = [[config.pad_token_id] * (width - len(prompt)) + prompt for prompt in part]
            mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in part]
            with torch.inference_mode():
                rows = model.generate(
                    torch.tensor(ids, device=model.device),
                    attention_mask=torch.tensor(mask, device=model.device),
                    generation_config=config,
                )[:, width:]
            return [until_stop(row, chatml.stops) for row in rows.tolist()]

        def answer() -> list[list[int]]:
            many = size or len(prompts)
            starts = range(0, len(prompts), many)
            return [ids for start in starts for ids in answer_part(prompts[start : start + many])]

        yield answer

    return make


@contextmanager
def continuous(model, chatml, prompts, options) -> Iterator[Callable]:
    settings: dict[str, Any] = {}
    if model.device.type == "cpu":
        page = 256
        longest = max(map(len, prompts)) + options.max_new_tokens
        settings = {
            "page_size": page,
            "num_blocks": (-(-longest // page) + 1) * len(prompts),
            "max_batch_tokens": 512,
            "max_requests_per_batch": options.requests,
        }
    config = ContinuousBatchingConfig(**settings)

    def answer() -> list[list[int]]:
        results = model.generate_batch(
            prompts,
            generation_config=generation_config(chatml, options),
            continuous_batching_config=config,
        )
        faults = [result.error for result in results.values() if result.error]
        if faults or len(results) < len(prompts):
            raise SystemExit(f"generate_batch failed: {faults[:1] or 'answers are missing'}")
        return [until_stop(result.generated_tokens, chatml.stops) for result in results.values()]

    yield answer


def write_weights(model, chatml, folder: str, dtype: str) -> Path:
    "The model as a GGUF file with the same numbers"
    from toolcall.serve.gguf import write_gguf

    model.save_pretrained(folder)
    chatml.tokenizer.save_pretrained(folder)
    kind = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    return write_gguf(folder, Path(folder, "model.gguf"), kind=kind)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def llama_cpp(slots: int) -> Callable:
    "llama.cpp's server with some slots"

    @contextmanager
    def make(model, chatml, prompts, options) -> Iterator[Callable]:
        import httpx2
        import xllamacpp

        with tempfile.TemporaryDirectory() as folder:
            parameters = xllamacpp.CommonParams()
            parameters.verbosity = 0
            parameters.model.path = str(write_weights(model, chatml, folder, options.dtype))
            parameters.port = free_port()
            parameters.n_parallel = slots
            longest = max(map(len, prompts)) + options.max_new_tokens
            parameters.n_ctx = slots * (longest + 64)
            threads = torch.get_num_threads()
            parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
            server = xllamacpp.Server(parameters)
            with httpx2.Client(trust_env=False, timeout=600) as client:

                def ask(prompt: list[int]) -> list[int]:
                    body = {
                        "prompt": prompt,
                        "n_predict": options.max_new_tokens,
                        "temperature": 0,
                        "cache_prompt": True,
                        "return_tokens": True,
                    }
                    reply = client.post(f"{server.listening_address}/completion", json=body).json()
                    # the server keeps the stop token to itself
                    return reply["tokens"] + [min(chatml.stops)] * (reply["stop_type"] == "eos")

                def answer() -> list[list[int]]:
                    with ThreadPoolExecutor(slots) as pool:
                        return list(pool.map(ask, prompts))

                yield answer

    return make


MAKERS: dict[str, Callable] = {
    "toolcall": toolcall_engine,
    "batch": padded_batches(None),
    "alone": padded_batches(1),
    "generate_batch": continuous,
}


if __name__ == "__main__":
    main()
