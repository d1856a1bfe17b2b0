"Rows of data sets: messages in a column, as a list, an object or JSON text of either"

import json

import pytest

from toolcall.curate.steps import check_structure
from toolcall.errors import LogError
from toolcall.logs import read_logs

USER = {"role": "user", "content": "Weather in Paris?"}
WIRE_CALL = {"id": "c1", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [WIRE_CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "12 °C"}
SAID = {"role": "assistant", "content": "It is 12 °C."}
MESSAGES = [USER, CALLED, RESULT, SAID]
TOOL = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {}}}}

COLUMNS = (
    *("messages", "conversation", "conversations", "context", "dialogue", "dialog", "chat"),
    *("chat_completions", "history", "chat_history", "message_history", "transcript", "trace"),
)
SPELLINGS = {
    "a list": MESSAGES,
    "text of a list": json.dumps(MESSAGES),
    "text with blanks": "\n  " + json.dumps(MESSAGES, indent=2),
    "an object": {"messages": MESSAGES},
    "text of an object": json.dumps({"messages": MESSAGES}),
    "text in text": json.dumps({"messages": json.dumps(MESSAGES)}),
    "text of text": json.dumps(json.dumps(MESSAGES)),
    "texts": [json.dumps(message) for message in MESSAGES],
}


@pytest.fixture
def read(tmp_path):
    def read_records(*records: dict, **options):
        path = tmp_path / "log.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return read_logs(path, max_reject=1.0, **options)

    return read_records


def reject_of(read, record: dict):
    "The reject of a record, beside one that is read"
    log = read({"messages": MESSAGES}, record)
    assert len(log.rejects) == 1
    return log.rejects[0]


def kinds(conversation) -> list[str]:
    return [m["role"] + (" calls" if "tool_calls" in m else "") for m in conversation.messages]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("column", COLUMNS)
def test_messages_are_read_in_every_column_and_spelling(read, column, spelling):
    [plain] = read({"messages": MESSAGES})
    row = {column: SPELLINGS[spelling], "question": None, "answer": None, "metadata": None}
    [conversation] = read(row)
    assert conversation.messages == plain.messages and conversation.turns == [1, 3]
    assert "unread" not in conversation.meta


def test_keys_beside_the_messages_are_read_or_counted(read):
    inner = {"messages": MESSAGES, "conversation_id": "k7", "mood": "calm", "tools": [TOOL]}
    log = read({"context": json.dumps(inner), "system": "Be brief.", "shade": "blue"})
    [conversation] = log
    assert kinds(conversation)[:2] == ["system", "user"] and conversation.id == "k7"
    assert [tool["function"]["name"] for tool in conversation.tools] == ["get_weather"]
    assert log.report.unread == {"messages": {"context.mood": 1, "shade": 1}}
    outside = {"context": json.dumps({"messages": MESSAGES}), "tools": json.dumps([TOOL])}
    assert [c.tools for c in read(outside)] == [conversation.tools]
    held = json.dumps({"messages": MESSAGES, "tool_results": ["12 °C"]})
    assert reject_of(read, {"context": held}).path == "context.tool_results"


ODD = [USER, {"role": "wizard"}]


@pytest.mark.parametrize(
    ("cell", "path"),
    [
        (json.dumps(MESSAGES)[:-3], "context"),
        (json.dumps({"messages": MESSAGES})[:-3], "context"),
        (str(MESSAGES), "context"),
        (ODD, "context[1].role"),
        (json.dumps({"messages": ODD}), "context.messages[1].role"),
    ],
)
def test_an_error_names_its_place_in_the_column(read, cell, path):
    reject = reject_of(read, {"context": cell})
    assert (reject.code, reject.path) == ("bad_type", path)


def test_an_error_beside_a_column_keeps_its_place(read):
    cell = json.dumps({"messages": MESSAGES})
    assert reject_of(read, {"context": cell, "tools": 7}).path == "tools"
    assert reject_of(read, {"context": json.dumps({"messages": MESSAGES, "tools": 7})}).path == (
        "context.tools"
    )


