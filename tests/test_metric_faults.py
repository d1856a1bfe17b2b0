"Faults of other evaluations, one test each, and what must hold for any calls"

import json
import subprocess
import sys
from itertools import permutations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolcall.chatml import Example, parse_calls
from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.evaluate import (
    DEFINITIONS,
    EvaluateError,
    compare,
    evaluate,
    load_evaluation,
    match_calls,
)
from toolcall.evaluate.breakdowns import NO_ANSWER, confusion, error_counts
from toolcall.evaluate.metrics import FEWER_IS_BETTER
from toolcall.generate import Output
from toolcall.report import Report, last_messages
from toolcall.report.files import to_json
from toolcall.text import dumps
from toolcall.turn import Parsed

TOOLS = [
    make_tool(
        "weather",
        parameters={
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    ),
    make_tool("alarm", parameters={"type": "object", "properties": {"time": {"type": "string"}}}),
]
ROME, OSLO, ALARM, DELETE = (
    ToolCall("weather", {"city": "Rome"}),
    ToolCall("weather", {"city": "Oslo"}),
    ToolCall("alarm", {"time": "7"}),
    ToolCall("delete_account", {"id": 1}),
)


def says(*calls):
    return (
        "".join(
            f"<tool_call>\n{dumps({'name': call.name, 'arguments': call.arguments})}\n</tool_call>"
            for call in calls
        )
        or "Hello."
    )


def turn(expected, id="c"):
    answer = {"role": "assistant", "content": "" if expected else "Hello."} | (
        {"tool_calls": [call.to_message() for call in expected]} if expected else {}
    )
    return Example([1], [2], Conversation(id, [{"role": "user", "content": "?"}, answer], TOOLS), 1)


def score(*cases, **options):
    "Evaluate pairs of expected calls and what was written, calls or text; a conversation each"
    texts = [wrote if isinstance(wrote, str) else says(*wrote) for _, wrote in cases]
    return evaluate(
        [turn(expected, f"c{number}") for number, (expected, _) in enumerate(cases)],
        [Output(text, True, 1, 1, 0.1) for text in texts],
        parse=parse_calls,
        **options,
    )


def value(name, *cases, **options):
    return score(*cases, **options).metrics[name].value


def test_fault_1_greedy_pairing_depends_on_the_order_of_calls():
    near = ToolCall("weather", {"city": "Rome", "days": 1})
    results = {
        tuple(metric.value for metric in score(([ROME, near, OSLO], order)).metrics.values())
        for order in permutations([near, ROME, ALARM])
    }
    assert len(results) == 1


def test_fault_2_extra_calls_cost_nothing():
    assert value("exact_match", ([ROME], [ROME, DELETE])) == 0
    assert (
        value("tool_precision", ([ROME], [ROME, DELETE]))
        == value("call_precision", ([ROME], [ROME, DELETE]))
        == 0.5
    )
    assert value("hallucinated_tool_rate", ([ROME], [ROME, DELETE])) == 0.5


def test_fault_3_pairing_by_position():
    swapped = score(([ROME, ALARM], [ALARM, ROME]))
    assert [
        swapped.metrics[name].value
        for name in ("exact_match", "tool_selection_accuracy", "argument_accuracy", "call_f1")
    ] == [1, 1, 1, 1]


def test_fault_4_arguments_encoded_twice_are_malformed():
    body = json.dumps({"name": "weather", "arguments": json.dumps(ROME.arguments)})
    twice = f"<tool_call>\n{body}\n</tool_call>"
    assert value("exact_match", ([ROME], twice)) == 0 and value("parse_rate", ([ROME], twice)) == 0


def test_fault_5_only_predicted_keys_are_compared_or_one_prediction_satisfies_several():
    assert (
        value("exact_match", ([ROME], [ToolCall("weather", {})]))
        == value("argument_accuracy", ([ROME], [ToolCall("weather", {})]))
        == 0
    )
    assert (
        value("call_recall", ([ROME, ROME], [ROME]))
        == value("tool_recall", ([ROME, ROME], [ROME]))
        == 0.5
    )


def test_fault_6_garbage_is_credited_as_abstention():
    garbage = score(([], "<tool_call>{oops"))
    assert [
        garbage.metrics[name].value
        for name in ("exact_match", "irrelevance_accuracy", "parse_rate")
    ] == [0, 0, 0]
    assert value("exact_match", ([], "<tool_call>{oops"), mode="bfcl") == 1  # there, and only there


def test_fault_7_only_turns_with_a_call_are_scored():
    eager = score(([ROME], [ROME]), ([], [ROME]), ([], [ALARM]))
    assert eager.metrics["exact_match"].n == 3 and eager.metrics["exact_match"].value == 1 / 3
    assert eager.metrics["irrelevance_accuracy"].value == 0 and eager.never_call.value == 2 / 3


def test_fault_8_trained_rows_and_few_rows_without_an_interval(tmp_path):
    from toolcall.pipeline import make_config, prepare
    from toolcall.samples import sample_log

    splits = prepare(
        make_config({"log_path": str(sample_log()), "output_dir": str(tmp_path)})
    ).splits
    seen = {conversation.content_hash for conversation in (*splits.train, *splits.validation)}
    assert splits.test and not seen & {conversation.content_hash for conversation in splits.test}
    few = score(*[([ROME], [ROME])] * 5)
    assert few.metrics["exact_match"].value == 1 and few.metrics["exact_match"].low < 0.6
    assert all(
        metric.low is not None and metric.high is not None
        for metric in few.metrics.values()
        if metric.n
    )
    text = Report(
        few, few, last_messages([turn([ROME], f"c{number}") for number in range(5)])
    ).to_text()
    assert all(
        "n=" in line and "[" in line or line.rstrip().endswith("–")
        for line in text.splitlines()[1 : len(DEFINITIONS) + 2]
    ), text
    assert compare(score(*[([ROME], [OSLO])] * 5), few).verdict == "unclear"


def test_fault_9_a_cut_call_is_named_as_cut():
    cut = evaluate([turn([ROME])], [Output(says(ROME)[:30], False, 1, 64, 0.1)], parse=parse_calls)
    assert (
        cut.cut == 1 and cut.metrics["cut_rate"].value == 1 and cut.metrics["parse_rate"].value == 0
    )
    from toolcall.evaluate.scores import error_kind

    assert error_kind(cut.scores[0]) == "cut"


def test_fault_10_likeness_of_text_as_quality():
    assert not [
        name
        for name in DEFINITIONS
        if any(word in name for word in ("rouge", "bleu", "token", "perplexity", "similarity"))
    ]
    almost = ToolCall("weather", {"city": "Rom"})
    assert (
        value("exact_match", ([ROME], [almost]))
        == value("argument_accuracy", ([ROME], [almost]))
        == 0
    )


@pytest.mark.attack("server")
@pytest.mark.parametrize("mode", ["strict", "normalized", "bfcl"])
@pytest.mark.parametrize("parsed", [None, Parsed("no_answer", reason="content_filter: no")])
def test_fault_11_a_prompt_that_the_server_refused_is_never_right(mode, parsed, tmp_path):
    refused = Output("", True, 0, 0, 0.1, parsed=parsed, error="content_filter")
    turns = [turn([], "a"), turn([ROME], "b"), turn([ROME, OSLO], "c")]
    failed = evaluate(turns, [refused] * 3, parse=parse_calls, mode=mode, timed=[refused])
    values = {name: metric.value for name, metric in failed.metrics.items()}
    assert {value for value in values.values() if value is not None} == {0}
    needed = {"exact_match", "parse_rate", "irrelevance_accuracy", "call_decision_precision"}
    assert all(failed.metrics[name].n for name in needed)
    assert failed.no_answer == {"content_filter": 3} and failed.latency == {}
    assert error_counts(failed.scores) == {"no_answer": 3}
    assert {came for _, came in confusion(failed.scores)} == {NO_ANSWER}
    failed.save(tmp_path / "evaluation.json")
    assert load_evaluation(tmp_path / "evaluation.json").no_answer == failed.no_answer
    report = Report(failed, failed, last_messages(turns))
    assert "the server refused the prompt" in report.to_text()
    assert "content_filter 3" in report.to_text()
    assert to_json(report)["tuned"]["no_answer"] == failed.no_answer


def test_outputs_and_turns_must_fit():
    with pytest.raises(EvaluateError, match="1 turns and 0 outputs"):
        evaluate([turn([ROME])], [], parse=parse_calls)


def test_a_metric_is_found_under_its_other_name():
    metrics = score(([ROME], [ROME]), ([OSLO], "Hello.")).metrics
    for other, name in [
        ("argument_recall", "argument_accuracy"),
        ("relevance_accuracy", "call_decision_recall"),
    ]:
        assert metrics[other] is metrics[name] and other in DEFINITIONS[name]
        assert DEFINITIONS[other] == DEFINITIONS[name] and other not in list(metrics)
    assert len(metrics) == len(DEFINITIONS) >= 27
    with pytest.raises(KeyError, match="rouge"):
        metrics["rouge"]


IMPORT_ALL = """
import importlib, pkgutil, sys
import toolcall.evaluate, toolcall.report
for package in (toolcall.evaluate, toolcall.report):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
    assert all(getattr(package, name) for name in package.__all__)
assert "toolcall.evaluate.chatml_rows" in sys.modules and "toolcall.report.page" in sys.modules
assert not {"torch", "transformers"} & set(sys.modules)
"""


def test_evaluate_and_report_need_no_torch():
    subprocess.run([sys.executable, "-c", IMPORT_ALL], check=True)


# what must hold for any calls

call = st.builds(
    ToolCall,
    st.sampled_from(["weather", "alarm", "other"]),
    st.dictionaries(
        st.sampled_from(["city", "time", "x"]),
        st.sampled_from([0, 1, "a", "A", None, True, [1], {"b": 1}]),
        max_size=3,
    ),
)
calls = st.lists(call, max_size=4)


@given(calls, calls, st.randoms(), st.sampled_from(["strict", "normalized"]))
@settings(deadline=None, max_examples=200)
def test_the_order_of_parallel_calls_never_matters(expected, predicted, random, mode):
    shuffled = [random.sample(made, len(made)) for made in (expected, predicted)]
    first, second = (
        score((expected, predicted), mode=mode).metrics,
        score(tuple(shuffled), mode=mode).metrics,
    )
    assert {name: metric.value for name, metric in first.items()} == {
        name: metric.value for name, metric in second.items()
    }


@given(calls, calls)
@example(
    [ToolCall("weather", {"city": 0}), ToolCall("alarm", {})],
    [ToolCall("weather", {}), ToolCall("weather", {"city": 1})],
)
@settings(deadline=None, max_examples=200)
def test_calls_that_nobody_expected_never_help(expected, predicted):
    before, after = (
        score((expected, predicted)).metrics,
        score((expected, [*predicted, DELETE])).metrics,
    )
    ignored = (
        {
            "call_decision_recall",
            "call_decision_precision",
            "call_decision_f1",
            "tool_selection_accuracy",
        }
        if not predicted
        else set()
    )  # one more call where none was made is a decision to call
    for name in DEFINITIONS:
        if name not in ignored and before[name].value is not None and after[name].value is not None:
            worse = (
                after[name].value >= before[name].value
                if name in FEWER_IS_BETTER
                else after[name].value <= before[name].value
            )
            assert worse, (name, before[name].value, after[name].value)


@given(
    st.lists(
        st.tuples(calls, st.one_of(calls, st.sampled_from(["<tool_call>oops", "Hi.", ""]))),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["strict", "normalized", "bfcl"]),
)
@settings(deadline=None, max_examples=200)
def test_scores_lie_between_0_and_1_and_intervals_hold_them(cases, mode):
    for name, metric in score(*cases, mode=mode).metrics.items():
        assert (
            metric.value is None
            or 0 <= metric.low <= metric.value + 1e-9
            and metric.value - 1e-9 <= metric.high <= 1
        ), (name, metric)


@given(st.lists(calls, min_size=1, max_size=4), st.sampled_from(["strict", "normalized"]))
@settings(deadline=None, max_examples=200)
def test_the_perfect_prediction_scores_1(expected, mode):
    found = score(*[(made, made) for made in expected], mode=mode).metrics
    left_out = {
        *FEWER_IS_BETTER,
        "partial_match_rate",
        "schema_valid_rate",
    }  # random calls needn't satisfy a schema
    assert {
        metric.value for name, metric in found.items() if name not in left_out and metric.n
    } <= {1.0}


@given(st.lists(call, max_size=6), st.lists(call, max_size=6))
@settings(deadline=None, max_examples=100)
def test_matching_equals_brute_force(expected, predicted):
    def worth(first, second):
        [pair] = match_calls([first], [second]) or [None]
        every = pair and len(pair.right) + len(pair.wrong) + len(pair.extra)
        return 0 if pair is None else 1 + (1 if pair.exact else len(pair.right) / max(1, every))

    table = [[worth(e, p) for p in predicted] for e in expected]
    few, many = sorted((len(expected), len(predicted)))
    flat = table if len(expected) == few else [list(column) for column in zip(*table)]
    best = (
        max(
            sum(flat[row][column] for row, column in enumerate(order))
            for order in permutations(range(many), few)
        )
        if few
        else 0
    )
    found = sum(worth(pair.expected, pair.predicted) for pair in match_calls(expected, predicted))
    assert abs(found - best) < 1e-9
