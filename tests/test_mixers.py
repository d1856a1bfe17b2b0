"Layers with a state on trees: each family against its examples one by one; breaks are seen"

import warnings

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tiny import DELTA, EXPERTS, MAMBA_2

from toolcall.errors import PackingError
from toolcall.packing import mixers
from toolcall.packing.batches import TreeCollator
from toolcall.packing.mixers import mixer_kinds, mixers_on_trees, restore_mixers
from toolcall.packing.paths import Layout, ancestors, cut_segments, nodes_of_mask
from toolcall.packing.tree import build_trie

HEADS = dict(num_attention_heads=4, num_key_value_heads=2, head_dim=8)
SHAPE = dict(vocab_size=96, pad_token_id=0, hidden_size=32, intermediate_size=48)
TWO = dict(num_hidden_layers=2)
MAMBA = dict(vocab_size=96, pad_token_id=0, hidden_size=32, state_size=8)
CONVOLUTIONS = dict(num_hidden_layers=3, layer_types=["conv", "full_attention", "conv"])
MIXED = dict(num_hidden_layers=2, layer_types=["linear_attention", "full_attention"])
ZAMBA = dict(num_hidden_layers=4, layers_block_type=["mamba", "hybrid"] * 2)
FAMILIES = {
    "Lfm2": ("windows", SHAPE | HEADS | CONVOLUTIONS | {"conv_bias": True}),
    "Lfm2Moe": ("windows", SHAPE | HEADS | CONVOLUTIONS | EXPERTS | {"num_dense_layers": 1}),
    "Qwen3Next": (
        "states",
        SHAPE | HEADS | MIXED | DELTA | EXPERTS | {"shared_expert_intermediate_size": 16},
    ),
    "Qwen3_5": ("states", SHAPE | HEADS | MIXED | DELTA),
    "OlmoHybrid": ("states", SHAPE | HEADS | MIXED | DELTA),
    "Mamba": ("paths", MAMBA | TWO),
    "FalconMamba": ("paths", MAMBA | TWO),
    "Mamba2": ("states", MAMBA | TWO | dict(num_heads=8, head_dim=8, n_groups=2, chunk_size=16)),
    "FalconH1": ("states", SHAPE | HEADS | TWO | MAMBA_2 | {"mamba_d_ssm": 64}),
    "GraniteMoeHybrid": (
        "states",
        SHAPE
        | HEADS
        | MAMBA_2
        | dict(num_hidden_layers=2, layer_types=["mamba", "attention"])
        | dict(shared_intermediate_size=32, num_local_experts=4, num_experts_per_tok=2),
    ),
    "Bamba": ("states", SHAPE | HEADS | TWO | MAMBA_2 | {"attn_layer_indices": [1]}),
    "NemotronH": (
        "states",
        SHAPE
        | HEADS
        | dict(layers_block_type=["mamba", "attention", "mlp"], ssm_state_size=8, chunk_size=16)
        | dict(mamba_num_heads=8, mamba_head_dim=8, n_groups=2),
    ),
    "Zamba2": (
        "states",
        SHAPE
        | HEADS
        | ZAMBA
        | dict(mamba_d_state=8, n_mamba_heads=8, mamba_headdim=8, mamba_ngroups=2, chunk_size=16)
        | dict(num_mem_blocks=1, attention_hidden_size=64, attention_head_dim=16, adapter_rank=4),
    ),
    "Jamba": (
        "paths",
        SHAPE
        | HEADS
        | TWO
        | dict(attn_layer_period=2, attn_layer_offset=1, num_experts=1, mamba_d_state=8)
        | {"mamba_dt_rank": 4},
    ),
    "MiniMax": ("paths", SHAPE | HEADS | MIXED | dict(num_local_experts=2, num_experts_per_tok=1)),
}
PROMPT = list(range(1, 40))
ROWS = [
    {"prompt_ids": PROMPT, "completion_ids": [60, 61, 9]},
    {"prompt_ids": PROMPT, "completion_ids": [60, 70, 71, 9]},
    {"prompt_ids": [*PROMPT, 60, 61, 9, 7], "completion_ids": [80, 9]},
    {"prompt_ids": [*PROMPT, *range(40, 76)], "completion_ids": [80, 81, 9]},
    {"prompt_ids": [*PROMPT, *range(40, 76)], "completion_ids": [82, 9]},
    {"prompt_ids": [50, 51], "completion_ids": [60, 9]},
    {"prompt_ids": [50], "completion_ids": [61, 9]},
]
INPUTS = ("input_ids", "position_ids", "attention_mask", "tree", "logits_to_keep")


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings(action="ignore"):
        yield


