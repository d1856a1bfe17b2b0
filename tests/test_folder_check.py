"A saved folder that is not what was trained stops the run, whatever in it differs"

import json
import shutil
from copy import copy
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_tiny_model, packaged_file
from safetensors.torch import load_file, save_file

from toolcall.chatml import ChatML, encode
from toolcall.curate import curate
from toolcall.errors import TrainError
from toolcall.logs import read_logs
from toolcall.models import load_tokenizer
from toolcall.samples import sample_log
from toolcall.train import finetune, training_arguments
from toolcall.train import finetuning as page
from toolcall.train.checked_loss import TrainedLosses, pick_examples
from toolcall.train.folder_check import check_folder

CONVERSATIONS = curate(read_logs(sample_log()).conversations).conversations[:10]


@pytest.fixture(scope="module")
def examples(smollm):
    return encode(ChatML(copy(smollm)), CONVERSATIONS).examples


def train(tokenizer, examples, folder, *, model=None, **options):
    settings = dict(max_steps=1, bf16=False, use_cpu=True, save_strategy="no", disable_tqdm=True)
    args = training_arguments(folder, **settings)
    return finetune(model or make_tiny_model(tokenizer), tokenizer, examples, args=args, **options)


def change(file: Path, **values):
    content = json.loads(file.read_text(encoding="utf-8")) | values
    file.write_text(json.dumps(content), encoding="utf-8")


def weights(folder: Path, change_one):
    file = folder / "model.safetensors"
    tensors = change_one(load_file(file))
    save_file(tensors, file, {"format": "pt"})


def break_template(folder: Path):
    file = folder / "chat_template.jinja"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("# Tools", "# Functions"), encoding="utf-8")


def break_response_template(folder: Path):
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    fields = content["response_template"]["fields"]
    fields["tool_calls"]["open_pattern"] = "<function_call>"
    file.write_text(json.dumps(content), encoding="utf-8")


def leave_out_response_template(folder: Path):
    file = folder / "tokenizer_config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    del content["response_template"]
    file.write_text(json.dumps(content), encoding="utf-8")


def tie_head(folder: Path):
    weights(folder, lambda tensors: {k: v for k, v in tensors.items() if k != "lm_head.weight"})
    change(folder / "config.json", tie_word_embeddings=True)


def untie_head(folder: Path):
    weights(folder, lambda tensors: {k: v for k, v in tensors.items() if k != "lm_head.weight"})


def swap_layer(folder: Path):
    name = "model.layers.0.mlp.down_proj.weight"
    weights(folder, lambda tensors: tensors | {name: -tensors[name]})


BREAKS = {
    "eos": (
        lambda folder: change(folder / "generation_config.json", eos_token_id=0),
        "generation_config.json stops at .0.: and turns end with",
    ),
    "eos in a list": (
        lambda folder: change(folder / "generation_config.json", eos_token_id=[0, 1]),
        "a server writes on after the end of a turn",
    ),
    "no generation settings": (
        lambda folder: (folder / "generation_config.json").unlink(),
        "it can't be loaded: OSError",
    ),
    "template": (break_template, "the prompt of a first turn .* differs: token"),
    "no template": (
        lambda folder: (folder / "chat_template.jinja").unlink(),
        "a server asks another question than was trained",
    ),
    "tied head": (tie_head, "the loaded model: has a loss of"),
    "head left out": (untie_head, "1 missing_keys, such as lm_head.weight"),
    "other weights": (swap_layer, "a server runs another model than was trained"),
    "dtype": (
        lambda folder: change(folder / "config.json", dtype="float16"),
        "config.json: names float16, the weights are float32",
    ),
    "response template": (break_response_template, "transformers serve returns calls as text"),
    "no response template": (leave_out_response_template, "has no response_template"),
    "no model": (
        lambda folder: (folder / "config.json").write_text("{"),
        "a server can't start",
    ),
}


THROUGH_A_RUN = ("eos", "template", "tied head", "dtype", "response template")


@pytest.mark.parametrize("name", THROUGH_A_RUN)
def test_a_broken_folder_stops_the_run(name, smollm, examples, tmp_path, monkeypatch):
    broken, sentence = BREAKS[name]
    tokenizer = copy(smollm)
    ChatML(tokenizer)

    def check(folder, *args, **options):
        broken(Path(folder))
        return check_folder(folder, *args, **options)

    monkeypatch.setattr(page, "check_folder", check)
    with pytest.raises(TrainError, match=f"(?s)is not what was trained.*{sentence}") as raised:
        train(tokenizer, examples, tmp_path)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "model.safetensors").exists() and (tmp_path / "history.json").exists()
    assert not (tmp_path / "folder_check.json").exists()


