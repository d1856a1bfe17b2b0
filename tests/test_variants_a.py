"Other spellings of known formats: JSON text, other places, rows of tables, pieces, marks and nulls"

import base64
import json

import pytest
from one_record import learned, one, refused

from toolcall.conversation import Conversation
from toolcall.errors import MergedRecord
from toolcall.formats import expand, find_adapter

ARGUMENTS = {"city": "Oslo"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
ASKED = {"role": "user", "content": "Weather in Oslo?"}
FUNCTION = {"name": "get_weather", "arguments": json.dumps(ARGUMENTS)}
CALL = {"id": "c1", "type": "function", "function": FUNCTION}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "-3 °C"}
ANSWER = {"role": "assistant", "content": "It is -3 °C."}
TURNS = ['get_weather(city="Oslo")', "It is -3 °C."]


def results(conversation: Conversation) -> list[str]:
    return [message["content"] for message in conversation.messages if message["role"] == "tool"]


# LangChain


HUMAN = {"type": "human", "content": ASKED["content"]}
AI_CALL = {"name": "get_weather", "args": ARGUMENTS, "id": "c1", "type": "tool_call"}
AI = {"type": "ai", "content": "", "tool_calls": [AI_CALL]}
RETURNED = {"type": "tool", "content": "-3 °C", "tool_call_id": "c1"}
SAID = {"type": "ai", "content": ANSWER["content"]}
STATE = [HUMAN, AI, RETURNED, SAID]


@pytest.mark.parametrize(
    "record",
    [
        {"thread_id": "t1", "messages": json.dumps(STATE)},
        {"SessionId": "s1", "History": [{"type": m["type"], "data": m} for m in STATE]},
        {"values": {"messages": STATE}, "next": []},
        {"checkpoint": {"channel_values": {"messages": STATE}}},
        {"input": {"messages": [HUMAN]}, "output": {"messages": STATE}},
        {"inputs": {"messages": [HUMAN, AI, RETURNED]}, "outputs": SAID},
    ],
    ids=["text", "dynamodb", "state", "checkpoint", "run", "chain"],
)
def test_langchain_messages_stand_in_many_places(record: dict):
    conversation = one(record)
    assert [message["role"] for message in conversation.messages] == [
        *("user", "assistant", "tool", "assistant")
    ]
    assert results(conversation) == ["-3 °C"]


def test_langchain_examples_carry_no_loss():
    shown = SAID | {"content": "Rain.", "example": True}
    assert learned(one({"messages": [HUMAN, shown, *STATE]})) == TURNS


def test_langchain_answer_cut_in_the_middle_carries_no_loss():
    cut = {"type": "ai", "content": "It", "response_metadata": {"finish_reason": "length"}}
    assert learned(one({"messages": [HUMAN, cut, HUMAN, SAID]})) == TURNS[1:]


def test_langchain_reasoning_blocks_are_kept():
    blocks = [{"type": "reasoning", "reasoning": "Ask the tool."}]
    conversation = one({"messages": [HUMAN, AI | {"content": blocks}]})
    assert conversation.messages[1]["reasoning_content"] == "Ask the tool."


def test_langchain_keys_of_other_apis_are_not_lost():
    generation = {"type": "GENERATION", "traceId": "t", "input": [ASKED | {"images": ["aa"]}]}
    assert refused(generation | {"output": ANSWER}).code == "multimodal"
    thought = ANSWER | {"reasoning": "Cold."}
    kept = one(generation | {"input": [ASKED], "output": thought})
    assert kept.messages[1]["reasoning_content"] == "Cold."


# A row of a table, a line of a session


