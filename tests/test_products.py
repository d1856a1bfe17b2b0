"""Records of frameworks and applications: what each part of their messages becomes.

One test a kind of message; each is small and made up around one tool.
"""

import json
from contextlib import suppress

import pytest
from goldens import TOOL

from toolcall.conversation import Conversation
from toolcall.curate import curate
from toolcall.errors import ConversationError
from toolcall.formats import expand, find_adapter
from toolcall.logs import read_logs

CALL = {"toolCallId": "c1", "toolName": "get_weather"}
PARIS = {"city": "Paris"}
ASKED = {"role": "user", "content": "Weather in Paris?"}


def read(record: dict, format: str | None = None) -> Conversation:
    [(_, part)] = expand(record)
    conversation = find_adapter()(part)
    assert format is None or conversation.meta["format"] == format
    return conversation


def refused(record: dict, code: str) -> str:
    with pytest.raises(ConversationError) as caught:
        read(record)
    assert caught.value.code == code, caught.value
    return f"{caught.value.path}: {caught.value}"


def shape(conversation: Conversation) -> list[str]:
    "Each message in a word or two; a turn without loss in brackets"
    lines = []
    for i, message in enumerate(conversation.messages):
        text = message["content"].replace("\n", "|")
        calls = [str(call) for call in conversation.calls(i)]
        line = f"{message['role']}: " + " ".join([text, *calls]).strip()
        failed = " !" if message.get("is_error") else ""
        is_context = message["role"] == "assistant" and i not in conversation.turns
        lines.append(f"({line})" if is_context else line + failed)
    return lines


def trained(conversation: Conversation) -> int:
    return sum(len(item.turns) for item in curate([conversation]))


def ui(*parts: dict, **message) -> dict:
    answer = {"id": "2", "role": "assistant", "parts": list(parts)}
    return {"messages": [ASKED, answer | message]}


def tool_part(state: str, **fields) -> dict:
    part = {"type": "tool-get_weather", "toolCallId": "c1", "state": state, "input": PARIS}
    return part | fields


def said(text: str) -> dict:
    return {"type": "text", "text": text}


STEP = {"type": "step-start"}
DONE = tool_part("output-available", output={"t": 12})
PARIS_CALL = 'get_weather(city="Paris")'


def test_ai_sdk_steps_are_turns():
    second = DONE | {"toolCallId": "c2", "input": {"city": "Rome"}, "output": "19 °C"}
    record = ui(STEP, said("One moment."), DONE, STEP, second, STEP, said("12 and 19 °C."))
    assert shape(read(record, "ai_sdk")) == [
        "user: Weather in Paris?",
        f"assistant: One moment. {PARIS_CALL}",
        'tool: {"t": 12}',
        'assistant: get_weather(city="Rome")',
        "tool: 19 °C",
        "assistant: 12 and 19 °C.",
    ]


def test_ai_sdk_text_after_a_result_is_a_turn_of_its_own_without_markers():
    for parts in ((DONE, said("12 °C.")), (STEP, DONE, said("12 °C."))):
        assert shape(read(ui(*parts)))[1:] == [
            f"assistant: {PARIS_CALL}",
            'tool: {"t": 12}',
            "assistant: 12 °C.",
        ]


def test_ai_sdk_calls_of_one_step_are_parallel():
    second = DONE | {"toolCallId": "c2", "input": {"city": "Rome"}}
    lines = shape(read(ui(STEP, DONE, second, STEP, said("12 °C."))))
    assert lines[1:] == [
        f'assistant: {PARIS_CALL} get_weather(city="Rome")',
        'tool: {"t": 12}',
        'tool: {"t": 12}',
        "assistant: 12 °C.",
    ]


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"state": "output-error", "errorText": "no such city"}, "tool: no such city !"),
        (
            {"state": "output-denied", "approval": {"id": "a", "approved": False, "reason": "No"}},
            "tool: No !",
        ),
        (
            {"state": "approval-responded", "approval": {"id": "a", "approved": False}},
            "tool: Tool execution denied. !",
        ),
        (
            {"state": "output-available", "output": {"isError": True, "content": []}},
            'tool: {"isError": true, "content": []} !',
        ),
        ({"state": "output-available", "output": None}, "tool:"),
        ({"state": "output-available"}, "tool:"),
    ],
)
def test_ai_sdk_states_with_an_outcome(fields, result):
    conversation = read(ui(STEP, tool_part(**fields), STEP, said("Done.")))
    assert [line.strip() for line in shape(conversation)[1:]] == [
        f"assistant: {PARIS_CALL}",
        result,
        "assistant: Done.",
    ]
    assert trained(conversation) == (1 if result.endswith("!") else 2)


