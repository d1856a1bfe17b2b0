"A turn of a request log counts once, whatever clients do to the history that they send again"

import copy
import gzip
import json
import random

import pytest

from toolcall.conversation import Conversation
from toolcall.curate import curate
from toolcall.logs import read_logs
from toolcall.samples import sample_log


def requests_of(first: Conversation, second: Conversation) -> list[dict]:
    "Two conversations as one session: a logged request a turn, with the whole history"
    messages = copy.deepcopy([*first.messages, *second.messages])
    messages = [m for m in messages if m["role"] != "system"]
    for message in messages:
        if "tool_calls" in message:
            message["content"] = "I look it up."
    tools = {tool["function"]["name"]: tool for tool in [*first.tools, *second.tools]}
    return [
        {
            "session_id": first.id,
            "timestamp": 1_700_000_000 + turn,
            "request": {"messages": messages[:turn], "tools": list(tools.values())},
            "response": messages[turn],
        }
        for turn, message in enumerate(messages)
        if message["role"] == "assistant"
    ]


def drop_words(messages):
    return [m | {"content": ""} if "tool_calls" in m else m for m in messages]


def clear_results(messages):
    last_question = max(questions(messages))
    return [
        m | {"content": "[cleared]"} if m["role"] == "tool" and i < last_question else m
        for i, m in enumerate(messages)
    ]


def sort_arguments(messages):
    changed = copy.deepcopy(messages)
    for message in changed:
        for call in message.get("tool_calls", []):
            arguments = call["function"]["arguments"]
            call["function"]["arguments"] = dict(reversed(arguments.items()))
    return changed


def change_space(messages):
    return [
        m | {"content": f" {m['content']}\n".replace(" ", "  ")} if m["role"] == "assistant" else m
        for m in messages
    ]


def questions(messages):
    return [i for i, message in enumerate(messages) if message["role"] == "user"]


def slide_window(messages):
    places = questions(messages)
    return messages[places[-2] :] if len(places) > 1 else messages


def condense(messages):
    places = questions(messages)
    if len(places) < 2:
        return messages
    summary = {"role": "user", "content": f"Summary of {places[-1]} messages."}
    return [summary, {"role": "assistant", "content": "Understood."}, *messages[places[-1] :]]


ALTERATIONS = (drop_words, clear_results, sort_arguments, change_space, slide_window, condense)


def altered(records: list[dict], alterations) -> list[dict]:
    rng = random.Random(0)
    return [
        record
        | {
            "request": record["request"]
            | {"messages": rng.choice(alterations)(record["request"]["messages"])}
        }
        for record in records
    ]


def counted_turns(records: list[dict], folder) -> int:
    "Turns after the steps that handle histories and failed calls"
    path = folder / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    step = next(step for step in curate(read_logs(path)).steps if step.name == "outcomes")
    return step.turns


@pytest.fixture(scope="module")
def sample_requests():
    conversations = curate(read_logs(sample_log())).conversations[:240]
    pairs = zip(conversations[::2], conversations[1::2])
    return [record for first, second in pairs for record in requests_of(first, second)]


@pytest.mark.parametrize("alteration", [*ALTERATIONS, None])
def test_altered_histories_count_once(alteration, sample_requests, tmp_path):
    unaltered = counted_turns(sample_requests, tmp_path)
    assert unaltered > 250
    alterations = [alteration] if alteration else ALTERATIONS
    records = altered(sample_requests, alterations)
    assert json.dumps(records) != json.dumps(sample_requests)  # key order counts
    assert abs(counted_turns(records, tmp_path) - unaltered) <= 0.01 * unaltered


