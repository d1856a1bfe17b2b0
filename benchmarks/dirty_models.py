"""What dirt in a log costs a model, and how much of it cleaning gets back.

    python benchmarks/dirty_models.py data LOGS FOLDER [--conversations 150]
    python benchmarks/dirty_models.py train FOLDER WAY [WAY …] [--seeds 0 1] [--steps 300]
    python benchmarks/dirty_models.py table FOLDER [FOLDER …]

`data` reads the folder LOGS, which holds a clean log, the same log with half of its turns
corrupted (noisy), a log whose names drift, a test set, `tools.json` and `system.txt`, and writes a
training set for each way. The declared tools and the system prompt stand in all of them:

    clean           the clean log
    noisy, drift    a dirty log as it is, no turn masked
    …-checked       a dirty log after `curate` with the declared tools, which knows no `clean`
    …-cleaned       a dirty log after `clean`, with its proposed names applied unread, and `curate`
    …-known         what perfect cleaning would leave: exactly the corrupted turns masked, names
                    mapped by `KNOWN_NAMES`, written by hand
    part            the clean log without every tenth conversation, to choose settings; scored on
                    those and not on the test set

`train` trains the embedded model on each way with the same budget: as many optimizer steps, of as
many turns each. Masked turns are context and count as none. Every assistant turn of the test set
is answered greedily and scored with the words of `respond_to_user` ignored. One JSON file a model
says which turns are right, and holds nothing of the logs. `table` compares models on the same
turns; intervals are 95 %, and draw whole conversations, the same for all models.
"""

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np

from toolcall.conversation import Conversation, ToolCall
from toolcall.evaluate.scores import TurnScore
from toolcall.saving import load_conversations, save_conversations

