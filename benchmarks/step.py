"""Time one training step three ways, side by side in one run, on the sample log.

    python benchmarks/step.py [--rounds 3] [--batch 16]

Prints seconds a step (best and spread of the rounds) and the ratio to the first way:
padded rows with PyTorch's attention; one row with the shared prompt once, same attention; one row, segment by segment.
"""
import argparse
import os
import statistics
import time

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from toolcall.chatml import ChatML, encode
from toolcall.curate import curate
from toolcall.logs import read_logs
from toolcall.models import fast_dtype, load_model
from toolcall.samples import sample_log
from toolcall.train import SEGMENTED, Collator, PaddedCollator, completion_loss, to_dataset


def step(model, batch) -> float:
    "Seconds for forward and backward"
    batch = {key: value.to(model.device) for key, value in batch.items()}
    started = time.perf_counter()
    with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=fast_dtype() is torch.bfloat16):
        loss = completion_loss(model, batch)
    loss.backward()
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    model.zero_grad()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    model, tokenizer = load_model("SmolLM2-135M-Instruct")
    examples = encode(ChatML(tokenizer), curate(read_logs(sample_log()).conversations).conversations).examples[: options.batch]
    rows = list(to_dataset(examples))
    ways = {"padded rows, sdpa": (PaddedCollator(tokenizer.pad_token_id or 0), "sdpa"), "one row, sdpa": (Collator(), "sdpa"), "one row, segmented": (Collator(), SEGMENTED)}
    seconds = {name: [] for name in ways}
    for round_ in range(options.rounds + 1):  # the first warms up
        for name, (collator, attention) in ways.items():
            model.set_attn_implementation(attention)
            taken = step(model, collator(rows))
            if round_:
                seconds[name].append(taken)
    logical = sum(map(len, examples))
    first = statistics.median(seconds["padded rows, sdpa"])
    print(f"{options.batch} examples, {logical:,} logical tokens, {model.device}, {torch.get_num_threads()} threads, {fast_dtype()}")
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"{name:<20} {middle:6.2f} s [{min(values):.2f}, {max(values):.2f}]  {logical / middle:7.0f} logical tokens/s  {first / middle:5.2f} x")


if __name__ == "__main__":
    main()
