"Which values are equal, which rules apply, and what is no decision not to call"

import time
import warnings
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall.chatml.syntaxes import SYNTAXES
from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.evaluate import EvaluateError, evaluate, match_calls
from toolcall.evaluate.dates import same_date
from toolcall.evaluate.rules import check_rules, rule_problems
from toolcall.evaluate.scores import error_kind
from toolcall.evaluate.words import only_words
from toolcall.generate import Output
from toolcall.parsing import parse_calls
from toolcall.turn import Example, Parsed

ARGUMENTS = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "pay": {"type": "object", "properties": {"amount": {"type": "number"}}},
        "stops": {
            "type": "array",
            "items": {"$ref": "#/$defs/stop"},
        },
    },
    "required": ["city"],
    "$defs": {
        "stop": {
            "allOf": [
                {"properties": {"name": {"type": "string"}, "day": {"type": "string"}}},
                {"properties": {"nights": {"type": "integer", "default": 1}}},
            ]
        }
    },
}
BOOK = make_tool("book", parameters=ARGUMENTS)
ROME = ToolCall("book", {"city": "Rome"})


def turn(content="Hello.", *calls, tools=(BOOK,)):
    answer = {"role": "assistant", "content": content}
    if calls:
        answer["tool_calls"] = [call.to_message() for call in calls]
    messages = [{"role": "user", "content": "?"}, answer]
    return Example([1], [2], Conversation("c", messages, list(tools)), 1)


def score(text, *expected, logged="Hello.", parse=parse_calls, parsed=None, **options):
    output = Output(text, True, 1, 1, 0.1, parsed=parsed)
    return evaluate([turn(logged, *expected)], [output], parse=parse, **options).scores[0]


def exact(expected, predicted, schema=ARGUMENTS, **options):
    tools = [make_tool("book", parameters=schema)]
    calls = [ToolCall("book", expected)], [ToolCall("book", predicted)]
    both = [match_calls(*pair, tools=tools, **options)[0].exact for pair in (calls, calls[::-1])]
    assert both[0] == both[1], "the comparison has two sides"
    return both[0]


# dates

MOMENT = st.datetimes(datetime(1990, 1, 1), datetime(2060, 12, 31)).map(
    lambda day: day.replace(second=0, microsecond=0)
)


def clock(hour):
    if hour < 6:
        return f"凌晨{hour or 12}"
    if hour < 12:
        return f"上午{hour}"
    if hour == 12:
        return "中午12"
    return f"{'下午' if hour < 18 else '晚上'}{hour - 12}"


def spellings(day):
    minutes = f"{day.minute}分" if day.minute else ""
    wide = str.maketrans("0123456789:", "０１２３４５６７８９：")
    part = "午前" if day.hour < 12 else "午後"
    korean = "오전" if day.hour < 12 else "오후"
    yield f"{day.year}年{day.month}月{day.day}日{clock(day.hour)}点{minutes}"
    yield f"{day:%Y年%m月%d日} {day:%H:%M}".translate(wide)
    yield f"{day.year}년 {day.month}월 {day.day}일 {day.hour}시 {day.minute}분"
    yield f"{day:%B} {day.day}, {day.year} {day:%I:%M %p}"
    if day.hour % 12:
        yield f"{day.year}年{day.month}月{day.day}日{part}{day.hour % 12}時{minutes}"
        yield f"{day.year}년 {day.month}월 {day.day}일 {korean} {day.hour % 12}시 {day.minute}분"


