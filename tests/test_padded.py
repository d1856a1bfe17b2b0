"Padded batches and generation, for kinds of layers that take trees and for kinds that don't"

import random
import warnings

import pytest
import tiny
import torch
from tiny import LATENT, ROUTED
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from toolcall.generate.decoding import decode
from toolcall.packing.batches import ExampleDataset, PaddedCollator, TreeCollator, TreeSampler
from toolcall.packing.loss import completion_loss
from toolcall.packing.self_check import take_trees
from toolcall.turn import Example

SIZES = tiny.SIZES | dict(num_key_value_heads=4, bos_token_id=1, eos_token_id=2)
ON_TREES = {
    "deepseek_v2": SIZES | LATENT | ROUTED | dict(v_head_dim=12, moe_intermediate_size=32),
    "deepseek_v3": SIZES | LATENT | ROUTED | dict(v_head_dim=12, moe_intermediate_size=32),
    "glm4_moe_lite": SIZES | LATENT | ROUTED | dict(v_head_dim=16, moe_intermediate_size=32),
    "minicpm3": SIZES | LATENT | dict(v_head_dim=8),
    "youtu": SIZES | LATENT | dict(v_head_dim=12),
    "jetmoe": SIZES | dict(num_key_value_heads=2, kv_channels=8, num_local_experts=4),
    "doge": SIZES | dict(num_key_value_heads=2),
    "qwen3": SIZES | dict(num_key_value_heads=2, head_dim=8),
}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
PADDED = {
    "mistral": SIZES | dict(sliding_window=8),
    "gemma3_text": SIZES | dict(head_dim=8, sliding_window=8, final_logit_softcapping=2.0),
    "lfm2": SIZES | dict(layer_types=["conv", "full_attention"]),
    "mamba": dict(vocab_size=300, hidden_size=32, num_hidden_layers=2, pad_token_id=0),
}


def make_model(kind, settings):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings)
    attention = {} if kind == "mamba" else {"attn_implementation": "sdpa"}
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **attention).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.15)
        else:
            weight.data.add_(torch.randn_like(weight), alpha=0.1)
    return model


draw = random.Random(0)
STEM = draw.choices(range(5, 290), k=30)
PROMPTS = sorted(STEM + draw.choices(range(5, 290), k=size) for size in (4, 9, 2, 12))
ROWS = [
    {
        "prompt_ids": prompt,
        "completion_ids": draw.choices(range(5, 290), k=3 + number),
        "weights": [1.0 + number] * (3 + number),
    }
    for number, prompt in enumerate(PROMPTS)
]


def gradient(model, batches):
    model.zero_grad()
    count = sum(len(row["completion_ids"]) for row in ROWS)
    loss = sum(completion_loss(model, batch, count=count) for batch in batches)
    loss.backward()
    weights = [weight.grad for weight in model.parameters() if weight.grad is not None]
    return loss.item(), torch.cat([part.flatten() for part in weights])


def assert_as_alone(model, batch):
    loss, by_batch = gradient(model, [batch])
    expected, alone = gradient(model, [PaddedCollator(0)([row]) for row in ROWS])
    assert abs(loss - expected) < 1e-5
    assert (by_batch - alone).norm() < 1e-5 * alone.norm()


@pytest.mark.parametrize("kind", ON_TREES)
def test_what_trains_on_trees_is_generated_from(kind):
    model = make_model(kind, ON_TREES[kind])
    expected = [
        model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=70,
            do_sample=False,
            eos_token_id=None,
        )[0, len(prompt) :].tolist()
        for prompt in PROMPTS
    ]
    rows = decode(model, PROMPTS, stops=[], max_new_tokens=70)
    assert [row.ids for row in rows] == expected
    assert not take_trees(model)
    _, by_tree = gradient(model, [TreeCollator()(ROWS)])
    model.set_attn_implementation("sdpa")
    _, alone = gradient(model, [PaddedCollator(0)([row]) for row in ROWS])
    assert (by_tree - alone).norm() < 1e-4 * alone.norm()


@pytest.mark.parametrize("kind", PADDED)
def test_a_padded_batch_gives_the_head_its_labels_alone(kind):
    model = make_model(kind, PADDED[kind])
    batch = PaddedCollator(0)(ROWS)
    shapes = []
    hook = model.lm_head.register_forward_hook(lambda _, args, out: shapes.append(out.shape[:2]))
    assert_as_alone(model, batch)
    hook.remove()
    assert shapes[0] == (1, sum(len(row["completion_ids"]) for row in ROWS))
    with torch.no_grad():  # the model itself is left as it was
        assert model(batch["input_ids"]).logits.shape[:2] == batch["input_ids"].shape


