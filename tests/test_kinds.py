"""One test for each kind of log that was read wrong by somebody, with inputs of its own.

Kinds of single products stand in `test_products.py`, those of APIs and gateways in `test_wire.py`,
those of repeated histories in `test_histories.py`."""

import ast
import json
from pathlib import Path

import pytest

from toolcall.curate import curate
from toolcall.errors import LogError
from toolcall.logs import read_logs
from toolcall.logs.codes import CODES, MERGED, WARNINGS

SCHEMA = {"type": "object", "properties": {"line": {"type": "string"}}, "required": ["line"]}
FUNCTION = {"name": "next_train", "description": "Next train of a line", "parameters": SCHEMA}
TOOL = {"type": "function", "function": FUNCTION}
USER = {"role": "user", "content": "When does the S7 go?"}
CALL = {
    "id": "a",
    "type": "function",
    "function": {"name": "next_train", "arguments": '{"line": "S7"}'},
}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "8:04"}
ANSWER = {"role": "assistant", "content": "At 8:04."}
CHAT = {"messages": [USER, CALLED, RESULT, ANSWER], "tools": [TOOL]}
SPARE = {"user": "A spare record", "tool_name": "spare", "arguments": {}}


@pytest.fixture
def read(tmp_path):
    def read_lines(*records, **options):
        "The log of these records, and of a spare one that can be read"
        path = tmp_path / "log.jsonl"
        lines = [line if isinstance(line, str) else json.dumps(line) for line in records]
        path.write_text("\n".join([*lines, json.dumps(SPARE)]) + "\n")
        log = read_logs(path, max_reject=1.0, **options)
        return [c for c in log if c.messages[0] != {"role": "user", "content": SPARE["user"]}], log

    return read_lines


def exchange(request: dict, response: dict = CALLED, **beside) -> dict:
    body = {"model": "m", "messages": [USER], "tools": [TOOL]} | request
    return {"request": body, "response": {"choices": [{"message": response}]}} | beside


def learned(conversations) -> list[str]:
    "The turns that are trained after curation"
    return [
        c.messages[turn]["content"] or str(c.calls(turn)[0])
        for c in curate(conversations)
        for turn in c.turns
    ]


# the choice of a tool

NAMED = {"type": "function", "function": {"name": "next_train"}}
DECLARED = {"functionDeclarations": [FUNCTION]}
CONTENTS = [{"role": "user", "parts": [{"text": "When?"}]}]
PART = {"functionCall": {"name": "next_train", "args": {"line": "S7"}}}
CANDIDATE = {"candidates": [{"content": {"role": "model", "parts": [PART]}}]}
BLOCK = {"type": "tool_use", "id": "a", "name": "next_train", "input": {"line": "S7"}}
USE = {"toolUse": {"toolUseId": "a", "name": "next_train", "input": {"line": "S7"}}}
SPEC = {"toolSpec": {"name": "next_train", "inputSchema": {"json": SCHEMA}}}
ITEM = {"type": "function_call", "call_id": "a", "name": "next_train", "arguments": "{}"}


def anthropic(choice) -> dict:
    body = {"messages": [USER], "tools": [{"name": "next_train", "input_schema": SCHEMA}]}
    response = {"role": "assistant", "content": [BLOCK], "stop_reason": "tool_use"}
    return {"request": body | {"tool_choice": choice}, "response": response}


def gemini(**config) -> dict:
    return {"request": {"contents": CONTENTS, "tools": [DECLARED]} | config, "response": CANDIDATE}


def bedrock(choice) -> dict:
    text = {"role": "user", "content": [{"text": "When?"}]}
    body = {"messages": [text], "toolConfig": {"tools": [SPEC], "toolChoice": choice}}
    return {
        "request": body,
        "response": {"output": {"message": {"role": "assistant", "content": [USE]}}},
    }


