"Schemas and calls made to take for ever: each is answered or refused within two seconds"

import json
import os
import select
import subprocess
import sys
import time
from itertools import product

import pytest

from toolcall.conversation import ToolCall
from toolcall.schemas import argument_errors

SECONDS = 2
DRAFT_2020 = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
DRAFT_2019 = {"$schema": "https://json-schema.org/draft/2019-09/schema"}


def definitions(levels: int, make, last: dict | None = None, key: str = "$defs") -> dict:
    "Definitions d0, d1, …; `make` gets the reference to the next"
    chain = {f"d{n}": make({"$ref": f"#/{key}/d{n + 1}"}) for n in range(levels)}
    chain[f"d{levels}"] = {"type": "integer"} if last is None else last
    return {key: chain, "properties": {"x": {"$ref": f"#/{key}/d0"}}}


def nested(levels: int, make, innermost):
    for _ in range(levels):
        innermost = make(innermost)
    return innermost


def prop(schema: dict) -> dict:
    return {"properties": {"x": schema}}


def doubled(keyword: str):
    return lambda ref: {keyword: [ref, ref]}


def cases() -> dict:
    "Name to a function that makes a schema and arguments"
    made: dict = {}
    for keyword, value in product(("allOf", "anyOf", "oneOf"), (1, "wrong")):
        for levels in (20, 40):
            made[f"{keyword} doubled {levels} times, {value}"] = (
                lambda k=keyword, v=value, n=levels: (
                    definitions(n, doubled(k)),
                    {"x": v},
                )
            )
        made[f"{keyword} nested 120 deep, {value}"] = lambda k=keyword, v=value: (
            prop(nested(120, lambda s: {k: [s]}, {"type": "integer"})),
            {"x": v},
        )
        made[f"{keyword} doubles at each level, {value}"] = lambda k=keyword, v=value: (
            {"properties": {"x": {k: [{"$ref": "#"}, {"$ref": "#"}]}}},
            nested(60, lambda inner: {"x": inner}, {"x": v}),
        )
    made |= {
        "not of not 60 times": lambda: (
            prop(nested(60, lambda s: {"not": s}, {"type": "integer"})),
            {"x": 1},
        ),
        "not beside not": lambda: (
            definitions(40, lambda ref: {"not": ref, "allOf": [ref]}),
            {"x": 1},
        ),
        "if, then and else doubled": lambda: (
            definitions(40, lambda ref: {"if": ref, "then": ref, "else": ref}),
            {"x": "wrong"},
        ),
        "dependencies doubled": lambda: (
            definitions(30, lambda ref: {"dependencies": {"a": ref, "b": ref}}),
            {"x": {"a": 1, "b": 2}},
        ),
        "dependentSchemas doubled": lambda: (
            DRAFT_2020 | definitions(30, lambda ref: {"dependentSchemas": {"a": ref, "b": ref}}),
            {"x": {"a": 1, "b": 2}},
        ),
        "definitions doubled by anchors": lambda: (
            DRAFT_2020
            | prop({"$ref": "#a0"})
            | {
                "$defs": {
                    f"a{n}": {"$anchor": f"a{n}", "allOf": [{"$ref": f"#a{n + 1}"}] * 2}
                    for n in range(40)
                }
                | {"a40": {"$anchor": "a40", "type": "integer"}}
            },
            {"x": 1},
        ),
        "definitions doubled by dynamic anchors": lambda: (
            DRAFT_2020
            | prop({"$dynamicRef": "#a0"})
            | {
                "$defs": {
                    f"a{n}": {
                        "$dynamicAnchor": f"a{n}",
                        "allOf": [{"$dynamicRef": f"#a{n + 1}"}] * 2,
                    }
                    for n in range(40)
                }
                | {"a40": {"$dynamicAnchor": "a40", "type": "integer"}}
            },
            {"x": 1},
        ),
        "definitions doubled by identifiers": lambda: (
            prop({"$ref": "http://a.example/0"})
            | {
                "definitions": {
                    f"a{n}": {
                        "$id": f"http://a.example/{n}",
                        "allOf": [{"$ref": f"{n + 1}"}, {"$ref": f"http://a.example/{n + 1}"}],
                    }
                    for n in range(40)
                }
                | {"last": {"$id": "http://a.example/40", "type": "integer"}}
            },
            {"x": 1},
        ),
        "definitions doubled by draft-4 identifiers": lambda: (
            {"$schema": "http://json-schema.org/draft-04/schema#"}
            | prop({"$ref": "http://a.example/0"})
            | {
                "definitions": {
                    f"a{n}": {"id": f"http://a.example/{n}", "allOf": [{"$ref": f"{n + 1}"}] * 2}
                    for n in range(40)
                }
                | {"last": {"id": "http://a.example/40", "type": "integer"}}
            },
            {"x": 1},
        ),
        "recursiveRef doubled": lambda: (
            DRAFT_2019
            | {
                "$recursiveAnchor": True,
                "properties": {"x": {"allOf": [{"$recursiveRef": "#"}] * 2}},
            },
            nested(60, lambda inner: {"x": inner}, {}),
        ),
        "reference to itself": lambda: ({"$ref": "#"}, {"x": 1}),
        "twice a reference to itself": lambda: ({"allOf": [{"$ref": "#"}] * 2}, {"x": 1}),
        "ten definitions that refer to one another": lambda: (
            prop({"$ref": "#/$defs/d0"})
            | {
                "$defs": {
                    f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{m}"} for m in range(12) if m != n]}
                    for n in range(12)
                }
            },
            {"x": 1},
        ),
        "a chain of 1,000 references": lambda: (definitions(1000, lambda ref: ref), {"x": 1}),
        "a chain of 10,000 references": lambda: (definitions(10_000, lambda ref: ref), {"x": 1}),
        "a chain of 100,000 references": lambda: (definitions(100_000, lambda ref: ref), {"x": 1}),
        "a chain of 10,000 properties": lambda: (
            definitions(10_000, lambda ref: {"properties": {"a": ref}}),
            {"x": nested(150, lambda inner: {"a": inner}, 1)},
        ),
        "300 schemas inside one another": lambda: (
            nested(300, lambda s: {"properties": {"x": s}}, {"type": "integer"}),
            nested(150, lambda inner: {"x": inner}, 1),
        ),
        "5,000 schemas inside one another": lambda: (
            nested(5000, lambda s: {"properties": {"x": s}}, {}),
            {"x": 1},
        ),
        "a deep value in a recursive schema": lambda: (
            prop({"$ref": "#"}),
            nested(3000, lambda inner: {"x": inner}, {}),
        ),
        "chains at each level of a deep value": lambda: (
            prop(nested(45, lambda s: {"allOf": [s]}, {"$ref": "#"})),
            nested(190, lambda inner: {"x": inner}, {}),
        ),
        "a wide value in a recursive schema": lambda: (
            {"items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}},
            {"x": [[[[1] * 10] * 10] * 10] * 10},
        ),
        "a wide value in 20 recursive choices": lambda: (
            {"additionalProperties": {"oneOf": [{"$ref": "#"}] * 20}},
            nested(8, lambda inner: {"a": inner, "b": inner}, {}),
        ),
        "unevaluatedProperties nested 20 deep": lambda: (
            DRAFT_2020
            | prop(
                nested(
                    20,
                    lambda s: {"unevaluatedProperties": {"type": "string"}, "allOf": [s]},
                    {"properties": {f"a{n}": {} for n in range(20)}},
                )
            ),
            {"x": {f"a{n}": "s" for n in range(25)}},
        ),
        "unevaluatedProperties doubled": lambda: (
            DRAFT_2020
            | definitions(12, lambda ref: {"unevaluatedProperties": {}, "allOf": [ref, ref]}, {}),
            {"x": {f"a{n}": "s" for n in range(25)}},
        ),
        "unevaluatedItems nested 30 deep": lambda: (
            DRAFT_2020
            | prop(
                nested(30, lambda s: {"unevaluatedItems": {"type": "integer"}, "allOf": [s]}, {})
            ),
            {"x": [1] * 50},
        ),
        "uniqueItems of 50,000 objects": lambda: (
            prop({"uniqueItems": True}),
            {"x": [{"a": n} for n in range(50_000)]},
        ),
        "uniqueItems of equal long items": lambda: (
            prop({"uniqueItems": True}),
            {"x": [[1] * 20_000 + [n] for n in range(15)]},
        ),
        "uniqueItems at each level": lambda: (
            {"uniqueItems": True, "items": {"$ref": "#"}, "additionalProperties": {"$ref": "#"}},
            {"x": nested(120, lambda inner: [inner, 1, 2], list(range(1000)))},
        ),
        "an enum of 30,000 objects": lambda: (
            prop({"enum": [{"a": n} for n in range(30_000)]}),
            {"x": 5},
        ),
        "10,000 objects for 1,000 items": lambda: (
            prop({"items": {"enum": [{"a": n} for n in range(10_000)]}}),
            {"x": [{"b": 1}] * 1000},
        ),
        "an enum of 20,000 texts for 2,000 items": lambda: (
            prop({"items": {"enum": [f"value {n}" for n in range(20_000)]}}),
            {"x": ["b"] * 2000},
        ),
        "20,000 required names": lambda: (
            prop({"required": [f"k{n}" for n in range(20_000)]}),
            {"x": {f"z{n}": 1 for n in range(1000)}},
        ),
        "choices of required names for 1,000 items": lambda: (
            prop(
                {
                    "items": {
                        "anyOf": [
                            {"required": [f"k{n}_{m}" for m in range(10)]} for n in range(100)
                        ]
                    }
                }
            ),
            {"x": [{"a": 1}] * 1000},
        ),
        "100,000 wrong items": lambda: (prop({"items": {"type": "string"}}), {"x": [1] * 100_000}),
        "10,000 large wrong items": lambda: (
            prop({"items": {"type": "string"}}),
            {"x": [{"a": [1] * 100}] * 10_000},
        ),
        "contains in contains in contains": lambda: (
            prop(nested(4, lambda s: {"contains": s}, {"type": "null"})),
            {"x": [[[[1] * 20] * 20] * 20] * 20},
        ),
        "20,000 properties": lambda: (
            {"properties": {f"p{n}": {"type": "string"} for n in range(20_000)}},
            {"p5": 1},
        ),
        "100,000 properties": lambda: (
            {"properties": {f"p{n}": {"type": "string"} for n in range(100_000)}},
            {"p5": 1},
        ),
        "a schema of 10 MB": lambda: (prop({"description": "x" * 10_000_000}), {"x": 1}),
        "1,000 patternProperties for 1,000 keys": lambda: (
            {"patternProperties": {f"k{n}.*z": {"type": "null"} for n in range(1000)}},
            {f"k{n}": 1 for n in range(1000)},
        ),
        "propertyNames doubled for 1,000 keys": lambda: (
            definitions(10, doubled("anyOf"), {"pattern": "^a+b$"})
            | {"propertyNames": {"$ref": "#/$defs/d0"}},
            {"a" * 30 + str(n): 1 for n in range(1000)},
        ),
        "multipleOf of the smallest number": lambda: (
            prop({"items": {"multipleOf": 5e-324}}),
            {"x": [10**4000] * 1000},
        ),
        "multipleOf of a tiny number": lambda: (
            prop({"items": {"multipleOf": 1e-300}}),
            {"x": [1e300] * 20_000},
        ),
        "a number of 4,000 digits": lambda: (prop({"maximum": 10**4000}), {"x": 10**4000 + 1}),
        "a text of a million characters": lambda: (
            {
                "additionalProperties": {
                    "allOf": [{"minLength": n, "maxLength": 10**7} for n in range(100)]
                }
            },
            {"x": "é" * 1_000_000},
        ),
        "a pattern of one property, and long texts of another": lambda: (
            {"properties": {"y": {"pattern": r"(?=a)(a+)+b"}}},
            {"x": ["a" * 2000 + "!"] * 5000},
        ),
        "a pattern of one property, and a long text of another": lambda: (
            {"properties": {"y": {"pattern": r"^(?:(?=[ab]*c)|a)*$"}}},
            {"x": "a" * 3_000_000},
        ),
        "patterns that look ahead, and many keys": lambda: (
            {"patternProperties": {f"(?=a)(a+)+{n}b": {} for n in range(100)}},
            {"a" * 30 + str(n): 1 for n in range(10_000)},
        ),
        "formats of long texts": lambda: (
            {
                "properties": {
                    name: {"format": name}
                    for name in (
                        "email",
                        "uri",
                        "date-time",
                        "ipv6",
                        "hostname",
                        "regex",
                        "duration",
                    )
                }
            },
            {
                name: "(a:1.@" * 20_000
                for name in ("email", "uri", "date-time", "ipv6", "hostname", "regex", "duration")
            },
        ),
    }
    patterns = {
        "^(a+)+$": 60_000,
        "^(a|a)*$": 60_000,
        "^(a?){30}a{30}$": 30,
        "^a*a*a*a*a*a*$": 60_000,
        "(x(a*)y)*$": 60_000,
        r"^(?=a)(a+)+(b)\2$": 60,
        r"(?=a)(a+)+b": 30_000,
        r"^(?:(?=[ab]*c)|a)*$": 100_000,
        r"^(?:(?=[ab]*c)|a)*b$": 1_000,
        r"(?:a(?![ab]*c))*$b": 20_000,
        r"^(a+)+\1b": 20_000,
        "(a{1000}){1000}": 10,
        "(a{300}){300}": 100_000,
        "([(]a{300}|a{300}){300}": 100_000,
        "([](]?a{300}){300}": 100_000,
        "((a{30}){30}){30}": 100_000,
        r"\w{1000}" * 20: 1000,
        r"\p{L}" * 3000: 1000,
        "(a?){10000}$": 10_000,
        "(" * 3000 + "a" + ")" * 3000: 10,
        "(" * 100_000: 10,
        "|".join(f"word{n}" for n in range(20_000)): 1000,
        ".*.*.*=.*": 200_000,
        "(.*)*,": 100_000,
        "^(.{1,100}){1,100}$": 50_000,
        "^" + "(?=.*a)" * 2000: 10,
    }
    for pattern, length in patterns.items():
        made[f"pattern {pattern[:40]} of {len(pattern)}"] = lambda p=pattern, n=length: (
            prop({"type": "string", "pattern": p}),
            {"x": "a" * n + "!"},
        )
    return made


CASES = cases()


def answer(name: str) -> tuple[float, list[str]]:
    schema, arguments = CASES[name]()
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    start = time.process_time()  # the work, however busy the machine is
    errors = argument_errors(ToolCall("f", arguments), tools)
    return time.process_time() - start, [error[:500] for error in errors]


def serve() -> None:
    "Answer one case a line; a process of its own, because native code can't be interrupted"
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


@pytest.fixture(scope="module")
def ask():
    "Asks a process about a case, and starts another process after one that gave no answer"
    workers: list[subprocess.Popen] = []

    def answer_of(name: str):
        if not workers or workers[-1].poll() is not None:
            command = [sys.executable, __file__]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            workers.append(subprocess.Popen(command, env=environment, **pipes))
            assert ask_within(workers[-1], next(iter(CASES)), 60)
        return ask_within(workers[-1], name, 60)

    def ask_within(worker, name, seconds):
        worker.stdin.write(json.dumps(name) + "\n")
        worker.stdin.flush()
        ready, _, _ = select.select([worker.stdout], [], [], seconds)
        line = worker.stdout.readline() if ready else ""
        if not line:
            worker.kill()
        return json.loads(line) if line else None

    yield answer_of
    for worker in workers:
        worker.kill()
        worker.communicate()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.attack("pathological schema")
def test_every_schema_is_answered_in_time(name, ask):
    answered = ask(name)
    assert answered, "no answer within a minute, or the process died"
    seconds, errors = answered
    assert seconds < SECONDS and len(errors) <= 1, (seconds, errors)


if __name__ == "__main__":
    serve()
