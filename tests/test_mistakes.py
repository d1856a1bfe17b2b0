"Mistakes that people make at the command line: one sentence each, and the right exit code"

import json
import os
import re

import pytest
from zygote import make_project

from toolcall import __version__
from toolcall.generate import GenerateError, ToolCaller

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


LEAVE = "An empty end (Ctrl-D) leaves.\n"


@pytest.fixture(scope="module")
def project(tmp_path_factory, small_model):
    folder = tmp_path_factory.mktemp("mistakes")
    make_project(folder, small_model)
    (folder / "tools.json").write_text(json.dumps([TOOL]))
    (folder / "file").write_text("")
    (folder / "more.jsonl").write_text('{"user": "?", "tool_name": "f", "arguments": {}}\n')
    (folder / "input.yaml").write_text("log_path: -\noutput_dir: from_input\n")
    return folder


@pytest.fixture
def run(zygote, project):
    "Run a command line in the project; `{model}` stands for the folder of a model"

    def run(line, **options):
        return zygote.run(*line.split(), cwd=str(project), **options)

    return run


def sentence(ended, *words, code=2):
    "Whether a command ended with one sentence that holds all words"
    assert ended.code == code, ended
    said = [line for line in ended.err.splitlines() if line.startswith("toolcall: ")]
    assert "Traceback" not in ended.err and len(said) == 1, ended.err
    assert all(word in said[0] for word in words), said
    return True


def test_flags_and_overrides_stand_in_any_order(run):
    orders = (
        "train config.yaml --dry-run batch_size=2 logging_steps=5",
        "train --dry-run config.yaml batch_size=2 logging_steps=5",
        "train config.yaml batch_size=2 --dry-run logging_steps=5 output_dir=dry",
    )
    ended = [run(f"{line} evaluation.mode=wrong") for line in orders]
    assert all(sentence(one, "evaluation.mode is strict") for one in ended)
    assert len({one.err for one in ended}) == 1


def test_a_list_of_tools_is_read(run):
    ended = run("data config.yaml logs.tools=tools.json output_dir=with_tools")
    assert ended.code == 0 and "inferred" not in ended.out


def test_an_output_folder_that_is_a_file_or_read_only(run):
    assert sentence(run("data config.yaml output_dir=file"), "file is no folder")
    assert sentence(run("data config.yaml output_dir=/sys/x"), "/sys/x")
    assert sentence(run("inspect log.jsonl --html /sys/page.html"), "/sys/page.html", "denied")
    assert "part" not in run("inspect log.jsonl --html /sys/page.html").err


@pytest.mark.parametrize(
    "override, said",
    [
        ("training.learning_rate=fast", "training.learning_rate is of type float, not 'fast'"),
        ("training.optim=adamww", "'adamww' is not known; it may be adamw_torch or"),
        ("model_name_or_path=typo", "no model 'typo'"),
        ("model_name_or_path=nobody/nothing", "can't load 'nobody/nothing'"),
        ("model_name_or_path=log.jsonl", "log.jsonl is a log, and a model is wanted"),
        ("model_name_or_path=config.yaml", "config.yaml is a configuration, and a model is wanted"),
        ("log_path=config.yaml", "config.yaml is a configuration, and a log is wanted"),
    ],
)
def test_wrong_values_are_refused_before_the_log_is_read(run, override, said):
    ended = run(f"run config.yaml {override} output_dir=refused")
    assert sentence(ended, said) and "records in" not in ended.out


def test_a_log_in_place_of_others_and_others_in_place_of_a_log(run, small_model):
    assert sentence(run("inspect config.yaml"), "config.yaml is a configuration, and a log")
    model = f"{small_model} is the folder of a model, and a configuration or a log is wanted"
    assert sentence(run(f"run {small_model}"), model, "toolcall init")
    assert sentence(run(f"inspect {small_model}"), "is the folder of a model, and a log is wanted")
    assert sentence(run(f"inspect {small_model}/config.json"), "of a model's weights")
    assert sentence(run("chat log.jsonl"), "log.jsonl is a log, and a model is wanted")
    assert sentence(run("inspect log.jsonl --model config.yaml"), "and a model is wanted")


def test_a_dash_is_standard_input(run, project):
    log = str(project / "log.jsonl")
    for line in ("data config.yaml log_path=- output_dir=dash", "data input.yaml"):
        ended = run(line, stdin=log)
        assert ended.code == 0 and "24  records in" in ended.out, ended


def test_several_files(run):
    ended = run("inspect log.jsonl more.jsonl --doubts 0")
    assert ended.code == 0 and "25 records" in ended.out


def test_a_style_implies_tokens_and_only_shown_turns_are_encoded(run, small_model):
    script = (
        "from toolcall.chatml.examples import ChatML\n"
        "examples, calls = ChatML.examples, []\n"
        "def counted(self, conversation):\n"
        "    calls.append(conversation)\n"
        "    assert len(calls) <= 3, 'more than is shown'\n"
        "    return examples(self, conversation)\n"
        "ChatML.examples = counted\n"
        "import toolcall.chatml.encoding as m\n"
        "m.encode = None\n"
    )
    ended = run(f"inspect log.jsonl --model {small_model} --style hermes", script=script)
    assert ended.code == 0 and "the first 3 of 24 turns" in ended.out, ended.err


