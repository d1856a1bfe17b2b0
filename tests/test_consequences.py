"What stands around a turn, what follows it, and which conversations are strangers"

import json
import os
import time
from pathlib import Path

import pytest
from dirt import dirty, mix_foreign, shuffle_order, spoken_plainly, through_tool

from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.curate.consequences import consequence_findings
from toolcall.curate.exchanges import read_exchanges, speaking_tools
from toolcall.curate.history import collapse_prefixes
from toolcall.curate.outcomes import Contrast
from toolcall.curate.results import logged_results, result_value
from toolcall.curate.strangers import (
    foreign_conversations,
    shuffled_conversations,
    stranger_findings,
)
from toolcall.logs import read_logs
from toolcall.samples import sample_log

REAL = Path(os.environ.get("TOOLCALL_REAL_LOGS", "nowhere"))
real = pytest.mark.skipif(not REAL.exists(), reason="TOOLCALL_REAL_LOGS names no folder")


def user(text):
    return {"role": "user", "content": text}


def says(text):
    return {"role": "assistant", "content": text}


def calls(*pairs, words=""):
    entries = [ToolCall(name, args, f"c{n}").to_message() for n, (name, args) in enumerate(pairs)]
    return {"role": "assistant", "content": words, "tool_calls": entries}


def result(text, id="c0"):
    return {"role": "tool", "tool_call_id": id, "content": text}


def read(conversations):
    return read_exchanges(conversations, speaking_tools(conversations))


def log_of(name):
    [path] = REAL.glob(f"{name}*")
    return collapse_prefixes(read_logs(path).conversations, []).conversations


def trips(n=120):
    "A clean log: a flight is searched and then booked"
    cities, log = ["Rome", "Oslo", "Lima", "Bonn", "Graz", "Kyiv", "Bern"], []
    for i in range(n):
        there, when = cities[i % 7], f"{i % 28 + 1} May"
        flight = f"F{i * 7 % 100}"
        messages = [
            user(f"I want to fly to {there} on {when}"),
            calls(("search_flights", {"to": there, "day": when})),
            result(json.dumps([{"flight": flight, "to": there, "day": when, "seats": 3}])),
            says(f"Flight {flight} has seats. Shall I book it?"),
            user(f"Yes, for {i % 4 + 1} people please"),
            calls(("book_flight", {"flight": flight, "people": i % 4 + 1})),
            result(json.dumps({"flight": flight, "people": i % 4 + 1, "code": f"X{i}"})),
            says(f"It is booked, the code is X{i}."),
            user("Thanks a lot"),
            says("Have a good trip!"),
        ]
        log.append(Conversation(f"trip-{i}", messages))
    return log


def found(findings, least=0.5):
    return {(f.conversation, f.turn) for f in findings if f.confidence >= least}


# Exchanges


@pytest.mark.parametrize(
    "text",
    ["hello", "[laughs]", "2", '"words"', "{city}", "[1, 2", "", "{'a': open('f')}", "[(1, 2)]"],
)
def test_words_have_no_value(text):
    assert result_value(text) is None


def test_a_hostile_text_costs_little():
    start = time.perf_counter()
    for text in ("[" * 200_000 + "]", "{'a':" * 3_000 + "1}", "['" + "\\'" * 50_000 + "]"):
        assert result_value(text) is None
    assert time.perf_counter() - start < 2


def test_results_belong_to_their_calls_by_id():
    messages = [user("Two"), calls(("a", {}), ("b", {})), result("B", "c1"), result("A", "c0")]
    [exchange] = read([Conversation("x", messages)])
    assert exchange.results == ("A", "B")
    assert exchange.after == "B\nA" and exchange.after_role == "result"


def test_only_turns_that_may_be_trained_are_read():
    messages = [user("Hi"), says("Hello"), user("Bye"), says("Goodbye")]
    [exchange] = read([Conversation("x", messages, meta={"train": [3]})])
    assert (exchange.turn, exchange.before, exchange.is_last) == (3, "Bye", True)


