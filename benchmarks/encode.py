"""Rows a second: toolcall's proven examples against `apply_chat_template` with the assistant mask, row by row.

    python benchmarks/encode.py LOG [LOG …] [--template qwen2_5] [--rounds 5] [--workers 1]

A row is one assistant turn with its history. Both sides run in turn, in the same process, on Qwen's real vocabulary; the baseline gets TRL's
training template, which has the `generation` marks that its mask needs. Toolcall starts anew in each round, with nothing remembered, and its
rows are proven, which the baseline's are not. The ratio is that of the medians.
"""
import argparse
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
    parser.add_argument("--template", default="qwen2_5", help="a template of TRL that has a training twin: qwen2_5, qwen3, qwen3_instruct_2507")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=1, help="processes that toolcall encodes in")
    parser.add_argument("--sample", type=int, default=200, help="rows of the baseline in each round")
    options = parser.parse_args()
    baseline = make_tokenizer(f"{options.template}_training")
    print(f"{'log':<34} {'rows':>6} {'baseline':>10} {'toolcall':>10} {'ratio':>7}   rows a second, medians of {options.rounds} rounds")
    for log in options.logs:
        conversations = curate(read_logs(log).conversations).conversations
        rows = [(conversation, turn) for conversation in conversations for turn in conversation.turns]
        sample = rows[:: max(1, len(rows) // options.sample)]
        theirs, ours = [], []
        for _ in range(options.rounds):
            theirs.append(len(sample) / seconds(lambda: [mask(baseline, *row) for row in sample]))
            tokenizer = make_tokenizer(options.template)
            ours.append(len(rows) / seconds(lambda: encode(ChatML(tokenizer, "native"), conversations, workers=options.workers)))
        a, b = statistics.median(theirs), statistics.median(ours)
        print(f"{Path(log).name:<34} {len(rows):>6,} {a:>10,.0f} {b:>10,.0f} {b / a:>6.1f}x   baseline {min(theirs):,.0f}–{max(theirs):,.0f}, toolcall {min(ours):,.0f}–{max(ours):,.0f}", flush=True)


def mask(tokenizer, conversation, turn: int) -> dict:
    return tokenizer.apply_chat_template(conversation.messages[: turn + 1], tools=conversation.tools or None, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