OF_FAMILIES = {
    "sharegpt": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}],
    "langchain": [{"type": "human", "content": "Hi"}, {"type": "ai", "content": "Yo"}],
    "anthropic": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f"}]},
    ],
}


@pytest.mark.parametrize("family", OF_FAMILIES)
@pytest.mark.parametrize("encode", [json.dumps, lambda value: value])
def test_a_column_may_hold_messages_of_another_family(read, family, encode):
    [conversation] = read({"history": encode(OF_FAMILIES[family]), "n": 3, "question": None})
    assert conversation.meta["format"] == family and conversation.turns == [1]
    assert conversation.meta["source"] == "log.jsonl:1"


def test_a_history_beside_a_question_is_not_the_conversation(read):
    row = {"user": "And Rome?", "tool_name": "get_weather", "history": OF_FAMILIES["sharegpt"]}
    assert reject_of(read, row).code == "missing_history"
    for history in OF_FAMILIES["sharegpt"], MESSAGES:
        unanswered = {"question": "And Rome?", "history": history}
        assert reject_of(read, unanswered).code == "unknown_format"


CALL = {"name": "get_weather", "parameters": {"city": "Rome"}}
ANSWERS = {
    "parameters": CALL,
    "arguments": {"name": "get_weather", "arguments": {"city": "Rome"}},
    "text arguments": {"name": "get_weather", "arguments": '{"city": "Rome"}'},
    "args": {"tool": "get_weather", "args": {"city": "Rome"}},
    "tool_args": {"tool_name": "get_weather", "tool_args": {"city": "Rome"}},
    "input": {"type": "tool_use", "name": "get_weather", "input": {"city": "Rome"}},
    "function": {"type": "function", "function": CALL},
    "name alone": {"function": "get_weather", "arguments": {"city": "Rome"}},
    "calls": {"tool_calls": [CALL]},
    "a list": [CALL],
    "a message": {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]},
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("encode", [json.dumps, lambda value: value])
def test_an_answer_that_is_a_call_is_read_as_one(read, kind, encode):
    row = {"context": None, "question": json.dumps([USER]), "answer": encode(ANSWERS[kind])}
    [conversation] = read(row | {"reasoning": None, "metadata": None})
    assert str(conversation.calls()[0]) == 'get_weather(city="Rome")'
    assert kinds(conversation) == ["user", "assistant calls"] and conversation.turns == [1]
    assert "unread" not in conversation.meta


@pytest.mark.parametrize("words", ["It is 12 °C.", "[1] says 12 °C.", '"12 °C", he says'])
def test_other_text_is_words(read, words):
    [conversation] = read({"question": [USER], "answer": words})
    assert conversation.messages[1] == {"role": "assistant", "content": words}


@pytest.mark.parametrize("answer", ['{"name": "get_w', '{"degrees": 12}', "[]", {"name": "f"}, ""])
def test_an_answer_that_is_neither_is_refused(read, answer):
    reject = reject_of(read, {"question": [USER], "answer": answer})
    assert reject.code in ("bad_type", "missing_field") and reject.path.startswith("answer")


def test_reasoning_beside_an_answer_belongs_to_it(read):
    row = {"question": json.dumps([USER]), "answer": json.dumps(CALL)}
    [conversation] = read(row | {"reasoning": "The user wants the weather."})
    assert conversation.messages[1]["reasoning_content"] == "The user wants the weather."
    assert reject_of(read, row | {"reasoning": {"steps": ["a"]}}).code == "unread_field"
    own = {"role": "assistant", "content": "12 °C", "reasoning": "Cold."}
    assert reject_of(read, row | {"answer": own, "reasoning": "Warm."}).code == "unread_field"
    [same] = read(row | {"answer": own, "reasoning": "Cold."})
    assert same.messages[1]["reasoning_content"] == "Cold."
    [setting] = read(row | {"reasoning": "high"})
    assert "reasoning_content" not in setting.messages[1]