def test_an_encoder_takes_no_trees():
    model = make_model("bert", SIZES)
    assert take_trees(model) == "it sees the tokens that follow"


def examples_of(lengths):
    return [Example([5] * (length - 3), [6, 7, 2], None, 0) for length in lengths]


@pytest.mark.parametrize("seed", range(4))
def test_batches_keep_to_the_bound_on_all_processes(seed):
    draw = random.Random(seed)
    lengths = [draw.randint(4, 200) for _ in range(300)]
    examples = examples_of(lengths)
    for epoch in range(3):
        batches = []
        for rank in range(3):
            dataset = ExampleDataset(examples)
            dataset.set_epoch(epoch)
            sampler = TreeSampler(
                dataset, 700, max_examples=6, seed=seed, rank=rank, world=3, padded=True
            )
            own = list(sampler)
            assert own == list(sampler) and len(own) == len(sampler)
            batches += own
        assert sorted(number for batch in batches for number in batch) == list(range(300))
        widths = [len(batch) * max(lengths[number] for number in batch) for batch in batches]
        assert max(widths) <= 700 and max(map(len, batches)) <= 6
        assert sum(widths) < 1.15 * sum(lengths)


def make_trainer(folder, max_tokens, lengths, **settings):
    from toolcall.models import load_tokenizer
    from toolcall.train import build_trainer, training_arguments

    torch.manual_seed(0)
    config = LlamaConfig(**SIZES | {"vocab_size": 49152, "rope_parameters": DYNAMIC})
    args = training_arguments(
        folder, bf16=False, use_cpu=True, disable_tqdm=True, logging_steps=1, **settings
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer = build_trainer(
            LlamaForCausalLM(config),
            load_tokenizer("SmolLM2-135M-Instruct"),
            examples_of(lengths),
            validation=examples_of(lengths[:5]),
            args=args,
            max_tokens=max_tokens,
        )
        sizes = [batch["input_ids"].numel() for batch in trainer.get_train_dataloader()]
    return trainer, sizes, [str(warning.message) for warning in said]


def test_a_padded_run_is_counted_validated_and_resumed(tmp_path):
    draw = random.Random(0)
    lengths = [draw.randint(10, 60) for _ in range(24)]
    settings = dict(max_steps=6, save_steps=3, per_device_train_batch_size=4, num_train_epochs=1)
    trainer, sizes, said = make_trainer(tmp_path / "whole", 120, lengths, **settings)
    assert max(sizes) <= 120 and not [text for text in said if "longer than" in text]
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    last = [entry for entry in trainer.state.log_history if "loss" in entry][-1]
    rows = trainer.sampler(trainer.train_dataset, 4).rows(0)[:6]
    assert last["logical_tokens"] == sum(row.logical for row in rows)
    assert {"computed_tokens_per_second", "memory"} < last.keys()
    with torch.no_grad():
        batch = PaddedCollator(0)([trainer.eval_dataset[number] for number in range(5)])
        expected = completion_loss(trainer.model, batch).item()
    assert abs(trainer.evaluate()["eval_loss"] - expected) < 1e-5
    again, _, _ = make_trainer(tmp_path / "whole", 120, lengths, **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    resumed = [entry["loss"] for entry in again.state.log_history if "loss" in entry]
    assert resumed == pytest.approx(losses, abs=1e-6) and len(losses) == 6


def test_an_example_beyond_the_bound_stands_alone(tmp_path):
    lengths = [90, 20, 20, 20]
    _, sizes, said = make_trainer(tmp_path, 60, lengths, per_device_train_batch_size=4)
    assert sorted(sizes) == [60, 90]
    [warning] = {text for text in said if "longer than" in text}
    assert warning.startswith("1 of 4 examples are longer than max_tokens=60, the longest has 90")


def test_a_dry_run_counts_padded_batches():
    from toolcall.models import load_tokenizer
    from toolcall.train import training_arguments
    from toolcall.train.estimate import estimate

    config = LlamaConfig(**SIZES | {"vocab_size": 49152, "rope_parameters": DYNAMIC})
    lengths = [10, 11, 12, 40, 41, 42]
    args = training_arguments(
        "unused",
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
        per_device_train_batch_size=3,
        load_best_model_at_end=True,
        metric_for_best_model="exact_match",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cost = estimate(
            LlamaForCausalLM(config),
            load_tokenizer("SmolLM2-135M-Instruct"),
            examples_of(lengths),
            args=args,
            max_tokens=130,
        )
    assert cost.packing["rows"] == 2 and cost.packing["computed tokens"] == 3 * 12 + 3 * 42
    assert not [text for text in cost.settings_warnings if "share nothing" in text]
