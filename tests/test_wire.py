"What providers, gateways and tracing products write: streams, envelopes, blocks, odd cases"

import base64
import json

import pytest
from one_record import learned, one, refused

from toolcall.conversation import Conversation
from toolcall.curate import curate
from toolcall.errors import ConversationError, LogError, MergedRecord
from toolcall.formats import expand, find_format
from toolcall.logs import read_logs

SCHEMA = {"type": "object", "properties": {"harbour": {"type": "string"}}, "required": ["harbour"]}
TOOL = {"type": "function", "function": {"name": "get_tide", "parameters": SCHEMA}}
ASKED = {"role": "user", "content": "Tide at Brest?"}
ARGUMENTS = '{"harbour": "Brest"}'
FUNCTION = {"name": "get_tide", "arguments": ARGUMENTS}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "function": FUNCTION}]}
CHAT = {"model": "m", "messages": [ASKED], "tools": [TOOL]}
USE = {"type": "tool_use", "id": "toolu_1", "name": "get_tide", "input": {"harbour": "Brest"}}
CLAUDE = CHAT | {"tools": [{"name": "get_tide", "input_schema": SCHEMA}]}
CONTENTS = {
    "contents": [{"role": "user", "parts": [{"text": ASKED["content"]}]}],
    "tools": [{"functionDeclarations": [{"name": "get_tide", "parametersJsonSchema": SCHEMA}]}],
}
CONVERSE = {
    "messages": [{"role": "user", "content": [{"text": ASKED["content"]}]}],
    "toolConfig": {
        "tools": [{"toolSpec": {"name": "get_tide", "inputSchema": {"json": SCHEMA}}}],
    },
}
INPUT = {"model": "m", "input": [ASKED], "tools": [{"type": "function", "name": "get_tide"}]}
ITEM = {"type": "function_call", "call_id": "c1", "status": "completed"} | FUNCTION


def exchange(request: object, response: object) -> Conversation:
    return one({"request": request, "response": response})


def warned(conversation: Conversation) -> list[str]:
    return conversation.meta.get("warnings", [])


# Streams


def delta(**fields: object) -> dict:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": fields}]}


def piece(**function: str) -> dict:
    return {"index": 0, "function": function}


def block_event(kind: str, **fields: object) -> dict:
    return {"type": f"content_block_{kind}", "index": 0} | fields


def halves(text: str) -> tuple[str, str]:
    return text[:9], text[9:]


FIRST, SECOND = halves(ARGUMENTS)
STREAMS = {
    "chat completions": (
        CHAT,
        [
            delta(role="assistant", content=None),
            delta(tool_calls=[{"id": "c1", "type": "function"} | piece(name="get_tide")]),
            delta(tool_calls=[piece(arguments=FIRST)]),
            delta(tool_calls=[piece(arguments=SECOND)]),
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
            {"choices": [], "usage": {"total_tokens": 9}},
        ],
    ),
    "anthropic": (
        CLAUDE,
        [
            {"type": "message_start", "message": {"role": "assistant", "content": []}},
            {"type": "ping"},
            block_event("start", content_block=USE | {"input": {}}),
            block_event("delta", delta={"type": "input_json_delta", "partial_json": ""}),
            block_event("delta", delta={"type": "input_json_delta", "partial_json": FIRST}),
            block_event("delta", delta={"type": "input_json_delta", "partial_json": SECOND}),
            block_event("stop"),
            {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {}},
            {"type": "message_stop"},
        ],
    ),
    "responses": (
        INPUT,
        [
            {"type": "response.created", "response": {"status": "in_progress", "output": []}},
            {"type": "response.output_item.added", "output_index": 0, "item": ITEM},
            {"type": "response.function_call_arguments.delta", "delta": FIRST},
            {"type": "response.function_call_arguments.done", "arguments": ARGUMENTS},
            {"type": "response.output_item.done", "output_index": 0, "item": ITEM},
            {
                "type": "response.completed",
                "response": {"object": "response", "status": "completed", "output": [ITEM]},
            },
        ],
    ),
    "bedrock": (
        CONVERSE,
        [
            {"messageStart": {"role": "assistant"}},
            {
                "contentBlockStart": {
                    "start": {"toolUse": {"toolUseId": "t1", "name": "get_tide"}},
                    "contentBlockIndex": 0,
                }
            },
            *(
                {
                    "contentBlockDelta": {
                        "delta": {"toolUse": {"input": half}},
                        "contentBlockIndex": 0,
                    }
                }
                for half in (FIRST, SECOND)
            ),
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "tool_use"}},
            {"metadata": {"usage": {"inputTokens": 9}}},
        ],
    ),
    "gemini": (
        CONTENTS,
        [
            {"candidates": [{"content": {"role": "model", "parts": [{"text": ""}]}}]},
            {
                "candidates": [
                    {
                        "content": {
                            "parts": [
                                {
                                    "functionCall": {
                                        "name": "get_tide",
                                        "args": {"harbour": "Brest"},
                                    },
                                    "thoughtSignature": "x",
                                }
                            ]
                        }
                    }
                ]
            },
            {"candidates": [{"content": {"role": "model"}, "finishReason": "STOP"}]},
        ],
    ),
    "ollama": (
        CHAT,
        [
            {"message": {"role": "assistant", "content": ""}, "done": False},
            {
                "message": {
                    "content": "",
                    "tool_calls": [
                        {"function": {"name": "get_tide", "arguments": {"harbour": "Brest"}}}
                    ],
                },
                "done": False,
            },
            {"message": {"content": ""}, "done": True, "done_reason": "stop"},
        ],
    ),
    "cohere": (
        CHAT,
        [
            {"type": "message-start", "delta": {"message": {"role": "assistant"}}},
            {"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I look."}}},
            {
                "type": "tool-call-start",
                "index": 0,
                "delta": {
                    "message": {
                        "tool_calls": {
                            "id": "c1",
                            "function": {"name": "get_tide", "arguments": ""},
                        }
                    }
                },
            },
            *(
                {
                    "type": "tool-call-delta",
                    "index": 0,
                    "delta": {"message": {"tool_calls": {"function": {"arguments": half}}}},
                }
                for half in (FIRST, SECOND)
            ),
            {"type": "tool-call-end", "index": 0},
            {"type": "message-end", "delta": {"finish_reason": "TOOL_CALL"}},
        ],
    ),
}