RULES = {"respond_to_user.message": "ignore"}
WAYS = ("", "-checked", "-cleaned", "-known")
METRICS = (
    "exact_match",
    "tool_selection_accuracy",
    "argument_f1",
    "call_f1",
    "parse_rate",
    "hallucinated_tool_rate",
    "cut_rate",
)
SPOKEN = "message text reply content response_text"
KNOWN_NAMES = {
    "respond_to_user": (
        "send_user_message send_message send_reply assistant_reply user_response reply_to_user "
        "chat_response",
        {"message": SPOKEN},
    ),
    "FindRestaurants": (
        "SearchDining get_restaurants find_places_to_eat query_restaurants lookup_restaurants "
        "search_restaurants search_venues",
        {
            "city": "location place town area",
            "cuisine": "category cuisine_type food_type food_category",
            "price_range": "pricing cost_range budget price_level",
            "has_live_music": "live_music",
            "serves_alcohol": "serves_drinks alcohol has_bar has_alcohol",
        },
    ),
    "ReserveRestaurant": (
        "BookDining create_booking schedule_reservation reserve_table book_restaurant "
        "make_reservation book_table",
        {
            "city": "location place town area",
            "date": "day when booking_date reservation_date",
            "party_size": "number_of_seats number_of_people num_guests group_size guests",
            "restaurant_name": "name establishment place_name venue_name",
            "time": "hour time_slot booking_time reservation_time",
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    data = commands.add_parser("data", help="write the training sets")
    data.add_argument("logs", type=Path, help="a folder of logs")
    data.add_argument("folder", type=Path, help="what is written")
    data.add_argument("--conversations", type=int, default=0, help="of each log; 0: all")
    data.add_argument("--without-clean", action="store_true", help="leave the cleaned ways out")
    one = commands.add_parser("train", help="train and score models")
    one.add_argument("folder", type=Path)
    one.add_argument("ways", nargs="+")
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    one.add_argument("--steps", type=int, default=300, help="of the optimizer")
    one.add_argument("--turns", type=int, default=16, help="of a step")
    one.add_argument("--learning-rate", type=float, default=3e-4)
    one.add_argument("--max-tokens", type=int, default=6144, help="computed tokens of a step")
    one.add_argument("--model", default="SmolLM2-135M-Instruct", help="a folder, or that name")
    one.add_argument("--label", default="", help="added to the names of files")
    table = commands.add_parser("table", help="compare the models of folders")
    table.add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "data":
        make_data(options.logs, options.folder, options.conversations, options.without_clean)
    elif options.command == "train":
        for seed in options.seeds:
            for way in options.ways:
                train(way, seed, options)
    else:
        for folder in options.folders:
            print(table_of(folder))


def read(logs: Path, name: str, conversations: int = 0) -> list[Conversation]:
    "A log, or conversations spread evenly over it, each with the system prompt"
    from toolcall.logs import read_logs

    system = {"role": "system", "content": (logs / "system.txt").read_text().strip()}
    log = read_logs(logs / f"{name}.traces.jsonl.gz", tools=logs / "tools.json").conversations
    many = min(conversations or len(log), len(log))
    return [
        replace(
            log[place * len(log) // many],
            messages=[system, *log[place * len(log) // many].messages],
        )
        for place in range(many)
    ]


def make_data(logs: Path, folder: Path, conversations: int, without_clean: bool) -> None:
    "Write a training set for each way, and say how many turns carry loss"
    from toolcall.curate import curate
    from toolcall.curate.steps import mask_turns

    sets = {name: read(logs, name, conversations) for name in ("clean", "noisy", "drift")}
    sets["test"] = read(logs, "test")
    sets["validation"] = sets["clean"][::10]
    sets["part"] = [one for place, one in enumerate(sets["clean"]) if place % 10]
    sets["noisy-known"] = [
        mask_turns(dirty, {turn: "corrupted" for turn in corrupted(true, dirty)})
        for true, dirty in zip(sets["clean"], sets["noisy"], strict=True)
    ]
    sets["drift-known"] = [renamed(one) for one in sets["drift"]]
    for name in ("noisy", "drift"):
        sets[f"{name}-checked"] = curate(sets[name]).conversations
        if not without_clean:
            sets[f"{name}-cleaned"] = cleaned(sets[name])
    folder.mkdir(parents=True, exist_ok=True)
    for name, log in sets.items():
        save_conversations(log, folder / f"{name}.jsonl")
        turns = sum(len(one.turns) for one in log)
        print(f"{name:<14} {len(log):>4} conversations {turns:>5} turns with loss", flush=True)


def corrupted(true: Conversation, dirty: Conversation) -> list[int]:
    "Turns whose calls are not those of the clean log"
    pairs = zip(true.messages, dirty.messages, strict=True)
    calls = [[call["function"] for call in m.get("tool_calls", [])] for pair in pairs for m in pair]
    return [turn for turn in dirty.turns if calls[2 * turn] != calls[2 * turn + 1]]


def renamed(conversation: Conversation) -> Conversation:
    "A conversation with the declared names, by hand"
    messages = []
    for message in conversation.messages:
        if "tool_calls" in message:
            calls = [ToolCall.from_message(call) for call in message["tool_calls"]]
            message = message | {"tool_calls": [known(call).to_message() for call in calls]}
        messages.append(message)
    return replace(conversation, messages=messages)


def known(call: ToolCall) -> ToolCall:
    "A call with the declared names; what has none keeps its own"
    for tool, (others, parameters) in KNOWN_NAMES.items():
        if call.name in (tool, *others.split()):
            to = {old: new for new, olds in parameters.items() for old in olds.split()}
            arguments = {to.get(key, key): value for key, value in call.arguments.items()}
            return ToolCall(tool, arguments, call.id)
    return call


def cleaned(conversations: Sequence[Conversation]) -> list[Conversation]:
    "What `clean` and then `curate` leave, with the names that `clean` proposes"
    from toolcall.curate import clean, curate

    tools = conversations[0].tools
    names = clean(conversations, tools=tools).proposals.names
    return curate(clean(conversations, tools=tools, drift=names).conversations).conversations


def train(way: str, seed: int, options: argparse.Namespace) -> None:
    "Train and score one model, and write which turns are right"
    import torch

    from toolcall.chatml import ChatML, encode
    from toolcall.models import best_device, load_model
    from toolcall.train import build_trainer, training_arguments
    from toolcall.train.throughput import peak_memory

    path = options.folder / f"{way}{options.label}.{seed}.json"
    if path.exists():
        return
    started = time.perf_counter()
    torch.manual_seed(seed)
    model, tokenizer = load_model(options.model)
    chatml = ChatML(tokenizer)
    examples = encode(chatml, load_conversations(options.folder / f"{way}.jsonl")).examples
    args = training_arguments(
        options.folder / f"{way}.{seed}",
        max_steps=options.steps,
        learning_rate=options.learning_rate,
        per_device_train_batch_size=options.turns,
        seed=seed,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = build_trainer(model, tokenizer, examples, args=args, max_tokens=options.max_tokens)
    begun = time.perf_counter()
    trainer.train()
    ended = time.perf_counter()
    history = trainer.state.log_history
    held_out = "validation" if way == "part" else "test"
    result = {
        "way": way,
        "seed": seed,
        "steps": options.steps,
        "turns a step": options.turns,
        "learning rate": options.learning_rate,
        "training turns": len(examples),
        "epochs": round(history[-1]["epoch"], 2),
        "loss": [round(row["loss"], 4) for row in history if "loss" in row],
        "scored on": held_out,
        **answered(model, chatml, load_conversations(options.folder / f"{held_out}.jsonl")),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else str(best_device()),
        "torch": torch.__version__,
        "peak GB": round(peak_memory(), 1),
        "seconds of training": round(ended - begun, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }
    path.write_text(json.dumps(result) + "\n")
    shares = "  ".join(f"{name} {result['metrics'][name]:.3f}" for name in METRICS[:3])
    print(f"{path.name:<24} {shares}  {result['seconds']} s", flush=True)


def answered(model, chatml, conversations: Sequence[Conversation]) -> dict:
    "Answer every turn greedily, and say which are right"
    from toolcall.chatml import encode
    from toolcall.evaluate import evaluate
    from toolcall.generate import HFEngine, predict
    from toolcall.models import fast_dtype

    examples = encode(chatml, conversations).examples
    model.to(fast_dtype()).set_attn_implementation("sdpa")
    outputs = predict(HFEngine(model, chatml, max_new_tokens=128), examples, progress=False)
    evaluation = evaluate(examples, outputs, parse=chatml.parse, rules=RULES)
    scores = evaluation.scores
    return {
        "exact": by_conversation(scores, lambda score: score.exact),
        "right tool": by_conversation(scores, lambda score: score.names_equal),
        "service": by_conversation(
            scores, lambda score: any(call.name != "respond_to_user" for call in score.expected)
        ),
        "metrics": {name: round(evaluation.metrics[name].value or 0.0, 4) for name in METRICS},
    }


def by_conversation(scores: Sequence[TurnScore], of: Callable[[TurnScore], bool]) -> list[str]:
    "A 0 or 1 for each turn, a text for each conversation"
    texts: dict[str, str] = {}
    for score in scores:
        texts[score.conversation_id] = texts.get(score.conversation_id, "") + str(int(of(score)))
    return list(texts.values())


def table_of(folder: Path) -> str:
    "Every way beside the clean log; a dirty log's other ways beside it"
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    tried = [result for result in results if result["scored on"] == "validation"]
    lines = [
        f"{one['learning rate']:g}, {one['steps']} steps: {one['metrics']['exact_match']:.1%} of "
        "the validation turns"
        for one in tried
    ]
    right: dict[str, list[np.ndarray]] = {}
    for result in results:
        if result not in tried:
            hits = np.array([text.count("1") for text in result["exact"]], dtype=float)
            right.setdefault(result["way"], []).append(hits)
            turns = np.array([len(text) for text in result["exact"]], dtype=float)
    mean = {way: np.mean(hits, 0) for way, hits in right.items()}
    lines.append(f"{'log':<14} {'each seed':<16} {'right turns':<22} {'cost':<24} {'got back'}")
    order = ["clean", *(f"{dirty}{way}" for dirty in ("noisy", "drift") for way in WAYS)]
    for way in filter(right.__contains__, order):
        seeds = " ".join(f"{one.sum() / turns.sum():.1%}" for one in right[way])
        cells = [interval(lambda x: x[:, 0] / x[:, 1], mean[way], turns)]
        if way != "clean" and "clean" in mean:
            cells.append(
                interval(lambda x: (x[:, 0] - x[:, 1]) / x[:, 2], mean["clean"], mean[way], turns)
            )
        dirty = way.split("-")[0]
        if dirty != way and {"clean", dirty} <= mean.keys():
            cells.append(
                interval(
                    lambda x: (x[:, 0] - x[:, 1]) / (x[:, 2] - x[:, 1]),
                    mean[way],
                    mean[dirty],
                    mean["clean"],
                )
            )
        lines.append(f"{way:<14} {seeds:<16} " + " ".join(f"{cell:<23}" for cell in cells))
    return "\n".join(lines)


def interval(statistic: Callable[[np.ndarray], np.ndarray], *columns: np.ndarray) -> str:
    "A ratio of sums with its 95 % interval, which draws whole conversations"
    from toolcall.evaluate.intervals import bootstrap

    sums = np.stack(columns, 1)
    [value] = statistic(sums.sum(0)[None])
    low, high = bootstrap(sums, statistic)
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


if __name__ == "__main__":
    main()
