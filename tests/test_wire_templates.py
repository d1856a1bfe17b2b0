"Messages as clients spell them give the prompt that was trained; outputs read by transformers"

import json
from copy import copy, deepcopy

import pytest
from conftest import TEMPLATES, packaged_file
from jinja2 import TemplateError
from test_templates import conversation

from toolcall.chatml import ChatML, Style, encode, segments
from toolcall.chatml.syntaxes import SYNTAXES
from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.curate import curate
from toolcall.logs import read_logs
from toolcall.models import load_tokenizer
from toolcall.samples import sample_log

TOOL = make_tool("天气", "Weather", parameters={"type": "object", "properties": {"城市": {}}})
ARGUMENTS = {"城市": 'say "罗马" \\ \n', "days": [1, -2.5, 1e-07, True, None, {}], "n": 2**70}
CALLS = [ToolCall("天气", ARGUMENTS, "c1"), ToolCall("天气", {}, "c2")]
TALK = [
    {"role": "system", "content": "Be brief.\nBe kind."},
    {"role": "user", "content": "Weather?\n罗马"},
    {"role": "assistant", "content": "", "tool_calls": [call.to_message() for call in CALLS]},
    {"role": "tool", "tool_call_id": "c1", "name": "天气", "content": '{"celsius": 12}'},
    {"role": "tool", "tool_call_id": "c2", "name": "天气", "content": "no city"},
    {"role": "assistant", "content": "It is 12 °C."},
    {"role": "system", "content": "Now French."},
    {"role": "user", "content": "Et demain?"},
]


@pytest.fixture(scope="module", params=["hermes", "function_call"])
def tokenizer(request, smollm):
    own = copy(smollm)
    ChatML(own, request.param)
    return own


def written(tokenizer, messages, tools=(TOOL,)):
    return tokenizer.apply_chat_template(
        deepcopy(messages), tools=list(tools), tokenize=False, add_generation_prompt=True
    )


def changed(change):
    messages = deepcopy(TALK)
    for message in messages:
        change(message)
    return messages


def parts(kind):
    def change(message):
        lines = message["content"].split("\n")
        message["content"] = [{"type": kind, "text": line} for line in lines]

    return change


def set_arguments(spell):
    def change(message):
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = spell(call["function"]["arguments"])

    return change


def spell(**options):
    return lambda arguments: json.dumps(arguments, ensure_ascii=False, **options)


def refusal(message):
    if message["role"] == "assistant" and message["content"]:
        message |= {"refusal": message["content"], "content": None}


def result_object(message):
    if message["content"].startswith("{"):
        message["content"] = json.loads(message["content"])


def without_content(message):
    if not message["content"]:
        del message["content"]


