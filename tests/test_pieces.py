"A step in pieces has the loss and the gradient of each example alone"

import multiprocessing
import random
import socket
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    TrainingArguments,
)

from toolcall.conversation import Conversation
from toolcall.errors import PackingError
from toolcall.packing.attention import TREE
from toolcall.packing.batches import ExampleDataset, TreeCollator, TreeSampler
from toolcall.packing.loss import completion_loss
from toolcall.packing.pieces import cut_pieces
from toolcall.packing.tree import build_trie
from toolcall.train.steps import batch_loss, loss_before_last
from toolcall.turn import Example

SHAPE = dict(
    vocab_size=60,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    attn_implementation="sdpa",
)
GEMMA = SHAPE | {"attn_implementation": "eager", "head_dim": 8, "sliding_window": 9}
KINDS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True)),
    "mistral with a window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=9)),
    "gemma2": lambda: Gemma2ForCausalLM(Gemma2Config(**GEMMA)),  # windows and soft caps
}


def make_model(kind: str = "llama", attention: str = TREE):
    torch.manual_seed(0)
    model = KINDS[kind]()
    model.set_attn_implementation(attention)
    return model


def random_rows(seed: int, *, shared: bool = True, weights: bool = False) -> list[dict]:
    "Examples that grow out of each other"
    rng = random.Random(seed)

    def tokens(most: int) -> list[int]:
        return [rng.randrange(3, 60) for _ in range(rng.randint(1, most))]

    stems = [tokens(40) if shared else []]
    rows = []
    for number in range(rng.randint(2, 12)):
        prompt = rng.choice(stems) + tokens(25)
        answer = [*tokens(12), 2]
        stems += [prompt, prompt + answer, prompt[: len(prompt) // 2]]
        rows.append({"prompt_ids": prompt, "completion_ids": answer, "number": number})
        if rng.random() < 0.3:  # the same prompt, or the same example, again
            rows.append({**rows[-1], "completion_ids": rng.choice([answer, answer[:1] + [2]])})
    for row in rows if weights else []:
        row["weights"] = [rng.uniform(0.2, 3) for _ in row["completion_ids"]]
    return rows


def gradient(model, batches: list[dict]) -> tuple[float, torch.Tensor]:
    "Loss and gradient of batches, each label counting the same"
    model.zero_grad()
    count = sum(int((batch["labels"][:, 1:] != -100).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        loss = batch_loss(model, batch, count=count)
        loss.backward()
        total += loss.item()
    return total, torch.cat([weight.grad.flatten() for weight in model.parameters()])


def apart(model, rows, max_tokens) -> float:
    "The largest relative difference of loss and gradient from the examples one by one"
    batch = TreeCollator(max_tokens)(rows)
    loss, by_pieces = gradient(model, [batch])
    expected_loss, expected = gradient(model, [TreeCollator()([row]) for row in rows])
    difference = ((by_pieces - expected).norm() / expected.norm()).item()
    return max(difference, abs(loss / expected_loss - 1))


def longest(rows: list[dict]) -> int:
    return max(len(row["prompt_ids"]) + len(row["completion_ids"]) - 1 for row in rows)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(8))
def test_random_tries_in_pieces_are_exact(kind, seed):
    rows = random_rows(seed, shared=seed % 3 > 0, weights=seed % 2 == 1)
    model = make_model(kind)
    for room in (0, 1, 7, 30, 100):
        assert apart(model, rows, longest(rows) + room) < 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_by_a_mask_pieces_are_exact_as_well(seed):
    "Dropout, or another device, takes the mask"
    model = make_model()
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 1e-12  # leaves the fused kernel
    model.train()
    rows = random_rows(seed)
    assert apart(model, rows, longest(rows) + 5) < 1e-5


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("reentrant", [False, None])
def test_checkpointed_layers_in_pieces_are_exact(seed, reentrant):
    model = make_model()
    rows = random_rows(seed, weights=True)
    model.train()
    options = None if reentrant is None else {"use_reentrant": reentrant}
    model.gradient_checkpointing_enable(options)
    assert apart(model, rows, longest(rows) + 3) < 1e-5


@pytest.mark.parametrize("seed", range(30))
def test_pieces_hold_each_token_once_and_keep_to_the_bound(seed):
    rows = random_rows(seed, shared=seed % 4 > 0)
    tree = build_trie([row["prompt_ids"] + row["completion_ids"][:-1] for row in rows])
    for bound in range(longest(rows), len(tree.ids) + 2, 5):
        pieces = cut_pieces(tree, bound)
        tokens = np.concatenate([piece.tokens for piece in pieces])
        assert np.array_equal(np.sort(tokens), np.arange(len(tree.ids)))
        together: list[int] = []
        for number, piece in enumerate(pieces):
            assert piece.parent < number
            above = together[piece.parent] if piece.parent >= 0 else 0
            together.append(above + len(piece.tokens))
            assert tree.positions[piece.tokens[0]] == len(ancestors(pieces, number))
        assert max(together) <= bound


def ancestors(pieces, number: int) -> list[int]:
    piece = pieces[number]
    if piece.parent < 0:
        return []
    above = pieces[piece.parent].tokens[piece.path].tolist()
    return ancestors(pieces, piece.parent) + above


def test_an_example_longer_than_the_bound_is_refused():
    rows = random_rows(1)
    with pytest.raises(PackingError, match="a path has"):
        TreeCollator(longest(rows) - 1)(rows)
    examples = [Example(r["prompt_ids"], r["completion_ids"], None, 0) for r in rows]
    with pytest.raises(PackingError, match="are longer than max_tokens"):
        TreeSampler(ExampleDataset(examples), longest(rows) - 1, max_examples=4, pieces=True)


def test_one_example_is_a_row():
    [row, *_] = random_rows(2)
    assert "pieces" not in TreeCollator(longest([row]))([row])


def test_gradients_of_half_precision_add_up_in_float32():
    "Forty branches below one prompt, under autocast"
    rng = random.Random(0)
    prompt = [rng.randrange(3, 60) for _ in range(50)]
    rows = [
        {"prompt_ids": prompt, "completion_ids": [rng.randrange(3, 60) for _ in range(12)]}
        for _ in range(40)
    ]
    model = make_model()
    _, exact = gradient(model, [TreeCollator()(rows)])

    def error(bound):
        batch = TreeCollator(bound)(rows)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = batch_loss(model, batch)
        loss.backward()
        flat = torch.cat([weight.grad.flatten() for weight in model.parameters()])
        return ((flat - exact).norm() / exact.norm()).item()

    assert len(TreeCollator(62)(rows)["pieces"]) > 30
    assert error(62) < 1.5 * error(None)


def examples_of(rows: list[dict]) -> list[Example]:
    talk = Conversation("a", [{"role": "user", "content": "?"}], [])
    return [Example(row["prompt_ids"], row["completion_ids"], talk, 0) for row in rows]


@pytest.fixture(scope="module")
def examples():
    return examples_of(random_rows(5) + random_rows(6) + random_rows(7))


def train(folder, smollm, examples, *, bound=None, resume=False, **settings):
    from toolcall.packing.self_check import take_trees
    from toolcall.train import build_trainer, training_arguments

    fixed = dict(
        bf16=False,
        use_cpu=True,
        disable_tqdm=True,
        warmup_steps=0,
        logging_steps=1,
        max_grad_norm=0.0,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
    )
    args = training_arguments(folder, **(fixed | settings))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(SHAPE | {"vocab_size": len(smollm)})))
    assert not take_trees(model)
    most = max(len(e.prompt_ids) + len(e.completion_ids) for e in examples)
    trainer = build_trainer(
        model, smollm, examples, args=args, max_tokens=most if bound is None else bound
    )
    trainer.train(resume_from_checkpoint=resume)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    weights = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    return trainer, losses, weights


def close(first, second) -> bool:
    return torch.allclose(first[2], second[2], rtol=0, atol=1e-5) and first[1] == pytest.approx(
        second[1], rel=1e-4
    )


def test_accumulated_rows_are_one_tree_with_the_same_step(smollm, examples, tmp_path):
    steps = dict(max_steps=4, save_strategy="no")
    batches = dict(per_device_train_batch_size=3, gradient_accumulation_steps=3)
    cut = train(tmp_path / "a", smollm, examples, **steps, **batches)
    whole = train(tmp_path / "b", smollm, examples, bound=10_000, **steps, **batches)
    assert cut[0].pieces and close(cut, whole)
    batch = next(iter(cut[0].get_train_dataloader()))
    assert len(batch["pieces"]) > 1 and len(batch["label_examples"]) > 6
    logged = [entry for entry in cut[0].state.log_history if "loss" in entry]
    assert {entry["share_of_ideal"] for entry in logged} == {1.0}
    # the mean over the labels of the first step, as computed by hand
    model = LlamaForCausalLM(LlamaConfig(**(SHAPE | {"vocab_size": len(smollm)})))
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**(SHAPE | {"vocab_size": len(smollm)})))
    first = [cut[0].train_dataset[n] for n in batch["label_examples"].tolist()]
    labels = sum(len(row["completion_ids"]) for row in first)
    alone = [completion_loss(model, TreeCollator()([r]), count=labels).item() for r in first]
    assert sum(alone) == pytest.approx(cut[1][0], rel=1e-3)


