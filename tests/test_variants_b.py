"Kinds of logs that are read, masked or refused with a reason: one test a kind, with variants"

import json

import pytest

from toolcall.conversation import Conversation
from toolcall.curate import curate
from toolcall.errors import ConversationError
from toolcall.formats import find_adapter
from toolcall.logs.reading import iter_records

TOOL = {
    "type": "function",
    "function": {
        "name": "find_train",
        "parameters": {"type": "object", "properties": {"to": {"type": "string"}}},
    },
}
USER = {"role": "user", "content": "Trains to Oslo?"}
NEXT = {"role": "user", "content": "And to Bergen?"}
SAID = {"role": "assistant", "content": "One at noon."}


def call(to: str, id: str = "c1") -> dict:
    function = {"name": "find_train", "arguments": json.dumps({"to": to})}
    return {"id": id, "type": "function", "function": function}


def calls(*targets: str) -> dict:
    made = [call(to, f"c{n}") for n, to in enumerate(targets, 1)]
    return {"role": "assistant", "content": None, "tool_calls": made}


def result(id: str = "c1") -> dict:
    return {"role": "tool", "tool_call_id": id, "content": "12:00"}


def request(messages: list, answer: dict, **record: object) -> dict:
    choice = {"index": 0, "finish_reason": "stop", "message": answer}
    asked = {"model": "m", "messages": messages, "tools": [TOOL]}
    return {"request": asked, "response": {"choices": [choice]}} | record


def read(record: dict) -> Conversation:
    return find_adapter()(record)


def trained(*records: dict) -> list[str]:
    "Words and called targets of each turn that carries loss"
    turns = []
    for conversation in curate(list(map(read, records))):
        for turn in conversation.turns:
            targets = [call.arguments.get("to") for call in conversation.calls(turn)]
            words = conversation.messages[turn]["content"]
            turns.append(" ".join(filter(None, [words, *targets])))
    return sorted(turns)


def refused(record: dict) -> ConversationError:
    with pytest.raises(ConversationError) as caught:
        read(record)
    return caught.value


FIRST = request([USER], calls("Oslo", "Moss"), session_id="s")


@pytest.mark.parametrize(
    "history",
    [
        [USER, calls("Moss", "Oslo"), result("c1"), result("c2")],
        [USER, calls("Oslo"), result(), calls("Moss") | {"content": "Also:"}, result()],
        [USER, calls("[omitted]", "[omitted]"), result("c1"), result("c2")],
    ],
    ids=["reordered", "a message a call", "arguments left out"],
)
def test_a_rewritten_history_counts_once(history):
    assert trained(FIRST, request(history, SAID, session_id="s")) == ["One at noon.", "Oslo Moss"]


def test_a_condensed_middle_of_a_history_is_no_answer():
    summary = {"role": "assistant", "content": "[earlier turns were summarised]"}
    later = request([USER, summary, NEXT], calls("Bergen"), session_id="s")
    assert trained(FIRST, later) == ["Bergen", "Oslo Moss"]


@pytest.mark.parametrize("session", [{"session_id": "s"}, {}], ids=["session", "no session"])
def test_a_response_without_loss_has_none_in_a_later_history(session):
    no = {"role": "assistant", "content": None, "refusal": "I can't."}
    first = request([USER], no, **session)
    again = {"role": "assistant", "content": "I can't."}
    assert trained(first, request([USER, again, NEXT], calls("Bergen"), **session)) == ["Bergen"]


def test_examples_that_whole_dialogues_begin_with_carry_no_loss():
    example = [{"role": "user", "content": "Trains to Rome?"}, calls("Rome"), result(), SAID]
    rows = [
        {"messages": [*example, {"role": "user", "content": f"To {to}?"}, calls(to)]}
        for to in ("Oslo", "Bergen", "Moss")
    ]
    assert trained(*rows) == ["Bergen", "Moss", "Oslo"]


