"What a log or a configuration may cost: size, depth, time; and what is said when it is too much"

import gc
import gzip
import io
import json
import random
import sys
import time
import tracemalloc
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall.curate import curate
from toolcall.errors import ConfigError, LogError
from toolcall.logs import documents, iter_logs, lines, read_logs
from toolcall.logs.reading import find_logs
from toolcall.pipeline.commands import main
from toolcall.pipeline.config import load_config

limits = pytest.mark.attack("limits")
GOOD = '{"user": "a", "final_answer": "b"}'
LARGE = '{"user": "%s", "final_answer": "b"}'


def codes(path, **options) -> list[str | None]:
    return [getattr(item, "code", None) for item in iter_logs(path, **options)]


def pack(text: bytes, packing: str) -> bytes:
    if packing == "gzip":
        return gzip.compress(text)
    if packing == "zstd":
        zstd = pytest.importorskip(
            "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd"
        )
        return zstd.compress(text)
    return text


@limits
@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize(
    "layout", ["{0}\n{1}\n{0}\n", "[{0},\n{1},\n{0}]", "{0}\n\n{{\n}}{1}{0}", "\ufeff[{0},{1},{0}]"]
)
def test_a_large_record_is_skipped_and_said(tmp_path, layout, packing):
    large = LARGE % ('x\\\\\\"[' * 2000)
    text = layout.format(GOOD, large).encode()
    (tmp_path / "log").write_bytes(pack(text, packing))
    items = list(iter_logs(tmp_path / "log", max_record_bytes=5000))
    rejected = [item for item in items if getattr(item, "code", "") == "too_large"]
    assert [item.message.split()[0] for item in rejected] == [f"{len(large.encode()):,}"]
    assert text[rejected[0].offset :].startswith(large[:50].encode())
    assert sum(not hasattr(item, "code") for item in items) == 2


@limits
@pytest.mark.parametrize("size, code", [(0, None), (1, "too_large")])
@pytest.mark.parametrize("layout", ["{}\r\n", "{}", "[{}]", "[\n{}\n]"])
def test_the_limit_is_exact(tmp_path, layout, size, code):
    (tmp_path / "log").write_text(layout.format(LARGE % ("x" * 100)), newline="")
    limit = len(LARGE % ("x" * 100)) - size
    assert codes(tmp_path / "log", max_record_bytes=limit) == [code]


BOMBS = {
    "zeros": lambda: b"0" * 10**6,
    "nul": lambda: b"\0" * 10**6,
    "text": lambda: b'"' + b"a" * 10**6,
    "array": lambda: b"[" * 10**6,
    "pairs": lambda: b"[]" * 10**6,
    "array of text": lambda: b'["' + b"\\" * 10**6,
}


