"Constrained decoding: everything that a schema allows passes, and nothing else"

import time
from copy import copy

import pytest
import torch
from conftest import make_tokenizer

from toolcall.chatml import ChatML, encode
from toolcall.conversation import Conversation, make_tool
from toolcall.errors import StructuredError
from toolcall.generate.structured import (
    GrammarLogitsProcessor,
    Grammars,
    GrammarState,
    value_grammar,
)

TOOLS = [
    make_tool(
        "search",
        "Find",
        parameters={
            "type": "object",
            "properties": {
                "q": {"type": "string"},
                "limit": {"type": "integer"},
                "where": {
                    "type": "object",
                    "properties": {"a": {"type": "number"}, "b": {"type": "null"}},
                },
                "tags": {"type": "array", "items": {"enum": ["x", "y"]}},
            },
            "required": ["q"],
        },
    ),
    make_tool(
        "größe", "Size", parameters={"type": "object", "properties": {"名": {"type": "boolean"}}}
    ),
]
RIGHT = [
    ("search", {"q": 'say "hi"\n<b> 你好'}),
    ("search", {"tags": ["y", "x"], "q": ""}),
    ("search", {"where": {"b": None, "a": -1.5e3}, "limit": 3, "q": "\\"}),
    ("größe", {"名": True}),
    ("größe", {}),
]
WRONG = [
    ("Search", {"q": "a"}),
    ("search", {"q": 1}),
    ("search", {"q": "a", "limit": 1.5}),
    ("search", {"q": "a", "more": 1}),
    ("search", {}),
    ("search", {"q": "a", "tags": ["z"]}),
    ("search", {"q": "a", "where": {"c": 1}}),
    ("search", {"q": "a", "limit": True}),
    ("search", {"limit": 3, "tags": ["x"]}),
    ("größe", {"名": "true"}),
]


def call(name: str, arguments: dict) -> dict:
    return {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}}


def passed(grammar, ids) -> int:
    "How many tokens a row may write"
    from xgrammar import GrammarMatcher

    matcher = GrammarMatcher(grammar)
    return next(
        (place for place, token in enumerate(ids) if not matcher.accept_token(token)), len(ids)
    )


@pytest.fixture(scope="module", params=["smollm", "qwen2_5", "qwen3"])
def chatml(request):
    from toolcall.models import load_tokenizer

    return ChatML(
        load_tokenizer("SmolLM2-135M-Instruct")
        if request.param == "smollm"
        else make_tokenizer(request.param)
    )


def completion(chatml, *calls, text: str = "") -> list[int]:
    message = {"role": "assistant", "content": text} | (
        {"tool_calls": [call(*one) for one in calls]} if calls else {}
    )
    [example] = encode(
        chatml,
        [
            Conversation(
                "c",
                [{"role": "user", "content": "?"}, message],
                [*TOOLS, make_tool("Search", "", parameters={"type": "object"})],
                {},
            )
        ],
    ).examples
    return example.completion_ids


def test_what_the_schemas_allow_passes_and_nothing_else(chatml):
    grammar = Grammars(chatml, len(chatml.tokenizer)).of(TOOLS)
    for one in RIGHT:
        ids = completion(chatml, one)
        assert passed(grammar, ids) == len(ids), (
            one,
            chatml.tokenizer.decode(ids[: passed(grammar, ids)]),
        )
    together = completion(chatml, *RIGHT, text="Wait.")
    assert passed(grammar, together) == len(together)
    for one in WRONG:
        ids = completion(chatml, one)
        assert passed(grammar, ids) < len(ids) - 1, one


def test_without_tools_text_passes_and_a_call_does_not(chatml):
    grammar = Grammars(chatml, len(chatml.tokenizer)).of([])
    said, called = completion(chatml, text="It is < 3 and > 1."), completion(chatml, RIGHT[0])
    assert passed(grammar, said) == len(said)
    assert passed(grammar, called) < 12