def span(**attributes) -> dict:
    call = {"type": "tool_call", "id": "a", "name": "next_train", "arguments": {"line": "S7"}}
    said = [{"role": "user", "parts": [{"type": "text", "content": "When?"}]}]
    answered = [{"role": "assistant", "parts": [call], "finish_reason": "tool_call"}]
    return {
        "name": "chat m",
        "attributes": {
            "gen_ai.operation.name": "chat",
            "gen_ai.input.messages": json.dumps(said),
            "gen_ai.output.messages": json.dumps(answered),
            "gen_ai.tool.definitions": json.dumps([{"type": "function"} | FUNCTION]),
        }
        | attributes,
    }


MODE = {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["next_train"]}}
SNAKE_MODE = {"function_calling_config": {"mode": "FunctionCallingConfigMode.ANY"}}
ALLOWED = {"mode": "required", "tools": [{"type": "function", "name": "next_train"}]}
LITELLM = {"messages": [USER], "response": {"choices": [{"message": CALLED}]}, "call_type": "c"}
OUTPUT = {"object": "response", "status": "completed", "output": [ITEM], "tools": [TOOL]}
RUN = {
    "run_type": "llm",
    "id": "r",
    "inputs": {"messages": [USER]},
    "outputs": {"choices": [{"message": CALLED}]},
}
GENERATION = {"type": "GENERATION", "traceId": "t", "level": "DEFAULT", "output": CALLED}
PHOENIX = {
    "openinference.span.kind": "LLM",
    "llm.input_messages": [{"message": USER}],
    "llm.output_messages": [{"message": {"role": "assistant", "content": "At 8:04."}}],
}
FORCED = {
    "OpenAI, required": exchange({"tool_choice": "required"}),
    "OpenAI, named": exchange({"tool_choice": NAMED}),
    "OpenAI, allowed tools": exchange(
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": ALLOWED}}
    ),
    "OpenAI, older": exchange(
        {"functions": [FUNCTION], "tools": None, "function_call": {"name": "next_train"}}
    ),
    "Mistral": exchange({"tool_choice": "any"}),
    "Cohere": exchange({"tool_choice": "REQUIRED"}),
    "in an HTTP body": {
        "request": {"body": exchange({"tool_choice": NAMED})["request"]},
        "response": {"body": exchange({})["response"]},
    },
    "beside the request": exchange({}, tool_choice="required"),
    "in metadata": exchange({}, metadata={"tool_choice": "required"}),
    "Anthropic, any": anthropic({"type": "any", "disable_parallel_tool_use": True}),
    "Anthropic, a tool": anthropic({"type": "tool", "name": "next_train"}),
    "Gemini": gemini(toolConfig=MODE),
    "Gemini, Google's SDK": gemini(config={"tool_config": SNAKE_MODE}),
    "Bedrock, any": bedrock({"any": {}}),
    "Bedrock, a tool": bedrock({"tool": {"name": "next_train"}}),
    "Responses": {"input": "When?", "tools": [TOOL], "tool_choice": "required"} | OUTPUT,
    "Responses, in the response": {
        "request": {"input": "When?", "tools": [TOOL]},
        "response": OUTPUT | {"tool_choice": {"type": "function", "name": "next_train"}},
    },
    "a conversation of its own": CHAT | {"messages": [USER, CALLED], "tool_choice": NAMED},
    "LiteLLM": LITELLM | {"model_parameters": {"tools": [TOOL], "tool_choice": "required"}},
    "LangSmith": RUN | {"extra": {"invocation_params": {"tool_choice": "next_train"}}},
    "Langfuse": GENERATION | {"input": [USER], "modelParameters": {"tool_choice": "required"}},
    "Langfuse, a body": GENERATION | {"input": exchange({"tool_choice": NAMED})["request"]},
    "OpenTelemetry": span(**{"gen_ai.request.tool_choice": "required"}),
    "Logfire": span(model_request_parameters='{"allow_text_output": false}'),
    "OpenInference": {
        "attributes": PHOENIX | {"llm.invocation_parameters": '{"tool_choice": "any"}'}
    },
    "Agents SDK": {
        "object": "trace.span",
        "id": "s",
        "span_data": {
            "type": "generation",
            "input": [USER],
            "output": [CALLED],
            "model_config": {"tool_choice": "required"},
        },
    },
}


