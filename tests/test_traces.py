"""Traps of traces and platforms, one test each, and records that are broken at random.

A broken record gives a conversation or a `ConversationError`, never anything else."""

import copy
import random
from contextlib import suppress

import pytest

from toolcall.conversation import Conversation
from toolcall.errors import ConversationError, MergedRecord
from toolcall.formats.langfuse import from_langfuse
from toolcall.formats.langsmith import from_langsmith
from toolcall.formats.mcp import mcp_tools
from toolcall.formats.mlflow import from_mlflow
from toolcall.formats.openinference import from_openinference
from toolcall.formats.otel import from_otel
from toolcall.formats.registry import FORMATS as ALL_FORMATS
from toolcall.text import dumps

NAMES = (
    "langfuse_trace langfuse langsmith_batch langsmith mcp otel_document openinference"
    " mlflow_trace mlflow otel"
)
FORMATS = [format for format in ALL_FORMATS if format.name in NAMES.split()]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
CALL = {
    "id": "c1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}


def read(record: dict) -> list[tuple[str, object]]:
    "Path, and conversation or error, of each part of a record"
    format = next((f for f in FORMATS if f.detect(record)), None)
    if format is None:
        return [("", ConversationError("no format", "unknown_format"))]
    try:
        if format.expand:
            return [
                (path, outcome) for path, part in format.expand(record) for _, outcome in read(part)
            ]
        return [("", format.convert(record))]
    except ConversationError as error:
        return [("", error)]


def one(record: dict) -> Conversation:
    [(_, outcome)] = read(record)
    if isinstance(outcome, ConversationError):
        raise outcome
    return outcome


def refused(record: dict) -> ConversationError:
    with pytest.raises(ConversationError) as caught:
        one(record)
    return caught.value


def otel(value: object) -> dict:
    if isinstance(value, dict):
        return {
            "kvlistValue": {
                "values": [{"key": key, "value": otel(part)} for key, part in value.items()]
            }
        }
    if isinstance(value, list):
        return {"arrayValue": {"values": [otel(part) for part in value]}}
    kinds = {bool: "boolValue", int: "intValue", float: "doubleValue", str: "stringValue"}
    return (
        {kinds[type(value)]: str(value) if type(value) is int else value}
        if value is not None
        else {}
    )


def span(id: str, trace: str = "t1", **attributes) -> dict:
    return {
        "traceId": trace,
        "spanId": id,
        "startTimeUnixNano": "1732000604000000000",
        "attributes": [
            {"key": k.replace("__", "."), "value": otel(v)} for k, v in attributes.items()
        ],
    }


def spans(*found: dict) -> dict:
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": []},
                "scopeSpans": [{"scope": {"name": "s"}, "spans": list(found)}],
            }
        ]
    }


def parts(role: str, *items: dict) -> dict:
    return {"role": role, "parts": list(items)}


ASKED = parts("user", {"type": "text", "content": "Weather in Paris?"})
CALLED = parts(
    "assistant",
    {
        "type": "tool_call",
        "id": "c1",
        "name": "get_weather",
        "arguments": {"city": "Paris", "days": 2, "exact": 1.0, "note": None},
    },
)
GIVEN = parts("tool", {"type": "tool_call_response", "id": " c1 ", "response": {"t": 12.0}})
SAID = parts(
    "assistant", {"type": "reasoning", "content": "Hm."}, {"type": "text", "content": "12 °C"}
) | {"finish_reason": "stop"}
CHAT = {
    "gen_ai__operation__name": "chat",
    "gen_ai__input__messages": [ASKED, CALLED, GIVEN],
    "gen_ai__output__messages": [SAID],
    "gen_ai__system_instructions": [{"type": "text", "content": "Be brief."}],
    "gen_ai__tool__definitions": [
        {"type": "function", "name": "get_weather", "parameters": SCHEMA}
    ],
}
RUN = span(
    "b",
    gen_ai__operation__name="execute_tool",
    gen_ai__tool__call__id="c1",
    gen_ai__tool__call__result="12",
    error__type="timeout",
)


# OpenTelemetry