def test_padded_generation_follows_the_same_grammar(chatml):
    tokenizer = chatml.tokenizer
    grammar = Grammars(chatml, len(tokenizer)).of(TOOLS)
    ids = completion(chatml, RIGHT[1])
    width = 3
    processor = GrammarLogitsProcessor(GrammarState([grammar, grammar]), width)
    # the grammar does not read the prompt; if it did, this token would end the row
    history = torch.full((2, width), min(chatml.stops))
    other = tokenizer("Hello")["input_ids"] + [min(chatml.stops)]
    for place, token in enumerate(ids):
        scores = processor(history, torch.zeros(2, len(tokenizer)))
        assert scores[0, token] == 0
        # inside the tag that ends the call few tokens can follow; the other row has ended
        if place == len(ids) - 2:
            assert torch.isinf(scores[0]).sum() > 0.99 * len(tokenizer)
            assert not torch.isinf(scores[1]).any()
        # what comes after a row's end is padding, which the grammar does not read
        second = other[place] if place < len(other) else 0
        history = torch.cat([history, torch.tensor([[token], [second]])], 1)


@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (
            {
                "type": "object",
                "properties": {
                    "a": {
                        "type": "object",
                        "properties": {"b": {"type": "integer"}, "c": {"type": "integer"}},
                        "required": ["c"],
                    }
                },
            },
            ['{"a": {"c": 1, "b": 2}}', '{"a": {"c": 1}}', "{}"],
            ['{"a": {"b": 1}}', '{"a": {"c": 1, "c": 2}}', '{"a": 1}'],
        ),
        (
            {"type": "object", "properties": {'a "x"': {"type": "null"}, "\n": True}},
            ['{"a \\"x\\"": null, "\\n": [1, {"any": "thing"}]}'],
            ['{"a": null}'],
        ),
        (
            {
                "type": "object",
                "properties": {key: {"type": "boolean"} for key in "abcdefghi"},
                "required": ["a"],
            },
            ['{"i": true, "a": false}'],
            ['{"j": true}', '{"a": 1}', "{}"],
        ),
        (
            {
                "type": "object",
                "properties": {"tree": {"$ref": "#/$defs/tree"}},
                "$defs": {
                    "tree": {
                        "type": "object",
                        "properties": {
                            "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}
                        },
                    }
                },
            },
            ['{"tree": {"kids": [{"kids": []}]}}'],
            ['{"tree": {"leaf": 1}}', '{"tree": [1]}'],
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "additionalProperties": {"type": "integer"},
            },
            ['{"a": "x", "b": 1}'],
            ['{"a": 1}', '{"b": "x"}'],
        ),
        ({"type": "object", "properties": {}}, ["{}"], ['{"a": 1}']),
        (
            {
                "type": "object",
                "properties": {
                    "größe": {"enum": ["müde", "\\xdfe", "ça"]},
                    "sábado": {"const": "España"},
                },
                "required": ["größe"],
            },
            ['{"größe": "müde"}', '{"sábado": "España", "größe": "\\\\xdfe"}', '{"größe": "ça"}'],
            ['{"größe": "m\u0fcde"}', '{"gr\u0dfee": "müde"}'],
        ),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {}},
            ['{"a": "x", "b": [1]}'],
            ['{"a": 1}'],
        ),
        (
            {
                "type": "object",
                "properties": {
                    "o": {"type": ["object", "null"], "properties": {"x": {"type": "integer"}}}
                },
            },
            ['{"o": null}', '{"o": {"x": 1}}'],
            ['{"o": {"x": "1"}}', '{"o": "null"}'],
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
                "required": ["a"],
                "additionalProperties": False,
            },
            ['{"a": null}', '{"a": "x"}'],
            ['{"a": 1}', "{}"],
        ),
    ],
)
def test_objects_hold_what_their_schema_says(smollm, schema, right, wrong):
    from xgrammar import GrammarCompiler, GrammarMatcher, TokenizerInfo

    compiled = GrammarCompiler(TokenizerInfo.from_huggingface(smollm)).compile_grammar(
        value_grammar(schema)
    )

    def fits(text: str) -> bool:
        matcher = GrammarMatcher(compiled)
        return matcher.accept_string(text) and matcher.is_completed()

    assert ([text for text in right if not fits(text)], [text for text in wrong if fits(text)]) == (
        [],
        [],
    )


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"a": {"type": "date"}}},
        {
            "type": "object",
            "properties": {"a": {"type": "string", "required": True}, "b": False},
            "required": None,
        },
        {"type": "object", "properties": ["a"]},
        {"type": "object", "properties": {"a": {"enum": []}}},
        {"type": "object", "properties": {"\ud800": {"type": "null"}}},
    ],
)
def test_an_odd_schema_is_refused_by_the_name_of_its_tool(smollm, parameters):
    chatml = ChatML(copy(smollm))
    odd = {"type": "function", "function": {"name": "odd", "parameters": parameters}}
    with pytest.raises(StructuredError, match="the schema of tool 'odd'"):
        Grammars(chatml, len(smollm)).of([TOOLS[0], odd])