@pytest.mark.parametrize("id", ["unknown", "None", "00000000-0000-0000-0000-000000000000"])
def test_an_id_that_says_that_it_names_nobody_is_no_tie(id):
    records = [
        request([{"role": "user", "content": f"To {to}?"}], calls(to), session_id=id)
        for to in ("Oslo", "Bergen")
    ]
    notes = [note for step in curate(list(map(read, records))).steps for note in step.notes]
    assert any(id in note for note in notes)


@pytest.mark.parametrize(
    "failure",
    [
        {"status": "timeout"},
        {"ok": False},
        {"success": "false"},
        {"status_code": 404, "result": "not found"},
        {"result": {"content": [{"type": "text", "text": "no city"}], "isError": True}},
    ],
    ids=["status alone", "ok", "success as text", "status of HTTP", "result of MCP"],
)
def test_failure_signals_of_the_simple_shape(failure):
    record = {"user": "To Osslo?", "tool_name": "find_train", "arguments": {"to": "Osslo"}}
    good = {"user": "To Oslo?", "tool_name": "find_train", "arguments": {"to": "Oslo"}}
    assert trained(record | failure, good) == ["Oslo"]


@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("tool_calls", "unread_field"),
        ("steps", "unread_field"),
        ("agent_thoughts", "unread_field"),
        ("history", "missing_history"),
        ("images", "multimodal"),
    ],
)
def test_calls_and_histories_beside_a_simple_exchange_are_refused(key, code):
    error = refused({"question": "Trains?", "answer": "One at noon.", key: [{"tool": "f"}]})
    assert error.code == code and key in str(error)


@pytest.mark.parametrize(
    ("question", "answer"),
    [("question", "answer"), ("query", "response"), ("context", "response"), ("user", "assistant")],
)
@pytest.mark.parametrize("dump", [json.dumps, lambda value: value], ids=["text", "objects"])
def test_rows_whose_parts_are_messages(question, answer, dump):
    conversation = read({question: dump([USER]), answer: dump(calls("Oslo"))})
    assert [c.arguments for c in conversation.calls()] == [{"to": "Oslo"}]
    assert conversation.messages[0] == USER


def test_an_answer_of_json_messages_is_not_learned_as_prose():
    error = refused({"question": "Trains to Oslo?", "answer": json.dumps(calls("Oslo"))})
    assert "JSON text of messages" in str(error)


@pytest.mark.parametrize("key", ["context", "conversation", "dialogue", "chat_completions"])
def test_messages_under_other_keys(key):
    for value in ([USER, SAID], json.dumps([USER, SAID])):
        assert read({key: value, "tools": [TOOL]}).messages == [USER, SAID]


def test_a_rejected_completion_carries_no_loss():
    row = {"prompt": [USER], "completion": [SAID]}
    assert read(row | {"label": True}).turns == [1]
    assert read(row | {"label": False}).turns == []


@pytest.mark.parametrize("key", ["tool_defs", "toolDefinitions", "tool_definitions", "functions"])
def test_tools_under_other_keys(key):
    tools = [TOOL["function"]]
    for record in ({key: tools}, {key: json.dumps(tools)}, {"metadata": {"tools": tools}}):
        assert [t["function"]["name"] for t in read({"messages": [USER, SAID]} | record).tools] == [
            "find_train"
        ]
    error = refused({"messages": [USER, SAID], "available_tools": ["find_train"]})
    assert error.code == "unread_field" and "available_tools" in str(error)


def test_tools_in_the_system_message():
    system = {"role": "system", "content": "Be brief.", "tools": [TOOL]}
    conversation = read({"messages": [system, USER, SAID]})
    assert [tool["function"]["name"] for tool in conversation.tools] == ["find_train"]
    assert conversation.messages[0] == {"role": "system", "content": "Be brief."}


def test_documents_beside_the_messages_are_refused():
    body = {"model": "m", "messages": [USER], "documents": [{"data": {"text": "noon"}}]}
    error = refused({"request": body, "response": {"choices": [{"message": SAID}]}})
    assert error.code == "missing_history" and "documents" in str(error)


