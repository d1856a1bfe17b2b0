"""Read a big request log with one process and with several, and compare speed and memory.

    python benchmarks/shards.py [--mb 300] [--processes 1 2] [--rounds 2] [--whole]

Writes a log of OpenAI requests and responses into a scratch folder, which is removed at the end,
and reads it in turns: in this process alone, and with `engine=N`. Each reading is a process of
its own. Reports the median speed, and peak memory and CPU time of the reader and of its workers
(the largest of them, and all of them together), and checks that all give the same conversations
in the same order. With `--whole` the log is read by `read_logs`, which holds it in memory;
without, by `iter_logs`. Then the parts of the work are timed, in CPU time: decoding and
converting, sending a shard's result, receiving it.
"""

import argparse
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from logs import write_log

CHILD = """
import resource, sys, time
from hashlib import sha256
from toolcall.conversation import Conversation
from toolcall.logs import iter_logs, read_logs
path, engine, whole = sys.argv[1], int(sys.argv[2]) or None, sys.argv[3] == "whole"
digest, n = sha256(), 0
start = time.perf_counter()
for item in read_logs(path, engine=engine) if whole else iter_logs(path, engine=engine):
    n += isinstance(item, Conversation)
    digest.update(f"{item.meta['source']} {item.id}".encode())
seconds = time.perf_counter() - start
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
facts = [fact for one in used for fact in (one.ru_maxrss / 1024, one.ru_utime + one.ru_stime)]
print(n, digest.hexdigest(), seconds, *facts)
"""


def read(path: Path, engine: int, whole: bool) -> tuple[str, list[float]]:
    "What was read; and seconds, then peak memory and CPU seconds of the reader and of its workers"
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(engine), "whole" if whole else "stream"],
        capture_output=True,
        text=True,
        check=True,
    )
    n, digest, *facts = run.stdout.split()
    return f"{n} {digest}", list(map(float, facts))


def time_parts(path: Path) -> dict[str, float]:
    "MB/s of the log's text for each part of a worker's task, on the second shard"
    from toolcall.logs.converting import ReadOptions
    from toolcall.logs.shards import plan_shards
    from toolcall.logs.workers import ShardTask, convert_shard

    shard = list(plan_shards([path], ["log"]))[1]
    size = (shard.end - shard.start) / 1e6
    speeds = {}
    start = time.process_time()
    converted = convert_shard(ShardTask(shard, ReadOptions()))
    speeds["decode and convert"] = size / (time.process_time() - start)
    start = time.process_time()
    packed = pickle.dumps(converted)
    speeds["pickle the result"] = size / (time.process_time() - start)
    start = time.process_time()
    pickle.loads(packed)
    speeds["unpickle the result"] = size / (time.process_time() - start)
    speeds["bytes sent per byte of the log"] = len(packed) / 1e6 / size
    return speeds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=300)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requests.jsonl")
        records = write_log(path, options.mb * 10**6)
        size = path.stat().st_size / 1e6
        print(f"{size:.0f} MB, {records:,} records", flush=True)
        engines = [0, *options.processes]
        runs: dict[int, list[list[float]]] = {engine: [] for engine in engines}
        results = set()
        for _ in range(options.rounds):
            for engine in engines:
                result, facts = read(path, engine, options.whole)
                results.add(result)
                runs[engine].append(facts)
        assert len(results) == 1, "the readings differ"
        titles = f"{'peak MB':>8} {'CPU s':>6} {'worker MB':>9} {'CPU s':>6}"
        print(f"{'engine':<8} {'MB/s':>6} {titles}   each run, s")
        for engine, of_engine in runs.items():
            seconds, peak, cpu, worker_peak, worker_cpu = map(statistics.median, zip(*of_engine))
            each = ", ".join(f"{facts[0]:.1f}" for facts in of_engine)
            own = f"{peak:>8.0f} {cpu:>6.1f} {worker_peak:>9.0f} {worker_cpu:>6.1f}"
            print(f"{engine or 'None':<8} {size / seconds:>6.0f} {own}   {each}")
        for name, speed in time_parts(path).items():
            print(f"{name:<32} {speed:>8.2f}")


if __name__ == "__main__":
    main()