def test_words_of_a_question_come_after_its_context(read):
    row = {"context": json.dumps(MESSAGES), "question": "And in Rome?", "answer": "19 °C"}
    [conversation] = read(row)
    assert [m["content"] for m in conversation.messages[-2:]] == ["And in Rome?", "19 °C"]
    assert conversation.turns == [1, 3, 5]
    assert reject_of(read, row | {"question": json.dumps([USER])}).path == "question"


@pytest.mark.parametrize("key", ["parameters", "args", "input", "params", "tool_input"])
def test_arguments_of_a_call_under_another_name_are_read(read, key):
    call = {"function": {"name": "get_weather", key: {"city": "Rome"}}}
    [conversation] = read({"messages": [USER, {"role": "assistant", "tool_calls": [call]}]})
    assert conversation.calls()[0].arguments == {"city": "Rome"}
    both = {"function": {"name": "get_weather", key: {"a": 1}, "arguments": {"city": "Rome"}}}
    log = read({"messages": [USER, {"role": "assistant", "tool_calls": [both]}]})
    assert log.conversations[0].calls()[0].arguments == {"city": "Rome"}
    assert log.report.unread == {"messages": {f"messages[].tool_calls[].function.{key}": 1}}
    call["function"]["tool_args"] = {"city": "Oslo"}
    reject = reject_of(read, {"messages": [USER, {"role": "assistant", "tool_calls": [call]}]})
    assert reject.path.startswith("messages[1].tool_calls[0]")


def test_results_that_the_user_gives_are_counted_apart_and_mask_nothing(read):
    told = [USER, CALLED, {"role": "user", "content": '[{"degrees": 12}]'}, SAID]
    asked = [USER, CALLED, {"role": "user", "content": "Well?"}, SAID]
    log = read({"context": json.dumps(told)}, {"context": json.dumps(asked)})
    assert log.report.warnings == {"user_result": 1, "missing_result": 1}
    assert check_structure(log.conversations).masked == {}
    assert [kinds(c)[2] for c in log] == ["user", "user"]


def test_calls_of_other_tools_than_the_given_ones_are_counted(read, tmp_path):
    path = tmp_path / "tools.json"
    path.write_text(json.dumps([TOOL]))
    drifted = json.loads(json.dumps(MESSAGES).replace("get_weather", "lookup_weather"))
    log = read({"context": MESSAGES}, {"context": drifted}, tools=path)
    assert log.report.warnings == {"unknown_tool": 1}
    assert log.report.tools == {"get_weather": 1, "lookup_weather": 1}
    declared = {"context": drifted, "tools": [TOOL]}
    assert read(declared, tools=path).report.warnings == {"unknown_tool": 1}


@pytest.mark.parametrize(
    ("part", "records", "turns", "odd"),
    [
        ("clean", 327, 3277, 0),
        ("noisy", 327, 3277, 0),
        ("drift", 292, 2910, 278),
        ("test", 34, 359, 0),
    ],
)
def test_the_restaurants_are_read_whole(real_logs, part, records, turns, odd):
    folder = real_logs / "restaurants"
    if not folder.is_dir():
        pytest.skip("no restaurants among the real logs")
    log = read_logs(folder / f"{part}.traces.jsonl.gz", tools=folder / "tools.json")
    assert (len(log), len(log.rejects)) == (records, 0) and not log.report.unread
    assert sum(len(c.turns) for c in log) == turns == len([call for c in log for call in c.calls()])
    assert log.report.warnings.get("unknown_tool", 0) == odd
    assert check_structure(log.conversations).masked == {}


def test_a_log_of_broken_rows_is_refused_with_the_place(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"context": json.dumps({"messages": MESSAGES})[:-9]}) + "\n")
    with pytest.raises(LogError, match=r"log\.jsonl:1 context.*not JSON text"):
        read_logs(path)