@pytest.mark.parametrize("settings", [{"gradient_checkpointing": True}, {"torch_compile": True}])
def test_the_trainer_computes_the_same_with_other_settings(smollm, examples, tmp_path, settings):
    if "torch_compile" in settings:
        settings |= {"torch_compile_backend": "eager"}
    steps = dict(max_steps=3, save_strategy="no", per_device_train_batch_size=6)
    plain = train(tmp_path / "a", smollm, examples, **steps)
    other = train(tmp_path / "b", smollm, examples, **steps, **settings)
    assert close(plain, other)


def test_a_run_in_pieces_goes_on_where_it_stopped(smollm, examples, tmp_path):
    settings = dict(
        per_device_train_batch_size=2, gradient_accumulation_steps=3, save_steps=2, max_steps=6
    )
    whole = train(tmp_path / "whole", smollm, examples, **settings)
    train(tmp_path / "cut", smollm, examples, **(settings | {"max_steps": 4}))
    resumed = train(tmp_path / "cut", smollm, examples, resume=True, **settings)
    assert close(whole, resumed)
    tokens = [run[0].state.log_history[-2]["logical_tokens"] for run in (whole, resumed)]
    assert tokens[0] == tokens[1]


def test_the_validation_loss_is_that_of_rows(smollm, examples, tmp_path):
    trainer, *_ = train(
        tmp_path, smollm, examples, max_steps=1, save_strategy="no", per_device_eval_batch_size=9
    )
    trainer.model.eval()
    dataset = ExampleDataset(examples)
    in_pieces = trainer.evaluate(dataset)["eval_loss"]
    rows = [dataset[number] for number in range(len(dataset))]
    with torch.no_grad():
        expected = completion_loss(trainer.model, TreeCollator()(rows)).item()
    assert in_pieces == pytest.approx(expected, rel=1e-5)
    assert all(weight.grad is None for weight in trainer.model.parameters())