def sse(events: list[dict], end: str = "\n", named: bool = False, comment: str = "") -> str:
    names = [f"event: {event.get('type', 'message')}{end}" if named else "" for event in events]
    blocks = [
        f"{comment}{name}data: {json.dumps(event)}{end}{end}" for name, event in zip(names, events)
    ]
    return "".join(blocks) + f"data: [DONE]{end}{end}"


SPELLINGS = {
    "a list of events": lambda events: events,
    "a list of texts": lambda events: [json.dumps(event) for event in events],
    "a list as JSON text": json.dumps,
    "lines of JSON": lambda events: "\n".join(map(json.dumps, events)),
    "an event stream": sse,
    "an event stream with names": lambda events: sse(events, named=True),
    "an event stream with CRLF": lambda events: sse(events, end="\r\n", named=True),
    "an event stream with comments": lambda events: sse(events, comment=": keep-alive\n\n"),
    "an event stream that begins with a space": lambda events: "\n\n" + sse(events),
    "an event stream without empty lines": lambda events: sse(events).replace("\n\n", "\n"),
    "a list of blocks": lambda events: [f"data: {json.dumps(event)}\n\n" for event in events],
    "names and data": lambda events: [
        {"event": event.get("type", "message"), "data": event} for event in events
    ],
    "names and texts": lambda events: [
        {"event": event.get("type", "message"), "data": json.dumps(event)} for event in events
    ],
    "chunks in base64": lambda events: [
        {"chunk": {"bytes": base64.b64encode(json.dumps(event).encode()).decode()}}
        for event in events
    ],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("api", STREAMS)
def test_stream_in_every_spelling(api, spelling):
    request, events = STREAMS[api]
    conversation = exchange(request, SPELLINGS[spelling](events))
    assert learned(conversation) == ['get_tide(harbour="Brest")']
    assert conversation.meta["tools_from"] == "declared"


def last_event(events: list[dict]) -> int:
    "The index of the event that says how the answer ended"
    ends = ("finish", "stopReason", "stop_reason", "done_reason", "response.completed")
    return next(
        i for i, event in enumerate(events) if any(end in json.dumps(event) for end in ends)
    )


@pytest.mark.parametrize("spelling", ["a list of events", "an event stream", "lines of JSON"])
@pytest.mark.parametrize("api", STREAMS)
def test_no_turn_is_learned_from_a_stream_that_broke_off(api, spelling):
    request, events = STREAMS[api]
    for count in range(last_event(events) + 1):
        try:
            conversation = exchange(request, SPELLINGS[spelling](events[:count]))
        except ConversationError:
            continue
        assert learned(conversation) == [], count


@pytest.mark.parametrize("api", STREAMS)
def test_stream_cut_inside_its_text_is_never_learned(api):
    request, events = STREAMS[api]
    text = sse(events, named=True)
    end = len(sse(events[: last_event(events)], named=True)) - len("data: [DONE]\n\n")
    for size in range(20, end, 17):
        try:
            conversation = exchange(request, text[:size])
        except ConversationError:
            continue
        assert learned(conversation) == [], text[:size][-80:]


@pytest.mark.parametrize("api", STREAMS)
@pytest.mark.parametrize("named", [False, True])
def test_error_in_a_stream_is_a_failed_call(api, named):
    request, events = STREAMS[api]
    error = {"type": "error"} if named else {}
    events = [*events[:2], error | {"error": {"message": "overloaded"}}]
    if api == "bedrock":
        events = [*events[:2], {"throttlingException": {"message": "slow down"}}]
    if api == "cohere":
        events = [*events[:2], {"type": "message-end", "delta": {"error": "overloaded"}}]
    if api == "responses" and not named:
        failed = {"status": "failed", "error": {"code": "server_error"}}
        events = [*events[:2], {"type": "response.failed", "response": failed}]
    record = {"request": request, "response": events}
    assert refused(record).code == "failed_call"


def test_stream_of_an_unknown_api_is_refused_by_its_events():
    stream = "event: thread.run.created\ndata: {}\n\n"
    error = refused({"request": CHAT, "response": stream})
    assert error.code == "bad_type" and "thread.run.created" in str(error)


def test_interleaved_calls_of_an_anthropic_stream():
    starts = [
        {"type": "content_block_start", "index": i, "content_block": USE | {"id": id, "input": {}}}
        for i, id in enumerate(("a", "b"))
    ]
    deltas = [
        {"type": "content_block_delta", "index": i, "delta": {"partial_json": half}}
        for half in halves(ARGUMENTS)
        for i in (0, 1)
    ]
    end = {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}
    conversation = exchange(CLAUDE, [*starts, *deltas, end])
    assert [call.id for call in conversation.calls()] == ["a", "b"]
    assert all(call.arguments == {"harbour": "Brest"} for call in conversation.calls())


def test_anthropic_stream_with_thinking_words_and_a_call_without_input():
    events = [
        {"type": "message_start", "message": {"role": "assistant", "content": []}},
        block_event("start", content_block={"type": "thinking", "thinking": ""}),
        block_event("delta", delta={"type": "thinking_delta", "thinking": "Hm."}),
        block_event("delta", delta={"type": "signature_delta", "signature": "EqQB"}),
        block_event("start", index=1, content_block={"type": "text", "text": ""}),
        block_event("delta", index=1, delta={"type": "text_delta", "text": "Let me "}),
        block_event("delta", index=1, delta={"type": "text_delta", "text": "look."}),
        block_event("start", index=2, content_block=USE | {"name": "now", "input": {}}),
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    ]
    message = exchange(CLAUDE, events).messages[-1]
    assert message["content"] == "Let me look." and message["reasoning_content"] == "Hm."
    assert message["tool_calls"][0]["function"] == {"name": "now", "arguments": {}}


def test_responses_stream_whose_last_event_lost_its_output():
    events = [*STREAMS["responses"][1][:-1], {"type": "response.completed", "response": {"id": 1}}]
    assert learned(exchange(INPUT, events)) == ['get_tide(harbour="Brest")']
    late = {"type": "response.output_item.done", "output_index": 1, "item": ITEM | {"call_id": "2"}}
    events = [events[0], late, events[4], events[5]]
    assert [call.id for call in exchange(INPUT, events).calls()] == ["c1", "2"]


def test_incomplete_response_of_a_stream_is_masked():
    response = {"object": "response", "status": "incomplete", "output": [ITEM]}
    events = [{"type": "response.incomplete", "response": response}]
    assert learned(exchange(INPUT, events)) == []


def test_gemini_chunks_of_the_code_assist_api():
    chunks = [{"response": chunk, "traceId": "t"} for chunk in STREAMS["gemini"][1]]
    assert learned(exchange({"model": "g", "request": CONTENTS}, chunks)) != []


@pytest.mark.parametrize(
    "second",
    [
        {"id": "b", "index": 0},  # another id
        {"id": "b"},
        {"id": "b", "index": None},
        {"index": 0},  # the name comes again, after a whole object
        {"id": "", "index": 1},
    ],
)
def test_calls_of_a_stream_that_are_numbered_wrongly(second):
    names = [{"id": "a", "index": 0}, second]
    chunks = [
        delta(tool_calls=[name | {"function": FUNCTION | {"arguments": f'{{"harbour": "{n}"}}'}}])
        for n, name in enumerate(names)
    ]
    end = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}
    calls = exchange(CHAT, [*chunks, end]).calls()
    assert [call.arguments["harbour"] for call in calls] == ["0", "1"]


