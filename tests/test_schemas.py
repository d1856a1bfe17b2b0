"Arguments against schemas: the verdict is that of the reference, and nothing is opened"

import builtins
import socket

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall.conversation import ToolCall, make_tool
from toolcall.logs import read_logs
from toolcall.samples import sample_log
from toolcall.schemas import argument_errors

NAMES = st.sampled_from(["city", "days", "type", "default", "description"])
NUMBERS = st.one_of(
    st.integers(-3, 3),
    st.integers(2**64 - 2, 2**64 + 2),
    st.sampled_from([-1.0, 0.5, 1.0, 1.5, 2.0**70]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text("ab雪", max_size=3))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(
    ["null", "boolean", "integer", "number", "string", "array", "object", ["string", "null"]]
)
SIZES = st.integers(0, 3)
PATTERNS = st.sampled_from(["^a", "b$", "^(a|b)+$", "[^a]", "雪"])


def keywords(inner: st.SearchStrategy) -> st.SearchStrategy:
    "Schemas whose parts are drawn from `inner`"
    parts = st.lists(inner, min_size=1, max_size=2)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES,
            "enum": st.lists(VALUES, min_size=1, max_size=3, unique_by=repr),
            "const": VALUES,
            "minimum": NUMBERS,
            "exclusiveMaximum": NUMBERS,
            "multipleOf": st.integers(1, 3),
            "minLength": SIZES,
            "maxLength": SIZES,
            "pattern": PATTERNS,
            "minItems": SIZES,
            "maxItems": SIZES,
            "uniqueItems": st.booleans(),
            "items": st.one_of(inner, parts),
            "contains": inner,
            "required": st.lists(NAMES, unique=True, max_size=2),
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "patternProperties": st.dictionaries(PATTERNS, inner, max_size=1),
            "additionalProperties": inner,
            "propertyNames": inner,
            "dependencies": st.dictionaries(NAMES, st.lists(NAMES, unique=True, max_size=2)),
            "anyOf": parts,
            "allOf": parts,
            "oneOf": parts,
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "default": VALUES,
            "title": st.text(max_size=2),
        },
    )


SCHEMAS = st.recursive(st.booleans() | keywords(st.booleans()), keywords, max_leaves=6)


def problems(schema: dict, arguments: dict) -> list[str]:
    return argument_errors(ToolCall("f", arguments), [make_tool("f", parameters=schema)])


@settings(deadline=None, max_examples=400)
@given(keywords(SCHEMAS), st.dictionaries(NAMES, VALUES, max_size=3))
def test_the_verdict_of_the_reference(schema, arguments):
    expected = jsonschema.Draft7Validator(schema).is_valid(arguments)
    assert (problems(schema, arguments) == []) == expected, problems(schema, arguments)


def test_the_schemas_of_logs(real_logs):
    calls = faulty = 0
    for log in (sample_log(), *sorted(real_logs.glob("*.gz"))):
        for conversation in read_logs(log, max_reject=1.0).conversations[:300]:
            schemas = {
                tool["function"]["name"]: tool["function"].get("parameters", {})
                for tool in conversation.tools
            }
            for call in conversation.calls():
                if call.name in schemas:
                    reference = jsonschema.Draft7Validator(
                        schemas[call.name],
                        format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER,
                    )
                    fits = argument_errors(call, conversation.tools) == []
                    assert fits == reference.is_valid(call.arguments), call
                    calls += 1
                    faulty += not fits
    assert calls > 2000 and 0 < faulty < calls


@pytest.mark.parametrize(
    "target", ["http://localhost:1/s.json", "https://h.example/s", "file:///etc/passwd", "s.json"]
)
@pytest.mark.parametrize("place", ["root", "property", "definition", "base"])
def test_a_reference_opens_nothing(target, place, monkeypatch):
    def forbidden(*_, **__):
        raise AssertionError("a schema opened something")

    schema = {
        "root": {"$ref": target},
        "property": {"properties": {"x": {"$ref": target}}},
        "definition": {"definitions": {"x": {"$ref": target}}},
        "base": {"$id": "http://localhost:1/", "properties": {"x": {"$ref": target}}},
    }[place]
    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(builtins, "open", forbidden)
    [problem] = problems(schema, {"x": 1})
    assert problem.startswith("schema of f can't be used: ") and target in problem


def test_a_reference_as_a_value_is_none():
    assert problems({"properties": {"x": {"default": {"$ref": "http://a"}}}}, {"x": 1}) == []
    assert problems({"properties": {"$ref": {"type": "string"}}}, {"$ref": "http://a"}) == []


def test_references_inside_the_document():
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}, "n": {"type": "integer"}}}
    assert problems(tree, {"child": {"child": {"n": 1}}}) == []
    assert problems(tree, {"child": {"child": {"n": ""}}}) == [
        "arguments.child.child.n must be integer"
    ]
    for endless in ({"$ref": "#"}, {"allOf": [{"$ref": "#"}]}):
        assert problems(endless, {"x": 1}) == []


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "(x(a*)y)*$", r"^(?=a)(a+)+(b)\2$"])
def test_no_pattern_runs_without_end(pattern):
    schema = {"properties": {"x": {"type": "string", "pattern": pattern}}}
    assert len(problems(schema, {"x": "a" * 60 + "!"})) <= 1


def test_big_integers_are_exact():
    big = 2**70
    assert problems({"properties": {"n": {"type": "integer", "enum": [big]}}}, {"n": big}) == []
    for keyword in ("maximum", "const"):
        schema = {"properties": {"n": {keyword: big}}}
        assert problems(schema, {"n": big}) == [] and problems(schema, {"n": big + 1})
    assert problems({"properties": {"n": {"multipleOf": 3}}}, {"n": 3 * 10**40}) == []
    assert problems({"properties": {"n": {"multipleOf": 3}}}, {"n": 3 * 10**40 + 1})


@pytest.mark.parametrize(
    "draft, schema, fits",
    [
        ("", {"items": [{"type": "string"}]}, False),  # draft 7
        ("http://nobody.example/draft-99", {"items": [{"type": "string"}]}, False),
        ("http://json-schema.org/draft-04/schema#", {"maximum": 1, "exclusiveMaximum": True}, True),
        (
            "https://json-schema.org/draft/2020-12/schema",
            {"prefixItems": [{"type": "null"}]},
            False,
        ),
        ("http://json-schema.org/draft-07/schema#", {"prefixItems": [{"type": "null"}]}, True),
    ],
)
def test_drafts(draft, schema, fits):
    head = {"$schema": draft} if draft else {}
    assert (problems(head | {"properties": {"x": schema}}, {"x": [1]}) == []) == fits


def test_wrong_annotations_leave_a_schema_useful():
    schema = {"title": 5, "properties": {"title": {"type": "string", "examples": "a, b"}}}
    assert problems(schema | {"description": None}, {"title": "x"}) == []
    assert problems(schema, {"title": 1}) == ["arguments.title must be string"]


def test_deep_and_odd_arguments_are_reported():
    deep: dict = {}
    for _ in range(50_000):
        deep = {"x": deep}
    assert problems({"properties": {"x": {"$ref": "#"}}}, deep) == [
        "arguments are nested too deeply to be checked"
    ]
    [problem] = problems({"properties": {"x": {"pattern": "a"}}}, {"x": "\ud800"})
    assert problem.startswith("arguments can't be checked")
    schema: dict = {}
    for _ in range(900):
        schema = {"properties": {"x": schema}}
    [problem] = problems(schema, {"x": 1})
    assert problem.startswith("schema of f can't be used")
