"Every kind of layer on token trees: training and generation of each family, and what is refused"

import random
import warnings

import pytest
import tiny
import torch
from peft import LoraConfig
from transformers import AutoConfig, AutoModelForCausalLM

from toolcall.errors import TrainError
from toolcall.generate.by_generate import decode_padded, needs_generate
from toolcall.generate.decoding import decode
from toolcall.packing import attention, self_check
from toolcall.packing.attention import TREE
from toolcall.packing.batches import ExampleDataset, PaddedCollator, TreeCollator, TreeSampler
from toolcall.packing.loss import completion_loss
from toolcall.packing.mixers import mixer_kinds
from toolcall.packing.self_check import measure_difference, rope_limit, take_trees
from toolcall.turn import Example

SIZES = tiny.SIZES | dict(num_key_value_heads=2, head_dim=8, bos_token_id=None, eos_token_id=None)
WINDOW = dict(sliding_window=6, layer_types=["sliding_attention", "full_attention"])
CAPPED = WINDOW | dict(query_pre_attn_scalar=8, attn_logit_softcapping=3.0)
CONVOLUTIONS = dict(layer_types=["conv", "full_attention"])
DELTA = tiny.DELTA | dict(layer_types=["linear_attention", "full_attention"])
DEEPSEEK = (
    tiny.LATENT
    | tiny.ROUTED
    | dict(num_key_value_heads=4, v_head_dim=12, moe_intermediate_size=32, first_k_dense_replace=1)
)
LONGROPE = dict(
    rope_parameters=dict(
        rope_type="longrope",
        rope_theta=10_000.0,
        short_factor=[1.0] * 4,
        long_factor=[4.0] * 4,
    ),
    max_position_embeddings=512,
    original_max_position_embeddings=128,
)
GRANITE = dict(layer_types=["mamba", "attention"], shared_intermediate_size=32)
FAMILIES = {
    "gemma2": CAPPED,
    "gemma3_text": WINDOW,
    "gemma3n_text": dict(
        sliding_window=6,
        num_hidden_layers=5,
        layer_types=["sliding_attention", "full_attention"] * 2 + ["full_attention"],
        num_kv_shared_layers=2,
        laurel_rank=8,
        vocab_size_per_layer_input=300,
        hidden_size_per_layer_input=8,
        activation_sparsity_pattern=[0.0] * 5,
    ),
    "mistral": dict(sliding_window=6),
    "phimoe": dict(sliding_window=6, num_local_experts=4),
    "llama4_text": tiny.LOCAL_EXPERTS
    | dict(
        attention_chunk_size=6,
        layer_types=["chunked_attention", "full_attention"],
        intermediate_size_mlp=64,
    ),
    "gpt_oss": WINDOW | tiny.LOCAL_EXPERTS,
    "olmo3": WINDOW,
    "lfm2": CONVOLUTIONS,
    "qwen3_5_text": DELTA,
    "qwen3_next": DELTA | tiny.EXPERTS | dict(shared_expert_intermediate_size=16),
    "falcon_h1": tiny.MAMBA_2 | dict(mamba_d_ssm=64),
    "granitemoehybrid": tiny.MAMBA_2 | GRANITE | tiny.LOCAL_EXPERTS,
    "mamba2": dict(state_size=8, num_heads=8, n_groups=2, chunk_size=16),
    "deepseek_v3": DEEPSEEK,
    "phi3": LONGROPE,
    "qwen3_moe": tiny.EXPERTS,
    "smollm3": dict(no_rope_layers=[1, 0]),
}
BY_MASK = {"phimoe", "llama4_text"}
BY_GENERATE = {"lfm2", "qwen3_5_text", "qwen3_next", "falcon_h1", "granitemoehybrid", "mamba2"}
draw = random.Random(0)


def tokens(count):
    return draw.choices(range(5, 290), k=count)


STEM, BRANCH = tokens(40), tokens(9)
PROMPTS = sorted([STEM + BRANCH, STEM + BRANCH, STEM + BRANCH[:4] + tokens(7), STEM, tokens(6)])
ROWS = [
    {"prompt_ids": prompt, "completion_ids": tokens(9), "number": number}
    for number, prompt in enumerate(PROMPTS)
]


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings(action="ignore"):
        yield


def make_model(kind, settings=None, **options):
    "A tiny model whose every weight matters"
    torch.manual_seed(0)
    settings = FAMILIES[kind] if settings is None else settings
    config = AutoConfig.for_model(kind, **SIZES | settings)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options).eval()
    for weight in model.parameters():
        if weight.dim() > 1 or not weight.any():
            torch.nn.init.normal_(weight, std=0.15)
    return model