def test_structured_attributes_and_json_text_give_the_same():
    text = {key: dumps(value) if isinstance(value, list) else value for key, value in CHAT.items()}
    structured, written = one(spans(span("a", **CHAT))), one(spans(span("a", **text)))
    assert structured == written
    assert (
        repr(structured.messages[2]["tool_calls"][0]["function"]["arguments"])
        == "{'city': 'Paris', 'days': 2, 'exact': 1.0, 'note': None}"
    )
    assert [m["role"] for m in structured.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert structured.messages[-1]["reasoning_content"] == "Hm."


def test_result_is_read_as_response_and_as_result_and_ids_are_stripped():
    other = parts("tool", {"type": "tool_call_response", "id": "c1", "result": {"t": 12.0}})
    assert (
        one(spans(span("a", **CHAT))).messages
        == one(
            spans(span("a", **CHAT | {"gen_ai__input__messages": [ASKED, CALLED, other]}))
        ).messages
    )


def test_arguments_of_a_part_may_be_text():
    called = parts(
        "assistant",
        {"type": "tool_call", "id": "c1", "name": "get_weather", "arguments": '{"city": "Paris"}'},
    )
    assert one(spans(span("a", **CHAT | {"gen_ai__output__messages": [called]}))).calls()[
        -1
    ].arguments == {"city": "Paris"}


def test_trace_is_not_the_conversation_and_ids_are_not_decoded():
    meta = one(spans(span("a", "5b8efff798038103d269b633813fc60c", **CHAT))).meta
    assert meta["trace_id"] == "5b8efff798038103d269b633813fc60c" and "conversation_id" not in meta
    assert (
        one(spans(span("a", **CHAT, gen_ai__conversation__id="conv"))).meta["conversation_id"]
        == "conv"
    )


def test_tool_span_says_whether_its_tool_failed():
    (_, first), (_, second) = read(spans(span("a", **CHAT), RUN))
    assert first.messages[3]["is_error"] is True and first.messages[3]["content"] == '{"t": 12.0}'
    assert isinstance(second, MergedRecord) and second.code == "other_span"


def test_tool_span_gives_the_result_that_the_history_lacks():
    chat = CHAT | {"gen_ai__input__messages": [ASKED, CALLED]}
    first = read(spans(span("a", **chat), RUN))[0][1]
    assert [(m["role"], m["content"]) for m in first.messages[3:]] == [
        ("tool", "12"),
        ("assistant", "12 °C"),
    ]
    assert "result_from_span" in first.meta["warnings"] and first.meta["response_at"] == 4


def test_tool_span_of_another_trace_with_the_same_id_is_not_mistaken():
    fine = span("c", "t2", gen_ai__operation__name="execute_tool", gen_ai__tool__call__id="c1")
    outcomes = [
        outcome for _, outcome in read(spans(span("a", **CHAT), RUN, fine, span("d", "t2", **CHAT)))
    ]
    assert [outcomes[0].messages[3]["is_error"], outcomes[3].messages[3]["is_error"]] == [
        True,
        False,
    ]


def test_call_of_the_new_turn_gets_no_result():
    chat = CHAT | {"gen_ai__input__messages": [ASKED], "gen_ai__output__messages": [CALLED]}
    assert [m["role"] for m in read(spans(span("a", **chat), RUN))[0][1].messages] == [
        "system",
        "user",
        "assistant",
    ]


def test_agent_span_is_no_conversation_even_with_messages():
    assert (
        refused(spans(span("a", **CHAT | {"gen_ai__operation__name": "invoke_agent"}))).code
        == "other_span"
    )


def test_no_content_names_the_switch():
    error = refused(spans(span("a", gen_ai__operation__name="chat")))
    assert (
        error.code == "no_content"
        and "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT" in str(error)
    )


def test_cut_attribute_is_truncated_at_any_place():
    text = dumps([ASKED, CALLED])
    for size in range(2, len(text), 7):
        error = refused(spans(span("a", **CHAT | {"gen_ai__input__messages": text[:size]})))
        assert error.code == "truncated" and "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT" in str(error)


def test_dropped_attributes_are_refused():
    assert refused(spans(span("a", **CHAT) | {"droppedAttributesCount": 2})).code == "truncated"


def test_failed_call_is_no_turn():
    assert (
        refused(spans(span("a", **CHAT) | {"status": {"code": 2, "message": "429"}})).code
        == "failed_call"
    )


def test_images_are_refused():
    seen = parts("user", {"type": "uri", "modality": "image", "uri": "https://example.com/a.png"})
    assert (
        refused(spans(span("a", **CHAT | {"gen_ai__input__messages": [seen]}))).code == "multimodal"
    )


def test_redaction_mark_is_refused():
    hidden = parts("user", {"type": "text", "content": "<REDACTED>"})
    assert (
        refused(spans(span("a", **CHAT | {"gen_ai__input__messages": [hidden]}))).code
        == "redacted_content"
    )


def test_more_choices_keep_the_first():
    chat = one(spans(span("a", **CHAT | {"gen_ai__output__messages": [SAID, CALLED]})))
    assert chat.messages[-1]["content"] == "12 °C" and "extra_choices" in chat.meta["warnings"]


def log(name: str, body: dict, id: str = "a") -> dict:
    return {
        "traceId": "t1",
        "spanId": id,
        "timeUnixNano": "1732000604000000000",
        "eventName": name,
        "body": otel(body),
        "attributes": [],
    }


LOGS = {
    "resourceLogs": [
        {
            "scopeLogs": [
                {
                    "logRecords": [
                        log("gen_ai.user.message", {"content": "Weather in Paris?"}),
                        log("gen_ai.user.message", {"content": "Hi"}, "b"),
                        log("gen_ai.assistant.message", {"tool_calls": [CALL]}),
                        log("gen_ai.tool.message", {"id": "c1", "content": "12 °C"}),
                        log(
                            "gen_ai.choice",
                            {
                                "index": 0,
                                "finish_reason": "stop",
                                "message": {"role": "assistant", "content": "12 °C"},
                            },
                        ),
                        log(
                            "gen_ai.choice",
                            {"index": 0, "finish_reason": "stop", "message": {"content": "Hello"}},
                            "b",
                        ),
                    ]
                }
            ]
        }
    ]
}


def test_log_events_of_one_span_are_joined_and_each_record_is_accounted_for():
    outcomes = [outcome for _, outcome in read(LOGS)]
    assert [isinstance(outcome, MergedRecord) for outcome in outcomes] == [
        True,
        True,
        True,
        True,
        False,
        False,
    ]
    assert [m["role"] for m in outcomes[4].messages] == ["user", "assistant", "tool", "assistant"]
    assert [m["content"] for m in outcomes[5].messages] == ["Hi", "Hello"]


def test_one_event_alone_is_refused_not_merged():
    error = refused(log("gen_ai.user.message", {"content": "Hi"}))
    assert error.code == "missing_history" and not isinstance(error, MergedRecord)


def test_events_without_content_do_not_become_calls_without_arguments():
    bare = {"id": "c1", "type": "function", "function": {"name": "get_weather"}}
    events = [
        {
            "name": "gen_ai.user.message",
            "attributes": [{"key": "gen_ai.system", "value": otel("openai")}],
        },
        {"name": "gen_ai.choice", "attributes": {"message": {"tool_calls": [bare]}}},
    ]
    assert (
        refused(span("a", gen_ai__operation__name="chat") | {"events": events}).code == "no_content"
    )


def test_events_of_a_span_are_read_in_order():
    events = [
        {
            "name": "gen_ai.user.message",
            "attributes": {"gen_ai.event.content": dumps({"role": "user", "content": "Paris?"})},
        },
        {
            "name": "gen_ai.choice",
            "attributes": {
                "gen_ai.event.content": dumps({"index": 0, "message": {"tool_calls": [CALL]}})
            },
        },
    ]
    assert (
        str(one(span("a", gen_ai__operation__name="chat") | {"events": events}).calls()[0])
        == 'get_weather(city="Paris")'
    )


FLAT = {
    "gen_ai.prompt.0.role": "user",
    "gen_ai.prompt.0.content": "Paris?",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.finish_reason": "tool_calls",
    "gen_ai.completion.0.tool_calls.0.id": "c1",
    "gen_ai.completion.0.tool_calls.0.name": "get_weather",
    "gen_ai.completion.0.tool_calls.0.arguments": '{"city": "Paris"}',
    "llm.request.functions.0.name": "get_weather",
    "llm.request.functions.0.parameters": dumps(SCHEMA),
    "traceloop.association.properties.session_id": "s1",
}


def test_openllmetry_flat_keys():
    chat = one({"name": "openai.chat", "attributes": FLAT})
    assert (
        str(chat.calls()[0]) == 'get_weather(city="Paris")'
        and chat.tools == [TOOL]
        and chat.meta["finish_reason"] == "tool_calls"
    )


def test_more_than_ten_flat_messages_stay_in_order():
    many = {
        f"gen_ai.prompt.{i}.{key}": value
        for i in reversed(range(12))
        for key, value in (("role", "user"), ("content", str(i)))
    }
    assert [m["content"] for m in one({"attributes": FLAT | many}).messages[:-1]] == [
        str(i) for i in range(12)
    ]


def test_gap_in_flat_messages_is_truncated():
    assert refused({"attributes": FLAT | {"gen_ai.prompt.2.role": "user"}}).code == "truncated"


# OpenInference

OI = {
    "openinference.span.kind": "LLM",
    "session.id": "s1",
    "user.id": "u1",
    "llm.tools.0.tool.json_schema": dumps(TOOL),
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": "Paris?",
    "llm.output_messages.0.message.role": "assistant",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "get_weather",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"city": "Paris"}',
}
NESTED = {
    "openinference": {"span": {"kind": "LLM"}},
    "session": {"id": "s1"},
    "user": {"id": "u1"},
    "llm": {
        "tools": [{"tool": {"json_schema": TOOL}}],
        "input_messages": [{"message": {"role": "user", "content": "Paris?"}}],
        "output_messages": [
            {
                "message.role": "assistant",
                "message.tool_calls": [
                    {
                        "tool_call.function.name": "get_weather",
                        "tool_call.function.arguments": {"city": "Paris"},
                    }
                ],
            }
        ],
    },
}