def test_a_log_that_can_tell_or_teach_little(run, project):
    ended = run("train config.yaml --dry-run output_dir=few")
    assert "warning: 5 turns of 5 conversations in the test set: If 90% of them" in ended.out
    assert re.search(r"warning: 0 of \d+ turns without a call: .* calls a tool whatever", ended.out)
    assert re.search(r"warning: \d+ calls, all of get_weather: .* not when to call", ended.out)
    call = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Weather in city {n}, on day {n * 7}?"},
                {"role": "assistant", "content": "", "tool_calls": [call]},
            ],
            "tools": [TOOL],
            "reward": int(n % 3 == 0),
        }
        for n in range(30)
    ]
    (project / "rewards.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    ended = run("data config.yaml log_path=rewards.jsonl output_dir=rewards split.validation=0")
    told = "warning: 20 of 30 conversations with a score below 1: They are learned like the others"
    assert told in ended.out and "curate: {keep: solved} leaves them out, and 10" in ended.out
    assert f"made {project / 'run'}" not in ended.out and "made rewards/data/README.md" in ended.out


def test_a_chat_has_ones_own_tools(run, project, small_model):
    (project / "mine.py").write_text('def now() -> str:\n    """The time"""\n    return "noon"\n')
    call = {"id": "a", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a", "content": "sun"},
        {"role": "assistant", "content": "Sun."},
    ]
    (project / "own.jsonl").write_text(json.dumps({"messages": messages, "tools": [TOOL]}))
    ended = run(f"chat {small_model} --tools mine.py")
    assert ended.out == "Tools: now (the functions of mine.py, which are run). " + LEAVE
    ended = run(f"chat {small_model} --tools own.jsonl")
    assert ended.out.startswith("Tools: get_weather (the tools of own.jsonl, which answers")
    assert sentence(run(f"chat {small_model} --tools config.yaml"), "and a log is wanted")
    assert sentence(run(f"chat {small_model} --tools theirs.py"), "no such module")


def test_a_function_without_a_docstring():
    def no_words(city):
        return city

    with pytest.raises(GenerateError, match="function no_words is no tool"):
        ToolCaller(None, [no_words])


def test_version_help_and_usage(run):
    assert run("--version").out == f"toolcall {__version__}\n"
    assert run("help train").out == run("train --help").out != ""
    assert run("help").out == run("--help").out != ""
    for line in ("run", "train --dry-run"):
        ended = run(line)
        assert ended.code == 2 and "required: config" in ended.err
        assert "such as: toolcall" in ended.err
    ended = run("run config.yaml --batch-size 4")
    assert ended.code == 2 and "batch_size=4" in ended.err


def test_another_setting_after_an_interrupted_saving(run, project):
    first = run("train config.yaml output_dir=cut")
    assert first.code == 0 and "of training alone at the present speed of this machine" in first.out
    for checkpoint in (project / "cut").glob("checkpoint-*"):
        os.remove(checkpoint / "manifest.json")
        os.remove(checkpoint / "trainer_state.json")
    ended = run("train config.yaml output_dir=cut training.max_grad_norm=0.5")
    assert sentence(ended, "max_grad_norm: 1.0 there, 0.5 now")


def test_a_log_without_a_configuration(run, project, small_model):
    "`init` writes a configuration that loads, and `run LOG` takes the defaults"
    written = run("init log.jsonl --doubts 0")
    assert written.code == 0 and written.out.startswith("# This log can teach 24 turns")
    (project / "written.yaml").write_text(written.out)
    model = f"model_name_or_path={small_model}"
    assert run(f"train written.yaml --dry-run {model} output_dir=written").code == 0
    ended = run(f"train log.jsonl --dry-run {model} output_dir=defaults training.bf16=false")
    assert ended.code == 0 and "optimizer steps" in ended.out
    assert sentence(run("init log.jsonl more.jsonl"), "put the pattern in quotes")
    assert sentence(run("init config.yaml"), "config.yaml is a configuration, and a log is wanted")


def test_the_schema_knows_the_options(run):
    schema = json.loads(run("schema").out)
    assert schema["properties"]["batch_size"]["description"] == "Most examples a step and device"
    assert schema["additionalProperties"] is False


def test_inspect_says_first_what_to_do(run):
    lines = run("inspect log.jsonl --doubts 0").out.splitlines()
    assert lines[0].startswith("This log can teach 24 turns of 24 conversations")
    assert lines[1].startswith("What is wrong with it: 0 of 24 turns without a call;")
    assert lines[2].startswith("Set split.test=")
    shown = run("inspect log.jsonl --doubts 0 --conversations 2").out
    assert "assistant:" not in "\n".join(lines) and shown.count("assistant:") == 2
