"""Everything that is measured on a GPU, in one call with a limit on its time.

    python benchmarks/device.py [--minutes 8] [--log LOG --tokenizer FOLDER] [--out device.json]
    python benchmarks/device.py --tiny      # the same on a CPU with tiny shapes, in a minute

It runs the `#| gpu` cells of the pages, then trains and generates with random weights in the
shapes of real models, which serve for speed. The most important measurements come first; what the
time doesn't allow is left out, and listed. After each one the JSON file is written, with commit,
device and versions. Without a log the examples are random tokens, in number and length like the
requests of a coffee bar: a prompt of 930 tokens that all share, and 6 turns a conversation.

Ways of training, with the same optimizer and precision, about `max_tokens` computed tokens at a
time; a step of toolcall is a tree of 128 examples:

    trees, blocks    toolcall, flex_attention with block masks
    trees, mask      toolcall, PyTorch's fused attention with a mask
    turns            a plain `Trainer`: one row a turn
    merged           a plain `Trainer`: one row a conversation, loss on each assistant turn
    TRL, turns       the same by TRL's `SFTTrainer` where it is installed, packed
    TRL, merged
    padded           one row a turn, padded to a fixed length, loss on everything
    …, compiled      with torch.compile

The rows of the plain `Trainer` are of like length, padded on the right and need no mask, so that
attention is PyTorch's causal kernel. Logical tokens are those of one row a turn in every way. MFU
counts 6 operations for each weight outside embeddings and head, and computed token. `ideal` is
the share of the tokens that one tree of all examples would compute; in the JSON file stands also
that of one tree of the examples of a step.
"""

import argparse
import ast
import gc
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")  # steps differ in size

import torch
import transformers
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
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, PrinterCallback, Trainer
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from toolcall.conversation import Conversation
from toolcall.generate import HFEngine
from toolcall.packing.tree import build_trie
from toolcall.train import build_trainer, training_arguments
from toolcall.train.estimate import StepClock
from toolcall.train.throughput import chip_peak, peak_memory
from toolcall.turn import Example

ROOT = Path(__file__).resolve().parent.parent
SHAPES: dict[str, dict[str, Any]] = {
    "Qwen3-0.6B": dict(
        model_type="qwen3",
        vocab_size=151_936,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
        max_position_embeddings=40_960,
    ),
    "SmolLM2-135M": dict(
        model_type="llama",
        vocab_size=49_152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
    ),
    "LFM2-350M": dict(
        model_type="lfm2",
        vocab_size=65_536,
        hidden_size=1024,
        intermediate_size=6656,
        num_hidden_layers=16,
        num_attention_heads=16,
        num_key_value_heads=8,
        full_attn_idxs=[2, 5, 8, 10, 12, 14],
        tie_word_embeddings=True,
    ),
}
TINY = dict(
    vocab_size=512,
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
)
WARM_UP = 5  # steps that compile, choose kernels and take memory
WAYS = ("trees, blocks", "merged", "trees, mask", "turns", "TRL, merged", "TRL, turns", "padded")


