"Templates of the field: prompts as the server's, completions proven, whatever the conversation"

import random
from string import ascii_letters, digits

import pytest
from conftest import TEMPLATES, make_tokenizer

from toolcall.chatml import ChatML, ChatMLError, Example, Renderer, TurnReject, encode
from toolcall.chatml.fast_render import STRATEGIES, render_once, render_turns
from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.curate import curate
from toolcall.logs import read_logs

KINDS = {
    "text": {"type": "string"},
    "count": {"type": "integer"},
    "ratio": {"type": "number"},
    "flag": {"type": "boolean"},
    "items": {"type": "array"},
    "inner": {"type": "object"},
}
TOOLS = [
    make_tool(
        name,
        f"What {name} does, in “words” & <b>",
        parameters={"type": "object", "properties": KINDS, "required": ["text"]},
    )
    for name in ("get_weather", "book.table", "send-mail")
]
WORDS = [
    "Hello",
    "12 °C\n\nand more",
    "  spaced  ",
    "巴黎今天天气",
    "a < b > c",
    'say "hi" \\ there',
    '{"x": 1}',
    "é😀",
    "</b>",
    "7",
    "None",
    "/nothink",
    "line\nline",
]


def value(draw: random.Random, name: str) -> object:
    return {
        "text": lambda: draw.choice(WORDS).strip() or "x",
        "count": lambda: draw.choice([0, -7, 2**40]),
        "ratio": lambda: draw.choice([1.5, -0.25, 3.0]),
        "flag": lambda: draw.random() < 0.5,
        "items": lambda: draw.choice([[], [1, "two", None], [{"a": [True]}]]),
        "inner": lambda: draw.choice([{}, {"k": "v", "n": {"m": 1}}]),
    }[name]()


def conversation(number: int, *, reasoning: bool = False) -> Conversation:
    draw = random.Random(number)
    messages = [{"role": "system", "content": draw.choice(WORDS)}] if draw.random() < 0.6 else []
    if draw.random() < 0.2:
        messages.append(
            {"role": "assistant", "content": draw.choice(WORDS)}
        )  # a greeting before anyone asked
    for exchange in range(draw.randint(1, 3)):
        messages.append({"role": "user", "content": draw.choice(WORDS)})
        for step in range(draw.choice([0, 0, 1, 1, 2])):
            calls = [
                ToolCall(
                    draw.choice(TOOLS)["function"]["name"],
                    {key: value(draw, key) for key in draw.sample(list(KINDS), draw.randint(0, 4))},
                    f"c{exchange}{step}{n}0000",
                )
                for n in range(draw.choice([1, 1, 1, 2]))
            ]
            messages.append(
                {
                    "role": "assistant",
                    "content": draw.choice(["", "", "One moment."]),
                    "tool_calls": [call.to_message() for call in calls],
                }
            )
            messages += [
                {
                    "role": "tool",
                    "tool_call_id": call.id,
                    "name": call.name,
                    "content": draw.choice(WORDS),
                }
                for call in calls
            ]
        messages.append({"role": "assistant", "content": draw.choice(WORDS)})
    if reasoning:
        for message in messages:
            if message["role"] == "assistant" and draw.random() < 0.5:
                message["reasoning_content"] = draw.choice(["Paris it is.", "First\nthen"])
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    trained = (
        {"train": draw.sample(turns, draw.randint(1, len(turns)))} if draw.random() < 0.3 else {}
    )
    return Conversation(f"c{number}", messages, TOOLS if draw.random() < 0.9 else [], trained)


