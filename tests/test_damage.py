"Damaged checkpoints, models, predictions, evaluations and sets are noticed, said and made again"

import json
import os
import resource
import shutil
import subprocess
import sys
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from killing import prepared, tiny, train
from peft import LoraConfig

from toolcall.chatml.encoding_cache import encode_cached
from toolcall.conversation import Conversation, ToolCall
from toolcall.errors import (
    ConversationError,
    EvaluateError,
    GenerateError,
    ModelError,
    TrainError,
)
from toolcall.evaluate import evaluate, load_evaluation
from toolcall.generate import predict
from toolcall.manifest import manifest_faults, write_manifest
from toolcall.models import load_model
from toolcall.saving import load_conversations, save_conversations
from toolcall.train import finetune, training_arguments
from toolcall.train.checkpoints import last_checkpoint
from toolcall.turn import Example, Output, Parsed


def flip(path: Path, place: float = 0.5) -> None:
    "Change one bit of a file"
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    "What a power failure may leave: the size is right, the blocks are empty"
    path.write_bytes(bytes(path.stat().st_size))


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def said(function, *arguments, **options):
    "What a function returned, and its warnings"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*arguments, **options)
    return result, "\n".join(str(warning.message) for warning in caught)


# checkpoints


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("the-code-ran",)


def hostile(checkpoint: Path) -> None:
    torch.save(Hostile(), checkpoint / "optimizer.pt")
    write_manifest(checkpoint)


def hostile_plain_pickle(checkpoint: Path) -> None:
    (checkpoint / "rng_state.pth").write_bytes(b"cos\nmkdir\n(S'the-code-ran'\ntR.")
    write_manifest(checkpoint)


def whole_zip_with_a_cut_pickle(checkpoint: Path) -> None:
    file = checkpoint / "optimizer.pt"
    with zipfile.ZipFile(file) as zip:
        parts = {name: zip.read(name) for name in zip.namelist()}
    with zipfile.ZipFile(file, "w") as zip:
        for name, part in parts.items():
            zip.writestr(name, b"\x80\x02X\x05" if name.endswith("data.pkl") else part)
    write_manifest(checkpoint)


def of_another_step(checkpoint: Path) -> None:
    shutil.rmtree(checkpoint)
    shutil.copytree(checkpoint.with_name("checkpoint-6"), checkpoint)


def of_another_model(checkpoint: Path) -> None:
    model = tiny(prepared()[0].tokenizer)
    model.config.num_hidden_layers = 3
    type(model)(model.config).save_pretrained(checkpoint)


def half_written(checkpoint: Path) -> None:
    for name in ("manifest.json", "trainer_state.json", "rng_state.pth"):
        (checkpoint / name).unlink()


def without_manifest_and_optimizer(checkpoint: Path) -> None:
    for name in ("manifest.json", "optimizer.pt"):
        (checkpoint / name).unlink()


def saved_without_states(checkpoint: Path) -> None:
    "As `save_only_model` does"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (checkpoint / name).unlink()
    write_manifest(checkpoint)