def make(family: str) -> torch.nn.Module:
    "A tiny model whose every weight matters"
    options = FAMILIES[family][1]
    config = getattr(transformers, f"{family}TextConfig", None)
    config = config or getattr(transformers, f"{family}Config")
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config(**options)).float()
    for parameter in model.parameters():
        if parameter.ndim > 1 or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return model.train()


def tree_logits(model, rows=ROWS):
    batch = TreeCollator()(rows)
    inputs = {name: batch[name] for name in INPUTS}
    return model(**inputs, use_cache=False).logits[0][batch["label_rows"]]


def single_logits(model, rows=ROWS):
    logits = []
    for row in rows:
        ids = torch.tensor([row["prompt_ids"] + row["completion_ids"][:-1]])
        logits.append(model(ids, use_cache=False).logits[0, len(row["prompt_ids"]) - 1 :])
    return torch.cat(logits)


def loss_of(logits, rows=ROWS):
    targets = torch.tensor([token for row in rows for token in row["completion_ids"]])
    return torch.nn.functional.cross_entropy(logits, targets)


def gradient(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def measure(model, compute, rows=ROWS):
    "Logits, loss and gradient"
    model.zero_grad()
    logits = compute(model, rows)
    loss = loss_of(logits, rows)
    loss.backward()
    return logits.detach(), loss.detach(), gradient(model)


def differences(first, second):
    return [((a - b).norm() / b.norm()).item() for a, b in zip(first, second)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tree_is_its_examples_one_by_one(family):
    model = make(family)
    alone = measure(model, single_logits)
    assert mixers_on_trees(model) == ""
    assert set(mixer_kinds(model).values()) == {FAMILIES[family][0]}
    assert max(differences(measure(model, tree_logits), alone)) < 1e-5
    model.gradient_checkpointing_enable()
    assert max(differences(measure(model, tree_logits), alone)) < 1e-5
    model.gradient_checkpointing_disable()
    assert max(differences(measure(model, single_logits), alone)) == 0
    restore_mixers(model)
    assert mixer_kinds(model) == {}
    assert max(differences(measure(model, single_logits), alone)) == 0


def neighbours(layout, count):
    "The tokens before in the row, whatever their path"
    index = torch.arange(layout.size)[:, None] + torch.arange(-count, 0)
    return index.clamp(min=-1)


BREAKS = {
    "a convolution over neighbours": ("Lfm2", Layout, "ancestors", neighbours),
    "a state dropped": ("Qwen3_5", mixers, "_begin", lambda states, parents: {}),
    "a state detached": (
        "Qwen3_5",
        mixers,
        "_begin",
        lambda states, parents, begin=mixers._begin: {
            number: state.detach() for number, state in begin(states, parents).items()
        },
    ),
    "the state of another segment": (
        "Mamba2",
        mixers,
        "_begin",
        lambda states, parents, begin=mixers._begin: {
            number: state.flip(0) if len(set(parents)) > 1 else -state
            for number, state in begin(states, parents).items()
        },
    ),
    "a state that is taken for used": ("Mamba", mixers, "_kind", lambda call: "states"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_is_seen(name, monkeypatch):
    family, place, function, broken = BREAKS[name]
    model = make(family)
    alone = measure(model, single_logits)
    monkeypatch.setattr(place, function, broken)
    assert mixers_on_trees(model) == ""
    logits, _, slope = differences(measure(model, tree_logits), alone)
    assert slope > 1e-4
    assert logits > 1e-4 or name == "a state detached"


@pytest.mark.parametrize("family", ["Qwen3_5", "Jamba"])
def test_two_trees_before_the_backward_pass(family):
    "A layer that is computed again follows the tree of its own batch"
    model = make(family)
    halves = [ROWS[:4], ROWS[3:]]
    model.zero_grad()
    sum(loss_of(single_logits(model, rows), rows) for rows in halves).backward()
    alone = gradient(model)
    assert mixers_on_trees(model) == ""
    if family == "Qwen3_5":  # Jamba passes no tree to its layers
        model.gradient_checkpointing_enable()
    model.zero_grad()
    sum(loss_of(tree_logits(model, rows), rows) for rows in halves).backward()
    assert max(differences([gradient(model)], [alone])) < 1e-5


@pytest.mark.parametrize("first", ["mixers", "adapter"])
@pytest.mark.parametrize("family", ["Lfm2", "Mamba2"])
def test_with_an_adapter(family, first):
    model = make(family)
    if first == "mixers":
        assert mixers_on_trees(model) == ""
    adapted = get_peft_model(model, LoraConfig(target_modules=["in_proj"], init_lora_weights=False))
    alone = measure(adapted, single_logits)
    if first == "adapter":
        assert mixers_on_trees(adapted) == ""
    assert max(differences(measure(adapted, tree_logits), alone)) < 1e-5


@pytest.mark.parametrize("family", ["Lfm2", "Qwen3_5", "Mamba2"])
def test_generation_is_what_it_was(family):
    model = make(family).eval()
    prompts = torch.tensor([[1, 2, 3, 4, 5], [1, 2, 3, 9, 8]])
    options = dict(max_new_tokens=6, min_new_tokens=6, do_sample=False)
    before = model.generate(prompts, **options)
    assert mixers_on_trees(model) == ""
    with torch.no_grad():
        tree_logits(model)
    assert torch.equal(model.generate(prompts, **options), before)


def test_a_tree_is_one_row():
    model = make("Lfm2")
    assert mixers_on_trees(model) == ""
    tree = torch.tensor([[0, 3, 3]])
    with pytest.raises(PackingError, match=r"got \(2, 3\) tokens for a tree of 3"):
        model(torch.ones(2, 3, dtype=torch.int64), tree=tree, use_cache=False)


def test_a_mixer_that_fails_is_a_reason(monkeypatch):
    model = make("Lfm2")
    monkeypatch.setattr(mixers, "_by_segments", lambda *_: [][0])
    assert "Lfm2ShortConv can't follow a tree: IndexError" in mixers_on_trees(model)
    assert mixer_kinds(model) == {} and model.training


@pytest.mark.parametrize("seed", range(20))
def test_segments_of_any_tree(seed, monkeypatch):
    monkeypatch.setattr("toolcall.packing.paths.BATCH", 24)
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 12, size=rng.integers(1, 16))
    tree = build_trie([rng.integers(2, size=length).tolist() for length in lengths])
    assert np.array_equal(nodes_of_mask(tree.mask), tree.nodes)
    nearest = ancestors(tree.nodes, 3)
    for path in tree.paths:
        padded = np.concatenate([[-1] * 3, path])
        assert all(
            nearest[token].tolist() == padded[n : n + 3].tolist() for n, token in enumerate(path)
        )
    for worth in (None, 1, 4):
        batches, places = cut_segments(tree.nodes, worth)
        ends: dict[int, list[int]] = {}
        for batch in batches:
            assert batch.tokens.size <= 24 or len(batch.numbers) == 1 or batch.tokens.shape[1] == 2
            for number, parent, tokens in zip(batch.numbers, batch.parents, batch.tokens.tolist()):
                before = ends[parent] if parent >= 0 else []
                path = before + tokens
                while len(path) > 1 and path[-1] == path[-2]:
                    path.pop()
                assert tree.mask[path[-1]].nonzero()[0].tolist() == path
                if batch.hands_on:
                    assert len(path) == len(before) + len(tokens)
                    ends[number] = path
        assert worth or not ends
        computed = np.concatenate([batch.tokens.ravel() for batch in batches])
        assert computed[places].tolist() == list(range(len(tree.ids)))
