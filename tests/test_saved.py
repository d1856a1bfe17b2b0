"What is trained is what is saved, or the run is refused before its first step"

import json
import warnings
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from toolcall.conversation import Conversation
from toolcall.errors import ModelError, TrainError
from toolcall.models import load_model, stored_dtypes
from toolcall.train import build_trainer, finetune, training_arguments
from toolcall.turn import Example

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
CONVERSATION = Conversation("a", [{"role": "user", "content": "?"}], [])
EXAMPLES = [
    Example([40, 41, 42], [50 + number, 60, 2], CONVERSATION, turn=number) for number in range(4)
]


@pytest.fixture(scope="module")
def tokenizer():
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = {word: number for number, word in enumerate([*special, *map(str, range(3, 64))])}
    made = Tokenizer(WordLevel(words, unk_token="3"))
    names = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "bos_token": "<|im_start|>"}
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        yield


def tiny(tokenizer, **fields):
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{"vocab_size": len(tokenizer)} | SIZES | fields))


def stored(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def settings(folder, **fields):
    usual = {
        "max_steps": 3,
        "learning_rate": 0.05,
        "warmup_steps": 0,
        "bf16": False,
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 10,
    }
    return training_arguments(folder, **usual | fields)


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[40, 41, 42, 50, 60]])).logits.float()


def content(folder, name):
    return json.loads(Path(folder, name).read_text())


TIED = {
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "by pattern": {"target_modules": r".*(q_proj|lm_head)"},
    "tied adapters": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "whole head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "whole, tied": {
        "target_modules": ["q_proj"],
        "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": True,
    },
    "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [40, 41]},
}


@pytest.mark.parametrize("name", TIED)
def test_adapters_of_tied_embeddings_are_merged_as_they_were_trained(tokenizer, tmp_path, name):
    base = stored(tiny(tokenizer, tie_word_embeddings=True), tokenizer, tmp_path / "base")
    model, _ = load_model(base)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, **TIED[name])
    finetune(model, tokenizer, EXAMPLES, args=settings(tmp_path / "run"), lora=lora)
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    fresh = AutoModelForCausalLM.from_pretrained(base)
    trained = PeftModel.from_pretrained(fresh, tmp_path / "run" / "adapter")
    assert (logits(trained) - logits(load_model(base)[0])).abs().max() > 0.01
    assert (logits(saved) - logits(trained)).abs().max() < 1e-4
    weights = load_file(tmp_path / "run" / "model.safetensors")
    # equal ends are stored once
    assert saved.config.tie_word_embeddings is (name in ("tied adapters", "whole, tied", "tokens"))
    assert ("lm_head.weight" in weights) is not saved.config.tie_word_embeddings


@pytest.mark.parametrize(
    "tied, save_dtype", [(True, "auto"), (True, "float32"), (False, "float16")]
)
def test_the_saved_type_is_that_of_the_base_or_the_one_asked_for(
    tokenizer, tmp_path, tied, save_dtype
):
    model = tiny(tokenizer, tie_word_embeddings=tied).to(torch.bfloat16)
    base = stored(model, tokenizer, tmp_path / "base")
    model, _ = load_model(base)
    assert model.dtype is torch.float32
    finetune(
        model,
        tokenizer,
        EXAMPLES,
        args=settings(tmp_path / "run", save_strategy="steps", save_steps=3),
        save_dtype=save_dtype,
    )
    right = torch.bfloat16 if save_dtype == "auto" else getattr(torch, save_dtype)
    assert list(stored_dtypes(tmp_path / "run")) == [right]
    assert content(tmp_path / "run", "config.json")["dtype"] == str(right).split(".")[1]
    assert list(stored_dtypes(tmp_path / "run" / "checkpoint-3")) == [torch.float32]
    saved, _ = load_model(tmp_path / "run", dtype=torch.float32)
    assert (logits(saved) - logits(model)).abs().max() < 0.05
    exact = load_file(tmp_path / "run" / "checkpoint-3" / "model.safetensors")
    for key, weight in load_file(tmp_path / "run" / "model.safetensors").items():
        assert torch.equal(weight, exact[key].to(right))


