"Real servers on tiny models, and servers that lie: what a certificate says of each"

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from threading import Thread

import pytest
from conftest import ROOT, make_tokenizer

httpx2 = pytest.importorskip("httpx2")
torch = pytest.importorskip("torch")

from transformers import (  # noqa: E402
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from toolcall.chatml import ChatML, encode  # noqa: E402
from toolcall.conversation import Conversation, ToolCall  # noqa: E402
from toolcall.errors import ServeError  # noqa: E402
from toolcall.models import load_tokenizer  # noqa: E402
from toolcall.pipeline.commands import main  # noqa: E402
from toolcall.saving import save_conversations  # noqa: E402
from toolcall.serve.certificate import Certificate  # noqa: E402
from toolcall.serve.certifying import certify  # noqa: E402
from toolcall.serve.servers import start_server  # noqa: E402

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": "",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    for name in ("get_weather", "get_time")
]


def dialogue(city: str, names: tuple[str, ...]) -> Conversation:
    calls = [
        ToolCall(name, {"city": city}, f"call_{number}").to_message()
        for number, name in enumerate(names)
    ]
    results = [{"role": "tool", "content": "fine", "tool_call_id": call["id"]} for call in calls]
    messages = [
        {"role": "user", "content": f"{city}: {' and '.join(names)}?"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        *results,
        {"role": "assistant", "content": f"All is fine in {city}."},
    ]
    return Conversation(city, messages, TOOLS)


DIALOGUES = [
    dialogue("Zürich", ("get_weather",)),
    dialogue("Oslo", ("get_weather", "get_time")),
]


def make_run(folder, tokenizer, model, style="auto", dialogues=None):
    "A run whose model knows its held-out turns by heart"
    chatml = ChatML(tokenizer, style)
    dialogues = dialogues or DIALOGUES
    examples = encode(chatml, dialogues).examples
    assert len(examples) == 2 * len(dialogues)
    width = max(map(len, examples))
    ids = torch.zeros(len(examples), width, dtype=torch.long)
    targets = torch.full((len(examples), width), -100)
    for row, example in enumerate(examples):
        both = [*example.prompt_ids, *example.completion_ids]
        ids[row, : len(both)] = torch.tensor(both)
        targets[row, len(example.prompt_ids) - 1 : len(both) - 1] = torch.tensor(
            example.completion_ids
        )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, fused=True)
    for _ in range(200):
        hidden = model.model(ids).last_hidden_state[targets >= 0]
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden), targets[targets >= 0])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.02:
            break
    assert loss < 0.1
    stop = examples[0].completion_ids[-1]
    model.generation_config.eos_token_id = model.config.eos_token_id = stop
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_conversations(dialogues, folder / "data" / "test.jsonl")
    return folder


def smollm_tokenizer():
    return load_tokenizer("SmolLM2-135M-Instruct")


def make_smollm(folder, dialogues=None):
    tokenizer = smollm_tokenizer()
    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=True, **SIZES)
    return make_run(folder, tokenizer, LlamaForCausalLM(config), "hermes", dialogues)


def make_qwen3(folder):
    tokenizer = make_tokenizer("qwen3")
    config = Qwen3Config(vocab_size=len(tokenizer), head_dim=32, tie_word_embeddings=True, **SIZES)
    return make_run(folder, tokenizer, Qwen3ForCausalLM(config))


def make_llama3(folder):
    tokenizer = smollm_tokenizer()
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0}
    rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    rope |= {"original_max_position_embeddings": 1024}
    config = LlamaConfig(vocab_size=len(tokenizer), rope_parameters=rope, **SIZES)
    return make_run(folder, tokenizer, LlamaForCausalLM(config), "hermes")


def make_mistral(folder):
    tokenizer = smollm_tokenizer()
    config = MistralConfig(vocab_size=len(tokenizer), sliding_window=None, **SIZES)
    return make_run(folder, tokenizer, MistralForCausalLM(config), "function_call")


KINDS = {
    "smollm": make_smollm,
    "qwen3": make_qwen3,
    "llama3": make_llama3,
    "mistral": make_mistral,
}


@pytest.fixture(scope="module")
def mistral_common_imports(tmp_path_factory):
    "mistral-common is installed without what it needs, and transformers imports it for Mistral"
    folder = tmp_path_factory.mktemp("stub")
    if find_spec("mistral_common") and not find_spec("pydantic_extra_types"):
        (folder / "pydantic_extra_types").mkdir()
        (folder / "pydantic_extra_types" / "language_code.py").write_text("LanguageAlpha2 = str")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="module", params=KINDS)
