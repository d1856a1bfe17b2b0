"Where values stand before a turn: forms, scripts, bounded work, and words that come too late"

import time

import pytest

from toolcall.conversation import Conversation, ToolCall
from toolcall.curate import grounding
from toolcall.curate.exchanges import read_exchanges
from toolcall.curate.grounding import Ground, forms_of, leaves, read_grounds, value_pattern


def user(text):
    return {"role": "user", "content": text}


def asks(**arguments):
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [ToolCall("f", arguments).to_message()],
    }


def grounds_of(*messages):
    conversation = Conversation("c", list(messages))
    return read_grounds([conversation], read_exchanges([conversation], {}))


@pytest.mark.parametrize(
    "said, value",
    [
        ("at 7 pm", "19:00"),
        ("at seven", "07:00:00"),
        ("at 7:30 in the evening", "19:30"),
        ("at noon", "12:00"),
        ("on the 5th of March", "2026-03-05"),
        ("Sep 12", "2026-09-12"),
        ("the third one", "3"),
        ("number 007", "7"),
        ("about $100,000", "100000"),
        ("1000", "1000.0"),
        ("5% interest", "0.05"),
        ("12.5%", "0.125"),
        ("on 10/01/2022", "2022-10-01"),
        ("May 15", "20230515"),
        ("a couple of tickets", "2"),
        ("三", "3"),
        ("明天晚上去北京", "北京"),
        ("Hotels in OSLO", "Oslo hotel"),
    ],
)
def test_said_otherwise_is_said(said, value):
    assert value_pattern(grounds_of(user(said), asks(x=value))[0], value)[0] >= 1


@pytest.mark.parametrize(
    "said, value",
    [
        ("at 7 pm", "18:00"),
        ("at 7:30", "19:00"),
        ("on the 6th of April", "2026-03-05"),
        ("明天晚上去北京", "上海"),
        ("a bass", "bas"),
        ("30 people", "18:00"),
        ("5% interest", "0.5"),
        ("about $100,000", "1000"),
        ("on 10/02/2022", "2022-11-03"),
        ("2 people", "14"),
        ("4 nights", "16"),
    ],
)
def test_what_was_not_said_is_not_grounded(said, value):
    assert value_pattern(grounds_of(user(said), asks(x=value))[0], value)[0] == 0


def test_words_said_only_later_do_not_ground():
    messages = [user("a table"), asks(city="Oslo"), user("not Oslo, Rome"), asks(city="Rome")]
    first, second = grounds_of(*messages, user("thanks"))
    assert value_pattern(first, "Oslo") == (0, 0, 0, 1)
    assert value_pattern(second, "Rome") == (2, 0, 0, 0)
    assert value_pattern(second, "Oslo") == (2, 0, 1, 0)


def test_a_turn_is_no_ground_of_itself():
    assert value_pattern(grounds_of(user("go"), asks(city="Oslo"))[0], "Oslo") == (0, 0, 0, 0)


def test_a_result_under_user_is_a_result():
    talk = [user("a table"), asks(city="Oslo"), user('[{"place": "Blue Door"}]')]
    talk += [asks(place="Blue Door"), user('[{"paid": true}]')]
    assert value_pattern(grounds_of(*talk)[1], "Blue Door")[:2] == (0, 2)


def test_a_value_of_a_megabyte_is_bounded_work(monkeypatch):
    looked_up = []
    monkeypatch.setattr(
        grounding, "forms_of", lambda word: looked_up.append(word) or frozenset([word])
    )
    ground = Ground({"a1": 0}, {}, {}, 1, frozenset())
    for text in ("a1 " * 350_000, "1" * 1_000_000, "1:" * 500_000, "北" * 1_000_000, "?" * 10**6):
        start = time.perf_counter()
        value_pattern(ground, text)
        assert time.perf_counter() - start < 1
    assert 0 < len(looked_up) <= 5 * 50 and max(map(len, looked_up)) <= 8_000


def test_texts_are_kept_in_part_only():
    grounding._forms_in.cache_clear()
    grounds_of(user("x" * 9_000 + "1"), asks(x=1))
    grounds_of(user("x" * 9_000 + "2"), asks(x=1))
    assert grounding._forms_in.cache_info().misses == 2  # the long text once, and nothing after it


def test_deep_arguments():
    value = "end"
    for _ in range(5_000):
        value = {"k": [value]}
    [(path, text)] = leaves(value)
    assert path.count("k") == 5_000 and text == "end"


def test_paths_and_plain_values():
    value = {"a": [1, {"b": None}, [True]], "c": {}, "d": "X"}
    assert list(leaves(value)) == [("a", "1"), ("a.b", "none"), ("a", "true"), ("d", "X")]


def test_each_message_is_read_once(monkeypatch):
    read = []
    monkeypatch.setattr(
        grounding, "_all_forms", lambda text: read.append(text) or frozenset([text])
    )
    messages = [m for n in range(300) for m in (user(f"u{n}"), asks(x=n))]
    grounds = grounds_of(*messages)
    assert len(grounds) == 300 and len(read) <= 3 * 300
    assert grounds[-1].user["u0"] == 0 and grounds[0].user is grounds[-1].user


def test_numbers_beyond_all_bounds_have_themselves():
    assert forms_of("9" * 5_000) == {"9" * 5_000}


def test_an_answer_that_repeats_a_result_stays_the_assistants():
    called = {**asks(x="a"), "tool_calls": [ToolCall("f", {"x": "a"}, "c").to_message()]}
    result = {"role": "tool", "tool_call_id": "c", "content": "lovely"}
    said = {"role": "assistant", "content": "lovely"}
    grounds = grounds_of(user("go"), called, result, said, user("more"), asks(x="lovely"))
    assert value_pattern(grounds[-1], "lovely")[1:3] == (2, 1)