@given(MOMENT, MOMENT)
@settings(deadline=None, max_examples=100)
def test_a_moment_has_many_spellings_and_another_has_others(day, other):
    for text in spellings(day):
        assert same_date(day.isoformat(), text), text
        assert same_date(text, other.isoformat()) == (day == other), text
    assert same_date(f"{day:%Y-%m-%d}", f"{day.year}年{day.month}月{day.day}号")
    assert same_date(f"{day:%Y-%m-%d}", day.isoformat()) == (day.hour == day.minute == 0)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("2024-03-05", "2024-03-05 midnight", True),
        ("2024-03-06", "2024年3月5日晚上12点", True),
        ("2024-03-06T00:00", "2024-03-05T24:00:00", True),
        ("2024-03-05", "二〇二四年三月五日", True),
        ("15:45", "下午三点三刻", True),
        ("14:30", "下午两点半", True),
        ("2024-12-25", "25/12/2024", True),
        ("2024-03-05", "05.03.2024", True),
        ("2024-03-05T10:00:00Z", "2024-03-05T18:00:00+08:00", True),
        ("2024-03-05", "05/03/2024", False),
        ("2024-03-05T10:00:00+08:00", "2024-03-05T10:00:00Z", False),
        ("2024-03-05T12:00", "2024-03-05", False),
        ("10:00 EST", "10:00 PST", False),
        ("06:30", "下午6点30分", False),
        ("18:00", "6.30pm", False),
        ("3月5日", "2024年3月5日", False),
        ("2024-03-05T00:00:00", "2024年3月5日上午12点", False),
        ("2024年3月6日01:00", "2024年3月5日晚上1点", False),
        ("10.5", "10.7", False),
        ("2024-02-30", "2024年2月30日", False),
    ],
)
def test_dates_are_not_guessed(first, second, same):
    assert same_date(first, second) == same_date(second, first) == same


def test_the_format_of_a_schema_is_a_rule_for_dates():
    dated = {
        "properties": {"when": {"format": "date"}, "at": {"properties": {"t": {"format": "time"}}}}
    }
    assert exact({"when": "2024-03-05"}, {"when": "2024-03-05T00:00:00"}, dated)
    assert exact({"at": {"t": "18:30"}}, {"at": {"t": "18:30:00"}}, dated)
    assert not exact({"when": "2024-03-05"}, {"when": "2024-03-06"}, dated)
    assert not exact({"when": "2024-03-05"}, {"when": "2024-03-05T00:00:00"}, {})
    assert not exact({"when": "2024-03-05"}, {"when": "2024-03-05T00:00"}, dated, mode="strict")


# defaults

LANGUAGE = {"properties": {"lang": {"type": "string", "default": "en"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"x": LANGUAGE}},
        {"properties": {"x": {"$ref": "#/$defs/l"}}, "$defs": {"l": LANGUAGE}},
        {"properties": {"x": {"allOf": [{"type": "object"}, LANGUAGE]}}},
        {"properties": {"x": {"anyOf": [LANGUAGE, {"type": "null"}]}}},
        {
            "allOf": [{"$ref": "#/definitions/a"}],
            "definitions": {"a": {"properties": {"x": LANGUAGE}}},
        },
        {"properties": {"x": {"additionalProperties": False} | LANGUAGE}},
    ],
)
def test_defaults_count_at_every_depth(schema):
    assert exact({"x": {}}, {"x": {"lang": "en"}}, schema)
    assert not exact({"x": {}}, {"x": {"lang": "de"}}, schema)
    assert not exact({"x": {}}, {"x": {"lang": "en"}}, schema, mode="strict")
    deep = {"properties": {"o": {"type": "array", "items": {"properties": {"i": schema}}}}}
    deep |= {key: schema[key] for key in ("$defs", "definitions") if key in schema}
    assert exact({"o": [{"i": {"x": {}}}]}, {"o": [{"i": {"x": {"lang": "en"}}}]}, deep)
    required = {"properties": {"x": LANGUAGE | {"required": ["lang"]}}}
    assert not exact({"x": {}}, {"x": {"lang": "en"}}, required)


def test_an_absent_object_is_not_an_empty_one_and_endless_defaults_end():
    assert not exact({}, {"x": {}}, {"properties": {"x": LANGUAGE}})
    endless = {"properties": {name: {"$ref": "#", "default": {}} for name in "abc"}}
    start = time.perf_counter()
    assert exact({"a": {"b": {}}}, {"a": {"b": {}}}, endless)
    assert time.perf_counter() - start < 2


# rules

CALL = {"city": "Rome", "pay": {"amount": 1.0}, "stops": [{"name": "a", "day": "2024-03-05"}]}
NEAR = {"city": "Rome", "pay": {"amount": 1.001}, "stops": [{"name": "b", "day": "2024年3月5日"}]}
FITTING = {"pay.amount": {"tolerance": 0.01}, "book.stops[].day": "date", "stops[].name": "ignore"}


