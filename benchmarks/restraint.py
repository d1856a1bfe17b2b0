"""What keeps a tuned model from calling when it should not, lever by lever.

    python benchmarks/restraint.py train FOLDER [--log LOG] [--levers none taken_away …]
        [--seeds 0 1 2] [--epochs 1] [--batch-size 16] [--conversations N] [--processes 1]
    python benchmarks/restraint.py table FOLDER [FOLDER …]

`train` trains the embedded model on a log (the sample log without `--log`) once for each lever and
seed; `base` is the model before training. Each model answers the same held-out turns greedily, then
the turns with calls again without the tools that they call, and all turns again under other names
of tools and parameters, which are made in another way than those of the training. Retention is what
the model keeps of the base's own answers to neutral prompts, none of them rehearsed. One JSON file
a model counts by conversation what is right, and holds no text of the log.

`table` prints the means over the seeds; intervals are 95 %, and draw whole conversations, the same
for all seeds of a lever.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

from toolcall.conversation import Conversation
from toolcall.evaluate.intervals import Metric, ratio
from toolcall.turn import Example

LEVERS: dict[str, dict[str, Any]] = {
    "base": {},
    "none": {},
    "taken_away": {"taken_away": 0.5},
    "decision": {"weights": {"decision": 5.0}},
    "other_catalogues": {"other_catalogues": 0.5},
    "rehearsal": {"rehearsal": 100},
    "words_twice": {"words": 2},
    "lora": {"lora": True},
    "taken_away+rehearsal": {"taken_away": 0.5, "rehearsal": 100},
    "all": {"taken_away": 0.5, "other_catalogues": 0.5, "rehearsal": 100},
    "all+decision": {
        "taken_away": 0.5,
        "other_catalogues": 0.5,
        "rehearsal": 100,
        "weights": {"decision": 5.0},
    },
}
METRICS = (
    "exact_match",
    "irrelevance_accuracy",
    "call_decision_recall",
    "removed",
    "absent_tool",
    "renamed",
    "retention",
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    train = commands.add_parser("train")
    train.add_argument("folder")
    train.add_argument("--log", default="", help="default: the sample log")
    train.add_argument("--levers", nargs="+", default=list(LEVERS), choices=LEVERS)
    train.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    train.add_argument("--epochs", type=float, default=1)
    train.add_argument("--batch-size", type=int, default=16)
    train.add_argument("--conversations", type=int, default=100_000, help="of the training set")
    train.add_argument("--turns", type=int, default=400, help="most held-out turns")
    train.add_argument("--test", type=float, default=0.28, help="share of held-out conversations")
    train.add_argument("--max-length", type=int, default=2048)
    train.add_argument("--max-new-tokens", type=int, default=96)
    train.add_argument("--neutral", type=int, default=80, help="prompts that measure retention")
    train.add_argument("--processes", type=int, default=1, help="models at a time, on a GPU")
    table = commands.add_parser("table")
    table.add_argument("folders", nargs="+")
    options = parser.parse_args(argv)
    if options.command == "table":
        print(make_table(options.folders))
        return 0
    Path(options.folder).mkdir(parents=True, exist_ok=True)
    jobs = [(lever, seed) for seed in options.seeds for lever in options.levers]
    jobs = [(lever, seed) for lever, seed in jobs if lever != "base" or seed == options.seeds[0]]
    jobs = [job for job in jobs if not result_file(options.folder, *job).exists()]
    if options.processes > 1:
        return run_processes(argv or sys.argv[1:], jobs, options.processes)
    for lever, seed in jobs:
        measure(options, lever, seed)
    return 0


def run_processes(arguments: list[str], jobs: list[tuple[str, int]], most: int) -> int:
    "Measure several models at a time"
    if "--processes" in arguments:
        place = arguments.index("--processes")
        arguments = [*arguments[:place], *arguments[place + 2 :]]
    running: list[subprocess.Popen] = []
    failed = 0
    for lever, seed in jobs:
        while len(running) >= most:
            time.sleep(0.2)
            failed += sum(bool(one.poll()) for one in running)
            running = [one for one in running if one.poll() is None]
        one_job = ["--levers", lever, "--seeds", str(seed)]
        running.append(subprocess.Popen([sys.executable, __file__, *arguments, *one_job]))
    return failed + sum(bool(one.wait()) for one in running)


def result_file(folder: str, lever: str, seed: int) -> Path:
    return Path(folder, f"{lever}-{seed}.json")


def load_sets(options: argparse.Namespace) -> tuple[list[Conversation], list[Conversation]]:
    "Training and held-out conversations, the same for all levers and seeds"
    from toolcall.curate import curate, split
    from toolcall.logs import read_logs
    from toolcall.samples import sample_log
    from toolcall.text import fingerprint

    log = read_logs(options.log or sample_log())
    sets = split(curate(log.conversations).conversations, validation=0.08, test=options.test)

    def drawn(conversations: Sequence[Conversation]) -> list[Conversation]:
        return sorted(conversations, key=lambda one: fingerprint(one.id))

    held_out, turns = [], 0
    for conversation in drawn(sets.test):
        if (turns := turns + len(conversation.turns)) > options.turns:
            break
        held_out.append(conversation)
    return drawn(sets.train)[: options.conversations], held_out


def measure(options: argparse.Namespace, lever: str, seed: int) -> None:
    "Train and score one model, and write what came out"
    import torch

    from toolcall.chatml import ChatML, encode
    from toolcall.models import fast_dtype, load_model

    started = time.monotonic()
    training, held_out = load_sets(options)
    settings = LEVERS[lever]
    model, tokenizer = load_model("SmolLM2-135M-Instruct", dtype=torch.float32)
    chatml = ChatML(tokenizer)
    tested = encode(chatml, held_out, max_length=options.max_length).examples
    retention = Kept(model, chatml, options.neutral)
    learned: list[Example] = []
    if lever != "base":
        learned = make_examples(options, chatml, model, training, lever, seed)
        model = trained(options, model, tokenizer, learned, settings, seed)
    seconds = time.monotonic() - started
    kept = retention.of(model.eval())
    result = scored(options, model.to(fast_dtype()), chatml, tested) | {"retention": kept}
    about = {
        "lever": lever,
        "seed": seed,
        "epochs": options.epochs,
        "batch size": options.batch_size,
        "examples": len(learned),
        "tokens": sum(map(len, learned)),
        "seconds": round(seconds),
        "device": device_name(),
        "torch": torch.__version__,
    }
    counts = counted(result)
    result_file(options.folder, lever, seed).write_text(json.dumps(about | {"counts": counts}))
    print(lever, seed, summary(counts), f"{seconds:.0f} s", flush=True)


def device_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "a CPU"


def make_examples(options, chatml, model, training, lever: str, seed: int) -> list[Example]:
    from toolcall.chatml import encode
    from toolcall.chatml.restraint import other_catalogues, taken_away
    from toolcall.pipeline.rehearsal import rehearse

    settings = LEVERS[lever]
    shown = other_catalogues(training, settings.get("other_catalogues", 0), seed=seed)
    examples = encode(chatml, shown, max_length=options.max_length).examples
    extra = taken_away(chatml, examples, settings.get("taken_away", 0), seed=seed)
    words = [example for example in examples if not example.calls]
    extra += words * (settings.get("words", 1) - 1)
    if number := settings.get("rehearsal", 0):
        extra += rehearse(model, chatml, number)
    return examples + extra


def trained(options, model, tokenizer, examples: list[Example], settings: dict, seed: int) -> Any:
    from transformers import PrinterCallback

    from toolcall.train import build_trainer, training_arguments

    lora = None
    if settings.get("lora"):
        from peft import LoraConfig

        lora = LoraConfig(r=16, lora_alpha=32, task_type="CAUSAL_LM", target_modules="all-linear")
    with tempfile.TemporaryDirectory() as folder:
        args = training_arguments(
            folder,
            per_device_train_batch_size=options.batch_size,
            num_train_epochs=options.epochs,
            learning_rate=1e-3 if lora else 3e-4,
            warmup_steps=5,
            save_strategy="no",
            seed=seed,
            disable_tqdm=True,
        )
        trainer = build_trainer(
            model, tokenizer, examples, args=args, weights=settings.get("weights"), lora=lora
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return trainer.model.merge_and_unload() if lora else trainer.model


# ---- scoring


def answers(options, model, chatml, examples: Sequence[Example]) -> list:
    from toolcall.generate import HFEngine

    engine = HFEngine(model, chatml, batch_size=128, max_new_tokens=options.max_new_tokens)
    return engine.generate([example.prompt_ids for example in examples], progress=False)


def scored(options, model, chatml, tested: list[Example]) -> dict[str, Any]:
    "Scores of the held-out turns, and of the same turns under other catalogues"
    from toolcall.chatml import encode
    from toolcall.evaluate import evaluate, make_variant

    evaluation = evaluate(tested, answers(options, model, chatml, tested), parse=chatml.parse)
    conversations = {example.conversation.id: example.conversation for example in tested}.values()
    varied = {}
    for kind in ("removed", "renamed"):
        turns = encode(chatml, make_variant(kind, conversations)).examples
        varied[kind] = evaluate(turns, answers(options, model, chatml, turns), parse=chatml.parse)
    return {
        "turns": [
            [s.conversation_id, s.turn, bool(s.expected), s.outcome, bool(s.exact)]
            for s in evaluation.scores
        ],
        "removed": [
            [s.conversation_id, s.outcome == "no_call", len(s.predicted) > s.offered]
            for s in varied["removed"].scores
        ],
        "renamed": [[s.conversation_id, s.turn, bool(s.exact)] for s in varied["renamed"].scores],
    }


class Kept:
    "The base's answers to neutral prompts, and what is kept of them"

    def __init__(self, model, chatml, number: int):
        from toolcall.evaluate.retention import PROMPTS
        from toolcall.generate import HFEngine
        from toolcall.pipeline.rehearsal import prompt_turns
        from toolcall.pipeline.retention import log_probabilities

        self.prompts = [turn.prompt_ids for turn in prompt_turns(chatml, PROMPTS[:number])]
        engine = HFEngine(model, chatml, max_new_tokens=32)
        outputs = engine.generate(self.prompts, progress=False)
        self.texts = [output.text for output in outputs]
        self.answers = [list(output.ids) for output in outputs]
        self.base = log_probabilities(model, self.prompts, self.answers)

    def of(self, model) -> list[list[float]]:
        "For each answer, the probability of the base's tokens that is kept, and the tokens"
        from toolcall.pipeline.retention import compare_answers, log_probabilities

        tuned = log_probabilities(model, self.prompts, self.answers)
        kept = compare_answers(self.texts, self.base, tuned)
        return [[min(answer.kept, answer.tokens), answer.tokens] for answer in kept.answers]


# ---- the table


def counted(result: dict[str, Any]) -> dict[str, list[list]]:
    "Hits and counts of each metric, summed over each conversation"
    turns, removed, renamed = result["turns"], result["removed"], result["renamed"]
    rows = {
        "exact_match": [(turn[0], turn[4], 1) for turn in turns],
        "irrelevance_accuracy": [(t[0], t[3] == "no_call", 1) for t in turns if not t[2]],
        "call_decision_recall": [(t[0], t[3] == "call", 1) for t in turns if t[2]],
        "removed": [(row[0], row[1], 1) for row in removed],
        "absent_tool": [(row[0], row[2], 1) for row in removed],
        "renamed": [(row[0], row[2], 1) for row in renamed],
        "retention": [(str(n), *kept) for n, kept in enumerate(result["retention"])],
    }
    counts = {}
    for metric, parts in rows.items():
        sums: dict[str, list[float]] = {}
        for group, hits, count in parts:
            total = sums.setdefault(group, [0, 0])
            total[0] += hits
            total[1] += count
        counts[metric] = [list(sums), *map(list, zip(*sums.values()))] if sums else [[], [], []]
    return counts


def summary(counts: dict[str, list[list]]) -> str:
    return " ".join(f"{name} {sum(a) / max(sum(b), 1):.3f}" for name, (_, a, b) in counts.items())


def make_table(folders: Sequence[str]) -> str:
    "Means over the seeds, with intervals"
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.json"))]
    results: dict[str, list[dict]] = {}
    for file in files:
        result = json.loads(file.read_text())
        results.setdefault(result["lever"], []).append(result["counts"])
    rows = [f"{'lever':<22} seeds " + " ".join(f"{name[:20]:>21}" for name in METRICS)]
    for lever in (lever for lever in LEVERS if lever in results):
        cells = [str(share([one[name] for one in results[lever]])) for name in METRICS]
        rows.append(f"{lever:<22} {len(results[lever]):>5} " + " ".join(f"{c:>21}" for c in cells))
    return "\n".join(rows)


def share(seeds: Sequence[list[list]]) -> Metric:
    "The share over all seeds, and a 95 % interval that draws conversations, the same for all seeds"
    groups = [name for names, _, _ in seeds for name in names]
    hits = [one for _, part, _ in seeds for one in part]
    counts = [one for _, _, part in seeds for one in part]
    return ratio(hits, counts, groups)


if __name__ == "__main__":
    sys.exit(main())
