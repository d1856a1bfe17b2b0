"Names that mean the same: found where they drift, nothing found elsewhere, applied with an account"

import gzip
import json
import os
import random
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.curate.drift import find_names
from toolcall.curate.names import read_uses
from toolcall.curate.proposals import Proposals, Rename, load_names
from toolcall.curate.renaming import apply_names
from toolcall.errors import CurateError
from toolcall.logs import read_logs
from toolcall.text import dumps

REAL_LOGS = os.environ.get("TOOLCALL_REAL_LOGS")
needs_logs = pytest.mark.skipif(not REAL_LOGS, reason="TOOLCALL_REAL_LOGS is not set")

FOODS = ["ramen", "tapas", "curry", "pizza", "falafel", "sushi", "pho", "tacos", "stew"]
TOWNS = ["Oslo", "Lima", "Bern", "Cairo", "Quito", "Accra", "Porto", "Turin"]
TOOLS = {
    "find_food": ["food", "town"],
    "book_table": ["town", "date", "time", "party"],
    "say": ["message"],
}


def invent(n, seed=0):
    "A log in which an assistant speaks through a tool and results come back as user messages"
    generator = random.Random(seed)
    log = []
    for number in range(n):
        food, town = generator.choice(FOODS), generator.choice(TOWNS)
        date = f"2025-0{generator.randint(1, 9)}-{generator.randint(10, 28)}"
        time, party = (
            f"{generator.randint(11, 22)}:{generator.choice(['00', '30'])}",
            generator.randint(1, 8),
        )
        place = f"{generator.choice(['Old', 'Blue', 'Little'])} {food.title()} House {number}"
        row = json.dumps([{"place": place, "phone": f"0{generator.randint(10**6, 10**7)}"}])
        code = json.dumps({"code": f"R-{generator.randint(1000, 9999)}", "when": f"{date} {time}"})
        steps = [
            (
                f"I am hungry for {food} in {town}, any idea number {number}?",
                ("find_food", food, town),
            ),
            (row, ("say", f"How about {place}? They cook {food}.")),
            (
                f"Good, a table for {party} on {date} at {time}",
                ("book_table", town, date, time, str(party)),
            ),
            (code, ("say", f"Your table at {place} is booked.")),
        ]
        messages = []
        for i, (heard, (tool, *values)) in enumerate(steps):
            call = ToolCall(tool, dict(zip(TOOLS[tool], values)), f"c{i}").to_message()
            messages.append({"role": "user", "content": heard})
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        log.append(Conversation(f"c{number}", messages, meta={"source": f"log:{number + 1}"}))
    return log


def drifted(log, versions, seed=0, *, by_time=False, parameters=True):
    "The log with other names in each version but the first, and what each name meant"
    generator = random.Random(seed)
    truth = {name: name for name in TOOLS} | {(t, p): p for t, ps in TOOLS.items() for p in ps}
    renames = [truth.copy()]
    for version in range(1, versions):
        renames.append({})
        for tool, names in TOOLS.items():
            new = "".join(generator.sample("bcdfghjklmnpqrstvwxz", 6)) + str(version)
            renames[-1][tool], truth[new] = new, tool
            for name in names:
                other = "".join(generator.sample("bcdfghjklmnpqrstvwxz", 5)) if parameters else name
                renames[-1][tool, name], truth[new, other] = other, name
    after = []
    for number, conversation in enumerate(log):
        version = number * versions // len(log) if by_time else generator.randrange(versions)
        names = renames[version]
        messages = []
        for message in conversation.messages:
            if "tool_calls" in message:
                [call] = conversation.calls(len(messages))
                arguments = {names[call.name, k]: v for k, v in call.arguments.items()}
                call = ToolCall(names[call.name], arguments, call.id)
                message = {**message, "tool_calls": [call.to_message()]}
            messages.append(message)
        after.append(Conversation(conversation.id, messages, meta=conversation.meta))
    return after, truth


def outcome(log, truth, tools=None):
    "Shares of calls that get their true names, other ones, or keep theirs; by the names declared"
    renamed = apply_names(log, find_names(log, tools).names)
    counts = Counter()
    for before, after in zip(log, renamed.conversations, strict=True):
        for old, new in zip(before.calls(), after.calls(), strict=True):
            meant = [truth[old.name], *(truth[old.name, name] for name in old.arguments)]
            if [new.name, *new.arguments] == meant:
                counts["right"] += 1
            else:
                counts[
                    "left" if [new.name, *new.arguments] == [old.name, *old.arguments] else "wrong"
                ] += 1
    total = sum(counts.values())
    return {key: counts[key] / total for key in ("right", "left", "wrong")}