@pytest.mark.parametrize(
    "record",
    [
        {"session_id": "s", "message": {"type": "human", "data": {"content": "Hi"}}},
        {"session_id": "s", "message": json.dumps(HUMAN)},
        {"session_id": "s", "message_data": json.dumps(ASKED)},
        {"session_id": "s", "message_data": json.dumps({"type": "function_call", "call_id": "c"})},
        {"type": "TextMessage", "source": "user", "content": "Hi", "models_usage": None},
        {"type": "function_call_output", "call_id": "c1", "output": "-3 °C"},
        {"conversation_id": "c", "message_data": json.dumps({"kind": "request", "parts": []})},
        {"type": "system", "subtype": "init", "session_id": "s", "tools": ["Bash"]},
        {"type": "user.message", "id": "1", "parentId": None, "data": {"content": "Hi"}},
    ],
    ids=[
        *("langchain", "n8n", "agents sdk", "item", "autogen", "output", "pydantic-ai"),
        *("stream-json", "copilot"),
    ],
)
def test_a_part_of_a_conversation_is_no_conversation(record: dict):
    error = refused(record)
    if {
        "session_id",
        "conversation_id",
    } & record.keys():  # it is read together with its other lines
        assert error.code == "session_line" and isinstance(error, MergedRecord)
    else:
        assert error.code == "one_message" and "several records" in str(error)


def test_an_event_of_an_agent_is_not_called_a_realtime_event():
    line = {"type": "session.start", "id": "1", "parentId": None, "data": {"sessionId": "s"}}
    assert "Realtime" not in str(refused(line))


# Histories as JSON text


PYDANTIC = [
    {"kind": "request", "parts": [{"part_kind": "user-prompt", "content": ASKED["content"]}]},
    {
        "kind": "response",
        "parts": [
            {"part_kind": "tool-call", "tool_name": "get_weather", "args": ARGUMENTS}
            | {"tool_call_id": "c1"}
        ],
    },
    {
        "kind": "request",
        "parts": [
            {"part_kind": "tool-return", "tool_name": "get_weather", "content": "-3 °C"}
            | {"tool_call_id": "c1"}
        ],
    },
    {"kind": "response", "parts": [{"part_kind": "text", "content": ANSWER["content"]}]},
]
AUTOGEN = [
    {"type": "TextMessage", "source": "user", "content": ASKED["content"]},
    {"type": "ToolCallRequestEvent", "source": "a", "content": [FUNCTION | {"id": "c1"}]},
    {
        "type": "ToolCallExecutionEvent",
        "source": "a",
        "content": [{"call_id": "c1", "name": "get_weather", "content": "-3 °C"}],
    },
    {"type": "TextMessage", "source": "a", "content": ANSWER["content"]},
]
SMOL_CALL = CALL | {"function": {"name": "get_weather", "arguments": ARGUMENTS}}
SMOL = [
    ASKED,
    {"role": "tool-call", "content": f"Calling tools:\n{[SMOL_CALL]}"},
    {"role": "tool-response", "content": "Observation:\n-3 °C"},
    ANSWER,
]
AG_UI_RESULT = {"role": "tool", "toolCallId": "c1", "content": "-3 °C"}
AG_UI = [ASKED, {"role": "assistant", "toolCalls": [CALL]}, AG_UI_RESULT, ANSWER]


@pytest.mark.parametrize(
    ("key", "messages"),
    [
        ("messages", PYDANTIC),
        ("message_list", PYDANTIC),
        ("messages", AUTOGEN),
        ("messages", SMOL),
        ("messages", AG_UI),
    ],
    ids=["pydantic-ai", "pydantic-ai chat", "autogen", "smolagents", "ag-ui"],
)
def test_a_history_may_be_json_text(key: str, messages: list):
    conversation = one({key: json.dumps(messages)})
    assert learned(conversation) == TURNS and results(conversation) == ["-3 °C"]