def test_pieces_with_a_new_id_each_belong_to_one_call():
    ids = ["a", "b", "c"]
    texts = [{"name": "get_tide", "arguments": ""}, {"arguments": FIRST}, {"arguments": SECOND}]
    chunks = [delta(tool_calls=[{"index": 0, "id": i, "function": f}]) for i, f in zip(ids, texts)]
    end = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}
    [call] = exchange(CHAT, [*chunks, end]).calls()
    assert call.id == "a" and call.arguments == {"harbour": "Brest"}


def test_pieces_that_repeat_id_and_name_belong_to_one_call():
    texts = ["", FIRST, SECOND]
    function = {"name": "get_tide"}
    chunks = [
        delta(tool_calls=[{"index": 0, "id": "a", "function": function | {"arguments": text}}])
        for text in texts
    ]
    end = {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}
    [call] = exchange(CHAT, [*chunks, end]).calls()
    assert call.name == "get_tide" and call.arguments == {"harbour": "Brest"}


@pytest.mark.parametrize("key", ["reasoning", "reasoning_content", "reasoning_text"])
def test_reasoning_of_a_stream(key):
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    chunks = [delta(**{key: "H"}), delta(**{key: "m."}), delta(content="09:12"), end]
    message = exchange(CHAT, chunks).messages[-1]
    assert message["content"] == "09:12" and message["reasoning_content"] == "Hm."


def test_content_of_a_stream_in_parts():
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    chunks = [delta(content=[thought]), delta(content=[{"type": "text", "text": "09:12"}]), end]
    message = exchange(CHAT, chunks).messages[-1]
    assert message["content"] == "09:12" and message["reasoning_content"] == "Hm."


# Finish reasons


@pytest.mark.parametrize(
    "reason",
    [
        *("length", "content_filter", "error"),  # OpenAI, OpenRouter
        *("max_tokens", "pause_turn", "refusal", "model_context_window_exceeded"),  # Anthropic
        *("guardrail_intervened", "content_filtered", "malformed_tool_use"),  # Bedrock
        *("MAX_TOKENS", "ERROR", "TIMEOUT"),  # Cohere
        *("model_length", "content-filter", "abort", "sensitive", "network_error"),
    ],
)
def test_finish_reason_of_an_unfinished_answer(reason):
    choice = {"finish_reason": reason, "message": {"role": "assistant", "content": "09:"}}
    assert learned(exchange(CHAT, {"choices": [choice]})) == []
    blocks = {"content": [{"type": "text", "text": "09:"}], "stop_reason": reason}
    assert learned(exchange(CLAUDE, blocks)) == []


@pytest.mark.parametrize(
    "reason",
    ["MAX_TOKENS", "SAFETY", "RECITATION", "OTHER", "MALFORMED_FUNCTION_CALL", 2, 3]
    + ["FinishReason.MAX_TOKENS", "MALFORMED_RESPONSE", "TOO_MANY_TOOL_CALLS", "LANGUAGE"],
)
def test_finish_reason_of_gemini(reason):
    candidate = {"content": {"parts": [{"text": "09:"}]}, "finishReason": reason}
    assert learned(exchange(CONTENTS, {"candidates": [candidate]})) == []


@pytest.mark.parametrize("status", ["incomplete", "cancelled", "in_progress", "queued"])
def test_status_of_a_response(status):
    response = {"object": "response", "status": status, "output": [ITEM]}
    assert learned(exchange(INPUT, response)) == []


@pytest.mark.parametrize("reason", ["stop", "tool_calls", "end_turn", "COMPLETE", "stop_sequence"])
def test_finish_reason_of_a_whole_answer(reason):
    choice = {"finish_reason": reason, "message": {"role": "assistant", "content": "09:12"}}
    assert learned(exchange(CHAT, {"choices": [choice]})) == ["09:12"]


@pytest.mark.parametrize(
    "response",
    [
        {"role": "assistant", "content": "09:", "finish_reason": "length"},
        {"role": "assistant", "content": "09:", "stop_reason": "max_tokens"},
        {"message": {"role": "assistant", "content": "09:", "stop_reason": "max_tokens"}},
    ],
)
def test_finish_reason_of_a_bare_message(response):
    assert learned(exchange(CHAT, response)) == []


def test_finish_reasons_of_a_span():
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": json.dumps([ASKED]),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "content": "09:"}]),
    }
    assert learned(one({"attributes": attributes})) == ["09:"]
    for reasons in (["length"], '["length"]', "length"):
        cut = attributes | {"gen_ai.response.finish_reasons": reasons}
        assert learned(one({"attributes": cut})) == []


# Reasoning


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning": "Hm."},
        {"reasoning_content": "Hm."},
        {"reasoning_text": "Hm."},
        {"thinking": "Hm."},
        {"reasoning_content": None, "reasoning": "Hm."},
        {"reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"thinking_blocks": [{"type": "thinking", "thinking": "Hm.", "signature": "x"}]},
        {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "09:12"}]},
        {"content": [{"type": "reasoning", "text": "Hm."}, {"type": "text", "text": "09:12"}]},
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
                {"type": "text", "text": "09:12"},
            ]
        },
    ],
)
@pytest.mark.parametrize("place", ["history", "answer"])
def test_reasoning_under_every_name(fields, place):
    message = {"role": "assistant", "content": "09:12"} | fields
    if place == "answer":
        conversation = exchange(CHAT, {"choices": [{"message": message, "finish_reason": "stop"}]})
    else:
        conversation = one({"messages": [ASKED, message]})
    assert conversation.messages[1]["reasoning_content"] == "Hm."
    assert conversation.messages[1]["content"] == "09:12"


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x"}]},
        {"reasoning": {"encrypted": "x"}},
        {"thinking_blocks": [{"type": "redacted_thinking", "data": "x"}]},
    ],
)
def test_reasoning_that_is_hidden_is_named(fields):
    conversation = one({"messages": [ASKED, {"role": "assistant", "content": "09:12"} | fields]})
    assert "reasoning_left_out" in warned(conversation)
    assert learned(conversation) == ["09:12"]