@limits
@pytest.mark.parametrize("start", [b"", b"[", b"{\n"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_memory_is_bounded_by_the_limit(tmp_path, bomb, start):
    block = BOMBS[bomb]()
    packer = zlib.compressobj(1, wbits=31)
    with open(tmp_path / "log.gz", "wb") as handle:
        handle.write(packer.compress(start))
        for _ in range(8):
            handle.write(packer.compress(block))
        handle.write(packer.flush())
    del block
    tracemalloc.start()
    items = list(iter_logs(tmp_path / "log.gz", max_record_bytes=10**5))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [hasattr(item, "code") for item in items] in ([True], [True, True])
    assert peak < 30e6


@limits
@pytest.mark.parametrize("limit", [0, -1, 1.5, None, "64 MB"])
def test_a_limit_that_is_none_is_refused(tmp_path, limit):
    (tmp_path / "log").write_text(GOOD)
    with pytest.raises(LogError, match="max_record_bytes"):
        read_logs(tmp_path / "log", max_record_bytes=limit)


nested = st.recursive(
    st.text('[]{}",\\a', max_size=6) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("]}\\"), inner, max_size=3),
    max_leaves=9,
)


@settings(deadline=None, max_examples=200)
@given(st.lists(nested, min_size=1, max_size=4), st.integers(1, 5), st.integers(2, 5))
def test_skipping_finds_the_end_that_decoding_finds(values, block, part):
    text = json.dumps(values).encode()
    expected = [json.dumps(value) for value in values]
    sizes = documents._BLOCK, documents._PART
    documents._BLOCK, documents._PART = block, part
    try:
        records = list(documents.iter_documents(io.BytesIO(text), 1))
    finally:
        documents._BLOCK, documents._PART = sizes
    assert len(records) == len(expected)
    for record, value in zip(records, expected, strict=True):
        assert text[record.offset :].startswith(value.encode())
        assert (record.error is None) == (len(value) == 1)


TWICE = {
    "object": '{"user": "a", "tool_name": "f", "arguments": {"c": 1, "c": 2}}',
    "equal": '{"user": "a", "final_answer": "b", "x": 1, "x": 1}',
    "blanks": '{"user" : "a", "user"\t: "b", "final_answer": "c"}',
    "escape": '{"user": "a", "final_answer": "b", "q": 1, "q": "\\u0022\\u0022"}',
    "other spelling": '{"user": "a", "final_answer": "b", "\\u0078": 1, "x": 2}',
    "big number": '{"user": "a", "final_answer": "b", "x": 1, "x": 123456789012345678901234567890}',
    "text": '{"user": "a", "tool_name": "f", "arguments": "{\\"c\\": 1, \\"c\\": 2}"}',
    "tools": '{"user": "a", "final_answer": "b", "tools": [{"name": "f", "name": "g"}]}',
    "tools as text": '{"user": "a", "final_answer": "b", "tools": "[{\\"n\\": 1, \\"n\\": 2}]"}',
    "two catalogues": '{"user": "a", "final_answer": "b", "tools": [{"name": "f"}], "tools": []}',
    "messages as text": '{"messages": "[{\\"role\\": \\"user\\", \\"role\\": \\"tool\\"}]"}',
    "telemetry": '{"attributes": {"gen_ai.input.messages": "[{\\"a\\": 1, \\"a\\": 2}]", '
    '"gen_ai.output.messages": "[]"}}',
    "mlflow": '{"attributes": {"mlflow.spanType": "\\"LLM\\"", "mlflow.spanInputs": '
    '"{\\"messages\\": 1, \\"messages\\": 2}"}}',
    "langfuse": '{"type": "GENERATION", "traceId": "t", "level": "DEFAULT", '
    '"input": "{\\"messages\\": 1, \\"messages\\": 2}", "output": "x"}',
    "python": '{"conversations": [{"from": "human", "value": "a"}, '
    '{"from": "function_call", "value": "{\'name\': \'f\', \'name\': \'g\'}"}], "tools": "[]"}',
}


@limits
@pytest.mark.parametrize("packed", [True, False], ids=["msgspec", "plain"])
@pytest.mark.parametrize("name", TWICE)
def test_a_key_twice_is_refused_everywhere(tmp_path, monkeypatch, name, packed):
    if not packed:
        monkeypatch.setattr(lines, "msgspec", None)
    (tmp_path / "log.jsonl").write_text(f"{GOOD}\n{TWICE[name]}\n{TWICE[name]}\n")
    assert codes(tmp_path / "log.jsonl") == [None, "duplicate_key", "duplicate_key"]
    (tmp_path / "log.json").write_text(f"[{GOOD},\n{TWICE[name]},\n{GOOD}]")
    assert codes(tmp_path / "log.json") == [None, "duplicate_key", None]


token = st.sampled_from(
    [
        *'{}[],:"0 ',
        '"a"',
        '"a":1,',
        "1e999",
        "-",
        "NaN",
        "Infinity",
        "1.5",
        "null",
        "\\",
        '"\\u0022"',
    ]
    + ['"\\ud800"', "9" * 25, "é", "\x00", '{"a":', "-0", "[1]", '"":', '"tools":[{"name":"f"}],']
)


@settings(deadline=None, max_examples=500)
@given(st.lists(st.lists(token, max_size=12).map("".join), min_size=1, max_size=3))
def test_both_decoders_give_the_same_value_or_the_same_code(texts):
    fast = lines.LineDecoder()
    for text in [*texts, *texts]:
        plain = lines.decode(text.encode(), 1, 0)
        quick = lines.decode(text.encode(), 1, 0, fast=fast)
        assert repr(plain.value) == repr(quick.value)
        assert repr(plain.error) == repr(quick.error)


def refs(name: str, n: int, template: str) -> str:
    first = (
        f"{name}0: &{name}0 [x, x]\n" if "<<" not in template else f"{name}0: &{name}0 {{k: v}}\n"
    )
    rest = (
        f"{name}{i}: &{name}{i} {template.replace('@', f'*{name}{i - 1}')}\n" for i in range(1, n)
    )
    return first + "".join(rest)


YAML = {
    "aliases": ("characters with its aliases", refs("a", 40, "[@, @]")),
    "merges": ("characters with its aliases", refs("a", 40, "{<<: [@, @]}")),
    "deep by aliases": ("levels by its aliases", refs("a", 400, "[@]")),
    "alias of itself": ("aliases", "evaluation: &a {rules: *a}"),
    "long text often": (
        "characters with its aliases",
        f"a: &a {'x' * 9000}\nb: [{', '.join(['*a'] * 500)}]",
    ),
    "key twice": ("key batch_size twice, in lines 2 and 4", "\nbatch_size: 1\nx: 1\nbatch_size: 2"),
    "key twice inside": ("key seed twice", "split: {seed: 1, 'seed': 2}"),
    "nan": ("num_train_epochs is a finite number", "num_train_epochs: .nan"),
    "infinity": ("training.learning_rate is a finite", "training: {learning_rate: .inf}"),
    "minus infinity": ("packing.weights.name is a finite", "packing: {weights: {name: -.inf}}"),
    "beyond range": ("finite", "num_train_epochs: 1e999"),
    "deep list": ("deeper than 64", "split: " + "[" * 10_000),
    "deep mapping": ("deeper than 64", "split: " + "{a: " * 10_000),
    "deep blocks": ("deeper than 64", "split:\n" + "- " * 10_000),
    "large": ("more than 1,000,000", "#\n" * 600_000),
    "many values": ("more than 10,000 values", f"a: [{'1,' * 20_000}]"),
    "tag": ("the tag", "log_path: !!python/object/apply:os.system [ls]"),
    "tag of a number": ("the tag", "batch_size: !!int ''"),
    "own tag": ("the tag", "batch_size: !x 1"),
    "two documents": ("another document", "a: 1\n---\nb: 2"),
    "tab": ("cannot start any token", "logs:\n\tstrict: true"),
    "control": ("not allowed", "log_path: \x07"),
    "no date": ("not YAML", "split: {after: 2026-02-31}"),
    "digits": ("not YAML", f"batch_size: {'9' * 5000}"),
    "long value": ("batch_size is of type int", f"batch_size: {'x' * 50_000}"),
    "long key": ("unknown key", f"? {'x' * 900}\n: 1"),
}


@limits
@pytest.mark.parametrize("name", YAML)
def test_a_configuration_is_refused_with_a_sentence_and_at_once(tmp_path, name):
    sentence, text = YAML[name]
    (tmp_path / "c.yaml").write_text(f"log_path: x\n{text}" if name != "tag" else text)
    start = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    assert sentence.replace("lines 2 and 4", "lines 3 and 5") in str(caught.value)
    assert len(str(caught.value)) < 2500 and "\n" not in str(caught.value)
    assert time.process_time() - start < 10


@limits
@pytest.mark.parametrize("content", [b"\x80\x81PNG", "log_path: x".encode("utf-16"), b"\xff" * 99])
def test_a_binary_configuration_is_refused(tmp_path, content):
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "c.yaml")


