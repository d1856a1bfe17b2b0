"""Records of frameworks and applications: what each part of their messages becomes.

One test a kind of message; each is small and made up around one tool.
"""

import html
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
    assert 'messages[1].parts[1]: unknown part "hologram"' in refused(
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


WIRE = {
    "id": "c1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": json.dumps(PARIS)},
}


def test_ag_ui_calls_results_and_errors():
    messages = [
        ASKED,
        {"id": "2", "role": "assistant", "content": None, "toolCalls": [WIRE]},
        {"id": "3", "role": "tool", "toolCallId": "c1", "content": "12 °C", "error": None},
        {"id": "4", "role": "assistant", "content": "12 °C.", "toolCalls": []},
    ]
    lines = [f"assistant: {PARIS_CALL}", "tool: 12 °C", "assistant: 12 °C."]
    assert shape(read({"messages": messages}, "ag_ui"))[1:] == lines
    for content in ("", None, "no such city"):
        messages[2] |= {"content": content, "error": "no such city"}
        assert shape(read({"messages": messages}))[2] == "tool: no such city !"


def test_ag_ui_activities_are_skipped_and_reasoning_joins_the_answer():
    messages = [
        ASKED,
        {"role": "activity", "activityType": "PLAN", "content": {"steps": []}},
        {"role": "reasoning", "content": "Use the tool."},
        {"role": "reasoning", "content": "", "encryptedValue": "x"},
        {"role": "assistant", "tool_calls": [WIRE]},
    ]
    conversation = read({"threadId": "t", "messages": messages}, "ag_ui")
    assert shape(conversation)[1:] == [f"assistant: {PARIS_CALL}"]
    assert conversation.messages[1]["reasoning_content"] == "Use the tool."
    assert conversation.meta["warnings"] == ["reasoning_left_out"]
    assert conversation.meta["conversation_id"] == "t"


def test_ag_ui_snapshots_are_read_and_other_events_refused():
    answer = {"role": "assistant", "content": "Hi.", "toolCalls": None}
    assert read({"type": "MESSAGES_SNAPSHOT", "messages": [ASKED, answer]}, "ag_ui")
    for kind in ("RUN_STARTED", "TEXT_MESSAGE_CONTENT", "TOOL_CALL_START", "STATE_DELTA"):
        assert "one event" in refused({"type": kind, "delta": "x"}, "missing_history")


def test_ag_ui_users_with_files_are_refused():
    picture = {"type": "binary", "mimeType": "image/png", "data": "iVBO"}
    user = {"role": "user", "content": [said("Which city?"), picture]}
    answer = {"role": "assistant", "toolCalls": [WIRE]}
    refused({"messages": [user, answer]}, "multimodal")


def details(body: str = "", **attributes: str) -> str:
    fields = {"type": "tool_calls", "done": "true", "id": "c1", "name": "get_weather"}
    fields |= {"arguments": '"{\\"city\\": \\"Paris\\"}"', "result": '"12 °C"'}
    fields |= attributes
    written = " ".join(
        f'{name}="{html.escape(value)}"' for name, value in fields.items() if value is not None
    )
    return f"<details {written}>\n<summary>Tool Executed</summary>{body}\n</details>\n"


def web_chat(content: str, **message) -> dict:
    answer = {"id": "b", "parentId": "a", "childrenIds": [], "role": "assistant"}
    user = {"id": "a", "parentId": None, "childrenIds": ["b"]} | ASKED
    return {"id": "w", "messages": [user, answer | {"content": content} | message]}


ANSWERED = [f"assistant: {PARIS_CALL}", "tool: 12 °C", "assistant: 12 °C."]


@pytest.mark.parametrize(
    "element",
    [
        details(),
        details(arguments=json.dumps(PARIS), files="", embeds="[]"),
        details("\n12 °C", result=None),
        details(
            content=json.dumps([WIRE]),
            results=json.dumps([{"tool_call_id": "c1", "content": "12 °C"}]),
        ),
    ],
)
def test_open_webui_calls_in_html(element):
    assert shape(read(web_chat(element + "12 °C."), "open_webui"))[1:] == ANSWERED


