"""What `clean` finds of the dirt that is put into logs, what it costs the clean turns, how fast.

    python benchmarks/clean.py FOLDER [--logs coffee …] [--rates 0 25] [--kinds mixed call …]
        [--turns 1500] [--seeds 0 1] [--cleaner FILE.py:FUNCTION] [--json OUT.json]
        [--losses 40] [--missed 10] [--speed]

FOLDER holds logs of any format; each is read, dirtied (see `tests/dirt.py`) and cleaned. A rate of
0 measures what is lost of the log as it is. A subfolder that holds `clean.*` and `noisy.*` is a log
with its dirty twin, which is compared turn by turn; `tools.json` beside them is its catalogue.
`gateway` before a kind (`gateway:mixed`) means: the same dirt where answers go through a tool and
results come from the user. A turn counts as found when it is masked or repaired; intervals are
Wilson's. `--losses` prints clean turns that were lost, `--missed` dirt that was not found.
`--speed` measures turns a second of processor time of each step apart from the fit, and of
all of them together; run it with OMP_NUM_THREADS=1.
"""

import argparse
import importlib.util
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import dirt
from dirt import Dirtied, Place

from toolcall.conversation import Conversation, ToolCall
from toolcall.curate.history import collapse_prefixes
from toolcall.curate.steps import check_structure
from toolcall.evaluate.intervals import wilson
from toolcall.logs import read_logs

Cleaner = Callable[[list[Conversation]], dict[Place, str]]  # lost or repaired turn to the reason
KINDS = ("mixed", *dirt.TURN_KINDS, *dirt.LOG_KINDS, "foreign")


def read(
    path: Path, turns: int = 0, *, tools: Path | None = None, collapse: bool = True
) -> list[Conversation]:
    "The conversations of a log as `clean` gets them; a sample of about so many turns"
    log = read_logs(path, tools=tools).conversations
    times = Counter(c.id for c in log)
    numbered = [c if times[c.id] == 1 else c.relabel(f"{c.id}#{i}") for i, c in enumerate(log)]
    conversations = check_structure(numbered).conversations
    if collapse:
        conversations = collapse_prefixes(conversations, []).conversations
    if not turns:
        return conversations
    total = sum(len(c.turns) for c in conversations)
    keep = min(len(conversations), round(len(conversations) * turns / max(total, 1)))
    chosen = sorted(random.Random(0).sample(range(len(conversations)), keep))
    return [conversations[i] for i in chosen]


def read_twin(path: Path, turns: int, tools: Path | None) -> list[Conversation]:
    "One of two logs that match conversation by conversation, whose ids may depend on their dirt"
    conversations = read(path, turns, tools=tools, collapse=False)
    return [c.relabel(f"{c.meta['source'].rpartition(':')[2]}") for c in conversations]


def clean_with_package(conversations: list[Conversation]) -> dict[Place, str]:
    "The turns that `toolcall.curate.cleaning.clean` masks or repairs"
    from toolcall.curate.cleaning import clean

    after = {c.id: c for c in clean(conversations).conversations}
    return changed(conversations, after)


def changed(before: Sequence[Conversation], after: dict[str, Conversation]) -> dict[Place, str]:
    "Turns that carry no loss any more or do something else, with the reason"
    found: dict[Place, str] = {}
    for old in before:
        new = after.get(old.id)
        kept = set(new.turns) if new else set()
        masked = new.meta.get("masked", {}) if new else {}
        for turn in old.turns:
            if new is None or turn not in kept:
                found[old.id, turn] = masked.get(str(turn), "removed")
            elif new.messages[turn] != old.messages[turn]:
                found[old.id, turn] = "repaired"
    return found


def load_cleaner(name: str) -> Cleaner:
    "`FILE.py:FUNCTION`"
    path, _, function = name.rpartition(":")
    spec = importlib.util.spec_from_file_location("cleaner", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).resolve().parent))
    spec.loader.exec_module(module)
    return getattr(module, function)


def make_dirty(
    conversations: list[Conversation], kind: str, rate: float, seed: int, foreign: list
) -> Dirtied:
    "The log with one kind of dirt, or with several"
    style, _, name = kind.rpartition(":")
    if rate == 0:
        result = Dirtied(conversations)
    elif name in dirt.LOG_KINDS:
        result = dirt.LOG_KINDS[name](conversations, rate=rate, seed=seed)
    elif name == "foreign":
        result = dirt.mix_foreign(conversations, foreign, rate=rate, seed=seed, disguised=True)
    else:
        kinds = dirt.MIXED if name == "mixed" else name
        results = "user" if style else "drop"
        result = dirt.dirty(conversations, kinds, rate=rate, seed=seed, results=results)
    if style != "gateway":
        return result
    said = dirt.through_tool(result.conversations)
    return Dirtied(said, result.truth, result.neutral, result.was)