def test_what_people_write_in_yaml_is_read(tmp_path):
    text = "\ufefflog_path: x\nlora: &l {r: 8}\nsplit: {seed: 1}\ntraining: {learning_rate: 1e-4}\n"
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    config = load_config(tmp_path / "c.yaml", ["logs.max_record_bytes=1000"])
    assert (config.split.seed, config.training, config.logs.max_record_bytes) == (
        1,
        {"learning_rate": 1e-4},
        1000,
    )


class Drips(io.RawIOBase):
    "A pipe that gives one byte at a time"

    def __init__(self, content: bytes):
        self.content = io.BytesIO(content)

    def readable(self):
        return True

    def readinto(self, buffer):
        return self.content.readinto(memoryview(buffer)[:1])


ROWS = f"{GOOD}\n".encode() * 4
PIPES = {
    "plain": (ROWS, [None] * 4),
    "gzip": (gzip.compress(ROWS), [None] * 4),
    "members": (gzip.compress(ROWS) * 2, [None] * 8),
    "padding": (gzip.compress(ROWS) + b"\0" * 99, [None] * 4),
    "other bytes behind": (gzip.compress(ROWS) + b"garbage", [None] * 4 + ["cut_off"]),
    "cut": (gzip.compress(ROWS)[:-8], [None] * 4 + ["cut_off"]),
    "wrong checksum": (gzip.compress(ROWS)[:-8] + b"12345678", [None] * 4 + ["damaged"]),
    "bom": (b"\xef\xbb\xbf" + ROWS, [None] * 4),
    "array": (b"[" + ROWS.replace(b"\n", b",\n")[:-2] + b"]", [None] * 4),
    "1 byte": (b"{", ["not_json"]),
    "3 bytes": (b"\x1f\x8b\x08", ["cut_off"]),
    "empty": (b"", LogError),
    "head of zstd": (b"\x28\xb5\x2f", ["encoding"]),
}