def test_altered_coffee_requests(real_logs, tmp_path):
    with gzip.open(real_logs / "coffee.openai_requests.jsonl.gz", "rt") as file:
        records = [json.loads(line) for line in file]
    for record in records:
        for message in record["request"]["messages"]:
            for call in message.get("tool_calls") or []:
                call["function"]["arguments"] = json.loads(call["function"]["arguments"])
            message["content"] = message["content"] or ""
    clients = sorted({record["client_id"] for record in records})[:200]
    records = [record for record in records if record["client_id"] in clients]
    unaltered = counted_turns(records, tmp_path)
    for alterations in ([alteration] for alteration in ALTERATIONS):
        turns = counted_turns(altered(records, alterations), tmp_path)
        assert abs(turns - unaltered) <= 0.01 * unaltered, (alterations, turns, unaltered)
    assert abs(counted_turns(altered(records, ALTERATIONS), tmp_path) - unaltered) < 13


def request(session: str, *messages: dict, n: int = 0) -> dict:
    *history, response = messages
    return {
        "session_id": session,
        "timestamp": 1_700_000_000 + n,
        "request": {"messages": history},
        "response": response,
    }


def said(role: str, text: str) -> dict:
    return {"role": role, "content": text}


def learned(records: list[dict], folder) -> list[str]:
    path = folder / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    return [c.messages[turn]["content"] for c in curate(read_logs(path)) for turn in c.turns]


def test_examples_of_every_prompt_carry_no_loss(tmp_path):
    example = [said("user", "Two and two?"), said("assistant", "Four.")]
    records = [
        request(f"s{n}", *example, said("user", f"{n} and one?"), said("assistant", f"It is {n}."))
        for n in range(4)
    ]
    assert learned(records, tmp_path) == [f"It is {n}." for n in range(4)]
    assert "Four." in learned(records[:2], tmp_path)  # two sessions are no proof


def test_examples_without_session_ids_stand_in_most_requests(tmp_path):
    example = [said("user", "Two and two?"), said("assistant", "Four.")]
    records = [
        request("", *example, said("user", f"{n} and one?"), said("assistant", f"It is {n}."))
        for n in range(4)
    ]
    for record in records:
        del record["session_id"]
    assert learned(records, tmp_path) == [f"It is {n}." for n in range(4)]


def test_a_greeting_that_was_answered_is_no_example(tmp_path):
    greeting = [said("user", "Hi"), said("assistant", "Hello.")]
    records = [request("s0", *greeting)]
    records += [
        request(f"s{n}", *greeting, said("user", f"{n} and one?"), said("assistant", f"It is {n}."))
        for n in range(1, 5)
    ]
    assert "Hello." in learned(records, tmp_path)


def test_a_turn_that_was_not_logged_counts_once(tmp_path):
    opening = [said("user", "Two and two?"), said("assistant", "Four.")]
    second = [said("user", "And three?"), said("assistant", "Seven.")]
    third = [said("user", "And four?"), said("assistant", "Eleven.")]
    spaced = [said("user", "Two and two?"), said("assistant", " Four. ")]
    records = [
        request("s", *opening, *second, n=1),
        request("s", *spaced, *second, *third, n=2),
    ]
    assert sorted(learned(records, tmp_path)) == ["Eleven.", "Four.", "Seven."]


def test_the_same_answer_given_twice_counts_twice(tmp_path):
    first = [said("user", "Two and two?"), said("assistant", "Yes.")]
    second = [said("user", "Sure?"), said("assistant", "Yes.")]
    third = [said("user", "Really?"), said("assistant", "I am.")]
    whole = [*first, *second, *third]
    spaced = [m | {"content": m["content"] + " "} for m in whole[:4]]
    records = [request("s", *first), request("s", *spaced[:2], *second, n=1)]
    records.append(request("s", *spaced, *third, n=2))
    assert sorted(learned(records, tmp_path)) == ["I am.", "Yes.", "Yes."]


def test_sessions_of_a_log_that_begins_in_the_middle_keep_their_turns(tmp_path):
    early = [said("user", "Two and two?"), said("assistant", "Four.")]
    late = [said("user", "And three?"), said("assistant", "Seven.")]
    assert sorted(learned([request("s", *early, *late)], tmp_path)) == ["Four.", "Seven."]