def test_calls_that_an_sdk_made_by_itself_belong_to_the_answer():
    asked = {"role": "user", "parts": [{"text": "Trains to Oslo?"}]}
    made = {
        "role": "model",
        "parts": [{"functionCall": {"name": "find_train", "args": {"to": "Oslo"}}}],
    }
    output = {"functionResponse": {"name": "find_train", "response": {"result": "12:00"}}}
    response = {
        "automaticFunctionCallingHistory": [asked, made, {"role": "user", "parts": [output]}],
        "candidates": [{"content": {"role": "model", "parts": [{"text": "One at noon."}]}}],
    }
    conversation = read({"request": {"contents": [asked]}, "response": response})
    assert [m["role"] for m in conversation.messages] == ["user", "assistant", "tool", "assistant"]
    assert len(conversation.calls()) == 1


def test_calls_in_camel_case_in_a_response():
    answer = {"role": "assistant", "content": "", "toolCalls": [call("Oslo")]}
    assert trained(request([USER], answer)) == ["Oslo"]


def test_what_the_ai_sdk_returns_is_a_response():
    made = {"toolCallId": "c1", "toolName": "find_train", "input": {"to": "Oslo"}}
    response = {"text": "One moment.", "toolCalls": [made], "finishReason": "tool-calls"}
    record = {"request": {"messages": [USER], "tools": [TOOL]}, "response": response}
    assert trained(record) == ["One moment. Oslo"]


@pytest.mark.parametrize("kind", ["local_shell_call", "custom_tool_call", "computer_call"])
def test_a_response_of_built_in_tools_alone_is_named(kind):
    output = [{"type": kind, "call_id": "c1", "name": "note", "input": "x", "action": {}}]
    response = {"object": "response", "status": "completed", "output": output}
    error = refused({"request": {"input": "Trains?"}, "response": response})
    assert error.code == "no_content" and kind in str(error)


STATE = [
    {"type": "human", "content": "Trains to Oslo?"},
    {"type": "ai", "content": "", "tool_calls": [{"name": "f", "args": {"to": "Oslo"}, "id": "c"}]},
    {"type": "tool", "content": "12:00", "tool_call_id": "c"},
    {"type": "ai", "content": "One at noon."},
]


def test_states_and_checkpoints_of_langgraph():
    states = [
        {"values": {"messages": STATE[:n]}, "checkpoint": {"thread_id": "t"}} for n in (4, 3, 2)
    ]
    assert trained(*states) == ["One at noon.", "Oslo"]
    checkpoint = {"v": 4, "channel_values": {"messages": STATE}}
    for record in (checkpoint, {"thread_id": "t", "checkpoint": checkpoint}):
        assert len(read(record).calls()) == 1
    assert read({"thread_id": "t", "checkpoint": checkpoint}).meta["conversation_id"] == "t"


@pytest.mark.parametrize("keys", [("input", "output"), ("inputs", "outputs")])
def test_what_an_agent_of_langchain_got_and_gave(keys):
    asked, answered = keys
    conversation = read({asked: {"messages": STATE[:1]}, answered: {"messages": STATE}})
    assert [m["role"] for m in conversation.messages] == ["user", "assistant", "tool", "assistant"]
    assert conversation.meta["response_at"] == 1


def test_choices_alone_are_a_response():
    choices = [{"index": 0, "finish_reason": "tool_calls", "message": calls("Oslo")}]
    assert trained({"input": [USER], "output": choices, "metadata": {"tools": [TOOL]}}) == ["Oslo"]


@pytest.mark.parametrize(
    ("record", "name"),
    [
        ({"type": "thread.started", "thread_id": "t"}, "Codex"),
        ({"source": "agent", "action": "run", "args": {}}, "OpenHands"),
        ({"toolCall": {"functionCalls": []}}, "Live API"),
        ({"author": "agent", "content": {"role": "model", "parts": []}, "id": "e"}, "message"),
        ({"title": "x", "mapping": {}, "current_node": "n"}, "ChatGPT"),
        ({"request_id": "r", "signed_body_url": "u", "request_body": None}, "signed_body_url"),
    ],
    ids=["codex", "openhands", "gemini live", "adk", "chatgpt", "helicone"],
)
def test_sessions_of_other_products_are_refused_by_name(record, name):
    error = refused(record)
    assert name in str(error) and error.code in ("one_message", "unknown_format")