CHECKPOINT_DAMAGE = {  # kind: what is done to the newest checkpoint, and what is said
    "no optimizer": (lambda c: (c / "optimizer.pt").unlink(), "optimizer.pt is missing"),
    "no scheduler": (lambda c: (c / "scheduler.pt").unlink(), "scheduler.pt is missing"),
    "no random numbers": (lambda c: (c / "rng_state.pth").unlink(), "rng_state.pth is missing"),
    "bit of the weights": (lambda c: flip(c / "model.safetensors"), "model.safetensors differs"),
    "bit of the optimizer": (lambda c: flip(c / "optimizer.pt"), "optimizer.pt differs"),
    "bit of the header": (lambda c: flip(c / "model.safetensors", 0), "model.safetensors differs"),
    "cut weights": (lambda c: cut(c / "model.safetensors"), "model.safetensors has"),
    "cut state": (lambda c: cut(c / "trainer_state.json"), "trainer_state.json has"),
    "empty blocks": (lambda c: zero(c / "optimizer.pt"), "optimizer.pt differs"),
    "empty file": (lambda c: (c / "scheduler.pt").write_bytes(b""), "scheduler.pt has 0 bytes"),
    "folder for a file": (lambda c: as_folder(c / "optimizer.pt"), "optimizer.pt is not a file"),
    "another model": (of_another_model, "config.json"),
    "another step": (of_another_step, "trainer_state.json is of step 6"),
    "cut manifest": (lambda c: cut(c / "manifest.json"), "manifest.json can't be read"),
    "binary manifest": (lambda c: zero(c / "manifest.json"), "manifest.json can't be read"),
    "half written": (half_written, "its saving was interrupted"),
    "no manifest, no optimizer": (without_manifest_and_optimizer, "optimizer.pt is missing"),
    "weights alone": (saved_without_states, "optimizer.pt is missing"),
    "hostile optimizer": (hostile, "optimizer.pt can't be read as plain tensors"),
    "cut pickle": (whole_zip_with_a_cut_pickle, "optimizer.pt can't be read as plain tensors"),
    "hostile pickle": (hostile_plain_pickle, "rng_state.pth can't be read as plain tensors"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train(folder)
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.mark.attack("damaged checkpoint")
@pytest.mark.parametrize("kind", CHECKPOINT_DAMAGE)
def test_a_damaged_checkpoint_is_passed_over(kind, run, trained):
    damage, sentence = CHECKPOINT_DAMAGE[kind]
    damage(run / "checkpoint-8")
    _, sentences = said(train, run)
    assert "checkpoint-8 passed over: " in sentences and sentence in sentences
    weights = [(folder / "model.safetensors").read_bytes() for folder in (run, trained)]
    assert weights[0] == weights[1]
    assert last_checkpoint(run) == run / "checkpoint-8"  # trained and saved again
    assert not (run.parent / "the-code-ran").exists()


@pytest.mark.attack("damaged checkpoint")
@pytest.mark.parametrize("kind", [kind for kind in CHECKPOINT_DAMAGE if kind != "half written"])
def test_damage_of_the_only_checkpoint_is_an_error(kind, run):
    damage, sentence = CHECKPOINT_DAMAGE[kind]
    damage(run / "checkpoint-8")
    shutil.rmtree(run / "checkpoint-6")
    before = sorted(path for path in run.rglob("*"))
    with pytest.raises(TrainError, match="none can be resumed from") as raised:
        train(run)
    assert sentence in str(raised.value) and "checkpoint-8" in str(raised.value)
    assert "delete these folders to start anew" in str(raised.value)
    assert sorted(path for path in run.rglob("*")) == before


@pytest.mark.attack("damaged checkpoint")
def test_a_checkpoint_without_manifest_is_used_and_said(run, trained):
    for number in (6, 8):
        (run / f"checkpoint-{number}" / "manifest.json").unlink()
    _, sentences = said(train, run)
    assert "checkpoint-8 has no manifest.json: it is used" in sentences
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    (run / "checkpoint-8" / "optimizer.pt").write_bytes(b"cut")
    checkpoint, sentences = said(last_checkpoint, run)
    assert checkpoint.name == "checkpoint-6" and "optimizer.pt can't be read" in sentences


@pytest.mark.attack("damaged checkpoint")
def test_states_of_another_model_are_refused_without_a_manifest(run):
    of_another_model(run / "checkpoint-8")
    state = torch.load(run / "checkpoint-8" / "optimizer.pt", weights_only=True)
    state["param_groups"][0]["params"].append(99)
    torch.save(state, run / "checkpoint-8" / "optimizer.pt")
    shutil.copy(run / "checkpoint-6" / "model.safetensors", run / "checkpoint-8")
    for path in run.glob("checkpoint-*/manifest.json"):
        path.unlink()
    with pytest.raises(TrainError, match="checkpoint-8 does not fit this run"):
        said(train, run)


@pytest.mark.attack("damaged checkpoint")
@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut, "run.json can't be used"),
        (zero, "run.json can't be used"),
        (lambda path: path.write_text("{}"), "run.json can't be used"),
        (lambda path: path.write_text("[1]"), "run.json can't be used"),
        (lambda path: path.write_text(path.read_text().replace("0.01", "0.02")), "its digest"),
    ],
)
def test_a_damaged_identity_is_an_error(damage, sentence, run):
    damage(run / "run.json")
    with pytest.raises(TrainError, match=sentence):
        train(run)


