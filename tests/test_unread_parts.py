"What no adapter reads of a message, a part, an item or a call is counted, masked or refused"

import copy
import json
import re

import pytest
from goldens import ANSWER, CALLS, GOLDENS, RESULTS, TOOL, USER, WIRE_CALLS

from toolcall.errors import ConversationError
from toolcall.formats.registry import expand, find_adapter

SAID = [{"type": "text", "text": ANSWER["content"]}]
OTEL = [
    {"role": "user", "parts": [{"type": "text", "content": USER["content"]}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": call["id"], **call["function"]} for call in CALLS],
    },
    {
        "role": "tool",
        "parts": [
            {"type": "tool_call_response", "id": m["tool_call_id"], "response": m["content"]}
            for m in RESULTS
        ],
    },
]
LANGCHAIN = [
    {"type": "human", "content": USER["content"]},
    {
        "type": "ai",
        "content": "",
        "additional_kwargs": {"refusal": None},
        "tool_calls": [{"id": c["id"], "args": {}, "name": "get_weather"} for c in CALLS],
    },
    *(
        {"type": "tool", "content": m["content"], "tool_call_id": m["tool_call_id"]}
        for m in RESULTS
    ),
]
CALLED = {"role": "assistant", "content": None, "tool_calls": WIRE_CALLS}
PHOENIX = [
    {"message": {"role": "user", "content": USER["content"]}},
    {
        "message": {
            "role": "assistant",
            "contents": [{"message_content": {"type": "text", "text": "One moment."}}],
            "tool_calls": [{"tool_call": call} for call in WIRE_CALLS],
        }
    },
    *({"message": m} for m in RESULTS),
]
THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"}
STEPS = [
    {"step_id": 1, "source": "user", "message": USER["content"]},
    {
        "step_id": 2,
        "source": "agent",
        "message": "",
        "tool_calls": [
            {"tool_call_id": c["id"], "function_name": "get_weather", "arguments": {}}
            for c in CALLS
        ],
        "observation": {
            "results": [
                {"source_call_id": m["tool_call_id"], "content": m["content"]} for m in RESULTS
            ]
        },
    },
    {"step_id": 3, "source": "agent", "message": ANSWER["content"]},
]
MEMORY = [
    {"task": USER["content"]},
    {
        "step_number": 1,
        "tool_calls": [{"id": "c", "type": "function", "function": CALLS[0]["function"]}],
        "observations": "12 °C",
    },
    {"step_number": 2, "tool_calls": [], "model_output": ANSWER["content"]},
]
SHARE = [
    {"from": "human", "value": USER["content"]},
    {"from": "function_call", "value": json.dumps(CALLS[0]["function"])},
    {"from": "observation", "value": "12 °C"},
    {"from": "gpt", "value": ANSWER["content"]},
]
WRITTEN = [
    SHARE[0],
    {"from": "assistant", "value": '[get_weather(city="Paris")]'},
    {"from": "tool", "value": '[{"name": "get_weather", "results": {"t": 12}}]'},
    {"from": "assistant", "value": ANSWER["content"]},
]
RECORDS = {name: record for name, (_, record, _) in GOLDENS.items()} | {
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": USER["content"]}]},
            CALLED,
            *(m | {"content": [{"type": "text", "text": m["content"]}]} for m in RESULTS),
            {"role": "assistant", "content": SAID},
        ]
    },
    "thoughts": {
        "input": USER["content"],
        "output": [THOUGHT, *GOLDENS["responses"][1]["output"]],
        "object": "response",
        "status": "completed",
    },
    "otel": {
        "attributes": {
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": OTEL,
            "gen_ai.output.messages": [
                {"role": "assistant", "parts": [{"type": "text", "content": ANSWER["content"]}]}
            ],
        }
    },
    "otel events": {
        "attributes": {"gen_ai.operation.name": "chat"},
        "events": [
            {"name": "gen_ai.user.message", "attributes": {"content": USER["content"]}},
            {"name": "gen_ai.choice", "attributes": {"message": {"content": ANSWER["content"]}}},
        ],
    },
    "openinference": {
        "attributes": {
            "openinference": {"span": {"kind": "LLM"}},
            "llm": {
                "input_messages": PHOENIX,
                "output_messages": [{"message": ANSWER}],
            },
        }
    },
    "langfuse": {
        "type": "GENERATION",
        "traceId": "t",
        "input": LANGCHAIN,
        "output": {"role": "assistant", "content": ANSWER["content"]},
    },
    "langsmith": {
        "run_type": "llm",
        "id": "r",
        "inputs": {"messages": [LANGCHAIN]},
        "outputs": {"generations": [[{"message": {"type": "ai", "content": SAID}}]]},
    },
    "atif": {"schema_version": "ATIF-v1.5", "steps": STEPS},
    "smolagents steps": {"steps": MEMORY},
    "sharegpt": {"conversations": SHARE, "tools": json.dumps([TOOL["function"]])},
    "toolace": {"system": json.dumps(TOOL["function"]), "conversations": WRITTEN},
    "xlam": {
        "query": USER["content"],
        "tools": [TOOL["function"]],
        "answers": [CALLS[0]["function"]],
    },
}