@limits
@pytest.mark.parametrize("name", PIPES)
def test_a_slow_pipe_is_read_like_a_file(tmp_path, monkeypatch, name):
    content, expected = PIPES[name]
    (tmp_path / "log").write_bytes(content)
    for path in (tmp_path / "log", "-"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Drips(content))))
        if expected is LogError:
            with pytest.raises(LogError, match="is empty"):
                codes(path)
        else:
            assert codes(path) == expected


@limits
def test_a_window_of_zstd_that_is_too_large_is_refused(tmp_path):
    zstd = pytest.importorskip(
        "backports.zstd" if sys.version_info < (3, 14) else "compression.zstd"
    )
    options = {zstd.CompressionParameter.window_log: 30}
    packer = zstd.ZstdCompressor(options=options)
    (tmp_path / "log").write_bytes(packer.compress(ROWS) + packer.flush())
    with pytest.raises(LogError, match="without --long"):
        read_logs(tmp_path / "log")


@limits
@pytest.mark.parametrize("max_reject, kept", [(0.5, None), (1, 4)])
def test_a_damaged_file_is_read_only_when_asked_for(tmp_path, max_reject, kept):
    (tmp_path / "log").write_bytes(PIPES["wrong checksum"][0])
    if kept:
        assert len(read_logs(tmp_path / "log", max_reject=max_reject)) == kept
        return
    with pytest.raises(LogError, match="max_reject=1"):
        read_logs(tmp_path / "log", max_reject=max_reject)


@limits
@pytest.mark.parametrize("arguments", ['"arguments": ""', '"arguments": null', '"args": null'])
def test_empty_arguments_are_noted(tmp_path, arguments):
    rows = [
        f'{{"user": "a", "tool_name": "f", {arguments}}}',
        f'{{"turns": [{{"user": "a", "tool": "f", {arguments}}}]}}',
    ]
    (tmp_path / "log").write_text("\n".join(rows))
    assert read_logs(tmp_path / "log").report.warnings == {"empty_arguments": 2}


ESCAPES = "\x1b]0;PWNED\x07\x1b[2J\x9b31m\u202e\r"
HOSTILE = {
    "arguments": {"user": "a", "tool_name": "f", "arguments": ESCAPES},
    "key": {ESCAPES: 1},
    "tool": {
        "user": "a",
        "final_answer": "b",
        "tools": [{"name": ESCAPES, "parameters": {"a": {}}}] + [{"name": ESCAPES}],
    },
    "role": {"messages": [{"role": ESCAPES, "content": "a"}]},
    "id": {"messages": [{"role": "tool", "tool_call_id": ESCAPES, "content": "a"}]},
    "batch": {"custom_id": ESCAPES, "body": {}},
    "attribute": {
        "attributes": [{"key": ESCAPES, "value": ESCAPES}, {"key": "gen_ai.x", "value": 1}]
    },
    "twice": {
        "user": "a",
        "tool_name": "f",
        "arguments": json.dumps({"@": 1}).replace("@", ESCAPES),
    },
}


@pytest.mark.attack("terminal")
@pytest.mark.parametrize("name", HOSTILE)
def test_no_control_character_of_a_log_is_printed(tmp_path, capfdbinary, name):
    hostile = json.dumps(HOSTILE[name])
    (tmp_path / "log.jsonl").write_text(f"{GOOD}\n{hostile}\n{hostile}\n")
    main(["inspect", str(tmp_path / "log.jsonl")])
    try:
        log = read_logs(tmp_path / "log.jsonl", max_reject=0.9)
    except LogError as error:
        print(error)
    else:
        log.save_rejects(tmp_path / "rejects.jsonl")
        print(log, repr(log), log._repr_markdown_(), log.rejects, *map(str, log.rejects))
        print((tmp_path / "rejects.jsonl").read_text(encoding="utf-8"))
    captured = capfdbinary.readouterr()
    text = (captured.out + captured.err).decode("utf-8")
    assert not [char for char in text if not char.isprintable() and char != "\n"]


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def calls(n: int, same: bool) -> dict:
    function = {"name": "f", "arguments": "{}"}
    made = [{"id": "c" if same else f"c{i}", "function": function} for i in range(n)]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "1"} for call in made]
    return {"messages": [user("a"), {"role": "assistant", "tool_calls": made}, *results]}


