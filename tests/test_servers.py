"""What servers do wrong, one case each: nothing is lost, nothing is counted as right, nothing else
is raised than `GenerateError`"""

import gzip
import json
import re
import socket
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from threading import Event, Thread

import pytest

from toolcall.chatml import parse_calls
from toolcall.chatml.syntaxes import SYNTAXES
from toolcall.conversation import Conversation, ToolCall, make_tool
from toolcall.evaluate import evaluate
from toolcall.generate import EndpointEngine, GenerateError, ToolCaller, predict
from toolcall.replay import replay
from toolcall.turn import Example

pytestmark = pytest.mark.attack("server")
KEY = "sk-0123456789abcdef"


def completion(finish="stop", usage=None, **message):
    message = message or {"content": "hi"}
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant"} | message}
    return json.dumps({"id": "x", "choices": [choice], "usage": usage or {}}).encode()


def called(arguments, **call):
    function = {"name": "f", "arguments": arguments}
    return completion(content=None, tool_calls=[{"type": "function", "function": function} | call])


def error(message="", **fields):
    return json.dumps({"error": {"message": message} | fields}).encode()


def raw(content, then=None):
    "An answer that is written byte by byte as it stands"

    def behave(handler):
        handler.wfile.write(content)
        if then:
            then(handler)
        handler.close_connection = True

    return behave


