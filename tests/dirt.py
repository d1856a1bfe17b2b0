"""Make a clean log wrong in known places, so that what finds wrong turns can be measured

    dirtied = dirty(conversations, "call", rate=0.25, seed=0)
    dirtied.conversations   # the same log, a quarter of its calls replaced by others
    dirtied.truth           # {(conversation id, message): "call", …}: the turns that are wrong now

Each kind of `TURN_KINDS` replaces one assistant turn. A result stays behind the call that it
answered, as in a log whose calls were damaged after they ran; where a call becomes words, its
result goes (`results="drop"`) or stays as a message of the user, as gateways log it
(`results="user"`). The kinds of `LOG_KINDS` change several messages. A turn that is only a
neighbour of the damage is `neutral`: it counts neither as wrong nor as right.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from toolcall.conversation import Conversation, ToolCall

Place = tuple[str, int]  # id of a conversation and index of a message
Act = str | list[ToolCall]  # what a turn does: words, or calls
SENTENCES = (  # where a log has no words to take
    "I'm not sure what you mean. Can you say that again?",
    "Here you go.",
    "Sorry, that didn't work.",
    "Is there anything else that I can do?",
    "Which one would you like?",
)


@dataclass(frozen=True)
class Dirtied:
    "A log with wrong turns, and which they are"

    conversations: list[Conversation]
    truth: dict[Place, str] = field(default_factory=dict)  # wrong turn to its kind
    neutral: frozenset[Place] = frozenset()
    was: dict[Place, Act] = field(default_factory=dict)  # what a replaced turn did before

    @property
    def clean(self) -> set[Place]:
        "The turns that are as they were"
        turns = {(c.id, turn) for c in self.conversations for turn in c.turns}
        return turns - self.truth.keys() - self.neutral


class Stock:
    "What a log offers: calls, arguments and words that stand elsewhere in it"

    def __init__(self, conversations: Sequence[Conversation]):
        self.calls: list[ToolCall] = []
        self.arguments: dict[str, list[dict]] = defaultdict(list)
        self.values: dict[tuple[str, str], list] = defaultdict(list)
        self.words: list[tuple[str, str]] = []
        self.results: dict[str, list[str]] = defaultdict(list)
        self.descriptions = {
            tool["function"]["name"]: tool["function"].get("description", "")
            for c in conversations
            for tool in c.tools
        }
        for c in conversations:
            names = {call.id: call.name for call in c.calls()}
            for message in c.messages:
                if message["role"] == "tool":
                    self.results[names.get(message.get("tool_call_id"), "")].append(
                        message["content"]
                    )
            for turn in c.turns:
                calls = c.calls(turn)
                if not calls and c.messages[turn]["content"].strip():
                    self.words.append((c.id, c.messages[turn]["content"]))
                for call in calls:
                    self.calls.append(call)
                    self.arguments[call.name].append(call.arguments)
                    for name, value in call.arguments.items():
                        self.values[call.name, name].append(value)


def another(draw: random.Random, values: Sequence, differs: Callable) -> object:
    "One of the values that differs, or None"
    for _ in range(20):
        if values and differs(value := draw.choice(values)):
            return value
    return None


# Each maps (draw, stock, conversation, turn) to what the turn does instead, or to None where
# this kind of dirt is impossible


def _with_call(draw: random.Random, c: Conversation, turn: int, change: Callable) -> Act | None:
    "The calls of the turn, one of which is changed"
    calls = c.calls(turn)
    if not calls:
        return None
    place = draw.randrange(len(calls))
    changed = change(calls[place])
    return None if changed is None else [*calls[:place], changed, *calls[place + 1 :]]


def other_tool(draw, stock, c, turn):
    "Another tool of the catalogue, or of the log, with the same arguments"
    offered = [tool["function"]["name"] for tool in c.tools] or list(stock.arguments)

    def change(call):
        name = another(draw, offered, lambda name: name != call.name)
        return name and ToolCall(name, call.arguments, call.id)

    return _with_call(draw, c, turn, change)


def other_call(draw, stock, c, turn):
    "A call of another tool with its arguments"

    def change(call):
        other = another(draw, stock.calls, lambda other: other.name != call.name)
        return other and ToolCall(other.name, other.arguments, call.id)

    return _with_call(draw, c, turn, change)


def other_arguments(draw, stock, c, turn):
    "The arguments of another call of the same tool"

    def change(call):
        pool = stock.arguments[call.name]
        arguments = another(draw, pool, lambda arguments: arguments != call.arguments)
        return None if arguments is None else ToolCall(call.name, arguments, call.id)

    return _with_call(draw, c, turn, change)


def other_value(draw, stock, c, turn):
    "One argument has a value that this parameter has elsewhere"

    def change(call):
        for name in draw.sample(list(call.arguments), len(call.arguments)):
            old = call.arguments[name]
            value = another(
                draw, stock.values[call.name, name], lambda value, old=old: not _same(value, old)
            )
            if value is not None:
                return ToolCall(call.name, call.arguments | {name: value}, call.id)
        return None

    return _with_call(draw, c, turn, change)


def exchanged_values(draw, stock, c, turn):
    "Two arguments have each other's values"

    def change(call):
        names = draw.sample(list(call.arguments), len(call.arguments))
        for first, second in zip(names, names[1:]):
            one, two = call.arguments[first], call.arguments[second]
            if not _same(one, two) and type(one) is type(two):
                return ToolCall(call.name, call.arguments | {first: two, second: one}, call.id)
        return None

    return _with_call(draw, c, turn, change)


def dropped_argument(draw, stock, c, turn):
    "One of several arguments is missing"

    def change(call):
        if len(call.arguments) < 2:
            return None
        gone = draw.choice(list(call.arguments))
        kept = {name: value for name, value in call.arguments.items() if name != gone}
        return ToolCall(call.name, kept, call.id)

    return _with_call(draw, c, turn, change)


def words_for_call(draw, stock, c, turn):
    "Words of another conversation, or a plain sentence, where a call was"
    calls = c.calls(turn)
    if not calls:
        return None
    if len(stock.words) >= 20:
        other = another(draw, stock.words, lambda other: other[0] != c.id)
        return other and other[1]
    sentence = stock.descriptions.get(calls[0].name) or "I look that up"
    values = ", ".join(map(str, calls[0].arguments.values()))
    return draw.choice(
        [*SENTENCES, f"{sentence.rstrip('.')}.", f"{sentence.rstrip('.')}: {values}"]
    )


def call_for_words(draw, stock, c, turn):
    "A call of another conversation where words were"
    if c.calls(turn) or not stock.calls:
        return None
    call = draw.choice(stock.calls)
    return [ToolCall(call.name, call.arguments)]


def other_words(draw, stock, c, turn):
    "Words of another conversation where other words were"
    if c.calls(turn):
        return None
    own = c.messages[turn]["content"]
    other = another(draw, stock.words, lambda other: other[0] != c.id and not _same(other[1], own))
    return other and other[1]


def other_turn(draw, stock, c, turn):
    "What another turn of the conversation does; `dirty` gives this one's act to that turn"
    acts = [(other, act_of(c, other)) for other in c.turns if other != turn]
    found = another(draw, acts, lambda pair: not _same_act(pair[1], act_of(c, turn)))
    return found and found[1]


TURN_KINDS: dict[str, Callable] = {
    "tool": other_tool,
    "call": other_call,
    "arguments": other_arguments,
    "value": other_value,
    "exchanged": exchanged_values,
    "dropped": dropped_argument,
    "silenced": words_for_call,
    "invented": call_for_words,
    "words": other_words,
    "turn": other_turn,
}
MIXED = ("tool", "call", "arguments", "silenced", "invented")
CHANGES_TOOL = {"tool", "call", "silenced", "invented"}


def _same(one: object, two: object) -> bool:
    return str(one).strip().casefold() == str(two).strip().casefold()


def _same_act(one: Act, two: Act) -> bool:
    if isinstance(one, str) or isinstance(two, str):
        return isinstance(one, str) and isinstance(two, str) and _same(one, two)
    pairs = [[(call.name, call.arguments) for call in calls] for calls in (one, two)]
    return pairs[0] == pairs[1]


def act_of(conversation: Conversation, turn: int) -> Act:
    "What a turn does"
    return conversation.calls(turn) or conversation.messages[turn]["content"]


def rewrite(
    conversation: Conversation, acts: dict[int, Act], results: str = "drop"
) -> tuple[Conversation, dict[int, int]]:
    "Let turns do something else; old to new indices of the messages that are left"
    messages: list[dict] = []
    places: dict[int, int] = {}
    renamed: dict[str, str | None] = {}  # id of a call to the id of what stands in its place
    for i, message in enumerate(conversation.messages):
        if i in acts:
            old = [call.id for call in conversation.calls(i)]
            message, new = _acting(message, acts[i], old, f"dirt_{i}")
            renamed |= dict.fromkeys(old, None) | dict(zip(old, new))
        elif message["role"] == "tool" and message.get("tool_call_id") in renamed:
            id = renamed[message["tool_call_id"]]
            if id is None:
                if results == "drop":
                    continue
                message = {"role": "user", "content": message["content"]}
        places[i] = len(messages)
        messages.append(message)
    meta = dict(conversation.meta)
    if "train" in meta:
        meta["train"] = [places[turn] for turn in meta["train"]]
    if "masked" in meta:
        meta["masked"] = {str(places[int(k)]): reason for k, reason in meta["masked"].items()}
    return Conversation(conversation.id, messages, conversation.tools, meta), places


def _acting(message: dict, act: Act, ids: list[str], fresh: str) -> tuple[dict, list[str]]:
    "The message that does something else, and the ids of its calls"
    if isinstance(act, str):
        return {"role": "assistant", "content": act}, []
    new = [ids[i] if i < len(ids) else f"{fresh}_{i}" for i in range(len(act))]
    calls = [ToolCall(call.name, call.arguments, id).to_message() for call, id in zip(act, new)]
    words = message["content"] if message.get("tool_calls") else ""
    return {"role": "assistant", "content": words, "tool_calls": calls}, new


def dirty(
    conversations: Sequence[Conversation],
    kinds: str | Sequence[str],  # of `TURN_KINDS`; of several, each turn draws one that is possible
    *,
    rate: float,  # share of the turns that can be made wrong
    seed: int = 0,
    results: str = "drop",  # or `user`: what becomes of the result of a call that is gone
) -> Dirtied:
    "Make turns wrong"
    draw = random.Random(f"{seed} {kinds}")
    stock = Stock(conversations)
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    share = rate / 2 if names == ["turn"] else rate  # two turns are wrong at a time
    after: list[Conversation] = []
    truth: dict[Place, str] = {}
    was: dict[Place, Act] = {}
    for c in conversations:
        acts: dict[int, Act] = {}
        kind_of: dict[int, str] = {}
        for turn in c.turns:
            if draw.random() >= share or turn in acts:
                continue
            for kind in draw.sample(names, len(names)):
                if act := TURN_KINDS[kind](draw, stock, c, turn):
                    acts[turn], kind_of[turn] = act, kind
                    break
            if kind_of.get(turn) == "turn":
                _give_back(c, turn, acts, kind_of)
        new, places = rewrite(c, acts, results) if acts else (c, {})
        after.append(new)
        truth |= {(c.id, places[turn]): kind for turn, kind in kind_of.items()}
        was |= {(c.id, places[turn]): act_of(c, turn) for turn in acts}
    return Dirtied(after, truth, was=was)


def _give_back(c: Conversation, turn: int, acts: dict[int, Act], kind_of: dict[int, str]) -> None:
    "The turn whose act was taken does what the taker did"
    [other, *_] = [
        other for other in c.turns if other != turn and _same_act(act_of(c, other), acts[turn])
    ]
    if other in acts:
        del acts[turn], kind_of[turn]
    else:
        acts[other], kind_of[other] = act_of(c, turn), "turn"


# Kinds that change several messages


def swap_results(conversations, *, rate: float, seed: int = 0) -> Dirtied:
    "Results of other calls of the same tool; the next turn answers what isn't there"
    draw, stock = random.Random(f"{seed} results"), Stock(conversations)
    after, truth, neutral = [], {}, set()
    for c in conversations:
        messages = list(c.messages)
        names = {call.id: call.name for call in c.calls()}
        turns = set(c.turns)
        for i, message in enumerate(c.messages):
            if message["role"] != "tool" or draw.random() >= rate:
                continue
            pool = stock.results[names.get(message.get("tool_call_id"), "")]
            content = draw.choice(pool)
            if content == message["content"]:
                continue
            messages[i] = message | {"content": content}
            before = max(turn for turn in range(i) if c.messages[turn]["role"] == "assistant")
            neutral.add((c.id, before))
            later = [turn for turn in range(i, len(messages)) if turn in turns]
            if later:
                truth[c.id, later[0]] = "results"
        after.append(Conversation(c.id, messages, c.tools, c.meta))
    return Dirtied(after, truth, frozenset(neutral - truth.keys()))


def repeat_turns(conversations, *, rate: float, seed: int = 0) -> Dirtied:
    "Turns that stand twice, with their results"
    draw = random.Random(f"{seed} repeated")
    after, truth, neutral = [], {}, set()
    for c in conversations:
        turns = set(c.turns)
        messages: list[dict] = []
        places: dict[int, int] = {}
        for block in _blocks(c.messages):
            for i in block:
                places[i] = len(messages)
                messages.append(c.messages[i])
            if block[0] in turns and draw.random() < rate:
                neutral.add((c.id, places[block[0]]))
                truth[c.id, len(messages)] = "repeated"
                messages += _again(c.messages[i] for i in block)
        again = [place for id, place in truth if id == c.id]
        meta = c.meta | {"train": sorted([*(places[turn] for turn in turns), *again])}
        after.append(Conversation(c.id, messages, c.tools, meta))
    return Dirtied(after, truth, frozenset(neutral))


def shuffle_order(conversations, *, rate: float, seed: int = 0) -> Dirtied:
    "Conversations in a random order of their messages; results stay behind their calls"
    draw = random.Random(f"{seed} shuffled")
    after, truth, neutral = [], {}, set()
    for c in conversations:
        blocks = _blocks(c.messages)
        fixed = [block for block in blocks if c.messages[block[0]]["role"] == "system"]
        moved = [block for block in blocks if c.messages[block[0]]["role"] != "system"]
        if len(moved) < 3 or draw.random() >= rate:
            after.append(c)
            continue
        draw.shuffle(moved)
        order = [i for block in fixed + moved for i in block]
        places = {old: new for new, old in enumerate(order)}
        for turn in c.turns:
            place = places[turn]
            if order[place - 1] != turn - 1:
                truth[c.id, place] = "shuffled"
            else:
                neutral.add((c.id, place))
        meta = c.meta | {"train": sorted(places[turn] for turn in c.turns)}
        after.append(Conversation(c.id, [c.messages[i] for i in order], c.tools, meta))
    return Dirtied(after, truth, frozenset(neutral))


def mix_foreign(
    conversations,
    foreign: Sequence[Conversation],
    *,
    rate: float,
    seed: int = 0,
    disguised: bool = False,  # Whether they have the log's own catalogue and no instructions
) -> Dirtied:
    "Conversations of another domain among those of the log; `rate` is their share of the whole"
    draw = random.Random(f"{seed} foreign")
    n = min(len(foreign), round(len(conversations) * rate / (1 - rate)))
    after, truth = list(conversations), {}
    for c in draw.sample(list(foreign), n):
        id, tools = f"foreign {c.id}", c.tools
        if disguised:
            tools = draw.choice(conversations).tools
            c = without_instructions(c)
        new = c.relabel(id, tools=tools)
        after.insert(draw.randrange(len(after) + 1), new)
        truth |= {(id, turn): "foreign" for turn in new.turns}
    return Dirtied(after, truth)


LOG_KINDS: dict[str, Callable] = {
    "results": swap_results,
    "repeated": repeat_turns,
    "shuffled": shuffle_order,
}


def _blocks(messages: list[dict]) -> list[list[int]]:
    "Indices of messages; results stand with their call"
    blocks: list[list[int]] = []
    for i, message in enumerate(messages):
        if message["role"] == "tool" and blocks:
            blocks[-1].append(i)
        else:
            blocks.append([i])
    return blocks


def _again(messages: Iterable[dict]) -> list[dict]:
    "The same messages with other ids"
    copies = []
    for message in messages:
        message = dict(message)
        if "tool_calls" in message:
            message["tool_calls"] = [
                call | {"id": f"{call.get('id', '')}_again"} for call in message["tool_calls"]
            ]
        if message["role"] == "tool":
            message["tool_call_id"] = f"{message.get('tool_call_id', '')}_again"
        copies.append(message)
    return copies


def without_instructions(c: Conversation) -> Conversation:
    "The conversation without its system messages"
    kept = [i for i, message in enumerate(c.messages) if message["role"] != "system"]
    places = {old: new for new, old in enumerate(kept)}
    meta = c.meta | {"train": [places[turn] for turn in c.turns]}
    return Conversation(c.id, [c.messages[i] for i in kept], c.tools, meta)


# The style of gateways in which answers go through a tool and results come from the user


def through_tool(
    conversations: Sequence[Conversation], name: str = "say", parameter: str = "text"
) -> list[Conversation]:
    "Answers as calls of a speaking tool and results under `user`; the places stay the same"
    schema = {"type": "object", "properties": {parameter: {"type": "string"}}}
    function = {"name": name, "description": "Speak to the user", "parameters": schema}
    after = []
    for c in conversations:
        messages = []
        for i, message in enumerate(c.messages):
            if message["role"] == "tool":
                message = {"role": "user", "content": message["content"]}
            elif message["role"] == "assistant" and not message.get("tool_calls"):
                spoken = ToolCall(name, {parameter: message["content"]}, f"said_{i}")
                message = {"role": "assistant", "content": "", "tool_calls": [spoken.to_message()]}
            messages.append(message)
        tools = [*c.tools, {"type": "function", "function": function}] if c.tools else []
        after.append(Conversation(c.id, messages, tools, c.meta))
    return after


def compared(clean: Sequence[Conversation], noisy: Sequence[Conversation]) -> Dirtied:
    "The truth of a log whose clean twin is known, message by message"
    truth: dict[Place, str] = {}
    was: dict[Place, Act] = {}
    for old, new in zip(clean, noisy, strict=True):
        for turn in new.turns:
            one, two = act_of(old, turn), act_of(new, turn)
            if not _same_act(one, two):
                names = [
                    [call.name for call in act] if isinstance(act, list) else []
                    for act in (one, two)
                ]
                truth[new.id, turn] = "tool" if names[0] != names[1] else "arguments"
                was[new.id, turn] = one
    return Dirtied(list(noisy), truth, was=was)


def spoken_plainly(
    conversations: Sequence[Conversation], name: str, parameter: str
) -> list[Conversation]:
    "The inverse of `through_tool`: the user's message behind a call is its result"
    after = []
    for c in conversations:
        messages: list[dict] = []
        pending = ""
        for message in c.messages:
            calls = [ToolCall.from_message(call) for call in message.get("tool_calls", [])]
            if calls and calls[0].name == name:
                message = {"role": "assistant", "content": calls[0].arguments.get(parameter, "")}
            elif message["role"] == "user" and pending:
                content = message["content"]
                message = {"role": "tool", "tool_call_id": pending, "content": content}
            pending = calls[0].id if message.get("tool_calls") else ""
            messages.append(message)
        tools = [tool for tool in c.tools if tool["function"]["name"] != name]
        after.append(Conversation(c.id, messages, tools, c.meta))
    return after