def tools(n: int) -> list[dict]:
    return [{"name": f"f{i}", "parameters": {"type": "object"}} for i in range(n)]


def span(i: int) -> dict:
    said = '[{"role": "user", "parts": [{"type": "text", "content": "a"}]}]'
    values = {"operation.name": "chat", "input.messages": said, "output.messages": said}
    attributes = [
        {"key": f"gen_ai.{key}", "value": {"stringValue": value}} for key, value in values.items()
    ]
    return {"traceId": "t", "spanId": str(i), "attributes": attributes}


def otlp(n: int) -> dict:
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span(i) for i in range(n)]}]}]}


PATHS = {  # size, and the records of a log
    "records with ids": (800, lambda n: [json.loads(GOOD) | {"id": str(i)} for i in range(n)]),
    "rejects": (1500, lambda n: [json.loads(GOOD), *({f"k{i}": 1} for i in range(n))]),
    "messages of one record": (
        2000,
        lambda n: [{"messages": [user("a"), {"role": "assistant", "content": "b"}] * n}],
    ),
    "calls of one record": (1000, lambda n: [calls(n, same=False)]),
    "calls with one id": (1000, lambda n: [calls(n, same=True)]),
    "tools": (800, lambda n: [json.loads(GOOD) | {"tools": tools(n)}]),
    "arguments": (
        5000,
        lambda n: [
            {"user": "a", "tool_name": "f", "arguments": {f"k{i}": [[[i]]] for i in range(n)}}
        ],
    ),
    "spans of one document": (200, lambda n: [otlp(n)]),
}


def best(function) -> float:
    times = []
    for _ in range(3):
        gc.collect()
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


@limits
@pytest.mark.parametrize("name", PATHS)
def test_time_to_read_grows_with_the_text(tmp_path, name):
    size, make = PATHS[name]
    times = []
    for n in (size, 4 * size):  # four times: 4 when it grows with the text, 16 with its square
        rows = "".join(f"{json.dumps(row)}\n" for row in make(n))
        (tmp_path / f"{n}.jsonl").write_text(rows)
        times.append(best(lambda: list(iter_logs(tmp_path / f"{n}.jsonl"))))  # noqa: B023
    assert times[1] < 9 * times[0] + 0.05


@limits
@pytest.mark.parametrize("kind", ["one beginning", "nearly equal"])
def test_time_to_curate_grows_with_the_text(tmp_path, kind):
    times = []
    for n in (150, 600):
        ask = "Find me a table for two in the restaurant {}"
        rows = [
            {
                "messages": [
                    user("Hello"),
                    {"role": "assistant", "content": "Hi"},
                    user(ask.format(i)),
                    {"role": "assistant", "content": f"{i}"},
                ]
            }
            for i in range(n)
        ]
        (tmp_path / "log").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        conversations = read_logs(tmp_path / "log").conversations
        similar = 2 if kind == "nearly equal" else None
        times.append(best(lambda: curate(conversations, max_similar=similar)))  # noqa: B023
    assert times[1] < 9 * times[0] + 0.05


@limits
@pytest.mark.parametrize("listed", [True, False], ids=["list", "pattern"])
def test_time_to_find_files_grows_with_their_number(tmp_path, listed):
    times = []
    for n in (500, 2000):
        folder = tmp_path / str(n)
        folder.mkdir()
        for i in range(n):
            (folder / f"{i}.jsonl").touch()
        pattern = str(folder / "*.jsonl")
        what = [pattern] if listed else pattern
        assert len(find_logs(what)) == n
        times.append(best(lambda: find_logs(what)))  # noqa: B023
    assert times[1] < 9 * times[0] + 0.05


@limits
def test_a_document_of_large_elements_is_read_in_time_that_grows_with_it(tmp_path):
    draw = random.Random(0)
    times = []
    for n in (5, 20):
        element = {"user": "x" * 10**6, "final_answer": "b", "n": draw.random()}
        handle = json.dumps([element] * n).encode()
        times.append(best(lambda: list(documents.iter_documents(io.BytesIO(handle)))))  # noqa: B023
    assert times[1] < 9 * times[0] + 0.05
