"""Speed and peak memory of training: token trees, TRL's `SFTTrainer` in its best ways, padding.

    python benchmarks/train.py LOG [LOG …] [--rounds 3] [--steps 2] [--max-tokens 4096]

All train the same model on the same examples with the same optimizer and precision, on this
machine; each computes about `max_tokens` tokens at a time. A step of TRL is one such batch, a step
of toolcall one tree of `examples` examples, computed in pieces; where they aren't given, as many as
make a tree of about four pieces. A logical token is a token of an example's prompt or completion,
one row a turn, in every way and however often it is computed.

    trees           toolcall
    checkpointed    toolcall with `gradient_checkpointing`, which trades speed for memory
    trl             TRL, one row a turn, packed (best fit decreasing)
    merged          TRL, one row a conversation with loss on each of its assistant turns, packed
    merged-padded   the same, not packed: rows of like length are padded to the longest
    padded          the usual recipe: one row a turn, padded to a fixed length, loss on everything

Where a template changes earlier turns, a merged conversation becomes several rows. TRL gets the
rows tokenised already and computes its default loss. Each way runs in a process of its own, in
turn; the first step is not timed. Speed is computed tokens a second times the logical tokens for
each computed one, over all rows of an epoch, so that it doesn't depend on which rows the timed
steps drew. Peak memory is the process's largest resident set, or the GPU's allocation where there
is one. Ratios are of medians, against the fastest of TRL's ways; the memory is that of the same
way. `ideal` is the share of the tokens that one tree of all examples would compute, `of step`
that of one tree of the examples of a step.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from baselines import (
    Counted,
    TokenRow,
    alike,
    merged,
    one_a_turn,
    padded_sum,
    plain_rows,
    right_padded,
)
from transformers import Trainer

from toolcall.chatml import ChatML, encode
from toolcall.curate import curate
from toolcall.logs import read_logs
from toolcall.models import load_model
from toolcall.packing.plan import plan_rows, sort_by_prefix
from toolcall.packing.tree import build_trie
from toolcall.train import build_trainer, training_arguments
from toolcall.train.estimate import StepClock
from toolcall.train.throughput import peak_memory
from toolcall.turn import Example

WAYS = ("trees", "checkpointed", "trl", "merged", "merged-padded", "padded")
OF_TRL = ("trl", "merged", "merged-padded")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("logs", nargs="+", help="logs of any format")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2, help="timed steps of each round")
    parser.add_argument("--max-tokens", type=int, default=4096, help="computed at a time")
    parser.add_argument("--examples", type=int, help="of a step of toolcall; default: 16 to 256")
    parser.add_argument("--conversations", type=int, default=400, help="of each log; 0: all")
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="a folder or a name")
    parser.add_argument("--ways", nargs="+", default=WAYS[:-1], choices=WAYS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.ways[0], options.logs[0], options)))
        return
    print(
        f"{options.rounds} rounds of {options.steps} steps, {options.max_tokens} tokens at a time, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, "
        f"torch {torch.__version__}\n"
        f"{'log':<28} {'way':<14} {'logical tokens/s':>16} {'range':>13} {'x best TRL':>10} "
        f"{'peak GB':>8} {'of TRL':>7} {'computed tokens/s':>18} {'ideal':>6} {'of step':>8}"
    )
    for log in options.logs:
        runs: dict[str, list[dict]] = {way: [] for way in options.ways}
        for _ in range(options.rounds):
            for way in options.ways:
                runs[way].append(run_alone(way, log, options))
        show(log, runs)


def run_alone(way: str, log: str, options: argparse.Namespace) -> dict[str, float]:
    names = ("steps", "max_tokens", "examples", "conversations", "model")
    settings = [
        str(part)
        for name in names
        for part in (f"--{name.replace('_', '-')}", getattr(options, name))
        if getattr(options, name) is not None
    ]
    command = [sys.executable, __file__, log, "--one", "--ways", way, *settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{way} on {log} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def show(log: str, runs: dict[str, list[dict]]) -> None:
    medians = {
        way: {key: statistics.median(run[key] for run in of_way) for key in of_way[0]}
        for way, of_way in runs.items()
    }
    of_trl = [medians[way] for way in OF_TRL if way in medians]
    best = max(of_trl, key=lambda median: median["logical"], default=None)
    for way, median in medians.items():
        speeds = [run["logical"] for run in runs[way]]
        speed_range = f"{min(speeds):,.0f}–{max(speeds):,.0f}"
        speed_ratio = f"{median['logical'] / best['logical']:.2f}" if best else ""
        memory_ratio = f"{median['memory'] / best['memory']:.2f}" if best else ""
        print(
            f"{Path(log).name[:28]:<28} {way:<14} {median['logical']:>16,.0f} "
            f"{speed_range:>13} {speed_ratio:>10} {median['memory']:>8.1f} {memory_ratio:>7} "
            f"{median['computed']:>18,.0f} {median['ideal']:>6.0%} {median['step']:>8.1%}",
            flush=True,
        )


def measure(way: str, log: str, options: argparse.Namespace) -> dict[str, float]:
    conversations = curate(read_logs(log).conversations).conversations
    step = max(1, len(conversations) // (options.conversations or len(conversations)))
    model, tokenizer = load_model(options.model)
    examples = [
        example
        for example in encode(ChatML(tokenizer), conversations[::step]).examples
        if len(example) <= options.max_tokens
    ]
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        make = {"trees": trees, "checkpointed": checkpointed, "padded": padded}.get(way, trl)
        trainer, epoch = make(way, model, tokenizer, examples, folder, options)
        trainer.data_collator = counted = Counted(trainer.data_collator)
        trainer.add_callback(clock)
        trainer.train()
    seconds = clock.ends[-1] - clock.ends[0]
    batches = trainer.args.gradient_accumulation_steps
    computed = sum(counted.computed[batches : batches * (options.steps + 1)]) / seconds
    logical = sum(map(len, examples))
    tree = build_trie([e.prompt_ids + e.completion_ids[:-1] for e in examples])
    return {
        "logical": computed * logical / epoch,
        "computed": computed,
        "memory": peak_memory(),
        "ideal": len(tree.ids) / epoch,
        "step": trainer.state.log_history[-2].get("share_of_ideal", math.nan),
    }


def settings(folder: str, options: argparse.Namespace) -> dict:
    args = training_arguments(folder)
    keep = ("bf16", "use_cpu", "learning_rate", "weight_decay", "max_grad_norm", "seed")
    return {key: getattr(args, key) for key in keep} | {
        "optim": str(args.optim.value),
        "report_to": "none",
        "max_steps": options.steps + 1,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }


def trees(way, model, tokenizer, examples, folder, options, **more) -> tuple[Trainer, int]:
    "A trainer, and the tokens that it computes in an epoch"
    args = training_arguments(
        folder,
        **settings(folder, options),
        per_device_train_batch_size=options.examples or of_a_step(examples, options.max_tokens),
        **more,
    )
    trainer = build_trainer(model, tokenizer, examples, args=args, max_tokens=options.max_tokens)
    rows = trainer.sampler(trainer.train_dataset, args.per_device_train_batch_size).rows(0)
    return trainer, sum(row.computed for row in rows)


def of_a_step(examples: list[Example], max_tokens: int) -> int:
    "Examples of a step, a power of two, whose tree has about four times the tokens of a piece"
    prefixes = sort_by_prefix(examples)
    many = 16
    while many < 256:
        rows = plan_rows(prefixes, max_tokens, max_examples=2 * many, pieces=True)
        if statistics.mean(row.computed for row in rows) > 4 * max_tokens:
            break
        many *= 2
    return many


def checkpointed(*args) -> tuple[Trainer, int]:
    return trees(*args, gradient_checkpointing=True)


def trl(way, model, tokenizer, examples, folder, options) -> tuple[Trainer, int]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = one_a_turn(examples) if way == "trl" else merged(examples)
    many = max(1, round(options.max_tokens * len(rows) / sum(len(row.ids) for row in rows)))
    packs = way != "merged-padded"
    if not packs:
        rows = alike(rows, many)
    columns = {"input_ids": [r.ids for r in rows], "assistant_masks": [r.supervised for r in rows]}
    args = SFTConfig(
        folder,
        **settings(folder, options),
        per_device_train_batch_size=1 if packs else many,
        packing=packs,
        max_length=options.max_tokens,
        gradient_checkpointing=False,
        train_sampling_strategy="random" if packs else "sequential",
    )
    dataset = Dataset.from_dict(columns)
    trainer = SFTTrainer(model, args=args, train_dataset=dataset, processing_class=tokenizer)
    if packs:
        return trainer, sum(map(len, trainer.train_dataset["input_ids"]))
    return trainer, padded_sum(rows, many)


def padded(way, model, tokenizer, examples, folder, options) -> tuple[Trainer, int]:
    width = max(map(len, examples))
    many = max(1, options.max_tokens // width)
    pad = tokenizer.pad_token_id
    rows = [
        TokenRow(e.prompt_ids + e.completion_ids + [pad] * (width - len(e)), [1] * width)
        for e in examples
    ]
    args = training_arguments(folder, **settings(folder, options), per_device_train_batch_size=many)
    trainer = Trainer(
        model, args=args, train_dataset=plain_rows(rows), data_collator=right_padded(pad)
    )
    return trainer, width * len(examples)


if __name__ == "__main__":
    main()
