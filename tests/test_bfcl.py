"""Our verdicts are those of the leaderboard's own checker, on every single-turn Python entry

Each entry is checked with right answers and with wrong ones. `bfcl-eval` is installed without its
dependencies, which none of this needs: its checker asks one table of models whether dots in names
are replaced, and gets a model for which they are not.
"""

import copy
import importlib
import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from toolcall.conversation import ToolCall
from toolcall.evaluate.bfcl import bfcl_verdict

CATEGORIES = (
    "simple_python",
    "multiple",
    "parallel",
    "parallel_multiple",
    "live_simple",
    "live_multiple",
    "live_parallel",
    "live_parallel_multiple",
)


@pytest.fixture(scope="module")
def checker():
    found = importlib.util.find_spec("bfcl_eval")
    assert found, "pip install --no-deps bfcl-eval==2026.3.23"
    models = ModuleType("bfcl_eval.constants.model_config")
    models.MODEL_CONFIG_MAPPING = {"any": SimpleNamespace(underscore_to_dot=False)}
    sys.modules[models.__name__] = models
    module = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker")
    return module, Path(found.submodule_search_locations[0], "data")


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def chosen(allowed, which=0):
    "A right value out of a list of allowed ones; None when it may only be left out"
    real = [one for one in allowed if one != ""]
    if not real:
        return None
    one = real[which % len(real)]
    if isinstance(one, list):
        return [filled(item) if isinstance(item, dict) else item for item in one]
    return filled(one) if isinstance(one, dict) else one


def filled(truth, which=0):
    values = {
        key: chosen(allowed, which) if isinstance(allowed, list) else allowed
        for key, allowed in truth.items()
    }
    return {key: value for key, value in values.items() if value is not None}


def right(truth, which=0):
    return [{name: filled(allowed, which) for name, allowed in call.items()} for call in truth]


def required_only(truth):
    return [
        {
            name: filled({key: value for key, value in allowed.items() if "" not in value})
            for name, allowed in call.items()
        }
        for call in truth
    ]


def changed(change):
    "Apply a change to every value"

    def apply(truth):
        return [
            {
                name: {key: change(value) for key, value in arguments.items()}
                for name, arguments in call.items()
            }
            for call in right(truth)
        ]

    return apply


def first(change):
    "Apply a change to the arguments of the first call"

    def apply(truth):
        calls = copy.deepcopy(right(truth))
        [name] = calls[0]
        calls[0] = {name: change(calls[0][name])}
        return calls

    return apply


def louder(value):
    if isinstance(value, str):
        return value.upper().replace(" ", "  ") + "."
    if isinstance(value, list):
        return [louder(item) for item in value]
    if isinstance(value, dict):
        return {key: louder(item) for key, item in value.items()}
    return value


def other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return value + " x"
    if isinstance(value, list) and value:
        return [*value, *value]
    return {**value, "x": 1} if isinstance(value, dict) else "x"


ANSWERS = {
    "right": right,
    "right, another allowed value": lambda truth: right(truth, 1),
    "optional ones left out": required_only,
    "another spelling": changed(louder),
    "another value": changed(other),
    "numbers as text": changed(
        lambda value: str(value) if isinstance(value, (int, float)) else value
    ),
    "integers as floats": changed(lambda value: float(value) if type(value) is int else value),
    "integers as booleans": changed(lambda value: bool(value) if type(value) is int else value),
    "lists reversed": changed(lambda value: value[::-1] if isinstance(value, list) else value),
    "lists emptied": changed(lambda value: [] if isinstance(value, list) else value),
    "objects without a key": changed(
        lambda value: dict(list(value.items())[1:]) if isinstance(value, dict) else value
    ),
    "nulls": changed(lambda value: None),
    "texts for everything": changed(lambda value: "text"),
    "an argument too few": first(lambda arguments: dict(list(arguments.items())[1:])),
    "an argument too many": first(lambda arguments: arguments | {"unheard_of": 1}),
    "no arguments": first(lambda arguments: {}),
    "another tool": lambda truth: [{"unheard_of": {}}] + right(truth)[1:],
    "a call too many": lambda truth: right(truth) + right(truth)[:1],
    "a call too few": lambda truth: right(truth)[1:],
    "no call": lambda truth: [],
    "another order": lambda truth: right(truth)[::-1],
    "the first call twice": lambda truth: right(truth)[:1] * len(truth),
}


@pytest.mark.parametrize("category", CATEGORIES)
def test_bfcl_verdicts_are_those_of_the_leaderboard(checker, category):
    module, data = checker
    entries, truths = (
        read(data / f"BFCL_v4_{category}.json"),
        read(data / "possible_answer" / f"BFCL_v4_{category}.json"),
    )
    assert [entry["id"] for entry in entries] == [truth["id"] for truth in truths]
    verdicts, differences, crashes = Counter(), [], Counter()
    for entry, truth in zip(entries, truths):
        for kind, answer in ANSWERS.items():
            calls, expected = answer(truth["ground_truth"]), truth["ground_truth"]
            try:
                theirs = module.ast_checker(
                    entry["function"],
                    copy.deepcopy(calls),
                    expected,
                    module.Language.PYTHON,
                    category,
                    "any",
                )
            except (AttributeError, TypeError, KeyError) as error:
                crashes[kind, type(error).__name__] += 1
                continue
            ours = bfcl_verdict(
                [ToolCall(name, arguments) for call in calls for name, arguments in call.items()],
                expected,
                entry["function"],
                category,
            )
            verdicts[kind, not ours] += 1
            if ours != ("" if theirs["valid"] else theirs["error_type"]):
                differences.append((entry["id"], kind, ours, theirs))
    assert not differences, (len(differences), differences[:3])
    assert (
        verdicts["right", True] > 0.9 * len(entries)
        and sum(verdicts[kind, False] > 0 for kind in ANSWERS) >= 10
    ), verdicts
    assert sum(crashes.values()) <= 0.02 * sum(verdicts.values()), crashes