def test_open_webui_waiting_calls_reasoning_and_several_steps():
    waiting = details(done="false", result=None)
    assert shape(read(web_chat("One moment.\n" + waiting)))[1:] == [
        f"assistant: One moment. {PARIS_CALL}"
    ]
    thought = '<details type="reasoning" done="true" duration="1">\n<summary>Thought</summary>\n'
    thought += "&gt; Is it 5 &lt; 6?\n&gt; Yes.\n</details>\n"
    rome = details(id="c2", arguments='{"city": "Rome"}', result='"19 °C"')
    conversation = read(web_chat(thought + details() + "And Rome.\n" + rome + "12 and 19 °C."))
    assert shape(conversation)[1:] == [
        *ANSWERED[:2],
        'assistant: And Rome. get_weather(city="Rome")',
        "tool: 19 °C",
        "assistant: 12 and 19 °C.",
    ]
    assert conversation.messages[1]["reasoning_content"] == "Is it 5 < 6?\nYes."


@pytest.mark.parametrize(
    ("content", "message", "code"),
    [
        ('<details type="code_interpreter" done="true">1</details>\nOne.', {}, "hosted_tool"),
        ('<details type="weather_card">x</details>\nOne.', {}, "markup_left_out"),
        ('One.\n<details type="tool_calls" done="true" id="c1"', {}, "markup_left_out"),
        ("One.", {"error": {"content": "500"}}, "failed_answer"),
        ("One.", {"done": False}, "unfinished_turn"),
        ("One.", {"sources": [{"source": {"name": "a.pdf"}}]}, "hidden_context"),
    ],
)
def test_open_webui_answers_without_loss(content, message, code):
    conversation = read(web_chat(content, **message))
    assert shape(conversation)[1:] == ["(assistant: One.)"]
    assert conversation.meta["warnings"] == [code]


def test_open_webui_items_beside_the_html_are_preferred():
    output = [
        {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [said("12 °C")]},
        {"type": "message", "role": "assistant", "content": [said("12 °C.")]},
    ]
    lines = shape(read(web_chat(details() + "12 °C.", output=output), "open_webui"))
    assert lines[1:] == ["assistant: get_weather()", *ANSWERED[1:]]


def test_open_webui_branches_files_and_systems():
    chat = web_chat(details() + "12 °C.")
    nodes = {message["id"]: message for message in chat["messages"]}
    nodes["c"] = nodes["b"] | {"id": "c", "content": "I can't."}
    inner = {"history": {"messages": nodes, "currentId": "c"}, "system": "Be brief."}
    lines = shape(read({"id": "w", "chat": inner}, "open_webui"))
    assert lines == ["system: Be brief.", "user: Weather in Paris?", "assistant: I can't."]
    inner["history"]["currentId"] = "b"
    assert shape(read({"chat": inner}))[2:] == ANSWERED
    nodes["a"]["parentId"] = "b"  # a circle ends
    assert read({"chat": inner})
    refused(web_chat(details(files='["data:image/png"]') + "12 °C."), "multimodal")
    chat["messages"][0]["files"] = [{"type": "file", "name": "a.pdf"}]
    refused(chat, "multimodal")


def pydantic(*responses: list, **last) -> dict:
    "A history of alternating requests and responses"
    kinds = ("request", "response")
    first = [{"part_kind": "user-prompt", "content": ASKED["content"]}]
    messages = [
        {"kind": kinds[n % 2], "parts": parts} for n, parts in enumerate([first, *responses])
    ]
    messages[-1] |= last
    return {"messages": messages}