CUT = [
    {"finish_reason": "length"},
    {"finish_reason": "content_filter"},
    {"stop_reason": "max_tokens"},
    {"stop_reason": "refusal"},
    {"stop_reason": "pause_turn"},
    {"finishReason": "MAX_TOKENS"},
    {"finishReason": "FinishReason.SAFETY"},
    {"status": "incomplete"},
    {"metadata": {"finish_reason": "length"}},
    {"metadata": {"finish_details": {"type": "max_tokens"}}},
]
WHOLE = [{"finish_reason": "tool_calls"}, {"stop_reason": "end_turn"}, {"status": "completed"}]


@pytest.mark.parametrize("blocks", [False, True], ids=["text", "blocks"])
@pytest.mark.parametrize("reason", [*CUT, *WHOLE], ids=str)
def test_an_answer_that_says_itself_that_it_was_cut_carries_no_loss(reason, blocks):
    first = {"role": "assistant", "content": "At ele"} | reason
    if blocks:
        use = {"type": "tool_use", "id": "c1", "name": "find_train", "input": {"to": "Oslo"}}
        first["content"] = [{"type": "text", "text": "At ele"}, use]
    conversation = read({"messages": [USER, first, NEXT, SAID]})
    assert conversation.turns == ([1, 3] if reason in WHOLE else [3])
    assert ("unfinished_turn" in conversation.meta.get("warnings", [])) == (reason in CUT)


def test_a_cut_answer_among_geminis_contents_carries_no_loss():
    model = {"role": "model", "parts": [{"text": "At ele"}], "finishReason": "MAX_TOKENS"}
    asked = {"role": "user", "parts": [{"text": "Trains?"}]}
    whole = {"role": "model", "parts": [{"text": "One at noon."}], "finishReason": "STOP"}
    assert trained({"contents": [asked, model, asked, whole]}) == ["One at noon."]


def test_a_cut_answer_in_the_history_of_a_span_carries_no_loss():
    def said(role: str, text: str, **more: str) -> dict:
        return {"role": role, "parts": [{"type": "text", "content": text}]} | more

    history = [said("user", "a"), said("assistant", "b", finish_reason="length"), said("user", "a")]
    answer = [said("assistant", "One at noon.", finish_reason="stop")]
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps(history),
        "gen_ai.output.messages": json.dumps(answer),
    }
    assert trained({"name": "chat m", "attributes": attributes}) == ["One at noon."]


def test_a_message_for_each_parallel_call_is_one_turn():
    first, second = calls("Oslo"), calls("Oslo", "Moss")
    second["tool_calls"] = second["tool_calls"][1:]
    together = [USER, first, second, result("c1"), result("c2"), SAID]
    assert trained({"messages": together}) == ["One at noon.", "Oslo Moss"]
    in_turn = [USER, first, result("c1"), second, result("c2"), SAID]
    assert trained({"messages": in_turn}) == ["Moss", "One at noon.", "Oslo"]
    halves = [USER, first | {"weight": 0}, second, result("c1"), result("c2"), SAID]
    assert trained({"messages": halves}) == ["One at noon."]


