"Nothing is on two sides of a split, and more data moves nothing"

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall.conversation import Conversation, ToolCall
from toolcall.curate import curate, split
from toolcall.curate.similar import shingles, user_text
from toolcall.curate.splits import find_leaks
from toolcall.errors import CurateError

WORDS = ["red", "green", "blue", "black", "white", "pink", "gold", "grey", "lime", "teal"]
WORDS += ["navy", "plum", "rose", "sand", "mint", "ruby", "jade", "onyx", "opal", "pearl"]


def make_log(size: int, seed: int) -> list[Conversation]:
    "Sessions of several records, users of several sessions, and requests that are nearly repeated"
    draw, log, said = random.Random(seed), [], []
    for n in range(size):
        song = " ".join(draw.choice(WORDS) for _ in range(9))
        text = f"please play {song} in the {draw.choice(WORDS)} room"
        if said and draw.random() < 0.15:
            text = draw.choice(said).replace("please", draw.choice(["Please", "pleas", "please "]))
        said.append(text)
        call = {
            "role": "assistant",
            "content": "",
            "tool_calls": [ToolCall("play", {"n": n}, "c").to_message()],
        }
        meta = {"user_id": f"u{draw.randrange(size)}"} if draw.random() < 0.5 else {}
        meta |= {"conversation_id": f"s{draw.randrange(size)}"} if draw.random() < 0.3 else {}
        log.append(Conversation(f"r{n}", [{"role": "user", "content": text}, call], [], meta))
    return log


def shared(splits, key) -> set:
    sides = [{key(c) for c in part if key(c) is not None} for part in splits.parts.values()]
    return sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]


def jaccard(a: str, b: str) -> float:
    return len(shingles(a) & shingles(b)) / len(shingles(a) | shingles(b))


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_on_two_sides(seed):
    splits = split(make_log(400, seed))
    assert not shared(splits, lambda c: c.meta.get("user_id"))
    assert not shared(splits, lambda c: c.meta.get("conversation_id"))
    assert find_leaks(splits) == []
    near = [
        (a.id, b.id)
        for a in splits.train
        for b in splits.test + splits.validation
        if jaccard(user_text(a), user_text(b)) >= 0.8
    ]
    assert near == []  # every pair, without the index
    assert len(splits.bridges) < 40


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10**6), st.integers(1, 5))
def test_a_fifth_more_data_moves_no_record(seed, fold):
    log = make_log(120, seed)
    before, after = split(log), split(log + make_log(24, seed + fold))
    side = {id(c): name for name, part in after.parts.items() for c in part}
    assert all(side[id(c)] == name for name, part in before.parts.items() for c in part)
    assert all(id(c) not in side for c in before.bridges)


def test_curation_of_more_data_moves_no_record():
    log = make_log(300, 7)
    first, more = split(curate(log[:250]).conversations), split(curate(log).conversations)
    side = {c.id: name for name, part in more.parts.items() for c in part}
    assert all(side[c.id] == name for name, part in first.parts.items() for c in part)


def test_order_does_not_matter_without_ties():
    log = [
        Conversation(
            str(n),
            [
                {"role": "user", "content": f"{WORDS[n % 20]} {n * 7919} {WORDS[n // 20]} " * 3},
                {"role": "assistant", "content": "ok"},
            ],
        )
        for n in range(200)
    ]
    side = {c.id: name for name, part in split(log).parts.items() for c in part}
    shuffled = random.Random(0).sample(log, len(log))
    assert {c.id: name for name, part in split(shuffled).parts.items() for c in part} == side


def test_a_small_log_of_one_user_can_be_split_when_the_user_ties_nothing():
    for seed in range(8):
        log = [
            Conversation(
                str(n),
                [{"role": "user", "content": WORDS[n] * 5}, {"role": "assistant", "content": "ok"}],
                [],
                {"user_id": "app"},
            )
            for n in range(3)
        ]
        splits = split(log, seed=seed, by_user=False)
        assert splits.train and splits.test


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_small_logs_have_something_to_train_on_and_to_test(size):
    log = [
        Conversation(
            str(n),
            [{"role": "user", "content": WORDS[n] * 5}, {"role": "assistant", "content": "ok"}],
        )
        for n in range(size)
    ]
    for seed in range(6):
        splits = split(log, seed=seed)
        assert splits.train and splits.test and find_leaks(splits) == []


def test_an_id_that_stands_for_all_ties_nothing_and_is_named():
    def record(n: int, **meta) -> Conversation:
        messages = [
            {"role": "user", "content": f"Please find item {n * 7919} for desk {n}"},
            {"role": "assistant", "content": f"Found {n}."},
        ]
        return Conversation(str(n), messages, [], meta)

    records = [record(n, conversation_id="default", user_id=f"u{n}") for n in range(60)]
    sets = split(records)
    assert min(map(len, (sets.train, sets.test))) > 0 and find_leaks(sets) == []
    assert 'conversation_id "default" stands in 60 conversations' in repr(sets)
    one_user = split([record(n, user_id="service") for n in range(60)])
    assert one_user.test and 'user_id "service"' in repr(one_user)
    with pytest.raises(CurateError, match="can't be split"):
        split([record(n, conversation_id="c") for n in range(10)])  # may be one conversation
