"Arguments against schemas: the verdict is that of the reference, and nothing is opened"

import builtins
import random
import socket
from functools import partial
from itertools import product
from urllib.parse import quote

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolcall.conversation import ToolCall, make_tool
from toolcall.logs import read_logs
from toolcall.samples import sample_log
from toolcall.schemas import argument_errors, infer_tools

DRAFTS = {
    "": jsonschema.Draft7Validator,
    "http://json-schema.org/draft-04/schema#": jsonschema.Draft4Validator,
    "http://json-schema.org/draft-06/schema#": jsonschema.Draft6Validator,
    "http://json-schema.org/draft-07/schema#": jsonschema.Draft7Validator,
    "https://json-schema.org/draft/2019-09/schema": jsonschema.Draft201909Validator,
    "https://json-schema.org/draft/2020-12/schema": jsonschema.Draft202012Validator,
}
NAMES = ["city", "days", "type", "default", "description"]
DEFINED = ["Foo", "foo", "FOO", "a-b", "a_b", "a.b", "a/b", "a~b", "a~1b", "a%b", "a%25b", "a b"]
DEFINED += [
    "名",
    "定义",
    "ß",
    "ss",
    "é",
    "e\u0301",
    "😀",
    "",
    "0",
    "-1",
    "#",
    '"',
    "$ref",
    "properties",
]
NUMBERS = [*range(-3, 4), *range(2**64 - 2, 2**64 + 3), -1.0, 0.5, 1.0, 1.5, 2.0**70]
TYPES = ["null", "boolean", "integer", "number", "string", "array", "object", ["string", "null"]]
PATTERNS = ["^a", "b$", "^(a|b)+$", "[^a]", "雪", "^(?=.*a)(?!b)"]


class Maker:
    "Makes schemas and values of a draft at random"

    def __init__(self, seed: int):
        self.draw = random.Random(seed)
        self.uri = self.draw.choice(list(DRAFTS))
        self.modern = "/20" in self.uri
        self.home = self.draw.choice(["$defs", "definitions"])
        self.defined = self.draw.sample(DEFINED, 4)

    def value(self, depth: int = 3):
        draw = self.draw
        kind = draw.randrange(6 if depth else 4)
        if kind == 4:
            return [self.value(depth - 1) for _ in range(draw.randrange(4))]
        if kind == 5:
            return {name: self.value(depth - 1) for name in draw.sample(NAMES, draw.randrange(4))}
        text = "".join(draw.choices("ab雪", k=draw.randrange(4)))
        return draw.choice([None, True, False, text, text, *draw.sample(NUMBERS, 3)])

    def reference(self) -> dict:
        "A reference to a definition, its name escaped and sometimes percent-encoded"
        number = self.draw.randrange(len(self.defined))
        has_anchors = self.home == ("$defs" if self.modern else "definitions")
        if has_anchors and self.draw.random() < 0.3:
            return {"$ref": f"#anchor{number}"}
        name = self.defined[number].replace("~", "~0").replace("/", "~1")
        plain = self.draw.random() < 0.5 and not set(name) & set('%# "')
        return {"$ref": f"#/{self.home}/{name if plain else quote(name)}"}

    def schema(self, depth: int = 3):
        draw = self.draw
        if "draft-04" not in self.uri and draw.random() < 0.1:
            return draw.random() < 0.7
        if draw.random() < 0.15:
            return self.reference()
        keywords = draw.sample(list(self.keywords), draw.randint(1, 4))
        if not depth:
            keywords = [keyword for keyword in keywords if keyword in FLAT]
        return {keyword: self.keywords[keyword](self, depth - 1) for keyword in keywords}

    @property
    def keywords(self) -> dict:
        kept = FLAT | NESTED
        if "draft-04" in self.uri:
            newer = ("const", "contains", "propertyNames", "if", "then", "else", "exclusiveMaximum")
            kept = {keyword: make for keyword, make in kept.items() if keyword not in newer}
        if "2020" in self.uri:
            kept = kept | {"items": lambda maker, depth: maker.schema(depth)}
        if self.modern:  # where the reference ignores `dependencies`, and the validator doesn't
            kept = {keyword: make for keyword, make in kept.items() if keyword != "dependencies"}
        newer = MODERN if "2020" in self.uri else BOTH_MODERN
        return kept | (newer if self.modern else {})

    def document(self) -> dict:
        "A schema with definitions that refer to one another through children only"
        definitions = {}
        for number, name in enumerate(self.defined):
            anchor = {"$anchor": f"anchor{number}"} if self.modern else {"$id": f"#anchor{number}"}
            if "draft-04" in self.uri:
                anchor = {"id": f"#anchor{number}"}
            below = {"properties": {"city": self.reference()}, "items": self.reference()}
            chosen = self.draw.choice([{}, {}, *({key: value} for key, value in below.items())])
            definitions[name] = anchor | {"type": self.draw.choice(TYPES)} | chosen
        schema = {"properties": {name: self.schema() for name in self.draw.sample(NAMES, 3)}}
        head = {"$schema": self.uri} if self.uri else {}
        return head | schema | {self.home: definitions}


