"A log read by any number of workers, in any order, with lost ones: what one reader gives"

import gzip
import io
import json
import os
import pickle
import random
import re
import subprocess
import sys
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from threading import Thread
from types import SimpleNamespace

import pytest
from goldens import GOLDENS, TOOL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolcall.logs import LogError, iter_logs, read_logs, shards, workers
from toolcall.pipeline import speed
from toolcall.pipeline.commands import main

MESSAGES = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
BODY = {"choices": [{"message": MESSAGES[1]}]}


class Late(Future):
    def __init__(self, executor):
        super().__init__()
        self.executor = executor

    def result(self, timeout=None):
        self.executor.run_all()
        return super().result(timeout)


class Shuffled(Executor):
    "Finishes tasks in any order; what goes in and out is pickled, as between processes"

    def __init__(self, seed: int):
        self.draw = random.Random(seed)
        self.waiting: list = []
        self.tasks = 0

    def submit(self, function, /, *args, **options):
        future = Late(self)
        self.waiting.append((future, pickle.dumps((function, args))))
        self.tasks += 1
        return future

    def run_all(self):
        self.draw.shuffle(self.waiting)
        while self.waiting:
            future, packed = self.waiting.pop()
            function, args = pickle.loads(packed)
            try:
                future.set_result(pickle.loads(pickle.dumps(function(*args))))
            except LogError as error:
                future.set_exception(error)


def everything(path, **options) -> str:
    "All that can be seen of a log: items in their order, or the report, or the error"
    streamed = {key: options[key] for key in options if key not in ("strict", "max_reject")}
    try:
        items = [(type(item).__name__, vars(item)) for item in iter_logs(path, **streamed)]
    except LogError as error:
        items = [("error", str(error))]
    try:
        log = read_logs(path, **{"max_reject": 0.9} | options)
    except LogError as error:
        return repr((items, str(error)))
    found = [vars(c) for c in log], [vars(r) for r in log.rejects], vars(log.report)
    return repr((items, found, str(log)))


def row(session: str, role: str, text: str) -> dict:
    return {"conversation_id": session, "role": role, "content": text}


text = st.text("aé\n{}\"'", max_size=9)
ids = st.sampled_from("abc")
record = st.one_of(
    st.builds(lambda words: {"user": words, "final_answer": "é"}, text),
    st.builds(lambda n: {"messages": MESSAGES, "tools": [TOOL], "id": n}, st.integers(0, 3)),
    st.builds(lambda id: {"custom_id": id, "body": {"messages": MESSAGES[:1]}}, ids),
    st.builds(lambda id: {"custom_id": id, "response": {"status_code": 200, "body": BODY}}, ids),
    st.builds(row, ids, st.sampled_from(["user", "assistant"]), text),
    st.builds(lambda words: {"role": "user", "content": words}, text),
    st.just({"data": [{"messages": MESSAGES}, {"messages": MESSAGES[:1]}, 7]}),
    st.builds(lambda words: {"user": words, "tool_name": "f", "arguments": [1]}, text),
    st.just({"user": "x" * 300, "final_answer": "long"}),
)
prefix = st.sampled_from(["", "", "", "12:01 INFO ", "12:02 WARN a.b: ", "[7] ", '"q" '])
line = st.one_of(
    st.tuples(prefix, record).map(lambda pair: pair[0] + json.dumps(pair[1], ensure_ascii=False)),
    st.sampled_from(["", "  ", "broken {", "7", "null", '{"a": 1, "a": 2}', "[1]"]),
)
file = st.tuples(
    st.lists(line, max_size=14),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
    st.booleans(),  # a line end at the end
    st.booleans(),  # packed
)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(file, min_size=1, max_size=3), st.integers(20, 400), st.integers(0, 99))
def test_shards_in_any_order_give_what_one_reader_gives(tmp_path, files, size, seed):
    paths = []
    for number, (lines, end, start, is_closed, is_packed) in enumerate(files):
        content = (start + end.join(lines) + end * is_closed).encode()
        paths.append(tmp_path / f"{number}.jsonl")
        paths[-1].write_bytes(gzip.compress(content) if is_packed else content)
    expected = everything(paths, max_record_bytes=250)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", size)
        engine = Shuffled(seed)
        assert everything(paths, max_record_bytes=250, engine=engine) == expected


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    "A log with a record of each format, in lines, packed, and as an array"
    folder = tmp_path_factory.mktemp("mixed")
    records = [value for _, value, _ in GOLDENS.values()]
    lines = [json.dumps(value, ensure_ascii=False) for value in records * 2]
    (folder / "a.jsonl").write_text("\n".join([*lines, "broken", *lines[:9]]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[:20]).encode()))
    (folder / "c.json").write_text(json.dumps(records[:20]))
    return folder


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 4000)