def test_a_log_reads_the_same_through_a_speaking_tool():
    plain = trips(40)
    spoken = through_tool(plain, "tell", "words")
    assert speaking_tools(plain) == {} and speaking_tools(spoken) == {"tell": "words"}
    one, two = read(plain), read(spoken)
    facts = [
        [(e.calls, e.words, e.before, e.after, e.after_role) for e in each] for each in (one, two)
    ]
    strip = [[([(c.name, c.arguments) for c in f[0]], *f[1:]) for f in each] for each in facts]
    assert strip[0] == strip[1]
    assert [e.results for e in one] == [e.results for e in two]


def test_a_search_is_no_speaking_tool():
    log = []
    for i in range(20):
        text = f"Find me the cheapest hotel number {i}, please!"
        log.append(
            Conversation(
                f"x{i}", [user(text), calls(("search", {"query": text})), user(f"Ok {text}")]
            )
        )
    assert speaking_tools(log) == {}


def test_a_tool_is_judged_by_its_schema():
    tools = [make_tool("find", parameters={"type": "object", "properties": {"city": {}}})]
    log = [
        Conversation(
            f"x{i}",
            [
                user(f"Hi {i}"),
                calls(("find", {"text": "How may I help you?"})),
                user(f"Well {i} then"),
            ],
            tools,
        )
        for i in range(20)
    ]
    assert speaking_tools(log) == {}
    assert speaking_tools([c.relabel(c.id, tools=[]) for c in log]) == {"find": "text"}


def test_users_may_write_json():
    log = [
        Conversation(f"x{i}", [user("[1, 2]"), says("3"), user("[3, 4]"), says("7")])
        for i in range(9)
    ]
    assert logged_results(log) == set()
    assert {e.before_role for e in read(log)} == {"user"}


def test_what_follows_is_taken_from_the_longest_record():
    def record(time, messages):
        meta = {"response_at": len(messages), "user_id": "u", "train": [len(messages)]}
        return Conversation(time, [{"role": "system", "content": time}, *messages], meta=meta)

    said = [user("A room in Rome"), says("For how long?"), user("I said Rome!"), says("Sorry")]
    first, last = read([record("9:00", said[:2]), record("9:01", said)])
    assert (first.conversation, first.turn, first.after, first.is_last) == (
        0,
        2,
        "I said Rome!",
        False,
    )
    assert last.is_last


# Consequences


@pytest.mark.parametrize("through", [False, True])
@pytest.mark.parametrize(
    ("kind", "reason", "share"),
    [
        ("silenced", "unasked_result", 0.95),
        ("invented", "no_result", 0.95),
        ("call", "other_result", 0.8),
        ("arguments", "result_disagrees", 0.6),
    ],
)
def test_consequences_find_what_they_are_made_for(kind, reason, share, through):
    dirt = dirty(trips(), kind, rate=0.25, results="user")
    log = through_tool(dirt.conversations) if through else dirt.conversations
    findings = consequence_findings(log, read(log))
    places = found([f for f in findings if f.reason == reason])
    wrong = {place for place in dirt.truth if place[1] < 9}  # nothing follows the last turn
    assert len(places & wrong) >= share * len(wrong) > 0
    assert len(found(findings) & dirt.clean) <= 0.01 * len(dirt.clean)


@pytest.mark.parametrize("log", [trips(), list(read_logs(sample_log()))], ids=["trips", "sample"])
def test_a_clean_log_has_no_findings(log):
    assert found(consequence_findings(log, read(log))) == set()
    assert found(stranger_findings(log, read(log))) == set()


def test_an_empty_log_has_no_findings():
    assert consequence_findings([], []) == []


def test_a_user_who_says_it_again():
    asked = "Where is my parcel with the red ribbon?"
    log = [
        *trips(20),
        Conversation("again", [user(asked), says("Fine."), user(asked.upper()), says("At home.")]),
    ]
    [finding] = consequence_findings(log, read(log))
    assert (finding.conversation, finding.turn, finding.reason) == ("again", 1, "repeated_request")


def test_an_odd_result_of_a_clean_log_is_no_doubt():
    usual = [(f"tool {i}", f"{{key {i}}}") for i in range(10) for _ in range(100)]
    contrast = Contrast(usual + [("tool 0", "{key 1}")] * 3)
    assert 0 < contrast.doubt("tool 0", "{key 1}") < 0.1
    dirty_log = usual + [(f"tool {i}", f"{{key {j}}}") for i in range(10) for j in range(10)] * 4
    assert Contrast(dirty_log).doubt("tool 0", "{key 1}") > 0.8


