"Keys that no adapter reads: what they cost, that they are counted, and that a user may ignore them"

import json

import pytest
from test_golden import EVERYTHING

from toolcall.curate import curate
from toolcall.curate.notes import explain
from toolcall.diagnose import diagnose
from toolcall.errors import ConfigError, ConversationError, LogError, MergedRecord
from toolcall.formats import expand, find_adapter, find_format
from toolcall.formats.guard import HARMLESS, MEANINGS, left_over
from toolcall.logs import iter_logs, read_logs
from toolcall.pipeline.commands import main
from toolcall.pipeline.config import make_config
from toolcall.pipeline.data import prepare

FUNCTION = {"name": "tide", "description": "", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": FUNCTION}]
CALLS = [{"id": "c1", "type": "function", "function": {"name": "tide", "arguments": "{}"}}]
VALUES = {name: False for name in ("train", "trainable", "is_trainable", "training", "loss")}
VALUES |= {name: False for name in ("train_on_turn", "label")}
VALUES |= {name: 0 for name in ("weight", "loss_weight", "loss_scale", "sample_weight")}


def value_of(name: str):
    "A value with which the key says something"
    if MEANINGS[name] == "reasoning":
        return "First I look at the harbour."
    return VALUES.get(name, [{"name": "tide", "result": "09:12"}])


def messages(**extra) -> list:
    "A call, its result and the answer; keys of `user`, `call`, `result` and `answer` are added"
    parts = {
        "user": {"role": "user", "content": "Tide?"},
        "call": {"role": "assistant", "content": None, "tool_calls": CALLS},
        "result": {"role": "tool", "tool_call_id": "c1", "content": "09:12"},
        "answer": {"role": "assistant", "content": "High water at 09:12."},
        "thanks": {"role": "user", "content": "Thanks"},
        "bye": {"role": "assistant", "content": "Any time."},
    }
    return [part | extra.get(name, {}) for name, part in parts.items()]


def record(**extra) -> dict:
    return {"messages": messages(**extra), "tools": TOOLS}


def read(value: dict, *ignore: str):
    return find_adapter("auto", ignore)(value)


def code_of(value: dict, *ignore: str) -> str:
    with pytest.raises(ConversationError) as info:
        read(value, *ignore)
    return info.value.code


def write(path, records: list) -> str:
    path.write_text("\n".join(json.dumps(value, ensure_ascii=False) for value in records))
    return str(path)


# --- what a name costs, at each level ---

PLAIN = ("files", "audio", "conversation")  # as keys of a record they mean other things
READ = {"tools", "functions", "toolConfig", "tool_config", "function_call", "cachedContent"}
READ |= {"cached_content", "previous_response_id", "previous_interaction_id"}
READ |= {"error", "image_url", "image_urls", "video", "videos", "image", "images", "audios"}
READ |= {"attachments", "experimental_attachments"}


@pytest.mark.parametrize("name", sorted(MEANINGS.keys() - READ))
def test_a_key_of_the_record_with_a_meaning_refuses_it(name):
    value = record() | {name: value_of(name)}
    if name in PLAIN:
        assert read(value).turns == [1, 3, 5]
        return
    codes = {"media": "multimodal", "state": "missing_history"}
    assert code_of(value) == codes.get(MEANINGS[name], "unread_field")
    assert read(value, name).turns == [1, 3, 5]


@pytest.mark.parametrize("name", ["image", "images", "attachments", "cachedContent", "error"])
def test_what_an_adapter_refuses_with_a_better_sentence_stays_refused(name):
    assert code_of(record() | {name: ["x"]}) in ("multimodal", "missing_history", "unread_field")


ONE_TURN = ["loss_mask", "masked", "no_loss", "isError", "is_error", "scratchpad", "agentReasoning"]
UNTIL_USER = ["toolUses", "usedTools", "functionCall", "tool_use", "toolResult", "toolOutputs"]


@pytest.mark.parametrize("name", ONE_TURN + UNTIL_USER)
def test_a_key_of_an_answer_costs_the_turn_or_those_that_rest_on_it(name):
    conversation = read(record(call={name: value_of(name)}))
    assert conversation.turns == ([3, 5] if name in ONE_TURN else [5])
    assert "unread_field" in conversation.meta["warnings"]
    for ignore in (name, f"messages[].{name}"):
        assert read(record(call={name: value_of(name)}), ignore).turns == [1, 3, 5]


def test_a_key_of_a_result_costs_the_call_and_what_rests_on_it():
    assert read(record(result={"toolError": "no such harbour"})).turns == [3, 5]
    assert read(record(result={"toolResult": {"high": "09:12"}})).turns == [1, 5]
    assert read(record(result={"loss_mask": 1, "scratchpad": "Look it up."})).turns == [1, 3, 5]
    assert code_of(record(result={"screenshot": "iVBORw0KGgo="})) == "multimodal"
    assert code_of(record(result={"toolDefs": [FUNCTION]})) == "unread_field"


def test_a_key_of_a_users_message_costs_the_record_where_it_counts():
    assert read(record(user={"train": False, "mask": True, "cot": "I wonder."})).turns == [1, 3, 5]
    assert read(record(thanks={"errorText": "wrong"})).turns == [1, 5]
    assert code_of(record(user={"screenshots": ["a.png"]})) == "multimodal"
    assert code_of(record(user={"toolResults": [{"id": "c0"}]})) == "unread_field"


def exchange(request=None, response=None, choice=None) -> dict:
    answer = {"index": 0, "finish_reason": "tool_calls"} | (choice or {})
    answer["message"] = {"role": "assistant", "content": None, "tool_calls": CALLS}
    asked = {"model": "m", "messages": messages()[:1], "tools": TOOLS, "temperature": 0.1}
    return {
        "request": asked | (request or {}),
        "response": {"id": "r", "object": "chat.completion", "choices": [answer]}
        | (response or {}),
    }


@pytest.mark.parametrize("place", ["request", "response", "choice"])
def test_bodies_are_looked_through(place):
    paths = {"choice": "response.choices[]"}
    value = exchange(**{place: {"toolDefinitions": [FUNCTION], "mood": "calm"}})
    path = paths.get(place, place)
    with pytest.raises(ConversationError) as info:
        read(value)
    assert info.value.path == f"{path}.toolDefinitions" and info.value.code == "unread_field"
    assert f"{path}.mood" in read(value, "toolDefinitions").meta["unread"]


def test_bodies_inside_of_envelopes_have_their_whole_path():
    inner = exchange(request={"mood": "calm"})
    value = {"request": {"body": inner["request"]}, "response": {"body": inner["response"]}}
    assert read(value).meta["unread"] == {"request.body.mood": 1}
    [(path, part)] = expand({"level": "INFO", "payload": record(), "availableTools": TOOLS})
    assert path == "payload" and code_of(part) == "unread_field"


def test_the_history_that_the_provider_keeps_keeps_its_sentence():
    for key in ("previous_response_id", "conversation"):
        value = {"request": {"input": [{"role": "user", "content": "Tide?"}], key: "x_1"}}
        value["response"] = {"object": "response", "output": [], "status": "completed"}
        with pytest.raises(ConversationError, match="log requests with their whole input"):
            read(value, key)


def test_keys_of_a_tool_are_looked_through():
    assert read(record() | {"tools": [TOOLS[0] | {"icon": "sun"}]}).meta["unread"] == {
        "tools[].icon": 1
    }
    odd = record() | {"tools": [TOOLS[0] | {"functionDeclarations": [FUNCTION]}]}
    assert code_of(odd) == "unread_field" and read(odd, "functionDeclarations").turns == [1, 3, 5]
    two_schemas = FUNCTION | {"input_schema": {"type": "object", "required": ["harbour"]}}
    assert "tools[].input_schema" in read(record() | {"tools": [two_schemas]}).meta["unread"]


def test_keys_of_a_part_of_the_content_are_looked_through():
    part = {"type": "text", "text": "Tide?", "mood": "calm"}
    unread = read(record(user={"content": [part]})).meta["unread"]
    assert unread == {"messages[].content[].mood": 1}


def test_an_exchange_inside_of_a_simple_record_is_looked_through():
    turn = {"user": "Tide?", "tool_name": "tide", "arguments": {}, "mood": "calm"}
    assert read({"turns": [turn]}).meta["unread"] == {"turns[].mood": 1}
    assert code_of({"turns": [turn | {"trainable": False}]}) == "unread_field"


# --- what says nothing ---

EMPTY = [None, "", [], {}, False, 0, float("nan"), "null", "[]", "{}"]
PADDED = [[{"id": None, "args": {"a": None, "b": []}}], {"type": None, "items": [None, None]}]


@pytest.mark.parametrize("value", EMPTY + PADDED, ids=repr)
def test_padding_says_nothing(value):
    names = ("toolUses", "usedTools", "isError", "toolDefs", "scratchpad", "screenshots")
    padding = dict.fromkeys(names, value)
    padded = record(**{part: padding for part in ("user", "call", "result", "answer")}) | padding
    conversation = read(padded)
    assert conversation.turns == [1, 3, 5] and "unread" not in conversation.meta


def test_empty_calls_of_another_product_change_nothing():
    for padding in ({"toolCalls": [], "toolCallId": None}, {"toolCalls": None}):
        padded = record(**dict.fromkeys(("user", "call", "result", "answer"), padding))
        assert read(padded).turns == [1, 3, 5] and len(read(padded).calls()) == 1


def test_a_mark_of_the_loss_that_is_on_says_nothing_and_a_number_is_a_measure():
    value = record() | {
        "train": True,
        "trainable": None,
        "loss": 0.42,
        "weight": 1,
        "label": "tide",
    }
    assert read(value).turns == [1, 3, 5]


def test_settings_of_the_reasoning_are_no_reasoning():
    for value in ({"effort": "high", "summary": None}, {"type": "enabled", "budget_tokens": 9}):
        assert read(exchange(request={"reasoning": value, "thinking": value})).turns
    assert read(record() | {"reasoning": "on", "thinking": True}).turns == [1, 3, 5]


def test_a_deep_value_is_looked_at_without_an_end_in_the_stack():
    deep: list = []
    for _ in range(400):
        deep = [deep]
    assert left_over({"toolCalls": deep}, frozenset()) == {"toolCalls": deep}


HARMLESS_RECORDS = {
    "openai": exchange(
        request={
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "stream_options": {"include_usage": True},
            "metadata": {"plan": "pro"},
            "response_format": {"type": "text"},
            "reasoning_effort": "low",
            "store": True,
            "service_tier": "auto",
            "user": "u1",
            "seed": 7,
            "stop": ["\n"],
            "audio": {"voice": "alloy", "format": "wav"},
            "modalities": ["text"],
        },
        response={
            "created": 1732000604,
            "model": "m-1",
            "usage": {"prompt_tokens": 9, "completion_tokens": 3},
            "system_fingerprint": "fp_1",
            "service_tier": "default",
        },
        choice={"logprobs": {"content": []}},
    ),
    "responses": {
        "request": {
            "model": "m",
            "input": "Tide?",
            "instructions": "You know tides.",
            "tools": [{"type": "function", **FUNCTION}],
            "include": ["reasoning.encrypted_content"],
            "reasoning": {"effort": "medium", "summary": "auto"},
            "truncation": "auto",
            "max_output_tokens": 200,
        },
        "response": {
            "id": "resp_1",
            "object": "response",
            "created_at": 1732000604,
            "status": "completed",
            "error": None,
            "incomplete_details": None,
            "output": [
                {
                    "type": "function_call",
                    "id": "fc_1",
                    "call_id": "c1",
                    "name": "tide",
                    "arguments": "{}",
                    "status": "completed",
                }
            ],
            "previous_response_id": None,
            "reasoning": {"effort": "medium", "summary": None},
            "text": {"format": {"type": "text"}},
            "top_logprobs": 0,
            "truncation": "auto",
            "usage": {"input_tokens": 9},
            "user": None,
        },
    },
    "gemini": {
        "request": {
            "contents": [{"role": "user", "parts": [{"text": "Tide?"}]}],
            "generationConfig": {"temperature": 0.1},
            "safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "OFF"}],
        },
        "response": {
            "candidates": [
                {
                    "content": {
                        "role": "model",
                        "parts": [{"functionCall": {"name": "tide", "args": {}}}],
                    },
                    "finishReason": "STOP",
                    "index": 0,
                    "safetyRatings": [{"category": "HARM", "probability": "LOW"}],
                    "avgLogprobs": -0.1,
                }
            ],
            "usageMetadata": {"promptTokenCount": 9},
            "modelVersion": "g-1",
            "responseId": "r1",
            "createTime": "2026-01-01T10:00:00Z",
        },
    },
    "anthropic": {
        "request": {
            "model": "m",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": "Tide?"}],
            "thinking": {"type": "enabled", "budget_tokens": 2000},
            "metadata": {"user_id": "u1"},
            "stop_sequences": ["END"],
        },
        "response": {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "m",
            "content": [{"type": "tool_use", "id": "c1", "name": "tide", "input": {}}],
            "stop_reason": "tool_use",
            "stop_sequence": None,
            "usage": {"input_tokens": 9, "service_tier": "standard"},
            "container": None,
        },
    },
    "bedrock": {
        "request": {
            "modelId": "m",
            "messages": [{"role": "user", "content": [{"text": "Tide?"}]}],
            "inferenceConfig": {"maxTokens": 100},
        },
        "response": {
            "ResponseMetadata": {"RequestId": "r1", "HTTPStatusCode": 200},
            "output": {
                "message": {
                    "role": "assistant",
                    "content": [{"toolUse": {"toolUseId": "c1", "name": "tide", "input": {}}}],
                }
            },
            "stopReason": "tool_use",
            "usage": {"inputTokens": 9},
            "metrics": {"latencyMs": 300},
        },
    },
    "data set": record()
    | {
        "id": 3,
        "source": "ours",
        "lang": "en",
        "split": "train",
        "metadata": {"ok": 1},
        "score": 1,
    },
}


@pytest.mark.parametrize("name", HARMLESS_RECORDS)
def test_real_looking_records_raise_nothing(name):
    conversation = read(HARMLESS_RECORDS[name])
    assert len(conversation.calls()) == 1 and conversation.turns
    assert "unread" not in conversation.meta
    assert "unread_field" not in conversation.meta.get("warnings", [])


# --- every format ---

PARTS = [
    part
    for value in EVERYTHING
    for _, part in expand(value)
    if isinstance(part, dict) and find_format(part)
]


def outcome(part: dict) -> object:
    try:
        return find_adapter()(part)
    except MergedRecord as error:
        return error.code
    except ConversationError as error:
        return (error.code, error.path)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: find_format(part).name)
