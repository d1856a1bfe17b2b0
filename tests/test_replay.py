"Solved airline conversations, replayed by models that are written down: the numbers are known beforehand"

import pytest

from toolcall.chatml import parse_calls
from toolcall.conversation import ToolCall
from toolcall.curate import curate
from toolcall.generate import Output
from toolcall.logs import read_logs
from toolcall.replay import replay
from toolcall.text import dumps


def says(*calls):
    return "".join(
        f"<tool_call>\n{dumps({'name': call.name, 'arguments': call.arguments})}\n</tool_call>"
        for call in calls
    )


class Perfect:
    "Says what the log says"

    def __init__(self, conversation):
        self.turns = [
            (conversation.messages[turn]["content"], conversation.calls(turn))
            for turn in range(len(conversation.messages))
            if conversation.messages[turn]["role"] == "assistant"
        ]

    def reply(self, messages, tools):
        content, calls = (
            self.turns.pop(0) if self.turns else ("Goodbye.", [])
        )  # some logs end with a result
        text = content + says(*calls)
        return Output(text, True, 9, 9, 0.1, parsed=parse_calls(text))


class OverCalling(Perfect):
    "Makes each call twice, and one that nobody made"

    def reply(self, messages, tools):
        content, calls = (
            self.turns.pop(0) if self.turns else ("Goodbye.", [])
        )  # some logs end with a result
        text = content + says(
            *calls,
            *calls,
            *[ToolCall("transfer_to_human_agents", {"summary": "made up"})] * bool(calls),
        )
        return Output(text, True, 9, 9, 0.1, parsed=parse_calls(text))


class Lazy:
    "Calls nothing"

    def __init__(self, conversation):
        pass

    def reply(self, messages, tools):
        return Output("I can't help.", True, 9, 9, 0.1, parsed=parse_calls("I can't help."))


class Looping(Lazy):
    "Makes the same call forever"

    def reply(self, messages, tools):
        text = says(ToolCall("think", {"thought": "again"}))
        return Output(text, True, 9, 9, 0.1, parsed=parse_calls(text))


@pytest.fixture(scope="module")
def talks(real_logs):
    return curate(
        read_logs(real_logs / "airline.trajectories.json.gz").conversations, keep="solved"
    ).conversations


def values(found):
    return {name: metric.value for name, metric in found.metrics.items()}


def test_the_perfect_model_has_the_conversation_that_was_logged(talks):
    found = replay(Perfect, talks, progress=False)
    assert len(found.runs) == len(talks) > 80
    for run in found.runs:
        logged = [(message["role"], message["content"]) for message in run.conversation.messages]
        assert [(message["role"], message["content"]) for message in run.messages][
            : len(logged)
        ] == logged
    assert set(values(found).values()) == {1.0} and found.ended == {"answer": len(talks)}


def test_the_lazy_model_makes_no_call_and_misses_all(talks):
    found = values(replay(Lazy, talks, progress=False))
    without = sum(not talk.calls() for talk in talks) / len(talks)
    assert found == {
        "trajectory_strict": without,
        "trajectory_unordered": without,
        "trajectory_subset": 1.0,
        "trajectory_superset": without,
        "trajectory_tool_recall": 0.0,
        "trajectory_call_recall": 0.0,
        "final_answer": 1.0,
    }


def test_the_over_calling_model_has_every_call_and_too_many(talks):
    replayed = replay(OverCalling, talks, progress=False)
    made_up = [
        message["content"]
        for run in replayed.runs
        for message in run.messages
        if message["role"] == "tool" and message["name"] == "transfer_to_human_agents"
    ]
    assert sum("not in the log" in content for content in made_up) == sum(
        len(run.steps) for run in replayed.runs
    )
    found = values(replayed)
    without = sum(not talk.calls() for talk in talks) / len(talks)
    assert (
        found["trajectory_superset"],
        found["trajectory_call_recall"],
        found["trajectory_tool_recall"],
    ) == (1.0, 1.0, 1.0)
    assert (
        found["trajectory_strict"],
        found["trajectory_unordered"],
        found["trajectory_subset"],
    ) == (without, without, without)


def test_the_looping_model_is_stopped(talks):
    found = replay(Looping, talks, max_steps=6, progress=False)
    assert found.ended == {"max_steps": len(talks)} and all(
        len(run.outputs) == 6 for run in found.runs
    )
    assert values(found)["final_answer"] == 0 and values(found)["trajectory_strict"] == 0