def test_a_rule_reaches_into_objects_and_lists():
    assert exact(CALL, NEAR, rules=FITTING)
    for name in FITTING:
        assert not exact(CALL, NEAR, rules={key: FITTING[key] for key in FITTING if key != name})
    assert not exact(CALL, NEAR, rules={f"cancel.{key}": rule for key, rule in FITTING.items()})
    stops = [{"name": "a"}, {"name": "b"}]
    assert exact({"stops": stops}, {"stops": stops[::-1]}, rules={"stops": "unordered"})
    numbers = {"pay": [1.5, 1.0]}, {"pay": [1.0, 2.0]}
    assert exact(*numbers, {}, rules={"pay": "unordered", "pay[]": {"tolerance": 0.5}})
    assert not exact(*numbers, {}, rules={"pay": "unordered", "pay[]": {"tolerance": 0.4}})


def test_pay_amount_is_a_tools_argument_and_a_member_and_the_tools_own_name_decides():
    rules = {"pay.amount": {"tolerance": 1}, "book.pay.amount": {"tolerance": 0}}
    pay = [ToolCall("pay", {"amount": 1})], [ToolCall("pay", {"amount": 1.5})]
    assert match_calls(*pay, rules=rules)[0].exact
    assert not exact(CALL, CALL | {"pay": {"amount": 1.5}}, rules=rules)


@pytest.mark.parametrize("rule", ["book.citty", "amount", "pay.amont", "stops.name", "cook.city"])
def test_a_rule_that_matches_nothing_is_refused_by_name(rule):
    log = [turn("", ToolCall("book", CALL)).conversation]
    with pytest.raises(
        EvaluateError, match=f"rule {rule} matches no tool and parameter of the log"
    ):
        check_rules({rule: "ignore"}, log)
    with pytest.warns(UserWarning, match=f"{rule} matches no tool and parameter of these turns"):
        score("Hello.", rules={rule: "ignore"})


def test_near_names_kinds_and_rules_that_fit():
    log = [turn("", ToolCall("book", CALL)).conversation]
    [problem] = rule_problems({"pai.amount": "ignore"}, log)
    assert "pay.amount" in problem.partition("near it")[2]
    for unfit in ({"city": {"tolerance": 1}}, {"pay.amount": "date"}, {"city": "unordered"}):
        [name] = unfit
        with pytest.raises(EvaluateError, match=f"rule {name} can't apply"):
            check_rules(unfit, log)
    check_rules(FITTING | {"city": "date", "stops": "unordered", "pay": "ignore"}, log)
    undeclared = turn("", ToolCall("book", CALL | {"note": "x"}), tools=[make_tool("book")])
    check_rules({"note": "ignore", "book.pay.amount": {"tolerance": 1}}, [undeclared.conversation])
    with pytest.raises(EvaluateError, match="unknown rule"):
        exact({}, {}, rules={"pay": {"tolerance": float("inf")}})


def test_a_rule_with_a_typo_stops_a_run_before_training(tmp_path):
    from toolcall.pipeline import make_config, prepare
    from toolcall.samples import sample_log

    options = {"log_path": str(sample_log()), "output_dir": str(tmp_path)}
    with pytest.raises(EvaluateError, match="rule citty matches no tool"):
        prepare(make_config(options | {"evaluation": {"rules": {"citty": "ignore"}}}))


# what is no decision not to call