@pytest.mark.parametrize(
    "record",
    [
        {"type": "RoundRobinManagerState", "message_thread": AUTOGEN},
        {"type": "AssistantAgentState", "llm_context": {"messages": AUTOGEN}},
        {"type": "TeamState", "agent_states": {"M/1": {"message_thread": AUTOGEN}, "a/1": {}}},
    ],
    ids=["manager", "agent", "team"],
)
def test_saved_states_of_autogen_are_read(record: dict):
    assert learned(one(record)) == TURNS


def test_autogen_02_keeps_all_results_in_one_message():
    second = {"id": "c2", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    responses = [RESULT, RESULT | {"tool_call_id": "c2", "content": "noon"}]
    told = {"role": "tool", "content": "-3 °C\n\nnoon", "tool_responses": responses}
    called = CALLED | {"tool_calls": [CALL, second]}
    assert results(one({"messages": [ASKED, called, told, ANSWER]})) == ["-3 °C", "noon"]


def test_calls_of_a_rollout_may_be_text_of_a_list():
    called = CALLED | {"tool_calls": json.dumps([CALL])}
    rollout = {"prompt": [ASKED], "completion": [called, RESULT, ANSWER], "tool_defs": [TOOL]}
    assert learned(one(rollout)) == TURNS


@pytest.mark.parametrize(
    "calls",
    [[json.dumps(CALL)], json.dumps([CALL]), [CALL | {"function": json.dumps(FUNCTION)}]],
    ids=["each call", "the list", "the function"],
)
def test_calls_of_a_message_may_be_json_text(calls):
    history = [ASKED, CALLED | {"tool_calls": calls}, RESULT]
    assert learned(one({"messages": [*history, ANSWER], "tools": [TOOL]})) == TURNS
    response = {"choices": [{"message": ANSWER}]}
    assert learned(one({"request": {"messages": history}, "response": response})) == TURNS


def test_calls_that_are_text_of_nothing_are_none():
    for text in ("null", "[]"):
        assert learned(one({"messages": [ASKED, ANSWER | {"tool_calls": text}]})) == TURNS[1:]


DECLARED = TOOL["function"]
TOOL_TEXTS = {
    "a schema": TOOL | {"function": DECLARED | {"parameters": json.dumps(SCHEMA)}},
    "a schema of a flat tool": DECLARED | {"parameters": json.dumps(SCHEMA)},
    "a function": TOOL | {"function": json.dumps(DECLARED)},
    "a function that is null": {"type": "function", "function": None, **DECLARED},
}


@pytest.mark.parametrize("tool", TOOL_TEXTS.values(), ids=TOOL_TEXTS)
def test_parts_of_a_tool_may_be_json_text_or_null(tool):
    assert one({"messages": [ASKED, CALLED, RESULT, ANSWER], "tools": [tool]}).tools == [TOOL]


FURTHER = [TOOL, {"type": "function", "function": {"name": "get_tide", "parameters": SCHEMA}}]
SECOND_KEYS = ["functions", "toolDefs", "tool_defs", "tool_definitions", "toolDefinitions"]


@pytest.mark.parametrize("key", SECOND_KEYS)
def test_tools_that_are_declared_a_second_time_are_compared(key):
    record = {"messages": [ASKED, CALLED, RESULT, ANSWER], "tools": [TOOL]}
    assert learned(one(record | {key: [DECLARED]})) == TURNS
    for further in (FURTHER, json.dumps(FURTHER)):
        assert refused(record | {key: further}).code == "unread_field"
    request = {"request": record | {key: FURTHER}, "response": {"choices": [{"message": ANSWER}]}}
    assert refused(request).path == f"request.{key}"
    assert learned(find_adapter(ignore=[key])(record | {key: FURTHER})) == TURNS


def test_tools_beside_a_request_that_declares_others_are_compared():
    request = {"messages": [ASKED, CALLED, RESULT], "tools": [TOOL]}
    record = {"request": request, "response": {"choices": [{"message": ANSWER}]}}
    assert learned(one(record | {"tools": [TOOL]})) == TURNS
    assert refused(record | {"tools": FURTHER}).code == "unread_field"


def test_null_text_does_not_hide_tools_under_another_key():
    record = {"messages": [ASKED, CALLED, RESULT, ANSWER], "tools": "null", "toolDefs": [TOOL]}
    assert one(record).tools == [TOOL]


@pytest.mark.parametrize("text", ["null", "None", "[]"])
def test_text_of_no_tools_is_no_tools(text):
    assert one({"messages": [ASKED, ANSWER], "tools": text}).tools == []
    exchange = {"request": {"messages": [ASKED], "tools": text}, "response": {"choices": []}}
    exchange["response"]["choices"] = [{"message": ANSWER}]
    assert one(exchange).tools == []


ASKING = {"messages": [ASKED, CALLED, RESULT], "tools": [TOOL]}
ANSWERING = {"choices": [{"message": ANSWER}]}
EXCHANGE = json.dumps({"request": ASKING, "response": ANSWERING})
POSTED = {"method": "POST", "postData": {"mimeType": "application/json", "text": ""}}
POSTED["postData"]["text"] = json.dumps(ASKING)
ENTRY = {"request": POSTED, "response": {"status": 200, "content": {"text": json.dumps(ANSWERING)}}}
TAPPED = {
    "request": {"body": {"as_bytes": base64.b64encode(json.dumps(ASKING).encode()).decode()}},
    "response": {"body": {"as_string": json.dumps(ANSWERING)}},
}
CONTENT = {
    "request": {"method": "POST", "body": {"content": json.dumps(ASKING)}},
    "response": {"status_code": 200, "body": {"content": json.dumps(ANSWERING)}},
}
PROXIED = {"payload": {"request": json.dumps(ASKING), "response": json.dumps(ANSWERING)}}
LINES = {
    "CloudWatch": {"timestamp": 1740823200000, "message": EXCHANGE},
    "events of CloudWatch": {"events": [{"timestamp": 1, "message": EXCHANGE, "eventId": "1"}]},
    "a subscription": {"logGroup": "g", "logEvents": [{"id": "1", "message": EXCHANGE}]},
    "CloudWatch Insights": {"@timestamp": "2026-03-01 10:00:00.000", "@message": EXCHANGE},
    "Docker": {"log": EXCHANGE + "\n", "stream": "stdout", "time": "2026-03-01T10:00:00Z"},
    "Kubernetes": {"log": EXCHANGE, "kubernetes": {"pod_name": "p", "labels": {"app": "x"}}},
    "Splunk": {"_time": "2026-03-01T10:00:00Z", "_raw": EXCHANGE, "sourcetype": "_json"},
    "an export of Splunk": {"preview": False, "result": {"_raw": EXCHANGE}},
    "Google Cloud": {"textPayload": EXCHANGE, "insertId": "i", "logName": "l"},
    "Google Cloud, as an object": {"jsonPayload": {"message": EXCHANGE}, "insertId": "i"},
    "journald": {"MESSAGE": EXCHANGE, "__REALTIME_TIMESTAMP": "1740823200000000"},
    "Datadog": {"id": "d", "attributes": {"message": EXCHANGE}},
    "a HAR file": {"log": {"version": "1.2", "entries": [ENTRY]}},
    "Elastic": {"@timestamp": "2026-03-01T10:00:00Z", "http": CONTENT},
    "Kong": {"ai": {"proxy": PROXIED}, "request": {"uri": "/"}, "response": {"status": 200}},
    "Envoy": {"http_buffered_trace": TAPPED},
    "two levels": {"log": json.dumps({"time": 1, "message": EXCHANGE}), "stream": "stdout"},
}


def blocks(role: str, *parts: dict, **extra) -> dict:
    return {"role": role, "additional_kwargs": extra, "blocks": list(parts)}


def words(text: str) -> dict:
    return {"block_type": "text", "text": text}


def parts(role: str, *content: dict) -> dict:
    return {"role": role, "meta": {}, "name": None, "content": list(content)}


def items(role: str, *content: dict) -> dict:
    return {"role": role, "content_type": "message", "items": list(content), "metadata": {}}


def dotnet(role: str, *content: dict) -> dict:
    return {"Role": {"Label": role}, "Items": list(content), "ModelId": "m"}


MADE = {"tool_name": "get_weather", "arguments": ARGUMENTS, "id": "c1"}
NAMES = {"function_name": "get_weather", "plugin_name": None, "name": "get_weather"}
BLOCK = {"block_type": "tool_call", "tool_call_id": "c1", "tool_name": "get_weather"}
SAVED = {"id": "c1", "name": "get_weather", "args": json.dumps(ARGUMENTS), "output": "-3 °C"}
CHATTED = [{"type": "tool_call", "tool_call": SAVED}, {"type": "text", "text": ANSWER["content"]}]
ANTHROPIC = {"id": "c1", "name": "get_weather", "input": ARGUMENTS, "type": "tool_use"}
WRITTEN = {"id": "c1", "content_type": "function_call", "arguments": json.dumps(ARGUMENTS)}
RAN = {"call_id": "c1", "content_type": "function_result", "result": "-3 °C"}
NET_CALL = {"$type": "FunctionCallContent", "Id": "c1", "FunctionName": "get_weather"}
NET_RESULT = {"$type": "FunctionResultContent", "CallId": "c1", "FunctionName": "get_weather"}
HAYSTACK = [
    parts("user", {"text": ASKED["content"]}),
    parts("assistant", {"reasoning": {"reasoning_text": "Look it up."}}, {"tool_call": MADE}),
    parts("tool", {"tool_call_result": {"result": "-3 °C", "origin": MADE, "error": False}}),
    parts("assistant", {"text": ANSWER["content"]}),
]
FRAMEWORKS = {
    "LlamaIndex": [
        blocks("user", words(ASKED["content"])),
        blocks("assistant", BLOCK | {"tool_kwargs": ARGUMENTS}, tool_calls=[CALL]),
        blocks("tool", words("-3 °C"), tool_call_id="c1"),
        blocks("assistant", words(ANSWER["content"])),
    ],
    "LlamaIndex, with calls beside the blocks": [
        blocks("user", words(ASKED["content"])),
        blocks("assistant", tool_calls=[CALL]),
        blocks("tool", words("-3 °C"), tool_call_id="c1", name="get_weather"),
        blocks("assistant", words(ANSWER["content"])),
    ],
    "LlamaIndex, with Anthropic's calls": [
        blocks("user", words(ASKED["content"])),
        blocks("assistant", tool_calls=[ANTHROPIC]),
        blocks("tool", words("-3 °C"), tool_call_id="c1"),
        blocks("assistant", words(ANSWER["content"])),
    ],
    "Haystack": HAYSTACK,
    "an older Haystack": [{f"_{key}": m[key] for key in m} for m in HAYSTACK],
    "Semantic Kernel": [
        items("user", {"content_type": "text", "text": ASKED["content"]}),
        items("assistant", WRITTEN | NAMES),
        items("tool", RAN | NAMES),
        items("assistant", {"content_type": "text", "text": ANSWER["content"]}),
    ],
    "Semantic Kernel in .NET": [
        dotnet("user", {"$type": "TextContent", "Text": ASKED["content"]}),
        dotnet("assistant", NET_CALL | {"Arguments": ARGUMENTS}),
        dotnet("tool", NET_RESULT | {"Result": "-3 °C"}),
        dotnet("Assistant", {"$type": "TextContent", "Text": ANSWER["content"]}),
    ],
    "LibreChat": [ASKED, {"role": "assistant", "content": CHATTED}],
    "an export of LibreChat": [
        {"messageId": "1", "parentMessageId": "0", "isCreatedByUser": True, "text": "Weather?"},
        {"messageId": "2", "parentMessageId": "1", "isCreatedByUser": False, "content": CHATTED},
    ],
}


@pytest.mark.parametrize("messages", FRAMEWORKS.values(), ids=FRAMEWORKS)
def test_messages_of_frameworks_are_read(messages):
    conversation = one({"messages": messages, "tools": [TOOL]})
    assert learned(conversation) == TURNS and results(conversation) == ["-3 °C"]


def test_parts_of_frameworks_say_more():
    failed = {"tool_call_result": {"result": "no city", "origin": MADE, "error": True}}
    messages = [*HAYSTACK[:2], parts("tool", failed), HAYSTACK[3]]
    conversation = one({"messages": messages, "tools": [TOOL]})
    assert learned(conversation) == TURNS[1:]
    assert conversation.messages[1]["reasoning_content"] == "Look it up."
    picture = {"block_type": "image", "url": "a.png"}
    assert refused({"messages": [blocks("user", picture), ANSWER]}).code == "multimodal"


def test_calls_of_librechat_that_may_have_been_parallel_carry_no_loss():
    second = {"type": "tool_call", "tool_call": SAVED | {"id": "c2"}}
    messages = [ASKED, {"role": "assistant", "content": [CHATTED[0], second, CHATTED[1]]}]
    assert learned(one({"messages": messages, "tools": [TOOL]})) == TURNS[1:]


def test_branches_of_librechat_are_refused():
    twins = [
        {"messageId": "1", "isCreatedByUser": True, "text": "Weather?"},
        {"messageId": "2", "parentMessageId": "1", "isCreatedByUser": False, "text": "Cold."},
        {"messageId": "3", "parentMessageId": "1", "isCreatedByUser": False, "text": "-3 °C."},
    ]
    assert "a tree" in str(refused({"messages": twins}))


def test_a_history_of_dspy_is_read_with_its_tools():
    call = {"prompt": None, "messages": [ASKED, CALLED, RESULT], "kwargs": {"tools": [TOOL]}}
    whole = one(call | {"response": {"choices": [{"message": ANSWER}]}, "outputs": [None]})
    text = one(call | {"response": "ModelResponse(id=1)", "outputs": [ANSWER["content"]]})
    assert learned(whole) == learned(text) == TURNS and whole.tools == text.tools == [TOOL]
    asked = call | {"messages": [ASKED], "outputs": [{"text": None, "tool_calls": [CALL]}]}
    assert learned(one(asked | {"response": "…"})) == TURNS[:1]


PRODUCTS = {
    "Dify": {"query": "Weather?", "answer": "Cold.", "agent_thoughts": [{"tool": "get_weather"}]},
    "Flowise": {"chatflowid": "f", "chatId": "c", "role": "apiMessage", "content": "Cold."},
    "Langflow": {"flow_id": "f", "sender": "Machine", "sender_name": "AI", "text": "Cold."},
    "n8n": {"json": {"output": "Cold."}, "pairedItem": {"item": 0}},
    "CrewAI": {"tool_name": "get_weather", "tool_args": {}, "agent_key": "k", "output": "-3 °C"},
}


@pytest.mark.parametrize("product", PRODUCTS)
def test_exports_of_workflow_products_are_refused_by_name(product):
    assert product in str(refused(PRODUCTS[product]))


def test_a_thought_beside_a_call_or_an_answer_is_kept():
    thought = {"thought": "I look it up."}
    conversation = one({"messages": [ASKED, CALLED | thought, RESULT, ANSWER | thought]})
    assert learned(conversation) == TURNS
    assert conversation.messages[1]["reasoning_content"] == thought["thought"]


@pytest.mark.parametrize("line", LINES.values(), ids=LINES)
def test_a_line_of_a_log_system_holds_a_record(line):
    assert learned(one(line)) == TURNS and one(line).tools == [TOOL]


def test_what_stands_around_a_record_is_known():
    line = {"timestamp": 1740823200000, "message": EXCHANGE, "user_id": "u"}
    facts = one(line).meta
    assert facts["timestamp"] == 1740823200 and facts["user_id"] == "u"


def test_a_line_that_holds_no_record_is_named():
    assert "log is a line of a log" in str(refused({"log": "started", "stream": "stdout"}))
    [(path, inner)] = expand({"timestamp": 1, "message": json.dumps({"hello": 1})})
    assert path == "message" and inner["hello"] == 1
    assert refused({"timestamp": 1, "message": json.dumps({"hello": 1})}).code == "unknown_format"


def test_a_record_of_a_known_format_stays_closed():
    record = {"messages": [ASKED, ANSWER], "message": EXCHANGE, "event": "chat"}
    assert expand(record) == [("", record)]


def test_attributes_of_a_span_may_be_json_text():
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}],
        "gen_ai.output.messages": [
            {"role": "assistant", "parts": [{"type": "text", "content": "Hello."}]}
        ],
    }
    span = {"trace_id": "t", "span_id": "s", "name": "chat m", "attributes": json.dumps(attributes)}
    assert learned(one(span)) == ["Hello."]