@pytest.mark.parametrize("engine", [1, 2, 7])
def test_processes_give_what_one_reader_gives(mixed, small_shards, engine):
    paths = [mixed / "a.jsonl", mixed / "b.jsonl.gz", mixed / "c.json"]
    assert len(list(shards.plan_shards(paths, ["a", "b", "c"]))) > 9
    assert everything(paths, engine=engine) == everything(paths)


class Ray:
    "Stands for the module: tasks are done at once, after a trip through `pickle`"

    started: list[tuple] = []

    def is_initialized(self):
        return False

    def init(self, address, **options):
        self.started.append((address, *options))

    def cluster_resources(self):
        return {"CPU": 2.0}

    def remote(self, function):
        engine = Shuffled(0)
        return SimpleNamespace(
            remote=lambda *args: SimpleNamespace(future=lambda: engine.submit(function, *args))
        )

    def shutdown(self):
        self.started.append(("shutdown",))


@pytest.mark.parametrize("engine, address", [("ray", "local"), ("ray://head:10001",) * 2])
def test_tasks_are_given_to_ray(mixed, small_shards, monkeypatch, engine, address):
    monkeypatch.setitem(sys.modules, "ray", Ray())
    Ray.started.clear()
    assert everything(mixed / "a.jsonl", engine=engine) == everything(mixed / "a.jsonl")
    assert [call[0] for call in Ray.started] == [address, "shutdown"] * 2


def test_without_ray_the_extra_is_named(mixed, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LogError, match=r"toolcall-tune\[ray\]"):
        read_logs(mixed / "a.jsonl", engine="ray")


@pytest.mark.slow
def test_ray_gives_what_one_reader_gives(mixed, small_shards):
    pytest.importorskip("ray")
    assert everything(mixed / "a.jsonl", engine="ray") == everything(mixed / "a.jsonl")


def die_once(task):
    marker = os.environ["TOOLCALL_TEST_MARKER"]
    if task.shard.start and not os.path.exists(marker):
        open(marker, "x").close()
        os.kill(os.getpid(), 9)
    return convert(task)


def die_always(task):
    if task.shard.start:
        os.kill(os.getpid(), 9)
    return convert(task)


convert = workers.convert_shard


def test_a_lost_worker_loses_nothing(mixed, small_shards, monkeypatch, tmp_path):
    expected = everything(mixed / "*")
    monkeypatch.setenv("TOOLCALL_TEST_MARKER", str(tmp_path / "killed"))
    monkeypatch.setattr(workers, "convert_shard", die_once)
    assert everything(mixed / "*", engine=2) == expected
    assert (tmp_path / "killed").exists()
    monkeypatch.setattr(workers, "convert_shard", die_always)
    with pytest.raises(LogError, match=r"a\.jsonl@\d+-\d+ was lost 3 times"):
        read_logs(mixed / "*", engine=2)