# A golden record and the place of an object in it → the path under which its keys are counted
PLACES = {
    ("fine-tuning", "messages[0]"): "",
    ("fine-tuning", "messages[1]"): "",
    ("fine-tuning", "messages[1].tool_calls[0]"): "tool_calls[].",
    ("fine-tuning", "messages[1].tool_calls[0].function"): "tool_calls[].function.",
    ("fine-tuning", "messages[2]"): "",
    ("parts", "messages[0].content[0]"): "content[].",
    ("parts", "messages[2].content[0]"): "content[].",
    ("parts", "messages[4].content[0]"): "content[].",
    ("anthropic", "messages[1]"): "",
    ("anthropic", "messages[1].content[0]"): "content[].",
    ("anthropic", "messages[2].content[0]"): "content[].",
    ("anthropic", "messages[3].content[0]"): "content[].",
    ("anthropic pair", "response.content[0]"): "content[].",
    ("responses", "input[0]"): "",
    ("responses", "input[0].content[0]"): "content[].",
    ("responses", "input[1]"): "tool_calls[].",
    ("responses", "input[3]"): "",
    ("responses", "output[0]"): "",
    ("responses", "output[0].content[0]"): "content[].",
    ("thoughts", "output[0]"): "reasoning.",
    ("gemini", "contents[0]"): "",
    ("gemini", "contents[1].parts[0]"): "parts[].",
    ("gemini", "contents[1].parts[0].functionCall"): "tool_calls[].functionCall.",
    ("gemini", "contents[2]"): "",
    ("gemini", "contents[2].parts[0]"): "parts[].",
    ("gemini", "contents[2].parts[0].functionResponse"): "parts[].functionResponse.",
    ("gemini", "candidates[0].content.parts[0]"): "parts[].",
    ("bedrock log", "input.inputBodyJson.messages[0].content[0]"): "content[].",
    ("bedrock log", "input.inputBodyJson.messages[1].content[0]"): "content[].",
    ("bedrock log", "input.inputBodyJson.messages[1].content[0].toolUse"): "content[].toolUse.",
    ("bedrock log", "input.inputBodyJson.messages[2].content[0]"): "content[].",
    (
        "bedrock log",
        "input.inputBodyJson.messages[2].content[0].toolResult",
    ): "content[].toolResult.",
    ("ai_sdk ui messages", "messages[1]"): "",
    ("ai_sdk ui messages", "messages[1].parts[1]"): "parts[].",
    ("ai_sdk ui messages", "messages[1].parts[4]"): "parts[].",
    ("ai_sdk tool invocations", "messages[1]"): "",
    ("ai_sdk tool invocations", "messages[1].toolInvocations[0]"): "parts[].",
    ("ai_sdk model messages", "messages[1].content[0]"): "parts[].",
    ("ai_sdk model messages", "messages[2]"): "",
    ("ai_sdk model messages", "messages[2].content[0]"): "content[].",
    ("langchain", "messages[1].data"): "",
    ("langchain", "messages[1].data.tool_calls[0]"): "tool_calls[].",
    ("langchain", "messages[2].data"): "",
    ("langfuse", "input[0]"): "",
    ("langfuse", "input[1].additional_kwargs"): "additional_kwargs.",
    ("langfuse", "input[1].tool_calls[0]"): "tool_calls[].",
    ("langsmith", "inputs.messages[0][1]"): "",
    ("langsmith", "inputs.messages[0][2]"): "",
    ("langsmith", "outputs.generations[0][0].message.content[0]"): "content[].",
    ("openinference", "attributes.llm.input_messages[0].message"): "",
    ("openinference", "attributes.llm.input_messages[1].message"): "",
    (
        "openinference",
        "attributes.llm.input_messages[1].message.contents[0].message_content",
    ): "content[].",
    (
        "openinference",
        "attributes.llm.input_messages[1].message.tool_calls[0].tool_call",
    ): "tool_calls[].",
    ("otel", "attributes.gen_ai!input!messages[0]"): "",
    ("otel", "attributes.gen_ai!input!messages[0].parts[0]"): "parts[].",
    ("otel", "attributes.gen_ai!input!messages[1].parts[0]"): "parts[].",
    ("otel", "attributes.gen_ai!input!messages[2]"): "",
    ("otel", "attributes.gen_ai!input!messages[2].parts[0]"): "parts[].",
    ("otel events", "events[0].attributes"): "",
    ("otel events", "events[1].attributes"): "",
    ("ag_ui", "messages[1]"): "",
    ("ag_ui", "messages[1].toolCalls[0]"): "tool_calls[].",
    ("ag_ui", "messages[2]"): "",
    ("open_webui", "chat.history.messages.a"): "",
    ("open_webui", "chat.history.messages.b"): "",
    ("pydantic_ai", "messages[1]"): "",
    ("pydantic_ai", "messages[0].parts[0]"): "parts[].",
    ("pydantic_ai", "messages[1].parts[0]"): "parts[].",
    ("pydantic_ai", "messages[2].parts[0]"): "parts[].",
    ("autogen", "messages[1]"): "",
    ("autogen", "messages[1].content[0]"): "tool_calls[].",
    ("autogen", "messages[2].content[0]"): "",
    ("smolagents", "messages[1]"): "",
    ("smolagents", "messages[2]"): "",
    ("smolagents steps", "steps[1]"): "",
    ("atif", "steps[1]"): "",
    ("atif", "steps[1].tool_calls[0]"): "tool_calls[].",
    ("atif", "steps[1].observation.results[0]"): "observation.results[].",
    ("sharegpt", "conversations[0]"): "",
    ("sharegpt", "conversations[1]"): "",
    ("sharegpt", "conversations[2]"): "",
    ("toolace", "conversations[1]"): "",
    ("toolace", "conversations[2]"): "",
    ("xlam", "answers[0]"): "tool_calls[].",
    ("chunks", "response[0].choices[0].delta"): "",
    ("chunks", "response[1].choices[0].delta.tool_calls[0]"): "tool_calls[].",
    ("chunks", "response[2].choices[0].delta.tool_calls[0].function"): "tool_calls[].function.",
    ("anthropic stream", "response[0].message"): "",
    ("anthropic stream", "response[1].content_block"): "content[].",
    ("anthropic stream", "response[2].delta"): "content[].",
    ("responses stream", "response[1].item"): "",
    ("gemini stream", "response[0].candidates[0]"): "",
    ("gemini stream", "response[0].candidates[0].content"): "",
    ("gemini stream", "response[0].candidates[0].content.parts[0]"): "parts[].",
    ("bedrock log", "output.outputBodyJson[1].contentBlockDelta.delta"): "content[].",
    ("kiln", "trace[1].tool_calls[0]"): "tool_calls[].",
    ("verifiers", "completion[1]"): "",
    ("ollama", "response.message"): "",
    ("cohere", "response.message.content[0]"): "content[].",
    ("litellm", "messages[1].tool_calls[0]"): "tool_calls[].",
    ("weave", "output.choices[0].message"): "",
    ("openai agents", "span_data.output[0]"): "",
}