# Anthropic


def claude(*content: dict, then: tuple = ()) -> dict:
    return {"messages": [ASKED, {"role": "assistant", "content": [*content]}, *then]} | {
        "tools": CLAUDE["tools"]
    }


RESULT = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1"}]}
SAID = {"role": "assistant", "content": "09:12"}


def test_partial_json_is_read_or_refused():
    conversation = one(claude(USE | {"input": {}, "partial_json": ARGUMENTS}))
    assert conversation.calls()[0].arguments == {"harbour": "Brest"}
    assert one(claude(USE | {"partial_json": ""})).calls()[0].arguments == {"harbour": "Brest"}
    half = claude(USE | {"input": {}, "partial_json": FIRST})
    assert refused(half).code == "args_not_json"


@pytest.mark.parametrize(
    "kind",
    [
        *("server_tool_use", "mcp_tool_use", "web_search_tool_result", "mcp_tool_result"),
        *("bash_code_execution_tool_result", "text_editor_code_execution_tool_result"),
        "some_new_tool_result",
    ],
)
def test_turns_that_rest_on_a_tool_of_the_provider_carry_no_loss(kind):
    block = {"type": kind, "id": "srv", "name": "web_search", "input": {}, "content": []}
    thanks = {"role": "user", "content": "Thanks"}
    welcome = {"role": "assistant", "content": "Welcome"}
    conversation = one(claude(block, USE, then=(RESULT, SAID, thanks, welcome)))
    assert learned(conversation) == ["Welcome"] and "hosted_tool" in warned(conversation)
    pair = {"request": claude(block, USE, then=(RESULT,)), "response": {"content": [SAID]}}
    pair["response"]["content"] = [{"type": "text", "text": "09:12"}]
    assert learned(one(pair)) == []


def test_search_for_tools_is_left_out_and_the_call_is_learned():
    search = {"type": "server_tool_use", "id": "s", "name": "tool_search_tool_bm25", "input": {}}
    reference = {"type": "tool_reference", "tool_name": "get_tide"}
    found = {"type": "tool_search_tool_result", "tool_use_id": "s", "content": [reference]}
    conversation = one(claude(search, found, USE))
    assert learned(conversation) == ['get_tide(harbour="Brest")']
    assert "tool_search" in warned(conversation)


def test_call_of_a_program_carries_no_loss_and_a_direct_one_does():
    direct = USE | {"caller": {"type": "direct"}}
    assert learned(one(claude(direct))) == ['get_tide(harbour="Brest")']
    by_code = USE | {"caller": {"type": "code_execution_20250825", "tool_id": "srv"}}
    conversation = one(claude(by_code, then=(RESULT, SAID)))
    assert learned(conversation) == [] and "called_by_code" in warned(conversation)
    assert len(conversation.calls()) == 1


@pytest.mark.parametrize(
    "kind, name",
    [("bash_20250124", "bash"), ("text_editor_20250728", "str_replace_based_edit_tool")],
)
def test_tools_that_the_client_runs_are_declared(kind, name):
    tools = [{"type": kind, "name": name}, *CLAUDE["tools"]]
    call = USE | {"name": name, "input": {"command": "view", "path": "/tide.txt"}}
    conversation = exchange(CLAUDE | {"tools": tools}, {"content": [call]})
    assert [tool["function"]["name"] for tool in conversation.tools] == [name, "get_tide"]
    assert "unknown_tool" not in warned(conversation)


def test_compaction_is_refused():
    summary = {"type": "compaction", "content": "The user asked for the tide."}
    assert refused(claude(summary)).code == "missing_history"


@pytest.mark.parametrize("beginning", ["{", [{"type": "text", "text": "{"}]])
@pytest.mark.parametrize("api", ["anthropic", "bedrock", "ollama"])
def test_prefill_and_answer_are_one_turn(beginning, api):
    request = CLAUDE | {"messages": [ASKED, {"role": "assistant", "content": beginning}]}
    responses = {
        "anthropic": {"content": [{"type": "text", "text": '"high": 1}'}], "stop_reason": "end"},
        "bedrock": {
            "output": {"message": {"role": "assistant", "content": [{"text": '"high": 1}'}]}}
        },
        "ollama": {"message": {"role": "assistant", "content": '"high": 1}'}, "done": True},
    }
    conversation = exchange(request, responses[api])
    assert learned(conversation) == ['{"high": 1}'] and "prefill" in warned(conversation)
    assert conversation.meta["response_at"] == 1


@pytest.mark.parametrize("flag", ["prefix", "partial"])
@pytest.mark.parametrize("answer", ['"high": 1}', '{"high": 1}'])
def test_prefill_of_chat_completions(flag, answer):
    messages = [ASKED, {"role": "assistant", "content": "{", flag: True}]
    choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": answer}}
    conversation = exchange(CHAT | {"messages": messages}, {"choices": [choice]})
    assert learned(conversation) == ['{"high": 1}']


def test_prefill_of_vllm():
    messages = [ASKED, {"role": "assistant", "content": "{"}]
    choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": '"high": 1}'}}
    request = CHAT | {"messages": messages, "continue_final_message": True}
    assert learned(exchange(request, {"choices": [choice]})) == ['{"high": 1}']


def test_prefill_before_a_call():
    request = CLAUDE | {"messages": [ASKED, {"role": "assistant", "content": "Let me"}]}
    response = {"content": [{"type": "text", "text": " look."}, USE], "stop_reason": "tool_use"}
    assert learned(exchange(request, response)) == ['Let me look. get_tide(harbour="Brest")']


# OpenAI's Responses API


def responses(*output: dict, **request: object) -> dict:
    return {
        "request": INPUT | request,
        "response": {"object": "response", "status": "completed", "output": [*output]},
    }


def test_namespaces_of_tools():
    tools = [
        {"type": "namespace", "name": "harbour", "tools": [FUNCTION | {"type": "function"}]},
        {"type": "namespace", "name": "mcp__sea__", "tools": [{"name": "get_tide"}]},
        {"type": "function", "name": "get_tide"},
    ]
    calls = [ITEM | {"call_id": str(n)} for n in range(3)]
    calls[0] |= {"namespace": "harbour"}
    calls[1] |= {"namespace": "mcp__sea__"}
    conversation = one(responses(*calls, tools=tools))
    names = ["harbour__get_tide", "mcp__sea__get_tide", "get_tide"]
    assert [call.name for call in conversation.calls()] == names
    assert [tool["function"]["name"] for tool in conversation.tools] == names
    assert "unknown_tool" not in warned(conversation)


