"Formats of public training sets: the traps that each of them holds"

import copy
import json
import random
from contextlib import suppress

import pytest

from toolcall.errors import ConversationError
from toolcall.formats.atif import from_atif
from toolcall.formats.chat_datasets import (
    from_hermes,
    from_sharegpt,
    from_swift,
    from_trajectory,
    from_xlam,
)
from toolcall.formats.glaive import from_glaive
from toolcall.formats.registry import FORMATS as ALL_FORMATS
from toolcall.formats.toolace import from_toolace

ASK = {"from": "human", "value": "?"}
CALL = '{"name": "f", "arguments": {"a": 1.0, "b": null}}'
RECORDS = {
    "swift": {
        "messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "Yes."},
            {"role": "tool_call", "content": CALL},
            {"role": "tool_call", "content": CALL},
            {"role": "tool_response", "content": "1"},
            {"role": "tool_response", "content": "2"},
            {"role": "assistant", "content": "Done."},
        ],
        "tools": '[{"name": "f"}]',
    },
    "sharegpt": {
        "conversations": [
            ASK,
            {"from": "function_call", "value": CALL},
            {"from": "observation", "value": "1"},
            {"from": "gpt", "value": "!"},
        ],
        "tools": "[]",
    },
    "hermes": {
        "conversations": [
            {"from": "system", "value": "<tools> [{'name': 'f'}] </tools>"},
            ASK,
            {"from": "gpt", "value": f"So. <tool_call>{CALL}</tool_call>"},
            {"from": "tool", "value": "<tool_response>1</tool_response>"},
        ]
    },
    "xlam": {
        "id": 7,
        "query": "?",
        "tools": [{"name": "f", "parameters": {"type": {"type": "str"}}}],
        "answers": f"[{CALL}]",
    },
    "glaive": {
        "system": 'SYSTEM: Use -\n{"name": "f"}',
        "chat": "USER: ?\n\n\nASSISTANT: <functioncall> "
        '{"name": "f", "arguments": \'{"q": "It\'s"}\'} <|endoftext|>'
        "\n\n\nFUNCTION RESPONSE: {}\n\n\nASSISTANT: ! <|endoftext|>",
    },
    "toolace": {
        "system": '[{"name": "F g"}]',
        "conversations": [
            {"from": "user", "value": "?"},
            {"from": "assistant", "value": '[F g(a=[1, {"c": null}], b=None)]'},
            {"from": "tool", "value": "[{}]"},
            {"from": "assistant", "value": "!"},
        ],
    },
    "trajectory": {
        "task_id": 1,
        "trial": 2,
        "reward": True,
        "traj": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}],
    },
    "atif": {
        "schema_version": "ATIF-v1.8",
        "session_id": "s",
        "agent": {"model_name": "m", "tool_definitions": [{"name": "f"}]},
        "steps": [
            {"source": "user", "message": "?"},
            {
                "source": "agent",
                "message": "",
                "tool_calls": [{"tool_call_id": "c", "function_name": "f", "arguments": {}}],
                "observation": {
                    "results": [{"source_call_id": "c", "content": "1", "is_error": True}]
                },
            },
        ],
    },
}
TRAINING_SETS = [format for format in ALL_FORMATS if format.name in RECORDS]
FORMATS = {format.name: format for format in TRAINING_SETS}
ODD = [
    None,
    True,
    0,
    1e9,
    "",
    " ",
    "x",
    "{",
    "[]",
    "[" * 3000,
    "[f(",
    "<tool_call>",
    "<tools>{</tools>",
    "'",
    "\0",
    "USER:",
    "{'a': 1e999}",
    '"\\ud800"',
    [],
    {},
    [[]],
    [{}],
    [None],
    {"name": []},
    {"role": []},
    {"function": None},
    {"name": "f", "arguments": []},
]


def code_of(convert, record):
    with pytest.raises(ConversationError) as caught:
        convert(record)
    return caught.value.code


def gpt(text: str) -> dict:
    return {"conversations": [ASK, {"from": "gpt", "value": text}]}


