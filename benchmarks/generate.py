"""Answers a second: one prompt at a time, padded batches, and shared prefixes computed once.

    python benchmarks/generate.py LOG [--prompts 60] [--rounds 3] [--model FOLDER] [--dtype float32]

All three answer the same held-out prompts of the log with the same model and stop at the same
tokens, in turn, in one process. The first two are the model's own `generate`. Outputs are
compared token by token with those of the first way: in float32 they must be equal. Ratios are of
medians.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch

from toolcall.chatml import ChatML, encode
from toolcall.curate import curate, split
from toolcall.generate import HFEngine
from toolcall.logs import read_logs
from toolcall.models import best_device, load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("log", help="a log of any format")
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument(
        "--model", default="SmolLM2-135M-Instruct", help="a folder, or the embedded model's name"
    )
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    model, tokenizer = load_model(options.model, dtype=getattr(torch, options.dtype))
    chatml = ChatML(tokenizer)
    held_out = split(curate(read_logs(options.log).conversations).conversations).test
    prompts = [example.prompt_ids for example in encode(chatml, held_out).examples][
        : options.prompts
    ]
    stops = sorted(chatml.stops)
    engine = HFEngine(model, chatml, batch_size=len(prompts), max_new_tokens=options.max_new_tokens)

    def batched(size: int) -> list[list[int]]:
        emitted: list[list[int]] = []
        pad = tokenizer.pad_token_id
        for start in range(0, len(prompts), size):
            part = prompts[start : start + size]
            width = max(map(len, part))
            ids = torch.tensor(
                [[pad] * (width - len(prompt)) + prompt for prompt in part], device=model.device
            )
            mask = torch.tensor(
                [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in part],
                device=model.device,
            )
            with torch.inference_mode():
                rows = model.generate(
                    ids,
                    attention_mask=mask,
                    do_sample=False,
                    max_new_tokens=options.max_new_tokens,
                    eos_token_id=stops,
                    pad_token_id=pad,
                )[:, width:].tolist()
            for row in rows:
                ends = [place + 1 for place, token in enumerate(row) if token in stops]
                emitted.append(row[: min(ends, default=len(row))])
        return emitted

    ways = {
        "one at a time": lambda: batched(1),
        "batches": lambda: batched(len(prompts)),
        "toolcall": lambda: [
            list(output.ids) for output in engine.generate(prompts, progress=False)
        ],
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    outputs: dict[str, list[list[int]]] = {}
    ways["toolcall"]()  # warm up
    for _ in range(options.rounds):
        for way, answer in ways.items():
            started = time.perf_counter()
            outputs[way] = answer()
            seconds[way].append(time.perf_counter() - started)
    tokens = sum(map(len, outputs["one at a time"]))
    many = len(prompts)
    print(
        f"{many} prompts of {statistics.median(map(len, prompts)):.0f} tokens, "
        f"{tokens} new tokens, {options.dtype}, {best_device()}, "
        f"{torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {options.rounds} rounds"
    )
    print(
        f"{'way':<15} {'calls/s':>8} {'range':>14} {'x first':>8} {'x second':>9} "
        f"{'equal outputs':>14}"
    )
    medians = {way: statistics.median(times) for way, times in seconds.items()}
    for way, times in seconds.items():
        equal = sum(a == b for a, b in zip(outputs[way], outputs["one at a time"]))
        speed_range = f"{many / max(times):.2f}–{many / min(times):.2f}"
        print(
            f"{way:<15} {many / medians[way]:>8.2f} {speed_range:>14} "
            f"{medians['one at a time'] / medians[way]:>8.1f} "
            f"{medians['batches'] / medians[way]:>9.1f} {equal:>9}/{many}"
        )


if __name__ == "__main__":
    main()