def test_rotation_goes_by_step(run):
    "A clock that ran backwards deletes nothing that is needed"
    shutil.rmtree(run / "checkpoint-8")
    (run / "checkpoint-999").mkdir()
    os.utime(run / "checkpoint-6", (2**31, 2**31))
    said(train, run, save_total_limit=1)
    assert last_checkpoint_quietly(run) == run / "checkpoint-8"
    assert not (run / "checkpoint-6").exists() and (run / "checkpoint-999").exists()


def last_checkpoint_quietly(run: Path) -> Path | None:
    return said(last_checkpoint, run)[0]


def test_the_best_checkpoint_is_kept_and_verified(tmp_path):
    chatml, conversations = prepared()
    examples = encode_cached(chatml, conversations, tmp_path / "encoded").examples[:8]
    args = training_arguments(
        tmp_path,
        max_steps=4,
        eval_strategy="steps",
        eval_steps=1,
        save_steps=1,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )

    def prepare(trainer):
        evaluate, load = trainer.evaluate, trainer._load_best_model

        def rising_loss(*args, **options):
            return evaluate(*args, **options) | {"eval_loss": trainer.state.global_step}

        def load_damaged():
            left = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
            assert left == ["checkpoint-1", "checkpoint-4"]
            flip(tmp_path / "checkpoint-1" / "model.safetensors")
            load()

        trainer.evaluate, trainer._load_best_model = rising_loss, load_damaged

    model = tiny(chatml.tokenizer)
    options = {"args": args, "validation": examples[:2], "prepare": prepare}
    with pytest.raises(TrainError, match="checkpoint-1, can't be loaded: model.safetensors diff"):
        finetune(model, chatml.tokenizer, examples, **options)


@pytest.mark.attack("damaged checkpoint")
@pytest.mark.parametrize("name", ["adapter_model.safetensors", "optimizer.pt"])
def test_damaged_adapters_are_passed_over(name, tmp_path):
    chatml, conversations = prepared()
    examples = encode_cached(chatml, conversations, tmp_path / "encoded").examples[:8]
    lora = LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.1)
    quiet = dict(use_cpu=True, bf16=False, disable_tqdm=True, warmup_steps=1)

    def run() -> bytes:
        args = training_arguments(tmp_path, max_steps=4, save_steps=2, **quiet)
        finetune(tiny(chatml.tokenizer), chatml.tokenizer, examples, args=args, lora=lora)
        assert manifest_faults(tmp_path) == manifest_faults(tmp_path / "adapter") == []
        return (tmp_path / "model.safetensors").read_bytes()

    whole = run()
    flip(tmp_path / "checkpoint-4" / name)
    (tmp_path / "model.safetensors").unlink()
    again, sentences = said(run)
    assert again == whole and f"checkpoint-4 passed over: {name} differs" in sentences