@pytest.mark.parametrize("reasoning", [False, True], ids=["plain", "reasoning"])
@pytest.mark.parametrize("name", [*TEMPLATES, "hermes", "function_call"])
def test_prompts_are_the_servers_and_completions_are_proven(name, reasoning):
    tokenizer = make_tokenizer("qwen2_5" if name in ("hermes", "function_call") else name)
    chatml = ChatML(tokenizer, name if name in ("hermes", "function_call") else "native")
    conversations = [conversation(number, reasoning=reasoning) for number in range(30)]
    encoded = encode(chatml, conversations)
    clean = [c for c in conversations if not chatml.sanitizer.may_contain_control(c.messages)]
    for example in encoded.examples:
        if example.conversation in clean:
            before = example.conversation.messages[: example.turn]
            if not before:
                continue  # a turn that opens the conversation; apply_chat_template wants a message
            assert (
                example.prompt_ids
                == tokenizer.apply_chat_template(
                    before, tools=example.conversation.tools or None, add_generation_prompt=True
                )["input_ids"]
            )
        assert chatml.prove(example) == ""
        assert example.completion_ids[-1] in chatml.stops and chatml.stops.isdisjoint(
            example.completion_ids[:-1]
        )
    allowed = (
        "template_refuses|not_proven"
        if name in ("llama3_1", "llama3_2", "gptoss", "qwen3_5_think", "qwen3_5_nothink")
        else "not_proven"
    )
    # no template can write the prompt of a turn that nothing stands before
    assert all(
        (reject.code in allowed.split("|") or reject.turn == 0) and reject.message
        for reject in encoded.rejects
    )
    # refused is what can't be told apart in the text: bare XML values, text like a call,
    # one call of two
    assert len(encoded.examples) >= (
        0.4 if name in ("llama3_1", "llama3_2", "gptoss") else 0.9
    ) * len(encoded.examples + encoded.rejects)


@pytest.mark.parametrize("name", TEMPLATES)
def test_turns_are_rendered_as_by_the_reference(name):
    chatml = ChatML(make_tokenizer(name), "native")
    reference = Renderer(make_tokenizer(name), "native")
    conversations = [conversation(number, reasoning=number % 3 == 0) for number in range(80)]
    for start in range(0, 80, 10):
        batch = conversations[start : start + 10]
        rendered = render_turns(chatml, batch, chatml.strategies)
        each = [turn for c in batch for turn in reference.render_each(reference.sanitized(c))]
        assert list(map(written, rendered)) == list(map(written, each))


def written(turn) -> tuple:
    prompt = "".join(turn.prompt)
    return (turn.conversation.id, turn.index, prompt, turn.text, turn.stop, turn.code)


@pytest.mark.parametrize("name", ["hermes", "function_call", *TEMPLATES])
def test_one_template_call_renders_what_the_reference_renders_or_is_not_used(name):
    "`render_once` compared with `Renderer.render_each`, on samples of conversations"
    ours = name in ("hermes", "function_call")
    chatml = ChatML(
        make_tokenizer("qwen2_5" if ours else name),
        name if ours else "native",
    )
    used = 0
    for number in range(60):
        sanitized = chatml.sanitized(conversation(number, reasoning=number % 3 == 0))
        if sanitized.assistant_changed or not sanitized.conversation.turns:
            continue
        render_turns(chatml, [sanitized.conversation] * 3, chatml.strategies)
        reference = chatml.render_each(sanitized)
        equal = [s for s in STRATEGIES if render_once(chatml, [sanitized], s) == [reference]]
        # the strategy that is used for this signature is one that holds
        chosen = [s for s in chatml.strategies.strategies.values() if s]
        again = render_turns(chatml, [sanitized.conversation], chatml.strategies)
        assert again == reference
        used += bool(equal)
        assert not equal or chosen
    assert used > 10 or name in ("qwen3_5_think", "gptoss", "llama3_1", "llama3_2")


def spelled(number: int, alphabet: str) -> Conversation:
    "u user, a answer, c call and result, capitals after thinking; few, so that signatures recur"
    draw, messages = random.Random(number), []
    for n, letter in enumerate("".join(draw.choice(alphabet) for _ in range(draw.randint(1, 5)))):
        if letter == "u":
            messages.append({"role": "user", "content": f"q{n}"})
            continue
        thought = {"reasoning_content": f"r{n}"} if letter.isupper() else {}
        calls = (
            {
                "tool_calls": [
                    ToolCall("get_weather", {"text": f"x{n}"}, f"c{n}0000000").to_message()
                ]
            }
            if letter in "cC"
            else {}
        )
        messages.append(
            {"role": "assistant", "content": "" if calls else f"a{n}"} | thought | calls
        )
        messages += (
            [
                {
                    "role": "tool",
                    "tool_call_id": f"c{n}0000000",
                    "name": "get_weather",
                    "content": f"t{n}",
                }
            ]
            if calls
            else []
        )
    turns = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    return Conversation(
        f"s{number}",
        messages,
        TOOLS,
        {"train": draw.sample(turns, draw.randint(0, len(turns)))} if draw.random() < 0.5 else {},
    )


