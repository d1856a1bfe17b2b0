"""Rows a second: toolcall's proven examples against `apply_chat_template` with a mask, row by row.

    python benchmarks/encode.py LOG [LOG …] [--template qwen2_5] [--rounds 5] [--workers N]

A row is one assistant turn with its history. Both sides run in turn, in the same process, on
Qwen's real vocabulary; the baseline gets TRL's training template, which has the `generation`
marks that its mask needs. Toolcall starts anew in each round, with nothing cached, and its rows
are proven, which the baseline's are not. It runs in one process and in several (default: one a
core). The ratios are those of the medians.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from conftest import make_tokenizer

from toolcall.chatml import ChatML, encode
from toolcall.curate import curate
from toolcall.logs import read_logs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", help="logs of any format")
    parser.add_argument(
        "--template",
        default="qwen2_5",
        help="a template of TRL that has a training twin: qwen2_5, qwen3, qwen3_instruct_2507",
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--workers",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="processes of the second run",
    )
    parser.add_argument(
        "--sample", type=int, default=200, help="rows of the baseline in each round"
    )
    options = parser.parse_args()
    baseline = make_tokenizer(f"{options.template}_training")
    several_processes = f"{options.workers} processes"
    print(f"rows a second, medians of {options.rounds} rounds")
    print(
        f"{'log':<33} {'rows':>6} {'baseline':>9} {'1 process':>10} {'ratio':>6} "
        f"{several_processes:>12} {'ratio':>6}   ranges"
    )
    for log in options.logs:
        conversations = curate(read_logs(log).conversations).conversations
        rows = [
            (conversation, turn) for conversation in conversations for turn in conversation.turns
        ]
        sample = rows[:: max(1, len(rows) // options.sample)]
        speeds: dict[str, list[float]] = {"baseline": [], "1": [], "n": []}
        for _ in range(options.rounds):
            started = time.perf_counter()
            for row in sample:
                mask(baseline, *row)
            speeds["baseline"].append(len(sample) / (time.perf_counter() - started))
            for name, workers in (("1", 1), ("n", options.workers)):
                tokenizer = make_tokenizer(options.template)
                started = time.perf_counter()
                encode(ChatML(tokenizer, "native"), conversations, workers=workers)
                speeds[name].append(len(rows) / (time.perf_counter() - started))
        base, one, several = (statistics.median(runs) for runs in speeds.values())
        ranges = ", ".join(f"{min(runs):,.0f}–{max(runs):,.0f}" for runs in speeds.values())
        print(
            f"{Path(log).name[:33]:<33} {len(rows):>6,} {base:>9,.0f} "
            f"{one:>10,.0f} {one / base:>5.1f}x "
            f"{several:>12,.0f} {several / base:>5.1f}x   {ranges}",
            flush=True,
        )


def mask(tokenizer, conversation, turn: int) -> dict:
    return tokenizer.apply_chat_template(
        conversation.messages[: turn + 1],
        tools=conversation.tools or None,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )


if __name__ == "__main__":
    main()