# Open WebUI


def test_code_that_a_server_ran_carries_no_loss():
    ran = '<details type="code_interpreter" done="true">\nprint(1)\n</details>\n1'
    conversation = one({"messages": [ASKED, {"role": "assistant", "content": ran}]})
    assert learned(conversation) == []
    assert "<details" not in conversation.messages[1]["content"]


# Streams and envelopes


def chunk(**delta: object) -> dict:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta}]}


def test_streamed_parts_of_reasoning_go_on_with_their_text():
    part = {"type": "reasoning.text", "index": 0}
    chunks = [
        *(chunk(reasoning_details=[part | {"text": text}]) for text in ("It is ", "cold.")),
        chunk(content="Yes."),
    ]
    conversation = one({"request": {"messages": [ASKED]}, "response": chunks})
    assert conversation.messages[1]["reasoning_content"] == "It is cold."


def test_streamed_calls_may_share_an_id():
    def piece(index: int, city: str) -> dict:
        function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
        return chunk(tool_calls=[{"index": index, "id": "x", "function": function}])

    record = {"request": {"messages": [ASKED]}, "response": [piece(0, "Oslo"), piece(1, "Bergen")]}
    assert [call.arguments["city"] for call in one(record).calls()] == ["Oslo", "Bergen"]


def test_a_streamed_image_is_not_passed_over():
    chunks = [chunk(content="Here."), chunk(images=[{"type": "image_url"}])]
    assert refused({"request": {"messages": [ASKED]}, "response": chunks}).code == "multimodal"