ARGS = {"part_kind": "tool-call", "tool_name": "get_weather", "args": PARIS, "tool_call_id": "c1"}
RETURN = {
    "part_kind": "tool-return",
    "tool_name": "get_weather",
    "content": "12 °C",
    "tool_call_id": "c1",
}
WORDS = {"part_kind": "text", "content": "12 °C."}


@pytest.mark.parametrize(
    ("part", "line"),
    [
        (RETURN, "tool: 12 °C"),
        (RETURN | {"outcome": "success", "content": {"t": 12}}, 'tool: {"t": 12}'),
        (RETURN | {"outcome": "failed"}, "tool: 12 °C !"),
        (RETURN | {"outcome": "denied", "content": "No"}, "tool: No !"),
        (RETURN | {"part_kind": "retry-prompt", "content": "again"}, "tool: again !"),
        (
            RETURN | {"part_kind": "retry-prompt", "content": [{"loc": ["city"]}]},
            'tool: [{"loc": ["city"]}] !',
        ),
    ],
)
def test_pydantic_ai_results(part, line):
    conversation = read(pydantic([ARGS], [part], [WORDS]), "pydantic_ai")
    assert shape(conversation)[1:] == [f"assistant: {PARIS_CALL}", line, "assistant: 12 °C."]
    assert trained(conversation) == (1 if line.endswith("!") else 2)


def test_pydantic_ai_retries_without_a_tool_reject_the_answer():
    retry = {"part_kind": "retry-prompt", "content": "a number, please", "tool_name": None}
    conversation = read(pydantic([WORDS], [retry], [WORDS | {"content": "12"}]))
    assert shape(conversation)[1:] == [
        "(assistant: 12 °C.)",
        "user: a number, please",
        "assistant: 12",
    ]


def test_pydantic_ai_responses_that_are_cut_or_hosted():
    cut = read(pydantic([WORDS], finish_reason="length"))
    assert cut.turns == [] and cut.meta["warnings"] == ["unfinished_turn"]
    hosted = {"part_kind": "builtin-tool-call", "tool_name": "web_search", "args": {}}
    conversation = read(pydantic([hosted, WORDS]))
    assert shape(conversation)[1:] == ["(assistant: 12 °C.)"]
    thinking = {"part_kind": "thinking", "content": "", "signature": "x"}
    assert read(pydantic([thinking, WORDS])).meta["warnings"] == ["reasoning_left_out"]
    refused(pydantic([{"part_kind": "compaction", "content": None}]), "missing_history")
    refused(pydantic([{"part_kind": "file", "content": {}}]), "multimodal")
    assert "'hologram'" in refused(pydantic([{"part_kind": "hologram"}]), "bad_type").replace(
        '"', "'"
    )


def test_pydantic_ai_prompts_instructions_and_files():
    record = pydantic([WORDS])
    record["messages"][0]["instructions"] = "Be brief."
    assert shape(read(record))[0] == "system: Be brief."
    prompt = ["Weather", {"kind": "cache-point"}, "in Paris?"]
    record["messages"][0]["parts"] = [{"part_kind": "user-prompt", "content": prompt}]
    assert shape(read({"all_messages": record["messages"]}))[1] == "user: Weather|in Paris?"
    for kind in ("image-url", "binary"):
        prompt[1] = {"kind": kind}
        assert kind in refused(record, "multimodal")
    refused(pydantic([ARGS], [RETURN | {"content": [{"kind": "binary"}]}], [WORDS]), "multimodal")
    assert "Pydantic AI" in refused(record["messages"][1], "missing_history")


def autogen(*messages: dict) -> dict:
    task = {"type": "TextMessage", "source": "user", "content": ASKED["content"]}
    return {"messages": [task, *({"source": "agent"} | message for message in messages)]}


REQUEST = {"type": "ToolCallRequestEvent", "content": [{"id": "c1", **WIRE["function"]}]}
EXECUTION = {
    "type": "ToolCallExecutionEvent",
    "content": [{"call_id": "c1", "name": "get_weather", "content": "12 °C", "is_error": False}],
}


