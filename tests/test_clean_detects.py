"How much of known dirt `clean` finds, what it costs clean turns, and what it never does"

from collections import Counter
from itertools import islice

import pytest
from dirt import LOG_KINDS, MIXED, TURN_KINDS, Dirtied, act_of, dirty, mix_foreign, through_tool
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.curate.history import collapse_prefixes
from toolcall.curate.steps import check_structure, mask_turns
from toolcall.logs import iter_logs
from toolcall.samples import sample_log


def clean(conversations, **options):
    pytest.importorskip("sklearn", reason="scikit-learn is the extra toolcall[clean]")
    cleaning = pytest.importorskip("toolcall.curate.cleaning")
    return cleaning.clean(conversations, **options)


def read(path, records=None):
    "The conversations of a log's first records as `clean` gets them"
    read = [c for c in islice(iter_logs(path), records) if isinstance(c, Conversation)]
    return collapse_prefixes(check_structure(read).conversations, []).conversations


def lost(before, after):
    "Turns that are learned before and not, or otherwise, after"
    after = {c.id: c for c in after}
    return {
        (c.id, turn)
        for c in before
        for turn in c.turns
        if c.id not in after
        or turn not in after[c.id].turns
        or after[c.id].messages[turn] != c.messages[turn]
    }


def shares(dirtied, tools=None):
    "Share of the wrong turns that is found, and of the others that is kept"
    found = lost(dirtied.conversations, clean(dirtied.conversations, tools=tools).conversations)
    return (
        len(found & dirtied.truth.keys()) / max(len(dirtied.truth), 1),
        1 - len(found & dirtied.clean) / max(len(dirtied.clean), 1),
    )


@pytest.fixture(scope="module")
def samples():
    return read(sample_log())


# The dirt itself


@pytest.mark.parametrize("results", ["drop", "user"])
@pytest.mark.parametrize("kind", TURN_KINDS)
def test_dirt_is_where_it_says_and_nowhere_else(samples, kind, results):
    dirtied = dirty(samples, kind, rate=0.3, results=results)
    assert len(dirtied.truth) > 20 and dirtied.truth.keys() == dirtied.was.keys()
    for old, new in zip(samples, dirtied.conversations, strict=True):
        assert len(old.turns) == len(new.turns)
        for before, after in zip(old.turns, new.turns):
            one, two = act_of(old, before), act_of(new, after)
            place = (new.id, after)
            assert (one != two) == (place in dirtied.truth), place
            assert place not in dirtied.was or dirtied.was[place] == one
        roles = [Counter(m["role"] for m in c.messages) for c in (old, new)]
        gone = roles[0]["tool"] - roles[1]["tool"]
        assert roles[1]["user"] - roles[0]["user"] == (gone if results == "user" else 0)


@pytest.mark.parametrize("kind", LOG_KINDS)
def test_dirt_of_several_messages_names_its_turns(samples, kind):
    dirtied = LOG_KINDS[kind](samples, rate=0.3)
    turns = {(c.id, turn) for c in dirtied.conversations for turn in c.turns}
    assert len(dirtied.truth) > 5 and dirtied.truth.keys() | dirtied.neutral <= turns
    assert dirtied.clean | dirtied.truth.keys() | dirtied.neutral == turns


# Detection


def test_dirt_of_generated_conversations_is_found_each_time(samples):
    "In the style of gateways: answers go through a tool, results come from the user"
    dirtied = dirty(samples[:300], MIXED, rate=0.25, results="user")
    dirtied = Dirtied(through_tool(dirtied.conversations), dirtied.truth)
    kept, masked = (clean(dirtied.conversations, doubtful=way) for way in ("keep", "mask"))
    places = [{(f.conversation, f.turn) for f in one.report.findings} for one in (kept, masked)]
    assert places[0] == places[1]
    assert lost(dirtied.conversations, kept.conversations) == set()
    found = lost(dirtied.conversations, masked.conversations)
    assert found <= places[0]
    assert len(found & dirtied.truth.keys()) >= 0.8 * len(dirtied.truth)
    assert len(found & dirtied.clean) <= 0.07 * len(dirtied.clean)  # a small log