@dataclass
class Session:
    "What is measured, the results so far, and the time that is left"

    options: argparse.Namespace
    examples: list[Example]
    deadline: float
    results: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, list[list[int]]] = field(default_factory=dict)  # of the first way, by shape

    @property
    def device(self) -> torch.device:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def run(self, name: str, seconds: float, measure: Callable[[], dict]) -> None:
        "Measure, unless the seconds that it takes are more than what is left"
        if time.monotonic() + seconds > self.deadline:
            self.results["left_out"][name] = f"it takes about {seconds:.0f} seconds"
            return
        started = time.monotonic()
        try:
            self.results["measured"][name] = measure()
        except Exception as error:  # one failure doesn't lose what follows
            self.results["failed"][name] = f"{type(error).__name__}: {error}"[:600]
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.results["seconds"][name] = round(time.monotonic() - started, 1)
        self.save()

    def save(self) -> None:
        file = Path(self.options.out)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(self.results, indent=1), encoding="utf-8")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8, help="all measurements together")
    parser.add_argument("--tiny", action="store_true", help="rehearse on this CPU")
    parser.add_argument("--log", default="", help="a log instead of random tokens")
    parser.add_argument("--tokenizer", default="SmolLM2-135M-Instruct", help="for the log")
    parser.add_argument("--max-tokens", type=int, default=0, help="of a step; default 8192")
    parser.add_argument("--steps", type=int, default=12, help="timed steps")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names to measure")
    parser.add_argument("--pages", nargs="*", default=None, help="default: all with gpu cells")
    parser.add_argument("--commit", default="", help="where git doesn't know it")
    parser.add_argument("--out", default=os.environ.get("OUT", ".") + "/device.json")
    options = parser.parse_args(argv)
    options.max_tokens = options.max_tokens or (256 if options.tiny else 8192)
    options.examples = 16 if options.tiny else 128
    options.steps = 1 if options.tiny else options.steps
    transformers.utils.logging.set_verbosity_error()
    session = Session(options, make_examples(options), time.monotonic() + 60 * options.minutes)
    session.results = {
        "about": about(options, session.device),
        **{part: {} for part in ("measured", "left_out", "failed", "seconds")},
    }
    for name, seconds, measure in plan(session):
        if any(part in name for part in options.only):
            session.run(name, seconds, measure)
    session.save()
    print(table(session.results))
    return session.results


def about(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    "Where the numbers come from"
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    packages = ("transformers", "accelerate", "trl", "kernels", "flash-attn")
    versions = {"torch": torch.__version__}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    on_gpu = device.type == "cuda"
    return {
        "commit": options.commit or commit or "unknown",
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {os.cpu_count()} cores",
        "versions": versions,
        "max_tokens": options.max_tokens,
        "log": Path(options.log).name if options.log else "random tokens, shaped like coffee",
        "weights": "random",
        "tiny": options.tiny,
    }


def plan(session: Session) -> Iterator[tuple[str, float, Callable[[], dict]]]:
    "What is measured, the most important first, and about how many seconds each takes"
    tiny = session.options.tiny
    quick, slow = (2, 2) if tiny else (15, 30)
    for page in gpu_pages(session.options):
        yield f"gpu cells of {page.stem}", quick, lambda page=page: run_page(page, session.device)
    shapes = session.options.shapes
    for shape in shapes:
        for way in WAYS[:4]:
            if "blocks" in way and (reason := no_blocks(session, shape)):
                session.results["left_out"][f"{shape}: {way}"] = reason
                continue
            yield f"{shape}: {way}", quick, trained(session, shape, way)
    for shape in shapes[:1]:
        for way in ("HFEngine", "generate_batch", "generate"):
            yield f"{shape}: {way}", slow, generated(session, shape, way)
    for shape in shapes:
        for way in WAYS[4:]:
            if find_spec("trl") or "TRL" not in way:
                yield f"{shape}: {way}", quick, trained(session, shape, way)
            else:
                session.results["left_out"][f"{shape}: {way}"] = "TRL is not installed"
    if not tiny:
        for shape in shapes[:2]:
            for way in ("trees, blocks, compiled", "trees, mask, compiled", "merged, compiled"):
                yield f"{shape}: {way}", 60, trained(session, shape, way)
    for shape in shapes[1:2]:
        for way in ("HFEngine", "generate_batch", "generate"):
            yield f"{shape}: {way}", slow, generated(session, shape, way)


def no_blocks(session: Session, shape: str) -> str:
    "Why a shape isn't trained with block masks, or an empty text"
    if session.device.type == "cpu":
        return "flex_attention has no gradient on a CPU"
    return "its convolutions take no block masks" if shape == "LFM2-350M" else ""


# ---- the pages


def gpu_pages(options: argparse.Namespace) -> list[Path]:
    "Pages with a cell that begins with `#| gpu`; tutorials take longer than a call"
    if options.pages is not None:
        return [Path(page) for page in options.pages]
    pages = sorted((ROOT / "nbs").glob("[0-9]*/*.ipynb"))
    return [page for page in pages if '"#| gpu' in page.read_text(encoding="utf-8")]


def run_page(page: Path, device: torch.device) -> dict:
    "Run the cells of a page up to the last one for a GPU, and show what these return"
    cells = [
        "".join(cell["source"])
        for cell in json.loads(page.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "code"
    ]
    of_gpu = [number for number, cell in enumerate(cells) if cell.startswith("#| gpu")]
    if device.type != "cuda":
        return {"cells": f"{len(of_gpu)} of {len(cells)} need a GPU"}
    names: dict[str, Any] = {"__name__": "page"}
    shown = []
    for number, cell in enumerate(cells[: of_gpu[-1] + 1]):
        if not cell.startswith(("#| slow", "#| hide")):
            value = run_cell(cell, names)
            if number in of_gpu:
                shown.append(str(value))
    return {"cells": "; ".join(shown)}


def run_cell(source: str, names: dict[str, Any]) -> Any:
    "Run a cell, and return the value of its last expression"
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), "cell", "exec"), names)
    return eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None