def test_every_format_looks_through_its_records(part):
    before = outcome(part)
    if isinstance(before, (str, tuple)):
        pytest.skip("the record is no conversation, and is not looked through")
    if find_format(part | {"availableTools": TOOLS}) is find_format(part):
        assert outcome(part | {"availableTools": TOOLS}) == ("unread_field", "availableTools")
    moody = outcome(part | {"mood": "calm"})
    assert moody.messages == before.messages and moody.turns == before.turns
    assert moody.meta["unread"]["mood"] == 1


class Spy(dict):
    "A record that knows which of its keys were read"

    def __init__(self, value: dict):
        super().__init__(value)
        self.read: set[str] = set()

    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.read.add(key)
        return super().get(key, default)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: find_format(part).name)
def test_every_format_declares_what_it_reads(part):
    format, spy = find_format(part), Spy(part)
    try:
        format.convert(spy)
    except ConversationError:
        pytest.skip("the record is no conversation, and declares nothing")
    columns = {key for key in spy if key.startswith(("attributes.", "llm.", "context."))}
    assert spy.read & spy.keys() - columns <= format.reads | HARMLESS


# --- counts ---


def test_counts_add_up_over_files_and_formats(tmp_path):
    simple = {"user": "Tide?", "tool_name": "tide", "arguments": {}}
    first = [simple | {"mood": "calm"}, simple | {"mood": "wild", "toolDefs": [FUNCTION]}, simple]
    second = [record(call={"toolUses": CALLS}) | {"mood": "calm"}, record(), exchange()]
    files = [write(tmp_path / "a.jsonl", first), write(tmp_path / "b.jsonl", second)]
    report = read_logs(files, max_reject=0.5).report
    assert report.records == 6 and report.conversations == 5
    assert report.rejected == {"unread_field": 1} and report.warnings == {"unread_field": 1}
    assert report.unread == {
        "simple": {"mood": 1},
        "messages": {"messages[].toolUses": 1, "mood": 1},
        "refused": {"toolDefs": 1},
    }
    apart = [read_logs(file, max_reject=0.5).report for file in files]
    for format, paths in report.unread.items():
        for path, n in paths.items():
            assert n == sum(part.unread.get(format, {}).get(path, 0) for part in apart)
    assert all(
        n <= report.formats.get(format, report.rejected["unread_field"])
        for format, paths in report.unread.items()
        for n in paths.values()
    )
    assert "not read: messages[].toolUses (messages), which may hold calls" in str(report)
    assert "not read: messages" in report._repr_markdown_()
    assert json.loads(json.dumps(vars(report)))["unread"] == report.unread