@pytest.mark.parametrize("kind", ["tool_search_output", "additional_tools"])
def test_tools_that_are_loaded_later_are_declared(kind):
    loaded = {"type": kind, "tools": [{"type": "function", "name": "get_wave"}]}
    conversation = one(responses(loaded, ITEM | {"name": "get_wave"}))
    assert learned(conversation) == ['get_wave(harbour="Brest")']
    assert [tool["function"]["name"] for tool in conversation.tools] == ["get_tide", "get_wave"]


@pytest.mark.parametrize(
    "item",
    [
        {"type": "web_search_call", "status": "completed"},
        {"type": "mcp_call", "name": "x", "arguments": "{}", "output": "y"},
        {"type": "local_shell_call", "call_id": "s", "action": {"type": "exec"}},
        {"type": "custom_tool_call", "call_id": "s", "name": "patch", "input": "*** Begin"},
        {"type": "program", "call_id": "p", "code": "get_tide('Brest')"},
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_items_that_are_no_functions_mask_their_turn(item, first):
    output = [item, ITEM] if first else [ITEM, item]
    conversation = one(responses(*output))
    assert learned(conversation) == [] and len(conversation.calls()) == 1
    history = [ASKED, *output, {"type": "function_call_output", "call_id": "c1", "output": "9"}]
    answer = {"type": "message", "role": "assistant", "content": "09:12"}
    assert learned(one(responses(answer, input=history))) == []


def test_refusal_in_a_part_carries_no_loss():
    refusal = {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}
    for conversation in (
        one(responses({"type": "message"} | refusal)),
        exchange(CHAT, {"choices": [{"finish_reason": "stop", "message": refusal}]}),
    ):
        assert learned(conversation) == [] and "refusal" in warned(conversation)
        assert conversation.messages[1]["content"] == "No."


def test_call_of_a_program_in_the_responses_api():
    conversation = one(responses(ITEM | {"caller": {"type": "program", "caller_id": "p"}}))
    assert learned(conversation) == [] and "called_by_code" in warned(conversation)
    assert learned(one(responses(ITEM | {"caller": {"type": "direct"}}))) != []


@pytest.mark.parametrize(
    "state",
    [
        {"conversation": {"id": "conv_1"}},
        {"conversation": "conv_1"},
        {"previous_response_id": "resp_1"},
        {"previous_interaction_id": "i_1"},
        {"prompt": {"id": "pmpt_1", "version": "2"}},
        {"cachedContent": "cachedContents/1"},
        {"config": {"cached_content": "cachedContents/1"}},
        {"input": [{"type": "item_reference", "id": "msg_1"}, ASKED]},
        {"input": [{"id": "msg_1"}, {"type": "message"} | ASKED]},
        {"input": [{"type": "compaction", "encrypted_content": "x"}, ASKED]},
    ],
)
def test_history_that_the_provider_keeps_is_refused(state):
    error = refused(responses(ITEM, **state))
    assert error.code == "missing_history" and error.path.startswith("request")


def test_history_that_the_response_names_is_refused():
    record = responses(ITEM)
    for key, value in (("previous_response_id", "resp_1"), ("conversation", {"id": "conv_1"})):
        other = record | {"response": record["response"] | {key: value}}
        assert refused(other).code == "missing_history"
    nulls = {"previous_response_id": None, "conversation": None, "prompt": None}
    assert learned(record and one(record | {"response": record["response"] | nulls})) != []


def test_cached_content_of_gemini_is_refused():
    candidates = STREAMS["gemini"][1]
    record = {"request": CONTENTS | {"cachedContent": "cachedContents/1"}, "response": candidates}
    assert refused(record).code == "missing_history"


def test_conversation_as_a_name_beside_whole_messages_is_no_state():
    names = {"conversation": "c-1", "prompt": {"id": "tides", "version": 3}}
    assert learned(one({"messages": [ASKED, SAID]} | names)) == ["09:12"]


# Bedrock

CACHE = {"cachePoint": {"type": "default"}}


def converse(*content: dict, **request: object) -> dict:
    message = {"role": "assistant", "content": [*content]}
    response = {"output": {"message": message}, "stopReason": "tool_use"}
    return {"request": CONVERSE | request, "response": response}


TOOL_USE = {"toolUse": {"toolUseId": "t1", "name": "get_tide", "input": {"harbour": "Brest"}}}


def test_cache_points_are_skipped_everywhere():
    tools = {"tools": [CACHE, *CONVERSE["toolConfig"]["tools"], CACHE]}
    messages = [
        {"role": "user", "content": [CACHE, {"text": "Tide?"}, CACHE]},
        {"role": "assistant", "content": [{"text": "Which harbour?"}, CACHE]},
        {"role": "user", "content": [{"text": "Brest"}, CACHE]},
    ]
    system = [{"text": "You know tides."}, CACHE]
    record = converse(TOOL_USE, CACHE, system=system, messages=messages, toolConfig=tools)
    conversation = one(record)
    assert [m["content"] for m in conversation.messages[:2]] == ["You know tides.", "Tide?"]
    assert [tool["function"]["name"] for tool in conversation.tools] == ["get_tide"]
    assert learned(conversation)[-1] == 'get_tide(harbour="Brest")'


def test_reasoning_guarded_and_cited_text_of_bedrock():
    thought = {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "x"}}}
    cited = {"citationsContent": {"content": [{"text": "High "}, {"text": "at nine."}]}}
    guarded = {"guardContent": {"text": {"text": "Tide?", "qualifiers": ["query"]}}}
    record = converse(thought, cited, messages=[{"role": "user", "content": [guarded]}])
    conversation = one(record)
    assert [m["content"] for m in conversation.messages] == ["Tide?", "High at nine."]
    assert conversation.messages[1]["reasoning_content"] == "Hm."
    hidden = {"reasoningContent": {"redactedContent": "x"}}
    assert "reasoning_left_out" in warned(one(converse(hidden, {"text": "09:12"})))