def gradient(model, batches, rows=ROWS):
    model.zero_grad()
    count = sum(len(row["completion_ids"]) for row in rows)
    loss = sum(completion_loss(model, batch, count=count) for batch in batches)
    loss.backward()
    parts = [weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]
    return loss.item(), torch.cat(parts)


def gradient_alone(model, rows=ROWS):
    return gradient(model, [PaddedCollator(0)([row]) for row in rows], rows)


def assert_same(by_tree, alone):
    (loss, slope), (expected_loss, expected_slope) = by_tree, alone
    assert abs(loss - expected_loss) < 1e-5 * expected_loss
    assert (slope - expected_slope).norm() < 1e-5 * expected_slope.norm()


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_tree_trains_as_its_examples_alone(kind):
    model = make_model(kind)
    alone = gradient_alone(model)
    assert take_trees(model) == ""
    assert bool(mixer_kinds(model)) == (kind in BY_GENERATE)
    assert_same(gradient(model, [TreeCollator()(ROWS)]), alone)
    model.train()
    model.gradient_checkpointing_enable()
    assert_same(gradient(model, [TreeCollator()(ROWS)]), alone)


TRAINED = ["gemma3_text", "gpt_oss", "deepseek_v3", "lfm2", "qwen3_5_text", "mamba2"]


@pytest.mark.parametrize(
    "kind, trains", [(kind, False) for kind in FAMILIES] + [(kind, True) for kind in TRAINED]
)
def test_generation_is_that_of_generate(kind, trains):
    model = make_model(kind)
    expected = [
        model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=24,
            do_sample=False,
        )[0, len(prompt) :].tolist()
        for prompt in PROMPTS
    ]
    if trains:  # the model of an evaluation during a training
        assert take_trees(model) == ""
    by_generate = kind in BY_GENERATE | BY_MASK
    assert bool(needs_generate(model)) == by_generate
    decode_batch = decode_padded if by_generate else decode
    for prompts in (PROMPTS, PROMPTS[:-1]):
        rows = decode_batch(model, prompts, stops=[], max_new_tokens=24)
        assert [row.ids for row in rows] == expected[: len(prompts)]


@pytest.mark.parametrize("kind", ["gemma2", "gpt_oss", "deepseek_v3", "gemma3_text"])
def test_a_gpu_attends_by_the_mask(kind, monkeypatch):
    "What is computed where there is no fused kernel of trees, and under dropout"
    model = make_model(kind)
    alone = gradient_alone(model)
    model.set_attn_implementation(TREE)
    monkeypatch.setattr("toolcall.packing.attention._fits_kernel", lambda *_: False)
    assert_same(gradient(model, [TreeCollator()(ROWS)]), alone)


@pytest.mark.parametrize("kind", ["gemma3_text", "gpt_oss", "gemma2", "qwen3_5_text"])
def test_bfloat16_is_near(kind):
    model = make_model(kind)
    loss, slope = gradient_alone(model)
    assert take_trees(model) == ""
    with torch.autocast("cpu", torch.bfloat16):
        near_loss, near_slope = gradient(model, [TreeCollator()(ROWS)])
    assert abs(near_loss - loss) < 0.02 * loss
    assert torch.nn.functional.cosine_similarity(near_slope, slope, dim=0) > 0.98
    assert take_trees(model.to(torch.bfloat16)) == ""


def as_model_was(model, kind):
    fresh = make_model(kind)
    assert model.config._attn_implementation == fresh.config._attn_implementation
    assert not mixer_kinds(model) and not model.training
    ids = torch.tensor([PROMPTS[0]])
    assert torch.equal(model(ids).logits, fresh(ids).logits)