@pytest.mark.parametrize("spelling", FORCED)
def test_an_answer_to_a_forced_choice_of_a_tool_carries_no_loss(read, spelling):
    [conversation], log = read(FORCED[spelling])
    assert conversation.turns == []
    assert "forced_call" in conversation.meta["warnings"] and "forced_call" in str(log)


FORBIDDEN = {
    "OpenAI": exchange({"tool_choice": "none"}, ANSWER),
    "Anthropic": anthropic({"type": "none"})
    | {"response": {"role": "assistant", "content": [{"type": "text", "text": "At 8:04."}]}},
    "Gemini": gemini(toolConfig={"functionCallingConfig": {"mode": "NONE"}})
    | {"response": {"candidates": [{"content": {"parts": [{"text": "At 8:04."}]}}]}},
    "AI SDK": exchange({"toolChoice": {"type": "none"}}, ANSWER),
}


@pytest.mark.parametrize("spelling", FORBIDDEN)
def test_an_answer_where_calls_were_forbidden_carries_no_loss(read, spelling):
    [conversation], _ = read(FORBIDDEN[spelling])
    assert conversation.turns == [] and "forced_call" in conversation.meta["warnings"]


FREE = {
    "auto": exchange({"tool_choice": "auto"}),
    "null": exchange({"tool_choice": None}),
    "none, without tools": exchange({"tools": None, "tool_choice": "none"}, ANSWER),
    "Anthropic": anthropic({"type": "auto"}),
    "Gemini, validated": gemini(toolConfig={"functionCallingConfig": {"mode": "VALIDATED"}}),
    "Bedrock": bedrock({"auto": {}}),
    "allowed tools": exchange({"tool_choice": {"type": "allowed_tools", "mode": "auto"}}),
    "a span": span(**{"gen_ai.request.tool_choice": '{"type": "auto"}'}),
}


@pytest.mark.parametrize("spelling", FREE)
def test_a_free_choice_is_learned(read, spelling):
    [conversation], _ = read(FREE[spelling])
    assert len(conversation.turns) == 1


def test_only_the_answer_of_a_forced_request_is_masked(read):
    history = {"messages": CHAT["messages"] + [USER], "tool_choice": "required"}
    [conversation], _ = read(exchange(history))
    assert conversation.turns == [1, 3]


# users and sessions

SENDERS = {
    "beside": exchange({}, user_id="u", session_id="s"),
    "in camel case": exchange({}, userId="u", sessionId="s"),
    "in metadata": exchange({}, metadata={"user_id": "u", "thread_id": "s"}),
    "as objects": exchange({}, user={"id": "u"}, session={"id": "s"}),
    "dotted": exchange({}, **{"user.id": "u", "session.id": "s"}),
    "in the request": exchange({"user": "u", "metadata": {"session_id": "s"}}),
    "in the request's metadata": exchange({"metadata": {"userId": "u", "conversationId": "s"}}),
    "in an HTTP body": {
        "request": {"body": {"messages": [USER], "metadata": {"user_id": "u", "session_id": "s"}}},
        "response": {"body": {"choices": [{"message": ANSWER}]}},
    },
    "as a safety identifier": exchange({"safety_identifier": "u"}, chat_id="s"),
    "for Claude Code": exchange({"metadata": {"user_id": "user_1_account_2_session_s"}}),
    "for Langfuse": GENERATION
    | {"input": {"messages": [USER], "metadata": {"user_id": "u", "session_id": "s"}}},
}


@pytest.mark.parametrize("place", SENDERS)
def test_users_and_sessions_are_known_wherever_they_stand(read, place):
    [conversation], _ = read(SENDERS[place])
    user = "user_1_account_2" if "Claude" in place else "u"
    assert (conversation.meta["user_id"], conversation.meta["conversation_id"]) == (user, "s")