def catalogue():
    return [
        make_tool(tool, parameters={"type": "object", "properties": {name: {} for name in names}})
        for tool, names in TOOLS.items()
    ]


@pytest.mark.parametrize("versions", [2, 4])
@pytest.mark.parametrize("by_time", [False, True])
def test_meaningless_names_are_mapped_to_the_catalogue(versions, by_time):
    log, truth = drifted(invent(160), versions, by_time=by_time)
    shares = outcome(log, truth, catalogue())
    assert shares["right"] >= 0.95 and shares["wrong"] <= 0.01, shares


def test_newest_names_are_proposed_without_a_catalogue():
    log, truth = drifted(invent(120), 2, by_time=True)
    names = find_names(log).names
    assert {truth[tool]: truth[entry["name"]] for tool, entry in names.items()} == dict(
        zip(TOOLS, TOOLS)
    )
    assert set(names) == set(TOOLS)  # the old ones become the new ones
    stamped = [c.relabel(c.id, timestamp=1.7e9 - i * 60) for i, c in enumerate(log)]
    assert set(find_names(stamped).names).isdisjoint(TOOLS)


def test_the_first_half_of_the_log_can_be_renamed_back():
    log, _ = drifted(invent(120), 2, by_time=True, parameters=False)
    renamed = apply_names(log, find_names(log).names)
    assert len({call.name for c in renamed.conversations for call in c.calls()}) == 3
    assert sum(renamed.changed.values()) == 240 and not renamed.left
    assert all(c.meta["renamed"] for c in renamed.conversations[:60])
    assert not any("renamed" in c.meta for c in renamed.conversations[60:])


def test_drift_with_half_of_the_calls_corrupted():
    generator = random.Random(5)
    log, truth = drifted(invent(200), 3)
    pool = {}
    for conversation in log:
        for call in conversation.calls():
            version = call.name[-1] if call.name[-1].isdigit() else "0"
            pool.setdefault(version, []).append(call)
    noisy = []
    for conversation in log:
        messages = []
        for message in conversation.messages:
            if "tool_calls" in message and generator.random() < 0.5:
                name = message["tool_calls"][0]["function"]["name"]
                other = generator.choice(pool[name[-1] if name[-1].isdigit() else "0"])
                call = ToolCall(other.name, other.arguments, message["tool_calls"][0]["id"])
                message = {**message, "tool_calls": [call.to_message()]}
            messages.append(message)
        noisy.append(Conversation(conversation.id, messages))
    shares = outcome(noisy, truth, catalogue())
    assert shares["right"] >= 0.9 and shares["wrong"] <= 0.01, shares


def test_no_drift_no_proposals():
    assert not find_names(invent(120)).renames
    assert not find_names(invent(120), catalogue()).renames
    assert not find_names([]).renames


def test_tools_of_one_conversation_that_look_alike_stay_apart():
    "Two searches, one after the other, with the same words, values and results"
    log = []
    for number in range(60):
        town = TOWNS[number % 8]
        messages = [{"role": "user", "content": f"Flights to {town}, request {number}"}]
        for i, tool in enumerate(["search_direct", "search_with_stops"]):
            call = ToolCall(tool, {"to": town}, f"c{i}").to_message()
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            result = {"role": "tool", "tool_call_id": f"c{i}", "content": f'[{{"fare": {number}}}]'}
            messages.append(result)
        log.append(Conversation(f"c{number}", messages))
    assert find_names(log).names == {}


def test_a_name_that_changed_its_meaning_is_not_applied():
    "The new tool has the old parameters town and time too, but they hold each other's values"
    log, truth = drifted(invent(120), 2, by_time=True, parameters=False)
    after = []
    for conversation in log[60:]:
        messages = json.loads(json.dumps(conversation.messages))
        for message in messages:
            for call in message.get("tool_calls", []):
                arguments = call["function"]["arguments"]
                if "time" in arguments:
                    arguments["town"], arguments["time"] = arguments["time"], arguments["town"]
        after.append(Conversation(conversation.id, messages))
    log = [*log[:60], *after]
    assert "town" not in find_names(log).names["book_table"]["parameters"]
    left = {call.tool for call in apply_names(log, find_names(log).names).left}
    assert left == {"book_table"}