@pytest.mark.parametrize("name", TEMPLATES)
def test_signatures_that_come_back_are_rendered_as_alone(name):
    chatml = ChatML(make_tokenizer(name), "native")
    reference = Renderer(make_tokenizer(name), "native")
    conversations = [spelled(number, "uuaAcC"[: 3 + number % 4]) for number in range(400)]
    rendered = [
        turn
        for start in range(0, 400, 20)
        for turn in render_turns(chatml, conversations[start : start + 20], chatml.strategies)
    ]
    each = [
        turn
        for c in conversations
        if c.turns
        for turn in reference.render_each(reference.sanitized(c))
    ]
    assert rendered == each
    assert any(chatml.strategies.strategies.values()) or name in ("qwen3_5_think",)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("deepseekv3", "doesn't list tools"),
        ("lfm2", "drops calls"),
        ("gemma3", "doesn't list tools"),
        ("phi3", "doesn't list tools"),
    ],
)
def test_templates_that_drop_calls_are_refused_with_the_reason(name, reason):
    tokens = (
        "<｜User｜>",
        "<｜Assistant｜>",
        "<｜end▁of▁sentence｜>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<|user|>",
        "<|end|>",
        "<|assistant|>",
    )
    with pytest.raises(ChatMLError, match=reason):
        ChatML(make_tokenizer(name, tokens), "native")
    assert ChatML(make_tokenizer(name, tokens), "auto").style.name == "hermes"


def test_a_response_template_is_used_where_no_syntax_fits():
    from trl.chat_template_utils import add_response_schema

    tokenizer = make_tokenizer(
        "lfm2_v2",
        (
            "<|startoftext|>",
            "<|tool_list_start|>",
            "<|tool_list_end|>",
            "<|tool_call_start|>",
            "<|tool_call_end|>",
            "<|tool_response_start|>",
            "<|tool_response_end|>",
        ),
    )
    with pytest.raises(ChatMLError, match="writes calls in none of the known ways"):
        ChatML(tokenizer, "native")
    chatml = ChatML(add_response_schema(tokenizer), "native")
    assert chatml.style.syntax.name == "response template"
    call = ToolCall("get_weather", {"text": "Paris", "count": 3}, "c1")
    talk = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call.to_message()]},
    ]
    [example] = chatml.examples(Conversation("c", talk, TOOLS))
    assert isinstance(example, Example) and chatml.prove(example) == ""
    # the template writes Python's False; the description reads it with the schema's help
    talk[1] = talk[1] | {
        "tool_calls": [
            ToolCall("get_weather", {"flag": False, "inner": {"k": "a, b"}}, "c1").to_message()
        ]
    }
    for item in chatml.examples(Conversation("c", talk, TOOLS)):
        assert (
            item.code == "not_proven"
            if isinstance(item, TurnReject)
            else chatml.parse(item.completion_ids, TOOLS).calls[0].arguments
            == {"flag": False, "inner": {"k": "a, b"}}
        )


def test_a_template_that_wants_text_arguments_gets_text():
    tokenizer = make_tokenizer("qwen2_5")
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "tool_call.arguments | tojson", "'' + tool_call.arguments"
    )
    chatml = ChatML(tokenizer, "native")
    assert chatml.capabilities.arguments == "text"
    encoded = encode(chatml, [conversation(n) for n in range(20)])
    assert encoded.examples and not any(
        '"arguments": "' in tokenizer.decode(e.prompt_ids + e.completion_ids)
        for e in encoded.examples
    )


def test_template_arguments_reach_the_template():
    asked = Conversation(
        "c", [{"role": "user", "content": "?"}, {"role": "assistant", "content": "Hi"}]
    )
    think, quiet = (
        ChatML(make_tokenizer("qwen3"), "native", template_kwargs=kwargs)
        for kwargs in ({}, {"enable_thinking": False})
    )
    assert [c.tokenizer.decode(next(c.examples(asked)).completion_ids) for c in (think, quiet)] == [
        "<think>\n\n</think>\n\nHi<|im_end|>",
        "Hi<|im_end|>",
    ]


