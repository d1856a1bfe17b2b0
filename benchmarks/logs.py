"""Read a big request log: toolcall, a bare `json.loads` loop, `datasets.load_dataset("json")`.

    python benchmarks/logs.py [--mb 600] [--rounds 3] [--skip-datasets]

Writes a log of OpenAI requests and responses (20 tools, a system prompt, conversations of up to
eight turns, each request with its whole history), then reads it in turns with each reader, every
time in a process of its own. Reports the median speed, its ratio to the bare loop, and the
highest resident memory.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

VERBS = ("get", "list", "create", "update", "cancel")
NOUNS = ("order", "invoice", "customer", "shipment")
FIELDS = (
    "id",
    "status",
    "region",
    "date_from",
    "date_to",
    "limit",
    "currency",
    "note",
    "priority",
    "channel",
)
SYSTEM = (
    "You are the support assistant of a shop for kitchen goods. Look things up before you answer "
    "and never promise what a tool has not confirmed. Ask for the order number when the customer "
    "has not given one. Prices are in euro and include tax. Cancel nothing without a clear yes. "
) * 3
TOOLCALL = """
from toolcall.conversation import Conversation
from toolcall.logs import iter_logs
for c in iter_logs(path): n += isinstance(c, Conversation)
"""
READERS = {
    "json.loads loop": "import json\nfor line in open(path, 'rb'): json.loads(line); n += 1",
    "toolcall": f"sys.modules['msgspec'] = None\n{TOOLCALL}",
    "toolcall[fast]": f"import msgspec\n{TOOLCALL}",
    "load_dataset": "from datasets import load_dataset\n"
    "n = len(load_dataset('json', data_files=path, split='train', cache_dir=cache))",
}
CHILD = """
import resource, sys, time
path, cache, n = sys.argv[1], sys.argv[2], 0
start = time.perf_counter()
{body}
print(n, time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def make_tools(draw: random.Random) -> list[dict]:
    tools = []
    for name in (f"{verb}_{noun}" for verb in VERBS for noun in NOUNS):
        fields = draw.sample(FIELDS, 4)
        properties = {
            field: {
                "type": draw.choice(["string", "integer"]),
                "description": f"The {field.replace('_', ' ')} of the {name.split('_')[1]}.",
            }
            for field in fields
        }
        schema = {"type": "object", "properties": properties, "required": fields[:1]}
        tools.append(
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": f"{name.replace('_', ' ').capitalize()} by its fields.",
                    "parameters": schema,
                },
            }
        )
    return tools


def requests(draw: random.Random, tools: list[dict], number: int):
    "Every request of one conversation, each with the history so far"
    messages = [{"role": "system", "content": SYSTEM}]
    for turn in range(draw.randint(1, 4)):
        tool = draw.choice(tools)["function"]
        arguments = {
            field: draw.choice(["open", "EU", 7, "2026-01-31"])
            for field in list(tool["parameters"]["properties"])[: draw.randint(1, 4)]
        }
        call = {
            "id": f"call_{number}_{turn}",
            "type": "function",
            "function": {"name": tool["name"], "arguments": json.dumps(arguments)},
        }
        messages.append(
            {
                "role": "user",
                "content": (
                    f"Please {tool['name'].replace('_', ' ')} number {draw.randrange(10**6)}, "
                    "and tell me what you find. "
                )
                * draw.randint(1, 3),
            }
        )
        for answer in (
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {
                "role": "assistant",
                "content": f"Done: {draw.randrange(10**9)} is open, "
                "and nothing else has to be done today.",
            },
        ):
            finish = "tool_calls" if "tool_calls" in answer else "stop"
            yield {
                "timestamp": 1_767_000_000 + number,
                "workload_id": "support",
                "client_id": f"client-{number}",
                "request": {
                    "model": "prod-large",
                    "temperature": 0,
                    "messages": messages,
                    "tools": tools,
                },
                "response": {
                    "id": f"chatcmpl-{number}-{len(messages)}",
                    "object": "chat.completion",
                    "choices": [{"index": 0, "finish_reason": finish, "message": answer}],
                    "usage": {"total_tokens": 2000},
                },
            }
            messages.append(answer)
            if "tool_calls" in answer:
                messages.append(
                    {
                        "role": "tool",
                        "tool_call_id": call["id"],
                        "content": json.dumps(
                            {"status": "open", "items": [draw.randrange(100) for _ in range(6)]}
                        ),
                    }
                )


def write_log(path: Path, size: int) -> int:
    draw, number, records = random.Random(0), 0, 0
    tools = make_tools(draw)
    with open(path, "w", encoding="utf-8") as handle:
        while handle.tell() < size:
            for record in requests(draw, tools, number):
                handle.write(json.dumps(record, ensure_ascii=False) + "\n")
                records += 1
            number += 1
    return records


def measure(name: str, path: Path, cache: str) -> tuple[int, float, float]:
    run = subprocess.run(
        [sys.executable, "-c", CHILD.format(body=READERS[name]), str(path), cache],
        capture_output=True,
        text=True,
        check=True,
    )
    n, seconds, peak = run.stdout.split()[-3:]
    return int(n), float(seconds), float(peak)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mb", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-datasets", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "requests.jsonl")
        records = write_log(path, options.mb * 10**6)
        size = path.stat().st_size / 1e6
        print(f"{size:.0f} MB, {records:,} records of {size / records * 1000:.1f} kB", flush=True)
        times: dict[str, list[float]] = {name: [] for name in READERS}
        peaks = dict.fromkeys(READERS, 0.0)
        for round in range(options.rounds):
            for name in READERS:
                if name == "load_dataset" and (round or options.skip_datasets):
                    continue  # once is enough: it takes minutes
                n, seconds, peak = measure(name, path, f"{folder}/cache")
                assert n == records, (name, n, records)
                times[name].append(seconds)
                peaks[name] = max(peaks[name], peak)
        bare = statistics.median(times["json.loads loop"])
        print(f"{'reader':<16} {'MB/s':>7} {'ratio':>6} {'peak MB':>8}   each run, s")
        for name, runs in times.items():
            if runs:
                median = statistics.median(runs)
                each = ", ".join(f"{seconds:.1f}" for seconds in runs)
                print(
                    f"{name:<16} {size / median:>7.0f} {bare / median:>6.2f} "
                    f"{peaks[name]:>8.0f}   {each}"
                )


if __name__ == "__main__":
    main()