def test_a_lost_worker_of_the_users_executor_is_named(mixed):
    class Broken(Shuffled):
        def submit(self, function, /, *args, **options):
            raise BrokenExecutor

    with pytest.raises(LogError, match=r"the process that reads a\.jsonl was lost$"):
        read_logs(mixed / "a.jsonl", engine=Broken(0))


def test_only_a_few_shards_are_under_way(mixed, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 500)
    assert len(list(shards.plan_shards([mixed / "a.jsonl"], ["a"]))) > 40
    engine = Shuffled(0)
    stream = iter_logs(mixed / "a.jsonl", engine=engine)
    next(stream)
    assert engine.tasks == 32
    stream.close()


def test_a_refused_log_and_a_missing_file_say_the_same(mixed, small_shards, tmp_path):
    (tmp_path / "empty").touch()
    for path in ([mixed / "a.jsonl", tmp_path / "none"], [mixed / "c.json", tmp_path / "empty"]):
        assert everything(path, engine=2) == everything(path)
    for options in ({"strict": True}, {"max_reject": 0.0}, {"format": "requests"}):
        assert everything(mixed / "*", engine=2, **options) == everything(mixed / "*", **options)
    with ThreadPoolExecutor(2) as threads:
        assert everything(mixed / "*", engine=threads) == everything(mixed / "*")
    for engine in (0, -1, True, "dask", 1.5):
        with pytest.raises(LogError, match="engine is a number of processes"):
            read_logs(mixed / "a.jsonl", engine=engine)


def test_the_configuration_names_the_engine(tmp_path, capsys):
    rows = [{"user": f"question {n}", "final_answer": "é"} for n in range(40)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    saved = []
    for engine in ("null", "2"):
        out = tmp_path / engine
        arguments = [f"output_dir={out}", f"logs.engine={engine}"]
        assert main(["data", str(tmp_path / "log.jsonl"), *arguments]) == 0
        saved.append([(out / "data" / f"{name}.jsonl").read_bytes() for name in ("train", "test")])
    assert saved[0] == saved[1]
    assert main(["data", str(tmp_path / "log.jsonl"), "logs.engine=dask"]) == 2
    assert "engine is a number of processes" in capsys.readouterr().err


def test_streams_are_read_by_this_process(mixed, tmp_path, monkeypatch):
    content = (mixed / "a.jsonl").read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
    expected = [vars(item) for item in iter_logs(mixed / "a.jsonl")]
    of_stream = [vars(item) for item in iter_logs("-", engine=2)]
    assert repr(of_stream).replace("'-:", "'a.jsonl:") == repr(expected)
    pipe = tmp_path / "a.jsonl"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_bytes, args=(content,))
    writer.start()
    assert repr([vars(item) for item in iter_logs(pipe, engine=2)]) == repr(expected)
    writer.join()
    code = (
        "from toolcall.logs import iter_logs\n"
        "print(sum(1 for _ in iter_logs('/dev/stdin', engine=2)))"
    )
    with open(mixed / "a.jsonl", "rb") as handle:
        run = subprocess.run(
            [sys.executable, "-c", code], stdin=handle, capture_output=True, text=True, check=True
        )
    assert int(run.stdout) == len(expected)


def test_a_large_log_tells_its_speed_and_memory(tmp_path, capsys, monkeypatch):
    rows = [{"user": f"question {n}", "final_answer": "é"} for n in range(40)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for size, is_large in ((10**8, False), (100, True)):
        monkeypatch.setattr(speed, "LARGE_LOG", size)
        out = f"output_dir={tmp_path / str(size)}"
        assert main(["data", str(tmp_path / "log.jsonl"), out]) == 0
        assert main(["inspect", str(tmp_path / "log.jsonl"), "--doubts", "0"]) == 0
        said = re.findall(
            r"worked through 0 MB in 0 s, 0 MB a second; peak memory [\d,]+ MB",
            capsys.readouterr().out,
        )
        assert len(said) == 2 * is_large
