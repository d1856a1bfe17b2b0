"Many processes train as one does, a dry run leaves nothing"

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from safetensors.torch import load_file

TRAIN = """
import sys

sys.path.insert(0, {tests!r})
import torch

torch.set_num_threads(1)
from conftest import make_tiny_model
from toolcall.chatml import ChatML, encode
from toolcall.curate import curate
from toolcall.logs import read_logs
from toolcall.models import load_tokenizer
from toolcall.samples import sample_log
from toolcall.train import finetune, training_arguments

tokenizer = load_tokenizer("SmolLM2-135M-Instruct")
conversations = curate(read_logs(sample_log()).conversations).conversations[:24]
examples = encode(ChatML(tokenizer), conversations).examples
CPU = dict(bf16=False, use_cpu=True, disable_tqdm=True)
BATCHES = dict(per_device_train_batch_size=4, logging_steps=1)


def train(folder, **settings):
    args = training_arguments(
        folder, num_train_epochs=2, learning_rate=1e-2, **BATCHES, **CPU, **settings
    )
    model = make_tiny_model(tokenizer)
    return finetune(model, tokenizer, examples, args=args, validation=examples[:6])
"""
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def script(tmp_path: Path, more: str) -> Path:
    file = tmp_path / "script.py"
    file.write_text(TRAIN.format(tests=str(ROOT / "tests")) + more, encoding="utf-8")
    return file


def curve(folder: Path) -> list[tuple]:
    history = json.loads((folder / "history.json").read_text(encoding="utf-8"))["history"]
    return [
        (entry["step"], entry.get("loss", entry.get("eval_loss")))
        for entry in history
        if "loss" in entry or "eval_loss" in entry
    ]


# accelerate shards on accelerators alone:
# told that the two CPU processes are such, it runs FSDP2 over gloo
SHARDED = """
import accelerate.state as state
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

started = state.PartialState.__init__


def as_accelerators(self, *args, **options):
    started(self, *args, **options)
    if self.distributed_type == state.DistributedType.MULTI_CPU:
        self.distributed_type = state.DistributedType.MULTI_GPU


state.PartialState.__init__ = as_accelerators
from toolcall.train import finetuning


class Sharded(TrainerCallback):
    def on_step_end(self, args, state, control, model, **_):
        weights = [weight for weight in model.parameters() if weight.numel() > 1]
        assert all(isinstance(weight, DTensor) for weight in weights)
        assert all(weight.to_local().numel() < weight.numel() for weight in weights)
        print("SHARDED", flush=True)


build = finetuning.build_trainer


def watched(*args, **options):
    trainer = build(*args, **options)
    trainer.add_callback(Sharded())
    return trainer


finetuning.build_trainer = watched
"""


def launch(config: str) -> list:
    "Two processes, by a file of the tutorial"
    return [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        ROOT / "nbs" / "tutorials" / f"{config}.yaml",
        "--main_process_port",
        "0",
    ]


CALL = "train(sys.argv[1], gradient_accumulation_steps=int(sys.argv[2]))"


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    "A run of one process, two rows a step"
    folder = tmp_path_factory.mktemp("one")
    subprocess.run(
        [sys.executable, script(folder, CALL), folder, "2"],
        check=True,
        capture_output=True,
        env=ENVIRONMENT,
    )
    return folder