def test_openinference_flat_nested_and_prefixed_are_the_same():
    flat = one({"attributes": OI})
    assert (
        flat.tools == [TOOL]
        and flat.meta["conversation_id"] == "s1"
        and flat.meta["user_id"] == "u1"
        and flat.meta["warnings"] == ["synthetic_id"]
    )
    assert (
        flat
        == one({"attributes": NESTED})
        == one({f"attributes.{key}": value for key, value in OI.items()})
        == one(spans({"attributes": [{"key": k, "value": otel(v)} for k, v in OI.items()]}))
    )


def test_openinference_hidden_content_names_the_switch():
    assert "OPENINFERENCE_HIDE_OUTPUTS" in str(
        refused({"attributes": {key: value for key, value in OI.items() if "output" not in key}})
    )
    error = refused({"attributes": OI | {"llm.input_messages.0.message.content": "__REDACTED__"}})
    assert error.code == "redacted_content" and "OPENINFERENCE_HIDE_INPUTS" in str(error)


def test_openinference_legacy_function_call():
    old = {key: value for key, value in OI.items() if "tool_calls" not in key} | {
        "llm.output_messages.0.message.function_call_name": "get_weather",
        "llm.output_messages.0.message.function_call_arguments_json": '{"city": "Paris"}',
    }
    assert str(one({"attributes": old}).calls()[0]) == 'get_weather(city="Paris")'


