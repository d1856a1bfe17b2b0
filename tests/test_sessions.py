"Conversations that a log spreads over several records: tables of messages and session files"

import json

import pytest

from toolcall.curate import curate
from toolcall.errors import LogError
from toolcall.logs import read_logs

CALL = {"id": "c1", "type": "function", "function": {"name": "get_tide", "arguments": "{}"}}
ITEM = {"type": "function_call", "call_id": "c1", "name": "get_tide", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "09:12"}


def read(tmp_path, *files, **options):
    paths = []
    for number, records in enumerate(files):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
        paths.append(path)
    log = read_logs(paths, max_reject=1, **options)
    assert log.report.records == sum(map(len, files))
    return log


def said(conversation):
    "Role, words and names of calls of each message"
    return [
        " ".join(
            filter(
                None,
                [
                    message["role"][0],
                    message["content"],
                    *(call["function"]["name"] for call in message.get("tool_calls", [])),
                ],
            )
        )
        for message in conversation.messages
    ]


# Tables of messages


def table(id: str, **keys) -> list[dict]:
    messages = [
        {"role": "user", "content": "Tide?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "09:12"},
        {"role": "assistant", "content": "At 09:12."},
    ]
    return [
        {"conversation_id": id, "seq": number} | message | keys
        for number, message in enumerate(messages)
    ]


TIDE = ["u Tide?", "a get_tide", "t 09:12", "a At 09:12."]


def test_rows_are_put_together_by_conversation_and_number(tmp_path):
    rows = [row for pair in zip(table("a")[::-1], table("b")) for row in pair]
    log = read(tmp_path, rows)
    assert [said(c) for c in log] == [TIDE, TIDE]
    assert [c.meta["conversation_id"] for c in log] == ["a", "b"]
    assert log.report.merged == {"session_line": 6} and not log.rejects
    assert log.conversations[0].meta["source"] == "0.jsonl:1"


def test_rows_may_lie_in_several_files(tmp_path):
    rows = table("a")
    log = read(tmp_path, rows[:2], rows[2:])
    assert [said(c) for c in log] == [TIDE]


def test_rows_without_numbers_are_ordered_by_time_or_stay(tmp_path):
    rows = [{key: row[key] for key in row if key != "seq"} for row in table("a")]
    assert [said(c) for c in read(tmp_path, rows)] == [TIDE]
    timed = [row | {"created_at": f"2026-01-01T10:00:0{n}Z"} for n, row in enumerate(rows)]
    assert [said(c) for c in read(tmp_path, timed[::-1])] == [TIDE]


def test_columns_of_a_table_hold_json_text_and_nulls(tmp_path):
    columns = {"content", "tool_calls", "tool_call_id", "name", "function_call", "parts"}
    rows = [dict.fromkeys(columns) | row for row in table("a", thread_id=None)]
    rows[1]["tool_calls"] = json.dumps(rows[1]["tool_calls"])
    assert [said(c) for c in read(tmp_path, rows)] == [TIDE]


def test_tools_of_a_row_are_those_of_the_conversation(tmp_path):
    tool = {"type": "function", "function": {"name": "get_tide", "parameters": {"type": "object"}}}
    [conversation] = read(tmp_path, table("a", tools=[tool]))
    assert conversation.meta["tools_from"] == "declared"


@pytest.mark.parametrize(
    "user, assistant",
    [
        ({"message": {"role": "user", "content": "Hi"}}, {"message": {"role": "assistant"}}),
        ({"sender": "user", "text": "Hi"}, {"sender": "bot", "text": "Hello"}),
        ({"author": "Human", "content": "Hi"}, {"author": "AI", "content": "Hello"}),
        (
            {"sender": "Ann", "sender_type": "customer", "message": "Hi"},
            {"sender": "Bob", "sender_type": "agent", "message": "Hello"},
        ),
        (
            {"History": json.dumps({"type": "human", "data": {"content": "Hi"}})},
            {"History": json.dumps({"type": "ai", "data": {"content": "Hello"}})},
        ),
    ],
)
def test_rows_of_other_shapes(tmp_path, user, assistant):
    if isinstance(assistant.get("message"), dict):
        assistant["message"]["content"] = "Hello"
    rows = [{"session_id": "s"} | user, {"session_id": "s"} | assistant]
    assert [said(c) for c in read(tmp_path, rows)] == [["u Hi", "a Hello"]]


def test_a_table_that_can_not_be_read_is_one_reject(tmp_path):
    rows = table("a") + [table("b")[2], table("b")[3]]
    log = read(tmp_path, rows)
    assert [said(c) for c in log] == [TIDE]
    [reject] = log.rejects
    assert (reject.source, reject.code) == ("0.jsonl:5", "unpaired_result")
    assert log.report.merged == {"session_line": 4}


def test_rows_without_a_conversation_are_refused(tmp_path):
    with pytest.raises(LogError, match="names no conversation"):
        read(tmp_path, [{"role": "user", "content": "Hi"}])


@pytest.mark.parametrize("key", ["seq", "id"])
def test_numbers_may_be_text(tmp_path, key):
    rows = [row | {key: str(row["seq"] + 8)} for row in table("a")]
    rows = [row | {"seq": row["seq"] if key == "seq" else None} for row in rows]
    assert [said(c) for c in read(tmp_path, rows[::-1])] == [TIDE]


def test_equal_times_are_ordered_by_number(tmp_path):
    rows = [row | {"created_at": "2026-01-01 10:00:00+00"} for row in table("a")]
    rows = [row | {"id": row["seq"], "seq": None} for row in rows]
    assert [said(c) for c in read(tmp_path, rows[::-1])] == [TIDE]


def test_a_prompt_in_a_column_comes_first(tmp_path):
    log = read(tmp_path, table("a", system_prompt="Be kind."))
    assert [said(c) for c in log] == [["s Be kind.", *TIDE]]
    [conversation] = read(
        tmp_path,
        [
            {"session_id": "s", "system_prompt": "Be kind.", "message": message}
            for message in ({"type": "human", "content": "Hi"}, {"type": "ai", "content": "Hello"})
        ],
    )
    assert said(conversation) == ["s Be kind.", "u Hi", "a Hello"]


def test_an_id_that_users_share_is_refused(tmp_path):
    rows = [row for pair in zip(table("0", user_id=1), table("0", user_id=2)) for row in pair]
    log = read(tmp_path, rows, table("b", user_id=1))
    [reject] = log.rejects
    assert reject.code == "one_message" and "2 users" in str(reject)


def test_empty_columns_say_nothing_but_words_stay(tmp_path):
    rows = table("a", attachments="[]", metadata="{}")
    rows[2]["content"] = "{}"
    assert [said(c) for c in read(tmp_path, rows)] == [[*TIDE[:2], "t {}", TIDE[3]]]


def test_a_row_with_a_call_in_columns_is_not_left_out_in_silence(tmp_path):
    rows = table("a")
    rows[1:3] = [
        {"conversation_id": "a", "role": "assistant", "tool_name": "get_tide", "arguments": "{}"}
    ]
    rows = [row | {"seq": number} for number, row in enumerate(rows)]
    log = read(tmp_path, rows, table("b"))
    [reject] = log.rejects
    assert reject.source == "0.jsonl:1"


def test_a_file_that_is_one_list_of_messages_is_one_conversation(tmp_path):
    messages = [
        {key: row[key] for key in row if key not in ("conversation_id", "seq")}
        for row in table("a")
    ]
    path = tmp_path / "history.json"
    for indent in (None, 2):
        path.write_text(json.dumps(messages, indent=indent))
        log = read_logs(path)
        assert [said(c) for c in log] == [TIDE] and log.report.merged == {"session_line": 3}
    with pytest.raises(LogError, match="names no conversation"):
        read(tmp_path, messages)


def test_a_format_that_is_named_reads_rows_too(tmp_path):
    assert [said(c) for c in read(tmp_path, table("a"), format="message_rows")] == [TIDE]


# Claude Code


def uuid(number):
    return number and f"00000000-0000-0000-0000-{number:>12}".replace(" ", "0")


def line(role, content, uuid, parent, *, id=None, session="s", **keys):
    message = {"role": role, "content": content} | ({"id": id} if id else {})
    place = {"uuid": uuid, "parentUuid": parent, "sessionId": session, "isSidechain": False}
    return {"type": role, "message": message, "timestamp": "2026-01-01T10:00:00Z"} | place | keys


def use(number, name="Bash"):
    return [{"type": "tool_use", "id": f"t{number}", "name": name, "input": {"command": "ls"}}]


def result(number, text="a.txt", **keys):
    return [{"type": "tool_result", "tool_use_id": f"t{number}", "content": text} | keys]


def session(**keys):
    return [
        line("user", "Files?", "1", None, **keys),
        line("assistant", [{"type": "text", "text": "Look."}], "2", "1", id="m1", **keys),
        line("assistant", use(1), "3", "2", id="m1", **keys),
        line("user", result(1), "4", "3", **keys),
        line("assistant", [{"type": "text", "text": "One."}], "5", "4", id="m2", **keys),
    ]


FILES = ["u Files?", "a Look. Bash", "t a.txt", "a One."]


def test_lines_of_one_answer_are_one_turn(tmp_path):
    log = read(tmp_path, session())
    assert [said(c) for c in log] == [FILES] and log.conversations[0].turns == [1, 3]
    assert log.report.formats == {"claude_code": 1}
    assert log.report.warnings == {"prompt_left_out": 1}


def test_lines_without_a_message_are_counted(tmp_path):
    others = [
        {"type": "summary", "summary": "Files", "leafUuid": "5"},
        {"type": "file-history-snapshot", "messageId": "1", "snapshot": {}},
        {"type": "system", "subtype": "turn_duration", "sessionId": "s", "parentUuid": "5"},
        {"type": "ai-title", "aiTitle": "Files", "sessionId": "s"},
        {"type": "permission-mode", "permissionMode": "default", "sessionId": "s"},
    ]
    log = read(tmp_path, [*others, *session()])
    assert [said(c) for c in log] == [FILES] and log.report.merged == {"session_line": 9}


def test_parallel_calls_with_results_between_them(tmp_path):
    lines = [
        line("user", "Files?", "1", None),
        line("assistant", use(1), "2", "1", id="m1"),
        line("user", result(1), "3", "2"),
        line("assistant", use(2), "4", "2", id="m1"),
        line("user", result(2, "b.txt", is_error=True), "5", "4"),
    ]
    [conversation] = read(tmp_path, lines)
    assert said(conversation) == ["u Files?", "a Bash Bash", "t a.txt", "t b.txt"]
    assert [m.get("is_error") for m in conversation.messages[2:]] == [None, True]


def test_a_question_that_was_taken_back_is_left_out(tmp_path):
    lines = session() + [
        line("user", "In /tmp?", "6", "5"),
        line("assistant", [{"type": "text", "text": "None."}], "7", "6", id="m3"),
        line("user", "In /var?", "8", "5"),
        line("assistant", [{"type": "text", "text": "Two."}], "9", "8", id="m4"),
    ]
    log = read(tmp_path, lines)
    assert [said(c) for c in log] == [[*FILES, "u In /var?", "a Two."]]
    assert "branch_left_out" in log.report.warnings


def test_a_condensed_history_begins_a_conversation(tmp_path):
    after = [
        line("user", "Summary: one file.", "6", None, isCompactSummary=True),
        line("assistant", [{"type": "text", "text": "Go on."}], "7", "6", id="m3"),
    ]
    log = read(tmp_path, session() + after)
    assert [said(c) for c in log] == [FILES, ["u Summary: one file.", "a Go on."]]


def real(lines, **keys):
    "Lines with ids as long as those of Claude Code"
    return [
        item | {"uuid": uuid(item["uuid"]), "parentUuid": uuid(item["parentUuid"])} | keys
        for item in lines
    ]


MORE = [
    line("user", "More?", "6", "5"),
    line("assistant", [{"type": "text", "text": "Yes."}], "7", "6", id="m3"),
]


@pytest.mark.parametrize("copies", [{}, {"sessionId": "new"}])
@pytest.mark.parametrize("order", [1, -1])
def test_a_resumed_session_counts_once(tmp_path, copies, order):
    old = real(session())
    resumed = [*real(session(), **copies), *real(MORE, sessionId="new")]
    log = read(tmp_path, *[old, resumed][::order])
    assert [said(c) for c in log] == [[*FILES, "u More?", "a Yes."]]
    assert log.conversations[0].turns == [1, 3, 5]


def test_a_session_that_goes_on_in_another_file_is_one(tmp_path):
    log = read(tmp_path, real(session()), real(MORE, sessionId="new"))
    assert [said(c) for c in log] == [[*FILES, "u More?", "a Yes."]]


def test_lines_that_a_file_repeats_count_once(tmp_path):
    summary = line("user", "Summary.", "6", None, isCompactSummary=True)
    after = line("assistant", [{"type": "text", "text": "On."}], "7", "6", id="m3")
    log = read(tmp_path, real([*session(), summary, after, *session()]))
    assert [said(c) for c in log] == [FILES, ["u Summary.", "a On."]]


def test_an_answer_that_was_interrupted_carries_no_loss(tmp_path):
    stop = [{"type": "text", "text": "[Request interrupted by user]"}]
    lines = [*session(), line("user", stop, "s", "5"), *MORE]
    lines[6]["parentUuid"] = "s"
    [conversation] = read(tmp_path, lines)
    assert conversation.turns == [1, 6] and "unfinished_turn" in conversation.meta["warnings"]


def test_words_that_waited_for_an_answer_are_the_users(tmp_path):
    lines = session()
    queued = {"type": "queued_command", "prompt": "And b?"}
    lines.insert(4, {"type": "attachment", "attachment": queued, "uuid": "q", "sessionId": "s"})
    [conversation] = read(tmp_path, lines)
    assert said(conversation) == [*FILES[:3], "u And b?", FILES[3]]


def test_lines_of_a_stream_are_one_session(tmp_path):
    keys = {"session_id": "s", "parent_tool_use_id": None}
    lines = [
        {"type": item["type"], "message": item["message"], "uuid": uuid(item["uuid"])} | keys
        for item in session()
    ]
    init = {"type": "system", "subtype": "init", "session_id": "s", "tools": ["Bash"]}
    event = {"type": "stream_event", "event": {"type": "message_start"}, "uuid": "e"} | keys
    end = {"type": "result", "subtype": "success", "session_id": "s", "result": "One."}
    others = [{"type": "rate_limit_event", "session_id": "s", "uuid": "r"}]
    log = read(tmp_path, [init, event, *lines, *others, end])
    assert [said(c) for c in log] == [FILES] and log.report.merged == {"session_line": 8}


def test_a_last_line_that_is_cut_is_a_reject(tmp_path):
    path = tmp_path / "cut.jsonl"
    text = "".join(f"{json.dumps(item)}\n" for item in session())
    path.write_text(text + json.dumps(session()[0])[:60])
    log = read_logs(path, max_reject=1)
    assert [said(c) for c in log] == [FILES] and len(log.rejects) == 1
    with pytest.raises(LogError):
        read_logs(path, strict=True)


def test_other_agents_are_conversations_of_their_own(tmp_path):
    agent = session(isSidechain=True, agentId="a7")
    mixed = [item for pair in zip(session(), agent) for item in pair]
    assert [said(c) for c in read(tmp_path, mixed)] == [FILES, FILES]
    unnamed = session(isSidechain=True)
    assert len(read(tmp_path, session() + unnamed + unnamed).conversations) == 3
    other = [line | {"uuid": f"b{line['uuid']}"} for line in unnamed]
    other = [x | {"parentUuid": x["parentUuid"] and f"b{x['parentUuid']}"} for x in other]
    at_once = [unnamed[0], other[0], *unnamed[1:], *other[1:]]
    log = read(tmp_path, [*session(), *at_once])
    assert [said(c) for c in log] == [FILES, ["u Files?"]][:1]
    assert {reject.code for reject in log.rejects} == {"no_content", "one_message"}


def test_an_error_of_the_api_is_no_answer(tmp_path):
    error = [{"type": "text", "text": "API Error: 529"}]
    lines = session() + [line("assistant", error, "6", "5", isApiErrorMessage=True, id="m9")]
    lines += [line("user", "Again?", "7", "6"), line("assistant", use(1)[:0], "8", "7", id="m10")]
    lines[-1]["message"] |= {"model": "<synthetic>", "content": "No response requested."}
    [conversation] = read(tmp_path, lines)
    assert said(conversation) == [*FILES, "u Again?"]
    assert conversation.turns == [1, 3] and "failed_answer" in conversation.meta["warnings"]


def test_sessions_of_one_file_stay_apart(tmp_path):
    log = read(tmp_path, session() + session(session="other"))
    assert [c.meta["conversation_id"] for c in log] == ["s", "other"]


def test_a_picture_is_refused_by_its_line(tmp_path):
    picture = [{"type": "image", "source": {"type": "base64", "data": ""}}]
    log = read(tmp_path, [*session(session="p"), line("user", picture, "1", None)])
    assert [reject.code for reject in log.rejects] == ["multimodal"]


# Codex


def response(payload):
    return {"timestamp": "2026-01-01T10:00:00Z", "type": "response_item", "payload": payload}


def words(role, text):
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def codex(id="x"):
    return [
        {"type": "session_meta", "payload": {"id": id, "base_instructions": {"text": "Code."}}},
        {"type": "event_msg", "payload": {"type": "user_message", "message": "Tide?"}},
        response(words("user", "Tide?")),
        {"type": "turn_context", "payload": {"model": "m", "cwd": "/w"}},
        response({"type": "ghost_snapshot", "ghost_commit": {}}),
        response(ITEM),
        response(OUTPUT),
        response(words("assistant", "At 09:12.")),
        {"type": "event_msg", "payload": {"type": "agent_message", "message": "At 09:12."}},
    ]


def test_items_of_codex(tmp_path):
    log = read(tmp_path, codex(), codex("y"))
    assert [said(c) for c in log] == [["s Code.", *TIDE]] * 2
    assert [c.meta["conversation_id"] for c in log] == ["x", "y"]
    assert {c.meta["model"] for c in log} == {"m"}
    assert log.conversations[0].turns == [2, 4]


def test_what_replaced_a_history_carries_no_loss(tmp_path):
    history = [words("user", "Tide?"), words("assistant", "We looked.")]
    condensed = {"type": "compacted", "payload": {"message": "", "replacement_history": history}}
    after = [response(words("user", "And now?")), response(words("assistant", "Low."))]
    first, second = read(tmp_path, [*codex(), condensed, *after])
    assert said(first) == ["s Code.", *TIDE]
    assert said(second) == ["s Code.", "u Tide?", "a We looked.", "u And now?", "a Low."]
    assert second.turns == [4] and second.meta["conversation_id"] == "x"


def test_turns_that_were_rolled_back_are_left_out(tmp_path):
    wrong = [response(words("user", "Ebb?")), response(words("assistant", "No."))]
    back = {"type": "event_msg", "payload": {"type": "thread_rolled_back", "num_turns": 1}}
    right = [response(words("user", "Flow?")), response(words("assistant", "Yes."))]
    [conversation] = read(tmp_path, [*codex(), *wrong, back, *right])
    assert said(conversation) == ["s Code.", *TIDE, "u Flow?", "a Yes."]
    assert "branch_left_out" in conversation.meta["warnings"]


def test_turns_of_a_forked_session_count_once(tmp_path):
    fork = {"type": "session_meta", "payload": {"id": "y", "forked_from_id": "x"}}
    more = [response(words("user", "Flow?")), response(words("assistant", "Yes."))]
    log = read(tmp_path, codex(), [fork, *codex(), *more])
    assert [c.meta["conversation_id"] for c in log] == ["x", "x"]
    assert curate(log).report["turns"]["out"] == 3


@pytest.mark.parametrize(
    "output",
    [
        {"content": "no", "success": False},
        json.dumps({"output": "no", "metadata": {"exit_code": 1}}, separators=(",", ":")),
    ],
)
def test_a_command_that_failed_is_a_failed_call(tmp_path, output):
    lines = [item for item in codex() if item.get("payload") != OUTPUT]
    lines.insert(6, response(OUTPUT | {"output": output}))
    [conversation] = read(tmp_path, lines)
    assert conversation.messages[3]["is_error"] is True


def test_tools_in_the_head_of_a_session_are_declared(tmp_path):
    lines = codex()
    schema = {"type": "object", "properties": {}}
    tool = {"name": "get_tide", "description": "Tide", "inputSchema": schema}
    lines[0]["payload"]["dynamic_tools"] = [tool]
    [conversation] = read(tmp_path, lines)
    assert conversation.meta["tools_from"] == "declared"


def test_bare_items_of_early_versions(tmp_path):
    head = {"id": "x", "timestamp": "2025-05-07T17:24:21Z", "instructions": "Code."}
    items = [words("user", "Tide?"), ITEM, OUTPUT, words("assistant", "At 09:12.")]
    lines = [head, {"record_type": "state"}, *items]
    log = read(tmp_path, lines, [head | {"id": "y", "git": {}}, *items], [head | {"id": "z"}])
    assert [said(c) for c in log] == [["s Code.", *TIDE]] * 2
    assert [c.meta["conversation_id"] for c in log] == ["x", "y"] and not log.rejects


def test_hosted_tools_of_codex_are_masked(tmp_path):
    shell = {"type": "local_shell_call", "call_id": "c1", "action": {"command": ["ls"]}}
    lines = [response(words("user", "Tide?")), response(shell), response(OUTPUT)]
    [conversation] = read(tmp_path, [*lines, response(words("assistant", "At 09:12."))])
    assert said(conversation) == ["u Tide?", "a At 09:12."] and conversation.turns == []


@pytest.mark.parametrize(
    "name, messages",
    [
        (
            "langchain",
            [
                {"message": {"type": "human", "data": {"content": "Tide?"}}},
                {"message": {"type": "ai", "data": {"content": "At 09:12."}}},
            ],
        ),
        (
            "langchain",
            [
                {"message": json.dumps({"type": "human", "content": "Tide?"})},
                {"message": json.dumps({"type": "ai", "content": "At 09:12."})},
            ],
        ),
        (
            "responses",
            [
                {"message_data": json.dumps(words("user", "Tide?"))},
                {"message_data": json.dumps(words("assistant", "At 09:12."))},
            ],
        ),
        (
            "autogen",
            [
                {"type": "TextMessage", "source": "user", "content": "Tide?"},
                {"type": "TextMessage", "source": "tides", "content": "At 09:12."},
            ],
        ),
    ],
)
def test_rows_of_products_are_read_by_their_readers(tmp_path, name, messages):
    rows = [{"id": n, "session_id": "s"} | message for n, message in enumerate(messages)]
    log = read(tmp_path, rows)
    assert [said(c) for c in log] == [["u Tide?", "a At 09:12."]]
    assert log.report.formats == {name: 1}


# Realtime


def created(item):
    return {"type": "conversation.item.created", "event_id": "e", "item": item}


def done(*output, status="completed"):
    response = {"object": "realtime.response", "status": status, "output": list(output)}
    return {"type": "response.done", "event_id": "e", "response": response}


def realtime(**user):
    user_item = {"id": "i1", "type": "message", "role": "user"} | user
    return [
        {"type": "session.created", "session": {"id": "r", "tools": []}},
        {"type": "session.updated", "session": {"id": "r", "instructions": "Tides."}},
        created(user_item),
        {"type": "input_audio_buffer.committed", "event_id": "e"},
        created({"id": "i2", "type": "function_call", "status": "in_progress"} | ITEM),
        {"type": "response.function_call_arguments.delta", "event_id": "e", "delta": "{"},
        done({"id": "i2", "status": "completed"} | ITEM),
        created({"id": "i3"} | OUTPUT),
    ]


TEXT = {"content": [{"type": "input_text", "text": "Tide?"}]}
SPEECH = {"content": [{"type": "input_audio", "transcript": None}]}


def test_events_are_one_conversation(tmp_path):
    log = read(tmp_path, realtime(**TEXT))
    [conversation] = log
    assert said(conversation) == ["s Tides.", "u Tide?", "a get_tide", "t 09:12"]
    assert conversation.turns == [2] and conversation.meta["conversation_id"] == "r"
    assert log.report.merged == {"session_line": 7} and not log.report.warnings


def test_a_session_begins_with_its_event(tmp_path):
    assert len(read(tmp_path, realtime(**TEXT) * 2).conversations) == 2


def test_speech_is_read_as_its_transcript_or_refused(tmp_path):
    [reject] = read(tmp_path, realtime(**SPEECH), table("a")).rejects
    assert reject.code == "multimodal"
    transcript = {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": "i1",
        "transcript": "Tide?",
    }
    lines = realtime(**SPEECH)
    [conversation] = read(tmp_path, [*lines[:4], transcript, *lines[4:]])
    assert said(conversation)[1] == "u Tide?"
    assert conversation.meta["warnings"] == ["speech_as_text"]


def test_an_interrupted_response_carries_no_loss(tmp_path):
    cut = words("assistant", "At 0") | {"id": "i4"}
    lines = [*realtime(**TEXT), done(cut, status="cancelled")]
    [conversation] = read(tmp_path, lines)
    assert said(conversation)[-1] == "a At 0" and conversation.turns == [2]


def test_what_a_client_sends_counts_once(tmp_path):
    sent = {"type": "conversation.item.create", "item": words("user", "Tide?")}
    [conversation] = read(tmp_path, [sent, *realtime(**TEXT)])
    assert said(conversation)[1] == "u Tide?" and len(conversation.messages) == 4
    [conversation] = read(tmp_path, [sent, done(words("assistant", "09:12"))])
    assert said(conversation) == ["u Tide?", "a 09:12"]


def test_items_are_deleted_cut_and_put_between(tmp_path):
    early = {"type": "message", "role": "system", "content": [{"type": "text", "text": "Brief."}]}
    lines = [
        *realtime(**TEXT),
        {"type": "conversation.item.added", "previous_item_id": "root", "item": early},
        done(words("assistant", "At 09:12.") | {"id": "i4"}),
        {"type": "conversation.item.truncated", "item_id": "i4", "audio_end_ms": 100},
        created(words("user", "Um") | {"id": "i5"}),
        {"type": "conversation.item.deleted", "item_id": "i5"},
        {"type": "session.updated", "session": {"id": "r", "instructions": "Ebbs."}},
        created(words("user", "Ebb?") | {"id": "i6"}),
        done(words("assistant", "At 15:20.") | {"id": "i7"}),
        {"type": "response.create"},
        {"type": "error", "event_id": "e", "error": {"message": "x"}},
    ]
    log = read(tmp_path, lines)
    [conversation] = log
    assert said(conversation) == [
        *("s Tides.", "s Brief.", "u Tide?", "a get_tide", "t 09:12", "a At 09:12."),
        *("s Ebbs.", "u Ebb?", "a At 15:20."),
    ]
    assert conversation.turns == [3, 8] and not log.rejects


# Gemini CLI


def gemini():
    head = {"sessionId": "g", "projectHash": "0", "startTime": "2026-01-01T10:00:00Z"}
    keys = {"timestamp": "2026-01-01T10:00:01Z"}
    result = {"functionResponse": {"name": "get_tide", "response": {"output": "09:12"}}}
    call = {"id": "c1", "name": "get_tide", "args": {}, "status": "success", "result": [result]}
    answer = {"id": "2", "type": "gemini", "content": ""} | keys
    return [
        head,
        {"id": "1", "type": "user", "content": [{"text": "Tide?"}]} | keys,
        answer,
        answer | {"toolCalls": [call]},
        {"$set": {"lastUpdated": "2026-01-01T10:00:02Z"}},
        {"id": "3", "type": "gemini", "content": "At noon."} | keys,
        {"$rewindTo": "3"},
        {"id": "4", "type": "info", "content": "Update available"} | keys,
        {"id": "5", "type": "gemini", "content": "At 09:12."} | keys,
    ]


def test_lines_of_gemini_cli_are_replayed(tmp_path):
    other = gemini()
    other[0]["sessionId"] = "h"
    log = read(tmp_path, gemini(), other)
    assert [said(c) for c in log] == [TIDE, TIDE] and log.report.formats == {"gemini_cli": 2}
    assert [c.meta["conversation_id"] for c in log] == ["g", "h"]
    whole = {"$set": {"messages": gemini()[1:2] + gemini()[8:]}}
    assert [said(c) for c in read(tmp_path, [*gemini(), whole])] == [["u Tide?", "a At 09:12."]]
    log = read(tmp_path, gemini()[1:], gemini())
    assert len(log) == 1 and {reject.code for reject in log.rejects} == {"one_message"}


# Odd lines


ODD = [None, True, 0, -1.5, "", "x", "[{", [], {}, [[]], [{}], {"x": 1}, [None], {"role": []}]


def paths(value, path=()):
    yield path
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths(inner, (*path, key))


def with_value(record, path, value):
    copy = json.loads(json.dumps(record))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return copy


@pytest.mark.parametrize(
    "lines",
    [
        table("a"),
        real(session()),
        session(isSidechain=True)[:3],
        codex(),
        realtime(**SPEECH),
        gemini(),
    ],
    ids=["rows", "claude code", "agent", "codex", "realtime", "gemini cli"],
)
def test_odd_lines_never_crash_and_counts_add_up(tmp_path, lines):
    whole = table("b")
    for number, record in enumerate(lines):
        for path in paths(record):
            if not path:
                continue
            for odd in ODD:
                changed = [*lines[:number], with_value(record, path, odd), *lines[number + 1 :]]
                log = read(tmp_path, changed, whole)
                merged = sum(log.report.merged.values())
                assert len(log) + len(log.rejects) + merged == len(changed) + len(whole)