def planted(name: str, place: str, key: str, value: object) -> dict:
    "A record with a foreign key in one of its objects"
    record = node = copy.deepcopy(RECORDS[name])
    for step in re.findall(r"[^.\[\]]+", place):
        node = node[int(step) if step.isdigit() else step.replace("!", ".")]
    assert key not in node
    node[key] = value
    return record


def read(record: dict, ignore: tuple[str, ...] = ()):
    [(_, part)] = expand(record)
    return find_adapter("auto", ignore)(part)


def unread_parts(conversation) -> dict[str, int]:
    unread = conversation.meta.get("unread", {})
    return {path: count for path, count in unread.items() if path.startswith("messages[")}


@pytest.mark.parametrize("name", RECORDS)
def test_a_golden_record_is_read_whole(name):
    assert unread_parts(read(copy.deepcopy(RECORDS[name]))) == {}


@pytest.mark.parametrize("name, place", PLACES)
def test_a_foreign_key_without_a_meaning_is_counted(name, place):
    conversation = read(planted(name, place, "colour", "blue"))
    assert list(unread_parts(conversation)) == [f"messages[].{PLACES[name, place]}colour"]
    assert conversation.messages == read(copy.deepcopy(RECORDS[name])).messages


@pytest.mark.parametrize("name, place", PLACES)
def test_a_foreign_key_with_a_meaning_is_masked_or_refused(name, place):
    whole = read(copy.deepcopy(RECORDS[name]))
    record = planted(name, place, "tool_outputs", [{"t": 12}])
    try:
        conversation = read(record)
    except ConversationError as error:
        assert error.code == "unread_field" and "tool_outputs" in str(error)
    else:
        assert len(conversation.turns) < len(whole.turns)
        assert "unread_field" in conversation.meta["warnings"]
    assert read(record, ("tool_outputs",)).turns == whole.turns