def test_openinference_answer_in_pieces_is_one_turn():
    two = OI | {
        key.replace("output_messages.0", "output_messages.1"): value
        for key, value in OI.items()
        if "output" in key
    }
    chat = one({"attributes": two})
    assert (
        len(chat.messages) == 2
        and len(chat.calls()) == 2
        and "joined_answer" in chat.meta["warnings"]
    )
    assert len(one({"attributes": two | {"llm.invocation_parameters": '{"n": 2}'}}).calls()) == 1


# MLflow

ML = {
    "mlflow.spanType": '"CHAT_MODEL"',
    "mlflow.spanInputs": dumps({"messages": [{"role": "user", "content": "Paris?"}]}),
    "mlflow.chat.tools": dumps([TOOL]),
    "mlflow.spanOutputs": dumps(
        {"choices": [{"message": {"role": "assistant", "tool_calls": [CALL]}}]}
    ),
}
TRACE = {
    "info": {"trace_id": "tr-1", "request_metadata": {"mlflow.trace.user": "u1"}},
    "data": {
        "spans": [
            {"span_id": "AAE=", "status": {"code": "OK"}, "attributes": ML},
            {
                "span_id": "AAI=",
                "status": {"code": "OK"},
                "attributes": {"mlflow.spanType": '"TOOL"'},
            },
        ]
    },
}