def test_a_key_counts_once_a_record(tmp_path):
    twice = record(call={"mood": "calm"}, answer={"mood": "calm"})
    log = read_logs(write(tmp_path / "a.jsonl", [twice, twice]))
    assert log.report.unread == {"messages": {"messages[].mood": 2}}


def test_keys_with_a_meaning_stand_first_and_the_rest_is_counted(tmp_path):
    value = record(call={"toolUses": CALLS}) | {f"key{n}": "x" for n in range(30)}
    report = read_logs(write(tmp_path / "a.jsonl", [value])).report
    labels = [label for label, _ in report.unread_rows()]
    assert labels[0] == "not read: messages[].toolUses (messages), which may hold calls"
    assert len(labels) == 11 and report.unread_rows()[-1][1] == 21


def test_names_that_are_values_do_not_fill_the_memory(tmp_path):
    values = [record() | {f"user {n} {m}": 1 for m in range(60)} for n in range(50)]
    report = read_logs(write(tmp_path / "a.jsonl", values)).report
    assert 1900 < len(report.unread["messages"]) <= 2060
    assert len(str(report)) < 2000


# --- a user who knows ---


def test_ignore_takes_names_and_paths_and_says_what_matched_nothing(tmp_path):
    odd = record(call={"toolUses": CALLS}) | {"toolDefs": [FUNCTION], "mood": "calm"}
    path = write(tmp_path / "a.jsonl", [odd, record()])
    with pytest.raises(LogError, match=r"write logs: \{ignore: \[toolDefs\]\} in the config"):
        read_logs(path)
    log = read_logs(path, ignore=["toolDefs", "messages[].toolUses", "tooluses"])
    assert [c.turns for c in log] == [[1, 3, 5], [1, 3, 5]] and not log.report.warnings
    assert log.report.ignored == {"toolDefs": 1, "messages[].toolUses": 1, "tooluses": 0}
    assert log.report.unread == {"messages": {"mood": 1}}
    assert "warning: `ignore` names tooluses" in str(log.report)
    assert len(list(iter_logs(path, ignore=["toolDefs"]))) == 2