BREAKS = {
    "the window is not counted": ("mistral", "depths", ["attention", "layer_masks"]),
    "a state is dropped": ("qwen3_5_text", "_begin", ["mixers"]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_refused_and_the_model_is_as_it_was(name, monkeypatch):
    kind, function, modules = BREAKS[name]
    broken = {
        "depths": lambda nodes: 0 * torch.arange(int(nodes[:, 1].max())).numpy(),
        "_begin": lambda states, parents: {},
    }
    for module in modules:
        monkeypatch.setattr(f"toolcall.packing.{module}.{function}", broken[function])
    attention._blocks.cache_clear()
    model = make_model(kind)
    assert "its outputs differ from those of each example" in take_trees(model)
    attention._blocks.cache_clear()
    as_model_was(model, kind)


def test_a_fault_is_refused_and_the_model_is_as_it_was(monkeypatch):
    monkeypatch.setattr(self_check, "_tree_outputs", lambda *_: [][0])
    model = make_model("lfm2")
    assert take_trees(model).startswith("it can't compute a tree: IndexError")
    as_model_was(model, "lfm2")


@pytest.mark.parametrize(
    "kind, settings, options, reason",
    [
        ("mistral", dict(sliding_window=64), "flex_attention", "layers of kind sliding_attention"),
        ("lfm2", CONVOLUTIONS, "flex_attention", "layers of kind conv"),
        ("rwkv", dict(attention_hidden_size=32), None, "keeps a state in layers"),
        ("bert", {}, None, "it sees the tokens that follow"),
        (
            "llama",
            dict(rope_parameters=dict(rope_type="dynamic", factor=2.0, rope_theta=1e4)),
            None,
            "its RoPE is 'dynamic'",
        ),
        (
            "gpt_neo",
            dict(attention_types=[[["global", "local"], 1]], num_layers=2, window_size=6),
            None,
            "its outputs differ",
        ),
    ],
)
def test_refused_by_name(kind, settings, options, reason):
    model = make_model(kind, settings, **{"attn_implementation": options} if options else {})
    implementation = model.config._attn_implementation
    assert reason in take_trees(model)
    assert model.config._attn_implementation == implementation and not mixer_kinds(model)


def test_paths_on_two_sides_of_a_limit_share_no_row():
    settings = LONGROPE | dict(original_max_position_embeddings=45)
    model = make_model("phi3", settings)
    alone = gradient_alone(model)
    assert take_trees(model) == "" and rope_limit(model) == 45
    together = gradient(model, [TreeCollator()(ROWS)])
    assert (together[1] - alone[1]).norm() > 1e-2 * alone[1].norm()
    examples = [Example(row["prompt_ids"], row["completion_ids"], None, 0) for row in ROWS]
    for padded, collate in ((False, TreeCollator()), (True, PaddedCollator(0))):
        dataset = ExampleDataset(examples, apart=rope_limit(model))
        sampler = TreeSampler(dataset, 4096, max_examples=8, padded=padded)
        batches = [collate([dataset[number] for number in row]) for row in sampler]
        assert len(batches) == 2
        assert_same(gradient(model, batches), alone)


def make_trainer(folder, model, lora=None, **settings):
    from toolcall.models import load_tokenizer
    from toolcall.train import build_trainer, training_arguments

    settings = {"max_steps": 3, "logging_steps": 1, "eval_strategy": "steps"} | settings
    settings["eval_steps"] = settings.get("save_steps", 1)
    args = training_arguments(folder, bf16=False, use_cpu=True, disable_tqdm=True, **settings)
    examples = [Example(row["prompt_ids"], row["completion_ids"], None, 0) for row in ROWS]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer = build_trainer(
            model,
            load_tokenizer("SmolLM2-135M-Instruct"),
            examples,
            args=args,
            validation=examples,
            lora=lora,
        )
    return trainer, [str(warning.message) for warning in said]


LARGE = dict(vocab_size=49152)


@pytest.mark.parametrize("kind", ["gemma3_text", "qwen3_5_text", "deepseek_v3"])
@pytest.mark.parametrize("lora", [None, LoraConfig(target_modules=["o_proj"])])
def test_a_run_on_trees(kind, lora, tmp_path):
    trainer, said = make_trainer(tmp_path, make_model(kind, FAMILIES[kind] | LARGE), lora=lora)
    assert not [text for text in said if "padded" in text]
    expected, _ = gradient_alone(trainer.model)
    assert abs(trainer.evaluate()["eval_loss"] - expected) < 1e-5
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert abs(losses[0] - expected) < 1e-4 and losses[2] < losses[0]


def test_a_loss_of_the_router_is_refused(tmp_path):
    model = make_model("qwen3_moe", tiny.EXPERTS | LARGE | dict(output_router_logits=True))
    with pytest.raises(TrainError, match="set model.config.output_router_logits = False"):
        make_trainer(tmp_path, model)


def test_the_check_takes_little_time_and_few_tokens():
    model = make_model("qwen3_moe")
    seen = []
    hook = model.register_forward_hook(lambda _, args, output: seen.append(output.logits.shape))
    difference, bound = measure_difference(model, TREE)
    hook.remove()
    assert difference < 1e-5 < bound and len(seen) == 5
    assert torch.is_grad_enabled() and not any(w.grad is not None for w in model.parameters())


@pytest.mark.parametrize("kind", ["qwen3_moe", "deepseek_v3", "qwen3_5_text"])
def test_a_run_is_resumed(kind, tmp_path):
    "Experts are saved one by one, and a checkpoint is read into a model that joins them"
    options = dict(save_steps=2, load_best_model_at_end=True, max_steps=4)
    settings = FAMILIES[kind] | LARGE
    trainer, _ = make_trainer(tmp_path, make_model(kind, settings), **options)
    trainer.train()
    again, _ = make_trainer(tmp_path, make_model(kind, settings), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    first, second = (run.model.state_dict() for run in (trainer, again))
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())