def test_origin_and_destination_are_not_confused():
    "Both are towns, nobody says which is which, and the arguments are sorted by name"
    generator = random.Random(3)
    log, truth = [], {"fly": "fly", "go": "fly"}
    versions = {"fly": ["from", "to"], "go": ["zb", "aq"]}
    truth |= {(tool, n): t for tool, ns in versions.items() for n, t in zip(ns, versions["fly"])}
    for number in range(120):
        tool = "fly" if number < 60 else "go"
        towns = generator.sample(TOWNS, 2)
        arguments = dict(sorted(zip(versions[tool], towns)))
        call = ToolCall(tool, arguments, "c").to_message()
        heard = {"role": "user", "content": f"Trip {number}: {' and '.join(sorted(towns))}"}
        turn = {"role": "assistant", "content": "", "tool_calls": [call]}
        log.append(Conversation(f"c{number}", [heard, turn]))
    schema = {"type": "object", "properties": {"from": {}, "to": {}}}
    shares = outcome(log, truth, [make_tool("fly", parameters=schema)])
    assert shares["wrong"] == 0 and shares["right"] == 0.5, shares


def test_a_result_that_is_logged_as_a_user_message_is_no_word_of_the_user():
    log = invent(1)
    uses = read_uses(log)
    assert [use.features["before"][0] for use in uses] == ["role user", "role result"] * 2
    assert not any("phone" in use.heard for use in uses)


def test_parameters_alone_may_drift():
    log, truth = drifted(invent(160), 2)
    tools = {name: truth[name] for name in truth if isinstance(name, str)}
    back = {name: {"name": tool} for name, tool in tools.items() if name != tool}
    for name, entry in back.items():
        entry["parameters"] = {
            p: p for t, p in (k for k in truth if isinstance(k, tuple)) if t == name
        }
    log = apply_names(log, back).conversations
    truth |= {(truth[key[0]], key[1]): value for key, value in truth.items() if key[0] in back}
    shares = outcome(log, truth, catalogue())
    assert shares["right"] >= 0.95 and shares["wrong"] <= 0.01, shares


RESTAURANTS = {
    "respond_to_user": (
        "respond_to_user send_user_message assistant_reply send_reply user_response send_message "
        "reply_to_user chat_response",
        {"message": "message text response_text content reply"},
    ),
    "ReserveRestaurant": (
        "ReserveRestaurant BookDining make_reservation create_booking schedule_reservation "
        "reserve_table book_table book_restaurant",
        {
            "city": "city location area town place",
            "date": "date reservation_date when booking_date day",
            "time": "time hour booking_time reservation_time time_slot",
            "party_size": (
                "party_size number_of_seats guests num_guests group_size number_of_people"
            ),
            "restaurant_name": "restaurant_name establishment venue_name name place_name",
        },
    ),
    "FindRestaurants": (
        "FindRestaurants SearchDining query_restaurants lookup_restaurants find_places_to_eat "
        "search_restaurants search_venues get_restaurants",
        {
            "cuisine": "cuisine category cuisine_type food_category food_type",
            "city": "city location area town place",
            "price_range": "price_range pricing budget cost_range price_level",
            "serves_alcohol": "serves_alcohol alcohol serves_drinks has_bar has_alcohol",
            "has_live_music": "has_live_music live_music",
            "": "has_vegetarian_options has_seating_outdoors",
        },
    ),
}


def restaurants(name):
    "A log of the benchmark as conversations"
    log = []
    with gzip.open(Path(REAL_LOGS) / "restaurants" / f"{name}.traces.jsonl.gz", "rt") as lines:
        for number, line in enumerate(lines):
            messages = json.loads(json.loads(line)["context"])["messages"]
            for message in messages:
                message["content"] = message.get("content") or ""
                for call in message.get("tool_calls", []):
                    call["function"]["arguments"] = json.loads(call["function"]["arguments"])
            log.append(
                Conversation(f"c{number}", messages, meta={"source": f"{name}:{number + 1}"})
            )
    return log


@needs_logs
def test_drift_of_the_restaurant_log():
    truth = {}
    for tool, (names, parameters) in RESTAURANTS.items():
        for name in names.split():
            truth[name] = tool
            truth |= {(name, p): t for t, ps in parameters.items() for p in ps.split()}
    log = restaurants("drift")
    tools = json.loads((Path(REAL_LOGS) / "restaurants" / "tools.json").read_text())
    shares = outcome(log, truth, tools)
    assert shares["right"] >= 0.95 and shares["wrong"] <= 0.01, shares
    names = find_names(log).names  # without the catalogue: one name a tool
    groups = [
        {truth[tool] for tool in names if names[tool]["name"] == n}
        for n in {entry["name"] for entry in names.values()}
    ]
    assert len(groups) == 3 and all(len(group) == 1 for group in groups)
    assert not find_names(restaurants("noisy")).renames