# ---- examples


def make_examples(options: argparse.Namespace) -> list[Example]:
    "Examples of a log, or of random tokens"
    if options.log:
        from toolcall.chatml import ChatML, encode
        from toolcall.curate import curate
        from toolcall.logs import read_logs
        from toolcall.models import load_tokenizer

        conversations = curate(read_logs(options.log).conversations).conversations
        examples = encode(ChatML(load_tokenizer(options.tokenizer)), conversations).examples
        return [example for example in examples if len(example) <= options.max_tokens]
    return random_examples(tiny=options.tiny)


def random_examples(*, tiny: bool) -> list[Example]:
    "Conversations with a common prompt, whose turns repeat the history"
    rng = random.Random(0)
    prefix, conversations, vocabulary = (40, 10, 500) if tiny else (930, 240, 48_000)
    sizes = ((4, 9), (3, 8)) if tiny else ((30, 100), (12, 50))
    stem = [rng.randrange(4, vocabulary) for _ in range(prefix)]
    examples = []
    for number in range(conversations):
        history = stem
        conversation = Conversation(str(number), [], [])
        for turn in range(rng.randint(3, 9)):
            asked, answered = (
                [rng.randrange(4, vocabulary) for _ in range(rng.randint(*size))] for size in sizes
            )
            prompt = history + asked
            examples.append(Example(prompt, [*answered, 2], conversation, turn))
            history = prompt + examples[-1].completion_ids
    return examples


def plain_tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    "A tokenizer that knows its special tokens; the examples are tokens already"
    words = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3}
    words |= {f"w{number}": number for number in range(4, vocabulary)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, "<unk>")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    )


def make_model(session: Session, shape: str, dtype: torch.dtype, **options) -> Any:
    "A model with random weights on the device"
    sizes = SHAPES[shape] | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if session.options.tiny:
        sizes = {key: value for key, value in sizes.items() if key != "full_attn_idxs"} | TINY
        sizes |= {"layer_types": ["conv", "full_attention"]} if shape == "LFM2-350M" else {}
    config = transformers.AutoConfig.for_model(**sizes)
    torch.manual_seed(0)
    with session.device:
        return AutoModelForCausalLM.from_config(config, dtype=dtype, **options)


# ---- training


def trained(session: Session, shape: str, way: str) -> Callable[[], dict]:
    "A measurement of a way of training"
    return lambda: train(session, shape, way)