@pytest.mark.parametrize("name", RECORDS)
def test_each_record_finds_its_own_format(name):
    found = next(format for format in TRAINING_SETS if format.detect(RECORDS[name]))
    conversation = found.convert(RECORDS[name])
    assert (found.name, conversation.meta["format"]) == (name, name)
    assert "unknown_tool" not in conversation.meta.get("warnings", [])


def test_adapters_leave_the_record_as_it_was():
    for name, record in RECORDS.items():
        before = copy.deepcopy(record)
        FORMATS[name].convert(record)
        assert record == before


def test_python_repr_arguments_are_read_and_counted():
    call = from_hermes(
        gpt(
            "<tool_call>"
            "{'name': 'f', 'arguments': {'a': None, 'b': True, 'c': \"it's\"}}"
            "</tool_call>"
        )
    )
    assert (
        call.calls()[0].arguments == {"a": None, "b": True, "c": "it's"}
        and "literal_eval_args" in call.meta["warnings"]
    )
    assert from_swift(
        {"messages": [{"role": "tool_call", "content": '{"name": "f", "arguments": "{\'a\': 1}"}'}]}
    ).calls()[0].arguments == {"a": 1}
    assert (
        "literal_eval_args"
        not in from_hermes(gpt(f"<tool_call>{CALL}</tool_call>")).meta["warnings"]
    )


@pytest.mark.parametrize(
    "text",
    [
        "{'a': 'b' 'c'}",
        "{'a': (1,)}",
        "{'a': {1}}",
        "{'a': b'x'}",
        "{'a': 1e999}",
        "{'a': open('x')}",
        "{1: 2}",
        "{'a': '\\d'}",
        "{'a': 1} # b",
        '{"a": NaN}',
        '{"a": 1',
        '{"a": "\\ud800"}',
        "'{}'",
        '"{}"',
        '{"a": 1} {}',
    ],
)
def test_arguments_that_need_a_guess_are_refused(text):
    record = {
        "messages": [{"role": "tool_call", "content": json.dumps({"name": "f", "arguments": text})}]
    }
    assert code_of(from_swift, record) in ("args_not_json", "args_not_object")


def test_numbers_and_key_order_stay():
    arguments = '{"z": 1.0, "a": 1, "m": 18446744073709551617}'
    call = from_sharegpt(
        {
            "conversations": [
                ASK,
                {"from": "function_call", "value": f'{{"name": "f", "arguments": {arguments}}}'},
            ]
        }
    ).calls()[0]
    assert json.dumps(call.arguments) == arguments


def test_consecutive_tool_calls_are_parallel_and_join_the_text_before():
    messages = from_swift(RECORDS["swift"]).messages
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "tool", "assistant"]
    assert (
        messages[1]["content"],
        len(messages[1]["tool_calls"]),
        [m["content"] for m in messages[2:4]],
    ) == ("Yes.", 2, ["1", "2"])
    apart = [
        *RECORDS["swift"]["messages"][:3],
        {"role": "tool", "content": "1"},
        {"role": "tool_call", "content": CALL},
    ]
    assert [len(m.get("tool_calls", [])) for m in from_swift({"messages": apart}).messages] == [
        0,
        1,
        0,
        1,
    ]


def test_a_turn_is_learned_whole_or_not_at_all():
    parts = [
        {"role": "assistant", "content": "Hm.", "loss": False},
        {"role": "tool_call", "content": CALL},
    ]
    half = from_swift({"messages": parts})
    assert half.turns == [] and "mixed_weight" in half.meta["warnings"]


def test_parallel_text_calls():
    record = copy.deepcopy(RECORDS["toolace"])
    record["conversations"][1]["value"] = '[F g(a="x, y)", b=[1, {"c": null}]), Other()]'
    calls = from_toolace(record).calls()
    assert [(c.name, c.arguments) for c in calls] == [
        ("F g", {"a": "x, y)", "b": [1, {"c": None}]}),
        ("Other", {}),
    ]
    two = from_hermes(gpt(f"A <tool_call>{CALL}</tool_call> B <tool_call>{CALL}</tool_call>"))
    assert (two.messages[1]["content"], len(two.calls())) == (
        "A\nB",
        2,
    ) and "text_after_call" in two.meta["warnings"]


