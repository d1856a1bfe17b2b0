"GGUF files against llama.cpp itself, and exports of runs that can't be exported"

import json
import os
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
import xllamacpp
from conftest import packaged_file
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from toolcall.chatml.templates import STYLES
from toolcall.errors import ServeError
from toolcall.models import load_tokenizer
from toolcall.pipeline.commands import main
from toolcall.serve import gguf_tensors
from toolcall.serve.exporting import export
from toolcall.serve.gguf import write_gguf
from toolcall.serve.gguf_vocabulary import make_vocabulary
from toolcall.serve.recipes import read_recipe, serve_markdown

TEXTS = [
    "<|im_start|>user\nWetter in Köln, 12.5 km/h? It's 1,234 　全角\n\n\n"
    '  x=[{"a": 1e-5}]<|im_end|>\n',
    "<|im_start|> I'LL say: naïve café 🙂🏽 ١٢٣ don't\r\n\tHELLOWorld helloWORLD  ",
    '<|im_start|><tool_call>\n{"name": "x"}\n</tool_call><city> Z',
]
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
}
LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def trimmed(tokenizer, size: int) -> dict:
    "The first words of a vocabulary, with the merges that make them and all added tokens"
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    added = described["added_tokens"]
    names = {token["content"] for token in added}
    words = sorted(described["model"]["vocab"].items(), key=lambda item: item[1])
    words = [word for word, _ in words if word not in names][: size - len(added)]
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [m for m in described["model"]["merges"] if {*m, "".join(m)} <= vocabulary.keys()]
    for number, token in enumerate(added, len(words)):
        token["id"] = number
        if token["content"] in described["model"]["vocab"]:
            vocabulary[token["content"]] = number
    described["model"] |= {"vocab": vocabulary, "merges": merges}
    return described


def as_tokenizer(described: dict, **special):
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)), **special
    )
    tokenizer.chat_template = STYLES["hermes"].template
    return tokenizer


QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen(folder: Path) -> dict:
    "The first words of Qwen's vocabulary, which are the most frequent"
    from transformers.convert_slow_tokenizer import TikTokenConverter

    lines = packaged_file("dashscope", "qwen.tiktoken").read_bytes().splitlines()
    (folder / "qwen.tiktoken").write_bytes(b"\n".join(lines[:5990]))
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    converter = TikTokenConverter(
        str(folder / "qwen.tiktoken"), pattern=QWEN_WORDS, extra_special_tokens=special
    )
    described = json.loads(converter.converted().to_str())
    added = described["added_tokens"]
    tags = [
        added[0] | {"content": tag, "special": False} for tag in ("<tool_call>", "</tool_call>")
    ]
    for number, token in enumerate(tags, max(token["id"] for token in added) + 1):
        token["id"] = number
    described["added_tokens"] = added + tags
    return described


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    ends = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    qwen_2 = qwen(tmp_path_factory.mktemp("qwen"))
    llama = json.loads(json.dumps(qwen_2).replace(r"|\\p{N}| ?", r"|\\p{N}{1,3}| ?"))
    assert llama != qwen_2
    llama["model"]["ignore_merges"] = True
    smollm = trimmed(load_tokenizer("SmolLM2-135M-Instruct"), 6000)
    digits = {"type": "Digits", "individual_digits": True}
    steps = [digits, smollm["pre_tokenizer"]]
    smollm["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    described = {"qwen": qwen_2, "llama3": llama, "smollm": smollm}
    return {name: as_tokenizer(one, **ends) for name, one in described.items()}


@pytest.fixture(scope="module")
def mistral(tmp_path_factory):
    "The vocabulary of Mistral 7B in sentencepiece"
    folder = tmp_path_factory.mktemp("mistral")
    shutil.copy(packaged_file("mistral_common", "data/tokenizer.model.v1"), folder)
    (folder / "tokenizer.model.v1").rename(folder / "tokenizer.model")
    return transformers.LlamaTokenizer.from_pretrained(folder, legacy=False)


def saved(folder: Path, config, tokenizer, **options) -> Path:
    "A random model whose biases and norms matter"
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.copy_(
                weights * 3
                if weights.dim() > 1
                else weights + weights.new_empty(weights.shape).normal_() / 10
            )
    model.save_pretrained(folder, **options)
    tokenizer.save_pretrained(folder)
    return folder


def ask(server, path: str, **body) -> dict:
    data = json.dumps(body).encode()
    request = urllib.request.Request(
        server.listening_address + path, data, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def difference(folder: Path, file: Path, texts=TEXTS) -> float:
    "Greatest difference of a logarithm of a probability; tokens of all texts must be equal"
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_ctx, parameters.n_parallel, parameters.warmup = 256, 1, False
    parameters.cpuparams.n_threads = 1
    parameters.verbosity = -1
    server = xllamacpp.Server(parameters)
    tokenizer = load_tokenizer(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    worst = 0.0
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        split = ask(server, "/tokenize", content=text, add_special=False, parse_special=True)
        assert split["tokens"] == ids, text
        options = {"n_predict": 1, "temperature": 0, "n_probs": 40, "cache_prompt": False}
        answer = ask(server, "/completion", prompt=ids, **options)
        with torch.no_grad():
            ours = model(torch.tensor([ids])).logits[0, -1].log_softmax(-1)
        for one in answer["completion_probabilities"][0]["top_logprobs"]:
            worst = max(worst, abs(float(ours[one["id"]]) - one["logprob"]))
    return worst


FAMILIES = {
    "llama3": lambda n: transformers.LlamaConfig(
        **SIZES, vocab_size=n + 3, rope_parameters=LLAMA_3, attention_bias=True, mlp_bias=True
    ),
    "smollm": lambda n: transformers.LlamaConfig(**SIZES, vocab_size=n, tie_word_embeddings=True),
    "qwen3": lambda n: transformers.Qwen3Config(**SIZES, vocab_size=n, tie_word_embeddings=True),
    "qwen2": lambda n: transformers.Qwen2Config(
        **{key: value for key, value in SIZES.items() if key != "head_dim"},
        vocab_size=n + 5,
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_the_same(family, tokenizers, tmp_path):
    "From several shards"
    tokenizer = tokenizers["qwen" if "qwen" in family else family]
    config = FAMILIES[family](len(tokenizer))
    folder = saved(tmp_path / family, config, tokenizer, max_shard_size="300KB")
    assert len([*folder.glob("*.safetensors")]) > 1
    assert difference(folder, write_gguf(folder, tmp_path / "f32.gguf", kind="f32")) < 0.01


def test_mistral_and_its_sentencepiece(mistral, tmp_path, monkeypatch):
    auto = transformers.models.auto.tokenization_auto
    monkeypatch.setattr(auto, "_use_mistral_format", lambda *names, **options: False)
    config = transformers.MistralConfig(**SIZES, vocab_size=len(mistral), sliding_window=None)
    folder = saved(tmp_path / "mistral", config, mistral)
    texts = ["<s>[INST] Wetter in Köln,  12.5 km? 🙂 [/INST] ok</s>", "<s> naïve\n\n\tcafé 全角"]
    assert difference(folder, write_gguf(folder, tmp_path / "m.gguf"), texts) < 0.02


def test_other_kinds_and_what_a_wrong_order_costs(tokenizers, tmp_path, monkeypatch):
    folder = saved(tmp_path / "m", FAMILIES["smollm"](6000), tokenizers["smollm"])
    for kind, limit in {"bf16": 0.05, "q8_0": 0.2}.items():
        assert difference(folder, write_gguf(folder, tmp_path / kind, kind=kind)) < limit
    monkeypatch.setattr(gguf_tensors, "interleave", lambda rows, heads: rows)
    assert difference(folder, write_gguf(folder, tmp_path / "wrong")) > 0.1


def test_a_head_of_its_own_is_written_even_where_the_configuration_ties_it(tokenizers, tmp_path):
    folder = saved(tmp_path / "m", FAMILIES["smollm"](6000), tokenizers["smollm"])
    tied = write_gguf(folder, tmp_path / "tied.gguf").stat().st_size
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert write_gguf(folder, tmp_path / "same.gguf").stat().st_size == tied
    weights["lm_head.weight"] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    own = write_gguf(folder, tmp_path / "own.gguf").stat().st_size
    assert own - tied > weights["lm_head.weight"].numel()


def test_a_failure_leaves_the_old_file(tokenizers, tmp_path):
    folder = saved(tmp_path / "m", FAMILIES["smollm"](6000), tokenizers["smollm"])
    file = write_gguf(folder, tmp_path / "out" / "m.gguf")
    mask = os.umask(0)
    os.umask(mask)
    assert file.stat().st_mode & 0o777 == 0o666 & ~mask
    before = file.read_bytes()
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ServeError, match="up_proj|ffn_up.*float16"):
        write_gguf(folder, file)
    assert file.read_bytes() == before and [*file.parent.iterdir()] == [file]


@pytest.mark.parametrize(
    "name, config",
    {
        "a sliding window": transformers.MistralConfig(**SIZES, sliding_window=64),
        "the architecture gpt2": transformers.GPT2Config(n_embd=8, n_layer=1, n_head=1),
        "the activation gelu": transformers.LlamaConfig(**SIZES, hidden_act="gelu"),
        "rotary positions of the type yarn": transformers.Qwen3Config(
            **SIZES, rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}
        ),
    }.items(),
)
def test_other_models_get_the_command_of_llama_cpp(name, config, tokenizers, tmp_path):
    tokenizers["smollm"].save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    with pytest.raises(ServeError, match=f"{name}.*convert_hf_to_gguf.py {tmp_path}.*q8_0"):
        write_gguf(tmp_path, tmp_path / "m.gguf", kind="q8_0")
    assert not [*tmp_path.glob("*gguf*")]


def test_tokens_that_are_added_keep_their_kind(tokenizers):
    vocabulary = make_vocabulary(tokenizers["qwen"], rows=6010)
    kind = dict(zip(vocabulary.tokens, vocabulary.types))
    assert kind["<|im_end|>"].name == "CONTROL" and kind["<tool_call>"].name == "USER_DEFINED"
    assert kind["[PAD6009]"].name == "UNUSED" and kind["Ġthe"].name == "NORMAL"
    scores = np.array(make_vocabulary(tokenizers["qwen"], rows=6010).scores)
    assert not scores.size


def test_recipe_of_a_syntax_that_no_parser_reads(tokenizers, tmp_path):
    tokenizer = tokenizers["smollm"]
    folder = saved(tmp_path / "m", FAMILIES["smollm"](6000), tokenizer)
    tokenizer.chat_template = STYLES["function_call"].template
    try:
        tokenizer.save_pretrained(folder)
    finally:
        tokenizer.chat_template = STYLES["hermes"].template
    assert read_recipe(folder).vllm == ""
    page = serve_markdown(folder)
    assert "--tool-call-parser" not in page and "No parser of this server reads" in page
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["response_template"] = {"fields": {"content": {"content": "text"}}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    page = serve_markdown(folder)
    assert "--tool-call-parser hf" in page and "--tool-call-parser response_template" in page


def test_stop_ids_beyond_the_tokenizers_own(tokenizers, tmp_path):
    folder = saved(tmp_path / "m", FAMILIES["smollm"](6000), tokenizers["smollm"])
    own = tokenizers["smollm"].eos_token_id
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, own]}))
    assert [*read_recipe(folder).stops] == [own, 7]
    from gguf import GGUFReader

    fields = GGUFReader(write_gguf(folder, tmp_path / "m.gguf")).fields
    assert fields["tokenizer.ggml.eos_token_id"].contents() == own
    assert fields["tokenizer.ggml.eot_token_id"].contents() == 7