@pytest.mark.parametrize("ignore", ["toolDefs", [1], [""], [None]])
def test_ignore_is_a_list_of_names(tmp_path, ignore):
    path = write(tmp_path / "a.jsonl", [record()])
    with pytest.raises(ConversationError, match="ignore is a list of keys"):
        read_logs(path, ignore=ignore)
    with pytest.raises(ConfigError, match=r"logs\.ignore is of type a list of texts"):
        make_config({"log_path": path, "logs": {"ignore": ignore}})


def test_the_configuration_reaches_the_reader(tmp_path):
    asked = [messages(user={"content": f"Tide at quay {n}?"}) for n in range(40)]
    values = [{"messages": said, "tools": TOOLS, "toolDefs": [FUNCTION]} for said in asked]
    path = write(tmp_path / "a.jsonl", values)
    config = make_config({"log_path": path, "logs": {"ignore": ["toolDefs"]}})
    assert len(prepare(config).log) == 40
    with pytest.raises(LogError, match="toolDefs is not read"):
        prepare(make_config({"log_path": path}))


# --- what inspect says ---


def test_inspect_says_what_was_refused_masked_and_not_read_and_what_to_do(tmp_path, capsys):
    odd = record(call={"toolUses": CALLS}) | {"mood": "calm"}
    refused = record() | {"toolDefs": [FUNCTION]}
    path = write(tmp_path / "a.jsonl", [odd, refused, record()])
    assert main(["inspect", path]) == 0
    text = capsys.readouterr().out
    for part in (
        "refused, unread_field: toolDefs is not read, and by its name it holds the tools",
        "(first: a.jsonl:2 toolDefs)",
        "a field that is not read may change a turn; the turn carries no loss (unread_field)",
        "of 6 carry no loss, by a mark in the log or a reason below",
        "not read: messages[].toolUses (messages), which may hold calls",
        "not read: mood (messages)",
        "write logs: {ignore: [toolUses, toolDefs]} in the config",
        "--ignore KEY",
    ):
        assert part in text, part
    assert main(["inspect", path, "--ignore", "toolUses", "--ignore", "toolDefs"]) == 0
    text = capsys.readouterr().out
    assert "ignored, as `ignore` says: toolDefs" in text and "refused" not in text


def test_the_page_says_it_too(tmp_path):
    path = write(tmp_path / "a.jsonl", [record(call={"toolUses": CALLS}) | {"<b>mood</b>": "x"}])
    page = diagnose(path).page.to_html()
    assert "messages[].toolUses" in page and "<b>mood</b>" not in page
    log = read_logs(path)
    assert explain(log, curate(log)).rows
