"Metrics of generated calls choose the best checkpoint and stop a run early"

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT, make_tiny_model
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, TrainerCallback

from toolcall.chatml import ChatML, encode
from toolcall.curate import curate
from toolcall.errors import ToolcallError, TrainError
from toolcall.logs import read_logs
from toolcall.samples import sample_log
from toolcall.train import build_trainer, finetune, training_arguments
from toolcall.watch import watch


@pytest.fixture(scope="module")
def chatml(smollm):
    return ChatML(smollm)


@pytest.fixture(scope="module")
def examples(chatml):
    conversations = curate(read_logs(sample_log()).conversations).conversations[:8]
    return encode(chatml, conversations).examples


def arguments(folder, **settings):
    fixed = dict(bf16=False, use_cpu=True, disable_tqdm=True, logging_steps=1, report_to=[])
    return training_arguments(folder, per_device_train_batch_size=4, **(fixed | settings))


class Stop(TrainerCallback):
    "Ends the process's training as an interrupt would"

    def __init__(self, step):
        self.step = step

    def on_save(self, args, state, control, **_):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def with_values(values, chatml, examples, *callbacks):
    "Watch, and put made-up values in place of one metric"

    def prepare(trainer):
        watched = watch(trainer, chatml, examples[:2], max_new_tokens=2)
        measure = watched._measure

        def made_up(outputs):
            step = trainer.state.global_step
            return measure(outputs) | {"exact_match": values[step - 1]}

        watched._measure = made_up
        for callback in callbacks:
            trainer.add_callback(callback)

    return prepare


BEST = dict(
    max_steps=4,
    eval_strategy="steps",
    save_strategy="steps",
    eval_steps=1,
    save_steps=1,
    save_total_limit=2,
    load_best_model_at_end=True,
)


@pytest.mark.parametrize(
    "name, greater, best",
    [("exact_match", None, "checkpoint-2"), ("eval_exact_match", False, "checkpoint-3")],
)
def test_the_best_checkpoint_is_kept_and_loaded(
    smollm, chatml, examples, tmp_path, name, greater, best
):
    args = arguments(tmp_path, metric_for_best_model=name, greater_is_better=greater, **BEST)
    prepare = with_values([0.2, 0.8, 0.1, 0.5], chatml, examples)
    run = finetune(
        make_tiny_model(smollm),
        smollm,
        examples[4:],
        args=args,
        validation=examples[:4],
        prepare=prepare,
    )
    kept = {path.name for path in tmp_path.glob("checkpoint-*")}
    assert kept == {best, "checkpoint-4"}
    saved, chosen = (
        load_file(folder / "model.safetensors") for folder in (tmp_path, tmp_path / best)
    )
    assert all(torch.equal(saved[name], chosen[name]) for name in saved)
    entries = [entry for entry in run.history if "eval_loss" in entry]
    assert [entry["eval_exact_match"] for entry in entries] == [0.2, 0.8, 0.1, 0.5]
    assert len(entries) == len([entry for entry in run.history if "eval_exact_match" in entry])


def test_an_interrupted_run_keeps_its_best(smollm, chatml, examples, tmp_path):
    def start(*callbacks):
        return finetune(
            make_tiny_model(smollm),
            smollm,
            examples[4:],
            args=arguments(tmp_path, metric_for_best_model="exact_match", **BEST),
            validation=examples[:4],
            prepare=with_values([0.2, 0.8, 0.1, 0.5], chatml, examples, *callbacks),
        )

    with pytest.raises(KeyboardInterrupt):
        start(Stop(3))
    run = start()
    assert run.steps == 4
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    saved, best = (
        load_file(f / "model.safetensors") for f in (tmp_path, tmp_path / "checkpoint-2")
    )
    assert all(torch.equal(saved[name], best[name]) for name in saved)


def test_a_run_stops_early(smollm, chatml, examples, tmp_path):
    run = finetune(
        make_tiny_model(smollm),
        smollm,
        examples[4:],
        args=arguments(tmp_path, metric_for_best_model="exact_match", **BEST | {"max_steps": 6}),
        validation=examples[:4],
        prepare=with_values(
            [0.2, 0.8, 0.1, 0.5, 0.9, 0.9], chatml, examples, EarlyStoppingCallback(2)
        ),
    )
    assert run.steps == 4


REFUSED = {
    "misspelt": (dict(metric_for_best_model="exact_mach"), [], "nearest are exact_match"),
    "with eval_": (
        dict(metric_for_best_model="eval_tool_selection"),
        [],
        "tool_selection_accuracy",
    ),
    "no metric to stop by": ({}, [EarlyStoppingCallback()], "EarlyStoppingCallback needs"),
}


