"Servers as columns of an evaluation, calls left in the text, the latency budget and the gate"

import json
import os
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from toolcall.chatml import ChatML
from toolcall.generate import EndpointEngine, HFEngine, predict
from toolcall.models import load_tokenizer
from toolcall.pipeline.commands import main
from toolcall.pipeline.config import make_config
from toolcall.pipeline.data import make_data
from toolcall.pipeline.exits import gate_code
from toolcall.report.files import load_report, refresh_report, save_report
from toolcall.report.latency_budget import check_latency
from toolcall.samples import sample_log
from toolcall.saving import load_conversations

KEY = "sk-never-in-a-file-0123"
SYNTAXES = {
    "hermes": '<tool_call>{"name": "NAME", "arguments": ARGUMENTS}</tool_call>',
    "function_call": '<function_call>{"name": "NAME", "arguments": ARGUMENTS}</function_call>',
    "mistral": '[TOOL_CALLS][{"name": "NAME", "arguments": ARGUMENTS}]',
    "llama": '{"name": "NAME", "parameters": ARGUMENTS}',
    "qwen3.5": "<tool_call>\n<function=NAME>\n</function>\n</tool_call>",
    "harmony": "<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>ARGUMENTS",
}


class Server:
    "Answers as a log says; the calls stand in their field, or in the text in some syntax"

    def __init__(self, conversations=()):
        self.logged = {}
        for one in conversations:
            for turn in one.turns:
                asked = [message["content"] for message in one.messages[:turn]]
                self.logged[json.dumps(asked)] = one.messages[turn]
        self.asked = []
        self.in_text = ""
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                length = int(self.headers["Content-Length"])
                server.answer(self, json.loads(self.rfile.read(length)))

            def do_GET(self):
                self.send_response(404)
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    def answer(self, handler, body):
        asked = [message["content"] for message in body["messages"]]
        self.asked.append((body["model"], handler.headers["Authorization"]))
        logged = self.logged.get(json.dumps(asked), {"content": "?"})
        message = {"role": "assistant", "content": logged["content"]}
        functions = [call["function"] for call in logged.get("tool_calls", [])]
        if functions and self.in_text:
            [first, *_] = functions
            text = SYNTAXES[self.in_text].replace("NAME", first["name"])
            message["content"] = text.replace("ARGUMENTS", json.dumps(first["arguments"]))
        elif functions:
            written = [f | {"arguments": json.dumps(f["arguments"])} for f in functions]
            message["tool_calls"] = [{"function": function} for function in written]
        answer = {"choices": [{"finish_reason": "stop", "message": message}]}
        handler.send_response(200)
        handler.end_headers()
        handler.wfile.write(json.dumps(answer).encode())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    "A run whose base and tuned model are tiny and random"
    folder = tmp_path_factory.mktemp("columns")
    tokenizer = load_tokenizer("SmolLM2-135M-Instruct")
    ChatML(tokenizer)
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True}
    for name in ("base", "run"):
        model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **sizes, **heads))
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    values = {
        "log_path": str(sample_log()),
        "model_name_or_path": str(folder / "base"),
        "output_dir": str(folder / "run"),
        "train_data_path": str(folder / "train.jsonl"),
        "generation": {"max_new_tokens": 2},
        "evaluation": {"max_turns": 12, "latency_turns": 2, "retention": False},
    }
    make_data(make_config(values))
    (folder / "c.yaml").write_text(json.dumps(values))
    server = Server(load_conversations(folder / "run" / "data" / "test.jsonl"))
    yield folder, server
    server.http.shutdown()


def run_eval(folder, *arguments):
    return main(["eval", str(folder / "c.yaml"), *arguments])


def test_a_server_is_a_third_column(finished, monkeypatch, capsys):
    folder, server = finished
    run = folder / "run"
    assert run_eval(folder) == 0
    kept = {
        name: (run / "predictions" / f"{name}.jsonl").read_bytes() for name in ("base", "tuned")
    }
    generated = []
    stream = HFEngine.stream
    monkeypatch.setattr(
        HFEngine,
        "stream",
        lambda s, prompts, **o: generated.extend(prompts) or stream(s, prompts, **o),
    )
    monkeypatch.setenv("LARGE_KEY", KEY)
    endpoint = ("--endpoint", server.url, "--model", "large", "--model", "adapter")
    assert run_eval(folder, *endpoint, "--api-key-env", "LARGE_KEY") == 0
    assert not generated, "base and tuned were generated again"
    assert kept == {n: (run / "predictions" / f"{n}.jsonl").read_bytes() for n in kept}
    report = load_report(run)
    assert list(report.models) == ["base", "tuned", "large", "adapter"]
    turns = [[(s.conversation_id, s.turn) for s in one.scores] for one in report.models.values()]
    assert all(one == turns[0] for one in turns)
    assert report.columns["large"].metrics["exact_match"].value == 1
    assert {key for _, key in server.asked} == {f"Bearer {KEY}"}
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 20 and not [path for path in files if KEY.encode() in path.read_bytes()]
    assert KEY not in "".join(capsys.readouterr())
    page = (run / "report.html").read_text()
    assert report.transcripts and "conversation and tokens" in page
    assert server.url in page and "Right in large, wrong in tuned" in page
    assert report.sources["adapter"]["sampling"] == "max_tokens 2, temperature 0.0"
    asked = len(server.asked)
    assert run_eval(folder) == 0
    assert list(load_report(run).columns) == ["large", "adapter"] and len(server.asked) == asked
    assert generated, "the latency is measured anew"
    assert run_eval(folder, "evaluation.mode=strict") == 0
    assert not load_report(run).columns and "its settings were others" in capsys.readouterr().out