def run(request, tmp_path_factory, mistral_common_imports):
    torch.manual_seed(0)
    return KINDS[request.param](tmp_path_factory.mktemp(request.param))


def test_real_servers_give_what_was_trained(run):
    whole = {}
    for server in ("llama.cpp", "transformers"):
        certificate = certify(run, server=server, turns=4, max_new_tokens=64)
        assert certificate.passed, repr(certificate)
        assert certificate.turns == 4 and certificate.calls >= 1
        assert certificate.equal + len(certificate.ties) == 4 and certificate.equal >= 3
        assert certificate.checks["answer"] == certificate.checks["prompt"] == 8
        whole[server] = certificate
    assert whole["llama.cpp"].prompts == "ids" and whole["transformers"].prompts == "counts"
    assert Certificate.load(run) == whole


@pytest.fixture(scope="module")
def smollm_run(tmp_path_factory):
    torch.manual_seed(0)
    return make_smollm(tmp_path_factory.mktemp("lies"))


class Liar(ThreadingHTTPServer):
    "Answers the turns of `DIALOGUES` as they were logged, but for one lie"

    def __init__(self, lie, run):
        super().__init__(("127.0.0.1", 0), Handler)
        self.lie = lie
        self.shift: int | None = None  # added to the last id of a prompt; None: no ids are told
        self.seen_keys: set[str] = set()
        examples = encode(ChatML(load_tokenizer(run)), DIALOGUES).examples
        self.prompts = {self.key(e.conversation.messages[: e.turn]): e.prompt_ids for e in examples}
        self.answers = {
            self.key(e.conversation.messages[: e.turn]): (
                e.conversation.messages[e.turn],
                len(e.prompt_ids),
            )
            for e in examples
        }

    @staticmethod
    def key(messages):
        return f"{len(messages)} {messages[0]['content']}"

    def answer(self, request):
        "The message, the reason why it ends, and the tokens of its prompt"
        message, tokens = self.answers[self.key(request["messages"])]
        calls = [
            call | {"function": call["function"] | {"arguments": json.dumps(arguments)}}
            for call in message.get("tool_calls", [])
            for arguments in [call["function"]["arguments"]]
        ]
        said = {"role": "assistant", "content": message["content"] or None}
        finish = "tool_calls" if calls else "stop"
        if calls:
            said["tool_calls"] = calls
        if self.lie:
            said, finish, tokens = self.lie(said, finish, tokens, request)
        return said, finish, tokens


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def send(self, status, content, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self):
        found = self.path == "/v1/models"
        self.send(200 if found else 404, b'{"data": [{"id": "liar"}]}' if found else b"{}")

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen_keys.add(self.headers.get("Authorization", ""))
        if self.path == "/tokenize" and self.server.shift is not None:
            *ids, last = self.server.prompts[self.server.key(body["messages"])]
            return self.send(200, json.dumps({"tokens": [*ids, last + self.server.shift]}).encode())
        if self.path != "/v1/chat/completions":
            return self.send(404, b"{}")
        try:
            said, finish, tokens = self.server.answer(body)
        except RuntimeError as error:
            return self.send(500, json.dumps({"error": {"message": str(error)}}).encode())
        usage = {"prompt_tokens": tokens, "completion_tokens": 1, "total_tokens": tokens + 1}
        head = {"id": "1", "created": 0, "model": "liar"}
        if not body.get("stream"):
            choice = {"index": 0, "message": said, "finish_reason": finish}
            answer = head | {"object": "chat.completion", "choices": [choice], "usage": usage}
            return self.send(200, json.dumps(answer).encode())
        calls = [{"index": n} | call for n, call in enumerate(said.get("tool_calls", []))]
        delta = said | ({"tool_calls": calls} if calls else {})
        parts = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": usage},
        ]
        head["object"] = "chat.completion.chunk"
        lines = [f"data: {json.dumps(head | part)}\n\n" for part in parts]
        return self.send(200, ("".join(lines) + "data: [DONE]\n\n").encode(), "text/event-stream")


def drop_a_call(said, finish, tokens, request):
    return (
        said | {"tool_calls": said["tool_calls"][:1]} if "tool_calls" in said else said,
        finish,
        tokens,
    )


