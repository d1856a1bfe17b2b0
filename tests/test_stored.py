"Conversations in a folder of packed shards: equal, complete, or refused"

import json

import pytest

from toolcall.conversation import Conversation
from toolcall.errors import LogError
from toolcall.logs import iter_logs, load_shards, read_logs, save_shards, stored
from toolcall.pipeline.commands import main
from toolcall.samples import sample_log


@pytest.fixture(scope="module")
def conversations():
    return read_logs(sample_log()).conversations[:300]


@pytest.mark.parametrize("size", [1, 20_000, 1 << 30])
def test_what_is_saved_comes_back(conversations, tmp_path, size):
    conversations = conversations[:20] if size == 1 else conversations
    save_shards(iter(conversations), tmp_path / "a", size=size)
    assert list(load_shards(tmp_path / "a")) == conversations
    parts = list((tmp_path / "a").glob("part-*"))
    assert len(parts) == 20 if size == 1 else len(parts) < 60
    log = read_logs(tmp_path / "a")
    assert log.conversations == conversations == list(iter_logs(tmp_path / "a", engine=2))
    assert log.report.records == log.report.conversations == len(conversations) and not log.rejects
    first = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    save_shards(conversations, tmp_path / "a", size=size)
    assert {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()} == first


def test_no_conversation_and_no_zstd(conversations, tmp_path, monkeypatch):
    save_shards([], tmp_path)
    assert list(load_shards(tmp_path)) == []
    monkeypatch.setattr(stored, "zstd", None)
    save_shards(conversations, tmp_path)
    assert [file.suffix for file in tmp_path.glob("part-*")] == [".gz"]
    assert list(load_shards(tmp_path)) == conversations


def test_a_folder_that_was_not_finished_is_refused(conversations, tmp_path):
    def broken():
        yield from conversations
        raise OSError("no space left")

    save_shards(conversations, tmp_path, size=9000)
    with pytest.raises(OSError, match="no space"):
        save_shards(broken(), tmp_path, size=9000)
    assert not list(tmp_path.glob("*.part"))
    with pytest.raises(LogError, match="not saved to the end"):
        list(load_shards(tmp_path))
    save_shards(conversations, tmp_path, size=9000)
    assert list(load_shards(tmp_path)) == conversations


def test_each_change_is_named(conversations, tmp_path):
    save_shards(conversations, tmp_path, size=90_000)
    second = sorted(tmp_path.glob("part-*"))[1]
    whole = second.read_bytes()
    changes = {
        "its manifest says": whole[:-1],
        "differs from its manifest": whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:],
    }
    for said, content in changes.items():
        second.write_bytes(content)
        before = iter(load_shards(tmp_path))
        with pytest.raises(LogError, match=said) as raised:
            list(before)
        assert second.name in str(raised.value)
    second.unlink()
    with pytest.raises(LogError, match="is missing"):
        read_logs(tmp_path)
    second.write_bytes(whole)
    counts = json.loads((tmp_path / "counts.json").read_text())
    counts["shards"]["../other"] = 1
    (tmp_path / "counts.json").write_text(json.dumps(counts))
    with pytest.raises(LogError, match=r"counts\.json"):
        read_logs(tmp_path)


def test_a_run_reads_a_folder_of_shards(conversations, tmp_path, capsys):
    save_shards(conversations, tmp_path / "log")
    out = f"output_dir={tmp_path / 'out'}"
    assert main(["data", str(tmp_path / "log"), out]) == 0
    assert main(["inspect", str(tmp_path / "log"), "--doubts", "0"]) == 0
    assert "300 records" in capsys.readouterr().out.replace("conversations", "records")


def test_a_stream_is_written_without_being_held(tmp_path):
    messages = [{"role": "user", "content": "x" * 100}, {"role": "assistant", "content": "y"}]
    alive: list[int] = []
    most = 0

    class Counted(Conversation):
        def __del__(self):
            alive.pop()

    def stream():
        nonlocal most
        for n in range(2000):
            alive.append(n)
            most = max(most, len(alive))
            yield Counted(str(n), messages)

    save_shards(stream(), tmp_path, size=5000)
    assert most < 4 and sum(1 for _ in load_shards(tmp_path)) == 2000