def test_mlflow_attributes_are_json_text_each():
    (_, chat), (_, tool) = read(TRACE)
    assert (
        chat.tools == [TOOL]
        and str(chat.calls()[0]) == 'get_weather(city="Paris")'
        and chat.meta["user_id"] == "u1"
        and isinstance(tool, MergedRecord)
    )


def test_mlflow_repr_is_not_taken_for_the_users_words():
    assert (
        refused(
            {
                "attributes": ML
                | {"mlflow.spanInputs": dumps("ChatPromptValue(messages=[HumanMessage('Hi')])")}
            }
        ).code
        == "bad_type"
    )


def test_mlflow_error_is_a_failed_call():
    assert (
        refused({"attributes": ML, "status": {"code": "ERROR", "message": "429"}}).code
        == "failed_call"
    )


def test_mlflow_holds_langchain_messages():
    asked = [[{"type": "human", "content": "Paris?"}]]
    made = {
        "generations": [
            [
                {
                    "message": {
                        "type": "ai",
                        "content": "",
                        "tool_calls": [
                            {"name": "get_weather", "args": {"city": "Paris"}, "id": "c1"}
                        ],
                    }
                }
            ]
        ]
    }
    assert (
        str(
            one(
                {
                    "attributes": ML
                    | {"mlflow.spanInputs": dumps(asked), "mlflow.spanOutputs": dumps(made)}
                }
            ).calls()[0]
        )
        == 'get_weather(city="Paris")'
    )


# Langfuse

OBSERVATION = {
    "id": "o1",
    "traceId": "tr",
    "type": "GENERATION",
    "startTime": "2024-11-19T07:16:44Z",
    "sessionId": "s1",
    "level": "DEFAULT",
    "input": [{"role": "user", "content": "Paris?"}],
    "output": {"role": "assistant", "content": None, "tool_calls": [CALL]},
}


@pytest.mark.parametrize(
    "change",
    [dumps, lambda value: dumps(dumps(value)), lambda value: [value]],
    ids=["text", "text in text", "nested list"],
)
def test_langfuse_input_in_any_wrapping(change):
    assert (
        one(OBSERVATION | {"input": change(OBSERVATION["input"])}).messages
        == one(OBSERVATION).messages
    )


def test_langfuse_snake_case_and_other_types():
    export = {
        "id": "o1",
        "trace_id": "tr",
        "type": "GENERATION",
        "session_id": "s1",
        "start_time": "2024-11-19 07:16:44",
        "input": dumps(OBSERVATION["input"]),
        "output": dumps(OBSERVATION["output"]),
    }
    assert one(export).meta == one(OBSERVATION).meta
    assert refused(OBSERVATION | {"type": "TOOL"}).code == "other_span"


def test_langfuse_error_is_a_failed_call():
    error = refused(OBSERVATION | {"level": "ERROR", "statusMessage": "429"})
    assert error.code == "failed_call" and "429" in str(error)


def test_langfuse_without_input_is_no_content():
    assert refused(OBSERVATION | {"input": None}).code == "no_content"


# LangSmith


def dumped(kind: str, **kwargs) -> dict:
    return {
        "lc": 1,
        "type": "constructor",
        "id": ["langchain", "schema", "messages", kind],
        "kwargs": kwargs,
    }