def test_calls_in_the_text_are_counted_and_told(finished, capsys):
    folder, server = finished
    server.in_text = "hermes"
    assert run_eval(folder, "--endpoint", server.url, "--model", "no-parser") == 0
    server.in_text = ""
    report = load_report(folder / "run")
    left, calls = report.columns["no-parser"].left_in_text
    assert left == calls > 3
    told = f"the server of no-parser left {left} of {calls} calls in the text"
    forms = [(folder / "run" / f"report.{ending}").read_text() for ending in ("html", "md")]
    assert all(told in form for form in [*forms, capsys.readouterr().out])
    data = json.loads((folder / "run" / "report.json").read_text())
    assert data["columns"]["no-parser"]["left_in_text"] == left


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_syntax_in_the_text_is_seen(finished, syntax, tmp_path):
    from toolcall.chatml.syntaxes import SYNTAXES as ALL
    from toolcall.generate.endpoint import parse_any
    from toolcall.turn import Example

    folder, server = finished
    others = [one.parse for one in ALL.values()] if syntax == "harmony" else []
    held_out = load_conversations(folder / "run" / "data" / "test.jsonl")
    examples = [Example([1], [2], one, turn) for one in held_out[:8] for turn in one.turns]
    engine = EndpointEngine(
        server.url, "m", parse=lambda text, tools: parse_any(text, tools, others=others)
    )
    server.in_text = syntax
    path = tmp_path / "p.jsonl"
    outputs = predict(engine, examples, path=path, progress=False)
    server.in_text = ""
    due = [bool(example.calls) for example in examples]
    assert [output.left_in_text for output in outputs] == due and any(due) and not all(due)
    assert [o.left_in_text for o in predict(engine, examples, path=path, progress=False)] == due
    read = predict(engine, examples, progress=False)
    assert not any(output.left_in_text for output in read)


def test_the_budget_decides_the_exit_code(finished, capsys):
    folder, _ = finished
    held = (
        "evaluation={max_turns: 24, latency_turns: 0, retention: false, "
        "latency_budget: {p95: 60, mean: 60}}"
    )
    assert run_eval(folder, held) == 0
    assert "p95 at most 60 s: yes, " in (told := capsys.readouterr().out) and "over 2" in told
    report = load_report(folder / "run")
    exceeded = replace(report, settings=report.settings | {"latency_budget": {"p95": 0.0001}})
    assert (gate_code(report), gate_code(exceeded), gate_code(None)) == (0, 1, 0)
    assert "p95 at most 0.0001 s: no, " in exceeded.to_text()
    few = "evaluation={max_turns: 6, retention: false, latency_budget: {p95: 60}}"
    assert run_eval(folder, few) == 1
    assert "p95 at most 60 s: not known, " in capsys.readouterr().out
    assert "not known" in (folder / "run" / "report.html").read_text()
    assert run_eval(folder, "evaluation={latency_budget: {p96: 1}}") == 2
    assert "unknown key 'p96'; did you mean 'p9" in capsys.readouterr().err
    assert run_eval(folder, "evaluation={latency_budget: {p95: 0}}") == 2
    assert "evaluation.latency_budget.p95 is positive, not 0" in capsys.readouterr().err


GATES = {
    "{irrelevance_accuracy: {not_below_base: 0.99}, latency_mean: 60, retention: 0.0001}": 0,
    "{tool_recall: 0.9, latency_p95: 60}": 1,
    "{cut_rate: 0.99, latency_p95: 60}": 3,
}