@pytest.mark.parametrize("parameters", [None, {}, {"type": "object"}])
def test_a_tool_without_a_schema_takes_any_object(smollm, parameters):
    chatml = ChatML(copy(smollm))
    grammar = Grammars(chatml, len(smollm)).of(
        [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    )
    texts = [
        f'<tool_call>\n{{"name": "f", "arguments": {arguments}}}\n</tool_call>'
        for arguments in ('{"x": [1]}', "{}", "1")
    ]
    ids = [smollm(text)["input_ids"] for text in texts]
    assert [passed(grammar, one) == len(one) for one in ids] == [True, True, False]


def nested(levels: int, keys: int) -> dict:
    "Objects of so many keys inside one another"
    schema: dict = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {f"k{n}": schema for n in range(keys)}}
    return schema


def many(format):
    return {"properties": {f"x{n}": {"type": "string", "format": format} for n in range(100)}}


LARGE = {
    "six keys, three deep": nested(3, 6),
    "six keys, four deep": nested(4, 6),
    "two keys, twelve deep": nested(12, 2),
    "300 deep": nested(300, 1),
    "5,000 deep": nested(5000, 1),
    "a text of a million characters": {"properties": {"x": {"type": "string", "minLength": 10**6}}},
    "many long texts": {
        "properties": {f"x{n}": {"type": "string", "maxLength": 1000} for n in range(100)}
    },
    "20,000 values": {"properties": {"x": {"enum": [f"value {n}" for n in range(20_000)]}}},
    "5,000 properties": {"properties": {f"p{n}": {"type": "integer"} for n in range(5000)}},
    "1,000 pattern properties": {"patternProperties": {f"k{n}.*z": {} for n in range(1000)}},
    "a pattern of 10,000": {"properties": {"x": {"type": "string", "pattern": "(a?){10000}"}}},
    "repeats of repeats": {"properties": {"x": {"type": "string", "pattern": "((a{30}){30}){30}"}}},
    "words": {"properties": {"x": {"type": "string", "pattern": r"\w{1000}" * 20}}},
    "a chain of 10,000 references": {
        "$ref": "#/$defs/0",
        "$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(10_000)},
    },
    "100 templates of addresses": many("uri-template"),
    "100 mail addresses": many("email"),
    "another document": {"properties": {"x": {"$ref": "http://127.0.0.1:9/s.json"}}},
    "a file": {"$ref": "file:///etc/passwd"},
}


@pytest.fixture(scope="module")
def grammars(smollm):
    return Grammars(ChatML(copy(smollm)), len(smollm))


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.attack("pathological schema")
def test_a_schema_that_compiles_for_ever_is_refused(name, grammars):
    tool = {"type": "function", "function": {"name": "large", "parameters": LARGE[name]}}
    start = time.process_time()  # the work, however busy the machine is
    with pytest.raises(StructuredError, match="at most|not followed|hand on the same|deeply"):
        grammars.of([TOOLS[0], tool])
    assert time.process_time() - start < 2