@pytest.mark.parametrize("config, before", [("ddp", ""), ("fsdp2", SHARDED)])
def test_two_processes_train_as_one_does(tmp_path, one, config, before):
    two = tmp_path / "two"
    done = subprocess.run(
        [*launch(config), script(tmp_path, before + CALL), two, "1"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert ("SHARDED" in done.stdout) == bool(before)
    single, double = curve(one), curve(two)
    assert len(single) > 8 and [step for step, _ in single] == [step for step, _ in double]
    assert max(abs(a - b) for (_, a), (_, b) in zip(single, double)) < 1e-4
    weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    assert (
        max((weights[0][name] - weights[1][name]).abs().max().item() for name in weights[0]) < 1e-3
    )


CPU = {"bf16": False, "use_cpu": True, "disable_tqdm": True}


def write_config(folder: Path, model: Path, **settings) -> Path:
    from toolcall.samples import sample_log

    paths = {
        "log_path": sample_log(),
        "model_name_or_path": model,
        "output_dir": folder / "run",
        "train_data_path": folder / "train.jsonl",
    }
    config = folder / "config.yaml"
    values = {name: str(path) for name, path in paths.items()} | settings
    config.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return config


def test_a_dry_run_tells_the_cost_and_trains_nothing(tmp_path, tiny_folder):
    config = write_config(tmp_path, tiny_folder, save_steps=100000, training=CPU)
    command = [
        sys.executable,
        "-c",
        "from toolcall.pipeline.commands import main; raise SystemExit(main())",
        "train",
        config,
        "--dry-run",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-2000:]
    for word in (
        "computed tokens",
        "saving",
        "optimizer steps",
        "GiB at the largest batch",
        "warning: save_steps is",
    ):
        assert word in done.stdout, done.stdout
    assert not (tmp_path / "train.jsonl").exists() and not list(
        (tmp_path / "run").glob("checkpoint-*")
    )


def test_the_command_trains_with_two_processes(tmp_path, tiny_folder):
    file = tmp_path / "command.py"
    file.write_text(
        "import torch; torch.set_num_threads(1)\n"
        "from toolcall.pipeline.commands import main\nraise SystemExit(main())",
        encoding="utf-8",
    )
    config = write_config(
        tmp_path,
        tiny_folder,
        training={**CPU, "max_steps": 3, "logging_steps": 1},
        evaluation={"watch_turns": 2},
        generation={"max_new_tokens": 2},
    )
    done = subprocess.run(
        [*launch("ddp"), file, "train", config], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("== training") == 1 and "2 processes" in done.stdout
    assert (tmp_path / "run" / "model.safetensors").exists() and (
        tmp_path / "run" / "data" / "test.jsonl"
    ).exists()
    assert len(curve(tmp_path / "run")) >= 3
    rows = [
        json.loads(line)
        for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert rows and all(row["input"].startswith("<|im_start|>") for row in rows)


FLEX = """
from toolcall.train import build_trainer

model = make_tiny_model(tokenizer)
args = training_arguments({folder!r}, **CPU)
trainer = build_trainer(model, tokenizer, examples, validation=examples[:6], args=args)
by_segments = trainer.evaluate()["eval_loss"]
trainer.model.set_attn_implementation("flex_attention")
with torch.compiler.set_stance("force_eager"):
    by_blocks = trainer.evaluate()["eval_loss"]
inputs = trainer._prepare_inputs(next(iter(trainer.get_eval_dataloader())))
assert type(inputs["attention_mask"]).__name__ == "BlockMask"
assert abs(by_blocks - by_segments) < 1e-5, (by_blocks, by_segments)

import torch.nn.attention.flex_attention as flex

# refuses gradients on a CPU, where only the compiled kernel is missing
flex._validate_device = lambda *tensors: None
batch = next(iter(trainer.get_train_dataloader()))
gradients = []
for attention in ("toolcall_tree", "sdpa", "flex_attention"):
    trainer.model.set_attn_implementation(attention)
    trainer.model.zero_grad()
    with torch.compiler.set_stance("force_eager"):
        trainer.compute_loss(trainer.model, trainer._prepare_inputs(dict(batch))).backward()
    gradients.append(torch.cat([weight.grad.flatten() for weight in trainer.model.parameters()]))
for other in gradients[1:]:
    assert ((other - gradients[0]).norm() / gradients[0].norm()).item() < 1e-5
"""


def test_a_model_that_attends_by_flex_attention_is_given_blocks(tmp_path):
    run = subprocess.run(
        [sys.executable, script(tmp_path, FLEX.format(folder=str(tmp_path / "run")))],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]


COMPILED = """
from toolcall.pipeline.watching import watch

chatml = ChatML(tokenizer)
for name, torch_compile in [("plain", False), ("compiled", True)]:
    args = training_arguments(
        {folder!r} + "/" + name,
        max_steps=6,
        gradient_checkpointing=True,
        gradient_accumulation_steps=2,
        torch_compile=torch_compile,
        **BATCHES,
        **CPU,
    )
    finetune(
        make_tiny_model(tokenizer),
        tokenizer,
        examples,
        args=args,
        validation=examples[:6],
        prepare=lambda trainer: watch(trainer, chatml, examples[:3], max_new_tokens=4),
    )
"""


@pytest.mark.skipif(not shutil.which("g++"), reason="PyTorch compiles for a CPU with g++")
def test_a_compiled_model_learns_the_same(tmp_path):
    run = subprocess.run(
        [sys.executable, script(tmp_path, COMPILED.format(folder=str(tmp_path)))],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    plain, compiled = curve(tmp_path / "plain"), curve(tmp_path / "compiled")
    assert len(plain) > 6
    assert compiled == [(step, pytest.approx(loss, abs=1e-4)) for step, loss in plain]


PACKED = """
from peft import LoraConfig
from transformers import BitsAndBytesConfig
from toolcall.models import load_model
from toolcall.train import build_trainer

for part in (make_tiny_model(tokenizer), tokenizer):
    part.save_pretrained({folder!r})
quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")
model, _ = load_model({folder!r}, quantization=quantization)
args = training_arguments({folder!r} + "/run", **CPU)
lora = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
trainer = build_trainer(model, tokenizer, examples, validation=examples[:6], args=args, lora=lora)
batch = next(iter(trainer.get_train_dataloader()))


def gradients():
    trainer.model.train()
    trainer.model.zero_grad()
    trainer.compute_loss(trainer.model, trainer._prepare_inputs(batch)).backward()
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    return torch.cat([weight.grad.flatten() for weight in weights])


before = gradients()
trainer.evaluate()
assert before.abs().sum() > 0 and torch.allclose(gradients(), before, atol=1e-7)
"""


def test_an_evaluation_leaves_the_gradients_of_a_packed_model_as_they_were(tmp_path):
    run = subprocess.run(
        [sys.executable, script(tmp_path, PACKED.format(folder=str(tmp_path / "packed")))],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-2000:]


def test_a_run_that_took_all_its_steps_takes_no_more(smollm, tmp_path):
    "Its last step lies in the middle of an epoch"
    import torch
    from conftest import make_tiny_model

    from toolcall.chatml import ChatML, encode
    from toolcall.curate import curate
    from toolcall.logs import read_logs
    from toolcall.samples import sample_log
    from toolcall.train import finetune, training_arguments

    conversations = curate(read_logs(sample_log())).conversations[:14]
    examples = encode(ChatML(smollm), conversations).examples

    def start():
        args = training_arguments(
            tmp_path,
            max_steps=3,
            per_device_train_batch_size=2,
            save_steps=1,
            bf16=False,
            use_cpu=True,
            disable_tqdm=True,
            report_to=[],
        )
        run = finetune(make_tiny_model(smollm), smollm, examples, args=args)
        return run, load_file(tmp_path / "model.safetensors")

    first, weights = start()
    again, weights_again = start()
    assert first.steps == again.steps == 3
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)
