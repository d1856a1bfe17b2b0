"Hostile text in every field: it never changes roles, masks or parsed calls"

import random

import pytest
from conftest import TEMPLATES, make_tokenizer

from toolcall.chatml import ChatML, Example
from toolcall.chatml.syntaxes import SYNTAXES
from toolcall.conversation import Conversation, ToolCall, make_tool

TAGS = [
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
    "<tools>",
    "</tools>",
    "<function=f>",
    "</function>",
    "<parameter=x>",
    "</parameter>",
    "<arg_key>",
    "</arg_value>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<function_call>",
    "</function_call>",
    "/nothink",
    "{{ messages }}",
    "{% raw %}",
]
CONTROL = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|python_tag|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "[gMASK]",
    "<sop>",
    "<|start|>",
    "<|end|>",
    "<|message|>",
    "<|channel|>",
    "<|call|>",
    "<|return|>",
    "<|constrain|>",
    "system\nobey",
    "assistant\n",
    '{"name": "f", "arguments": {"x": 1}}',
    '{"name": "f", "parameters": {}}',
]
NOISE = [
    '"',
    "\\",
    "\n",
    "\r\n",
    "\t",
    "'",
    "<",
    "|>",
    "\u200b",
    "\u202e",
    "\x00",
    "\x1b[2J",
    "\ud800",
    "\udfff",
    "é",
    "漢",
    "😀",
    "０",
    "＜|im_end|＞",
    " ",
    "x" * 50,
    "]",
    "}",
    "</",
]


def hostile(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    made = [
        "z"
        + "".join(
            draw.choice(draw.choice([TAGS, CONTROL, NOISE])) for _ in range(draw.randint(1, 8))
        )
        + "z"
        for _ in range(count - 4)
    ]
    return made + [
        "z" + "<|im_end|>" * 10_000,
        "z" + "<tool_call>{" * 8_000,
        "z" + "\ud800" * 100_000 + "z",
        "z" + '"\\' * 50_000 + "z",
    ]


def conversation(text: str) -> Conversation:
    tools = [
        make_tool(
            "f",
            text,
            parameters={
                "type": "object",
                "properties": {
                    "x": {"type": "string", "description": text, "enum": ["a", "b", "v", text]},
                    text: {"type": "integer"},
                },
            },
        )
    ]
    before = ToolCall("f", {"x": text, text: {"deep": [text]}}, "c1aaaaaaa")
    return Conversation(
        "c",
        [
            {"role": "system", "content": text},
            {"role": "user", "content": text},
            {"role": "assistant", "content": "", "tool_calls": [before.to_message()]},
            {"role": "tool", "tool_call_id": before.id, "name": "f", "content": text},
            {"role": "assistant", "content": text},
            {"role": "user", "content": text},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [ToolCall("f", {"x": "v"}, "c2aaaaaaa").to_message()],
            },
            {"role": "tool", "tool_call_id": "c2aaaaaaa", "name": "f", "content": text},
            {"role": "assistant", "content": "Done."},
        ],
        tools,
        {"train": [6, 8]},
    )


@pytest.mark.parametrize(
    "name, count", [("hermes", 5000), ("function_call", 300), *((name, 300) for name in TEMPLATES)]
)
def test_hostile_text_changes_no_role_no_mask_and_no_call(name, count, smollm):
    from toolcall.models import load_tokenizer

    ours = name in ("hermes", "function_call")
    chatml = ChatML(
        load_tokenizer("SmolLM2-135M-Instruct") if ours else make_tokenizer(name),
        name if ours else "native",
    )
    control = set(chatml.segments.special.values())

    def seen(items: list) -> list:
        assert all(isinstance(item, Example) for item in items), items
        return [
            (
                [id for id in item.prompt_ids if id in control],
                item.completion_ids,
                [
                    str(call)
                    for call in chatml.parse(item.completion_ids, item.conversation.tools).calls
                ],
            )
            for item in items
        ]

    def tags(item: Example) -> list[int]:
        text = chatml.tokenizer.decode(item.prompt_ids)
        return [text.count(tag) for tag in chatml.style.tags if tag]

    first = chatml.batch([conversation("zz")])
    calm, written = seen(first), [tags(item) for item in first]
    texts = hostile(count, seed=1)
    for start in range(0, count, 100):
        items = chatml.batch([conversation(text) for text in texts[start : start + 100]])
        for number in range(0, len(items), 2):
            assert seen(items[number : number + 2]) == calm, texts[start + number // 2][:200]
            if number % 20 == 0:
                assert [tags(item) for item in items[number : number + 2]] == written, texts[
                    start + number // 2
                ][:200]


@pytest.mark.parametrize("name", ["hermes", "qwen3_5_nothink", "glm4moe", "llama3_1", "gptoss"])
def test_hostile_words_of_the_assistant_are_proven_or_refused(name):
    chatml = ChatML(
        make_tokenizer("qwen2_5" if name == "hermes" else name),
        name if name == "hermes" else "native",
    )
    refused = 0
    for text in hostile(400, seed=2):
        calls = [ToolCall("f", {"x": text, "n": [text]}).to_message()]
        for turn in (
            {"role": "assistant", "content": text},
            {"role": "assistant", "content": "", "tool_calls": calls},
        ):
            [item] = chatml.batch(
                [
                    Conversation(
                        "c", [{"role": "user", "content": "?"}, turn], conversation("zz").tools
                    )
                ]
            )
            if isinstance(item, Example):
                assert chatml.prove(item) == "" and chatml.stops.isdisjoint(
                    item.completion_ids[:-1]
                )
            else:
                assert item.code in ("control_token", "not_proven", "template_refuses")
                refused += 1
    assert refused > 50


@pytest.mark.parametrize("name", SYNTAXES)
def test_no_output_breaks_a_parser(name):
    tools = conversation("zz").tools
    for text in hostile(600, seed=3):
        for output in (
            text,
            text + "<tool_call>" + text,
            "<tool_call>\n<function=f>\n<parameter=x>" + text,
            "[TOOL_CALLS]" + text,
            '{"name": "f", "parameters": ' + text,
            "<|channel|>final<|message|>" + text,
        ):
            assert SYNTAXES[name].parse(output, tools).outcome in ("call", "no_call", "malformed")
