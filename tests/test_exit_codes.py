"Exit codes: closed pipes, full outputs, signals and encodings, with real processes"

import json
import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT
from zygote import make_project

from toolcall.conversation import Conversation, ToolCall
from toolcall.evaluate import evaluate
from toolcall.parsing import parse_calls
from toolcall.turn import Example, Output

attack = pytest.mark.attack("exit code")
LOST = {"closed": 74, "pipe": 141, "/dev/full": 74}  # standard output to exit code


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_model):
    folder = tmp_path_factory.mktemp("project")
    make_project(folder, small_model)
    write = {
        (4, "No."): folder / "4.json",  # an evaluation with so many right turns
        (4, "Sorry."): folder / "4b.json",  # as many in other words
        (18, "No."): folder / "18.json",
    }
    call = {"role": "assistant", "content": "", "tool_calls": [ToolCall("f", {}).to_message()]}
    messages = [{"role": "user", "content": "?"}, call]
    turns = [Example([1], [2], Conversation(str(number), messages), 1) for number in range(20)]
    text = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    for (right, no), file in write.items():
        texts = [text if number < right else no for number in range(20)]
        outputs = [Output(answer, True, 9, 9, 0.1) for answer in texts]
        evaluate(turns, outputs, parse=parse_calls).save(file)
    return folder


def quiet(error: str) -> bool:
    return not any(word in error for word in ("Traceback", "Exception ignored", "Error:"))


@attack
@pytest.mark.parametrize("stdout", LOST)
@pytest.mark.parametrize(
    "command, right",
    [
        ("--help", 0),
        ("inspect --help", 0),
        ("inspect log.jsonl", 0),
        ("data config.yaml output_dir=out", 0),
        ("compare 4.json 18.json --fail-below 0", 0),
        ("compare 18.json 4.json --fail-below 0", 1),
        ("compare 18.json nothing.json", 2),
    ],
)
def test_a_lost_output_is_told_and_hides_no_other_code(zygote, project, command, right, stdout):
    ended = zygote.run(*command.split(), stdout=stdout, cwd=str(project))
    silent = right == 2  # nothing is printed on standard output
    assert ended.code == (right or LOST[stdout]) and quiet(ended.err)
    assert ("standard output" in ended.err) == (stdout != "pipe" and not silent)
    with_output = zygote.run(*command.split(), cwd=str(project))
    assert with_output.code == right and bool(with_output.out) != silent


@attack
@pytest.mark.parametrize("stdout", LOST)
def test_printing_never_ends_a_training(zygote, project, stdout, tmp_path):
    options = [f"output_dir={tmp_path / 'run'}", f"train_data_path={tmp_path / 'train.jsonl'}"]
    ended = zygote.run("train", project / "config.yaml", *options, stdout=stdout)
    assert ended.code == LOST[stdout] and quiet(ended.err)
    history = json.loads((tmp_path / "run" / "history.json").read_text(encoding="utf-8"))
    assert history["steps"] == 5 and (tmp_path / "run" / "model.safetensors").exists()
    assert (tmp_path / "run" / "data" / "test.jsonl").exists()


@attack
@pytest.mark.parametrize("stderr", LOST)
@pytest.mark.parametrize("command, right", [("train", 0), ("data", 0), ("nothing", 2)])
def test_standard_error_may_be_lost(zygote, project, command, right, stderr, tmp_path):
    folder = f"output_dir={tmp_path / 'run'}"
    ended = zygote.run(command, project / "config.yaml", folder, stderr=stderr)
    assert ended.code == right and (right or ended.out)
    assert right or (tmp_path / "run" / "data" / "test.jsonl").exists()


@attack
def test_all_streams_closed(zygote, project):
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), "closed")
    log = project / "log.jsonl"
    before = log.read_bytes()
    for argv, code in ((["inspect", log], 74), (["inspect", "-"], 2), ([], 2)):
        assert zygote.run(*argv, **streams).code == code
    assert log.read_bytes() == before