MODEL_DAMAGE = {
    "bit of the weights": (lambda f: flip(f / "model.safetensors"), "model.safetensors differs"),
    "cut weights": (lambda f: cut(f / "model.safetensors"), "model.safetensors has"),
    "empty blocks": (lambda f: zero(f / "model.safetensors"), "model.safetensors differs"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "another model": (of_another_model, "config.json has"),
    "configuration": (lambda f: flip(f / "config.json"), "config.json differs"),
    "tokenizer": (lambda f: flip(f / "tokenizer.json"), "tokenizer.json differs"),
    "template": (lambda f: cut(f / "chat_template.jinja"), "chat_template.jinja has"),
    "manifest": (lambda f: cut(f / "manifest.json"), "manifest.json can't be read"),
}


@pytest.mark.attack("damaged checkpoint")
@pytest.mark.parametrize("kind", MODEL_DAMAGE)
def test_a_damaged_model_is_said_and_made_again(kind, run, trained):
    damage, sentence = MODEL_DAMAGE[kind]
    damage(run)
    with pytest.raises(ModelError, match=sentence):
        load_model(run)
    train(run)
    assert manifest_faults(run) == [] and load_model(run)
    assert (run / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


@pytest.mark.attack("damaged checkpoint")
@pytest.mark.parametrize("kind", ["cut weights", "no weights", "empty blocks"])
def test_a_damaged_model_without_manifest_is_an_error_too(kind, run):
    (run / "manifest.json").unlink()
    MODEL_DAMAGE[kind][0](run)
    with pytest.raises(ModelError, match="can't load"):
        load_model(run)


@pytest.mark.attack("damaged checkpoint")
@pytest.mark.parametrize("missing", [0, 1])
def test_a_missing_shard_is_an_error(missing, run):
    model, _ = load_model(run)
    (run / "model.safetensors").unlink()
    model.save_pretrained(run, max_shard_size="20KB")
    write_manifest(run, [path.name for path in run.glob("*.json*")])
    shards = sorted(run.glob("model-*.safetensors"))
    assert len(shards) > 1 and load_model(run)
    shards[missing].unlink()
    with pytest.raises(ModelError, match=r"can't load|is missing"):
        load_model(run)


# predictions


@dataclass
class Answering:
    "An engine that answers at once, and remembers what it was asked"

    prompts: list[list[int]] = field(default_factory=list)

    def prompt(self, example):
        return example.prompt_ids

    def identity(self):
        return "answering"

    def stream(self, prompts, batch_size=None, progress=True):
        for number, prompt in enumerate(prompts):
            self.prompts.append(prompt)
            call = Parsed("call", [ToolCall("f", {"x": prompt})])
            yield number, Output(f"answer {prompt}", True, 1, 3, 0.5, ids=(1, 2), parsed=call)


def turns(count: int) -> list[Example]:
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    return [Example([n], [2], Conversation(str(n), messages, []), 1) for n in range(count)]


def changed(lines: list[bytes], number: int, old: bytes, new: bytes) -> list[bytes]:
    assert old in lines[number]
    return [*lines[:number], lines[number].replace(old, new), *lines[number + 1 :]]


def another_answer(line: bytes) -> bytes:
    "A whole line of the same key with another output"
    from toolcall.generate import predictions

    key, output = predictions._from_line(line)
    return predictions._to_line(key, Output(**vars(output) | {"text": "other"})).rstrip(b"\n")


LINES = {  # kind: what becomes of six lines, the turns that are asked again, what is said
    "cut line": (lambda x: [*x[:2], x[2][:40], *x[3:]], [2], "line 3 ("),
    "bit of the text": (lambda x: changed(x, 1, b"answer", b"answep"), [1], "line 2 ("),
    "bit of the key": (lambda x: [x[0][:10] + b"~" + x[0][11:], *x[1:]], [0], "line 1 ("),
    "empty line": (lambda x: [*x[:3], b"", *x[3:]], [], "line 4 (it is empty"),
    "two lines glued": (lambda x: [*x[:2], x[2] + x[3], *x[4:]], [2, 3], "line 3 ("),
    "not UTF-8": (lambda x: changed(x, 4, b"answer", b"\xff\xfe\xff"), [4], "line 5 ("),
    "empty blocks": (lambda x: [*x[:5], bytes(len(x[5]))], [5], "line 6 ("),
    "list": (lambda x: [b"[1, 2]", *x[1:]], [0], "line 1 ("),
    "other object": (lambda x: [*x[:5], b'{"a": 1}'], [5], "line 6 (it has no digest"),
    "null": (lambda x: [*x[:1], b"null", *x[2:]], [1], "line 2 ("),
    "key twice": (lambda x: [*x, another_answer(x[1])], [1], "line 7 (another line"),
    "text changed": (lambda x: changed(x, 3, b"answer", b"Answer"), [3], "line 4 (it differs"),
    "call changed": (lambda x: changed(x, 3, b'"f"', b'"g"'), [3], "line 4 (it differs"),
    "number changed": (lambda x: changed(x, 3, b"0.5", b"0.1"), [3], "line 4 (it differs"),
    "digest changed": (lambda x: changed(x, 3, b'digest": "', b'digest": "0'), [3], "line 4 ("),
    "deep": (lambda x: [b"[" * 100_000, *x[1:]], [0], "line 1 ("),
    "another file": (lambda x: [b"\x7fELF", os.urandom(999)], list(range(6)), "line 1 ("),
    "lines exchanged": (lambda x: x[::-1], [], ""),
    "line twice": (lambda x: [*x, x[0]], [], ""),
    "CRLF": (lambda x: [line + b"\r" for line in x], [], ""),
}


@pytest.mark.attack("damaged prediction")
@pytest.mark.parametrize("last_end", [b"\n", b""], ids=["ended", "not ended"])
@pytest.mark.parametrize("kind", LINES)
def test_damaged_lines_are_said_and_made_again(kind, last_end, tmp_path):
    damage, again, sentence = LINES[kind]
    path = tmp_path / "predictions.jsonl"
    outputs = predict(Answering(), turns(6), path=path, progress=False)
    damaged = b"\n".join(damage(path.read_bytes().splitlines())) + last_end
    path.write_bytes(damaged)
    engine = Answering()
    result, sentences = said(predict, engine, turns(6), path=path, progress=False)
    assert result == outputs and engine.prompts == [[number] for number in again]
    assert sentence in sentences and bool(sentence) == bool(sentences)
    if sentence:
        assert (tmp_path / "predictions.jsonl.damaged").read_bytes() == damaged
    engine = Answering()
    assert said(predict, engine, turns(6), path=path, progress=False) == (outputs, "")
    assert engine.prompts == []


@pytest.mark.attack("damaged prediction")
def test_a_folder_in_the_place_of_the_file_is_an_error(tmp_path):
    (tmp_path / "predictions.jsonl").mkdir()
    with pytest.raises(GenerateError, match="is no file"):
        predict(Answering(), turns(2), path=tmp_path / "predictions.jsonl", progress=False)


@pytest.mark.attack("damaged prediction")
@pytest.mark.parametrize("room", [0, 100, 700, 1500])
def test_a_disk_that_fills_up_leaves_a_file_that_can_be_used(room, tmp_path):
    "The most bytes of a file stand for the room of a disk"
    path = tmp_path / "predictions.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(GenerateError, match="can't be written"):
            predict(Answering(), turns(9), path=path, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    kept = path.read_bytes()
    assert len(kept) <= room and (not kept or kept.endswith(b"\n"))
    engine = Answering()
    outputs, sentences = said(predict, engine, turns(9), path=path, progress=False)
    assert len(outputs) == 9 and not sentences
    assert len(engine.prompts) == 9 - kept.count(b"\n")


# evaluations, encoded sets and conversations


def make_evaluation_file(path: Path):
    outputs = [Output(f"Grüße {number} \ud800", True, 1, 3, 0.5) for number in range(3)]
    evaluation = evaluate(turns(3), outputs, parse=lambda text, tools: Parsed("no_call", text=text))
    evaluation.save(path)
    return evaluation


EVALUATION_DAMAGE = {
    "cut": cut,
    "empty blocks": zero,
    "changed": lambda path: path.write_text(path.read_text().replace("true", "false", 1)),
    "number": lambda path: path.write_text(path.read_text().replace('"turn": 1', '"turn": 3', 1)),
    "no digest": lambda path: path.write_text(path.read_text().replace('"digest"', '"other"')),
    "null": lambda path: path.write_text("null"),
    "list": lambda path: path.write_text("[]"),
    "empty": lambda path: path.write_text(""),
    "not UTF-8": lambda path: path.write_bytes(b"\xff" + path.read_bytes()),
    "deep": lambda path: path.write_text("[" * 100_000),
    "folder": as_folder,
    "missing": Path.unlink,
}


@pytest.mark.parametrize("kind", EVALUATION_DAMAGE)
def test_a_changed_evaluation_is_an_error(kind, tmp_path):
    path = tmp_path / "evaluation.json"
    assert make_evaluation_file(path) == load_evaluation(path)
    EVALUATION_DAMAGE[kind](path)
    with pytest.raises(EvaluateError, match="evaluation.json holds no evaluation"):
        load_evaluation(path)


@pytest.mark.parametrize("depth", [65, 500, 5_000, 100_000])
def test_deep_arguments_are_saved_or_refused(depth, tmp_path):
    value: list = []
    for _ in range(depth):
        value = [value]

    def parse(text, tools):
        return Parsed("call", [ToolCall("f", {"x": value})])

    outputs = [Output("deep", True, 1, 3, 0.5)]
    path = tmp_path / "evaluation.json"
    try:
        evaluation = evaluate(turns(1), outputs, parse=parse)
        evaluation.save(path)
    except EvaluateError as error:
        assert depth > 500 and "nested too deeply" in str(error) and not path.exists()
    else:
        assert depth <= 500 and load_evaluation(path).scores == evaluation.scores
    while value:  # a long chain is taken apart without recursion
        value = value.pop()


def repack(path: Path) -> None:
    "A whole file with one id changed"
    import numpy as np

    with np.load(path) as file:
        arrays = dict(file)
    arrays["completion_ids"][0] += 1
    np.savez_compressed(path, **arrays)


@pytest.mark.parametrize(
    "damage",
    [cut, zero, repack, lambda path: path.write_bytes(b"")],
    ids=["cut", "empty blocks", "changed", "empty"],
)
def test_a_damaged_encoded_set_is_said_and_made_again(damage, tmp_path):
    chatml, conversations = prepared()
    encoded = encode_cached(chatml, conversations, tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    damage(path)
    again, sentences = said(encode_cached, chatml, conversations, tmp_path)
    assert again.examples == encoded.examples and path.read_bytes() == whole
    assert f"{path} is damaged, and is made again" in sentences


def test_each_changed_bit_of_an_encoded_set_is_noticed(tmp_path):
    chatml, conversations = prepared()
    encoded = encode_cached(chatml, conversations, tmp_path)
    [path] = tmp_path.iterdir()
    for place in range(20):
        flip(path, place / 19)
        again, sentences = said(encode_cached, chatml, conversations, tmp_path)
        assert again.examples == encoded.examples
        assert "is damaged, and is made again" in sentences


def test_an_encoded_set_under_another_name_is_not_used(tmp_path):
    chatml, conversations = prepared()
    encode_cached(chatml, conversations, tmp_path)
    [first] = tmp_path.iterdir()
    encode_cached(chatml, conversations[:2], tmp_path)
    [second] = set(tmp_path.iterdir()) - {first}
    shutil.copy(first, second)
    again, sentences = said(encode_cached, chatml, conversations[:2], tmp_path)
    assert "differs from its digest" in sentences
    assert {example.conversation.id for example in again.examples} == {
        conversation.id for conversation in conversations[:2] if conversation.turns
    }


KEY = """
import sys

from transformers import PreTrainedTokenizerFast

from toolcall.chatml.encoding_cache import _cache_key
from toolcall.chatml.examples import ChatML
from toolcall.conversation import Conversation

messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
chatml = ChatML(PreTrainedTokenizerFast.from_pretrained(sys.argv[1]))
print(_cache_key(chatml, [Conversation("a", messages)], {"too_long": "reject"}))
"""


def test_the_key_of_an_encoded_set_is_the_same_in_every_process(tmp_path):
    prepared()[0].tokenizer.save_pretrained(tmp_path)

    def key(seed: int) -> str:
        environment = os.environ | {"PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-c", KEY, str(tmp_path)]
        return subprocess.check_output(command, env=environment, cwd=ROOT, text=True)

    with ThreadPoolExecutor() as pool:
        keys = set(pool.map(key, (1, 2, 3)))
    assert len(keys) == 1 and len(keys.pop().strip()) == 32


CONVERSATION_DAMAGE = {
    "cut": cut,
    "last line lost": lambda path: path.write_bytes(
        path.read_bytes()[: path.read_bytes().rindex(b"\n", 0, -1) + 1]
    ),
    "bit": flip,
    "empty": lambda path: path.write_bytes(b""),
    "empty blocks": zero,
    "another file": lambda path: path.write_text(json.dumps({"a": 1})),
    "empty digest": lambda path: Path(f"{path}.sha256").write_bytes(b""),
}


@pytest.mark.parametrize("kind", CONVERSATION_DAMAGE)
def test_changed_conversations_are_an_error(kind, tmp_path):
    conversations = prepared()[1]
    path = tmp_path / "test.jsonl"
    save_conversations(conversations, path)
    assert load_conversations(path) == conversations
    CONVERSATION_DAMAGE[kind](path)
    with pytest.raises(ConversationError, match="test.jsonl differs from test.jsonl.sha256"):
        load_conversations(path)
    save_conversations(conversations, path)
    assert load_conversations(path) == conversations


def test_conversations_of_others_need_no_digest(tmp_path):
    conversations = prepared()[1]
    path = tmp_path / "test.jsonl"
    save_conversations(conversations, path)
    Path(f"{path}.sha256").unlink()
    assert load_conversations(path) == conversations
    path.write_bytes(b"\xff\n")
    with pytest.raises(ConversationError, match="test.jsonl:1 is no saved conversation"):
        load_conversations(path)