@pytest.mark.parametrize("kind", ["image", "document", "video"])
def test_media_of_bedrock_are_refused(kind):
    part = {kind: {"format": "x", "source": {"bytes": "eA=="}}}
    messages = [{"role": "user", "content": [{"text": "Tide?"}, part]}]
    assert refused(converse(TOOL_USE, messages=messages)).code == "multimodal"
    result = {"toolResult": {"toolUseId": "t1", "content": [part]}}
    history = [*CONVERSE["messages"], {"role": "assistant", "content": [TOOL_USE]}]
    history.append({"role": "user", "content": [result]})
    assert refused(converse({"text": "09:12"}, messages=history)).code == "multimodal"


def test_failed_result_of_bedrock():
    result = {"toolUseId": "t1", "status": "error", "content": [{"text": "no such harbour"}]}
    history = [*CONVERSE["messages"], {"role": "assistant", "content": [TOOL_USE, CACHE]}]
    history.append({"role": "user", "content": [{"toolResult": result}, CACHE]})
    conversation = one(converse({"text": "Sorry"}, messages=history))
    assert conversation.messages[2]["is_error"] is True and learned(conversation) == ["Sorry"]


INVOCATION = {
    "schemaType": "ModelInvocationLog",
    "operation": "InvokeModelWithResponseStream",
    "input": {"inputBodyJson": CLAUDE},
    "output": {"outputBodyJson": STREAMS["anthropic"][1]},
}


def test_invocation_log_of_a_streamed_claude():
    assert learned(one(INVOCATION)) == ['get_tide(harbour="Brest")']


def test_invocation_log_without_its_bodies():
    assert refused(INVOCATION | {"output": {"outputBodyS3Path": "s3://x"}}).code == "no_content"
    assert refused(INVOCATION | {"input": None}).code == "no_content"
    assert refused(INVOCATION | {"errorCode": "AccessDenied"}).code == "failed_call"
    with pytest.raises(MergedRecord):
        one(INVOCATION | {"operation": "StartAsyncInvoke"})


# Gemini


def candidate(*parts: dict, **fields: object) -> dict:
    content = {"role": "model", "parts": [*parts]}
    return {"candidates": [{"content": content, "finishReason": "STOP"} | fields]}


GEMINI_CALL = {"functionCall": {"name": "get_tide", "args": {"harbour": "Brest"}}}


