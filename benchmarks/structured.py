"""Metrics and speed with structured decoding off and on, in one run.

    python benchmarks/structured.py RUN [--turns 120] [--rounds 3] [--max-new-tokens 96]

RUN is the output folder of a finished run. Its model answers the same held-out turns both ways,
in turn, in one process.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch

from toolcall.chatml import ChatML, encode
from toolcall.curate import load_conversations
from toolcall.evaluate import evaluate
from toolcall.generate import HFEngine
from toolcall.models import best_device, fast_dtype, load_model

SHOWN = (
    "exact_match",
    "tool_selection_accuracy",
    "parse_rate",
    "schema_valid_rate",
    "hallucinated_tool_rate",
    "irrelevance_accuracy",
    "cut_rate",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="output folder of a finished run")
    parser.add_argument("--turns", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    options = parser.parse_args()
    model, tokenizer = load_model(options.run, dtype=fast_dtype())
    chatml = ChatML(tokenizer)
    examples = encode(chatml, load_conversations(options.run / "data" / "test.jsonl")).examples[
        : options.turns
    ]
    engines = {
        way: HFEngine(model, chatml, max_new_tokens=options.max_new_tokens, structured=way == "on")
        for way in ("off", "on")
    }
    prompts = [engines["on"].prompt(example) for example in examples]
    seconds: dict[str, list[float]] = {"off": [], "on": []}
    outputs: dict[str, list] = {}
    for engine in engines.values():
        engine.generate(prompts, progress=False)  # warm up, and compile the catalogues
    for _ in range(options.rounds):
        for way, engine in engines.items():
            started = time.perf_counter()
            outputs[way] = engine.generate(prompts, progress=False)
            seconds[way].append(time.perf_counter() - started)
    scores = {
        way: evaluate(examples, of_way, parse=chatml.parse).metrics
        for way, of_way in outputs.items()
    }
    catalogues = {json.dumps(example.conversation.tools) for example in examples}
    print(
        f"{len(examples)} turns, {len(catalogues)} catalogues, {model.dtype}, {best_device()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {options.rounds} rounds"
    )
    print(f"{'structured':<26} {'off':>32} {'on':>32}")
    for metric in SHOWN:
        print(f"{metric:<26} {str(scores['off'][metric]):>32} {str(scores['on'][metric]):>32}")
    many = len(prompts)
    for way, times in seconds.items():
        tokens = sum(output.new_tokens for output in outputs[way])
        print(
            f"{way}: {many / statistics.median(times):.2f} answers/s "
            f"({many / max(times):.2f}–{many / min(times):.2f}), {tokens:,} new tokens"
        )
    print(f"on / off: {statistics.median(seconds['off']) / statistics.median(seconds['on']):.2f}")


if __name__ == "__main__":
    main()