def test_a_frozen_base_in_bfloat16_gives_the_same_adapters(tokenizer, tmp_path, monkeypatch):
    base = stored(tiny(tokenizer).to(torch.bfloat16), tokenizer, tmp_path / "base")
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    adapters, kinds = [], []
    for name in ("held", "float32"):
        model, _ = load_model(base)
        args = settings(tmp_path / name, bf16=True)
        finetune(
            model,
            tokenizer,
            EXAMPLES[:2],
            args=args,
            lora=lora,
            prepare=lambda trainer: kinds.append(
                {weight.dtype for weight in trainer.model.parameters()}
            ),
        )
        adapters.append(load_file(tmp_path / name / "adapter" / "adapter_model.safetensors"))
        monkeypatch.setattr("toolcall.train.adapters._hold_frozen", lambda model: None)
    assert kinds == [{torch.float32, torch.bfloat16}, {torch.float32}]
    assert all(torch.equal(adapters[0][key], adapters[1][key]) for key in adapters[0])


@pytest.mark.parametrize("lora", [None, LoraConfig(r=2, target_modules=["q_proj"])])
def test_the_end_of_turns_is_a_stop_token_of_model_and_checkpoints(tokenizer, tmp_path, lora):
    model = tiny(tokenizer)
    model.config.eos_token_id = model.generation_config.eos_token_id = 0
    base = stored(model, tokenizer, tmp_path / "base")
    model, other = load_model(base)
    other.eos_token = other.pad_token = "<|endoftext|>"
    args = settings(tmp_path / "run", save_strategy="steps", save_steps=3)
    options = {} if lora is None else {"lora": lora}
    with pytest.warns(UserWarning, match=r"turns end with \['<\|im_end\|>'\]"):
        finetune(model, other, EXAMPLES, args=args, **options)
    folders = [tmp_path / "run"] if lora else [tmp_path / "run", tmp_path / "run" / "checkpoint-3"]
    for folder in folders:
        assert set(content(folder, "generation_config.json")["eos_token_id"]) == {0, 2}
    assert content(tmp_path / "run", "config.json")["eos_token_id"] == [2, 0]


def test_files_have_the_mode_of_their_neighbours(tokenizer, tmp_path):
    args = settings(tmp_path / "run", save_strategy="steps", save_steps=3)
    finetune(tiny(tokenizer), tokenizer, EXAMPLES, args=args)
    (tmp_path / "new").touch()
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {path.stat().st_mode for path in files} == {(tmp_path / "new").stat().st_mode}


def test_all_linear_works_on_a_hybrid_and_says_what_it_leaves_out(tokenizer, tmp_path):
    heads = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_ssm": 64, "mamba_n_groups": 1}
    sizes = SIZES | heads | {"head_dim": 8, "mamba_d_state": 8, "mamba_chunk_size": 16}
    hybrid = FalconH1ForCausalLM(FalconH1Config(vocab_size=len(tokenizer), **sizes))
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear")
    with pytest.warns(UserWarning, match=r"left out are 2 that .* \(2 out_proj\)"):
        trainer = build_trainer(
            hybrid, tokenizer, EXAMPLES, args=settings(tmp_path / "run"), lora=lora
        )
    names = trainer.model.base_model.targeted_module_names
    assert "model.layers.1.mamba.in_proj" in names and len(names) == 16
    assert lora.target_modules == "all-linear"


LORA = {
    "matches no module": {"target_modules": ["q_proj", "qkv_proj"]},
    "'gate_up_proj', which matches no module": {"target_modules": ["q_proj", "gate_up_proj"]},
    "not found in the base model": {"target_modules": ["qkv_proj"]},
    "target_modules is empty": {"target_modules": []},
    "positive integer": {"r": 0},
    "modules_to_save names 'head'": {"modules_to_save": ["head"]},
    "exclude_modules names 'vision'": {"exclude_modules": ["vision"]},
    "alpha_pattern names 'up_proj'": {"alpha_pattern": {"up_proj": 4}},
    "layers_to_transform names layer 2, and the model has 2": {"layers_to_transform": 2},
    "inference_mode": {"inference_mode": True},
    "lora_alpha=0": {"lora_alpha": 0},
    "layer_replication": {"layer_replication": [[0, 2], [1, 2]]},
    "task_type is CAUSAL_LM": {"task_type": "SEQ_CLS"},
    "can't be merged": {"lora_bias": True},
}


@pytest.mark.parametrize("sentence", LORA)
def test_adapters_without_effect_are_refused_in_a_sentence(tokenizer, tmp_path, sentence):
    fields = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj"]} | LORA[sentence]
    with warnings.catch_warnings(), pytest.raises(TrainError) as raised:
        warnings.simplefilter("ignore")
        args = settings(tmp_path)
        build_trainer(tiny(tokenizer), tokenizer, EXAMPLES, args=args, lora=LoraConfig(**fields))
    assert sentence in str(raised.value) and "\n" not in str(raised.value)


