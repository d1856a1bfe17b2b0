"What must hold for any input"

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seeds import EVERYTHING, missing_formats

from toolcall.chatml import ChatML, TurnReject, parse_calls
from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.evaluate import values_equal
from toolcall.formats.content import REDACTED
from toolcall.logs import iter_logs, read_logs
from toolcall.samples import sample_records
from toolcall.saving import from_datasets, load_conversations, save_conversations, to_datasets
from toolcall.text import dumps, fingerprint, loads

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
number = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1, 1.0, 0, -0.0, True]),
)
value = st.recursive(
    st.one_of(st.none(), st.booleans(), number, text),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
call = st.builds(
    ToolCall, st.text("abc_.-", min_size=1, max_size=8), st.dictionaries(text, value, max_size=4)
)
few = st.lists(
    st.builds(
        ToolCall,
        st.sampled_from("fg"),
        st.dictionaries(st.sampled_from("xy"), st.integers(0, 1), max_size=2),
    ),
    max_size=4,
)


@given(value)
def test_json_comes_back_as_it_went_in(original):
    assert repr(loads(dumps(original))) == repr(original)


# a mark of a redacting gateway in place of a whole content is refused by name (tests/test_traps.py)
message_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(
    lambda content: content not in REDACTED
)
exchange = st.tuples(
    message_text,
    st.lists(call, max_size=3),
    st.one_of(st.none(), st.booleans()),
    message_text.filter(str.strip),
)


def talk(exchanges) -> list[dict]:
    messages = []
    for n, (said, calls, failed, answer) in enumerate(exchanges):
        messages.append({"role": "user", "content": said})
        if calls:
            made = [ToolCall(c.name, c.arguments, f"c{n}_{i}") for i, c in enumerate(calls)]
            messages.append(
                {"role": "assistant", "content": "", "tool_calls": [c.to_message() for c in made]}
            )
            messages += [
                {
                    "role": "tool",
                    "tool_call_id": c.id,
                    "name": c.name,
                    "content": dumps(c.arguments),
                }
                | ({} if failed is None else {"is_error": failed})
                for c in made
            ]
        messages.append({"role": "assistant", "content": answer})
    return messages


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.lists(exchange, min_size=1, max_size=3), min_size=1, max_size=3))
def test_conversations_come_back_from_every_store_as_they_went_in(tmp_path_factory, dialogues):
    folder = tmp_path_factory.mktemp("stores")
    conversations = [
        Conversation(
            str(n),
            talk(exchanges),
            [make_tool("f", parameters={"type": "object", "properties": {"x": {"default": 1.0}}})],
            {"format": "demo", "offset": 2**65},
        )
        for n, exchanges in enumerate(dialogues)
    ]
    before = [repr(c.to_dict()) for c in conversations]
    save_conversations(conversations, folder / "c.jsonl")
    assert [repr(c.to_dict()) for c in load_conversations(folder / "c.jsonl")] == before
    assert [
        repr(c.to_dict()) for c in from_datasets(to_datasets({"train": conversations}))["train"]
    ] == before
    # and the reader makes of the saved messages what they were
    (folder / "log.jsonl").write_text(
        "".join(dumps({"messages": c.messages, "tools": c.tools}) + "\n" for c in conversations),
        encoding="utf-8",
    )
    again = read_logs(folder / "log.jsonl").conversations
    assert [repr(c.messages) for c in again] == [repr(c.messages) for c in conversations] and [
        repr(c.tools) for c in again
    ] == [repr(c.tools) for c in conversations]


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150
)
@given(st.lists(call, min_size=1, max_size=3), text)
def test_an_example_parses_back_or_is_refused(smollm, calls, said):
    messages = [
        {"role": "user", "content": said},
        {"role": "assistant", "content": "", "tool_calls": [c.to_message() for c in calls]},
    ]
    chatml = ChatML(smollm)
    [example] = chatml.examples(Conversation("c", messages))
    if isinstance(example, TurnReject):
        assert example.code in ("control_token", "not_proven")
        return
    parsed = chatml.parse(example.completion_ids)
    assert [fingerprint([c.name, c.arguments]) for c in parsed.calls] == [
        fingerprint([c.name, c.arguments]) for c in calls
    ]


@given(text)
def test_any_output_is_one_of_three_outcomes(output):
    assert parse_calls(output + "<tool_call>" + output).outcome in ("malformed", "call")
    assert parse_calls(output).outcome in ("call", "no_call", "malformed")


@given(value, value)
def test_equality_is_symmetric_and_reflexive(a, b):
    assert values_equal(a, a) and values_equal(a, b) == values_equal(b, a)


seeds = st.lists(st.sampled_from(EVERYTHING), min_size=1, max_size=3)


def test_every_format_is_among_the_seeds():
    assert missing_formats() == set()


@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_mutated_records_never_crash_and_counts_add_up(tmp_path_factory, data):
    lines = [
        dumps(record).encode() for record in sample_records(6, seed=data.draw(st.integers(0, 5)))
    ]
    lines += [dumps(record).encode() for record in data.draw(seeds)]
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(lines) - 1))
        at = data.draw(st.integers(0, max(0, len(lines[i]) - 1)))
        junk = data.draw(
            st.sampled_from(
                [
                    b"",
                    b"\xff",
                    b'"',
                    b"{",
                    b"]",
                    b"null",
                    b"\\",
                    b"1e999",
                    b"[" * 300,
                    b"\n",
                    b"NaN",
                ]
            )
        )
        lines[i] = lines[i][:at] + junk + lines[i][at + data.draw(st.integers(0, 6)) :]
    path = tmp_path_factory.mktemp("mutated") / "log.jsonl"
    blob = b"\n".join(lines)
    path.write_bytes(blob)
    if not blob.strip():
        return
    items = list(iter_logs(path))
    try:
        log = read_logs(path, max_reject=0.99)
    except ValueError:
        return
    assert (
        log.report.records
        == len(items)
        == len(log.conversations) + len(log.rejects) + sum(log.report.merged.values())
    )