def test_autogen_calls_results_and_errors():
    conversation = read(autogen(REQUEST, EXECUTION), "autogen")
    assert shape(conversation)[1:] == [f"assistant: {PARIS_CALL}", "tool: 12 °C"]
    failed = EXECUTION | {"content": [EXECUTION["content"][0] | {"is_error": True}]}
    assert trained(read(autogen(REQUEST, failed))) == 0
    assert "results are a list" in refused(
        autogen(REQUEST, EXECUTION | {"content": None}), "bad_type"
    )


def test_autogen_messages_without_the_model_carry_no_loss():
    summary = {"type": "ToolCallSummaryMessage", "content": "12 °C"}
    handoff = {"type": "HandoffMessage", "content": "Over to you.", "target": "b"}
    chunk = {"type": "ModelClientStreamingChunkEvent", "content": "12"}
    stop = {"type": "StopMessage", "content": "TERMINATE"}
    conversation = read(autogen(REQUEST, EXECUTION, summary, chunk, handoff, stop))
    assert shape(conversation)[3:] == ["(assistant: 12 °C|Over to you.)"]


def test_autogen_thoughts_memories_pictures_and_unknown_types():
    thought = {"type": "ThoughtEvent", "content": "Use the tool."}
    memory = {"type": "MemoryQueryEvent", "content": [{"content": "She likes °F."}]}
    conversation = read(autogen(memory, thought, REQUEST))
    assert shape(conversation)[1] == "system: She likes °F."
    assert conversation.messages[2]["reasoning_content"] == "Use the tool."
    picture = {"type": "MultiModalMessage", "source": "user", "content": ["See", {"data": "iVBO"}]}
    refused(autogen(picture, REQUEST), "multimodal")
    assert "CodeExecutionEvent" in refused(autogen({"type": "CodeExecutionEvent"}), "bad_type")
    structured = {"type": "StructuredMessage[Weather]", "content": {"t": 12}}
    assert shape(read(autogen(structured)))[1] == 'assistant: {"t": 12}'


def test_autogen_model_contexts():
    context = [
        {"type": "SystemMessage", "content": "Be brief."},
        {"type": "UserMessage", "source": "user", "content": ASKED["content"]},
        {
            "type": "AssistantMessage",
            "source": "a",
            "content": REQUEST["content"],
            "thought": "Hm.",
        },
        {"type": "FunctionExecutionResultMessage", "content": EXECUTION["content"]},
        {"type": "AssistantMessage", "source": "a", "content": "12 °C.", "thought": None},
    ]
    lines = shape(read({"messages": context}, "autogen"))
    assert lines == ["system: Be brief.", "user: Weather in Paris?", *ANSWERED]


def smol(*pairs: tuple[str, str]) -> dict:
    messages = [{"role": role, "content": [said(text)]} for role, text in pairs]
    return {"messages": [ASKED, *messages]}


def calling(*cities: str) -> tuple[str, str]:
    calls = [
        {
            "id": f"c{n}",
            "type": "function",
            "function": {"name": "get_weather", "arguments": {"city": city}},
        }
        for n, city in enumerate(cities)
    ]
    return "tool-call", f"Calling tools:\n{calls}"


def test_smolagents_words_call_and_result():
    record = smol(
        ("assistant", "I look."),
        calling("Paris"),
        ("tool-response", "Observation:\n12 °C"),
        ("assistant", "12 °C."),
    )
    lines = shape(read(record, "smolagents"))
    assert lines[1:] == [f"assistant: I look. {PARIS_CALL}", *ANSWERED[1:]]
    assert read(record) == read(record)  # the record is not changed