@pytest.mark.parametrize("name", ["createdAt", "startedAt", "@timestamp", "time", "ts"])
def test_times_are_known_under_other_names(read, name):
    [conversation], _ = read(exchange({}, **{name: "2026-02-01T08:00:00Z"}))
    assert conversation.meta["timestamp"] == 1769932800.0


def test_an_id_that_stands_for_all_is_no_tie(read):
    records = [
        exchange(
            {"messages": [{"role": "user", "content": f"When does the S{n} go?"}]}, user_id="0"
        )
        for n in range(30)
    ]
    conversations, _ = read(*records)
    curated = curate(conversations)
    assert len(curated.conversations) == 30 and "names none" in str(curated)


# lines with a prefix

PREFIXES = {
    "a time and a level": "2026-02-01T08:00:00Z INFO app ",
    "brackets": "[2026-02-01 08:00:00,123] [INFO] ",
    "a container": "app-1  | ",
    "Kubernetes": "2026-02-01T08:00:00.1Z stdout F ",
    "syslog": "<134>Feb  1 08:00:00 host app[12]: ",
    "Python": "INFO:app.gateway:",
    "an event stream": "data: ",
    "logfmt": "time=2026-02-01T08:00:00Z level=info body=",
}


@pytest.mark.parametrize("kind", PREFIXES)
def test_lines_behind_a_plain_prefix_are_read_and_counted(tmp_path, kind):
    path = tmp_path / "log.jsonl"
    other = PREFIXES[kind].replace("8:00", "9:30").replace("INFO", "WARNING")
    path.write_text(f"{PREFIXES[kind]}{json.dumps(CHAT)}\n{other}{json.dumps(CHAT)}\n")
    log = read_logs(path)
    assert [len(c.calls()) for c in log] == [1, 1]
    assert log.report.warnings["prefixed_line"] == 2 and "passed over" in str(log)


def test_a_prefix_that_may_hold_something_is_named(read):
    line = '10.0.0.1 "POST /v1/chat" ' + json.dumps(CHAT)
    conversations, log = read(line, line)
    assert not conversations and {reject.code for reject in log.rejects} == {"prefixed_line"}
    assert "text before the JSON" in log.rejects[0].message


def test_prefixes_of_different_kinds_are_named(read):
    text = json.dumps(CHAT)
    conversations, log = read(f"INFO {text}", f"ERROR while sending: {text}", f"INFO {text}")
    assert len(conversations) == 2 and [r.code for r in log.rejects] == ["prefixed_line"]


def test_a_file_of_prefixed_lines_alone_is_refused_by_its_prefix(tmp_path):
    (tmp_path / "log.jsonl").write_text(f'a "b" {json.dumps(CHAT)}\n' * 2)
    with pytest.raises(LogError, match="text before the JSON"):
        read_logs(tmp_path / "log.jsonl")


def test_json_over_several_lines_is_no_prefix(tmp_path):
    for text in (json.dumps(CHAT, indent=1), json.dumps([CHAT, CHAT], indent=1)):
        (tmp_path / "log.json").write_text(text)
        log = read_logs(tmp_path / "log.json")
        assert not log.rejects and "prefixed_line" not in log.report.warnings


# traces that keep only the newest words


def generation(number: int, said: object, answer: dict, **facts) -> dict:
    return {
        "id": f"g{number}",
        "type": "GENERATION",
        "traceId": "t",
        "sessionId": "s",
        "startTime": f"2026-02-01T08:00:0{number}Z",
        "input": said,
        "output": answer,
        "level": "DEFAULT",
    } | facts


LATER = {"role": "user", "content": "And the one after?"}
SECOND = {"role": "assistant", "content": "At 8:14."}