def train(session: Session, shape: str, way: str) -> dict[str, Any]:
    options = session.options
    on_gpu = session.device.type == "cuda"
    kind = way.removesuffix(", compiled")
    attention = "flex_attention" if "blocks" in kind else "sdpa"
    model = make_model(session, shape, torch.float32, attn_implementation=attention)
    tokenizer = plain_tokenizer(model.config.vocab_size)
    operations = 6 * sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if "embed" not in name and "lm_head" not in name
    )
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        settings = dict(
            output_dir=folder,
            max_steps=options.steps + WARM_UP,
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            torch_compile=way.endswith(", compiled"),
        )
        trainer, epoch = make_trainer(kind, model, tokenizer, session.examples, settings, options)
        trainer.data_collator = counted = Counted(trainer.data_collator)
        trainer.add_callback(clock)
        trainer.remove_callback(PrinterCallback)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        trainer.train()
    seconds = clock.ends[-1] - clock.ends[WARM_UP - 1]
    computed = sum(counted.computed[WARM_UP : options.steps + WARM_UP]) / seconds
    peak = chip_peak(torch.cuda.get_device_name()) if on_gpu else None
    logical = sum(map(len, session.examples))
    tree = build_trie([e.prompt_ids + e.completion_ids[:-1] for e in session.examples])
    refused = [str(w.message) for w in warned if "instead of token trees" in str(w.message)]
    return {
        "seconds_per_step": seconds / options.steps,
        "logical_per_second": computed * logical / epoch,
        "computed_per_second": computed,
        "memory_gib": peak_memory(),
        "mfu": computed * operations / peak if peak else None,
        "ideal": len(tree.ids) / epoch,
        "ideal_of_step": trainer.state.log_history[0].get("share_of_ideal"),
        "loss": trainer.state.log_history[0].get("loss"),
        **({"note": refused[0]} if refused else {}),
    }


def make_trainer(
    way: str, model, tokenizer, examples: list[Example], settings: dict, options
) -> tuple[Trainer, int]:
    "A trainer, and the tokens that it computes in an epoch"
    if way.startswith("trees"):
        args = training_arguments(**settings, per_device_train_batch_size=options.examples)
        trainer = build_trainer(
            model, tokenizer, examples, args=args, max_tokens=options.max_tokens
        )
        rows = trainer.sampler(trainer.train_dataset, args.per_device_train_batch_size).rows(0)
        return trainer, sum(row.computed for row in rows)
    rows = merged(examples) if "merged" in way else one_a_turn(examples)
    if way == "padded":
        width = max(map(len, examples))
        rows = [
            TokenRow(row.ids + [0] * (width - len(row.ids)), [1] * width, row.logical)
            for row in rows
        ]
    mean = sum(len(row.ids) for row in rows) / len(rows)
    many = max(1, round(options.max_tokens / mean))
    if way.startswith("TRL"):
        return trl_trainer(model, tokenizer, rows, settings, options)
    rows = alike(rows, many)
    args = training_arguments(
        **settings, per_device_train_batch_size=many, train_sampling_strategy="sequential"
    )
    trainer = Trainer(
        model, args=args, train_dataset=plain_rows(rows), data_collator=right_padded(0)
    )
    return trainer, padded_sum(rows, many)


def trl_trainer(model, tokenizer, rows, settings: dict, options) -> tuple[Trainer, int]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    ours = training_arguments(**settings)
    same = ("bf16", "use_cpu", "learning_rate", "weight_decay", "max_grad_norm", "report_to")
    args = SFTConfig(
        **settings | {key: getattr(ours, key) for key in same},
        optim=str(ours.optim.value),
        per_device_train_batch_size=1,
        packing=True,
        max_length=options.max_tokens,
        gradient_checkpointing=False,
    )
    columns = {"input_ids": [r.ids for r in rows], "assistant_masks": [r.supervised for r in rows]}
    trainer = SFTTrainer(
        model,
        args=args,
        train_dataset=Dataset.from_dict(columns),
        processing_class=tokenizer,
    )
    return trainer, sum(map(len, trainer.train_dataset["input_ids"]))


# ---- generation


def generated(session: Session, shape: str, way: str) -> Callable[[], dict]:
    "A measurement of a way of generating"
    return lambda: generate(session, shape, way)