def drop_all_calls(said, finish, tokens, request):
    return {"role": "assistant", "content": said["content"] or ""}, "stop", tokens


def other_arguments(said, finish, tokens, request):
    calls = json.loads(json.dumps(said.get("tool_calls", [])).replace("Oslo", "Rome"))
    return said | ({"tool_calls": calls} if calls else {}), finish, tokens


def other_name(said, finish, tokens, request):
    calls = json.loads(json.dumps(said.get("tool_calls", [])).replace("get_time", "get_tide"))
    return said | ({"tool_calls": calls} if calls else {}), finish, tokens


def half_arguments(said, finish, tokens, request):
    calls = json.loads(json.dumps(said.get("tool_calls", [])).replace('}"', '"'))
    return said | ({"tool_calls": calls} if calls else {}), finish, tokens


def other_stop(said, finish, tokens, request):
    return said, "length" if finish == "stop" else finish, tokens


def calls_in_the_text(said, finish, tokens, request):
    functions = [call["function"] for call in said.get("tool_calls", [])]
    texts = [
        f'<tool_call>\n{{"name": "{one["name"]}", "arguments": {one["arguments"]}}}\n</tool_call>'
        for one in functions
    ]
    said = {"role": "assistant", "content": "\n".join(texts) or said["content"]}
    return said, "stop", tokens


def other_prompt(said, finish, tokens, request):
    return said, finish, tokens + 1


def other_words(said, finish, tokens, request):
    return said | {"content": said["content"] and f"{said['content']} Bye."}, finish, tokens


def only_streamed(said, finish, tokens, request):
    return (
        other_prompt(said, finish, tokens, request)
        if request.get("stream")
        else (said, finish, tokens)
    )


def no_answer(said, finish, tokens, request):
    if finish == "tool_calls":
        raise RuntimeError("the parser has failed")
    return said, finish, tokens


LIES = {  # a lie, in how many of four turns, and what the certificate names first
    drop_a_call: (1, "calls", 'not get_weather({"city": "Oslo"}), get_time'),
    drop_all_calls: (2, "calls", "no call, not get_weather"),
    other_arguments: (1, "calls", 'get_weather({"city": "Rome"})'),
    other_name: (1, "calls", "get_tide"),
    half_arguments: (2, "calls", "get_weather("),
    other_stop: (2, "stop", "length, not stop"),
    calls_in_the_text: (2, "calls", "left in the text"),
    other_prompt: (4, "prompt", "prompt tokens, not"),
    other_words: (2, "text", "Bye."),
    only_streamed: (4, "prompt", "prompt tokens, not"),
    no_answer: (2, "answer", "the parser has failed"),
}


def ask_liar(lie, run, shift=None, **options):
    server = Liar(lie, run)
    server.shift = shift
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        return certify(run, server=url, turns=4, max_new_tokens=64, **options), server
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
def test_a_server_that_lies_is_caught(lie, smollm_run):
    certificate, _ = ask_liar(lie, smollm_run)
    turns, check, words = LIES[lie]
    assert not certificate.passed and not certificate.ties and not certificate.constrained
    assert len(certificate.differs) == turns and certificate.equal == 4 - turns
    assert certificate.differs[0]["check"] == check
    assert any(words in one["words"] for one in certificate.differs)
    streamed = 1 if lie is only_streamed else 2
    assert certificate.checks[check] == 8 - turns * streamed


def test_prompts_are_compared_by_their_ids_where_a_server_tells_them(smollm_run):
    same, _ = ask_liar(None, smollm_run, shift=0)
    assert same.passed and same.prompts == "ids"
    other, _ = ask_liar(None, smollm_run, shift=1)
    assert other.equal == 0 and other.checks["prompt"] == 0 and other.checks["calls"] == 8
    assert all(one["check"] == "prompt" for one in other.differs)


def test_a_key_in_an_address_is_in_no_file(smollm_run):
    server = Liar(None, smollm_run)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://me:s-0987654321@127.0.0.1:{server.server_address[1]}/v1"
    try:
        certificate = certify(smollm_run, server=url, turns=1, max_new_tokens=64)
    finally:
        server.shutdown()
        server.server_close()
    assert certificate.server == url.replace("me:s-0987654321@", "")
    assert "s-0987654321" not in (smollm_run / "certificate.json").read_text("utf-8")
    with pytest.raises(ServeError) as gone:
        certify(smollm_run, server=url, turns=1)
    assert "names no model" in str(gone.value) and "s-0987654321" not in str(gone.value)


