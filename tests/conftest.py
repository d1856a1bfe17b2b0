"What several tests share: tokenizers, a tiny model, the folder of real logs"

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
if "PYTEST_XDIST_WORKER" in os.environ:  # threads of several processes wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections import Counter
from copy import copy
from functools import cache
from importlib.metadata import distribution
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile(
    "fixed", derandomize=True
)  # the same cases each time; `--hypothesis-profile=default` looks for new ones
settings.load_profile("fixed")

ROOT = Path(__file__).resolve().parent.parent
ATTEMPTED: Counter[str] = Counter()  # cases of each kind of attack
FAILED: Counter[str] = Counter()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    "Say in the report which kind of attack a case is, so that other processes can count it"
    if marker := item.get_closest_marker("attack"):
        item.user_properties.append(("attack", marker.args[0]))


def pytest_runtest_logreport(report):
    "Count the cases that are marked `attack(kind)`"
    kind = dict(report.user_properties).get("attack")
    if kind and (report.when == "call" or report.failed):
        ATTEMPTED[kind] += report.when == "call"
        FAILED[kind] += report.failed


def pytest_terminal_summary(terminalreporter):
    "Print what was attempted and what failed; SECURITY.md holds the same table"
    if ATTEMPTED:
        terminalreporter.section("attacks: attempted, failed")
    for kind, attempted in sorted(ATTEMPTED.items()):
        terminalreporter.write_line(f"{kind:24} {attempted:5} {FAILED[kind]:5}")


@pytest.fixture(scope="session")
def smollm():
    from toolcall.models import load_tokenizer

    return load_tokenizer("SmolLM2-135M-Instruct")


def packaged_file(package: str, ending: str) -> Path:
    return next(Path(f.locate()) for f in distribution(package).files if str(f).endswith(ending))


TEMPLATES = {  # of TRL, and the control tokens that each needs beside Qwen's
    "qwen2_5": [],
    "qwen3": [],
    "qwen3_instruct_2507": [],
    "qwen3_5_think": [],
    "qwen3_5_nothink": [],
    "llama3_1": [
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ],
    "llama3_2": [
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ],
    "glm4moe": ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"],
    "gptoss": [
        "<|start|>",
        "<|end|>",
        "<|message|>",
        "<|channel|>",
        "<|call|>",
        "<|return|>",
        "<|constrain|>",
    ],
}


@cache
def qwen_with(tokens: tuple[str, ...]):
    "Qwen's real vocabulary, from the wheel dashscope, with further control tokens"
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import TikTokenConverter

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    backend = TikTokenConverter(
        str(packaged_file("dashscope", "qwen.tiktoken")),
        pattern=pattern,
        extra_special_tokens=special,
    ).converted()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    tokenizer.add_tokens(
        [
            AddedToken(tag, special=False, normalized=False)
            for tag in ("<tool_call>", "</tool_call>", "<think>", "</think>")
        ]
    )
    tokenizer.add_special_tokens(
        {"additional_special_tokens": list(tokens)}, replace_extra_special_tokens=False
    )
    return tokenizer


def make_tokenizer(template: str, tokens: tuple[str, ...] | None = None):
    "Qwen's vocabulary under a chat template of trl, with the control tokens that it needs"
    needed = TEMPLATES.get(template.removesuffix("_training"), []) if tokens is None else tokens
    tokenizer = copy(qwen_with(tuple(needed)))
    tokenizer.chat_template = packaged_file("trl", f"chat_templates/{template}.jinja").read_text(
        encoding="utf-8"
    )
    return tokenizer


@pytest.fixture(scope="session")
def qwen_by_template():
    return {name: make_tokenizer(name) for name in ("qwen2_5", "qwen3")}


def make_tiny_model(tokenizer, **options):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            **options,
        )
    )


@pytest.fixture(scope="session")
def tiny_folder(smollm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    make_tiny_model(smollm).save_pretrained(folder)
    smollm.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    from zygote import make_small_model

    folder = tmp_path_factory.mktemp("small")
    make_small_model(folder)
    return folder


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    from zygote import Zygote

    process = Zygote(tmp_path_factory.mktemp("zygote"))
    yield process
    process.close()


@pytest.fixture(scope="session")
def real_logs():
    folder = os.environ.get("TOOLCALL_REAL_LOGS")
    if not folder:
        pytest.skip("TOOLCALL_REAL_LOGS is not set")
    return Path(folder)