SPELLINGS = {
    "content null": lambda m: m.update(content=m["content"] or None),
    "content missing": without_content,
    "content an empty list": lambda m: m.update(content=m["content"] or []),
    "content in parts": parts("text"),
    "content in parts of the newer API": parts("input_text"),
    "content in parts of strings": lambda m: m["role"] == "tool" or parts("text")(m),
    "arguments as text": set_arguments(spell()),
    "arguments as compact text": set_arguments(spell(separators=(",", ":"))),
    "arguments as indented text": set_arguments(spell(indent=2)),
    "arguments null": set_arguments(lambda arguments: arguments or None),
    "arguments empty": set_arguments(lambda arguments: arguments or ""),
    "role developer": lambda m: m["role"] == "system" and m.update(role="developer"),
    "role function": lambda m: m["role"] == "tool" and m.update(role="function"),
    "no calls": lambda m: m.setdefault("tool_calls", []),
    "calls null": lambda m: m.setdefault("tool_calls", None),
    "calls without a type": lambda m: [c.pop("type") for c in m.get("tool_calls", ())],
    "refusal": refusal,
    "result an object": result_object,
    "nulls of a client": lambda m: m.update(
        refusal=None, audio=None, function_call=None, name=None
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_of_a_message_is_written_alike(tokenizer, name):
    messages = changed(SPELLINGS[name])
    assert messages != TALK
    assert written(tokenizer, messages) == written(tokenizer, TALK)


def test_a_call_of_the_older_api(tokenizer):
    call = {"name": "f", "arguments": '{"x":1}'}
    older = [*TALK[:2], {"role": "assistant", "content": None, "function_call": call}]
    newer = {
        "role": "assistant",
        "content": "",
        "tool_calls": [ToolCall("f", {"x": 1}).to_message()],
    }
    assert written(tokenizer, older) == written(tokenizer, [*TALK[:2], newer])


FUNCTION = TOOL["function"]
TOOLS = {
    "bare": FUNCTION,
    "bare with its type": {"type": "function"} | FUNCTION,
    "dumped by vLLM": {"function": FUNCTION, "type": "function"},
    "dumped by SGLang": {
        **{key: FUNCTION[key] for key in ("description", "name", "parameters")},
        "strict": False,
    },
    "strict": {"type": "function", "function": FUNCTION | {"strict": True}},
}


@pytest.mark.parametrize("name", TOOLS)
def test_every_spelling_of_a_tool_is_written_alike(tokenizer, name):
    assert written(tokenizer, TALK, [TOOLS[name]]) == written(tokenizer, TALK)


def test_what_a_client_left_out_of_a_tool_is_written_alike(tokenizer):
    filled = {"name": "f", "description": "", "parameters": {}}
    nulls = {"name": "f", "description": None, "parameters": None}
    texts = {written(tokenizer, TALK, [tool]) for tool in ({"name": "f"}, filled, nulls)}
    assert len(texts) == 1


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
REFUSED = {
    "an image": {"role": "user", "content": [{"type": "text", "text": "What?"}, IMAGE]},
    "an image of a tool": {"role": "tool", "content": [IMAGE]},
    "an object": {"role": "user", "content": {"text": "hi"}},
    "a role": {"role": "human", "content": "hi"},
    "escaped letters": '{"x": "caf\\u00e9"}',
    "an escaped slash": '{"x": "a\\/b"}',
    "a number": '{"x": 1.50}',
    "an exponent": '{"x": 1E5}',
    "no object": "[1]",
    "no JSON": "city=Rome",
    "cut": '{"x": "Ro',
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_alike_is_refused(tokenizer, name):
    message = REFUSED[name]
    if isinstance(message, str):
        call = {"function": {"name": "f", "arguments": message}}
        message = {"role": "assistant", "content": "", "tool_calls": [call]}
    with pytest.raises(TemplateError):
        written(tokenizer, [*TALK[:2], message])


def test_escapes_that_json_itself_writes_pass(tokenizer):
    arguments = {"x": "\x1b[0m C:\\users\\n \\/ \\", "y": 'a"'}
    texts = set()
    for spelled in (arguments, json.dumps(arguments, ensure_ascii=False)):
        calls = [{"function": {"name": "f", "arguments": spelled}}]
        answer = {"role": "assistant", "content": "", "tool_calls": calls}
        texts.add(written(tokenizer, [*TALK[:2], answer]))
    assert len(texts) == 1


def read_by_transformers(tokenizer, prompt, output, tools):
    message = tokenizer.parse_response(output, prefix=prompt, tools=tools or None)
    functions = [call["function"] for call in message.get("tool_calls", ())]
    calls = [ToolCall(function["name"], function["arguments"]) for function in functions]
    return list(map(str, calls)), message.get("content", "").strip()


def set_up(name):
    "The embedded vocabulary under a style of ours, or a template of trl with its control tokens"
    own = load_tokenizer("SmolLM2-135M-Instruct")
    if name in ("hermes", "function_call"):
        return ChatML(own, name)
    tokens = {"additional_special_tokens": TEMPLATES[name]}
    own.add_special_tokens(tokens, replace_extra_special_tokens=False)
    file = packaged_file("trl", f"chat_templates/{name}.jinja")
    own.chat_template = file.read_text(encoding="utf-8")
    return ChatML(own, "native")


NATIVE = [*TEMPLATES, "hermes", "function_call"]


@pytest.mark.parametrize("name", NATIVE)
def test_transformers_reads_what_our_parser_reads(name, tmp_path):
    chatml = set_up(name)
    chatml.tokenizer.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert saved["response_template"]["start_anchor"]
    calls = words = 0
    for number in range(12):
        for example in encode(chatml, [conversation(number)]).examples:
            parsed = chatml.parse(example.completion_ids, example.conversation.tools)
            served = read_by_transformers(
                chatml.tokenizer,
                chatml.tokenizer.decode(example.prompt_ids),
                chatml.tokenizer.decode(example.completion_ids),
                example.conversation.tools,
            )
            assert served == (list(map(str, parsed.calls)), parsed.text.strip())
            calls += len(parsed.calls)
            words += bool(parsed.text.strip())
    assert calls > 3 and words > 3


def test_several_calls_of_llama_and_mistral():
    own = set_up("llama3_1").tokenizer
    two = '{"name": "f", "parameters": {"x": "}; {"}}; {"name": "g", "parameters": {}}<|eot_id|>'
    found = read_by_transformers(own, "", two, [])
    assert found == (['f(x="}; {")', "g()"], "") == _ours("llama", two.removesuffix("<|eot_id|>"))


def _ours(syntax, text):
    parsed = SYNTAXES[syntax].parse(text, [])
    return list(map(str, parsed.calls)), parsed.text


MISTRAL = (
    "{{- bos_token }}{%- if tools %}{{- '[AVAILABLE_TOOLS] ' + (tools | tojson) "
    "+ '[/AVAILABLE_TOOLS]' }}{%- endif %}{%- for m in messages %}"
    "{%- if m.role in ('user', 'system') %}{{- '[INST] ' + m.content + 'CLOSE' }}"
    "{%- elif m.role == 'tool' %}{{- '[TOOL_RESULTS] {\"content\": ' + (m.content | tojson) "
    "+ '}[/TOOL_RESULTS]' }}{%- elif m.tool_calls %}{{- '[TOOL_CALLS] [' }}"
    "{%- for c in m.tool_calls %}{{- '{\"name\": ' + (c.function.name | tojson) "
    "+ ', \"arguments\": ' + (c.function.arguments | tojson) + '}' }}"
    "{{- ', ' if not loop.last }}{%- endfor %}{{- ']' + eos_token }}"
    "{%- else %}{{- 'SPACE' + m.content + 'AFTER' + eos_token }}{%- endif %}{%- endfor %}"
)
SPACINGS = {
    "v3": ("[/INST]", " ", ""),
    "no space": ("[/INST]", "", ""),
    "space around": (" [/INST]", " ", " "),
    "space before the mark": (" [/INST]", "", ""),
}
ANSWERS = ["It is sunny.", "7", "é 漢字", "- one\n- two", "😀", "  indented", "\nnew line"]


@pytest.fixture(scope="module")
def mistral_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mistral")
    file = packaged_file("mistral-common", "mistral_instruct_tokenizer_240323.model.v3")
    (folder / "tokenizer.model").write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize("legacy", [False, True], ids=["new", "legacy"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_answers_of_sentencepiece_are_encoded_as_the_model_must_emit_them(
    mistral_file, spacing, legacy
):
    from transformers import LlamaTokenizer

    own = LlamaTokenizer.from_pretrained(mistral_file, legacy=legacy)
    close, space, after = SPACINGS[spacing]
    template = MISTRAL.replace("CLOSE", close).replace("SPACE", space).replace("AFTER", after)
    own.chat_template = template
    chatml = ChatML(own, "native")
    talks = [
        Conversation(text, [TALK[1], {"role": "assistant", "content": text}]) for text in ANSWERS
    ]
    sample = curate(read_logs(sample_log()).conversations).conversations[:8]
    found = encode(chatml, [*talks, *sample])
    assert not found.rejects, found.rejects[0].message
    for example in found.examples:
        messages = example.conversation.messages[: example.turn + 1]
        whole = own.apply_chat_template(
            messages, tools=example.conversation.tools or None, tokenize=True
        )["input_ids"]
        assert example.prompt_ids + example.completion_ids == whole
        assert chatml.prove(example) == ""
        served = read_by_transformers(
            own, own.decode(example.prompt_ids), example.completion_ids, []
        )
        parsed = chatml.parse(example.completion_ids)
        assert served == (list(map(str, parsed.calls)), parsed.text.strip())


def test_another_loss_than_the_first_space_is_refused(mistral_file, monkeypatch):
    from transformers import LlamaTokenizer

    own = LlamaTokenizer.from_pretrained(mistral_file, legacy=False)
    template = MISTRAL.replace("CLOSE", "[/INST]").replace("SPACE", " ").replace("AFTER", "")
    own.chat_template = template
    chatml = ChatML(own, "native")
    decode = segments._decode
    monkeypatch.setattr(
        segments,
        "_decode",
        lambda *args: [text.replace("sunny", "suny") for text in decode(*args)],
    )
    answer = {"role": "assistant", "content": "It is sunny."}
    [item] = chatml.examples(Conversation("c", [TALK[1], answer]))
    assert getattr(item, "code", "") == "not_proven"


def test_a_style_of_ones_own_gets_a_response_template(smollm):
    from toolcall.chatml.syntaxes import tagged_json
    from toolcall.chatml.templates import STYLES

    own = copy(smollm)
    template = STYLES["function_call"].template.replace("function_call>", "use>")
    syntax = tagged_json("angle", "<use>", "</use>")
    ChatML(own, Style("angle", template, syntax, ("<|im_start|>", "<|im_end|>")))
    found = read_by_transformers(own, "", '<use>{"name": "f", "arguments": {}}</use><|im_end|>', [])
    assert found == (["f()"], "")
