"Files of every packing, and the decoder that skips what it has seen"

import gzip
import io
import json
import sys

import pytest
from goldens import GOLDENS
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall.conversation import Conversation
from toolcall.logs import LogError, iter_logs, lines, read_logs, reading
from toolcall.pipeline.commands import main

ROWS = [{"user": f"question {n}", "final_answer": "é"} for n in range(5)]
TEXT = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode()


def test_zst_and_gzip_by_their_bytes(tmp_path):
    zstd = (
        pytest.importorskip("backports.zstd")
        if sys.version_info < (3, 14)
        else __import__("compression.zstd", fromlist=["zstd"])
    )
    for name, packed in (
        ("a.log", zstd.compress(TEXT)),
        ("b.log", gzip.compress(TEXT)),
        ("c.log", TEXT),
    ):
        (tmp_path / name).write_bytes(packed)
        assert [c.messages[0]["content"] for c in read_logs(tmp_path / name)] == [
            row["user"] for row in ROWS
        ]
    (tmp_path / "cut.zst").write_bytes(zstd.compress(TEXT * 50)[:200])
    with pytest.raises(LogError, match="packed, but damaged"):
        read_logs(tmp_path / "cut.zst")


def test_zst_without_the_extra_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.zst").write_bytes(b"\x28\xb5\x2f\xfd....")
    monkeypatch.setattr(reading, "zstd", None)
    with pytest.raises(LogError, match=r"toolcall-tune\[fast\]"):
        read_logs(tmp_path / "a.zst")


@pytest.mark.parametrize(
    "start, said",
    [
        (b"PAR1....", "Parquet"),
        (b"PK\x03\x04...", "zip archive"),
        ("{}".encode("utf-16"), "UTF-16"),
    ],
)
def test_what_is_no_log_is_named(tmp_path, start, said):
    (tmp_path / "log").write_bytes(start)
    with pytest.raises(LogError, match=said):
        read_logs(tmp_path / "log")


def test_csv_is_named_in_the_error(tmp_path):
    (tmp_path / "log.csv").write_text("user,tool_name\nhi,f\n")
    with pytest.raises(LogError, match="CSV"):
        read_logs(tmp_path / "log.csv")


def test_several_files_patterns_and_equal_names(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "log.jsonl").write_bytes(TEXT)
    log = read_logs(str(tmp_path / "*" / "log.jsonl"))
    assert log.report.records == 10 and {c.meta["source"] for c in log} >= {
        "a/log.jsonl:1",
        "b/log.jsonl:5",
    }
    assert (
        read_logs([tmp_path / "a" / "log.jsonl", tmp_path / "b" / "*.jsonl"]).report.records == 10
    )


def test_standard_input(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(
        sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(gzip.compress(TEXT))))
    )
    assert main(["inspect", "-"]) == 0
    assert "5 records" in capsys.readouterr().out


def test_a_page_never_overwrites_a_log(tmp_path, capsys):
    (tmp_path / "log.jsonl").write_bytes(TEXT)
    assert (
        main(["inspect", str(tmp_path / "log.jsonl"), "--html", str(tmp_path / "log.jsonl")]) == 2
    )
    assert (
        "Nothing was written" in capsys.readouterr().err
        and (tmp_path / "log.jsonl").read_bytes() == TEXT
    )
    for _ in range(2):
        assert (
            main(["inspect", str(tmp_path / "log.jsonl"), "--html", str(tmp_path / "page.html")])
            == 0
        )


def test_null_and_other_non_objects_are_counted(tmp_path):
    (tmp_path / "log.jsonl").write_bytes(TEXT + b'\nnull\n42\n"x"\n[]\n')
    report = read_logs(tmp_path / "log.jsonl", max_reject=0.9).report
    assert (report.records, report.conversations, report.rejected) == (9, 5, {"bad_type": 4})


def test_adapters_that_fail_lose_no_record(tmp_path):
    def adapter(record):
        number = int(record["user"].split()[1])
        talk = Conversation(
            "", [{"role": "user", "content": "?"}, {"role": "assistant", "content": str(number)}]
        )
        return (
            [record["nothing"] if number == 0 else None, [], [talk, talk], talk, talk][number]
            if number
            else record["nothing"]
        )

    (tmp_path / "log.jsonl").write_bytes(TEXT)
    log = read_logs(tmp_path / "log.jsonl", adapter=adapter, max_reject=0.9)
    assert (log.report.records, log.report.conversations, log.report.rejected) == (
        6,
        4,
        {"adapter": 2},
    )


def test_one_bad_conversation_of_an_adapter_loses_no_other(tmp_path):
    def adapter(record):
        ask, answer = ({"role": role, "content": "?"} for role in ("user", "assistant"))
        return [Conversation("", [ask]), Conversation("", [ask, answer]), None]

    (tmp_path / "log.jsonl").write_bytes(TEXT)
    report = read_logs(tmp_path / "log.jsonl", adapter=adapter, max_reject=0.9).report
    assert (report.records, report.conversations) == (15, 5)
    assert report.rejected == {"no_content": 5, "adapter": 5}


def test_with_and_without_msgspec_the_same(tmp_path, monkeypatch):
    (tmp_path / "log.jsonl").write_text(
        "\n".join(json.dumps(record) for _ in range(3) for _, record, _ in GOLDENS.values())
    )
    fast = list(iter_logs(tmp_path / "log.jsonl"))
    monkeypatch.setattr(lines, "msgspec", None)
    assert [repr(vars(item)) for item in iter_logs(tmp_path / "log.jsonl")] == [
        repr(vars(item)) for item in fast
    ]


value = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=6),
        st.sampled_from(['"tools":[]', '\\"tools": [', "tools"]),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["tools", "request", "body", "a", '"tools":']), inner, max_size=3
        )
    ),
    max_leaves=12,
)
catalogue = st.just([{"name": "f"}])
holder = st.fixed_dictionaries({"tools": catalogue}, optional={"x": value})
line = st.dictionaries(
    st.sampled_from(["tools", "request", "body", "functions", "x"]),
    st.one_of(value, catalogue, holder),
    max_size=4,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(line, min_size=1, max_size=6), st.booleans(), st.booleans())
def test_the_decoder_gives_what_json_gives(rows, tight, plain):
    decoder = lines.LineDecoder()
    texts = [
        json.dumps(row, ensure_ascii=plain, separators=(",", ":") if tight else None).encode(
            "utf-8", "replace"
        )
        for row in [*rows, *rows]
    ]
    for text in texts:
        assert repr(decoder(text)) == repr(json.loads(text))