@pytest.fixture(scope="module")
def finished(smollm, examples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    tokenizer = copy(smollm)
    ChatML(tokenizer)
    train(tokenizer, examples, folder)
    return folder


@pytest.mark.parametrize("name", sorted(BREAKS.keys() - THROUGH_A_RUN))
def test_a_broken_folder_is_refused(name, finished, examples, tmp_path):
    broken, sentence = BREAKS[name]
    folder = shutil.copytree(finished, tmp_path / "copy")
    broken(folder)
    written = json.loads((finished / "folder_check.json").read_text(encoding="utf-8"))
    trained = TrainedLosses(written["trained_losses"], True)
    with pytest.raises(TrainError, match=f"(?s)is not what was trained.*{sentence}"):
        check_folder(folder, examples, trained=trained)


def near(written: dict) -> bool:
    pairs = zip(written["losses"], written["trained_losses"], strict=True)
    return len(written["losses"]) > 2 and all(abs(a - b) < 1e-4 for a, b in pairs)


@pytest.mark.parametrize("style", ["function_call"])
def test_what_holds_is_written_beside_the_model(style, tmp_path):
    tokenizer = load_tokenizer("SmolLM2-135M-Instruct")
    found = encode(ChatML(tokenizer, style), CONVERSATIONS).examples
    train(tokenizer, found, tmp_path)
    written = json.loads((tmp_path / "folder_check.json").read_text(encoding="utf-8"))
    assert all(len(same) == 4 for same in written["prompts"].values()) and written["calls"]
    assert near(written) and not written["warnings"]
    assert written["stops"] == [tokenizer.eos_token_id] and written["transformers"]


@pytest.mark.parametrize("tied", [False, True], ids=["head", "tied"])
def test_merged_adapters_are_compared_with_the_adapted_model(smollm, examples, tmp_path, tied):
    from peft import LoraConfig

    tokenizer = copy(smollm)
    ChatML(tokenizer)
    model = make_tiny_model(tokenizer, tie_word_embeddings=tied)
    lora = LoraConfig(r=4, target_modules="all-linear")
    train(tokenizer, examples, tmp_path, model=model, lora=lora)
    written = json.loads((tmp_path / "folder_check.json").read_text(encoding="utf-8"))
    assert near(written)


def set_up(name, tokens):
    tokenizer = load_tokenizer("SmolLM2-135M-Instruct")
    added = {"additional_special_tokens": tokens}
    tokenizer.add_special_tokens(added, replace_extra_special_tokens=False)
    file = packaged_file("trl", f"chat_templates/{name}.jinja")
    tokenizer.chat_template = file.read_text(encoding="utf-8")
    return tokenizer


LLAMA = [
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
]


@pytest.mark.parametrize(
    ("name", "tokens", "spelling"),
    [
        ("llama3_1", LLAMA, "arguments as text"),
        ("qwen2_5", [], "content in parts"),
    ],
)
def test_what_another_models_template_cannot_write_is_a_warning(name, tokens, spelling, tmp_path):
    tokenizer = set_up(name, tokens)
    found = encode(ChatML(tokenizer, "native"), CONVERSATIONS).examples
    train(tokenizer, found, tmp_path)
    written = json.loads((tmp_path / "folder_check.json").read_text(encoding="utf-8"))
    assert any(warning.startswith(spelling) for warning in written["warnings"])


def test_arguments_of_the_template_are_used(tmp_path):
    tokenizer = set_up("qwen3", [])
    given = {"enable_thinking": False}
    found = encode(ChatML(tokenizer, "native", template_kwargs=given), CONVERSATIONS).examples
    train(tokenizer, found, tmp_path, template_kwargs=given)
    with pytest.raises(TrainError, match="asks another question"):
        check_folder(tmp_path, found)


def test_examples_of_each_shape_are_picked(examples):
    picked = pick_examples(examples)
    assert {"a first turn", "after a result", "a call", "the longest"} <= picked.keys()
    escaped = [replace(example, notes=("neutralised",)) for example in examples]
    assert pick_examples(escaped) == {}