@pytest.mark.parametrize("gate", GATES)
def test_the_gate_decides_the_exit_code(finished, capsys, gate):
    folder, _ = finished
    measured = "retention" in gate
    options = f"max_turns: 12, latency_turns: 2, retention: {str(measured).lower()}, gate: {gate}"
    assert run_eval(folder, f"evaluation={{{options}}}") == GATES[gate]
    answer = {0: "passed", 1: "failed", 3: "not enough turns to tell"}[GATES[gate]]
    told = capsys.readouterr().out
    assert f"Gate: {answer}. Conditions: " in told and "\nGATE\n" in told
    run = folder / "run"
    pages = [(run / f"report.{ending}").read_text() for ending in ("html", "md")]
    assert all(f"Gate: {answer}." in page for page in pages)
    data = json.loads((run / "report.json").read_text())
    conditions = data["gate"]["conditions"]
    assert [one["condition"].split()[0] for one in conditions] == list(yaml.safe_load(gate))
    assert all(one["reason"] for one in conditions)
    assert any(one["needed"] for one in conditions) == ("latency_p95" in gate)
    assert bool(data["retention"]) == measured == any("Retention: " in page for page in pages)


def test_a_gate_is_checked_before_the_run_starts(finished, capsys):
    folder, _ = finished
    wrong = {
        "gate: {exact_mach: 0.9}": "unknown metric \"exact_mach\"; did you mean 'exact_match'?",
        "gate: {latency_p99: 0}": "latency_p99 is a number of seconds above 0, not 0",
        "gate: {exact_match: true}": "exact_match is a number above 0 and below 1",
        "gate: {cut_rate: {not_below_base: -1}}": "cut_rate has a not_below_base from 0 to 1",
        "retention: false, gate: {retention: 0.9}": "and evaluation.retention is false",
    }
    for options, message in wrong.items():
        assert run_eval(folder, f"evaluation={{{options}}}") == 2
        assert message in capsys.readouterr().err


def test_a_run_ends_with_the_answer_of_its_gate(finished, capsys, monkeypatch):
    folder, _ = finished
    assert run_eval(folder) == 0  # tests of a module may run in several processes
    report = load_report(folder / "run")
    for gate, code in (({"tool_recall": 0.9}, 1), ({"exact_match": 0.0001}, 3), ({}, 0)):
        gated = replace(report, settings=report.settings | {"gate": gate})
        monkeypatch.setattr("toolcall.pipeline.chain.run", lambda config, gated=gated: gated)
        assert main(["run", str(folder / "c.yaml")]) == code


def test_a_budget_without_a_measurement_is_no_yes():
    for latency in ({}, {"n": 19, "p95": 0.1}, {"n": 20}):
        [check] = check_latency({"p95": 1.0}, latency)
        assert check.answer == "not known"
    [check] = check_latency({"p95": 1.0}, {"n": 20, "p95": 1.0})
    assert check.answer == "yes"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--endpoint", "http://127.0.0.1:1/v1"], "each --endpoint has a --model"),
        (["--model", "m"], "each --endpoint has a --model"),
        (["--endpoint", "http://a/v1", "--model", "m", "--api-key-env", "NO_KEY"], "is not set"),
        (["--endpoint", "ftp://a", "--model", "m"], "base_url is such as"),
        (["--quantised", "q9_9"], 'not "q9_9"'),
        (["--quantised", "q4_k_m"], "q4_k_m needs llama.cpp's tool llama-quantize"),
    ],
)
def test_wrong_columns_are_one_sentence(finished, monkeypatch, capsys, arguments, words):
    monkeypatch.setenv("PATH", os.devnull)
    assert run_eval(finished[0], *arguments) == 2
    assert words in capsys.readouterr().err


def test_one_model_at_two_servers_is_one_column(finished, capsys):
    folder, server = finished
    other = Server()
    other.logged = server.logged
    arguments = ("--endpoint", server.url, "--endpoint", other.url, "--model", "spread")
    assert run_eval(folder, *arguments) == 0
    other.http.shutdown()
    column = load_report(folder / "run").columns["spread"]
    shares = column.answered_by
    assert shares.keys() <= {server.url, other.url} and sum(shares.values()) == len(column.scores)
    assert column.metrics["exact_match"].value == 1
    page = (folder / "run" / "report.html").read_text()
    assert f"{server.url}, {other.url}" in page
    assert all(f"{url}: {number}" in page for url, number in shares.items())


def test_the_page_shows_what_came_later_and_escapes_it(finished):
    folder = finished[0] / "run"
    (folder / "serve.md").write_text("# vLLM\n```\nvllm serve <script>alert(1)</script>\n```\n")
    (folder / "certificate.json").write_text('{"x": ')
    refresh_report(folder)
    page = (folder / "report.html").read_text()
    assert "vllm serve &lt;script&gt;" in page and "<script>alert" not in page
    assert "certificate.json can&#39;t be read" in page and "<h2>Serve it</h2>" in page
    save_report(load_report(folder), folder)
    assert "<h2>Serve it</h2>" in (folder / "report.html").read_text()
    (folder / "serve.md").unlink()
    (folder / "certificate.json").unlink()