@pytest.mark.parametrize(
    "middle", [[CALLED, RESULT], [RESULT], RESULT, {"messages": [CALLED, RESULT]}]
)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_an_answer_whose_history_is_in_other_records_carries_no_loss(read, middle, order):
    records = [
        generation(0, [USER], CALLED),
        generation(1, middle, ANSWER),
        generation(2, [LATER], SECOND, traceId="t2"),
    ]
    conversations, log = read(*[records[n] for n in order])
    assert len(conversations) == 3 and "missing_history" in str(log)
    assert learned(conversations) == ['next_train(line="S7")']


def test_whole_histories_of_a_trace_are_learned(read):
    whole = [USER, CALLED, RESULT]
    title = [{"role": "system", "content": "Write a title."}, USER]
    conversations, _ = read(
        generation(0, [USER], CALLED),
        generation(1, whole, ANSWER),
        generation(2, [*whole, ANSWER, LATER], SECOND),
        generation(3, title, {"role": "assistant", "content": "Trains"}),
    )
    assert sorted(learned(conversations)) == sorted(
        ['next_train(line="S7")', "At 8:04.", "At 8:14.", "Trains"]
    )


def test_a_request_of_a_gateway_is_what_the_model_saw(read):
    [conversation], _ = read(exchange({"messages": [CALLED, RESULT, LATER]}, SECOND))
    assert "missing_history" not in conversation.meta.get("warnings", [])


# answers and messages


@pytest.mark.parametrize(
    "flag", [{"loss": False}, {"train": False}, {"weight": 0}, {"training": False}]
)
def test_a_mark_of_the_loss_is_kept(read, flag):
    [conversation], _ = read(CHAT | {"messages": [USER, CALLED | flag, RESULT, ANSWER]})
    assert conversation.turns == [3]