def test_a_result_of_another_id_is_another_result():
    def order(i, wrong):
        call = calls(("show_order", {"order_id": f"A{i + 500 if wrong else i}"}))
        text = json.dumps({"order_id": f"A{i}", "items": i % 3})
        return Conversation(f"order-{i}", [user("My order?"), call, result(text), says("Here.")])

    log = [order(i, wrong=i % 4 == 0) for i in range(80)]
    places = found(consequence_findings(log, read(log)))
    assert places == {(f"order-{i}", 1) for i in range(0, 80, 4)}


# Strangers


def songs(n):
    names = ["jazz", "blues", "opera", "soul", "disco"]
    return [
        Conversation(
            f"song-{i}",
            [
                user(f"Play some {names[i % 5]} music louder, my favourite band"),
                calls(("play_music", {"genre": names[i % 5]})),
                result('{"playing": true}'),
                says("Enjoy your music."),
            ],
        )
        for i in range(n)
    ]


CATALOGUE = [
    make_tool("search_flights", parameters={"type": "object", "properties": {"to": {}, "day": {}}}),
    make_tool(
        "book_flight", parameters={"type": "object", "properties": {"flight": {}, "people": {}}}
    ),
]


@pytest.mark.parametrize(("rate", "tools"), [(0.1, CATALOGUE), (0.4, CATALOGUE), (0.05, None)])
def test_foreign_conversations_are_found(rate, tools):
    mixed = mix_foreign(trips(), songs(80), rate=rate)
    foreign = foreign_conversations(read(mixed.conversations), tools)
    ids = {mixed.conversations[n].id for n in foreign}
    assert ids == {id for id, _ in mixed.truth}


def test_a_new_name_of_a_tool_is_not_foreign():
    def renamed(c):
        text = (
            json.dumps(c.messages)
            .replace("search_flights", "find_plane")
            .replace("book_flight", "reserve")
        )
        return Conversation(
            c.id, json.loads(text.replace('"to":', '"goal":').replace('"flight":', '"id":'))
        )

    log = trips()
    log = [*log[:30], *map(renamed, log[30:])]
    assert foreign_conversations(read(log), CATALOGUE) == {}


def test_two_domains_are_a_log():
    assert foreign_conversations(read(trips(60) + songs(40))) == {}


@pytest.mark.parametrize("rate", [0.05, 0.5])
def test_shuffled_conversations_are_found(rate):
    dirt = shuffle_order(trips(), rate=rate)
    numbers = shuffled_conversations(dirt.conversations)
    right = {id for id, _ in dirt.truth}
    ids = {dirt.conversations[n].id for n in numbers}
    assert ids <= right and len(ids) >= 0.8 * len(right) > 0


# Real logs


@real
def test_half_of_the_calls_are_wrong():
    clean, noisy = log_of("restaurants/clean"), log_of("restaurants/noisy")
    wrong = {
        (two.id, turn)
        for one, two in zip(clean, noisy)
        for turn in two.turns
        if one.messages[turn] != two.messages[turn]
    }
    exchanges = read(noisy)
    places = found(consequence_findings(noisy, exchanges))
    assert len(places & wrong) >= 0.5 * len(wrong) and len(places - wrong) <= 5
    assert spoken_plainly(noisy[:1], "respond_to_user", "message")  # the style is known


@real
@pytest.mark.parametrize("name", ["bookings", "airline"])
def test_real_logs_lose_next_to_nothing(name):
    log = log_of(name)
    exchanges = read(log)
    findings = consequence_findings(log, exchanges) + stranger_findings(log, exchanges)
    assert len(found(findings)) <= 0.005 * len(exchanges)


@real
def test_renamed_restaurants_are_at_home_and_bookings_are_not():
    tools = json.loads((REAL / "restaurants" / "tools.json").read_text())
    drift = log_of("restaurants/drift")
    assert foreign_conversations(read(drift), tools) == {}
    mixed = mix_foreign(log_of("restaurants/noisy"), log_of("bookings")[:200], rate=0.25)
    ids = {
        mixed.conversations[n].id for n in foreign_conversations(read(mixed.conversations), tools)
    }
    assert ids == {id for id, _ in mixed.truth}
