"Six real logs, each in a format of its own; skipped where `TOOLCALL_REAL_LOGS` is unset"

import os
from copy import copy

import pytest
from conftest import make_tokenizer

from toolcall.chatml import ChatML, encode
from toolcall.conversation import check_messages
from toolcall.curate import curate, split
from toolcall.curate.splits import find_leaks
from toolcall.diagnose import diagnose
from toolcall.generate.structured import Grammars
from toolcall.logs import read_logs
from toolcall.saving import load_conversations, save_conversations
from toolcall.schemas import argument_errors
from toolcall.text import dumps

LOGS = {
    "airline.trajectories.json.gz": (200, "trajectory"),
    "bookings.anthropic.jsonl.gz": (1722, "anthropic"),
    "coffee.openai_requests.jsonl.gz": (6331, "requests"),
    "phone_zh.responses.jsonl.gz": (6191, "responses"),
    "sealtools.messages.jsonl.gz": (1400, "messages"),
    "voice_assistant.simple.json.gz": (6892, "simple"),
}


@pytest.fixture(scope="module")
def read():
    folder = os.environ.get("TOOLCALL_REAL_LOGS")
    if not folder:
        pytest.skip("TOOLCALL_REAL_LOGS is not set")
    return {name: read_logs(os.path.join(folder, name)) for name in LOGS}


@pytest.mark.parametrize("name", LOGS)
def test_every_record_is_read_and_kept_through_a_file(read, name, tmp_path):
    records, format = LOGS[name]
    log = read[name]
    assert (log.report.records, log.report.conversations, log.report.formats) == (
        records,
        records,
        {format: records},
    )
    for c in log.conversations:
        check_messages(c.messages)
    assert not any('"arguments": "' in dumps(c.messages) for c in log.conversations)
    save_conversations(log.conversations[:300], tmp_path / "saved.jsonl")
    assert load_conversations(tmp_path / "saved.jsonl") == log.conversations[:300]


@pytest.mark.parametrize("name", LOGS)
def test_curation_adds_up_and_the_split_has_no_leak(read, name):
    curated = curate(read[name].conversations)
    assert curated.report["conversations"]["in"] == LOGS[name][0]
    assert not any(
        argument_errors(call, c.tools)
        for c in curated.conversations[:400]
        for turn in c.turns
        for call in c.calls(turn)
    )
    splits = split(curated.conversations)
    assert sum(map(len, splits.parts.values())) + len(splits.bridges) == len(curated.conversations)
    assert len(splits.bridges) < 0.01 * len(curated.conversations)
    assert find_leaks(splits) == []
    assert 0.05 < len(splits.test) / len(curated.conversations) < 0.3


def test_coffee_collapses_to_its_conversations(read):
    log = read["coffee.openai_requests.jsonl.gz"]
    turns = {
        c.meta["user_id"]: max(
            sum(m["role"] == "assistant" for m in d.messages)
            for d in log.conversations
            if d is c or d.meta["user_id"] == c.meta["user_id"]
        )
        for c in log.conversations[:60]
    }
    curated = curate(log.conversations)
    assert (
        len(curated.conversations)
        == len({c.meta["user_id"] for c in curated.conversations})
        == 1000
    )
    kept = {c.meta["user_id"]: len(c.turns) for c in curated.conversations}
    assert all(kept[user] == n for user, n in turns.items())
    assert sum(kept.values()) == 6331  # every request of this log brought one new turn


def test_airline_keeps_what_was_solved_and_infers_its_tools(read):
    curated = curate(read["airline.trajectories.json.gz"].conversations, keep="solved")
    assert len(curated.conversations) == 84 and all(
        c.meta["scores"]["reward"] == 1 for c in curated.conversations
    )
    assert {c.meta["tools_from"] for c in curated.conversations} == {"inferred"}
    sides = {
        name: {c.meta["task_id"] for c in part}
        for name, part in split(curated.conversations).parts.items()
    }
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["validation"]


def test_voice_assistant_infers_seven_tools(read):
    curated = curate(read["voice_assistant.simple.json.gz"].conversations)
    assert curated.report["conversations"] == {"in": 6892, "out": 6843, "duplicate": 49}
    assert len({tool["function"]["name"] for c in curated.conversations for tool in c.tools}) == 7


def test_the_same_history_is_on_one_side(read):
    curated = curate(read["phone_zh.responses.jsonl.gz"].conversations)
    sides = [
        {c.meta["history"] for c in part if "history" in c.meta}
        for part in split(curated.conversations).parts.values()
    ]
    assert (
        sides[0] and not sides[0] & sides[2] and not sides[0] & sides[1] and not sides[1] & sides[2]
    )


def test_diagnosis_finds_the_known_noise(real_logs):
    found = diagnose(real_logs / "sealtools.messages.jsonl.gz")
    assert any(
        "must be" in row[1]
        for table in found.tables
        if table.title.startswith("Arguments")
        for row in table.rows
    )
    airline = diagnose(real_logs / "airline.trajectories.json.gz")
    assert sum(use.suspected for use in airline.uses.values()) > 0
    assert found.page.to_html().count("<script") == 1


def test_sealtools_is_encoded(read, smollm):
    chosen = read["sealtools.messages.jsonl.gz"].conversations[:200]
    encoded = encode(ChatML(smollm), chosen)
    assert len(encoded.examples) + len(encoded.rejects) == sum(len(c.turns) for c in chosen)
    assert not encoded.rejects


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3"])
def test_sealtools_is_encoded_for_qwen(read, template):
    encoded = encode(
        ChatML(make_tokenizer(template)), read["sealtools.messages.jsonl.gz"].conversations[:100]
    )
    assert not encoded.rejects and all(e.prompt_ids for e in encoded.examples)


@pytest.mark.parametrize("name", [name for name in LOGS if name != "airline.trajectories.json.gz"])
def test_a_held_model_can_write_every_logged_call_that_fits_its_schema(read, smollm, name):
    from xgrammar import GrammarMatcher

    chatml = ChatML(copy(smollm))
    grammars, calls = Grammars(chatml, len(smollm)), 0
    for example in encode(
        chatml, curate(read[name].conversations[::23]).conversations[::3]
    ).examples:
        matcher = GrammarMatcher(grammars.of(example.conversation.tools))
        fits = not any(argument_errors(call, example.conversation.tools) for call in example.calls)
        assert all(matcher.accept_token(token) for token in example.completion_ids) == fits, (
            smollm.decode(example.completion_ids)
        )
        calls += len(example.calls)
    assert calls > 20
