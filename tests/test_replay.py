"Replay of solved airline conversations by scripted models, whose metrics are known beforehand"

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


def values(replayed):
    return {name: metric.value for name, metric in replayed.metrics.items()}


def test_the_perfect_model_has_the_conversation_that_was_logged(talks):
    replayed = replay(Perfect, talks, progress=False)
    assert len(replayed.runs) == len(talks) > 80
    for run in replayed.runs:
        logged = [(message["role"], message["content"]) for message in run.conversation.messages]
        assert [(message["role"], message["content"]) for message in run.messages][
            : len(logged)
        ] == logged
    assert set(values(replayed).values()) == {1.0} and replayed.ended == {"answer": len(talks)}


def test_the_lazy_model_makes_no_call_and_misses_all(talks):
    metrics = values(replay(Lazy, talks, progress=False))
    no_calls = sum(not talk.calls() for talk in talks) / len(talks)
    assert metrics == {
        "trajectory_strict": no_calls,
        "trajectory_unordered": no_calls,
        "trajectory_subset": 1.0,
        "trajectory_superset": no_calls,
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
    metrics = values(replayed)
    no_calls = sum(not talk.calls() for talk in talks) / len(talks)
    assert (
        metrics["trajectory_superset"],
        metrics["trajectory_call_recall"],
        metrics["trajectory_tool_recall"],
    ) == (1.0, 1.0, 1.0)
    assert (
        metrics["trajectory_strict"],
        metrics["trajectory_unordered"],
        metrics["trajectory_subset"],
    ) == (no_calls, no_calls, no_calls)


def test_the_looping_model_is_stopped(talks):
    replayed = replay(Looping, talks, max_steps=6, progress=False)
    assert replayed.ended == {"max_steps": len(talks)} and all(
        len(run.outputs) == 6 for run in replayed.runs
    )
    assert values(replayed)["final_answer"] == 0 and values(replayed)["trajectory_strict"] == 0