def several(maker: Maker, depth: int) -> list:
    return [maker.schema(depth) for _ in range(maker.draw.randint(1, 2))]


def by_name(maker: Maker, depth: int) -> dict:
    return {name: maker.schema(depth) for name in maker.draw.sample(NAMES, 2)}


FLAT = {
    "type": lambda maker, depth: maker.draw.choice(TYPES),
    "enum": lambda maker, depth: [maker.value(2)],
    "const": lambda maker, depth: maker.value(2),
    "minimum": lambda maker, depth: maker.draw.choice(NUMBERS),
    "exclusiveMaximum": lambda maker, depth: maker.draw.choice(NUMBERS),
    "multipleOf": lambda maker, depth: maker.draw.randint(1, 3),
    "minLength": lambda maker, depth: maker.draw.randrange(4),
    "maxLength": lambda maker, depth: maker.draw.randrange(4),
    "pattern": lambda maker, depth: maker.draw.choice(PATTERNS),
    "minItems": lambda maker, depth: maker.draw.randrange(4),
    "maxItems": lambda maker, depth: maker.draw.randrange(4),
    "uniqueItems": lambda maker, depth: maker.draw.random() < 0.8,
    "required": lambda maker, depth: maker.draw.sample(NAMES, 2),
    "default": lambda maker, depth: maker.value(2),
    "title": lambda maker, depth: "a title",
}
NESTED = {
    "items": lambda maker, depth: maker.draw.choice([maker.schema, partial(several, maker)])(depth),
    "contains": lambda maker, depth: maker.schema(depth),
    "properties": by_name,
    "patternProperties": lambda maker, depth: {"^[cd]": maker.schema(depth)},
    "additionalProperties": lambda maker, depth: maker.schema(depth),
    "propertyNames": lambda maker, depth: maker.schema(depth),
    "dependencies": lambda maker, depth: {"city": ["days"]},
    "anyOf": several,
    "allOf": several,
    "oneOf": several,
    "not": lambda maker, depth: maker.schema(depth),
    "if": lambda maker, depth: maker.schema(depth),
    "then": lambda maker, depth: maker.schema(depth),
    "else": lambda maker, depth: maker.schema(depth),
}
BOTH_MODERN = {
    "dependentRequired": lambda maker, depth: {"city": ["days"]},
    "dependentSchemas": by_name,
    "unevaluatedProperties": lambda maker, depth: maker.schema(depth),
    "minContains": lambda maker, depth: maker.draw.randrange(3),
}
# the reference fails on unevaluatedItems beside a list of items
MODERN = BOTH_MODERN | {"unevaluatedItems": lambda maker, depth: maker.schema(depth)}


def problems(schema: dict, arguments: dict) -> list[str]:
    return argument_errors(ToolCall("f", arguments), [make_tool("f", parameters=schema)])