def test_logged_thinking_in_content_is_trained_as_reasoning():
    chatml = ChatML(make_tokenizer("qwen3"), "native")
    [example] = chatml.examples(
        Conversation(
            "c",
            [
                {"role": "user", "content": "?"},
                {"role": "assistant", "content": "<think>\nParis\n</think>\n\nHi"},
            ],
        )
    )
    assert (
        chatml.tokenizer.decode(example.completion_ids)
        == "<think>\nParis\n</think>\n\nHi<|im_end|>"
    )
    assert [span.kind for span in example.spans] == ["reasoning", "text"]


def test_a_tokenizer_that_marks_the_start_of_a_text_is_not_cut():
    "Like SentencePiece: a space before a text's first piece, so pieces alone differ from in place"
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = {
        letter: n
        for n, letter in enumerate(
            sorted(set(ascii_letters + digits + "▁ \n.,:;!?\"'{}[]()<>|/_-#"))
        )
    }
    backend = Tokenizer(models.BPE(letters | {"<unk>": len(letters)}, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    chatml = ChatML(tokenizer, "hermes")
    talk = [
        {"role": "user", "content": "hello there"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "bye"},
        {"role": "assistant", "content": "so long"},
    ]
    items = list(chatml.examples(Conversation("c", talk)))
    for item, end in zip(items, (1, 3)):
        if isinstance(item, Example):
            assert (
                item.prompt_ids
                == tokenizer.apply_chat_template(talk[:end], add_generation_prompt=True)[
                    "input_ids"
                ]
            )
        else:
            assert item.code == "not_proven" and "decode" in item.message


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "qwen3_5_nothink", "glm4moe", "llama3_1"])
def test_transformers_own_parser_reads_the_same_calls(name):
    "Another implementation, TRL's response templates through transformers, as a second witness"
    from trl.chat_template_utils import add_response_schema

    chatml, other = (
        ChatML(make_tokenizer(name), "native"),
        add_response_schema(make_tokenizer(name)),
    )
    encoded = encode(chatml, [conversation(number) for number in range(30)])
    compared = 0
    for example in encoded.examples:
        if example.calls:
            read = other.parse_response(
                example.completion_ids,
                prefix=example.prompt_ids,
                tools=example.conversation.tools or None,
            )
            calls = [
                (call["function"]["name"], call["function"]["arguments"])
                for call in read.get("tool_calls") or []
            ]
            if example.conversation.tools:  # without schemas theirs keeps bare values as text
                assert repr(calls) == repr(
                    [(call.name, call.arguments) for call in example.calls]
                ), example
                compared += 1
    assert compared > 10


def test_forgetting_bounds_memory_and_changes_nothing(monkeypatch):
    "Overlapping batches, with a cache that is emptied often, give the same examples as one by one"
    from toolcall.chatml import encoding, segments
    from toolcall.samples import sample_log

    conversations = curate(read_logs(sample_log()).conversations).conversations[:120]
    whole = encode(ChatML(make_tokenizer("qwen2_5"), "native"), conversations).examples
    monkeypatch.setattr(segments, "MAX_CACHED_CHARACTERS", 4_000)
    monkeypatch.setattr(encoding, "BATCH_SIZE", 7)
    chatml = ChatML(make_tokenizer("qwen2_5"), "native")
    assert encode(chatml, conversations).examples == whole and chatml.segments.resets > 5
    assert list(chatml.batches([])) == []
    sizes = []
    for conversation in conversations:
        chatml.batch([conversation])
        sizes.append(chatml.segments.size)
    assert max(sizes) < 4_000 + 20_000 and sizes[-1] < sum(
        len(str(c.messages)) for c in conversations
    )


def test_a_tool_that_is_called_is_never_pruned():
    from toolcall.samples import sample_log

    conversations = curate(read_logs(sample_log()).conversations).conversations[:80]
    chatml = ChatML(make_tokenizer("qwen2_5"), "native")
    longest = max(map(len, encode(chatml, conversations).examples))
    shorter = encode(
        chatml, conversations, max_length=longest * 3 // 4, too_long="prune_tools"
    ).examples
    pruned = [example for example in shorter if "tools_pruned" in example.notes]
    assert len(pruned) > 10
    for example in pruned:
        called = {
            call["function"]["name"]
            for message in example.conversation.messages
            for call in message.get("tool_calls", ())
        }
        assert called <= {tool["function"]["name"] for tool in example.conversation.tools}