PART_MARK = [{"type": "text", "text": "At", "train": False}, {"type": "text", "text": "8:04."}]
LEFT_OUT = {
    "text of false": {"loss": "false"},
    "Python's text of false": {"train": "False"},
    "text of zero": {"weight": "0"},
    "a mask of zero": {"loss_mask": 0},
    "a mask of false": {"loss_mask": False},
    "Axolotl's part of a text": {
        "training_detail": [
            {"begin_offset": 0, "end_offset": 2, "train": True},
            {"begin_offset": 3, "end_offset": 7, "train": False},
        ]
    },
    "a part of the content": {"content": PART_MARK},
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_a_mark_of_the_loss_may_be_text_or_stand_in_a_part(read, kind):
    [conversation], _ = read(CHAT | {"messages": [USER, CALLED, RESULT, ANSWER | LEFT_OUT[kind]]})
    assert conversation.turns == [1]


@pytest.mark.parametrize("mark", [{"train": False}, {"train": "false"}, {"weight": "0"}])
def test_a_mark_of_the_loss_beside_the_messages_refuses_the_record(read, mark):
    conversations, log = read(CHAT | mark)
    assert not conversations and log.rejects[0].code == "unread_field"


@pytest.mark.parametrize(
    "mark",
    [
        {"loss": "true"},
        {"train": "True"},
        {"weight": "1"},
        {"masked": "false"},
        {"training_detail": [{"begin_offset": 0, "end_offset": 7, "train": True}]},
    ],
)
def test_a_mark_that_says_learn_changes_nothing(read, mark):
    [conversation], _ = read(CHAT | {"messages": [USER, CALLED, RESULT, ANSWER | mark]})
    assert conversation.turns == [1, 3]


def test_an_answer_in_several_messages_is_one_turn(read):
    words = {"role": "assistant", "content": "I look it up."}
    [conversation], log = read(CHAT | {"messages": [USER, words, CALLED, RESULT, ANSWER]})
    assert conversation.turns == [1, 3] and conversation.messages[1]["content"] == "I look it up."
    assert log.report.warnings == {"joined_answer": 1}


def test_an_empty_answer_carries_no_loss(read):
    empty = {"role": "assistant", "content": " "}
    [conversation], log = read(CHAT | {"messages": [USER, empty, USER, CALLED, RESULT, ANSWER]})
    assert conversation.turns == [3, 5] and "empty_turn" in str(log)


def test_a_result_before_its_call_is_paired_or_named(read):
    conversations, log = read(CHAT | {"messages": [USER, RESULT, CALLED, ANSWER]})
    assert not conversations and "stands before its call" in log.rejects[0].message


def test_schemas_that_arrow_padded_are_read(read):
    padded = {"line": {"type": "string", "enum": None}, "other": None}
    function = FUNCTION | {
        "parameters": {"type": "object", "properties": padded, "required": ["line"], "$defs": None},
        "strict": None,
    }
    [conversation], _ = read(CHAT | {"tools": [{"type": "function", "function": function}]})
    assert learned([conversation]) == ['next_train(line="S7")', "At 8:04."]


@pytest.mark.parametrize(
    "failure",
    [{"success": False}, {"status": "failed"}, {"error": "no line S7"}, {"is_error": True}],
)
def test_a_simple_record_that_failed_carries_no_loss(read, failure):
    record = {"user": "When?", "tool_name": "next_train", "arguments": {}, "tool_response": "-"}
    conversations, _ = read(record | failure)
    assert learned(conversations) == []


LEAKED = {
    "Hermes": '<tool_call>\n{"name": "next_train", "arguments": {"line": "S7"}}\n</tool_call>',
    "Qwen3-Coder": "<tool_call>\n<function=next_train>\n<parameter=line>\nS7\n</parameter>\n"
    "</function>\n</tool_call>",
    "Mistral": '[TOOL_CALLS] [{"name": "next_train", "arguments": {"line": "S7"}}]',
    "Llama": '<|python_tag|>{"name": "next_train", "parameters": {"line": "S7"}}',
    "DeepSeek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>next_train<｜tool▁sep｜>"
    '{"line": "S7"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    "Kimi": "<|tool_calls_section_begin|><|tool_call_begin|>functions.next_train:0"
    '<|tool_call_argument_begin|>{"line": "S7"}<|tool_call_end|><|tool_calls_section_end|>',
    "gpt-oss": '<|channel|>commentary to=functions.next_train<|message|>{"line": "S7"}<|call|>',
}


@pytest.mark.parametrize("family", LEAKED)
def test_call_markup_in_the_text_is_read_or_masked(read, family):
    [conversation], log = read(exchange({}, {"role": "assistant", "content": LEAKED[family]}))
    assert learned([conversation]) in ([], ['next_train(line="S7")'])
    assert {"call_in_text", "markup_in_text"} & set(log.report.warnings)


def test_thoughts_of_mistral_stand_beside_the_answer(read):
    thought = {"type": "thinking", "thinking": [{"type": "text", "text": "Look it up."}]}
    parts = [thought, {"type": "text", "text": "At 8:04."}]
    [conversation], _ = read(exchange({}, {"role": "assistant", "content": parts}))
    assert learned([conversation]) == ["At 8:04."]
    assert conversation.messages[-1]["reasoning_content"] == "Look it up."


def test_stored_completions_are_records(read):
    stored = {"object": "chat.completion", "messages": [USER], "choices": [{"message": ANSWER}]}
    conversations, _ = read({"object": "list", "data": [stored, stored], "has_more": False})
    assert [c.turns for c in conversations] == [[1], [1]]


def test_a_generation_of_the_ai_sdk_in_langfuse(read):
    part = {
        "type": "tool-call",
        "toolCallId": "a",
        "toolName": "next_train",
        "input": {"line": "S7"},
    }
    record = generation(
        0, {"messages": [{"role": "user", "content": [{"type": "text", "text": "When?"}]}]}, [part]
    )
    record["metadata"] = {
        "tools": [json.dumps({"type": "function", "inputSchema": SCHEMA, "name": "next_train"})]
    }
    [conversation], _ = read(record)
    assert learned([conversation]) == ['next_train(line="S7")']
    assert conversation.tools[0]["function"]["name"] == "next_train"


# the codes

ROOT = Path(__file__).parents[1] / "toolcall"
ERROR_CODES = {"ConversationError": CODES, "MergedRecord": MERGED}


def raised_codes(path: Path):
    "Table and code of each error that is made and of each warning that is noted in a module"
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        name = getattr(function, "id", getattr(function, "attr", ""))
        table = ERROR_CODES.get(name, WARNINGS if name == "warn" else None)
        if table is None:
            continue
        codes = node.args[:1] if name == "warn" else node.args[1:2]
        codes += [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        for code in codes:
            branches = [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code]
            for part in branches:
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield table, part.value


def test_every_code_stands_in_its_table():
    found = {id(table): set() for table in (CODES, MERGED, WARNINGS)}
    for path in [*(ROOT / "formats").glob("*.py"), *(ROOT / "logs").glob("*.py")]:
        for table, code in raised_codes(path):
            assert code in table, f"{path.name}: {code}"
            found[id(table)].add(code)
    assert len(found[id(CODES)]) > 15 and found[id(MERGED)] and len(found[id(WARNINGS)]) > 25


def test_every_code_of_a_table_is_used():
    sources = "".join(path.read_text() for path in ROOT.rglob("*.py") if path.name != "codes.py")
    made = ("role_", "literal_eval_")  # with the name of what was read
    codes = [*CODES, *MERGED, *(code for code in WARNINGS if not code.startswith(made))]
    assert [code for code in codes if f'"{code}"' not in sources] == []


# one odd message

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}}
SEEN = {"role": "user", "content": [IMAGE]}
BROKEN = {"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "{"}}]}
BEGINNING = [USER, CALLED, RESULT, ANSWER]
SOURCE = {"type": "base64", "media_type": "image/png", "data": "iVBO"}
AGAIN = CALLED | {"tool_calls": [CALL | {"id": "b"}]}
SHOWN = {"role": "tool", "tool_call_id": "b", "content": [IMAGE]}
PICTURE = {"role": "user", "content": [{"type": "image", "source": SOURCE}]}
ODD_ENDS = {
    "an unknown role": [{"role": "wizard", "content": "?"}, LATER, SECOND],
    "an image": [SEEN, SECOND],
    "arguments that are no JSON": [LATER, BROKEN, RESULT, SECOND],
    "no object": [LATER, None, SECOND],
    "half an answer": [LATER, SECOND, BROKEN],
    "a result with an image": [LATER, AGAIN, SHOWN, SECOND],
    "an image of Anthropic's": [PICTURE, SECOND],
}


@pytest.mark.parametrize("kind", ODD_ENDS)
def test_one_odd_message_costs_a_turn_and_not_the_record(read, kind):
    [conversation], log = read(CHAT | {"messages": BEGINNING + ODD_ENDS[kind]})
    assert conversation.turns == [1, 3]
    assert "odd_message" in str(log) and conversation.meta["left_out"].startswith("messages[")


def test_an_odd_message_before_all_answers_refuses_the_record(read):
    conversations, log = read(CHAT | {"messages": [SEEN, CALLED, RESULT, ANSWER]})
    assert not conversations and log.rejects[0].code == "multimodal"


def test_an_odd_message_in_a_request_refuses_its_answer(read):
    conversations, log = read(exchange({"messages": [*BEGINNING, SEEN]}, SECOND))
    assert not conversations and log.rejects[0].code == "multimodal"


def test_messages_that_arrow_padded_are_read_as_without(read):
    keys = dict.fromkeys(
        ["tool_calls", "tool_call_id", "name", "images", "loss", "weight", "isError"]
    )
    padded = [keys | message for message in BEGINNING]
    padded[1] = padded[1] | {"tool_calls": [CALL | {"index": None, "custom": None}]}
    [plain], _ = read(CHAT)
    [conversation], _ = read(CHAT | {"messages": padded, "images": None, "conversation": None})
    assert conversation.messages == plain.messages and conversation.turns == plain.turns
    assert "warnings" not in conversation.meta and "unread" not in conversation.meta