def test_a_request_in_base64_is_found():
    body = base64.b64encode(json.dumps({"messages": [ASKED], "tools": [TOOL]}).encode()).decode()
    request = {"body": body, "isBase64Encoded": True}
    record = {"request": request, "response": {"choices": [{"message": CALLED}]}}
    assert learned(one(record)) == TURNS[:1]


# Blocks


USE = {"type": "tool_use", "id": "c1", "name": "get_weather", "input": "", "index": 1}


def test_pieces_of_arguments_join_their_call():
    pieces = [{"type": "input_json_delta", "index": 1, "input": '{"city": '}]
    pieces.append({"type": "input_json_delta", "index": 2, "input": '{"city": "Bergen"}'})
    pieces.append({"type": "input_json_delta", "index": 1, "input": '"Oslo"}'})
    other = USE | {"id": "c2", "index": 2}
    answer = {"role": "assistant", "content": [USE, other, *pieces]}
    [first, second] = one({"messages": [ASKED, answer]}).calls()
    assert (first.arguments, second.arguments) == (ARGUMENTS, {"city": "Bergen"})


def converse(*content: dict) -> Conversation:
    asked = {"role": "user", "content": [{"text": "Weather?", "toolUse": None}]}
    use = {"toolUseId": "c1", "name": "get_weather", "input": ARGUMENTS}
    result = {"toolUseId": "c1", "content": list(content), "status": None}
    answer = {"role": "assistant", "content": [{"text": ANSWER["content"], "toolUse": None}]}
    return one(
        {
            "messages": [
                asked,
                {"role": "assistant", "content": [{"text": None, "toolUse": use}]},
                {"role": "user", "content": [{"text": None, "toolResult": result}]},
                answer,
            ]
        }
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([{"text": "-3 °C"}, {"cachePoint": {"type": "default"}}], "-3 °C"),
        ([{"text": "-3 °C", "json": None}], "-3 °C"),
        ([{"text": None, "json": {"celsius": -3}}], '{"celsius": -3}'),
        ([{"text": "-3 °C"}, {"text": "snow"}], "-3 °C\nsnow"),
    ],
    ids=["mark", "null beside text", "null beside json", "two texts"],
)
def test_results_of_bedrock_hold_values_alone(content: list, expected: str):
    conversation = converse(*content)
    assert results(conversation) == [expected] and learned(conversation) == TURNS