BODY = '{"name": "book", "arguments": {"city": "Rome"}}'
CALLS = {
    "hermes": f"<tool_call>\n{BODY}\n</tool_call>",
    "function_call": f"<function_call>{BODY}</function_call>",
    "function_xml": "<tool_call>\n<function=book>\n<parameter=city>\nRome\n</parameter>\n"
    "</function>\n</tool_call>",
    "glm": "<tool_call>book\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n</tool_call>",
    "llama": '{"name": "book", "parameters": {"city": "Rome"}}',
    "mistral": f"[TOOL_CALLS][{BODY}]",
    "harmony": '<|channel|>commentary to=functions.book<|message|>{"city": "Rome"}<|call|>',
    "pythonic": '[book(city="Rome")]',
    "python": 'I do it.\n\nbook(city="Rome")',
    "react": 'Thought: a city\nAction: book\nAction Input: {"city": "Rome"}',
    "kimi": '<|tool_call_begin|>functions.book:0<|tool_call_argument_begin|>{"city": "Rome"}',
    "anthropic": '<invoke name="book"><parameter name="city">Rome</parameter></invoke>',
    "fenced": f"Here it is:\n```json\n{BODY}\n```\nDone.",
    "in words": f"I call {BODY} now.",
    "other keys": '{"tool": "functions.book", "tool_input": {"city": "Rome"}}',
    "cut": '{"action": "book", "action_input": {"city": "Ro',
    "fenced Python": "```python\nresult = book(city='Rome')\n```",
    "element": "<book><city>Rome</city></book>",
    "empty": " \n",
    "thought": '<think>book(city="Rome")</think>\n',
}
WORDS = [
    "The book tool books a trip.",
    "book(city) takes a city.",
    'Such data: {"city": "Rome", "pay": {"amount": 1}}',
    '```json\n{"name": "Rome", "country": "Italy"}\n```',
    "```python\nprint('book')\n```",
    '{"name": "book", "description": "books", "parameters": {"type": "object", "properties": {}}}',
    "Models open a call with `[TOOL_CALLS]`.",
    "Action: none is needed, I think.",
    "I read a book (twice).",
]


def test_the_calls_of_every_syntax_are_tried():
    assert SYNTAXES.keys() <= CALLS.keys()
    for name, syntax in SYNTAXES.items():
        assert syntax.parse(CALLS[name], [BOOK]).calls == [ROME], name


@pytest.mark.parametrize("reader", SYNTAXES)
def test_a_call_that_nobody_reads_is_never_right(reader):
    parse = SYNTAXES[reader].parse
    for name, text in CALLS.items():
        restrained, due = score(text, parse=parse), score(text, ROME, parse=parse)
        called = parse(text, [BOOK]).outcome == "call"
        assert not restrained.exact and due.exact == called, (reader, name)
        assert restrained.outcome == due.outcome == ("call" if called else "malformed"), name
        assert called or (restrained.reason and error_kind(restrained) == "malformed"), name


def test_words_stay_words_and_the_log_may_say_the_same():
    for text in WORDS:
        judged = score(text, parse=lambda text, tools: Parsed("no_call", text=text))
        assert judged.exact and judged.outcome == "no_call", (text, judged.reason)
    plain = {name: text for name, text in CALLS.items() if not parse_calls(text).calls}
    for name, text in plain.items():
        if parse_calls(text).outcome == "no_call":
            assert score(text, logged=text).exact and not score(text, logged="Hi.").exact, name
    other = CALLS["other keys"].replace("book", "cook")
    tools = [BOOK, make_tool("cook")]
    judged = only_words(parse_calls(other), tools, logged=[CALLS["other keys"]])
    assert judged.outcome == "malformed", "the log names another tool"


def test_every_engine_is_judged_alike_and_bfcl_keeps_its_rules():
    for text in (CALLS["python"], CALLS["other keys"], ""):
        parsed = Parsed("no_call", text=text)
        assert score(text, parsed=parsed).outcome == score(text).outcome == "malformed"
        official = score(text, mode="bfcl")
        assert official.exact and not score(text, ROME, mode="bfcl").exact
    server = Parsed("no_call", reasoning="Hm.")
    assert score("", parsed=server).reason == "an empty output: neither words nor a call"
    assert score("", logged="").exact, "the log is silent there as well"
    assert score("Hello.", parsed=Parsed("no_call")).exact


def test_numbers_follow():
    texts = ["Hello.", CALLS["function_call"], "", CALLS["fenced"]]
    outputs = [Output(text, True, 1, 1, 0.1) for text in texts]
    result = evaluate([turn()] * 4, outputs, parse=parse_calls)
    names = ("exact_match", "irrelevance_accuracy", "parse_rate")
    assert {result.metrics[name].value for name in names} == {0.25}
    assert result.never_call.value == 1


def test_long_outputs_take_no_time():
    shapes = [
        "{",
        '{"a":',
        "book(",
        "book(1\n",
        "<book>",
        " ",
        "-",
        '"',
        "```\nbook(\n",
        "book.",
        "[",
    ]
    start = time.process_time()
    for shape in shapes:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            only_words(Parsed("no_call", text=shape * 20_000 + "book"), [BOOK])
    assert time.process_time() - start < 8