def test_runs_that_cannot_be_exported(tokenizers, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("log_path: x")
    empty = tmp_path / "empty"
    empty.mkdir()
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    no_tokenizer = tmp_path / "checkpoint-3"
    saved(no_tokenizer, FAMILIES["smollm"](6000), tokenizers["smollm"])
    (no_tokenizer / "tokenizer_config.json").unlink()
    capsys.readouterr()
    for run, reason in {
        tmp_path / "nothing": "there is no folder",
        config: "is a file; name the folder of the run",
        empty: "is no finished run: it lacks config.json, weights, a tokenizer",
        adapter: "holds an adapter alone",
        no_tokenizer: "it lacks a tokenizer",
    }.items():
        assert main(["export", str(run), "--to", "gguf"]) == 2
        printed = capsys.readouterr().err
        assert reason in printed and printed.count("\n") == 1


def test_ollama_with_a_template_of_the_tokenizer_is_refused_before_a_file_is_written(
    tokenizers, tmp_path
):
    tokenizer = tokenizers["qwen"]
    folder = saved(tmp_path / "m", FAMILIES["qwen3"](len(tokenizer)), tokenizer)
    template = packaged_file("trl", "chat_templates/qwen3.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    assert read_recipe(folder).style == "native"
    with pytest.raises(ServeError, match="ollama show --modelfile"):
        export(folder, "ollama")
    assert not (folder / "export").exists() and not (folder / "serve.md").exists()