@settings(deadline=None, max_examples=1500)
@given(st.integers(0, 2**40))
def test_the_verdict_of_the_reference(seed):
    maker = Maker(seed)
    schema = maker.document()
    validator = DRAFTS[maker.uri](schema)
    for _ in range(3):
        arguments = {name: maker.value() for name in NAMES[:3]}
        found = problems(schema, arguments)
        assert (found == []) == validator.is_valid(arguments), (found, schema, arguments)


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


IDENTIFIED = {
    "relative to the root": {
        "$id": "http://a.example/root.json",
        "properties": {"x": {"$ref": "item.json"}, "y": {"$ref": "root.json#/properties/x"}},
        "definitions": {"i": {"$id": "item.json", "type": "integer"}},
    },
    "a pointer inside an embedded resource": {
        "$id": "http://a.example/root.json",
        "definitions": {
            "t": {"type": "string"},
            "e": {
                "$id": "http://b.example/e",
                "definitions": {"t": {"type": "integer"}},
                "properties": {"x": {"$ref": "#/definitions/t"}},
                "type": "object",
            },
        },
        "properties": {"x": {"$ref": "http://b.example/e#/definitions/t"}},
        "additionalProperties": {"$ref": "#/definitions/t"},
    },
    "draft 4": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "id": "http://a.example/",
        "properties": {"x": {"$ref": "item"}, "y": {"$ref": "#i"}},
        "definitions": {
            "i": {"id": "item", "type": "integer"},
            "j": {"id": "#i", "type": "string"},
        },
    },
    "an urn": {
        "properties": {"x": {"$ref": "urn:example:i"}},
        "definitions": {"i": {"$id": "urn:example:i", "type": "integer"}},
    },
    "anchors": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": {"x": {"$ref": "#i"}, "y": {"$ref": "e#i"}},
        "$defs": {
            "i": {"$anchor": "i", "type": "integer"},
            "e": {"$id": "e", "$defs": {"i": {"$anchor": "i", "type": "string"}}},
        },
    },
    "dynamic anchors": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "http://a.example/strict",
        "$dynamicAnchor": "node",
        "$ref": "tree",
        "unevaluatedProperties": False,
        "$defs": {
            "tree": {
                "$id": "tree",
                "$dynamicAnchor": "node",
                "properties": {"x": {"type": "integer"}, "y": {"$dynamicRef": "#node"}},
            }
        },
    },
    "recursive anchors": {
        "$schema": "https://json-schema.org/draft/2019-09/schema",
        "$id": "http://a.example/strict",
        "$recursiveAnchor": True,
        "$ref": "tree",
        "unevaluatedProperties": False,
        "$defs": {
            "tree": {
                "$id": "tree",
                "$recursiveAnchor": True,
                "properties": {"x": {"type": "integer"}, "y": {"$recursiveRef": "#"}},
            }
        },
    },
    "into a list and an unknown keyword": {
        "properties": {"x": {"$ref": "#/anyOf/1"}, "y": {"$ref": "#/x-kinds/text"}},
        "anyOf": [{}, {"type": "integer"}],
        "x-kinds": {"text": {"type": "string"}},
    },
    "Chinese": {
        "properties": {"x": {"$ref": "#/definitions/整数"}, "y": {"$ref": "#/$defs/文%E6%9C%AC"}},
        "definitions": {"整数": {"type": "integer"}},
        "$defs": {"文本": {"type": "string"}},
    },
}


@pytest.mark.parametrize("name", IDENTIFIED)
@pytest.mark.attack("schema")
def test_references_by_identifiers(name):
    schema = IDENTIFIED[name]
    reference = DRAFTS[schema.get("$schema", "")](schema)
    for x, y in product([1, "text", {"x": 1}, {"x": "a"}, {"z": 1}], repeat=2):
        found = problems(schema, {"x": x, "y": y})
        assert (found == []) == reference.is_valid({"x": x, "y": y}), (x, y, found)