@pytest.mark.parametrize(
    "part",
    [
        tool_part("input-available"),
        tool_part("approval-requested", approval={"id": "a"}),
        tool_part("approval-responded", approval={"id": "a", "approved": True}),
        tool_part("output-available", output="half", preliminary=True),
    ],
)
def test_ai_sdk_calls_that_wait_have_no_result(part):
    assert shape(read(ui(STEP, part)))[1:] == [f"assistant: {PARIS_CALL}"]


def test_ai_sdk_unfinished_parts_carry_no_loss():
    half = tool_part("input-streaming", input={"ci": "P"})
    conversation = read(ui(STEP, said("One moment."), half))
    assert shape(conversation)[1:] == ["(assistant: One moment.)"]
    assert conversation.meta["warnings"] == ["unfinished_turn"]
    cut = read(ui(STEP, DONE, STEP, said("12") | {"state": "streaming"}))
    assert shape(cut)[-1] == "(assistant: 12)" and len(cut.turns) == 1


def test_ai_sdk_failed_calls_without_an_object_are_left_out():
    broken = {"state": "output-error", "input": None, "rawInput": '{"city', "errorText": "no JSON"}
    conversation = read(ui(STEP, DONE | broken, STEP, DONE, STEP, said("12 °C.")))
    assert shape(conversation)[1:] == [
        f"assistant: {PARIS_CALL}",
        'tool: {"t": 12}',
        "assistant: 12 °C.",
    ]
    assert conversation.meta["warnings"] == ["invalid_tool_call"]
    kept = read(ui(STEP, DONE | broken | {"rawInput": '{"city": "Pris"}'}, STEP, said("No.")))
    assert shape(kept)[1:3] == ['assistant: get_weather(city="Pris")', "tool: no JSON !"]


def test_ai_sdk_calls_of_the_provider_are_left_out_and_masked():
    search = DONE | {"type": "tool-web_search", "providerExecuted": True}
    conversation = read(ui(STEP, search, said("In the news: rain.")))
    assert shape(conversation)[1:] == ["(assistant: In the news: rain.)"]
    assert conversation.meta["warnings"] == ["hosted_tool"]


def test_ai_sdk_dynamic_tools_have_their_name_beside_them():
    part = DONE | {"type": "dynamic-tool", "toolName": "get_weather"}
    assert shape(read(ui(STEP, part)))[1] == f"assistant: {PARIS_CALL}"


def test_ai_sdk_reasoning_is_kept_beside_the_words():
    thought = {"type": "reasoning", "text": "Use the tool.", "state": "done"}
    old = {"type": "reasoning", "reasoning": "Use the tool.", "details": []}
    for part in (thought, old):
        message = read(ui(STEP, part, DONE)).messages[1]
        assert message["reasoning_content"] == "Use the tool." and message["content"] == ""
    for part in (thought | {"text": ""}, {"type": "redacted-reasoning", "data": "x"}):
        assert read(ui(STEP, part, said("Hi."))).meta["warnings"] == ["reasoning_left_out"]


def test_ai_sdk_parts_that_the_model_does_not_see_are_skipped():
    shown = [
        {"type": "source-url", "sourceId": "s", "url": "https://example.com"},
        {"type": "source-document", "sourceId": "s", "mediaType": "text/plain", "title": "t"},
        {"type": "source", "source": {"url": "https://example.com"}},
        {"type": "data-progress", "data": {"percent": 10}},
    ]
    assert shape(read(ui(STEP, *shown, said("Hi."))))[1:] == ["assistant: Hi."]
    data = {"role": "data", "content": "", "parts": [{"type": "data-x", "data": 1}]}
    record = ui(STEP, DONE)
    record["messages"].insert(1, data)
    assert len(read(record).messages) == 3


