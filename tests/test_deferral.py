"The guarantee of deferral in simulation: 1,000 validation sets drawn from scores of a tuned model"

import json
from pathlib import Path

import numpy as np
import pytest

from toolcall.evaluate.deferral import choose_deferral, deferral_curve, turns_for, upper_bound

POPULATIONS = json.loads(Path(__file__).with_name("sureness.json").read_text(encoding="utf-8"))
RESAMPLES = 1000


def is_guaranteed(wrong: int, confidence: float = 0.95) -> bool:
    "Whether so many failures in all resamples are no surprise at this confidence"
    return upper_bound(wrong, RESAMPLES, 0.0001) <= 1 - confidence


def violations(sureness, wrong, *, turns, risk):
    "How often a choice exceeds its risk, and the mean share that is answered"
    generator = np.random.default_rng(0)
    exceeded, shares = 0, []
    for _ in range(RESAMPLES):
        drawn = generator.integers(0, len(sureness), turns)
        choice = choose_deferral(sureness[drawn], wrong[drawn], risk=risk)
        shares.append(choice.share)
        if choice.answered:
            exceeded += wrong[sureness >= choice.threshold].mean() > risk
    return exceeded, float(np.mean(shares))


@pytest.mark.parametrize("name", POPULATIONS)
def test_the_guarantee_holds_where_it_is_hardest(name):
    "The risk is that of the 60 % surest turns, so that every looser threshold exceeds it"
    sureness, wrong = (np.array(part) for part in zip(*POPULATIONS[name]))
    curve = deferral_curve(sureness, wrong)
    at = np.searchsorted(curve[:, 1], 0.6 * len(sureness))
    risk = max(0.01, float(curve[at, 2] / curve[at, 1]))
    exceeded, share = violations(sureness, wrong.astype(bool), turns=600, risk=risk)
    assert is_guaranteed(exceeded), f"{exceeded} of {RESAMPLES} exceed {risk}"
    assert share > 0.005


def test_a_choice_without_the_bound_exceeds_the_risk_often():
    "The test can fail: the observed share alone is too low in a third of the resamples and more"
    generator = np.random.default_rng(1)
    exceeded = 0
    for _ in range(RESAMPLES):
        sureness = generator.random(300)
        wrong = generator.random(300) > sureness**0.1
        curve = deferral_curve(sureness, wrong)
        held = curve[curve[:, 2] <= 0.05 * curve[:, 1]]
        if len(held):
            threshold = held[-1, 0]
            exceeded += 1 - (1 - threshold**1.1) / 1.1 / (1 - threshold) > 0.05
    assert not is_guaranteed(exceeded) and exceeded > RESAMPLES / 4


@pytest.mark.parametrize("risk", [0.01, 0.02, 0.1])
def test_the_turns_that_it_takes_are_the_fewest(risk):
    for wrong in (0, 1, 3):
        turns = turns_for(risk, wrong)
        assert upper_bound(wrong, turns) <= risk < upper_bound(wrong, turns - 1)


def test_the_edges():
    assert choose_deferral([], []).answered == 0
    assert "it takes 299 at least" in str(choose_deferral([0.9] * 50, [False] * 50))
    equal = choose_deferral([0.9] * 400, [False] * 400)
    assert equal.share == 1 and equal.threshold == 0.9
    assert choose_deferral([0.9] * 400, [True] * 400, risk=0.5).needed == 0
