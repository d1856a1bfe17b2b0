"Addresses of logs: equal to files, only over the network when asked, and never with a secret"

import bz2
import gzip
import io
import json
import lzma
import subprocess
import sys
import traceback
import zipfile

import fsspec
import pytest

from toolcall.logs import LogError, read_logs, shards
from toolcall.logs.reading import iter_records
from toolcall.pipeline.commands import main

ROWS = [{"user": f"question {n}", "final_answer": "é"} for n in range(5)]
TEXT = "\n".join([*map(json.dumps, ROWS), "broken"]).encode()
SECRET = "wJalrXUtnFEMI"
SIGNED = f"https://me.example/logs/a.jsonl?X-Amz-Credential=AKIA&X-Amz-Signature={SECRET}"


def read(path, **options) -> tuple:
    log = read_logs(path, **options)
    return [vars(c) for c in log], [vars(r) for r in log.rejects], vars(log.report)


def test_each_packing_and_address_gives_what_the_file_gives(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(TEXT)
    (tmp_path / "packed").mkdir()
    plain = read(tmp_path / "a.jsonl")
    for pack in (bz2.compress, lzma.compress, gzip.compress):
        (tmp_path / "packed" / "a.jsonl").write_bytes(pack(TEXT[:100]) + pack(TEXT[100:]))
        assert read(tmp_path / "packed" / "a.jsonl") == plain
    with zipfile.ZipFile(tmp_path / "logs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("day/a.jsonl", TEXT)
    fsspec.filesystem("memory").pipe("/test_paths/a.jsonl", TEXT)
    archive = f"zip://day/a.jsonl::{tmp_path}/logs.zip"
    for address in (archive, "memory://test_paths/a.jsonl", f"file://{tmp_path}/a.jsonl"):
        assert read(address) == plain
    both = read([tmp_path / "a.jsonl", archive])
    sources = [facts["meta"]["source"] for facts in both[0]]
    assert sources[0] == "a.jsonl:1" and sources[5] == "logs.zip/day/a.jsonl:1"


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_what_a_damaged_file_loses_is_counted(tmp_path, pack):
    packed = pack(TEXT)
    damages = {
        "cut_off": [packed[:-3], packed + b"more bytes", packed + packed[:10]],
        "damaged": [packed[:-8] + b"........"],
    }
    for code, contents in damages.items():
        for content in contents:
            (tmp_path / "log").write_bytes(content)
            records = list(iter_records(tmp_path / "log"))
            assert records[-1].error.code == code, content[-12:]
    (tmp_path / "log").write_bytes(packed + b"more bytes")
    assert sum(record.value is not None for record in iter_records(tmp_path / "log")) == 5


class Client(fsspec.AbstractFileSystem):
    "Stands for the client of a bucket; its errors quote the address"

    protocol = "https"
    opened: list[str] = []
    content = TEXT

    def _open(self, path, mode="rb", **options):
        self.opened.append(path)
        if "broken" in path:
            raise ConnectionError(f"no answer from {path} with key {SECRET}")
        return io.BytesIO(self.content)


@pytest.fixture
def client(monkeypatch):
    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (Client(), url))
    Client.opened.clear()
    return Client


@pytest.mark.parametrize(
    "address", ["s3://b/a.jsonl", "gs://b/*.jsonl", "hf://datasets/a/b.jsonl", SIGNED]
)
def test_the_network_is_used_only_when_asked(client, address):
    for path in (address, [address], f"zip://a.jsonl::{address}"):
        with pytest.raises(LogError, match="network=True"):
            read_logs(path)
    assert not client.opened
    assert len(read_logs(address.replace("*", "a"), network=True)) == 5
    assert len(client.opened) == 1


def test_no_secret_is_shown(client, tmp_path, capsys):
    log = read_logs([SIGNED, SIGNED.replace("a.jsonl", "b.jsonl")], network=True)
    log.save_rejects(tmp_path / "rejects.jsonl")
    shown = [repr(log), repr(log.rejects), repr([vars(c) for c in log])]
    shown.append((tmp_path / "rejects.jsonl").read_text())
    assert log.report.source == "a.jsonl, b.jsonl" and log.rejects[1].source == "b.jsonl:6"
    addresses = [
        SIGNED.replace("a.jsonl", "broken"),
        SIGNED.replace("https", "ftp"),
        f"s3://AKIA:{SECRET}@bucket/a.jsonl",
        f"s3://AKIA:a/{SECRET}@bucket/a.jsonl",
        f"https://me:{SECRET}@me.example/a.jsonl",
        [SIGNED, SIGNED],
    ]
    for address in addresses:
        for network in (False, True):
            with pytest.raises(LogError) as raised:
                read_logs(address, network=network)
            shown.append("".join(traceback.format_exception(raised.value)))
    client.content = gzip.compress(TEXT)[:-9]
    shown.append(repr(read_logs(SIGNED, network=True, max_reject=1).rejects))
    client.content = TEXT
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps({"log_path": SIGNED, "output_dir": str(tmp_path / "out")}))
    assert main(["data", str(config)]) == 2
    assert main(["data", str(config), "logs.network=true", "logs.max_reject=1"]) == 0
    shown += capsys.readouterr()
    files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
    assert len(files) > 3
    shown += [file.read_text(errors="replace") for file in files]
    assert not [text for text in shown if SECRET in text or "AKIA" in text]


def test_an_archive_that_is_read_is_not_written_over(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "logs.zip", "w") as archive:
        archive.writestr("a.jsonl", TEXT)
    address = f"zip://a.jsonl::{tmp_path}/logs.zip"
    assert main(["inspect", address, "--html", str(tmp_path / "logs.zip")]) == 2
    assert "Nothing was written" in capsys.readouterr().err
    assert main(["inspect", address]) == 0


def test_fsspec_is_imported_for_addresses_alone(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(TEXT)
    code = (
        "import sys\nfrom toolcall.logs import read_logs\n"
        f"read_logs({str(tmp_path / '*.jsonl')!r})\nprint('fsspec' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_bucket_is_read(tmp_path, monkeypatch):
    "A server that speaks S3, in this process; its clients need an older dateutil than ours"
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip("moto.server")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, SECRET)
    server = server_module.ThreadedMotoServer("127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    try:
        bucket = fsspec.filesystem("s3")
        bucket.mkdir("logs")
        for name, content in {"a.jsonl": TEXT, "b.jsonl.gz": gzip.compress(TEXT)}.items():
            bucket.pipe(f"logs/2026/{name}", content)
        log = read_logs("s3://logs/2026/*", network=True)
        assert [reject.source for reject in log.rejects] == ["a.jsonl:6", "b.jsonl.gz:6"]
        (tmp_path / "a.jsonl").write_bytes(TEXT)
        assert read("s3://logs/2026/a.jsonl", network=True) == read(tmp_path / "a.jsonl")
        monkeypatch.setattr(shards, "SHARD_BYTES", 60)
        assert len(list(shards.plan_shards(["s3://logs/2026/a.jsonl"], ["a"], network=True))) == 3
        several = read("s3://logs/2026/*", network=True, engine=2)
        assert several == read("s3://logs/2026/*", network=True)
        for address, said in {"s3://logs/c.jsonl": "no such file", "s3://x/a": "no such"}.items():
            with pytest.raises(LogError, match=said) as raised:
                read_logs(address, network=True)
            assert SECRET not in str(raised.value)
    finally:
        server.stop()