AI = dumped(
    "AIMessage",
    content="",
    tool_calls=[
        {"name": "get_weather", "args": {"city": "Paris"}, "id": "c1", "type": "tool_call"}
    ],
    invalid_tool_calls=[],
)
LS = {
    "id": "r1",
    "run_type": "llm",
    "session_id": "project",
    "trace_id": "tr",
    "start_time": "2024-11-19T07:16:44",
    "extra": {"metadata": {"thread_id": "t1"}, "invocation_params": {"tools": [TOOL]}},
    "inputs": {
        "messages": [
            [
                dumped("HumanMessage", content="Paris?"),
                AI,
                dumped("ToolMessage", content="none", tool_call_id="c1", status="error"),
            ]
        ]
    },
    "outputs": {"generations": [[{"message": dumped("AIMessage", content="No such city.")}]]},
}


def test_langsmith_args_is_an_object_and_a_tools_status_is_kept():
    run = one(LS)
    assert (
        run.tools == [TOOL]
        and run.calls()[0].arguments == {"city": "Paris"}
        and run.messages[2]["is_error"] is True
    )


def test_langsmith_project_is_not_the_conversation():
    assert one(LS).meta["conversation_id"] == "t1"
    assert "conversation_id" not in one(LS | {"extra": {}}).meta


def test_langsmith_invalid_calls_are_not_learned():
    bad = [
        {"name": "get_weather", "args": '{"city": "Par', "id": "c2", "type": "invalid_tool_call"}
    ]
    run = one(
        LS
        | {
            "outputs": {
                "generations": [
                    [{"message": dumped("AIMessage", content="Well.", invalid_tool_calls=bad)}]
                ]
            }
        }
    )
    assert run.turns == [1] and "invalid_tool_call" in run.meta["warnings"]
    assert (
        refused(
            LS
            | {
                "outputs": {
                    "generations": [
                        [{"message": dumped("AIMessage", content="", invalid_tool_calls=bad)}]
                    ]
                }
            }
        ).code
        == "args_not_json"
    )


def test_langchain_blocks_do_not_repeat_the_calls():
    blocks = [
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Paris"}},
    ]
    run = one(
        LS
        | {
            "outputs": {
                "generations": [
                    [
                        {
                            "message": dumped(
                                "AIMessage", content=blocks, tool_calls=AI["kwargs"]["tool_calls"]
                            )
                        }
                    ]
                ]
            }
        }
    )
    assert run.messages[-1]["content"] == "Let me look." and len(run.calls(3)) == 1


def test_langsmith_wrap_openai():
    wrapped = LS | {
        "inputs": {"messages": [{"role": "user", "content": "Paris?"}], "tools": [TOOL]},
        "outputs": {"choices": [{"message": {"role": "assistant", "tool_calls": [CALL]}}]},
    }
    assert str(one(wrapped).calls()[0]) == 'get_weather(city="Paris")'


def test_langsmith_error_and_other_runs():
    assert refused(LS | {"error": "RateLimitError"}).code == "failed_call"
    assert refused(LS | {"run_type": "tool"}).code == "other_span"


def test_langsmith_batch_puts_both_halves_together():
    start, end = (
        {k: v for k, v in LS.items() if k != "outputs"},
        {"id": "r1", "outputs": LS["outputs"], "extra": None},
    )
    assert one({"post": [start], "patch": [end]}) == one(LS)
    assert [
        getattr(outcome, "code", "")
        for _, outcome in read({"post": [start], "patch": [end, end | {"id": "r2"}]})
    ] == ["", "missing_field"]


def test_langsmith_children_are_not_lost():
    assert [
        getattr(outcome, "code", "")
        for _, outcome in read({"id": "c", "run_type": "chain", "child_runs": [LS]})
    ] == ["other_span", ""]


# MCP


@pytest.mark.parametrize(
    "record",
    [
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call"},
        {"jsonrpc": "2.0", "method": "notifications/x"},
        {"jsonrpc": "2.0", "id": 1, "error": {}},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
    ],
)
def test_mcp_is_a_source_of_tools(record):
    assert refused(record).code == "tool_source"