CALL_TEXTS = {
    "DSML": '<｜DSML｜function_calls><｜DSML｜invoke name="find_train">',
    "Gemma": "<start_function_call>call:find_train{to:<escape>Oslo<escape>}<end_function_call>",
    "OLMo": '<function_calls>\nfind_train(to="Oslo")\n</function_calls>',
    "other order": '{"arguments": {"to": "Oslo"}, "name": "find_train"}',
    "null": '{"name": "find_train", "arguments": null}',
    "function": '{"type": "function", "function": {"name": "find_train", "arguments": {}}}',
    "tool_calls": '{"tool_calls": [{"name": "find_train", "arguments": {"to": "Oslo"}}]}',
    "tool": '```json\n{"tool": "find_train", "arguments": {"to": "Oslo"}}\n```',
    "action": '{"action": "find_train", "action_input": {"to": "Oslo"}}',
    "list in Python": '[find_train(to="Oslo"), find_train(to="Moss")]',
    "Python": 'find_train(to="Oslo")',
    "fence in Python": 'I look.\n```python\nprint(find_train(to="Oslo"))\n```',
    "tool_code": '```tool_code\nfind_train(to="Oslo")\n```',
    "words": 'find_train("Oslo")',
    "words and a line": 'I look.\nfind_train(to="Oslo")',
    "words and JSON": 'I look.\n\n{\n"name": "find_train",\n"arguments": {}\n}',
    "Cline": "I look.\n\n<find_train>\n<to>Oslo</to>\n</find_train>",
}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside calls"])
@pytest.mark.parametrize("family", CALL_TEXTS)
def test_a_call_of_a_declared_tool_is_never_learned_as_words(family, beside):
    answer = {"role": "assistant", "content": CALL_TEXTS[family]}
    if beside:
        answer["tool_calls"] = [call("Oslo")]
    conversation = read({"messages": [USER, answer], "tools": [TOOL]})
    assert conversation.turns == [] and "markup_in_text" in conversation.meta["warnings"]


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "Oslo", "country": "Norway"}',
        '{"tool": "hammer", "args": "none"}',
        "```python\nprint(12)\n```",
        "Noon (find_train() says so)",
        "<b>Noon</b>",
        "[see the table](https://example.org)",
    ],
)
def test_an_answer_that_only_looks_like_a_call_is_learned(text):
    row = {"messages": [USER, {"role": "assistant", "content": text}], "tools": [TOOL]}
    assert read(row).turns == [1]


@pytest.mark.parametrize("text", ["\u200b", "\ufeff\u200d", "\u2060 \n"])
def test_an_answer_without_a_visible_sign_is_empty(text):
    row = {"messages": [USER, {"role": "assistant", "content": text}, NEXT, SAID]}
    assert trained(row) == ["One at noon."]


@pytest.mark.parametrize("value", ["tide.png", {"url": "https://example.org/tide.png"}], ids=str)
def test_an_attachment_beside_the_words_is_refused(value):
    asked = {"role": "user", "content": "See?", "attachment": value}
    error = refused({"messages": [asked, SAID]})
    assert error.code == "multimodal" and "attachment" in str(error)
    assert read({"messages": [asked | {"attachment": None}, SAID]}).turns == [1]


@pytest.mark.parametrize(
    ("signal", "failed"),
    [
        ({"tool_call_error": True}, True),
        ({"tool_call_error": False}, False),
        ({"tool_status": "error"}, True),
        ({"outcome": "error"}, True),
        ({"outcome": "failed"}, True),
        ({"outcome": "success"}, False),
    ],
    ids=str,
)
def test_a_result_that_says_that_its_call_failed(signal, failed):
    row = {"messages": [USER, calls("Osslo"), result() | signal, SAID]}
    assert trained(row) == (["One at noon."] if failed else ["One at noon.", "Osslo"])


@pytest.mark.parametrize("key", ["functions", "tools"])
@pytest.mark.parametrize(
    ("choice", "turns"), [({"name": "find_train"}, []), ("none", []), ("auto", [1]), (None, [1])]
)
def test_the_legacy_choice_of_a_function(key, choice, turns):
    tools = [TOOL] if key == "tools" else [TOOL["function"]]
    asked = {"model": "m", "messages": [USER], key: tools, "function_call": choice}
    conversation = read({"request": asked, "response": {"choices": [{"message": calls("Oslo")}]}})
    assert conversation.turns == turns