@pytest.mark.parametrize("name, place", PLACES)
def test_media_in_any_object_refuse_the_record(name, place):
    with pytest.raises(ConversationError) as caught:
        read(planted(name, place, "videos", ["a.mp4"]))
    assert caught.value.code == "multimodal" and "videos" in str(caught.value)


CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKED = {"role": "user", "content": "Which tide?"}
TOLD = {"role": "assistant", "content": "Low tide."}


def chat(*messages: dict) -> dict:
    return {"messages": [ASKED, *messages]}


@pytest.mark.parametrize(
    "call",
    [CALL | {"result": "low"}, CALL | {"function": CALL["function"] | {"output": "low"}}],
)
def test_a_result_inside_of_a_call_masks_what_rests_on_it(call):
    conversation = read(chat({"role": "assistant", "content": None, "tool_calls": [call]}, TOLD))
    assert conversation.turns == [] and conversation.meta["warnings"] == ["unread_field"]


def test_a_call_with_an_error_carries_no_loss():
    call = {"role": "assistant", "content": None, "tool_calls": [CALL | {"error": "no such tool"}]}
    result = {"role": "tool", "tool_call_id": "c", "content": "?"}
    assert read(chat(call, result, TOLD)).turns == [3]


def test_calls_in_an_unknown_object_beside_the_text_are_found():
    words = {"role": "assistant", "content": "One moment.", "extras": {"tool_calls": [CALL]}}
    conversation = read(chat(words, ASKED, TOLD))
    assert conversation.turns == [3]
    assert conversation.meta["unread"]["messages[].extras.tool_calls"] == 1


@pytest.mark.parametrize("key", ["text", "blocks", "parts"])
def test_a_message_with_its_words_under_another_key_is_refused(key):
    record = {"messages": [{"role": "user", key: [{"words": "Which tide?"}]}, TOLD]}
    with pytest.raises(ConversationError) as caught:
        read(record)
    assert key in str(caught.value) or "part" in str(caught.value)


@pytest.mark.parametrize(
    "part, code",
    [
        ({"type": "input_file", "file_id": "f"}, "multimodal"),
        ({"type": "video_url", "video_url": {"url": "a"}}, "multimodal"),
        ({"type": "widget", "id": 3}, "bad_type"),
        ({"tool_call": {"name": "f"}}, "bad_type"),
    ],
)
def test_a_part_that_is_not_text_is_refused_under_its_name(part, code):
    with pytest.raises(ConversationError) as caught:
        read({"messages": [{"role": "user", "content": [part]}, TOLD]})
    name = part.get("type", "tool_call")
    assert caught.value.code == code and f'"{name}"' in str(caught.value)


FAILURES = {
    "mcp in a message": chat(
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": {"isError": True, "content": []}},
    ),
    "mcp as text": chat(
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": '{"content": [], "isError": true}'},
    ),
    "anthropic": chat(
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f"}]},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "c", "error": "no such harbour"}],
        },
    ),
    "responses": {
        "object": "response",
        "input": [
            ASKED,
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "?", "status": "failed"},
        ],
        "output": [{"type": "message", **TOLD}],
    },
    "otel": {
        "attributes": {
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": [
                OTEL[0],
                {"role": "assistant", "parts": [{"type": "tool_call", "id": "c", "name": "f"}]},
                {
                    "role": "tool",
                    "parts": [{"type": "tool_call_response", "id": "c", "isError": True}],
                },
            ],
            "gen_ai.output.messages": [
                {"role": "assistant", "parts": [{"type": "text", "content": "?"}]}
            ],
        }
    },
    "atif": {
        "schema_version": "ATIF-v1.5",
        "steps": [
            STEPS[0],
            {
                "source": "agent",
                "message": "",
                "tool_calls": [{"tool_call_id": "c", "function_name": "f", "arguments": {}}],
                "observation": {
                    "results": [{"source_call_id": "c", "content": "?", "status": "error"}]
                },
            },
        ],
    },
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_result_that_says_that_its_call_failed_is_a_failure(name):
    [result] = [m for m in read(FAILURES[name]).messages if m["role"] == "tool"]
    assert result["is_error"] is True