def test_mcp_later_definitions_win_over_pages():
    def page(*tools: dict) -> dict:
        return {"jsonrpc": "2.0", "id": 1, "result": {"tools": list(tools)}}

    tools = mcp_tools(
        [
            page({"name": "a", "inputSchema": {}}),
            page({"name": "b", "inputSchema": SCHEMA}, {"name": "a", "inputSchema": SCHEMA}),
        ]
    )
    assert [tool["function"] for tool in tools] == [
        {"name": "a", "parameters": SCHEMA},
        {"name": "b", "parameters": SCHEMA},
    ]


# The record is read, not changed

ADAPTERS = {
    "otel": (from_otel, {"attributes": FLAT}),
    "openinference": (from_openinference, {"attributes": NESTED}),
    "mlflow": (from_mlflow, TRACE["data"]["spans"][0]),
    "langfuse": (from_langfuse, OBSERVATION),
    "langsmith": (from_langsmith, LS),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_leave_the_record_as_it_was(name):
    adapter, record = ADAPTERS[name]
    before = copy.deepcopy(record)
    assert adapter(record).meta["format"] == name
    assert record == before


# Anything at all

ODD = [
    None,
    True,
    0,
    -1.5,
    10**400,
    "",
    " ",
    "x",
    "{",
    "[]",
    '"',
    "[" * 3000,
    '{"a":' * 500,
    [],
    {},
    [[]],
    [{}],
    {"x": 1},
    [None],
    "\u0000",
    "LLM",
    {"role": []},
    "²",
]
GOLDEN = {
    "otel": spans(span("a", **CHAT), RUN),
    "otel_text": spans(
        span("a", **{k: dumps(v) if isinstance(v, list) else v for k, v in CHAT.items()})
    ),
    "logs": LOGS,
    "flat": {"attributes": FLAT},
    "openinference": {"attributes": OI},
    "nested": {"attributes": NESTED},
    "mlflow": TRACE,
    "langfuse": OBSERVATION,
    "langfuse_trace": {
        "id": "t",
        "observations": [OBSERVATION],
        "scores": [{"name": "s", "value": 1}],
    },
    "langsmith": LS,
    "batch": {
        "post": [{k: v for k, v in LS.items() if k != "outputs"}],
        "patch": [{"id": "r1", "outputs": LS["outputs"]}],
    },
    "mcp": {"jsonrpc": "2.0", "id": 1, "result": {"tools": [{"name": "f", "inputSchema": SCHEMA}]}},
}


def places(value: object, path: tuple = ()) -> list[tuple]:
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path] * bool(path) + [
        place for key, part in inner for place in places(part, (*path, key))
    ]


def mutated(record: dict, chance: random.Random) -> dict:
    record = copy.deepcopy(record)
    for _ in range(chance.choice([1, 1, 2, 3])):
        *way, last = chance.choice(places(record) or [("x",)])
        at = record
        for key in way:
            at = at[key]
        if chance.random() < 0.2 and isinstance(at, dict):
            at.pop(last, None)
        else:
            at[last] = chance.choice(
                [
                    copy.deepcopy(chance.choice(ODD)),
                    str(at.get(last) if isinstance(at, dict) else at[last]),
                    [copy.deepcopy(at)],
                ]
            )
    return record


@pytest.mark.parametrize("name", GOLDEN)
def test_broken_records_give_conversations_or_conversation_errors(name):
    chance = random.Random(name)
    for _ in range(400):
        record = mutated(GOLDEN[name], chance)
        for _, outcome in read(record):
            assert isinstance(outcome, (Conversation, ConversationError))
        for format in FORMATS:  # a forced format meets any record
            for step in filter(None, (format.expand, format.convert)):
                with suppress(ConversationError):
                    step(record)
        with suppress(ConversationError):
            mcp_tools([record])


@pytest.mark.parametrize("name", GOLDEN)
def test_deep_values_are_refused(name):
    deep: object = 1
    for _ in range(450):
        deep = {"content": [deep]}
    for way in places(GOLDEN[name]):
        record = copy.deepcopy(GOLDEN[name])
        *folders, last = way
        at = record
        for key in folders:
            at = at[key]
        at[last] = deep
        for _, outcome in read(record):
            assert isinstance(outcome, (Conversation, ConversationError))