def test_ai_sdk_files_and_unknown_parts_are_refused_by_name():
    file = {"type": "file", "mediaType": "image/png", "url": "https://example.com/a.png"}
    assert "file" in refused(ui(STEP, file), "multimodal")
    record = {"messages": [{"role": "user", "parts": [said("What is this?"), file]}]}
    record["messages"] += ui(STEP, said("A cat."))["messages"][1:]
    refused(record, "multimodal")
    assert "messages[1].parts[1]: a part of type hologram" in refused(
        ui(STEP, {"type": "hologram"}), "bad_type"
    )


def test_ai_sdk_tool_invocations_without_parts():
    invocation = CALL | {"state": "result", "args": PARIS, "result": {"t": 12}}
    answer = {"role": "assistant", "content": "12 °C.", "toolInvocations": [invocation]}
    lines = [f"assistant: {PARIS_CALL}", 'tool: {"t": 12}', "assistant: 12 °C."]
    assert shape(read({"messages": [ASKED, answer]}, "ai_sdk"))[1:] == lines
    text_only = answer | {"parts": [said("12 °C.")]}
    assert shape(read({"messages": [ASKED, text_only]}))[1:] == lines
    in_parts = answer | {"parts": [{"type": "tool-invocation", "toolInvocation": invocation}]}
    assert shape(read({"messages": [ASKED, in_parts]}))[1:] == lines[:2]


def test_ai_sdk_tool_invocations_follow_their_steps():
    first = CALL | {"state": "result", "step": 0, "args": PARIS, "result": "12 °C"}
    second = first | {"toolCallId": "c2", "step": 1, "args": {"city": "Rome"}}
    answer = {"role": "assistant", "content": "Both 12 °C.", "toolInvocations": [first, second]}
    assert [line.split(":")[0] for line in shape(read({"messages": [ASKED, answer]}))] == [
        "user",
        *["assistant", "tool"] * 2,
        "assistant",
    ]


def test_ai_sdk_tool_invocations_that_wait_or_stream():
    waiting = CALL | {"state": "call", "args": PARIS}
    answer = {"role": "assistant", "content": "One moment.", "toolInvocations": [waiting]}
    assert shape(read({"messages": [ASKED, answer]}))[1:] == [
        f"assistant: One moment. {PARIS_CALL}"
    ]
    answer["toolInvocations"] = [waiting | {"state": "partial-call", "args": {}}]
    assert shape(read({"messages": [ASKED, answer]}))[1:] == ["(assistant: One moment.)"]


def model(output: object, **fields) -> dict:
    "A call with its result, as model messages"
    call = {"type": "tool-call", **CALL, "input": PARIS}
    result = {"type": "tool-result", **CALL, "output": output} | fields
    return {
        "messages": [
            ASKED,
            {"role": "assistant", "content": [said("One moment."), call]},
            {"role": "tool", "content": [result]},
            {"role": "assistant", "content": "Done."},
        ]
    }


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ({"type": "text", "value": "12 °C"}, "tool: 12 °C"),
        ({"type": "json", "value": {"type": "text"}}, 'tool: {"type": "text"}'),
        ({"type": "error-text", "value": "no such city"}, "tool: no such city !"),
        ({"type": "error-json", "value": {"code": 404}}, 'tool: {"code": 404} !'),
        ({"type": "execution-denied", "reason": "No"}, "tool: No !"),
        ({"type": "execution-denied"}, "tool: Tool execution denied. !"),
        ({"type": "content", "value": [said("12"), said("°C")]}, "tool: 12|°C"),
        ({"t": 12}, 'tool: {"t": 12}'),
        ("12 °C", "tool: 12 °C"),
        ({"type": "sunny"}, 'tool: {"type": "sunny"}'),
    ],
)
def test_ai_sdk_outputs_of_model_messages(output, line):
    conversation = read(model(output), "ai_sdk")
    assert shape(conversation)[1:3] == [f"assistant: One moment. {PARIS_CALL}", line]
    assert trained(conversation) == (1 if line.endswith("!") else 2)