def test_smolagents_errors_and_calls_that_share_a_result():
    error = ("tool-response", "Call id: c0\nError:\nno such city\nNow let's retry")
    conversation = read(smol(calling("Pris"), error, calling("Paris"), ("tool-response", "12")))
    assert [message.get("is_error") for message in conversation.messages[2::2]] == [True, None]
    both = read(smol(calling("Paris", "Rome"), ("tool-response", "Observation:\n12\n19")))
    assert shape(both)[1:] == [f'assistant: {PARIS_CALL} get_weather(city="Rome")', "tool: 12|19"]
    again = smol(
        calling("Paris", "Rome"),
        ("tool-response", "12\n19"),
        calling("Oslo"),
        ("tool-response", "4"),
    )
    results = [m for m in read(again).messages if m["role"] == "tool"]
    assert [m["content"] for m in results] == ["12\n19", "4"]
    assert results[1]["tool_call_id"] == read(again).calls()[-1].id


def test_smolagents_code_is_text():
    code = [{"id": "c1", "function": {"name": "python_interpreter", "arguments": "print(1)"}}]
    record = smol(
        ("assistant", "<code>print(1)</code>"),
        ("tool-call", f"Calling tools:\n{code}"),
        ("tool-response", "Observation:\n1"),
        ("assistant", "One."),
    )
    assert shape(read(record))[1:] == [
        "assistant: <code>print(1)</code>",
        "user: 1",
        "assistant: One.",
    ]


def test_smolagents_steps():
    step = {
        "step_number": 1,
        "model_output": "I look.",
        "tool_calls": [WIRE | {"function": {"name": "get_weather", "arguments": PARIS}}],
        "observations": None,
        "error": {"type": "AgentToolCallError", "message": "no such city"},
    }
    record = {"steps": [{"system_prompt": "Be brief."}, {"task": "Paris?"}, step]}
    assert shape(read(record, "smolagents"))[2:] == [
        f"assistant: I look. {PARIS_CALL}",
        "tool: Error:|no such city !",
    ]
    step["observations_images"] = ["iVBO"]
    refused(record, "multimodal")


def rollout(**fields) -> dict:
    record = {"example_id": 0, "prompt": [ASKED], "reward": 0.5, "info": {"oai_tools": [TOOL]}}
    completion = [
        {"role": "assistant", "content": "", "tool_calls": [json.dumps(WIRE)]},
        {"role": "tool", "tool_call_id": "c1", "content": "12 °C"},
        {"role": "assistant", "content": "12 °C."},
    ]
    return record | {"completion": completion} | fields


def test_verifiers_tools_calls_and_scores():
    for fields in (
        {},
        {"info": json.dumps({"oai_tools": [TOOL]})},
        {"info": {"oai_tools": json.dumps([TOOL])}},
        {"info": {}, "tool_defs": [TOOL["function"]]},
        {"info": None, "tool_defs": [TOOL["function"] | {"strict": None}]},
    ):
        conversation = read(rollout(**fields), "verifiers")
        assert shape(conversation)[1:] == ANSWERED
        assert conversation.tools[0]["function"]["parameters"] == TOOL["function"]["parameters"]
        assert conversation.meta["scores"] == {"reward": 0.5}
    metrics = read(rollout(metrics={"num_turns": 2, "note": "x"})).meta["scores"]
    assert metrics == {"reward": 0.5, "num_turns": 2}


def test_verifiers_rollouts_that_end_early():
    assert trained(read(rollout(is_truncated=True))) == 1
    assert trained(read(rollout(error={"error": "ToolError"}))) == 1
    refused(rollout(completion=[]), "no_content")
    refused(rollout(completion=None), "no_content")
    broken = rollout()
    broken["completion"][0]["tool_calls"] = ['{"id"']
    assert "completion[0].tool_calls[0]" in refused(broken, "bad_type")


def test_verifiers_texts_in_place_of_messages():
    conversation = read(rollout(prompt="Weather in Paris?", completion="12 °C."), "verifiers")
    assert shape(conversation) == ["user: Weather in Paris?", "assistant: 12 °C."]


