"One golden record a format, in and out literally; and records that are broken at random"

import copy
import json
import random

import pytest
from goldens import GOLDENS, TOOL
from seeds import EVERYTHING, missing_formats

from toolcall.conversation import Conversation, check_messages
from toolcall.errors import LogError
from toolcall.formats import FORMATS, find_adapter, find_format
from toolcall.logs import Merge, Reject, iter_logs
from toolcall.logs.codes import CODES, MERGED, WARNINGS
from toolcall.text import dumps, loads


@pytest.mark.parametrize("name", GOLDENS)
def test_golden_record(name):
    format, record, messages = GOLDENS[name]
    assert find_format(record).name == format
    conversation = find_adapter()(record)
    assert dumps(conversation.messages) == dumps(messages)
    assert (
        name == "simple"
        or conversation.tools == [TOOL]
        or conversation.tools
        == [{"type": "function", "function": TOOL["function"] | {"strict": True}}]
    )
    assert Conversation.from_dict(loads(dumps(conversation.to_dict()))) == conversation
    assert find_adapter(format)(record) == conversation


def test_every_format_has_a_golden_record():
    assert missing_formats() == set()


def test_the_shortcut_finds_what_the_full_search_finds():
    draw = random.Random(0)
    for _ in range(4000):
        record = draw.choice(EVERYTHING)
        if draw.random() < 0.7:
            other = draw.choice(EVERYTHING)
            record = {
                key: value for key, value in {**record, **other}.items() if draw.random() < 0.7
            }
        assert find_format(record) == next(
            (format for format in FORMATS if format.detect(record)), None
        ), list(record)


ODD = [
    None,
    True,
    0,
    1.5,
    10**30,
    "",
    " ",
    "x",
    "{",
    "[]",
    [],
    {},
    [[]],
    [{}],
    {"x": None},
    ["x"],
    "REDACTED",
    "\x00",
    {"type": {}},
    [{"type": []}],
    "é" * 9,
]


def mutate(value: object, draw: random.Random) -> object:
    "One sub-value replaced, deleted, repeated, or its siblings reordered"
    value = copy.deepcopy(value)
    holders, stack = [], [value]
    while stack:
        inner = stack.pop()
        if isinstance(inner, (dict, list)) and inner:
            holders.append(inner)
            stack += inner.values() if isinstance(inner, dict) else inner
    holder = draw.choice(holders)
    key = draw.choice(list(holder)) if isinstance(holder, dict) else draw.randrange(len(holder))
    action = draw.randrange(4)
    if action == 0:
        holder[key] = copy.deepcopy(draw.choice(ODD))
    elif action == 1:
        del holder[key]
    elif action == 2 and isinstance(holder, list):
        holder.insert(draw.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
    elif isinstance(holder, list):
        draw.shuffle(holder)
    else:
        holder[str(key) + draw.choice(["", "s", "_"])] = [holder[key]]
    return value


def break_bytes(line: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(line))
    junk = draw.choice(
        [
            b"",
            b"\xff",
            b"\xed\xa0\x80",
            b'"',
            b"{",
            b"]",
            b"null",
            b"\\",
            b"\\ud800",
            b"1e999",
            b"NaN",
            b"[" * 5000,
            b'{"a":' * 2000,
            b"\n",
            b"\r",
            b"\x00",
            b"\xe2\x80\xa8",
        ]
    )
    return line[:at] + junk + line[at + draw.choice([0, 1, 9, 10**6]) :]


@pytest.mark.parametrize("seed", range(10))
def test_ten_thousand_broken_records_never_crash_the_reader(seed, tmp_path):
    draw = random.Random(seed)
    lines = []
    for _ in range(1000):
        record = draw.choice(EVERYTHING)
        for _ in range(draw.randint(1, 3)):
            record = mutate(record, draw) if isinstance(record, dict) and record else {"x": 1}
        line = json.dumps(record, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")
        lines.append(break_bytes(line, draw) if draw.random() < 0.3 else line)
    shape = seed % 3
    if shape == 2:
        blob = b"[" + b",\n".join(line for line in lines if is_json(line)) + b"]"
    else:
        blob = b"\n".join(lines)
    path = tmp_path / "broken.jsonl"
    path.write_bytes(blob)
    try:
        items = list(iter_logs(path))
    except LogError as error:
        pytest.fail(f"the whole file was refused: {error}")
    counts = {
        kind: sum(isinstance(item, kind) for item in items)
        for kind in (Conversation, Reject, Merge)
    }
    assert sum(counts.values()) == len(items) >= (0.9 * len(lines) if shape < 2 else 100)
    assert all(counts.values())
    for item in items:
        if isinstance(item, Conversation):
            check_messages(item.messages)
            assert set(item.meta.get("warnings", [])) <= WARNINGS.keys()
            dumps(item.to_dict()).encode()
        elif isinstance(item, Merge):
            assert item.code in MERGED
        elif isinstance(item, Reject):
            assert item.code in CODES
            assert (
                len(item.excerpt) <= 80
                and item.source.startswith("broken.jsonl:")
                and dumps(vars(item)).encode()
            )


def is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True
