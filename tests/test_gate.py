"The gate that the page of configurations shows, passed, failed and undecided"

import ast
import json

import pytest
from conftest import ROOT

from toolcall.conversation import Conversation, ToolCall
from toolcall.evaluate.evaluation import evaluate
from toolcall.evaluate.retention import PROMPTS, Retention, keep
from toolcall.parsing import parse_calls
from toolcall.pipeline.config import make_config
from toolcall.pipeline.exits import gate_code
from toolcall.report.page import Report
from toolcall.turn import Example, Output

PAGE = json.loads((ROOT / "nbs/tutorials/configuration.ipynb").read_text(encoding="utf-8"))
SOURCES = ["".join(cell["source"]) for cell in PAGE["cells"]]
[CELL] = [source for source in SOURCES if source.startswith("gate = {")]
GATE = ast.literal_eval(CELL.split("gate = ")[1].split("\n}")[0] + "\n}")
CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


def evaluation(turns, wrong=(), seconds=0.5):
    "Every other turn needs a call; the turns at these places get the opposite"
    examples, outputs = [], []
    for number in range(turns):
        reply = {"role": "assistant", "content": "" if number % 2 else "Hello."}
        if number % 2:
            reply["tool_calls"] = [ToolCall("f", {}).to_message()]
        one = Conversation(str(number), [{"role": "user", "content": "?"}, reply])
        examples.append(Example([1], [2], one, 1))
        calls = bool(number % 2) != (number in wrong)
        outputs.append(Output(CALL if calls else "Hello.", True, 9, 9, seconds))
    return evaluate(examples, outputs, parse=parse_calls, timed=outputs[:100])


def retention(loss):
    "Odd prompts lose a little more"
    losses = [loss * (1 + number % 2 / 10) for number in range(len(PROMPTS))]
    base = [-0.1] * 9
    kept = (keep(text, "a", base, [-0.1 - one] * 9, 9) for text, one in zip(PROMPTS, losses))
    return Retention(tuple(kept))


CASES = {
    # turns, wrong turns of base and tuned, seconds, loss of a token → condition to answer
    "passed": (400, range(1, 400, 2), range(1, 9, 2), 0.5, 0.01),
    "failed": (400, range(1, 400, 2), range(0, 120, 2), 2.0, 0.2),
    "undecided": (40, range(1, 40, 2), range(1, 2), 0.5, 0.01),
}


@pytest.mark.parametrize("answer", CASES)
def test_readmes_gate(answer):
    turns, base, tuned, seconds, loss = CASES[answer]
    config = make_config({"log_path": "-", "evaluation": {"gate": GATE}})
    settings = {"gate": config.evaluation.gate}
    models = evaluation(turns, set(base)), evaluation(turns, set(tuned), seconds)
    report = Report(*models, {}, settings, retention=retention(loss))
    answers = {check.condition.split()[0]: check.answer for check in report.gate_checks}
    assert list(answers) == list(GATE) and len(GATE) == 4
    if answer == "undecided":
        assert answers.pop("retention") == "passed"
        assert all(check.needed > turns for check in report.gate_checks if check.needed)
    assert set(answers.values()) == {answer}
    assert gate_code(report) == {"passed": 0, "failed": 1, "undecided": 3}[answer]
    assert all(check.reason in report.to_text() for check in report.gate_checks)


def test_two_models_that_fail_alike_are_not_the_same():
    def unanswered():
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Hi."}]
        example = Example([1], [2], Conversation("a", messages), 1)
        return evaluate([example], [Output("", False, 0, 0, 0, error="down")], parse=parse_calls)

    gate = {"irrelevance_accuracy": {"not_below_base": 0.02}}
    report = Report(unanswered(), unanswered(), {}, {"gate": gate})
    assert [check.answer for check in report.gate_checks] == ["undecided"]
