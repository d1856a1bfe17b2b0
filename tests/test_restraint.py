"Turns without a call: those of the sample log, their kinds in the report, and variants"

import json
import math
from collections import Counter

import pytest
import torch

from toolcall.chatml import ChatML, encode, parse_calls
from toolcall.chatml.restraint import taken_away
from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.curate import curate
from toolcall.curate.splits import find_leaks, split
from toolcall.evaluate import evaluate, load_evaluation
from toolcall.evaluate.variants import VARIANTS, make_variant
from toolcall.logs import read_logs
from toolcall.models import load_model, load_tokenizer
from toolcall.packing import ExampleDataset
from toolcall.pipeline.config import make_config
from toolcall.pipeline.demo_command import DEMO
from toolcall.pipeline.training import train
from toolcall.report.files import load_report, save_report
from toolcall.report.page import Report
from toolcall.samples import SAMPLE_TOOLS, sample_log, sample_records
from toolcall.schemas import argument_errors
from toolcall.train import build_trainer, training_arguments
from toolcall.turn import Example, Output

REFUSALS = ("I have no tool for that.", "我没有这样的工具。")
LOG = list(curate(read_logs(sample_log()).conversations).conversations)


def names(conversation):
    return {tool["function"]["name"] for tool in conversation.tools}


def due(conversations):
    "Turns of each kind, with and without a call"
    return Counter(
        (conversation.meta["kinds"][0], bool(conversation.calls(turn)))
        for conversation in conversations
        for turn in conversation.turns
    )


def test_the_demo_holds_out_turns_of_each_kind():
    parts = split(LOG, **DEMO["split"])
    turns = sum(len(conversation.turns) for conversation in parts.test)
    assert 300 <= turns <= DEMO["evaluation"]["max_turns"]
    held_out, trained = due(parts.test), due(parts.train)
    assert sum(n for (_, call), n in held_out.items() if not call) >= 100
    for kind in ("chat", "unanswerable question", "missing argument", "tool taken away"):
        assert held_out[kind, False] >= 15 and trained[kind, False] >= 15
    assert held_out["look-alike instead", False] >= 15 and held_out["look-alike beside", True] >= 15
    assert not find_leaks(parts)


def test_no_sample_call_is_of_a_tool_that_is_not_on_offer():
    for conversation in LOG:
        assert {call.name for call in conversation.calls()} <= names(conversation)


def test_the_first_conversations_do_not_depend_on_how_many_are_drawn():
    assert [*sample_records(600)][:520] == [*sample_records(530)][:520]


@pytest.mark.parametrize("kind", ["tool taken away", "look-alike instead"])
def test_what_is_refused_lacks_its_tool(kind):
    by_question = {}  # words without values, so that a question is known by its form
    for conversation in LOG:
        for turn in conversation.turns:
            question = conversation.messages[turn - 1]
            calls = conversation.calls(turn)
            if question["role"] == "user" and len(calls) == 1:
                by_question.setdefault(question["content"][:9], set()).add(calls[0].name)
    seen = 0
    for conversation in LOG:
        if conversation.meta["kinds"] != [kind]:
            continue
        question, answer = conversation.messages[-2:]
        assert answer["content"] in REFUSALS
        tools = by_question.get(question["content"][:9], set())
        if len(tools) == 1:
            seen += 1
            assert not tools & names(conversation)
    assert seen >= 10


@pytest.mark.parametrize("kind", VARIANTS)
def test_variants_are_valid_and_drawn_by_the_seed(kind):
    logged = {conversation.id: conversation for conversation in LOG}
    variants = make_variant(kind, LOG[::2], seed=3)
    assert variants == make_variant(kind, LOG[::2], seed=3) and len(variants) > 150
    for variant in variants:
        before = logged[variant.id]
        assert set(variant.turns) <= set(before.turns) and variant.tools != before.tools
        offered = [tool["function"]["name"] for tool in variant.tools]
        assert len(offered) == len(set(offered))
        for turn in variant.turns:
            calls = variant.calls(turn)
            assert not any(argument_errors(call, variant.tools) for call in calls)
            assert len(calls) == (0 if kind == "removed" else len(before.calls(turn)))
            if kind == "removed":
                assert not {call.name for call in before.calls(turn)} & set(offered)
            if kind == "renamed":
                assert not {call.name for call in calls} & names(before)
            if kind == "lookalike":
                assert [*map(str, calls)] == [*map(str, before.calls(turn))]


def test_renamed_tools_do_not_collide_with_each_other_or_with_other_calls():
    tools = [make_tool(name) for name in ("get_a", "aGet", "a_get", "getA", "a", "工具")]
    call = ToolCall("get_get", {}, "x").to_message()
    messages = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    [renamed] = make_variant("renamed", [Conversation("c", messages, tools)])
    new = [tool["function"]["name"] for tool in renamed.tools]
    assert len({*new, "get_get"}) == 7 and not {*new} & {tool["function"]["name"] for tool in tools}