@pytest.mark.parametrize(
    ("facts", "name", "value"),
    [
        ({"timestamp": {"$date": "2026-01-01T10:00:00Z"}}, "timestamp", 1767261600.0),
        ({"createdAt": {"$date": {"$numberLong": "1767261600000"}}}, "timestamp", 1767261600.0),
        ({"ts": {"$numberLong": "1767261600000"}}, "timestamp", 1767261600.0),
        ({"date": "2026-01-01"}, "timestamp", 1767225600.0),
        ({"user_id": {"$oid": "65a0"}}, "user_id", "65a0"),
        ({"user": {"id": {"$oid": "65a0"}}}, "user_id", "65a0"),
        ({"session_id": {"$oid": "65a0"}}, "conversation_id", "65a0"),
        ({"user_api_key_user_id": "u1"}, "user_id", "u1"),
        ({"metadata": {"user_api_key_user_id": "u1"}}, "user_id", "u1"),
        ({"user_api_key_user_id": "u1", "user_api_key_end_user_id": "u2"}, "user_id", "u2"),
    ],
    ids=str,
)
def test_facts_as_databases_and_gateways_export_them(facts, name, value):
    assert read({"messages": [USER, SAID]} | facts).meta[name] == value


def test_an_id_of_a_database():
    assert read({"_id": {"$oid": "65a0"}, "messages": [USER, SAID]}).id == "65a0"


ROWS = [
    {"messages": [{"role": "user", "content": f"To {to}?"}, calls(to)], "tools": [TOOL]}
    for to in ("Oslo", "Moss", "Bergen")
]
LINES = [json.dumps(row) for row in ROWS]
SHAPES = {
    "brackets on lines of their own": "[\n" + ",\n".join(LINES) + "\n]\n",
    "a comma after each line": ",\n".join(LINES) + ",\n",
    "a comma between lines": ",\n".join(LINES) + "\n",
    "mostly without a comma": f"{LINES[0]},\n{LINES[1]}\n{LINES[2]}\n",
    "an array a line": "\n".join(f"[{line}]" for line in LINES) + "\n",
    "arrays over several lines": f"[{LINES[0]},\n{LINES[1]}]\n[{LINES[2]}]",
}


@pytest.mark.parametrize("shape", SHAPES)
def test_files_between_json_lines_and_an_array(tmp_path, shape):
    path = tmp_path / "log.json"
    path.write_text(SHAPES[shape])
    raws = list(iter_records(path))
    assert [raw.value for raw in raws] == ROWS and not any(raw.error for raw in raws)


def test_one_observation_with_the_results_of_all_calls():
    made = [{"name": "find_train", "arguments": {"to": to}} for to in ("Oslo", "Moss")]
    said = [
        {"from": "human", "value": "Trains to Oslo and Moss?"},
        {"from": "function_call", "value": json.dumps(made)},
        {"from": "observation", "value": '[{"at": "12:00"}, {"at": "13:00"}]'},
        {"from": "gpt", "value": "Noon and one."},
    ]
    row = {"conversations": said, "tools": json.dumps([TOOL["function"]])}
    results = [m for m in read(row).messages if m["role"] == "tool"]
    assert [m["content"] for m in results] == ['{"at": "12:00"}', '{"at": "13:00"}']
    assert trained(row) == ["Noon and one.", "Oslo Moss"]
    row["conversations"] = [*said[:2], said[2], {"from": "observation", "value": "x"}, said[3]]
    results = [m["content"] for m in read(row).messages if m["role"] == "tool"]
    assert results == [said[2]["value"], "x"]


@pytest.mark.parametrize("named", [{}, {"name": "rail.find_train"}, {"namespace": "rail"}], ids=str)
def test_a_call_without_the_namespace_of_its_only_tool(named):
    space = {
        "type": "namespace",
        "name": "rail",
        "tools": [{"type": "function"} | TOOL["function"]],
    }
    made = {"type": "function_call", "call_id": "c1", "name": "find_train", "arguments": "{}"}
    body = {"model": "m", "input": "Trains?", "tools": [space]}
    record = {"request": body, "response": {"output": [made | named], "status": "completed"}}
    [asked] = read(record).calls()
    assert asked.name == "rail__find_train"
    body["tools"] = [space, space | {"name": "bus"}]
    [asked] = read(record).calls()
    assert asked.name == ("rail__find_train" if named else "find_train")