@pytest.mark.parametrize(
    "part",
    [
        {"thoughtSignature": "x"},
        {"thought_signature": "x"},
        {"thought": True, "thoughtSignature": "x"},
        {"text": None, "thoughtSignature": "x", "functionCall": None},
        {},
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_parts_without_content_are_skipped(part, first):
    parts = [part, GEMINI_CALL] if first else [GEMINI_CALL, part]
    conversation = exchange(CONTENTS, candidate(*parts))
    assert learned(conversation) == ['get_tide(harbour="Brest")']
    history = CONTENTS | {"contents": [*CONTENTS["contents"], {"role": "model", "parts": parts}]}
    assert len(one(history).calls()) == 1


@pytest.mark.parametrize(
    "part, code",
    [
        ({"inlineData": {"data": "x"}}, "multimodal"),
        ({"fileData": {"fileUri": "x"}}, "multimodal"),
        ({"newKind": 1}, "bad_type"),
        ("x", "bad_type"),
    ],
)
def test_other_parts_of_gemini_are_refused(part, code):
    record = {"request": CONTENTS, "response": candidate(part, GEMINI_CALL)}
    assert refused(record).code == code


def test_answer_that_rests_on_a_search_of_gemini():
    grounding = {"webSearchQueries": ["tide brest"], "groundingChunks": []}
    conversation = exchange(CONTENTS, candidate({"text": "9"}, groundingMetadata=grounding))
    assert learned(conversation) == [] and "hosted_tool" in warned(conversation)
    assert learned(exchange(CONTENTS, candidate({"text": "9"}, groundingMetadata={}))) == ["9"]


def test_turns_that_rest_on_code_that_gemini_ran():
    code = {"executableCode": {"language": "PYTHON", "code": "1"}}
    result = {"functionResponse": {"name": "get_tide", "response": {"output": "9"}}}
    history = [
        *CONTENTS["contents"],
        {"role": "model", "parts": [code, GEMINI_CALL]},
        {"role": "user", "parts": [result]},
    ]
    conversation = exchange(CONTENTS | {"contents": history}, candidate({"text": "9"}))
    assert learned(conversation) == [] and len(conversation.calls()) == 1


def test_prompt_that_gemini_blocked():
    record = {"request": CONTENTS, "response": {"promptFeedback": {"blockReason": "SAFETY"}}}
    assert refused(record).code == "failed_call"


# Envelopes

ANSWER = {"choices": [{"finish_reason": "tool_calls", "message": CALLED}]}


def wrapped(request: object, response: object, **fields: object) -> dict:
    return {"request": request, "response": response, **fields}


@pytest.mark.parametrize(
    "record",
    [
        wrapped({"method": "POST", "body": CHAT}, {"status": 200, "body": ANSWER}),
        wrapped({"body": json.dumps(CHAT)}, {"status": 200, "body": json.dumps(ANSWER)}),
        wrapped({"body": json.dumps(CHAT)}, {"body": sse(STREAMS["chat completions"][1])}),
        wrapped({"body": {"json": CHAT}}, {"body": {"json": ANSWER}}),
        wrapped({"json": CHAT, "url": "/v1"}, {"json": ANSWER, "status_code": 200}),
        wrapped(
            {"method": "POST", "postData": {"mimeType": "json", "text": json.dumps(CHAT)}},
            {"status": 200, "content": {"mimeType": "json", "text": json.dumps(ANSWER)}},
        ),
        wrapped(
            {"body": CHAT},
            {
                "content": {
                    "encoding": "base64",
                    "text": base64.b64encode(json.dumps(ANSWER).encode()).decode(),
                }
            },
        ),
        {"requestBody": CHAT, "responseBody": ANSWER},
        {"RequestBody": json.dumps(CHAT), "ResponseBody": json.dumps(ANSWER)},
        {"request_body": json.dumps(CHAT), "response_body": json.dumps(ANSWER)},
        {"req": {"body": CHAT}, "res": {"statusCode": 200, "body": ANSWER}},
        {"kwargs": {"messages": [ASKED], "optional_params": {"tools": [TOOL]}}, "result": ANSWER},
        {"_source": wrapped({"body": CHAT}, {"body": ANSWER})},
        {"object": "list", "data": [CHAT | ANSWER], "has_more": False},
        {"data": [wrapped(CHAT, ANSWER)], "meta": {"page": 1}},
    ],
)
def test_bodies_in_envelopes(record):
    conversation = one(record)
    assert learned(conversation) == ['get_tide(harbour="Brest")']
    assert [tool["function"]["name"] for tool in conversation.tools] == ["get_tide"]


def test_batches_of_anthropic_and_of_bedrock(tmp_path):
    path = tmp_path / "batch.jsonl"
    answer = {"content": [USE], "stop_reason": "tool_use"}
    halves = [
        {"custom_id": "a", "params": CLAUDE},
        {"custom_id": "b", "params": CLAUDE},
        {"custom_id": "b", "result": {"type": "errored", "error": {"type": "overloaded_error"}}},
        {"custom_id": "a", "result": {"type": "succeeded", "message": answer}},
        {"recordId": "c", "modelInput": CLAUDE, "modelOutput": answer},
    ]
    path.write_text("\n".join(map(json.dumps, halves)))
    log = read_logs(path, max_reject=1)
    assert [learned(c) for c in log] == [['get_tide(harbour="Brest")']] * 2
    assert [reject.code for reject in log.rejects] == ["failed_call"]


def test_bodies_that_can_not_be_read_are_refused():
    record = wrapped({"body": CHAT}, {"status": 200, "body": "H4sIAAAA"})
    assert refused(record).code == "bad_type"
    record = wrapped({"body": CHAT}, {"status": 503, "body": "upstream connect error"})
    assert refused(record).code == "failed_call" and "upstream" in str(refused(record))
    cut = wrapped({"body": CHAT}, {"status": 200, "body": json.dumps(ANSWER)[:60]})
    assert refused(cut).code == "bad_type"


SPEND = {
    "request_id": "r1",
    "call_type": "acompletion",
    "end_user": "u3",
    "messages": {},
    "response": ANSWER,
    "proxy_server_request": CHAT,
}


@pytest.mark.parametrize(
    "request_", [CHAT, json.dumps(CHAT), {"url": "/v1/chat/completions", "body": CHAT}]
)
@pytest.mark.parametrize("messages", [{}, "{}", [], None, [ASKED]])
def test_spend_logs_of_litellm(request_, messages):
    record = SPEND | {"proxy_server_request": request_, "messages": messages}
    conversation = one(record)
    assert learned(conversation) == ['get_tide(harbour="Brest")']
    assert conversation.meta["user_id"] == "u3" and conversation.meta["tools_from"] == "declared"


def test_spend_logs_that_are_refused():
    assert refused(SPEND | {"proxy_server_request": {}}).code == "no_content"
    assert refused(SPEND | {"proxy_server_request": None}).code == "no_content"
    assert refused(SPEND | {"status": "failure"}).code == "failed_call"
    failed = {"status": "failure", "error_information": {"error_class": "RateLimitError"}}
    assert "RateLimitError" in str(refused(SPEND | {"metadata": failed}))
    cut = CHAT | {"messages": [ASKED | {"content": "Tide (litellm_truncated 900 chars)"}]}
    assert refused(SPEND | {"proxy_server_request": cut}).code == "truncated"


# Ollama, Cohere, Mistral


def test_results_that_name_their_tool_in_another_order():
    names = ("get_tide", "get_weather")
    calls = [{"function": {"name": name, "arguments": {}}} for name in names]
    results = [{"role": "tool", "tool_name": name, "content": name} for name in reversed(names)]
    record = {"messages": [ASKED, {"role": "assistant", "tool_calls": calls}, *results, SAID]}
    conversation = one(record)
    ids = {call.id: call.name for call in conversation.calls()}
    answered = [m for m in conversation.messages if m["role"] == "tool"]
    assert all(ids[m["tool_call_id"]] == m["content"] == m["name"] for m in answered)


def test_answer_of_ollama_beside_its_messages():
    whole = CHAT | {"message": CALLED, "done": True}
    assert learned(one(whole)) == ['get_tide(harbour="Brest")']
    assert learned(one(whole | {"done": False})) == []


def test_generate_of_ollama():
    request = {"model": "q", "prompt": "Tide?", "stream": False}
    conversation = exchange(request, {"response": "09:12", "done": True, "thinking": "Hm."})
    assert learned(conversation) == ["09:12"]
    assert conversation.messages[1]["reasoning_content"] == "Hm."
    stored = {"request": request | {"context": [1, 2]}, "response": {"response": "9", "done": True}}
    assert refused(stored).code == "missing_history"


@pytest.mark.parametrize("end", [{"done": False}, {"done": True, "done_reason": "length"}])
def test_unfinished_answer_of_ollama(end):
    assert learned(exchange(CHAT, {"message": SAID} | end)) == []


def test_plan_of_cohere_is_kept_beside_the_call():
    message = {"role": "assistant", "tool_plan": "I look."} | CALLED
    conversation = exchange(CHAT, {"id": "x", "finish_reason": "TOOL_CALL", "message": message})
    assert conversation.messages[1]["reasoning_content"] == "I look."
    history = [ASKED, message, {"role": "tool", "tool_call_id": "c1", "content": "09:12"}]
    answer = {"role": "assistant", "content": [{"type": "text", "text": "At nine."}]}
    response = {"finish_reason": "COMPLETE", "message": answer}
    assert learned(exchange(CHAT | {"messages": history}, response))[-1] == "At nine."


def test_results_of_cohere_in_documents():
    documents = [{"type": "document", "document": {"id": "d", "data": {"high": "09:12"}}}]
    result = {"role": "tool", "tool_call_id": "c1", "content": documents}
    conversation = one({"messages": [ASKED, CALLED, result, SAID]})
    assert conversation.messages[2]["content"] == '{"high": "09:12"}'
    media = {"role": "user", "content": [{"type": "document", "source": {"data": "x"}}]}
    assert refused({"messages": [media, SAID]}).code == "multimodal"


# Weave and the Agents SDK

WEAVE = {
    "op_name": "weave:///e/p/op/openai.chat.completions.create:abc",
    "inputs": CHAT | {"self": {}},
    "output": ANSWER,
}


def test_weave_calls_of_other_apis():
    assert learned(one(WEAVE)) == ['get_tide(harbour="Brest")']
    blocks = {"content": [USE], "stop_reason": "tool_use"}
    assert learned(one(WEAVE | {"inputs": CLAUDE, "output": blocks})) != []
    gemini = WEAVE | {"inputs": CONTENTS | {"model": "g"}, "output": candidate(GEMINI_CALL)}
    assert learned(one(gemini)) != []


@pytest.mark.parametrize(
    "inputs", [{"question": "Tide?"}, {"messages": [ASKED]}, CHAT | {"model": "weave:///e/p/m"}]
)
def test_other_functions_in_weave_are_part_of_a_trace(inputs):
    with pytest.raises(MergedRecord):
        one(WEAVE | {"inputs": inputs, "output": "09:12"})


def test_weave_calls_that_failed():
    assert refused(WEAVE | {"exception": "Timeout"}).code == "failed_call"
    assert refused(WEAVE | {"output": None}).code == "no_content"


def span(**data: object) -> dict:
    return {"object": "trace.span", "id": "span_1", "trace_id": "t", "span_data": data}


def test_spans_of_the_agents_sdk():
    generation = span(type="generation", input=[ASKED], output=[CALLED], model="m")
    assert learned(one(generation)) == ['get_tide(harbour="Brest")']
    response = {"object": "response", "status": "completed", "output": [ITEM]} | {"tools": [TOOL]}
    for data in ({"response": response}, {"output": [response]}):
        conversation = one(span(type="response", input=[ASKED], **data))
        assert learned(conversation) != [] and conversation.meta["tools_from"] == "declared"
    assert refused(generation | {"error": {"message": "timeout"}}).code == "failed_call"
    assert refused(span(type="response", response_id="resp_1")).code == "no_content"
    for kind in ("agent", "function", "handoff", "guardrail"):
        with pytest.raises(MergedRecord):
            one(span(type=kind, input="{}", output="9"))


# OpenTelemetry

OTEL = {"role": "user", "parts": [{"type": "text", "content": "Tide?"}]}
OTEL_CALL = {"type": "tool_call", "id": "c1", "name": "get_tide", "arguments": ARGUMENTS}
OTEL_ANSWER = {"role": "assistant", "parts": [OTEL_CALL], "finish_reason": "tool_call"}


@pytest.mark.parametrize(
    "write",
    [
        lambda value: value,
        json.dumps,
        lambda value: json.dumps(json.dumps(value)),
        lambda value: [json.dumps(item) for item in value],
        lambda value: json.dumps([json.dumps(item) for item in value]),
        lambda value: [json.dumps(json.dumps(item)) for item in value],
    ],
)
def test_attributes_that_were_encoded_twice(write):
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": write([OTEL]),
        "gen_ai.output.messages": write([OTEL_ANSWER]),
        "gen_ai.tool.definitions": write([TOOL]),
    }
    conversation = one({"attributes": attributes})
    assert learned(conversation) == ['get_tide(harbour="Brest")']
    assert conversation.tools == [TOOL]


def test_parts_as_text():
    parts = {"role": "assistant", "parts": json.dumps([OTEL_CALL])}
    asked = {"role": "user", "parts": [json.dumps(OTEL["parts"][0])]}
    attributes = {"gen_ai.input.messages": [asked], "gen_ai.output.messages": [parts]}
    assert learned(one({"attributes": attributes})) == ['get_tide(harbour="Brest")']


LOGFIRE = {
    "gen_ai.operation.name": "chat",
    "events": [
        {"event.name": "gen_ai.system.message", "content": "You know tides.", "role": "system"},
        {"event.name": "gen_ai.user.message", "content": "Tide?", "role": "user"},
        {"event.name": "gen_ai.assistant.message"} | CALLED,
        {"event.name": "gen_ai.tool.message", "id": "c1", "name": "get_tide", "content": "9"},
        {"event.name": "gen_ai.choice", "index": 0, "message": SAID},
    ],
    "model_request_parameters": {
        "function_tools": [{"name": "get_tide", "parameters_json_schema": SCHEMA}],
        "output_tools": [{"name": "final_result", "parameters_json_schema": SCHEMA}],
    },
}


@pytest.mark.parametrize("as_text", [True, False])
def test_events_of_logfire(as_text):
    written = {
        k: json.dumps(v) if as_text and k != "gen_ai.operation.name" else v
        for k, v in LOGFIRE.items()
    }
    conversation = one({"attributes": written})
    roles = ["system", "user", "assistant", "tool", "assistant"]
    assert [m["role"] for m in conversation.messages] == roles
    assert learned(conversation) == ['get_tide(harbour="Brest")', "09:12"]
    names = [tool["function"]["name"] for tool in conversation.tools]
    assert names == ["get_tide", "final_result"]


def test_requests_in_attributes():
    adk = {
        "gen_ai.system": "gcp.vertex.agent",
        "gcp.vertex.agent.llm_request": json.dumps({"config": CONTENTS} | CONTENTS),
        "gcp.vertex.agent.llm_response": json.dumps(candidate(GEMINI_CALL)["candidates"][0]),
    }
    conversation = one({"name": "call_llm", "attributes": adk})
    assert learned(conversation) == ['get_tide(harbour="Brest")'] and conversation.tools
    logfire = {"gen_ai.system": "openai", "request_data": CHAT, "response_data": {"message": SAID}}
    assert learned(one({"attributes": logfire})) == ["09:12"]
    hidden = adk | {"gcp.vertex.agent.llm_response": "{}"}
    assert refused({"attributes": hidden}).code == "no_content"


# Records that are a part of a conversation


@pytest.mark.parametrize(
    "record, name",
    [
        ({"role": "assistant", "tool_calls": CALLED["tool_calls"]}, "message_rows"),
        ({"sender": "user", "text": "Tide?"}, "message_rows"),
        ({"type": "response.output_item.done", "item": ITEM}, "stream_events"),
        ({"type": "content_block_start", "index": 0, "content_block": USE}, "stream_events"),
    ],
)
def test_part_of_a_conversation_is_refused_by_name(record, name):
    [(_, inner)] = expand(record)
    assert find_format(inner).name == name
    error = refused(record)
    assert error.code == "one_message" and "several records" in str(error)


def test_simple_record_with_a_role_is_no_single_message():
    call = {"tool_name": "get_tide", "arguments": {"harbour": "Brest"}}
    record = {"user": "Tide?", "role": "user", "message": "x", "author": "me", "text": "x"} | call
    assert find_format(record).name == "simple"


def test_log_of_single_messages_says_how_to_write_it(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, (ASKED, CALLED, SAID))))
    with pytest.raises(LogError, match="give each row a `conversation_id`"):
        read_logs(path)


def test_masked_turns_stay_masked_in_curation(tmp_path):
    path = tmp_path / "log.jsonl"
    by_code = claude(USE | {"caller": {"type": "code_execution"}}, then=(RESULT, SAID))
    path.write_text("\n".join(map(json.dumps, [by_code, wrapped(CHAT, ANSWER)])))
    kept = curate(read_logs(path).conversations)
    assert [learned(c) for c in kept] == [['get_tide(harbour="Brest")']]