def exchange(rank: int, port: int, unused: bool, compiled: bool, results) -> None:
    "One of two processes: its own examples, in another number of pieces than the other's"
    import os

    from torch.distributed import destroy_process_group, init_process_group
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    init_process_group("gloo", rank=rank, world_size=2)
    model = DistributedDataParallel(make_model(), find_unused_parameters=unused)
    if compiled:
        model = torch.compile(model, backend="eager", dynamic=True)
    accelerator = SimpleNamespace(
        no_sync=lambda wrapped: wrapped.no_sync(), backward=torch.Tensor.backward
    )
    for seed in (4, 8):  # two steps, the buckets are made anew after the first
        rows = random_rows(seed)[rank::2]
        batch = TreeCollator(longest(rows) + 1 if rank else None)(rows)
        model.zero_grad()
        loss_before_last(accelerator, model, batch, count=100.0).backward()
    results[rank] = torch.cat([w.grad.flatten() for w in model.parameters()]).tolist()
    destroy_process_group()


@pytest.mark.parametrize(("unused", "compiled"), [(False, False), (True, False), (False, True)])
def test_two_processes_with_other_pieces_exchange_gradients_once(unused, compiled):
    manager = multiprocessing.get_context("spawn").Manager()
    results = manager.dict()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(exchange, (port, unused, compiled, results), nprocs=2)
    model = make_model()
    rows = random_rows(8)
    assert "pieces" in TreeCollator(longest(rows[1::2]) + 1)(rows[1::2])
    for row in rows:
        completion_loss(model, TreeCollator()([row]), count=200.0).backward()
    expected = torch.cat([weight.grad.flatten() for weight in model.parameters()])
    for rank in range(2):
        difference = torch.tensor(results[rank]) - expected
        assert difference.norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("flag", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_launch_that_shards_the_weights_keeps_rows(flag, tmp_path, monkeypatch):
    from toolcall.train import training_arguments
    from toolcall.train.steps import refuses_pieces

    args = training_arguments(tmp_path, use_cpu=True)
    assert refuses_pieces(make_model(), args) == ""
    monkeypatch.setenv(flag, "true")
    assert "one forward pass a step" in refuses_pieces(make_model(), args)


def test_a_model_that_keeps_rows_keeps_its_attention(tmp_path):
    from toolcall.train import training_arguments
    from toolcall.train.steps import takes_pieces

    class OnGpu(TrainingArguments):
        device = torch.device("cuda")

    args = OnGpu(tmp_path, use_cpu=True, optim="lomo")
    model = make_model(attention="sdpa")
    assert not takes_pieces(model, args) and model.config._attn_implementation == "sdpa"
    args.optim = "adamw_torch"
    assert takes_pieces(model, args) and model.config._attn_implementation == TREE
    on_cpu = training_arguments(tmp_path, use_cpu=True)
    model = make_model(attention="sdpa")  # what the self-check chose
    assert not takes_pieces(model, on_cpu) and model.config._attn_implementation == "sdpa"