@needs_logs
@pytest.mark.parametrize(
    "name", ["airline", "bookings", "phone_zh", "sealtools", "voice_assistant"]
)
def test_real_logs_without_drift_get_no_proposals(name):
    [path] = Path(REAL_LOGS).glob(f"{name}.*")
    assert find_names(read_logs(path).conversations).names == {}


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)


@example("a", "b", "c", "\ufffe\x85\x07")
@example("no", "=", "2025-01-01", "# null")
@given(TEXT, TEXT, TEXT, TEXT)
@settings(max_examples=60, deadline=None)
def test_any_name_comes_back_from_the_file(tool, new, parameter, value):
    target = new if new != tool else new + "x"
    renames = [
        Rename(tool, target=target, confidence=0.9, calls=3, why=value, examples=(value,)),
        Rename(tool, parameter, target=new, confidence=0.9, examples=(value, tool)),
        Rename(tool, parameter, dumps(value), dumps(new), confidence=0.9),
        Rename(f"{tool}2", target=None, confidence=0.1, why=value),
    ]
    expected = {
        tool: {
            "name": target,
            "parameters": {parameter: new},
            "values": {parameter: {dumps(value): new}},
        }
    }
    assert Proposals(renames).names == expected


@pytest.mark.parametrize(
    "text, says",
    [
        ("- a", "mapping of tools"),
        ("a: b", "mapping with the key name"),
        ("a: {name: [b]}", "put it in quotes"),
        ("a: {name: b, extra: c}", "one of name, parameters, values"),
        ("a: {name: b, parameters: [x]}", "mapping of parameters"),
        ("a: {name: b, parameters: {x: 1}}", "new name, or null"),
        ("a: {name: b, values: {x: y}}", "mapping of values"),
        ("a: {name: b}\nb: {name: c}", "b becomes c"),
        ("a: {name: b, parameters: {x: y, x: z}}", "twice"),
        ("a: &a {name: b}\nc: *a", "write the names out"),
        ("a: !!python/object:os.system {}", "not YAML"),
        ("a: [", "not YAML"),
        ("[" * 3000, "nested deeper than 20 levels"),
    ],
)
def test_what_is_wrong_with_a_file_of_names(tmp_path, text, says):
    path = tmp_path / "names.yaml"
    path.write_text(text)
    with pytest.raises(CurateError, match="names.yaml") as caught:
        load_names(path)
    assert says in str(caught.value)


def test_an_edited_file_is_applied(tmp_path):
    log, _ = drifted(invent(120), 2, by_time=True, parameters=False)
    proposals = find_names(log)
    proposals.save(tmp_path / "names.yaml")
    text = (tmp_path / "names.yaml").read_text()
    new = proposals.names["say"]["name"]
    (tmp_path / "names.yaml").write_text(text.replace(f"name: {new}", "name: speak"))
    names = load_names(tmp_path / "names.yaml")
    assert names["say"]["name"] == "speak"
    assert ("say", "speak") in apply_names(log, names).changed
    assert yaml.safe_load(text).keys() == proposals.names.keys()


def test_parallel_calls_are_renamed_one_by_one():
    calls = [
        ToolCall("old", {"a": 1}, "x"),
        ToolCall("old", {"b": 1}, "y"),
        ToolCall("other", {}, "z"),
    ]
    messages = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "", "tool_calls": [call.to_message() for call in calls]},
        *({"role": "tool", "tool_call_id": c.id, "name": c.name, "content": "1"} for c in calls),
    ]
    before = Conversation(
        "c", messages, [make_tool("old"), make_tool("other")], {"masked": {"1": "x"}}
    )
    renamed = apply_names([before], {"old": {"name": "new", "parameters": {"a": "n"}}})
    [after] = renamed.conversations
    assert [str(call) for call in after.calls()] == ["new(n=1)", "old(b=1)", "other()"]
    assert [m["name"] for m in after.messages[2:]] == ["new", "old", "other"]
    assert {t["function"]["name"] for t in after.tools} == {"old", "new", "other"}
    assert after.meta == {"masked": {"1": "x"}, "renamed": {"old": "new"}}
    assert [(left.turn, left.tool) for left in renamed.left] == [(1, "old")]
    assert before.calls()[0].name == "old"  # nothing is changed in place