@attack
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "ascii:strict", "utf-8:strict"])
def test_any_encoding(zygote, project, encoding, tmp_path):
    rows = [
        {"user": f"北京天气 {n} \U0001f600", "tool_name": "查询", "arguments": {}} for n in range(5)
    ]
    log = tmp_path / "日志.jsonl"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    environment = {"PYTHONIOENCODING": encoding}
    ended = zygote.run("inspect", log, env=environment)
    assert ended.code == 0 and quiet(ended.err)
    assert ("\\u67e5\\u8be2" in ended.out) == (not encoding.startswith("utf-8"))
    wrong = zygote.run("inspect", tmp_path / "没有.jsonl", env=environment)
    assert wrong.code == 2 and "no such file" in wrong.err


@attack
@pytest.mark.parametrize(
    "argv", [[], ["wat"], ["compare", "a"], ["compare", "a", "b", "--x\x1b[2J"]]
)
def test_wrong_arguments(zygote, argv):
    ended = zygote.run(*argv)
    assert ended.code == 2 and "usage: toolcall" in ended.err and "\x1b" not in ended.err


@attack
@pytest.mark.parametrize("bound", ["nan", "inf", "-inf", "2", "x"])
def test_a_gate_that_nothing_could_fail_or_pass_is_refused(zygote, project, bound):
    argv = ["compare", "18.json", "4.json", f"--fail-below={bound}"]
    ended = zygote.run(*argv, cwd=str(project))
    assert ended.code == 2 and f"'{bound}' is no number from -1 to 1" in ended.err


@pytest.mark.parametrize(
    "files, bound, code, reason",
    [
        ("4 18", "0", 0, "passed: +70.0 points"),
        ("18 4", "-0.02", 1, "failed: -70.0 points"),
        ("4 4", "-0.02", 0, "passed: the same answers to all 20 turns, word for word"),
        ("4 4", "0.01", 1, "failed: the same answers to all 20 turns, word for word"),
        ("4 4b", "-0.02", 3, "about 189 held-out turns would tell, and there are 20"),
        ("4 4b", "-0.2", 0, "passed: +0.0 points [-16.1, +16.1] on 20 turns"),
        ("4 18", "0.7", 3, "no number of turns is likely to tell"),
    ],
)
def test_compare_says_why_a_gate_ends_as_it_does(project, capsys, files, bound, code, reason):
    from toolcall.pipeline.commands import main

    first, second = (str(project / f"{name}.json") for name in files.split())
    assert main(["compare", first, second, f"--fail-below={bound}"]) == code
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith("gate: exact_match of the second less the first") and reason in told


@attack
def test_a_fault_of_ours_is_no_failed_gate(zygote, project):
    fault = "import toolcall.pipeline.inspecting as m\nm.read_logs = lambda *_, **__: 1 // 0"
    ended = zygote.run("inspect", project / "log.jsonl", script=fault)
    assert (
        ended.code == 70 and "ZeroDivisionError" in ended.err and "fault of toolcall" in ended.err
    )


SIGNALS = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}


@attack
@pytest.mark.parametrize("name", SIGNALS)
@pytest.mark.parametrize("command", ["inspect", "data", "train", "run"])
def test_a_signal_while_the_log_is_read(zygote, project, command, name, tmp_path):
    pipe = tmp_path / "log.jsonl"
    os.mkfifo(pipe)
    config = [project / "config.yaml", f"log_path={pipe}", f"output_dir={tmp_path / 'run'}"]
    argv = [pipe] if command == "inspect" else config
    child = zygote.start(command, *argv)
    with open(pipe, "wb"):  # returns when the command has opened the log
        ended = child.signal(getattr(signal, name))
    assert ended.code == SIGNALS[name]
    assert quiet(ended.err), ended.err[-1500:]
    assert "toolcall: interrupted" in ended.err and ended.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@attack
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_while_it_trains(zygote, small_model, name, tmp_path):
    training = {"max_steps": 500, "use_cpu": True, "bf16": False}
    config = make_project(tmp_path, small_model, training=training)
    workers = ["training.dataloader_num_workers=1"] if name != "SIGHUP" else []
    child = zygote.start("train", config, *workers)
    child.wait_for((tmp_path / "run" / "checkpoint-4" / "manifest.json").exists)
    ended = child.signal(getattr(signal, name), group=bool(workers))
    assert ended.code == SIGNALS[name]
    assert quiet(ended.err), ended.err[-1500:]
    assert "toolcall: interrupted. The same command goes on from checkpoint-" in ended.err