TRAINING = {
    "training.optim: 'adamww' is not known": {"optim": "adamww"},
    "training.learning_rate is of type float, not 'fast'": {"learning_rate": "fast"},
    "training.max_steps is of type int, not 'many'": {"max_steps": "many"},
    "Invalid beta": {"adam_beta2": 2.0},
    "optim_args=a=1 has no effect": {"optim_args": "a=1"},
    "dataloader_drop_last=True has no effect": {"dataloader_drop_last": True},
    "train_sampling_strategy=group_by_length has no": {
        "train_sampling_strategy": "group_by_length"
    },
    "no optimizer or schedule": {"lr_scheduler_kwargs": {"cycles": 1}},
    "has no effect on the schedule constant": {
        "lr_scheduler_type": "constant",
        "lr_scheduler_kwargs": {"num_cycles": 1},
    },
}


@pytest.mark.parametrize("sentence", TRAINING)
def test_wrong_training_settings_are_refused_in_a_sentence(tokenizer, tmp_path, sentence):
    with pytest.raises(TrainError) as raised:
        args = settings(tmp_path, **TRAINING[sentence])
        build_trainer(tiny(tokenizer), tokenizer, EXAMPLES, args=args)
    assert sentence in str(raised.value) and "\n" not in str(raised.value)


def test_ids_beyond_the_embedding_are_refused_with_the_numbers(tokenizer, tmp_path):
    rows = len(tokenizer)
    for ids in ([40, rows], [40, rows + 5]):
        beyond = [Example(ids, [50, 2], CONVERSATION, turn=0)]
        with pytest.raises(TrainError, match=f"token {ids[1]} .* has {rows} rows"):
            build_trainer(tiny(tokenizer), tokenizer, beyond, args=settings(tmp_path))
    padded = tiny(tokenizer, vocab_size=rows + 64)
    build_trainer(padded, tokenizer, EXAMPLES, args=settings(tmp_path))
    small = tiny(tokenizer, vocab_size=rows - 1)
    with pytest.warns(
        UserWarning, match=f"the tokenizer has {rows} tokens, and the embedding {rows - 1}"
    ):
        build_trainer(small, tokenizer, EXAMPLES, args=settings(tmp_path))


def test_a_tower_that_would_be_lost_is_refused_by_name(tokenizer, tmp_path):
    base = stored(tiny(tokenizer), tokenizer, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    tower = {"vision_tower.embeddings.weight": torch.ones(2)}
    save_file(weights | tower, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="1 weights .* such as vision_tower.embeddings.weight"):
        load_model(base)


CHANGED = {
    "max_grad_norm": (1.0, 2.0),
    "adam_beta1": (0.9, 0.8),
    "adam_epsilon": (1e-8, 1e-6),
    "weight_decay": (0.01, 0.1),
    "lr_scheduler_kwargs": (None, {"num_cycles": 0.4}),
}


@pytest.mark.parametrize("interrupted", ["checkpoint-2", "model.part"])
def test_a_run_that_was_interrupted_while_it_saved_keeps_its_settings(
    tokenizer, tmp_path, interrupted
):
    usual = {"lr_scheduler_type": "cosine", "max_steps": 1}
    finetune(tiny(tokenizer), tokenizer, EXAMPLES, args=settings(tmp_path, **usual))
    (tmp_path / interrupted).mkdir()
    for name, (before, now) in CHANGED.items():
        args = settings(tmp_path, **usual | {name: now})
        with pytest.raises(TrainError) as raised:
            finetune(tiny(tokenizer), tokenizer, EXAMPLES, args=args)
        assert f"{name}: {before} there, {now} now" in str(raised.value)


def test_adapters_do_not_go_on_with_another_base(tokenizer, tmp_path):
    lora = LoraConfig(r=2, target_modules=["q_proj"])
    args = settings(tmp_path, save_strategy="steps", save_steps=3)
    finetune(tiny(tokenizer), tokenizer, EXAMPLES, args=args, lora=lora)
    other = tiny(tokenizer)
    torch.nn.init.normal_(other.model.layers[0].mlp.up_proj.weight)
    with pytest.raises(TrainError, match="base_weights: "):
        finetune(other, tokenizer, EXAMPLES, args=args, lora=lora)
