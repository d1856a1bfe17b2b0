"What several tests share: tokenizers, a tiny model, the folder of real logs"
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def smollm():
    from toolcall.models import load_tokenizer
    return load_tokenizer("SmolLM2-135M-Instruct")


def packaged_file(package: str, ending: str) -> Path:
    return next(Path(f.locate()) for f in distribution(package).files if str(f).endswith(ending))


def make_qwen(template: str):
    "Qwen's real vocabulary (from the wheel dashscope) under one of Qwen's chat templates (from trl)"
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    pattern = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    vocabulary = packaged_file("dashscope", "qwen.tiktoken")
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=TikTokenConverter(str(vocabulary), pattern=pattern, extra_special_tokens=special).converted())
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in ("<tool_call>", "</tool_call>")])
    tokenizer.chat_template = packaged_file("trl", f"chat_templates/{template}.jinja").read_text(encoding="utf-8")
    return tokenizer


@pytest.fixture(scope="session")
def qwen_by_template():
    return {name: make_qwen(name) for name in ("qwen2_5", "qwen3")}


def make_tiny_model(tokenizer, seed: int = 0):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2))


@pytest.fixture(scope="session")
def tiny_folder(smollm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(smollm).save_pretrained(folder)
    smollm.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def real_logs():
    folder = os.environ.get("TOOLCALL_REAL_LOGS")
    if not folder:
        pytest.skip("TOOLCALL_REAL_LOGS is not set")
    return Path(folder)