def http(status, body=b"", **headers):
    def behave(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return behave


def ok(body=None, **headers):
    return http(200, completion() if body is None else body, **headers)


def trickle(content):
    def behave(handler):
        while True:  # until the client closes the connection
            handler.wfile.write(content)
            handler.wfile.flush()
            time.sleep(0.03)

    return behave


def reset(handler):
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()
    handler.close_connection = True


def hang(handler):
    handler.rfile.read(1)  # ends when the client closes the connection
    handler.close_connection = True


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words = body["messages"][-1]["content"]
        self.server.asked.append((self.path, words, dict(self.headers)))
        try:
            self.server.behaviour(words)(self)
        except OSError:  # the client has gone
            self.close_connection = True

    def log_message(self, *args):
        pass

    def finish(self):
        with suppress(OSError):
            super().finish()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


@pytest.fixture(scope="module")
def server():
    local = Server(("127.0.0.1", 0), Handler)
    local.asked = []
    Thread(target=local.serve_forever, daemon=True).start()
    yield local
    local.shutdown()


@pytest.fixture(scope="module")
def make_engine(server):
    def make(behaviour, **options):
        server.asked.clear()
        server.behaviour = behaviour
        options = {"concurrency": 2, "timeout": 30, "api_key": KEY} | options
        return EndpointEngine(f"http://127.0.0.1:{server.server_port}/v1", "m", **options)

    return make


@pytest.fixture
def engine(make_engine):
    return make_engine


def prompt(words):
    return [{"role": "user", "content": words}], []


PROMPTS = [prompt(f"q{n}" if n != 2 else "bad") for n in range(6)]


def run(engine, prompts=PROMPTS, outputs=None):
    "Numbers and outputs, and what was raised; the outputs are put into `outputs` as they come"
    outputs = {} if outputs is None else outputs
    try:
        for number, output in engine.stream(prompts, progress=False):
            assert number not in outputs
            outputs[number] = output
    except GenerateError as stopped:
        return outputs, str(stopped)
    return outputs, ""


# one prompt of six: five answers and a failure with its code

REFUSALS = {
    "content filter": (http(400, error("?", code="content_filter")), "content_filter"),
    "content policy": (
        http(400, error("The response was filtered by the content management policy")),
        "content_filter",
    ),
    "flagged": (http(403, error("the input was flagged")), "content_filter"),
    "context length": (
        http(400, error("maximum context length is 4096 tokens")),
        "context_length_exceeded",
    ),
    "context size": (
        http(500, error("?", type="exceed_context_size_error")),
        "context_length_exceeded",
    ),
    "schema": (http(400, error("tools[0]: invalid schema", param="tools")), "refused_400"),
    "unprocessable": (http(422, b'{"detail": [{"loc": ["tools"], "msg": "?"}]}'), "refused_422"),
    "too large": (http(413, b"<h1>Request Entity Too Large</h1>"), "refused_413"),
    "no words": (http(400), "refused_400"),
    "not UTF-8": (http(400, b"\xff\xfe\x00"), "refused_400"),
    "a list": (http(400, b"[1, 2]"), "refused_400"),
    "text": (http(400, b'{"error": "no"}'), "refused_400"),
    "odd error": (http(400, b'{"error": {"message": {"a": [1]}, "code": 3}}'), "refused_400"),
    "null error": (http(400, b'{"error": null}'), "refused_400"),
    "deep error": (http(400, b"[" * 100_000), "refused_400"),
    "control characters": (http(400, error("\x1b[2J\u202eno")), "refused_400"),
    "finish_reason": (ok(completion("content_filter", content="He")), "content_filter"),
    "error in 200": (ok(error("flagged", code="content_filter")), "content_filter"),
    "legal": (http(451, error("not here")), "refused_451"),
}
BROKEN = {
    "HTML": (ok(b"<html><body>Welcome</body></html>"), "failed_json"),
    "empty": (ok(b""), "failed_json"),
    "204": (http(204), "failed_json"),
    "cut JSON": (ok(completion()[:-9]), "failed_json"),
    "two values": (ok(completion() + b"{}"), "failed_json"),
    "event stream": (ok(b"data: {}\n\ndata: [DONE]\n"), "failed_json"),
    "NaN": (ok(completion().replace(b"0", b"NaN")), "failed_json"),
    "key twice": (ok(b'{"choices": [], ' + completion()[1:]), "failed_json"),
    "deep": (ok(b"[" * 100_000), "failed_json"),
    "huge number": (ok(b"1" * 10_000), "failed_json"),
    "half character": (ok(completion(content="\ud800")), "failed_json"),
    "latin-1": (ok(completion(content="x").replace(b"x", b"\xe9")), "failed_encoding"),
    "UTF-16": (ok(completion().decode().encode("utf-16")), "failed_encoding"),
    "no gzip": (ok(Content_Encoding="gzip"), "failed_encoding"),
    "null": (ok(b"null"), "failed_choices"),
    "list": (ok(b"[]"), "failed_choices"),
    "string": (ok(b'"hi"'), "failed_choices"),
    "no choices": (ok(b'{"id": "x"}'), "failed_choices"),
    "empty choices": (ok(b'{"choices": []}'), "failed_choices"),
    "null choices": (ok(b'{"choices": null}'), "failed_choices"),
    "choices object": (ok(b'{"choices": {"0": {}}}'), "failed_choices"),
    "null choice": (ok(b'{"choices": [null]}'), "failed_choices"),
    "no message": (ok(b'{"choices": [{"text": "hi"}]}'), "failed_message"),
    "null message": (ok(b'{"choices": [{"message": null}]}'), "failed_message"),
    "empty message": (ok(b'{"choices": [{"message": {}}]}'), "failed_message"),
    "content number": (ok(completion(content=3)), "failed_message"),
    "content object": (ok(completion(content={"text": "hi"})), "failed_message"),
    "part without text": (ok(completion(content=[{"type": "image"}])), "failed_message"),
    "part null": (ok(completion(content=[None])), "failed_message"),
    "refusal number": (ok(completion(content=None, refusal=3)), "failed_message"),
    "tool_calls object": (ok(completion(tool_calls={})), "failed_message"),
    "tool_calls text": (ok(completion(tool_calls="f()")), "failed_message"),
    "call null": (ok(completion(tool_calls=[None])), "failed_message"),
    "no function": (ok(completion(tool_calls=[{"type": "function"}])), "failed_message"),
    "function text": (ok(completion(tool_calls=[{"function": "f"}])), "failed_message"),
    "function_call text": (ok(completion(function_call="f")), "failed_message"),
    "error in 200": (ok(b'{"error": "out of memory"}'), "failed_200"),
    "error in choice": (ok(b'{"choices": [{"error": {"message": "?"}}]}'), "failed_200"),
    "status inside": (ok(error("full", code=503)), "failed_503"),
    "no HTTP": (raw(b"220 smtp ready\r\n\r\n"), "failed_http"),
    "length too long": (raw(HEAD + b"Content-Length: 900\r\n\r\n{}"), "failed_transfer"),
    "length too short": (raw(HEAD + b"Content-Length: 9\r\n\r\n" + completion()), "failed_json"),
    "chunks cut off": (
        raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
        "failed_transfer",
    ),
    "bad chunk": (raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "failed_transfer"),
    "too large": (
        raw(HEAD + b"Content-Length: 17000000\r\n\r\n", lambda h: h.wfile.write(b" " * 17_000_000)),
        "failed_size",
    ),
    "another protocol": (
        raw(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
        "failed_http",
    ),
    "500": (http(500, error("internal error")), "failed_500"),
}
HANGING = {
    "hangs": (hang, "failed_time"),
    "trickles white space": (
        raw(HEAD + b"Content-Length: 900\r\n\r\n", trickle(b" ")),
        "failed_time",
    ),
    "trickles its head": (raw(b"HTTP/1.1 200 OK\r\nX-A: ", trickle(b"a")), "failed_time"),
    "trickles chunks": (
        raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", trickle(b"1\r\n \r\n")),
        "failed_time",
    ),
    "503 for ever": (http(503, error("full"), Retry_After="0.1"), "failed_503"),
    "429 for an hour": (http(429, error("slow down"), Retry_After="3600"), "failed_429"),
    "resets": (reset, "failed_connection"),
    "closes": (raw(b""), "failed_connection"),
}


def check_one_failure(engine, behaviour, code, **options):
    made = engine(lambda words: behaviour if words == "bad" else ok(), **options)
    outputs, stopped = run(made)
    assert (stopped, sorted(outputs)) == ("", [*range(6)])
    failed = outputs.pop(2)
    assert {output.text for output in outputs.values()} == {"hi"}
    return check_failed(failed, code)


def check_failed(failed, code):
    assert (failed.error, failed.parsed.outcome, failed.stopped) == (code, "no_answer", True)
    assert failed.parsed.reason.startswith(f"{code}: ") and len(failed.parsed.reason) < 500
    assert "\x1b" not in failed.parsed.reason and "\u202e" not in failed.parsed.reason
    return failed


@pytest.mark.parametrize("name", REFUSALS)
def test_one_prompt_is_refused(engine, server, name):
    assert check_one_failure(engine, *REFUSALS[name]).is_final
    assert len(server.asked) == 6  # a refusal is not asked again


@pytest.mark.parametrize("name", BROKEN)
def test_one_prompt_has_a_broken_answer(engine, name):
    # what a server sends beyond its length may reach another request, which is tried again
    retries = int(name == "length too short")
    assert not check_one_failure(engine, *BROKEN[name], retries=retries).is_final


@pytest.fixture(scope="module")
def never_answered(make_engine):
    "Outputs of one run in which each of these prompts comes between two that are answered"
    made = make_engine(
        lambda words: HANGING[words][0] if words in HANGING else ok(),
        concurrency=2 * len(HANGING),
        timeout=3,
    )
    started = time.monotonic()
    outputs, stopped = run(made, [prompt(words) for name in HANGING for words in ("q", name)])
    assert stopped == "" and time.monotonic() - started < 30
    assert {outputs[number].text for number in range(0, len(outputs), 2)} == {"hi"}
    return {name: outputs[2 * number + 1] for number, name in enumerate(HANGING)}


@pytest.mark.parametrize("name", HANGING)
def test_one_prompt_is_never_answered(never_answered, name):
    assert not check_failed(never_answered[name], HANGING[name][1]).is_final


# a server that is busy or broken for a while: everything is answered

SOON = format_datetime(datetime.now(UTC) - timedelta(seconds=5), usegmt=True)
PASSING = {
    "429": http(429, error("slow down"), Retry_After="0.1"),
    "429 without a word": http(429),
    "a date": http(503, Retry_After=SOON),
    "no date": http(503, Retry_After="soon"),
    "negative": http(503, Retry_After="-5"),
    "not a number": http(503, Retry_After="nan"),
    "408": http(408),
    "500": http(500, error("internal error")),
    "502": http(502, b"<html>Bad Gateway</html>"),
    "504": http(504),
    "529": http(529, error("overloaded")),
    "reset": reset,
    "closed": raw(b""),
    "HTML": ok(b"<html>starting</html>"),
    "cut off": raw(HEAD + b"Content-Length: 900\r\n\r\n{}"),
    "503 inside 200": ok(error("full", code=503)),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_passes_is_waited_for(engine, server, name):
    before = [PASSING[name]]
    made = engine(lambda words: before.pop() if words == "bad" and before else ok())
    outputs, stopped = run(made)
    assert (stopped, {output.text for output in outputs.values()}) == ("", {"hi"})
    assert [words for _, words, _ in server.asked].count("bad") == 2


def test_retry_after_is_honoured(engine):
    times = []

    def behaviour(words):
        times.append(time.monotonic())
        return http(429, Retry_After="1.5") if len(times) == 1 else ok()

    run(engine(behaviour, timeout=30), PROMPTS[:1])
    assert 1.5 <= times[1] - times[0] < 15


# an answer that is one, in one of its shapes

GOOD = {
    "parts": (completion(content=[{"type": "text", "text": "h"}, "i"]), "hi"),
    "thinking part": (
        completion(content=[{"type": "thinking", "thinking": []}, {"type": "text", "text": "hi"}]),
        "hi",
    ),
    "null content": (completion(content=None), ""),
    "refusal": (completion(content=None, refusal="I can't."), "I can't."),
    "no calls": (completion(content="hi", tool_calls=None, function_call=None), "hi"),
    "empty calls": (completion(content="hi", tool_calls=[]), "hi"),
    "byte order mark": (b"\xef\xbb\xbf" + completion(), "hi"),
    "no finish_reason": (completion(None), "hi"),
    "unknown finish_reason": (completion("eos"), "hi"),
    "no usage": (completion().replace(b', "usage": {}', b""), "hi"),
    "usage null": (completion().replace(b"{}", b"null"), "hi"),
    "usage odd": (
        completion(usage={"prompt_tokens": -3, "completion_tokens": "many"}),
        "hi",
    ),
    "error null": (b'{"error": null, ' + completion()[1:], "hi"),
    "legacy": (completion(content=None, function_call={"name": "f", "arguments": "{}"}), "f()"),
    "object": (called({"x": 1}), "f(x=1)"),
    "no type": (called('{"x": 1}', type=None), "f(x=1)"),
    "ids twice": (
        completion(
            tool_calls=[{"id": "1", "function": {"name": "f", "arguments": "{}"}}] * 2,
        ),
        "f(); f()",
    ),
    "no arguments": (completion(tool_calls=[{"function": {"name": "f"}}]), "malformed"),
    "null arguments": (called(None), "malformed"),
    "number": (called(3), "malformed"),
    "deep object": (called(json.loads('{"x": ' + "[" * 99 + "]" * 99 + "}")), "malformed"),
    "no name": (completion(tool_calls=[{"function": {"arguments": "{}"}}]), "malformed"),
    "empty name": (
        completion(tool_calls=[{"function": {"name": "", "arguments": "{}"}}]),
        "malformed",
    ),
    "custom": (
        completion(tool_calls=[{"type": "custom", "custom": {"name": "sh", "input": "ls"}}]),
        "malformed",
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_answers_in_all_their_shapes(engine, name):
    body, expected = GOOD[name]
    output = engine(lambda words: ok(body)).reply(*prompt("?"))
    calls = "; ".join(map(str, output.parsed.calls))
    shown = "malformed" if output.parsed.outcome == "malformed" else calls or output.text
    assert (shown, output.error, output.stopped) == (expected, "", True)
    assert output.prompt_tokens == output.new_tokens == 0


def test_what_is_beside_the_text_is_read(engine):
    usage = {"prompt_tokens": 30, "completion_tokens": 12}
    body = completion("length", usage, content="hi", reasoning_content="hm")
    output = engine(lambda words: ok(gzip.compress(body), Content_Encoding="gzip")).reply(
        *prompt("?")
    )
    assert (output.text, output.stopped, output.prompt_tokens, output.new_tokens) == (
        "hi",
        False,
        30,
        12,
    )


# a server that fails at every prompt stops the run

SHORT = {True: {"timeout": 1.5}, False: {"retries": 0}}  # whether it hangs

EVERYTHING = {
    "wrong key": (http(401, error(f"wrong key {KEY}")), "refused_401: wrong key", 2),
    "forbidden": (http(403, error("no access")), "refused_403: no access", 2),
    "unknown model": (http(404, error("no model m")), "refused_404: no model m", 2),
    "wrong address": (http(405, b"<html>"), "refused_405", 2),
    "quota": (http(429, error("pay", code="insufficient_quota")), "refused_429: pay", 2),
    "not implemented": (http(501), "refused_501", 2),
    "redirect": (http(307, Location="http://example.invalid/v1"), "example.invalid", 2),
    "redirect here": (http(308, Location="/v2/chat/completions"), "redirects to /v2", 2),
    "redirect nowhere": (http(302), "redirects to another place", 2),
    "wrong parameter": (http(400, error("unknown field top_q")), "unknown field top_q", 30),
    "HTML": (ok(b"<html>Welcome"), "failed_json: the answer is not JSON", 30),
    "500": (http(500, error("out of memory")), "failed_500: out of memory", 30),
    "503": (http(503, error("full")), "failed_503: full", 30),
    "hangs": (hang, "failed_time: no whole answer in 1.5 seconds", 30),
    "resets": (reset, "failed_connection", 30),
}


@pytest.mark.parametrize("name", EVERYTHING)
def test_what_every_prompt_gets_stops_the_run(engine, server, name):
    behaviour, words, most = EVERYTHING[name]
    outputs, stopped = run(
        engine(lambda _: behaviour, **SHORT[name == "hangs"]), [prompt(f"q{n}") for n in range(40)]
    )
    assert outputs == {} and "answered 0 of 40 prompts, then failed: " in stopped
    assert words in stopped and KEY not in stopped
    assert 0 < len(server.asked) <= most


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = time.monotonic()
    outputs, stopped = run(EndpointEngine(f"http://127.0.0.1:{port}/v1", "m"))
    assert outputs == {} and "answered 0 of 6" in stopped and "is the address right?" in stopped
    assert time.monotonic() - started < 30


def test_a_redirect_carries_no_key_to_another_server(engine, server):
    other = Server(("127.0.0.1", 0), Handler)
    other.asked, other.behaviour = [], lambda words: ok()
    Thread(target=other.serve_forever, daemon=True).start()
    place = f"http://127.0.0.1:{other.server_port}/v1/chat/completions?key={KEY}"
    _, stopped = run(engine(lambda words: http(307, Location=place)))
    other.shutdown()
    assert other.asked == [] and str(other.server_port) in stopped and KEY not in stopped


@pytest.mark.parametrize("name", ["500", "HTML"])
def test_failures_between_answers_stop_nothing(engine, name):
    behaviour, code = BROKEN[name]
    made = engine(lambda words: behaviour if words == "bad" else ok(), retries=0)
    outputs, stopped = run(made, [prompt("bad" if n % 4 == 3 else "q") for n in range(40)])
    assert stopped == "" and [outputs[n].error for n in range(40)] == ["", "", "", code] * 10


@pytest.mark.parametrize("words", ["the same", "words that differ"])
def test_two_refusals_without_an_answer(engine, words):
    def behaviour(asked):
        return http(400, error(words if words == "the same" else f"{words} {'x' * int(asked[1])}"))

    outputs, stopped = run(engine(behaviour), [prompt("q1"), prompt("q2")])
    if words == "the same":
        assert outputs == {} and "answered 0 of 2" in stopped
    else:
        assert {output.error for output in outputs.values()} == {"refused_400"} and not stopped


def wait_until(condition):
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("the condition never held")


def test_answers_under_way_are_kept_when_the_server_fails(engine, server):
    failed = Event()

    def fail(handler):
        wait_until(lambda: len(server.asked) == 6)  # all are under way
        http(401, error("expired"))(handler)
        failed.set()

    def slow(handler):
        failed.wait(20)
        time.sleep(0.2)
        ok()(handler)

    def behaviour(words):
        return fail if words == "bad" else slow

    outputs, stopped = run(engine(behaviour, concurrency=6))
    assert sorted(outputs) == [0, 1, 3, 4, 5] and "answered 5 of 6" in stopped


def test_a_caller_who_stops_early_ends_the_requests(engine, server):
    made = engine(lambda words: ok() if words == "q0" else hang, timeout=60)
    stream = made.stream(PROMPTS, progress=False)
    started = time.monotonic()
    assert next(stream)[0] == 0
    stream.close()
    assert time.monotonic() - started < 30 and len(server.asked) <= 3


def test_https_to_a_server_that_has_none(engine, server):
    made = engine(lambda words: ok())
    made = EndpointEngine(made.base_url.replace("http:", "https:"), "m", api_key=KEY)
    outputs, stopped = run(made, [prompt("by TLS")])
    assert outputs == {} and "failed_connection" in stopped
    # a late try of another test's client may have reached this port
    assert "by TLS" not in [words for _, words, _ in server.asked]


@pytest.mark.parametrize("proxy", ["http://[::1", "nonsense://x", "socks5://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used(engine, monkeypatch, proxy):
    made = engine(lambda words: ok())
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    outputs, stopped = run(made)
    assert outputs == {} and stopped and KEY not in stopped


ENDS = """
from toolcall.generate import EndpointEngine

def first(stream):
    for _ in stream:
        raise OSError("disk full")

engine = EndpointEngine("http://127.0.0.1:%d/v1", "m")
first(engine.stream([([{"role": "user", "content": "q"}], [])] * 50, progress=False))
"""


def test_a_program_that_fails_while_requests_are_under_way_ends(engine, server):
    engine(lambda words: ok())
    command = [sys.executable, "-c", ENDS % server.server_port]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1 and "disk full" in ended.stderr


# predict, evaluate, the tool loop and the replay

TOOLS = [make_tool("f", parameters={"type": "object", "properties": {"x": {"type": "integer"}}})]


def example(number, call):
    answer = {"role": "assistant", "content": "" if call else "hi"}
    if call:
        answer["tool_calls"] = [ToolCall("f", {"x": 1}, "1").to_message()]
    messages = [{"role": "user", "content": f"q{number}"}, answer]
    return Example([1], [2], Conversation(f"c{number}", messages, TOOLS), 1)


def test_one_bad_prompt_of_40_is_one_failure_of_40(engine, tmp_path, server):
    made = engine(
        lambda words: http(400, error("content policy")) if words == "q3" else ok(),
        concurrency=8,
    )
    examples = [example(number, call=number == 4) for number in range(40)]
    outputs = predict(made, examples, path=tmp_path / "outputs.jsonl", progress=False)
    evaluation = evaluate(examples, outputs, parse=parse_calls)
    assert evaluation.no_answer == {"content_filter": 1} and len(evaluation.scores) == 40
    assert sum(score.exact for score in evaluation.scores) == 38
    assert "content_filter 1" in repr(evaluation)
    server.asked.clear()  # a refusal is kept, and not asked again
    assert predict(made, examples, path=tmp_path / "outputs.jsonl", progress=False) == outputs
    assert server.asked == []
    assert KEY not in (tmp_path / "outputs.jsonl").read_text() + made.identity()


def test_a_failure_that_may_pass_is_asked_again_at_the_next_start(engine, tmp_path, server):
    examples = [example(number, call=False) for number in range(10)]
    path = tmp_path / "outputs.jsonl"
    sick = engine(lambda words: ok(b"<html>") if words == "q3" else ok(), retries=0)
    assert predict(sick, examples, path=path, progress=False)[3].error == "failed_json"
    well = engine(lambda words: ok())
    assert {output.text for output in predict(well, examples, path=path, progress=False)} == {"hi"}
    assert [words for _, words, _ in server.asked] == ["q3"]


@pytest.mark.parametrize("name", ["500", "resets", "hangs", "HTML", "schema"])
def test_the_only_prompt_that_is_left_is_the_bad_one(engine, name):
    behaviour, code = (BROKEN | HANGING | REFUSALS)[name]
    options = SHORT[name == "hangs"]
    made = engine(lambda words: behaviour if words == "bad" else ok(), **options)
    outputs, stopped = run(made, [prompt("bad")])
    assert (outputs[0].error, stopped) == (code, "")


@pytest.mark.parametrize("death", [reset, http(503), http(500), ok(b"<html>"), http(401), hang])
def test_a_server_that_dies_loses_nothing(engine, tmp_path, server, death):
    examples = [example(number, call=False) for number in range(20)]
    path = tmp_path / "outputs.jsonl"
    path.touch()
    numbers = count()

    def behaviour(words):
        if next(numbers) < 6:
            return ok()
        wait_until(lambda: path.read_bytes().count(b"\n") == 6)
        return death

    with pytest.raises(GenerateError, match="answered 6 of 20 prompts, then failed"):
        predict(engine(behaviour, **SHORT[death is hang]), examples, path=path, progress=False)
    assert len(path.read_text().splitlines()) == 6
    again = engine(lambda words: ok())
    assert len(predict(again, examples, path=path, progress=False)) == 20
    assert len(server.asked) == 14 and len(path.read_text().splitlines()) == 20


@pytest.mark.parametrize("dies", [True, False])
def test_the_last_prompts_are_lost_or_the_server(engine, dies):
    answers = []
    taken = {}

    def late(handler):
        wait_until(lambda: len(taken) == 4)
        reset(handler)

    def behaviour(words):
        if words in ("q4", "q5"):
            return late
        answers.append(words)
        return reset if dies and len(answers) > 4 else ok()

    outputs, stopped = run(engine(behaviour, retries=0, concurrency=8), outputs=taken)
    if dies:
        assert sorted(outputs) == [0, 1, 2, 3] and "answered 4 of 6" in stopped
    else:  # a prompt that was answered before is answered again
        assert [outputs[number].error for number in (4, 5)] == ["failed_connection"] * 2
        assert len(answers) == 5 and stopped == ""


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (http(400, error("too many tokens")), "after 1 output no answer: context_length_exceeded"),
        (http(401, error("expired")), "then failed: refused_401: expired"),
        (reset, "then failed: failed_connection"),
        (ok(b"null"), "then failed: failed_choices"),
    ],
)
def test_a_tool_loop_ends_with_a_clear_error(engine, failure, words):
    steps = [ok(called('{"x": 1}')), failure]
    made = engine(lambda _: steps.pop(0) if len(steps) > 1 else steps[0], retries=0)
    runs = []

    def f(x: int) -> str:
        runs.append(x)
        return "done"

    question = [{"role": "user", "content": "?"}]
    with pytest.raises(GenerateError, match=words):
        ToolCaller(made, [f], schemas=TOOLS).ask(question)
    assert len(question) == 1 and runs == [1]


def test_a_replay_counts_a_refused_conversation_and_names_one_that_ends_it(engine):
    talks = [example(number, call=number == 1).conversation for number in range(3)]
    refusing = engine(lambda words: http(400, error("too many tokens")) if words == "q2" else ok())
    replayed = replay(refusing, talks, progress=False)
    assert replayed.ended == {"answer": 2, "no_answer": 1}
    assert replayed.metrics["trajectory_subset"].value == 2 / 3
    dying = engine(lambda words: http(401, error("expired")) if words == "q2" else ok())
    with pytest.raises(GenerateError, match="conversation c2, after 2 of 3: .* expired"):
        replay(dying, talks, progress=False)


# the same text means the same from a server and from a local model

TEXTS = [
    "{}",
    '{"x": 1}',
    ' {"x": 1}\n',
    '{"x": "é\\u00e9"}',
    '{"x": 1.0, "y": 123456789012345678901}',
    '{"x": ' + "[" * 64 + "]" * 64 + "}",
    '{"x": ' + "[" * 65 + "]" * 65 + "}",
    '{"x": ' + '{"a": ' * 65 + "1" + "}" * 65 + "}",
    '{"x": ' + "[" * 3000 + "]" * 3000 + "}",
    '{"x": ' + "[" * 100_000,
    '{"x": 1, "x": 2}',
    '{"x": {"a": 1, "a": 1}}',
    '{"x": NaN}',
    '{"x": -Infinity}',
    '{"x": 1e999}',
    '{"x": ' + "1" * 5000 + "}",
    '{"x": 1} and more',
    '{"x": 1}}',
    '{"x": 1},',
    '{"x": 1',
    '{"x": "\\ud800"}',
    '{"x": 01}',
    "{'x': 1}",
    '{"x": "a\nb"}',
    '"{\\"x\\": 1}"',
    "[1]",
    "null",
    "true",
    "",
    " ",
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:24])
def test_the_same_text_means_the_same(engine, text):
    remote = engine(lambda words: ok(called(text))).reply(*prompt("?")).parsed
    local = {
        "hermes": f'<tool_call>{{"name": "f", "arguments": {text}}}</tool_call>',
        "llama": f'{{"name": "f", "parameters": {text}}}',
        "mistral": f"[TOOL_CALLS]f[ARGS]{text}",
        "harmony": f"<|channel|>commentary to=functions.f<|message|>{text}<|call|>",
    }
    for name, written in local.items():
        parsed = SYNTAXES[name].parse(written, [])
        assert (parsed.outcome, parsed.calls) == (remote.outcome, remote.calls), name


@pytest.mark.parametrize("levels", [10, 66, 500, 3000, 100_000])
@pytest.mark.parametrize("syntax", ["function_xml", "glm"])
def test_nesting_in_tagged_arguments(levels, syntax):
    value = "[" * levels + "]" * levels
    written = {
        "function_xml": f"<tool_call><function=f><parameter=x>{value}</parameter></function>"
        "</tool_call>",
        "glm": f"<tool_call>f<arg_key>x</arg_key><arg_value>{value}</arg_value></tool_call>",
    }[syntax]
    array = make_tool("f", parameters={"type": "object", "properties": {"x": {"type": "array"}}})
    parsed = SYNTAXES[syntax].parse(written, [array])
    assert parsed.outcome == ("call" if levels < 64 else "malformed")


@pytest.mark.parametrize("levels", [50, 70, 200, 500, 1000, 5000])
def test_a_deep_output_is_scored_and_saved(levels, tmp_path):
    from toolcall.turn import Output

    deep = f'{{"name": "f", "arguments": {{"x": {"[" * levels}{"]" * levels}}}}}'
    output = Output(f"<tool_call>{deep}</tool_call>", True, 1, 1, 0.1)
    evaluation = evaluate([example(0, call=True)], [output], parse=parse_calls)
    assert evaluation.scores[0].outcome == ("call" if levels < 64 else "malformed")
    evaluation.save(tmp_path / "evaluation.json")


# settings that can't be right are refused before anything is sent

WRONG = {
    "no scheme": ({"base_url": "localhost:8000/v1"}, "base_url"),
    "no host": ({"base_url": "http:///v1"}, "base_url"),
    "file": ({"base_url": "file:///etc/passwd"}, "base_url"),
    "no address": ({"base_url": "http://[::1"}, "base_url"),
    "no key": ({"api_key": None}, "api_key"),
    "line in key": ({"api_key": f"{KEY}\r\nX: y"}, "api_key"),
    "letter in key": ({"api_key": f"{KEY}é"}, "api_key"),
    "no time": ({"timeout": 0}, "timeout"),
    "time null": ({"timeout": None}, "timeout"),
    "NaN time": ({"timeout": float("nan")}, "timeout"),
    "no requests": ({"concurrency": 0}, "concurrency"),
    "NaN": ({"temperature": float("nan")}, "JSON"),
    "a set": ({"stop": {1}}, "JSON"),
    "stream": ({"stream": True}, "stream can't be set"),
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_cannot_be_sent(name):
    options, words = WRONG[name]
    with pytest.raises(GenerateError, match=re.escape(words)) as raised:
        EndpointEngine(**{"base_url": "http://localhost/v1", "model": "m"} | options)
    assert KEY not in str(raised.value)


def test_an_engine_in_a_message_shows_no_key():
    made = EndpointEngine("http://user:secret@localhost/v1", "m", api_key=KEY)
    assert KEY not in f"{made!r} {made.server!r}"
    assert "secret" not in f"{made.server!r} {made.server.shown}"