SLOW = """
import os
import time
from toolcall.chatml.examples import ChatML
batch = ChatML.batch

def slow(*args, **options):
    open({seen!r} + str(os.getpid()), "w").close()
    time.sleep(20)
    return batch(*args, **options)

ChatML.batch = slow
"""


@attack
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_while_processes_encode(zygote, project, name, tmp_path):
    seen = tmp_path / "seen"
    options = [f"output_dir={tmp_path / 'run'}", "chatml.workers=2", "split.validation=0"]
    script = SLOW.format(seen=str(seen))
    child = zygote.start("train", project / "config.yaml", *options, script=script)
    child.wait_for(lambda: len([*tmp_path.glob("seen*")]) == 2)  # both processes
    ended = child.signal(getattr(signal, name), group=True)
    assert ended.code == SIGNALS[name] and quiet(ended.err), ended.err
    assert "The same command begins again" in ended.err


@attack
def test_a_signal_while_it_evaluates_keeps_the_answers(zygote, project, tmp_path):
    run = [project / "config.yaml", f"output_dir={tmp_path / 'run'}"]
    assert zygote.run("train", *run).code == 0
    slow = ["generation.max_new_tokens=100000", "generation.batch_size=1"]
    child = zygote.start("eval", *run, *slow)
    child.wait_for((tmp_path / "run" / "predictions").exists)
    ended = child.signal(signal.SIGINT)
    assert ended.code == 130 and quiet(ended.err)
    assert "interrupted. The same command goes on; given answers are kept" in ended.err


@attack
def test_nohup_is_respected(zygote, project, tmp_path):
    pipe = tmp_path / "log.jsonl"
    os.mkfifo(pipe)
    child = zygote.start("inspect", pipe, ignore=["SIGHUP"])
    with open(pipe, "wb") as handle:
        os.kill(child.pid, signal.SIGHUP)
        handle.write((project / "log.jsonl").read_bytes())
    assert child.wait().code == 0


@attack
@pytest.mark.parametrize(
    "shell, code",
    [
        ("inspect log.jsonl --html page.html > /dev/full", 74),
        ("inspect log.jsonl >&-", 74),
        ("--help 2>&- >&- <&-", 74),
        ("inspect log.jsonl | true", 141),
    ],
)
def test_the_interpreter_ends_in_silence(project, shell, code):
    "The flush at the interpreter's exit is part of the exit code, so these are whole processes"
    wait = (  # until nobody reads the pipe
        "import select, sys\n"
        "if '| true' in sys.argv.pop():\n"
        "    poll = select.poll(); poll.register(1, select.POLLERR); poll.poll(60_000)\n"
    )
    main = f"{wait}from toolcall.pipeline.commands import main; raise SystemExit(main())"
    arguments, mark, rest = shell.partition(" >" if ">" in shell else " |")
    command = f'"{sys.executable}" -c "{main}" {arguments} "{shell}"{mark}{rest}'
    ended = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert ended.returncode == code and quiet(ended.stderr), ended.stderr


def test_help_lists_the_codes(zygote):
    from toolcall.pipeline.exits import EXIT_CODES

    text = zygote.run("--help").out
    assert all(f"{code:3}  {meaning}" in text for code, meaning in EXIT_CODES.items())