@pytest.mark.parametrize(
    "text",
    [
        "[F g(1)]",
        "[F g(a=x)]",
        "[F g(a=1)] So.",
        "[F g(a=1",
        "[Other(a=1, a=2)]",
        "[F g(a=__import__('os'))]",
    ],
)
def test_text_that_begins_like_a_call_is_a_call_or_refused(text):
    record = copy.deepcopy(RECORDS["toolace"])
    record["conversations"][1]["value"] = text
    expected = "duplicate_key" if "a=1, a=2" in text else "args_not_json"
    assert code_of(from_toolace, record) == expected


def test_results_of_parallel_calls_go_to_the_call_they_name():
    record = {
        "system": "",
        "conversations": [
            {"from": "user", "value": "?"},
            {"from": "assistant", "value": "[f(), g()]"},
            {"from": "tool", "value": '[{"name": "g", "r": 1.0}, {"name": "f"}]'},
        ],
    }
    assert [(m["name"], m["content"]) for m in from_toolace(record).messages[2:]] == [
        ("g", '{"name": "g", "r": 1.0}'),
        ("f", '{"name": "f"}'),
    ]
    both = '<tool_call>{"name": "f"}</tool_call><tool_call>{"name": "g"}</tool_call>'
    answers = (
        '<tool_response>{"name": "g", "content": 1}</tool_response>\n'
        '<tool_response>{"name": "f", "content": 2}</tool_response>'
    )
    read = from_hermes(
        {"conversations": [ASK, {"from": "gpt", "value": both}, {"from": "tool", "value": answers}]}
    )
    assert [m["name"] for m in read.messages[2:]] == ["g", "f"]


@pytest.mark.parametrize(
    "inner, value",
    [
        (r'{"q": "It\'s"}', "It's"),
        ('{"q": "It\'s"}', "It's"),
        (r'{"q": "\"a\" isn\'t\nb"}', '"a" isn\'t\nb'),
        ('{"q": ""}', ""),
    ],
)
def test_apostrophes_in_single_quotes(inner, value):
    call = f"""{{"name": "f", "arguments": '{inner}'}}"""
    chat = f"USER: Don't\n\n\nASSISTANT: <functioncall> {call} <|endoftext|>"
    conversation = from_glaive({"chat": chat})
    assert (
        conversation.calls()[0].arguments == {"q": value}
        and conversation.messages[0]["content"] == "Don't"
    )


@pytest.mark.parametrize(
    "chat",
    [
        "",
        "Hello",
        "USER: a\nASSISTANT: b",
        "USER: a ASSISTANT: b",
        'ASSISTANT: <functioncall> {"name": "f", "arguments": \'{"q": "a\\\\nb"}\'}',
        'ASSISTANT: <functioncall> {"name": "f", "arguments": {}} and more',
        "FUNCTION RESPONSE: {}",
    ],
)
def test_a_chat_that_can_be_read_in_two_ways_is_refused(chat):
    assert code_of(from_glaive, {"chat": chat}) in ("bad_type", "args_not_json", "unpaired_result")


def test_a_parameter_named_type_is_a_parameter():
    schema = from_xlam(RECORDS["xlam"]).tools[0]["function"]["parameters"]
    assert schema == {"type": "object", "properties": {"type": {"type": "string"}}}


def test_missing_and_extra_results():
    items = [ASK, {"from": "function_call", "value": CALL}, ASK, {"from": "gpt", "value": "!"}]
    assert "missing_result" in from_sharegpt({"conversations": items}).meta["warnings"]
    extra = [
        ASK,
        {"from": "function_call", "value": CALL},
        {"from": "observation", "value": "1"},
        {"from": "observation", "value": "2"},
    ]
    assert code_of(from_sharegpt, {"conversations": extra}) == "unpaired_result"
    assert (
        code_of(
            from_atif,
            RECORDS["atif"]
            | {"steps": [RECORDS["atif"]["steps"][1] | {"tool_calls": None, "message": "!"}]},
        )
        == "unpaired_result"
    )


