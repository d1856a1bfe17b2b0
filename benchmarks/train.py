"""Speed and peak memory of training: token trees, TRL's `SFTTrainer`, padding to a fixed length.

    python benchmarks/train.py LOG [LOG …] [--rounds 3] [--steps 3] [--max-tokens 4096]

All train the embedded model on the same examples, one a turn, with the same optimizer and
precision, on this machine. A logical token is a token of an example's prompt or completion,
however often it is computed. TRL packs (best fit decreasing), computes loss on completions alone
with its default loss, and gets the examples tokenised already. `padded` is the usual recipe: one
example a line, padded to a fixed length, loss on everything. `checkpointed` is toolcall with
`gradient_checkpointing`, which trades speed for memory. Each way runs in a process of its own,
in turn; the first step is not timed. Peak memory is the process's largest resident set, or the
GPU's allocation where there is one. Ratios are of medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import torch
from transformers import Trainer

from toolcall.chatml import ChatML, encode
from toolcall.curate import curate
from toolcall.logs import read_logs
from toolcall.models import load_model
from toolcall.train import build_trainer, training_arguments
from toolcall.train.estimate import StepClock
from toolcall.train.throughput import peak_memory

WAYS = ("toolcall", "checkpointed", "trl", "padded")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("logs", nargs="+", help="logs of any format")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="timed steps of each round")
    parser.add_argument(
        "--max-tokens",
        type=int,
        default=4096,
        help="tokens that are computed in a step, in each way",
    )
    parser.add_argument("--conversations", type=int, default=400, help="of each log; 0: all")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.ways[0], options.logs[0], options)))
        return
    print(
        f"{options.rounds} rounds of {options.steps} steps of {options.max_tokens} tokens, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}\n"
        f"{'log':<34} {'way':<12} {'logical tokens/s':>17} {'range':>15} {'x TRL':>7} "
        f"{'peak GB':>8} {'of TRL':>7} {'computed tokens/s':>18}"
    )
    for log in options.logs:
        runs: dict[str, list[dict]] = {way: [] for way in options.ways}
        for _ in range(options.rounds):
            for way in options.ways:
                command = [
                    sys.executable,
                    __file__,
                    log,
                    "--one",
                    "--ways",
                    way,
                    *(
                        str(part)
                        for name in ("steps", "max_tokens", "conversations")
                        for part in (f"--{name.replace('_', '-')}", getattr(options, name))
                    ),
                ]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{way} on {log} failed:\n{done.stderr[-2000:]}")
                runs[way].append(json.loads(done.stdout.splitlines()[-1]))
        medians = {
            way: {key: statistics.median(run[key] for run in of_way) for key in of_way[0]}
            for way, of_way in runs.items()
        }
        base = medians.get("trl")
        for way, median in medians.items():
            speeds = [run["logical"] for run in runs[way]]
            speed_range = f"{min(speeds):,.0f}–{max(speeds):,.0f}"
            speed_ratio = f"{median['logical'] / base['logical']:.2f}" if base else ""
            memory_ratio = f"{median['memory'] / base['memory']:.2f}" if base else ""
            print(
                f"{Path(log).name[:34]:<34} {way:<12} {median['logical']:>17,.0f} "
                f"{speed_range:>15} {speed_ratio:>7} {median['memory']:>8.1f} {memory_ratio:>7} "
                f"{median['computed']:>18,.0f}",
                flush=True,
            )


class Counted:
    "A collator that counts tokens"

    def __init__(self, collator, logical) -> None:
        self.collator, self.logical = collator, logical
        self.counts: list[tuple[int, int]] = []

    def __call__(self, rows):
        batch = self.collator(rows)
        self.counts.append((self.logical(rows), batch["input_ids"].numel()))
        return batch


def measure(way: str, log: str, options: argparse.Namespace) -> dict[str, float]:
    conversations = curate(read_logs(log).conversations).conversations
    step = max(1, len(conversations) // (options.conversations or len(conversations)))
    model, tokenizer = load_model("SmolLM2-135M-Instruct")
    examples = [
        example
        for example in encode(ChatML(tokenizer), conversations[::step]).examples
        if len(example) <= options.max_tokens
    ]
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = {"toolcall": trees, "checkpointed": checkpointed, "trl": trl, "padded": padded}[
            way
        ](model, tokenizer, examples, folder, options)
        trainer.data_collator = counted = Counted(
            trainer.data_collator,
            lambda rows: sum(
                len(row["input_ids"])
                if "input_ids" in row
                else len(row["prompt_ids"]) + len(row["completion_ids"])
                for row in rows
            ),
        )
        trainer.add_callback(clock)
        trainer.train()
    seconds = clock.ends[-1] - clock.ends[0]
    timed = counted.counts[1 : options.steps + 1]
    return {
        "logical": sum(logical for logical, _ in timed) / seconds,
        "computed": sum(computed for _, computed in timed) / seconds,
        "memory": peak_memory(),
    }


def settings(folder: str, options: argparse.Namespace) -> dict:
    args = training_arguments(folder)
    keep = (
        "bf16",
        "use_cpu",
        "learning_rate",
        "weight_decay",
        "max_grad_norm",
        "seed",
        "report_to",
    )
    return {key: getattr(args, key) for key in keep} | {
        "optim": str(args.optim.value),
        "max_steps": options.steps + 1,
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
    }


def trees(model, tokenizer, examples, folder, options, **more) -> Trainer:
    args = training_arguments(
        folder, **settings(folder, options), per_device_train_batch_size=100_000, **more
    )
    return build_trainer(model, tokenizer, examples, args=args, max_tokens=options.max_tokens)


def checkpointed(*args) -> Trainer:
    return trees(*args, gradient_checkpointing=True)


def trl(model, tokenizer, examples, folder, options) -> Trainer:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_dict(
        {
            "input_ids": [e.prompt_ids + e.completion_ids for e in examples],
            "completion_mask": [
                [0] * len(e.prompt_ids) + [1] * len(e.completion_ids) for e in examples
            ],
        }
    )
    args = SFTConfig(
        folder,
        **settings(folder, options),
        per_device_train_batch_size=1,
        packing=True,
        max_length=options.max_tokens,
        completion_only_loss=True,
        gradient_checkpointing=False,
    )
    return SFTTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer)


def padded(model, tokenizer, examples, folder, options) -> Trainer:
    width = max(map(len, examples))
    many = max(1, options.max_tokens // width)

    def collate(rows):
        ids = [
            row["input_ids"] + [tokenizer.pad_token_id] * (width - len(row["input_ids"]))
            for row in rows
        ]
        mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "labels": torch.tensor(ids),
        }

    args = training_arguments(folder, **settings(folder, options), per_device_train_batch_size=many)
    return Trainer(
        model,
        args=args,
        train_dataset=[{"input_ids": e.prompt_ids + e.completion_ids} for e in examples],
        data_collator=collate,
    )


if __name__ == "__main__":
    main()