# Call markup in words


ORDER = json.dumps(FUNCTION | {"arguments": ARGUMENTS})
LEAKED = {
    "end alone": f"{ORDER}\n</tool_call>",
    "mistral": f"get_weather[ARGS]{json.dumps(ARGUMENTS)}",
    "deepseek": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="get_weather">',
    "harmony": f"to=functions.get_weather json{json.dumps(ARGUMENTS)}",
    "object": ORDER,
    "list": f"[{ORDER}]",
    "fence": f"I look.\n```json\n{ORDER}\n```",
    "tools tag": f"<tools>\n{ORDER}\n</tools>",
    "llama 4": '[get_weather(city="Oslo")]',
    "gemma": '```tool_code\nget_weather(city="Oslo")\n```',
    "functions": "<start_function_call>call:get_weather{city:Oslo}<end_function_call>",
    "plural": f"<tool_calls>[{ORDER}]</tool_calls>",
    "capitals": f"<TOOLCALL>[{ORDER}]</TOOLCALL>",
    "step": '<steptml:invoke name="get_weather">',
    "olmo": '<function_calls>\nget_weather(city="Oslo")\n</function_calls>',
    "cohere": f"Action: ```json\n[{ORDER}]\n```",
    "qwen agent": "✿FUNCTION✿: get_weather\n✿ARGS✿: {}",
    "bracket": f"[Calling tool: get_weather({json.dumps(ARGUMENTS)})]",
    "liquid": '<|tool_call_start|>[get_weather(city="Oslo")]<|tool_call_end|>',
}


@pytest.mark.parametrize("text", LEAKED.values(), ids=LEAKED)
def test_leaked_markup_is_never_learned_as_words(text: str):
    message = {"role": "assistant", "content": text}
    for messages in ([ASKED, message], [ASKED, message | {"tool_calls": [CALL]}]):
        conversation = one({"messages": messages, "tools": [TOOL]})
        assert not learned(conversation)
        assert "markup_in_text" in conversation.meta["warnings"]


def test_a_bare_object_of_llama_is_a_call():
    text = json.dumps({"name": "get_weather", "parameters": ARGUMENTS})
    record = {"messages": [ASKED, {"role": "assistant", "content": text}], "tools": [TOOL]}
    assert learned(one(record)) == TURNS[:1]


@pytest.mark.parametrize(
    "text",
    ['{"name": "Oslo", "country": "Norway"}', "See [1] and a < b.", "Action: none", "[x(y)](z)"],
)
def test_ordinary_answers_are_no_markup(text: str):
    assert learned(one({"messages": [ASKED, {"role": "assistant", "content": text}]})) == [text]