def share(hits: int, n: int) -> dict:
    "A share of turns with Wilson's interval"
    low, high = wilson(hits, n) if n else (None, None)
    return {"hits": hits, "n": n, "share": hits / n if n else None, "low": low, "high": high}


def score(dirtied: Dirtied, found: dict[Place, str], seconds: float) -> dict:
    "What was found of each kind, what is kept of the clean turns"
    kinds = Counter(dirtied.truth.values())
    hits = Counter(kind for place, kind in dirtied.truth.items() if place in found)
    clean = dirtied.clean
    tool = {p for p, kind in dirtied.truth.items() if kind in dirt.CHANGES_TOOL}
    return {
        "turns": sum(len(c.turns) for c in dirtied.conversations),
        "found": share(hits.total(), kinds.total()),
        "found_of_kind": {kind: share(hits[kind], n) for kind, n in kinds.most_common()},
        "found_of_changed_tools": share(len(tool & found.keys()), len(tool)),
        "kept": share(len(clean - found.keys()), len(clean)),
        "lost_by_reason": dict(Counter(found[p] for p in clean & found.keys()).most_common()),
        "seconds": round(seconds, 2),
    }


def cell(value: dict) -> str:
    if not value["n"]:
        return f"{'–':>20}"
    return f"{value['share']:6.1%} [{value['low']:.0%}, {value['high']:.0%}]".rjust(20)


def row(name: str, kind: str, rate: float, scores: dict) -> str:
    speed = scores["turns"] / max(scores["seconds"], 0.01)
    parts = "  ".join(f"{k} {v['share']:.0%}" for k, v in sorted(scores["found_of_kind"].items()))
    return (
        f"{name[:14]:<14} {kind:<18} {rate:>4.0%} {scores['turns']:>6} {cell(scores['found'])} "
        f"{cell(scores['kept'])} {speed:>8,.0f}  {parts}"
    )


def show_message(message: dict, width: int = 220) -> str:
    calls = [f"→ {ToolCall.from_message(call)}" for call in message.get("tool_calls", [])]
    text = " ".join([message["content"].replace("\n", " ")[:width], *(c[:width] for c in calls)])
    return f"{message['role']:>10}: {text}"


def show_place(c: Conversation, turn: int, title: str) -> Iterator[str]:
    "A turn between its neighbours"
    yield f"--- {title}  {c.id[:40]} message {turn}"
    for i in range(max(0, turn - 4), min(len(c.messages), turn + 3)):
        if c.messages[i]["role"] != "system":
            yield ("  » " if i == turn else "    ") + show_message(c.messages[i])


def print_sample(dirtied: Dirtied, places: dict[Place, str], n: int, seed: int = 0) -> None:
    "Some of the places, for reading"
    by_id = {c.id: c for c in dirtied.conversations}
    order = sorted(places)
    for id, turn in random.Random(seed).sample(order, min(n, len(order))):
        print("\n".join(show_place(by_id[id], turn, places[id, turn])))
        if (id, turn) in dirtied.was:
            was = dirtied.was[id, turn]
            print(f"  was {was if isinstance(was, str) else '; '.join(map(str, was))}"[:300])


def pairs(folder: Path) -> Iterator[tuple[Path, Path, Path | None]]:
    "Clean log, dirty twin and catalogue of each subfolder that has them"
    for clean in sorted(folder.glob("*/clean.*")):
        for noisy in sorted(clean.parent.glob("noisy.*")):
            tools = clean.parent / "tools.json"
            yield clean, noisy, tools if tools.exists() else None


def cases(options: argparse.Namespace) -> Iterator[tuple[str, str, float, Dirtied]]:
    "Each log with each dirt"
    folder = Path(options.folder)
    wanted = options.logs
    for clean, noisy, tools in pairs(folder):
        name = clean.parent.name
        if not wanted or any(part in name for part in wanted):
            twins = [read_twin(path, options.turns, tools) for path in (clean, noisy)]
            yield name, "as it is", 0, Dirtied(twins[0])
            yield name, "its dirty twin", 0.5, dirt.compared(*twins)
    files = [f for f in sorted(folder.iterdir()) if ".json" in f.name]
    chosen = [f for f in files if not wanted or any(part in f.name for part in wanted)]
    for file in chosen:
        conversations = read(file, options.turns)
        needs = any(kind.endswith("foreign") for kind in options.kinds)
        foreign = read(files[files.index(file) - 1], options.turns) if needs else []
        for seed in options.seeds:
            for rate in options.rates:
                for kind in options.kinds if rate else ["as it is"]:
                    made = make_dirty(conversations, kind, rate / 100, seed, foreign)
                    if made.truth or not rate:
                        yield file.name.split(".")[0], kind, rate / 100, made