def test_ai_sdk_results_with_media_are_refused():
    for kind in ("media", "image-data", "file-url", "file"):
        output = {"type": "content", "value": [said("See:"), {"type": kind, "data": "iVBO"}]}
        assert kind in refused(model(output), "multimodal")
    assert "image" in refused(model(None, experimental_content=[{"type": "image"}]), "multimodal")


def test_ai_sdk_errors_of_version_4_and_of_steps():
    old = {"type": "tool-result", **CALL, "result": "no such city", "isError": True}
    error = {"type": "tool-error", **CALL, "input": PARIS, "error": "no such city"}
    for part in (old, error):
        record = model(None)
        record["messages"][2]["content"] = [part]
        assert shape(read(record))[2] == "tool: no such city !"


def test_ai_sdk_denials_are_results():
    record = model(None)
    request = {"type": "tool-approval-request", "approvalId": "a", "toolCallId": "c1"}
    response = {"type": "tool-approval-response", "approvalId": "a", "approved": False}
    record["messages"][1]["content"].append(request)
    record["messages"][2]["content"] = [response]
    assert shape(read(record))[2] == "tool: Tool execution denied. !"
    given = record["messages"][2]["content"] + model("12 °C")["messages"][2]["content"]
    given[0] = given[0] | {"approved": True}
    record["messages"][2]["content"] = given
    assert shape(read(record))[2] == "tool: 12 °C"


def test_ai_sdk_model_messages_hold_hosted_calls_and_results():
    search = {"type": "tool-call", "toolCallId": "s1", "toolName": "search", "input": {}}
    found = {"type": "tool-result", "toolCallId": "s1", "output": {"type": "json", "value": []}}
    content = [search | {"providerExecuted": True}, found, said("Nothing.")]
    record = {"messages": [ASKED, {"role": "assistant", "content": content}]}
    assert shape(read(record, "ai_sdk"))[1:] == ["(assistant: Nothing.)"]
    invalid = {"type": "tool-call", **CALL, "input": PARIS, "invalid": True}
    record["messages"][1]["content"] = [invalid]
    assert shape(read(record))[1:] == [f"(assistant: {PARIS_CALL})"]


def test_ai_sdk_messages_of_mastra_and_assistant_ui():
    invocation = CALL | {"state": "result", "args": PARIS, "result": "12 °C"}
    parts = [STEP, {"type": "tool-invocation", "toolInvocation": invocation}, said("12 °C.")]
    mastra = {"role": "assistant", "content": {"format": 2, "parts": parts}, "threadId": "t"}
    call = {"type": "tool-call", **CALL, "args": PARIS, "argsText": "{}", "result": "12 °C"}
    for answer in (mastra, {"role": "assistant", "content": [call, said("12 °C.")]}):
        lines = shape(read({"messages": [ASKED, answer]}, "ai_sdk"))
        assert lines[1:] == [f"assistant: {PARIS_CALL}", "tool: 12 °C", "assistant: 12 °C."]


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "", "toolCalls": [CALL | {"input": PARIS}], "finishReason": "tool-calls"},
        {"content": "", "tool_calls": [CALL | {"args": PARIS}]},
        {"content": [{"type": "tool-call", **CALL, "input": '{"city": "Paris"}'}]},
        [{"type": "tool-call", **CALL, "input": '{"city":"Paris"}'}],
        [{"toolCallType": "function", **CALL, "args": '{"city":"Paris"}'}],
        json.dumps([CALL | {"input": PARIS}]),
        {"text": None, "toolCalls": json.dumps([CALL | {"input": PARIS}])},
    ],
)
@pytest.mark.parametrize("product", ["langfuse", "requests"])
def test_ai_sdk_answers_beside_their_request(answer, product):
    request = {"messages": [ASKED], "tools": [json.dumps(TOOL)]}
    if product == "langfuse":
        head = {"id": "o", "traceId": "t", "type": "GENERATION", "level": "DEFAULT"}
        record = head | {"input": request, "output": answer}
    else:
        record = {"request": request, "response": answer}
    conversation = read(record, product)
    assert shape(conversation) == ["user: Weather in Paris?", f"assistant: {PARIS_CALL}"]
    assert conversation.tools == [TOOL]