def generate(session: Session, shape: str, way: str) -> dict[str, Any]:
    "Answer prompts with random weights, which don't stop before the limit"
    many, new = (4, 4) if session.options.tiny else (64, 64)
    on_gpu = session.device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else torch.float32
    model = make_model(session, shape, dtype, attn_implementation="sdpa").eval()
    model.generation_config.eos_token_id = None
    prompts = [
        example.prompt_ids for example in session.examples[:: max(1, len(session.examples) // many)]
    ]
    prompts = prompts[:many]
    answer = answers(way, model, prompts, new)
    answer(2)  # warm up
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
    started = time.perf_counter()
    outputs = answer(new)
    seconds = time.perf_counter() - started
    first = session.outputs.setdefault(shape, outputs)
    return {
        "answers_per_second": len(prompts) / seconds,
        "new_tokens_per_second": sum(map(len, outputs)) / seconds,
        "memory_gib": peak_memory(),
        "equal_first_tokens": sum(a[0] == b[0] for a, b in zip(outputs, first)) / len(prompts),
        "equal": sum(a == b for a, b in zip(outputs, first)) / len(prompts),
    }


def answers(way: str, model, prompts: list[list[int]], most: int) -> Callable:
    "A function of the number of new tokens"
    if way == "HFEngine":
        renderer: Any = SimpleNamespace(
            stops=set(), tokenizer=plain_tokenizer(model.config.vocab_size)
        )

        def engine(new: int) -> list[list[int]]:
            engine = HFEngine(model, renderer, batch_size=len(prompts), max_new_tokens=new)
            engine.opener = None  # random tokens open no call
            return [list(output.ids) for output in engine.generate(prompts, progress=False)]

        return engine

    def config(new: int) -> transformers.GenerationConfig:
        return transformers.GenerationConfig(
            do_sample=False, max_new_tokens=new, eos_token_id=-1, pad_token_id=0
        )

    if way == "generate_batch":
        cache: dict[str, Any] = {}  # of the size that it chooses on a GPU
        if model.device.type == "cpu":
            cache = {"num_blocks": 4 * len(prompts), "max_batch_tokens": 512}

        def continuous(new: int) -> list[list[int]]:
            results = model.generate_batch(
                prompts,
                generation_config=config(new),
                continuous_batching_config=ContinuousBatchingConfig(**cache),
            )
            return [list(result.generated_tokens) for result in results.values()]

        return continuous

    def padded(new: int) -> list[list[int]]:
        width = max(map(len, prompts))
        ids = [[0] * (width - len(prompt)) + prompt for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        with torch.inference_mode():
            return model.generate(
                torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                generation_config=config(new),
            )[:, width:].tolist()

    return padded


# ---- the table


def table(results: dict[str, Any]) -> str:
    "The results as text; ratios are against the best way that shares nothing or merges"
    lines = [" · ".join(f"{name} {value}" for name, value in results["about"].items())]
    measured = results["measured"]
    for shape in SHAPES:
        trained_ways = {
            name.removeprefix(f"{shape}: "): values
            for name, values in measured.items()
            if name.startswith(f"{shape}: ") and "logical_per_second" in values
        }
        if not trained_ways:
            continue
        others = [v["logical_per_second"] for n, v in trained_ways.items() if "trees" not in n]
        best = max(others, default=None)
        lines.append(
            f"\n{shape:<26} {'s a step':>9} {'logical/s':>10} {'x best':>7} {'computed/s':>11} "
            f"{'GiB':>6} {'MFU':>5} {'ideal':>6}"
        )
        for way, values in trained_ways.items():
            mfu = f"{values['mfu']:.0%}" if values["mfu"] else ""
            ratio = f"{values['logical_per_second'] / best:.2f}" if best else ""
            lines.append(
                f"  {way:<24} {values['seconds_per_step']:>9.3f} "
                f"{values['logical_per_second']:>10,.0f} {ratio:>7} "
                f"{values['computed_per_second']:>11,.0f} {values['memory_gib']:>6.1f} "
                f"{mfu:>5} {values['ideal']:>6.0%} {values.get('note', '')}"
            )
    lines.append(
        f"\n{'generation':<42} {'answers/s':>9} {'new tokens/s':>12} {'GiB':>6} {'equal':>6}"
    )
    lines += [
        f"  {name:<40} {values['answers_per_second']:>9.2f} "
        f"{values['new_tokens_per_second']:>12,.0f} {values['memory_gib']:>6.1f} "
        f"{values['equal']:>6.0%}"
        for name, values in measured.items()
        if "answers_per_second" in values
    ]
    lines += [f"{n}: {v['cells']}" for n, v in measured.items() if "cells" in v]
    lines += [f"failed: {name}: {reason}" for name, reason in results["failed"].items()]
    lines += [f"left out: {name}: {reason}" for name, reason in results["left_out"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(any("TRL" not in name for name in main()["failed"]))
