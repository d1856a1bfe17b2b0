"Nothing that comes from a log, a model or an argument acts on the terminal"

import json
import re
import shutil
import warnings

import pytest
from zygote import make_project

from toolcall.pipeline.commands import main

terminal = pytest.mark.attack("terminal")
EVIL = {
    "clear": "\x1b[2J",
    "title": "\x1b]0;owned\x07",
    "one byte": "\x9b31m",
    "return": "\rfaked",
    "backspace": "\x08\x08\x08",
    "direction": "\u202egnp.exe",
    "isolate": "\u2066x\u2069",
    "line separator": "\u2028x",
    "null": "\x00",
    "string": "\x90q\x9c",
}
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u2028-\u202e\u2066-\u2069]")


def record(evil: str, n: int) -> dict:
    "A conversation with it in each text"
    name = f"tool{evil}"
    call = {"id": f"c{evil}", "type": "function"} | {
        "function": {"name": name, "arguments": json.dumps({f"key{evil}": f"{evil}{n}"})}
    }
    return {
        "id": f"id{evil}{n}",
        "messages": [
            {"role": "system", "content": f"s{evil}"},
            {"role": "user", "content": f"{evil} {n} {'words ' * (n % 5)}"},
            {"role": "assistant", "content": evil, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{evil}", "content": evil},
            {"role": "assistant", "content": f"done{evil}"},
        ],
        "tools": [{"type": "function", "function": {"name": name, "description": evil}}],
    }


REFUSED = (
    lambda evil: {f"{evil}key": evil},
    lambda evil: {"user": evil, "tool_name": "f", "arguments": f"{{{evil}"},
    lambda evil: {"user": evil, "tool_name": "f", "arguments": [evil]},
    lambda evil: {"messages": [{"role": evil, "content": evil}]},
    lambda evil: {"messages": [{"role": "user", "content": {evil: evil}}]},
)


@pytest.fixture(params=EVIL)
def evil(request):
    return EVIL[request.param]


@pytest.fixture
def log(evil, tmp_path):
    rows = [record(evil, n) for n in range(40)] + [refused(evil) for refused in REFUSED]
    name = f"log{evil}.jsonl" if "\0" not in evil else "log.jsonl"
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def nothing_acts(capsys) -> str:
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert text and not ACTS.search(text), ACTS.search(text)
    return text


@terminal
def test_commands_on_a_hostile_log(log, tmp_path, capsys):
    assert main(["inspect", str(log)]) == 0
    assert "tool" in nothing_acts(capsys)
    config = tmp_path / "config.yaml"
    config.write_text("log_path: x\n")
    paths = [f"log_path={json.dumps(str(log))}", f"output_dir={tmp_path / 'run'}"]
    assert main(["data", str(config), *paths]) == 0
    nothing_acts(capsys)
    assert main(["data", str(config), *paths, "logs.max_reject=0"]) == 2
    nothing_acts(capsys)
    assert main(["data", str(config), *paths, "logs.strict=true"]) == 2
    nothing_acts(capsys)


@terminal
def test_a_whole_run_in_a_hostile_folder(zygote, small_model, tmp_path):
    folder = tmp_path / "".join(EVIL.values()).replace("\0", "").replace("\r", "")
    model = shutil.copytree(small_model, folder / "model")
    config = make_project(folder, model, evaluation={"watch_turns": 2, "max_turns": 4})

    def nothing_acts_in(*argv: object, code: int = 0) -> str:
        ended = zygote.run(*argv)
        shown = re.sub("\r|\x1b\\[A", "", ended.out + ended.err)  # of progress bars
        assert ended.code == code and not ACTS.search(shown), argv
        return shown

    for argv in (["run", config], ["eval", config], ["train", "--dry-run", config]):
        nothing_acts_in(*argv)
    (folder / "run" / "model.safetensors").write_bytes(b"")
    assert "is damaged" in nothing_acts_in("eval", config, code=2)


@terminal
def test_commands_on_hostile_arguments(evil, tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text("log_path: x\n")
    path = f"a{evil}".replace("\0", "")
    for argv in (
        ["inspect", f"{path}.jsonl"],
        ["inspect", f"{path}*.jsonl"],
        ["compare", path, path],
        ["compare", path, path, "--fail-below", path],
        ["data", path],
        ["data", str(config), evil],
        ["data", str(config), f"{evil}=1"],
        ["data", str(config), f"batch_size={json.dumps(evil)}"],
        ["data", str(config), f"chatml.style={json.dumps(evil)}"],
        ["data", str(config), f"log_path={json.dumps(path)}"],
        ["data", str(config), f"output_dir={json.dumps(f'{config}/{evil}')}"],
        ["train", str(config), f"model_name_or_path={json.dumps(path)}", f"log_path={config}"],
        [path],
        ["inspect", "a", f"--{path}"],
    ):
        assert main(argv) == 2, argv
        nothing_acts(capsys)


@terminal
def test_a_comparison_of_hostile_turns(evil, tmp_path, capsys):
    from toolcall.conversation import Conversation, ToolCall
    from toolcall.evaluate import evaluate
    from toolcall.parsing import parse_calls
    from toolcall.turn import Example, Output

    call = {"role": "assistant", "content": "", "tool_calls": [ToolCall(evil, {}).to_message()]}
    messages = [{"role": "user", "content": evil}, call]
    turns = [Example([1], [2], Conversation(f"{evil}{n}", messages), 1) for n in range(6)]
    text = f"<tool_call>\n{json.dumps({'name': evil, 'arguments': {evil: 1}})}\n</tool_call>"
    for name, answer in (("a", text), ("b", evil)):
        outputs = [Output(answer, True, 9, 9, 0.1)] * 6
        evaluate(turns, outputs, parse=parse_calls).save(tmp_path / name)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    nothing_acts(capsys)


@terminal
def test_a_traceback_is_printed_safely(evil, capsys, monkeypatch, tmp_path):
    def fail(path, **options):
        raise ZeroDivisionError(evil)

    monkeypatch.setattr("toolcall.pipeline.inspecting.read_logs", fail)
    assert main(["inspect", str(tmp_path)]) == 70
    assert "ZeroDivisionError" in nothing_acts(capsys)


@terminal
def test_a_warning_names_a_hostile_record(log, tmp_path):
    from toolcall.chatml import parse_log_to_chatml

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parse_log_to_chatml(log, tmp_path / "rows.jsonl")
    assert caught and not any(ACTS.search(str(warning.message)) for warning in caught)


@terminal
def test_representations(log, tmp_path):
    from toolcall.curate import curate, split
    from toolcall.logs import read_logs

    log = read_logs(shutil.copy(log, tmp_path / "plain.jsonl"))
    curated = curate(log.conversations)
    shown = [log, log.report, *log.rejects, curated, curated.table, *log]
    shown += [split(curated.conversations), *curated.steps]
    texts = [text for value in shown for text in (repr(value), str(value))]
    texts += [value._repr_markdown_() for value in shown if hasattr(value, "_repr_markdown_")]
    assert len(texts) > 100 and not list(filter(ACTS.search, texts))


@terminal
def test_the_chat_shows_calls_and_results_safely(evil, capsys):
    from toolcall.generate.tools import Exchange
    from toolcall.pipeline.chat_command import chat

    class Caller:
        def ask(self, messages):
            call = {"function": {"name": evil, "arguments": {evil: evil}}}
            answers = [{"role": "assistant", "content": evil, "tool_calls": [call]}]
            answers += [{"role": role, "content": evil} for role in ("tool", "assistant")]
            return Exchange([*messages, *answers], [], "answer")

    chat(Caller(), ["hello"])
    nothing_acts(capsys)


@terminal
def test_a_refused_log(evil, tmp_path, capsys):
    "Half of the records are rejected, and the error quotes them"
    rows = [
        *({"user": f"hi {n} there", "final_answer": "x"} for n in range(3)),
        *(refused(evil) for refused in REFUSED[:3]),
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = tmp_path / "config.yaml"
    config.write_text(f"log_path: {path}\noutput_dir: {tmp_path / 'run'}\n")
    assert main(["data", str(config)]) == 2
    assert "3 of 6 records rejected" in nothing_acts(capsys)
    assert not (tmp_path / "run").exists()