def test_references_inside_the_document():
    tree = {"type": "object", "properties": {"child": {"$ref": "#"}, "n": {"type": "integer"}}}
    assert problems(tree, {"child": {"child": {"n": 1}}}) == []
    assert problems(tree, {"child": {"child": {"n": ""}}}) == [
        "arguments.child.child.n must be integer"
    ]
    for endless in ({"$ref": "#"}, {"allOf": [{"$ref": "#"}]}):
        [problem] = problems(endless, {"x": 1})
        assert problem.endswith("a reference leads back to itself and checks the same value again")


@pytest.mark.parametrize("pattern", ["^(a+)+$", "^(a|a)*$", "(x(a*)y)*$", r"^(?=a)(a+)+(b)\2$"])
def test_no_pattern_runs_without_end(pattern):
    schema = {"properties": {"x": {"type": "string", "pattern": pattern}}}
    assert len(problems(schema, {"x": "a" * 60 + "!"})) <= 1


GIVES_UP = r"^(?=a)(a|aa)+\1c$"
TRIED = {
    "a text": ({"properties": {"x": {"pattern": GIVES_UP}}}, {"x": "a" * 60}),
    "a short text": ({"properties": {"x": {"pattern": GIVES_UP}}}, {"x": "a" * 24}),
    "in a list": ({"properties": {"x": {"items": {"pattern": GIVES_UP}}}}, {"x": [1, "a" * 60]}),
    "not": ({"properties": {"x": {"not": {"pattern": GIVES_UP}}}}, {"x": "a" * 60}),
    "a choice": ({"properties": {"x": {"anyOf": [{"pattern": GIVES_UP}, {}]}}}, {"x": "a" * 60}),
    "a key": ({"propertyNames": {"pattern": GIVES_UP}}, {"a" * 60: 1}),
    "keys of a pattern": ({"patternProperties": {GIVES_UP: False}}, {"a" * 60: 1}),
    "a reference": (
        {"properties": {"x": {"$ref": "#/$defs/d"}}, "$defs": {"d": {"pattern": GIVES_UP}}},
        {"x": "a" * 60},
    ),
}


@pytest.mark.parametrize("name", TRIED)
@pytest.mark.attack("pathological schema")
def test_a_pattern_that_gives_up_is_said(name):
    schema, arguments = TRIED[name]
    assert problems(schema, arguments) == ["arguments take a pattern more than 10,000 tries"]


def test_a_pattern_is_tried_on_its_own_texts_alone():
    schema = {"properties": {"x": {"pattern": GIVES_UP}, "y": {"pattern": "^(?=a)a+$"}}}
    assert problems(schema, {"x": "aac", "y": "aa", "z": ["a" * 60] * 1000}) == []
    assert problems(schema, {"y": "ab"}) == ['arguments.y does not match "^(?=a)a+$"']


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


@pytest.mark.parametrize(
    "first, second",
    [*zip(DEFINED, DEFINED[1:]), ("Straße", "Strasse"), ("İ", "i"), ("a_1", "a-1"), ("x", "х")],
)
@pytest.mark.attack("schema")
def test_definitions_do_not_fall_together(first, second):
    def reference(name: str) -> dict:
        return {"$ref": "#/$defs/" + quote(name.replace("~", "~0").replace("/", "~1"))}

    schema = {
        "properties": {"s": reference(first), "i": reference(second)},
        "$defs": {first: {"type": "string"}, second: {"type": "integer"}},
    }
    assert problems(schema, {"s": "x", "i": 1}) == []
    assert problems(schema, {"s": 1, "i": 1}) == ["arguments.s must be string"]
    assert problems(schema, {"s": "x", "i": "x"}) == ["arguments.i must be integer"]


@pytest.mark.parametrize("depth", [20, 48, 100, 198, 300, 5000])
@pytest.mark.attack("pathological schema")
def test_deep_calls_infer_no_schema(depth):
    deep: dict = {}
    for _ in range(depth):
        deep = {"x": deep}
    calls = [ToolCall("f", {"city": "Oslo"}), ToolCall("f", deep), ToolCall("g", deep)]
    tools = infer_tools(calls)
    found = [argument_errors(call, tools) for call in calls]
    assert found[0] == [] and (found[1] == []) == (depth < 50) and (found[2] == []) == (depth < 199)