def test_a_clean_log_keeps_its_turns_and_foreign_conversations_are_found(samples):
    theirs = make_tool("open_valve", parameters={"properties": {"valve": {"type": "string"}}})
    foreign = [
        Conversation(
            f"plant {i}",
            [
                {"role": "user", "content": f"Valve {i} has to be opened, pressure is {i * 7}"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [ToolCall("open_valve", {"valve": str(i)}, "a").to_message()],
                },
                {"role": "tool", "tool_call_id": "a", "content": '{"state": "open"}'},
                {"role": "assistant", "content": f"Valve {i} is open, watch the boiler"},
            ],
            [theirs],
        )
        for i in range(12)
    ]
    dirtied = mix_foreign(samples[:250], foreign, rate=0.04, disguised=True)
    declared = {t["function"]["name"]: t for c in samples for t in c.tools}
    found, kept = shares(dirtied, [*declared.values()])
    assert found >= 0.9 and kept >= 0.97, (found, kept)
    found, kept = shares(dirtied)
    assert kept >= 0.97, "without a catalogue nobody knows which tools are at home"


def test_dirt_of_a_real_log_is_found(real_logs):
    log = read(real_logs / "coffee.openai_requests.jsonl.gz", 700)
    found, kept = shares(dirty(log, MIXED, rate=0.25))
    assert found >= 0.8 and kept >= 0.93, (found, kept)  # of few turns


def test_wrong_calls_of_tools_that_are_rarely_called_are_found(real_logs):
    log = read(real_logs / "sealtools.messages.jsonl.gz", 1200)
    found, kept = shares(dirty(log, MIXED, rate=0.25))
    assert found >= 0.85 and kept >= 0.955, (found, kept)
    assert shares(Dirtied(log))[1] >= 0.965


def test_whole_sets_of_arguments_measure_how_many_are_wrong(real_logs):
    "One call a conversation; all calls of a tool look alike"
    log = read(real_logs / "voice_assistant.simple.json.gz", 1200)
    found, kept = shares(dirty(log, MIXED, rate=0.25))
    assert found >= 0.83 and kept >= 0.97, (found, kept)


# What it never does


def talk(number, said, answer, times):
    one = [{"role": "user", "content": said}, {"role": "assistant", "content": answer}]
    return Conversation(f"t{number}", [dict(m) for _ in range(times) for m in one])


def test_a_log_that_cannot_be_compared_with_itself_is_left_alone():
    long = [talk(0, "Where does the night bus stop?", "At the harbour.", 120)]
    mute = [talk(n, "...", "\N{THUMBS UP SIGN}", 2) for n in range(80)]
    for log, why in ((long, "120 turns of 1 conversations are too few"), (mute, "has a word")):
        report = clean(log).report
        assert report.kept == report.turns and why in report.notes[0]


WORDS = st.sampled_from(
    ["", "yes", "no thanks", "book it", "你好", "Paris", '{"a": 1}', "\x00", "7"]
)
VALUES = st.one_of(WORDS, st.integers(), st.none(), st.booleans(), st.lists(WORDS, max_size=2))


@st.composite
def conversations(draw):
    "A small log of any shape, some of whose turns carry no loss"
    log = []
    for number in range(draw(st.integers(0, 6))):
        messages = []
        for i in range(draw(st.integers(1, 6))):
            role = draw(st.sampled_from(["user", "assistant", "call", "system"]))
            if role != "call":
                messages.append({"role": role, "content": draw(WORDS)})
                continue
            names = draw(st.lists(st.sampled_from(["find", "say", "book"]), min_size=1, max_size=2))
            calls = [
                ToolCall(name, draw(st.dictionaries(WORDS, VALUES, max_size=2)), f"{i}-{j}")
                for j, name in enumerate(names)
            ]
            messages.append(
                {
                    "role": "assistant",
                    "content": draw(WORDS),
                    "tool_calls": [call.to_message() for call in calls],
                }
            )
            if draw(st.booleans()):
                id = calls[0].id
                messages.append({"role": "tool", "tool_call_id": id, "content": draw(WORDS)})
        tools = draw(st.sampled_from([[], [make_tool("find"), make_tool("book")]]))
        c = Conversation(f"c{number}", messages, tools)
        log.append(mask_turns(c, dict.fromkeys(draw(st.sets(st.integers(0, 5))), "earlier")))
    return log


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(conversations())
def test_any_small_log_is_cleaned_with_an_account(log):
    cleaned = clean(log)
    before = {c.id: c for c in log}
    turns = {(c.id, turn) for c in log for turn in c.turns}
    kept = {(c.id, turn) for c in cleaned.conversations for turn in c.turns}
    assert kept <= turns, "a turn that carried no loss carries it now"
    assert {(f.conversation, f.turn) for f in cleaned.report.findings} <= turns
    assert cleaned.step.before == (len(log), len(turns))
    for c in cleaned.conversations:
        assert c.messages == before[c.id].messages and c.tools == before[c.id].tools
        assert before[c.id].meta.get("masked", {}).items() <= c.meta.get("masked", {}).items()