def test_nothing_beside_a_call_is_dropped():
    for call in (
        {"name": "f", "args": {}},
        {"name": "f", "arguments": {}, "parameters": {}},
    ):
        assert code_of(from_xlam, RECORDS["xlam"] | {"answers": [call]}) == "bad_type"
    call = {"name": "f", "arguments": {}, "comment": "x", "parameters": None}
    meta = from_xlam(RECORDS["xlam"] | {"answers": [call]}).meta
    assert meta["unread"] == {"messages[].tool_calls[].comment": 1}
    assert from_xlam(
        RECORDS["xlam"] | {"answers": [{"name": "f", "parameters": {"a": 1}}]}
    ).calls()[0].arguments == {"a": 1}
    assert code_of(from_xlam, RECORDS["xlam"] | {"answers": "[]"}) == "missing_field"
    assert code_of(from_swift, RECORDS["swift"] | {"images": ["a.png"]}) == "multimodal"
    assert code_of(from_hermes, gpt("<tool_call>{}")) == "args_not_json"


def test_an_atif_run():
    conversation = from_atif(RECORDS["atif"])
    assert conversation.messages[2] == {
        "role": "tool",
        "tool_call_id": "c",
        "name": "f",
        "content": "1",
        "is_error": True,
    }
    assert (conversation.id, conversation.meta["model"], len(conversation.tools)) == ("s", "m", 1)
    copied = copy.deepcopy(RECORDS["atif"])
    copied["steps"][1]["is_copied_context"] = True
    assert from_atif(copied).turns == []


def test_rewards_are_numbers():
    assert from_trajectory(RECORDS["trajectory"]).meta["scores"] == {"reward": 1.0}
    for reward in (None, "1", float("nan"), float("inf"), 10**400, [1]):
        assert code_of(from_trajectory, RECORDS["trajectory"] | {"reward": reward}) == "bad_type"


def test_many_tags_are_read_in_linear_time():
    for text in (
        "<tool_call>" * 50_000,
        "</tool_call>" * 50_000 + "<tool_call>" * 50_000,
        "[" + " " * 50_000,
    ):
        record = {"system": "", "conversations": [ASK, {"from": "gpt", "value": text}]}
        for format in TRAINING_SETS:
            format.detect(record)
            with suppress(ConversationError):
                format.convert(record)


def _places(value, at=()):
    yield at
    for key, inner in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield from _places(inner, (*at, key))


@pytest.mark.parametrize("name", RECORDS)
def test_mutated_records_are_read_or_refused(name):
    chance = random.Random(name)
    for _ in range(300):
        record = copy.deepcopy(RECORDS[name])
        *path, last = chance.choice([place for place in _places(record) if place])
        holder = record
        for key in path:
            holder = holder[key]
        text = holder[last]
        if isinstance(text, str) and text and chance.random() < 0.4:
            cut = chance.randrange(len(text))
            holder[last] = (
                text[:cut]
                + chance.choice(["", '"', "'", "(", "}", "\\", "<tools>", "\0"])
                + text[cut + 1 :]
            )
        elif chance.random() < 0.2:
            del holder[last]
        else:
            holder[last] = chance.choice(ODD)
        for format in TRAINING_SETS:
            assert isinstance(format.detect(record), bool)
        try:
            FORMATS[name].convert(record)
        except ConversationError as error:
            str(error).encode("utf-8")


def test_airline_runs(real_logs):
    import gzip

    records = json.loads(gzip.decompress((real_logs / "airline.trajectories.json.gz").read_bytes()))
    conversations = [
        next(format for format in TRAINING_SETS if format.detect(record)).convert(record)
        for record in records
    ]
    assert (
        len({c.id for c in conversations}) == 200
        and sum(c.meta["scores"]["reward"] for c in conversations) == 84
    )
    assert {c.meta["format"] for c in conversations} == {"trajectory"}
    assert all(
        (said["content"] or "") == read["content"]
        for record, c in zip(records, conversations)
        for said, read in zip(record["traj"], c.messages, strict=True)
    )
