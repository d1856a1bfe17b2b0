"No schema, chat template or page opens a file or a connection: a guard file and a listener watch"

import ctypes
import json
import os
import socket
from contextlib import suppress
from copy import copy
from html.parser import HTMLParser
from itertools import product
from xml.etree import ElementTree

import jsonschema_rs
import pytest

from toolcall.chatml import Example, parse_calls
from toolcall.chatml.rendering import render_messages
from toolcall.chatml.views import SideBySide, tokens_page, view_tokens
from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.diagnose import diagnose
from toolcall.errors import TemplateRefuses
from toolcall.evaluate import evaluate
from toolcall.generate import Output
from toolcall.generate.structured import value_grammar
from toolcall.pages import Page, Table, content_policy, page_asset
from toolcall.report import Report, last_messages
from toolcall.schemas import argument_errors, infer_tools

SCHEMA = '{"type": "string"}'


IN_OPEN = 0x20  # of Linux's inotify


class Guard:
    "A port of loopback and a file; the kernel tells when somebody opens them, in any language"

    def __init__(self, folder):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]
        self.file = folder / "guard.json"
        self.file.write_text(SCHEMA)
        libc = ctypes.CDLL(None, use_errno=True)
        self.events = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self.events, os.fsencode(self.file), IN_OPEN) >= 0

    def seen(self) -> int:
        "How often the file or the port was opened since the last question; equal ones count once"
        count = 0
        with suppress(BlockingIOError):
            count += len(os.read(self.events, 4096)) // 16
        with suppress(BlockingIOError):
            while True:
                self.listener.accept()[0].close()
                count += 1
        return count

    def close(self):
        os.close(self.events)
        self.listener.close()


@pytest.fixture(scope="module")
def guard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("guarded")
    here = os.getcwd()
    os.chdir(folder)  # where relative references would lead
    guard = Guard(folder)
    yield guard
    os.chdir(here)
    guard.close()


def test_the_guard_sees_what_is_opened(guard):
    assert guard.seen() == 0
    with open(guard.file) as opened:
        assert opened.read() == SCHEMA
    assert guard.seen() == 1
    socket.create_connection(("127.0.0.1", guard.port)).close()
    assert guard.seen() == 1
    for address in (f"file://{guard.file}", f"http://127.0.0.1:{guard.port}/s.json"):
        timeout = jsonschema_rs.HttpOptions(timeout=0.5)  # without a retriever, it opens both
        with suppress(ValueError):  # the port answers nothing
            jsonschema_rs.Draft7Validator({"$ref": address}, http_options=timeout)
        assert guard.seen() >= 1, address


ADDRESSES = [
    "http://127.0.0.1:{port}/s.json",
    "HTTP://127.0.0.1:{port}/s.json#/definitions/a",
    "http://user:password@localhost:{port}/s.json",
    "https://127.0.0.1:{port}/s.json",
    "ftp://127.0.0.1:{port}/s.json",
    "ws://127.0.0.1:{port}/s.json",
    "//127.0.0.1:{port}/s.json",
    "\\\\127.0.0.1:{port}\\s.json",
    "http:\\\\127.0.0.1:{port}\\s.json",
    "file://{file}",
    "file://localhost{file}",
    "file:{file}",
    "FILE://{file}#/definitions/a",
    "jar:file://{file}!/s.json",
    "{file}",
    "guard.json",
    "./guard.json#",
    "../guarded0/guard.json",
    "%67uard.json",
    "data:application/json,{{}}",
]
PLACES = {
    "root": lambda at: {"$ref": at},
    "property": lambda at: {"properties": {"x": {"$ref": at}}},
    "unused definition": lambda at: {
        "definitions": {"d": {"$ref": at}},
        "$defs": {"e": {"$ref": at}},
    },
    "reference by two steps": lambda at: {
        "properties": {"x": {"$ref": "#/x-unknown/deep"}},
        "x-unknown": {"deep": {"not": {"$ref": at}}},
    },
    "identifier": lambda at: {"$id": at, "properties": {"x": {"$ref": "other.json"}}},
    "nested identifier": lambda at: {"items": {"$id": at, "items": {"$ref": "guard.json"}}},
    "draft-4 identifier": lambda at: {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "id": at,
        "properties": {"x": {"id": "a/", "items": {"$ref": "guard.json"}}},
    },
    "meta-schema": lambda at: {"$schema": at, "$vocabulary": {at: True}},
    "draft of 2019": lambda at: {
        "$schema": "https://json-schema.org/draft/2019-09/schema",
        "$recursiveAnchor": True,
        "properties": {"x": {"$recursiveRef": at}},
        "contentSchema": {"$ref": at},
    },
    "draft of 2020": lambda at: {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$dynamicAnchor": "a",
        "dependentSchemas": {"x": {"$dynamicRef": at}},
        "unevaluatedProperties": {"$ref": at},
    },
    "everywhere": lambda at: {
        "allOf": [{"$ref": at}],
        "anyOf": [{"not": {"$ref": at}}],
        "if": {"$ref": at},
        "patternProperties": {"x": {"$ref": at}},
        "propertyNames": {"$ref": at},
        "additionalProperties": {"items": [{"$ref": at}], "contains": {"$ref": at}},
    },
    "values and names": lambda at: {
        "properties": {"x": {"format": "uri", "default": {"$ref": at}, "enum": [{"$ref": at}, at]}},
        "required": ["x"],
        "examples": [{"$ref": at}],
        "$comment": at,
        "contentMediaType": at,
        "contentEncoding": at,
        at: {"$ref": at},
    },
}