def test_ai_sdk_answers_of_several_steps():
    first = {"text": "", "toolCalls": [CALL | {"input": PARIS}]}
    first["toolResults"] = [CALL | {"input": PARIS, "output": "12 °C"}]
    answer = {"text": "12 °C.", "finishReason": "stop", "steps": [first, {"text": "12 °C."}]}
    conversation = read({"request": {"messages": [ASKED]}, "response": answer})
    lines = [f"assistant: {PARIS_CALL}", "tool: 12 °C", "assistant: 12 °C."]
    assert shape(conversation)[1:] == lines


def test_tools_may_be_texts_or_an_object_of_names():
    function = TOOL["function"]
    definition = {"description": function["description"], "inputSchema": function["parameters"]}
    wrapped = definition | {"inputSchema": {"jsonSchema": function["parameters"]}}
    for tools in (
        [json.dumps(TOOL)],
        [json.dumps(function)],
        json.dumps([json.dumps(TOOL)]),
        {"get_weather": definition},
        {"get_weather": wrapped},
    ):
        assert read(
            {"messages": [ASKED, {"role": "assistant", "content": "Hi."}], "tools": tools}
        ).tools == [TOOL]
    broken = {"messages": [ASKED, {"role": "assistant", "content": "Hi."}], "tools": ['{"name"']}
    assert "tools[0]" in refused(broken, "bad_type")


def ai_span(name: str, **attributes) -> dict:
    named = {"ai.operationId": name} | {
        "ai." + key.replace("__", "."): value for key, value in attributes.items()
    }
    return {"traceId": "t", "spanId": name, "name": name, "attributes": named}


PROMPT = json.dumps([ASKED])


def test_ai_sdk_spans_of_versions_3_to_7():
    for prefix in ("response", "result"):
        for calls in ([CALL | {"args": '{"city": "Paris"}'}], [CALL | {"input": PARIS}]):
            fields = {f"{prefix}__toolCalls": json.dumps(calls), f"{prefix}__text": "One moment."}
            record = ai_span("ai.streamText.doStream", prompt__messages=PROMPT, **fields)
            assert shape(read(record, "ai_sdk_spans"))[1:] == [
                f"assistant: One moment. {PARIS_CALL}"
            ]
    fields = {"response__object": '{"city": "Paris"}', "response__reasoning": "[Thinking]"}
    record = ai_span("ai.generateObject.doGenerate", prompt__messages=PROMPT, **fields)
    message = read(record).messages[1]
    assert message["content"] == '{"city": "Paris"}'
    assert message["reasoning_content"] == "[Thinking]"


def test_ai_sdk_spans_say_what_is_missing():
    call = "ai.generateText.doGenerate"
    answer = {"response__text": "Hi."}
    assert "recordInputs" in refused(ai_span(call, **answer), "no_content")
    assert "recordOutputs" in refused(ai_span(call, prompt__messages=PROMPT), "no_content")
    failed = ai_span(call, prompt__messages=PROMPT, response__finishReason="error", **answer)
    refused(failed, "failed_call")
    refused(ai_span(call, prompt__messages=PROMPT) | {"status": {"code": 2}}, "failed_call")
    for name in ("ai.generateText", "ai.toolCall", "ai.embed.doEmbed"):
        refused(ai_span(name, prompt="{}"), "other_span")


def test_ai_sdk_spans_keep_user_session_and_forced_choices():
    record = ai_span(
        "ai.generateText.doGenerate",
        prompt__messages=PROMPT,
        response__text="Hi.",
        prompt__toolChoice='{"type": "required"}',
        telemetry__metadata__userId="u1",
        telemetry__metadata__sessionId="s1",
        model__id="m",
    )
    conversation = read(record)
    facts = {key: conversation.meta[key] for key in ("user_id", "conversation_id", "model")}
    assert facts == {"user_id": "u1", "conversation_id": "s1", "model": "m"}
    assert conversation.turns == [] and conversation.meta["warnings"] == ["forced_call"]


def test_a_file_of_chats_is_read_from_the_disk(tmp_path):
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(json.dumps(ui(STEP, DONE, STEP, said(f"{n} °C."))) for n in range(3)))
    read_back = read_logs(path)
    assert [len(item.turns) for item in read_back.conversations] == [2, 2, 2]
    with suppress(ConversationError):
        find_adapter("ai_sdk")({"messages": []})