def test_kiln_traces_ratings_and_repairs():
    trace = [ASKED, *rollout()["completion"]]
    trace[1] = trace[1] | {"tool_calls": [WIRE]}
    run = {"model_type": "task_run", "input": "x", "output": {"output": "12 °C."}, "trace": trace}
    conversation = read(run, "kiln")
    assert shape(conversation)[1:] == ANSWERED and "scores" not in conversation.meta
    rated = run | {"output": {"rating": {"type": "pass_fail", "value": 1}}}
    assert read(rated).meta["scores"] == {"rating": 1.0}
    repaired = read(run | {"repair_instructions": "In °F."})
    assert shape(repaired)[-1] == "(assistant: 12 °C.)"
    for missing in (None, []):
        assert "trace" in refused(run | {"trace": missing}, "no_content")


def chain(kind: str, **fields) -> list[dict]:
    "A message of LangChain in its three ways of writing"
    name = {"human": "Human", "ai": "AI", "tool": "Tool"}[kind] + "Message"
    ids = ["langchain", "schema", "messages", name]
    return [
        {"type": kind, **fields},
        {"type": kind, "data": {"type": kind, **fields}},
        {"lc": 1, "type": "constructor", "id": ids, "kwargs": fields},
    ]


@pytest.mark.parametrize("way", range(3))
def test_langchain_messages_at_the_top(way):
    call = {"name": "get_weather", "args": PARIS, "id": "c1", "type": "tool_call"}
    messages = [
        chain("human", content=ASKED["content"])[way],
        chain("ai", content="", tool_calls=[call], additional_kwargs={})[way],
        chain("tool", content="no such city", tool_call_id="c1", status="error")[way],
        chain("ai", content="No.", response_metadata={"finish_reason": "length"})[way],
    ]
    conversation = read({"thread_id": "t", "messages": messages, "tools": [TOOL]}, "langchain")
    assert shape(conversation)[1:] == [
        f"assistant: {PARIS_CALL}",
        "tool: no such city !",
        "assistant: No.",
    ]
    assert trained(conversation) == 0 and conversation.tools == [TOOL]
    removed = [*messages, {"type": "remove", "content": "", "id": "1"}]
    assert read({"messages": [removed]}).messages == conversation.messages


def test_llamafactory_roles_in_messages():
    messages = [
        ASKED,
        {
            "role": "function_call",
            "content": json.dumps([{"name": "get_weather", "arguments": PARIS}]),
        },
        {"role": "observation", "content": "12 °C"},
        {"role": "assistant", "content": "12 °C."},
    ]
    conversation = read({"messages": messages, "tools": json.dumps([TOOL])}, "sharegpt")
    assert shape(conversation)[1:] == ANSWERED and conversation.tools == [TOOL]
    messages[2]["role"] = "function_response"
    assert shape(read({"messages": messages}))[1:] == ANSWERED


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images", ["iVBORw0KGgo="]),
        ("image", "a.png"),
        ("videos", ["a.mp4"]),
        ("attachments", [{"id": "f1", "type": "image/png"}]),
        ("experimental_attachments", [{"url": "https://example.com/a.png"}]),
        ("files", [{"type": "image", "url": "a.png"}]),
        ("audio", {"id": "a1", "transcript": "Hi"}),
    ],
)
def test_attachments_beside_the_content_are_refused(key, value):
    answer = {"role": "assistant", "content": None, "tool_calls": [WIRE]}
    asked = ASKED | {key: value}
    assert key in refused({"messages": [asked, answer]}, "multimodal")
    request = {"request": {"messages": [asked]}, "response": answer}
    assert key in refused(request, "multimodal")
    for nothing in (None, [], ""):
        assert read({"messages": [ASKED | {key: nothing}, answer], key: nothing})
    if key not in ("files", "audio"):
        assert key in refused({"messages": [ASKED, answer], key: value}, "multimodal")