def use_schema(schema: dict, address: str) -> list[str]:
    "Everything that the package does with a schema of a log"
    tools = [make_tool("f", parameters=schema)]
    found = []
    for arguments in ({"x": 1}, {"x": address}, {"x": {"$ref": address}}, {address: [address]}):
        found += argument_errors(ToolCall("f", arguments), tools)
        infer_tools([ToolCall("f", arguments)])
    with suppress(RuntimeError, ValueError, TypeError, AttributeError):
        value_grammar(schema)
    return found


@pytest.mark.parametrize("place, address", list(product(PLACES, ADDRESSES)))
@pytest.mark.attack("schema")
def test_no_schema_opens_anything(place, address, guard):
    address = address.format(port=guard.port, file=guard.file)
    found = use_schema(PLACES[place](address), address)
    assert guard.seen() == 0
    if place in ("root", "property", "everywhere", "reference by two steps"):
        assert all("can't be used" in problem and "not followed" in problem for problem in found)
        assert len(found) == 4


TEMPLATES = [
    "{{% include '{file}' %}}",
    "{{% extends '{file}' %}}",
    "{{% import '{file}' as m %}}{{{{ m }}}}",
    "{{% from '{file}' import x %}}",
    "{{% include 'guard.json' ignore missing %}}",
    "{{{{ open('{file}').read() }}}}",
    "{{{{ self.__init__.__globals__ }}}}",
    "{{{{ lipsum.__globals__.os.popen('cat {file}').read() }}}}",
    "{{{{ cycler.__init__.__globals__.os.open('{file}', 0) }}}}",
    "{{{{ joiner.__init__.__globals__['os'].open('{file}', 0) }}}}",
    "{{{{ namespace.__init__.__globals__.__builtins__.open('{file}') }}}}",
    "{{{{ raise_exception.__globals__['__builtins__']['open']('{file}').read() }}}}",
    "{{{{ strftime_now.__globals__.__builtins__.open('{file}').read() }}}}",
    "{{{{ (raise_exception | attr('__globals__'))['__builtins__']['open']('{file}').read() }}}}",
    "{{{{ ''.__class__.__mro__[1].__subclasses__() }}}}",
    "{{{{ ''['__class__']['__base__']['__subclasses__']() }}}}",
    "{{{{ messages.__class__.__init__.__globals__ }}}}",
    "{{{{ messages | map(attribute='__class__.__mro__') | list }}}}",
    "{{{{ [messages] | map('attr', '__class__') | first }}}}",
    "{{{{ '{{0.__class__.__mro__}}'.format(messages) }}}}",
    "{{{{ '{{0.__class__}}'.format_map({{'0': 1}}) }}}}",
    "{{{{ ('%s' | format(messages)).__class__.__mro__ }}}}",
    "{{{{ tojson.__globals__ }}}}{{{{ messages | tojson | attr('__class__') }}}}",
    "{{{{ loop.__init__.__globals__ }}}}",
    "{{% for m in messages %}}{{{{ loop.__init__.__globals__.os.listdir('/') }}}}{{% endfor %}}",
    "{{{{ range.__class__.__base__.__subclasses__() }}}}",
    "{{{{ messages.append(open) }}}}",
    "{{% set x = namespace() %}}{{% set x.__class__ = 1 %}}{{{{ x.__class__ }}}}",
    "{{{{ caller.__func__.__code__ }}}}{{{{ (messages.__len__).__self__ }}}}",
    "{{{{ url_for.__globals__ }}}}{{{{ get_flashed_messages.__globals__ }}}}{{{{ config }}}}",
    "{{{{ fetch('http://127.0.0.1:{port}/') }}}}",
    "{{{{ 1 / 0 }}}}",
    "{{% import 'http://127.0.0.1:{port}/t' as m %}}",
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.attack("schema")
def test_no_template_opens_anything(template, guard, smollm):
    tokenizer = copy(smollm)
    tokenizer.chat_template = template.format(port=guard.port, file=guard.file)
    try:
        [text] = render_messages(tokenizer, [[{"role": "user", "content": "?"}]])
    except TemplateRefuses:
        text = ""
    assert guard.seen() == 0
    assert SCHEMA not in text and "<class" not in text and "bin" not in text, text


PAYLOADS = [
    "<img src=//127.0.0.1:{port}/a>",
    '"><img src=x onerror="fetch(\'http://127.0.0.1:{port}/\')">',
    "'><script src=http://127.0.0.1:{port}/a.js></script>",
    "</style><link rel=stylesheet href=http://127.0.0.1:{port}/a.css>",
    "<style>@import url(http://127.0.0.1:{port}/a.css);</style>",
    "<div style=\"background:url('http://127.0.0.1:{port}/a')\">",
    "</title><meta http-equiv=refresh content='0;url=http://127.0.0.1:{port}/'>",
    "<svg><image href='http://127.0.0.1:{port}/a'/><use href='file://{file}#x'/></svg>",
    "</svg></bdi></td><iframe src='file://{file}'></iframe>",
    "<!-- --><object data='file://{file}'></object><embed src='{file}'>",
    "<video poster=http://127.0.0.1:{port}/a><source src=a></video>",
    "<base href=http://127.0.0.1:{port}/>",
    "<form action=http://127.0.0.1:{port}/><button autofocus>",
    "<a href=javascript:fetch('http://127.0.0.1:{port}/') ping=http://127.0.0.1:{port}/>x</a>",
    "&lt;img src=x&gt; &#60;script&#62; \u2028 ${{fetch()}} {{{{ 7*7 }}}}",
    "![x](http://127.0.0.1:{port}/a) [y](file://{file}) <http://127.0.0.1:{port}>",
    "$\\href{{http://127.0.0.1:{port}}}{{x}}$ $$ \\includegraphics{{{file}}}",
    "\x1b]8;;http://127.0.0.1:{port}/\x07x\x1b]8;;\x07",
]
LOADING = {"script", "link", "img", "image", "iframe", "object", "embed", "video", "audio", "base"}
INSIDE = ("data:image/png;", "#turn-")
LOADING |= {"source", "form", "frame", "input", "track", "feimage", "foreignobject", "a"}


SCRIPT = f"<script>{page_asset('page.js')}</script>"  # the one that a page may have
POLICY = ("content", content_policy(page_asset("page.js")))


SHAPES = {f"{{http://www.w3.org/2000/svg}}{tag}" for tag in ("svg", "g", "rect", "path", "text")}


class Requests(HTMLParser):
    "Collects what a browser would load or run"

    def __init__(self, page: str):
        super().__init__()
        self.found: list[str] = []
        self.in_style = False
        self.scripts = 0
        self.feed(page)
        if self.scripts > 1 or self.scripts and page.count(SCRIPT) != 1:
            self.found.append("script")

    def handle_starttag(self, tag, attrs):
        self.in_style = tag == "style"
        if tag == "script" and not attrs:
            self.scripts += 1
        elif (tag, attrs) == ("meta", [("http-equiv", "Content-Security-Policy"), POLICY]):
            return
        elif tag in LOADING and not any(str(v).startswith(INSIDE) for _, v in attrs):
            self.found.append(tag)
        for name, value in attrs:
            value = value or ""
            inside = (
                value.startswith(("#", "data:image/png;"))
                or tag == "svg"
                and name.startswith("xmlns")
            )
            loads = name.split(":")[-1] in (
                "href",
                "src",
                "srcset",
                "data",
                "action",
                "ping",
                "poster",
            )
            acts = "url(http" in value and name not in ("aria-label", "data-tools", "data-kind")
            if name.startswith("on") or acts or (loads and not inside):
                self.found.append(f"{tag} {name}={value}")
            if name == "http-equiv" or (
                name == "style" and "url(" in value and "url(#" not in value
            ):
                self.found.append(f"{tag} {name}={value}")

    def handle_data(self, data):
        if self.in_style and ("@import" in data or "url(" in data):
            self.found.append(f"style {data[:80]}")


def test_the_parser_sees_requests():
    for payload in PAYLOADS[:14]:
        assert Requests(payload.format(port=1, file="/x")).found, payload
    assert not Requests("<p>&lt;img src=x&gt;</p><style>p{color:red}</style>").found
    assert not Requests(SCRIPT).found
    for page in (SCRIPT * 2, "<script>1</script>", "<a href=javascript:x>", "<a href=//x>"):
        assert Requests(page).found, page


def conversation_of(text: str) -> Conversation:
    "Its names and contents are this text"
    tool = make_tool(
        text, text, parameters={"type": "object", "properties": {text: {"type": "integer"}}}
    )
    calls = [ToolCall(text, {text: text}, "c1"), ToolCall(text + "2", {"x": text}, "c2")]
    messages = [
        {"role": "system", "content": text},
        {"role": "user", "content": text},
        {"role": "assistant", "content": text, "tool_calls": [calls[0].to_message()]},
        {"role": "tool", "tool_call_id": "c1", "name": text, "content": text},
        {"role": "assistant", "content": text, "tool_calls": [calls[1].to_message()]},
    ]
    return Conversation(text, messages, [tool], {"source": text})


def turns_of(text: str, tokenizer) -> list[Example]:
    ids = tokenizer(text)["input_ids"]
    return [Example(ids, ids, conversation_of(text), turn) for turn in (2, 4)]


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.attack("schema")
def test_no_page_of_a_conversation_requests_anything(payload, guard, smollm):
    text = payload.format(port=guard.port, file=guard.file)
    example = turns_of(text, smollm)[0]
    view = view_tokens(smollm, example, title=text)
    table = Page(
        text, text, [Table(text, (text, text), [(text, "1"), ("2", text)], text)]
    ).to_html()
    for page in (tokens_page([SideBySide([view])]), example.conversation._repr_html_(), table):
        assert Requests(page).found == [] and len(page) > 200
    for picture in (view._repr_svg_(), SideBySide([view, view])._repr_svg_()):
        assert (
            Requests(picture).found == []
            and {one.tag for one in ElementTree.fromstring(picture).iter()} <= SHAPES
        )
    assert guard.seen() == 0


@pytest.mark.attack("schema")
def test_no_diagnosis_requests_anything(guard, tmp_path):
    texts = [payload.format(port=guard.port, file=guard.file) for payload in PAYLOADS]
    log = tmp_path / "log.jsonl"
    lines = []
    for conversation in map(conversation_of, texts):
        record = {"messages": conversation.messages, "tools": conversation.tools}
        lines += [
            record | {"id": conversation.id},
            {conversation.id: 1},
            {"messages": record["tools"]},
        ]
    log.write_text("\n".join(map(json.dumps, lines)))
    page = diagnose(log, max_reject=1.0).page.to_html()
    assert Requests(page).found == [] and "&lt;img" in page
    assert guard.seen() == 0


@pytest.mark.attack("schema")
def test_no_report_requests_anything(guard, smollm):
    texts = [payload.format(port=guard.port, file=guard.file) for payload in PAYLOADS]
    turns = [turn for text in texts for turn in turns_of(text, smollm)]
    written = [f"<tool_call>{turn.conversation.id}</tool_call>" for turn in turns]
    wrong = [Output(turn.conversation.id, True, 1, 1, 0.1) for turn in turns]
    malformed = [Output(text, True, 1, 1, 0.1) for text in written]
    scores = [evaluate(turns, outputs, parse=parse_calls) for outputs in (wrong, malformed)]
    page = Report(*scores, last_messages(turns), {texts[0]: texts[1]}).page.to_html()
    assert Requests(page).found == [] and "&lt;img" in page
    assert guard.seen() == 0