def steps_without_fit(conversations: list[Conversation]) -> Iterator[tuple[str, Callable]]:
    "What `clean` does beside the fit; each step is handed on when the one before has run"
    from toolcall.curate.consequences import consequence_findings
    from toolcall.curate.doubts_page import mask_doubtful
    from toolcall.curate.drift import find_names
    from toolcall.curate.exchanges import read_exchanges, speaking_tools
    from toolcall.curate.grounding import leaves, read_grounds, value_pattern
    from toolcall.curate.strangers import stranger_findings

    made: dict = {}

    def history() -> None:
        checked = check_structure(conversations).conversations
        made["log"] = collapse_prefixes(checked, []).conversations

    def exchanges() -> None:
        made["speaking"] = speaking_tools(made["log"])
        made["exchanges"] = read_exchanges(made["log"], made["speaking"])

    def consequences() -> None:
        made["findings"] = consequence_findings(made["log"], made["exchanges"])

    def grounding() -> None:
        grounds = read_grounds(made["log"], made["exchanges"])
        for exchange, ground in zip(made["exchanges"], grounds, strict=True):
            for call in exchange.calls:
                for _, value in leaves(call.arguments):
                    value_pattern(ground, value)

    def strangers() -> None:
        made["findings"] += stranger_findings(made["log"], made["exchanges"], None)

    def report() -> None:
        _, found = mask_doubtful(
            conversations, made["findings"], at_least=0.6, speaking=made["speaking"]
        )
        found.page.to_html()

    yield "history", history
    yield "exchanges", exchanges
    yield "consequences", consequences
    yield "grounding", grounding
    yield "strangers", strangers
    yield "names", lambda: find_names(conversations, None)
    yield "report", report


def measure_speed(file: Path, turns: int) -> dict[str, float]:
    "Turns a second of processor time, by step and of all steps"
    conversations = read(file, turns, collapse=False)
    n = sum(len(c.turns) for c in conversations)
    seconds = {}
    import_module("scipy.sparse")
    for _, step in steps_without_fit(conversations[:20]):
        step()  # imports
    for name, step in steps_without_fit(conversations):
        start = time.process_time()
        step()
        seconds[name] = time.process_time() - start
    seconds["all"] = sum(seconds.values())
    speeds = {name: n / max(spent, 1e-9) for name, spent in seconds.items()}
    parts = "  ".join(f"{name} {speed:,.0f}" for name, speed in speeds.items())
    print(f"{file.name.split('.')[0][:14]:<14} {n:>6} turns  {parts}", flush=True)
    return speeds


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="a folder of logs")
    parser.add_argument("--logs", nargs="*", default=[], help="parts of the names of files")
    parser.add_argument("--rates", nargs="*", type=float, default=[0, 5, 15, 25, 50])
    parser.add_argument("--kinds", nargs="*", default=["mixed"], help=f"of {', '.join(KINDS)}")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--turns", type=int, default=0, help="about so many turns of each log")
    parser.add_argument("--cleaner", default="", help="FILE.py:FUNCTION instead of the package's")
    parser.add_argument("--json", default="", help="file for the numbers")
    parser.add_argument("--losses", type=int, default=0, help="clean turns lost, to print")
    parser.add_argument("--missed", type=int, default=0, help="wrong turns not found, to print")
    parser.add_argument("--speed", action="store_true", help="of the steps apart from the fit")
    options = parser.parse_args(arguments)
    if options.speed:
        files = [f for f in sorted(Path(options.folder).iterdir()) if ".json" in f.name]
        chosen = [f for f in files if not options.logs or any(p in f.name for p in options.logs)]
        return [{"log": f.name} | measure_speed(f, options.turns) for f in chosen]
    cleaner = load_cleaner(options.cleaner) if options.cleaner else clean_with_package
    results = []
    print(
        f"{'log':<14} {'dirt':<18} {'rate':>4} {'turns':>6} {'found':>20} {'clean kept':>20} "
        f"{'turns/s':>8}"
    )
    for name, kind, rate, dirtied in cases(options):
        start = time.perf_counter()
        found = cleaner(dirtied.conversations)
        scores = score(dirtied, found, time.perf_counter() - start)
        results.append({"log": name, "dirt": kind, "rate": rate, **scores})
        print(row(name, kind, rate, scores), flush=True)
        lost = {place: found[place] for place in dirtied.clean & found.keys()}
        missed = {p: kind for p, kind in dirtied.truth.items() if p not in found}
        print_sample(dirtied, lost, options.losses)
        print_sample(dirtied, missed, options.missed)
        if options.json:
            Path(options.json).write_text(json.dumps(results, indent=1), encoding="utf-8")
    return results


if __name__ == "__main__":
    main()