def test_a_faithful_server_passes_and_its_key_is_kept(smollm_run):
    certificate, server = ask_liar(None, smollm_run, key="k-1234567890")
    assert certificate.passed and certificate.equal == 4
    assert server.seen_keys == {"Bearer k-1234567890"}
    assert "k-1234567890" not in (smollm_run / "certificate.json").read_text()


def test_a_call_that_the_grammar_forbids_is_counted_apart(tmp_path):
    "The model makes up a key: llama.cpp can't give it, and the folder is not at fault"
    narrow = json.loads(json.dumps(TOOLS))
    narrow[0]["function"]["parameters"]["properties"] = {"place": {"type": "string"}}
    torch.manual_seed(0)
    run = make_smollm(tmp_path, [replace(DIALOGUES[0], tools=narrow)])
    certificate = certify(run, server="llama.cpp", turns=4, max_new_tokens=64)
    assert certificate.passed and len(certificate.constrained) == 1, repr(certificate)
    assert "city" in certificate.constrained[0]["forbidden"]
    assert certificate.checks["calls"] == 2


def test_the_command_is_a_gate(smollm_run, capsys, monkeypatch):
    monkeypatch.setenv("LIAR_KEY", "k-1234567890")
    for lie, code in ((None, 0), (other_stop, 1)):
        server = Liar(lie, smollm_run)
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        words = ["certify", str(smollm_run), "--with", url, "--turns", "4"]
        assert main([*words, "--api-key-env", "LIAR_KEY"]) == code
        assert server.seen_keys == {"Bearer k-1234567890"}
        server.shutdown()
        server.server_close()
    printed = capsys.readouterr().out
    assert "passed" in printed and "FAILED" in printed and "k-1234567890" not in printed
    assert main(["certify", str(smollm_run), "--with", "lama.cpp"]) == 2
    assert main(["certify", str(smollm_run / "data")]) == 2


def test_a_server_that_goes_away_is_told(smollm_run):
    server = Liar(None, smollm_run)
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    server.server_close()
    with pytest.raises(ServeError, match="names no model"):
        certify(smollm_run, server=url, turns=4)
    with pytest.raises(ServeError, match="no longer answers"):
        certify(smollm_run, server=url, turns=4, model="liar")


def test_an_answer_that_is_broken_off_is_a_turn_without_one(smollm_run):
    "The server goes on: the turn differs, and the others are asked"
    seen = []

    def broken_off(self):
        length = int(self.headers["Content-Length"])
        if self.path == "/v1/chat/completions" and not seen:
            seen.append(self.rfile.read(length))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"{")
            self.close_connection = True
        else:
            Handler.do_POST(self)

    server = Liar(None, smollm_run)
    server.RequestHandlerClass = type("BreaksOff", (Handler,), {"do_POST": broken_off})
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    certificate = certify(smollm_run, server=url, turns=4)
    server.shutdown()
    server.server_close()
    assert seen and not certificate.passed
    assert (certificate.equal, len(certificate.differs)) == (3, 1), repr(certificate)
    assert "broken off" in repr(certificate.differs)


HOLD = """
import signal, sys, time
from toolcall.serve.servers import start_server

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
with start_server("llama.cpp", "unused", gguf=sys.argv[1], context=512) as server:
    print(server.root, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_no_server_is_left_over(number, smollm_run, tmp_path):
    from toolcall.serve.gguf import write_gguf

    file = write_gguf(smollm_run, tmp_path / "model.gguf", kind="f16")
    command = [sys.executable, "-c", HOLD, str(file)]
    holder = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT
    )
    root = holder.stdout.readline().strip()
    assert httpx2.get(f"{root}/health").status_code == 200
    os.kill(holder.pid, number)
    holder.wait(20)
    deadline = time.monotonic() + 10
    with pytest.raises(httpx2.ConnectError):
        while time.monotonic() < deadline:
            httpx2.get(f"{root}/health")
            time.sleep(0.1)


def test_a_server_that_dies_says_why(tmp_path):
    (tmp_path / "broken.gguf").write_bytes(b"GGUF, but not really")
    server = start_server("llama.cpp", tmp_path, gguf=str(tmp_path / "broken.gguf"))
    with pytest.raises(ServeError, match="ended before it was ready.*broken.gguf"), server:
        pass