def held_out():
    tools = [make_tool("weather"), make_tool("sights")]
    answers = {"c1": ToolCall("weather", {}, "a"), "c2": None}
    for id, call in answers.items():
        answer = {"role": "assistant", "content": "" if call else "Hello."}
        if call:
            answer["tool_calls"] = [call.to_message()]
        messages = [{"role": "user", "content": "?"}, answer]
        meta = {"kinds": ["chat <b>"]} if id == "c2" else {}
        yield Example([1], [2], Conversation(id, messages, tools, meta), 1)


def scored(examples, text):
    return evaluate(examples, [Output(text, True, 1, 1, 1.0)] * len(examples), parse=parse_calls)


def test_kinds_and_variants_are_in_evaluation_and_report_and_come_back(tmp_path):
    examples = list(held_out())
    removed = [
        Example([1], [2], conversation, turn)
        for conversation in make_variant("removed", [one.conversation for one in examples])
        for turn in conversation.turns
    ]
    text = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
    tuned, changed = scored(examples, text), scored(removed, text)
    tuned.variants["removed"] = changed
    tuned.save(tmp_path / "one.json")
    again = load_evaluation(tmp_path / "one.json")
    assert [score.kinds for score in again.scores] == [("call due: first turn",), ("chat <b>",)]
    assert again.variants["removed"].scores == changed.scores and again.scores == tuned.scores
    assert "chat &lt;b&gt;" in again._repr_markdown_() and "call due: first turn" in repr(again)
    save_report(Report(scored(examples, "Hello."), tuned, {}), tmp_path)
    saved = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["tuned"]
    assert saved["kinds"]["chat <b>"]["irrelevance_accuracy"]["value"] == 0
    assert saved["variants"]["removed"]["unknown_tool_rate"]["value"] == 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Kinds of turns" in page and "chat &lt;b&gt;" in page and "chat <b>" not in page
    assert "Variants of the catalogue" in page
    assert load_report(tmp_path).tuned.variants["removed"].scores == changed.scores


def test_a_run_learns_beside_the_log_when_not_to_call(small_model, tmp_path):
    "Tools taken away, other catalogues, rehearsed answers, and a weight of the decision"
    rows = [json.dumps(row) + "\n" for row in sample_records(40)]
    (tmp_path / "log.jsonl").write_text("".join(rows))
    config = make_config(
        {
            "log_path": str(tmp_path / "log.jsonl"),
            "model_name_or_path": str(small_model),
            "output_dir": str(tmp_path / "run"),
            "train_data_path": str(tmp_path / "train.jsonl"),
            "batch_size": 64,
            "num_train_epochs": 1,
            "training": {"bf16": False},
            "restraint": {"taken_away": 1.0, "other_catalogues": 1.0, "rehearsal": 3},
            "packing": {"weights": {"decision": 3.0}},
            "evaluation": {"watch_turns": 0},
        }
    )
    run = train(config)
    assert all(math.isfinite(entry["loss"]) for entry in run.history if "loss" in entry)
    logged = {tool["function"]["name"] for tool in SAMPLE_TOOLS}
    written = (tmp_path / "train.jsonl").read_text()
    assert written and not any(f'"{name}\\"' in written for name in logged)  # JSON within JSON
    rehearsed = (tmp_path / "run" / "predictions" / "rehearsal.jsonl").read_bytes()
    assert rehearsed.count(b"\n") == 3
    # what must not come, and where a rehearsed answer was cut, is no end of a turn
    stops = json.loads((tmp_path / "run" / "generation_config.json").read_text())["eos_token_id"]
    tokenizer = load_tokenizer(str(small_model))
    base = json.loads((small_model / "config.json").read_text())["eos_token_id"]
    known = ChatML(tokenizer).stops | {tokenizer.eos_token_id, base}
    assert set(stops if isinstance(stops, list) else [stops]) <= known
    assert train(config).steps == run.steps  # the same examples, so that the run is the same
    assert (tmp_path / "run" / "predictions" / "rehearsal.jsonl").read_bytes() == rehearsed


def test_what_must_not_come_becomes_less_likely(small_model, tmp_path):
    model, tokenizer = load_model(str(small_model), dtype=torch.float32)
    chatml = ChatML(tokenizer)
    examples = encode(chatml, LOG[:12]).examples
    unwanted = taken_away(chatml, examples, 1.0)
    dataset = ExampleDataset([*examples, *unwanted])
    assert all(weight < 0 for row in dataset.weights[len(examples) :] for weight in row)
    assert all(weight > 0 for row in dataset.weights[: len(examples)] for weight in row)

    def likelihood():
        rows = [torch.tensor([one.prompt_ids], device=model.device) for one in unwanted]
        with torch.no_grad():
            logits = [model(row).logits[0, -1].log_softmax(-1) for row in rows]
        return sum(one[unwanted[0].completion_ids[0]].item() for one in logits) / len(rows)

    before = likelihood()
    args = training_arguments(tmp_path, max_steps=10, learning_rate=1e-2, bf16=False)
    build_trainer(model, tokenizer, unwanted, args=args).train()
    model.eval()
    assert likelihood() < before - 1
