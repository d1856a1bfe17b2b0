"Turns without a call: those of the sample log, their kinds in the report, and variants"

from collections import Counter

import pytest

from toolcall.curate import curate
from toolcall.curate.splits import find_leaks, split
from toolcall.logs import read_logs
from toolcall.pipeline.config import make_config
from toolcall.pipeline.demo_command import DEMO
from toolcall.samples import sample_log, sample_records

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
    parts = split(LOG, **make_config(DEMO).split.model_dump(include={"validation", "test"}))
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