@pytest.mark.parametrize("settings, callbacks, says", REFUSED.values(), ids=list(REFUSED))
def test_what_is_not_measured_is_refused_before_the_first_step(
    smollm, chatml, examples, tmp_path, settings, callbacks, says
):
    args = arguments(tmp_path, max_steps=1, **settings)
    model = make_tiny_model(smollm)
    trainer = build_trainer(model, smollm, examples[4:], args=args, validation=examples[:4])
    watch(trainer, chatml, examples[:2], max_new_tokens=2)
    for callback in callbacks:
        trainer.add_callback(callback)
    with pytest.raises(TrainError, match=says):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_metric_without_turns_of_its_kind_is_refused(smollm, chatml, examples, tmp_path):
    calling = [example for example in examples if example.calls][:2]
    args = arguments(tmp_path, max_steps=1, metric_for_best_model="irrelevance_accuracy")
    model = make_tiny_model(smollm)
    trainer = build_trainer(model, smollm, examples[4:], args=args, validation=examples[:4])
    watch(trainer, chatml, calling, max_new_tokens=2)
    with pytest.raises(TrainError, match="'irrelevance_accuracy' is not measured"):
        trainer.train()


SETTINGS = {
    "strategies differ": dict(
        load_best_model_at_end=True, eval_strategy="epoch", save_strategy="steps"
    ),
    "two precisions": dict(fp16=True, bf16=True),
    "unknown": dict(learning_speed=1),
    "scheduler": dict(lr_scheduler_type="sometimes"),
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=list(SETTINGS))
def test_settings_are_refused_in_one_sentence(tmp_path, settings):
    with pytest.raises(TrainError, match=r"^training(\.\w+)?: .+") as raised:
        training_arguments(tmp_path, **settings)
    assert "\n" not in str(raised.value) and isinstance(raised.value, ToolcallError)


def test_evaluating_nothing_is_refused_in_one_sentence(smollm, examples, tmp_path):
    args = arguments(tmp_path, eval_strategy="epoch")
    with pytest.raises(TrainError, match="the training settings are refused"):
        build_trainer(make_tiny_model(smollm), smollm, examples, args=args)


def test_float16_trains_without_a_gpu(smollm, chatml, examples, tmp_path):
    args = arguments(tmp_path, max_steps=2, fp16=True, eval_strategy="steps", eval_steps=1)
    run = finetune(
        make_tiny_model(smollm),
        smollm,
        examples[4:],
        args=args,
        validation=examples[:4],
        prepare=lambda trainer: watch(trainer, chatml, examples[:2], max_new_tokens=2),
    )
    assert run.steps == 2 and all(entry["loss"] > 0 for entry in run.history if "loss" in entry)


MANY = """
import sys

sys.path.insert(0, {tests!r})
import json
import os

import torch

torch.set_num_threads(1)
from conftest import make_tiny_model
from toolcall.chatml import ChatML, encode
from toolcall.curate import curate
from toolcall.logs import read_logs
from toolcall.models import load_tokenizer
from toolcall.samples import sample_log
from toolcall.train import build_trainer, training_arguments
from toolcall.watch import watch

tokenizer = load_tokenizer("SmolLM2-135M-Instruct")
chatml = ChatML(tokenizer)
examples = encode(chatml, curate(read_logs(sample_log()).conversations).conversations[:6]).examples
args = training_arguments(
    {folder!r},
    max_steps=1,
    eval_strategy="steps",
    eval_steps=1,
    metric_for_best_model="exact_match",
    bf16=False,
    use_cpu=True,
    disable_tqdm=True,
)
trainer = build_trainer(
    make_tiny_model(tokenizer), tokenizer, examples[4:], args=args, validation=examples[:4]
)
watched = watch(trainer, chatml, examples[:2], max_new_tokens=2)
measure = watched._measure
watched._measure = lambda outputs: measure(outputs) | {{"exact_match": args.process_index + 0.25}}
trainer.train()
values = trainer.evaluate()
with open({folder!r} + f"/{{args.process_index}}.json", "w") as file:
    json.dump([trainer.state.best_metric, values["eval_exact_match"]], file)
"""


def test_all_processes_see_one_value(tmp_path):
    file = tmp_path / "script.py"
    file.write_text(MANY.format(tests=str(ROOT / "tests"), folder=str(tmp_path)), encoding="utf-8")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--master-port=29617",
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*launch, file], env=environment, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    seen = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert seen == [[0.25, 0.25], [0.25, 0.25]]
