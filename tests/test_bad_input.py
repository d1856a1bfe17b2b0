"Bad input: a clear message on standard error, exit code 2, no traceback"

import json

import pytest
import yaml

from toolcall.pipeline.commands import main

GOOD = [
    {"user": f"Weather in {city}?", "tool_name": "get_weather", "arguments": {"city": city}}
    for city in ("Paris", "Rome", "Oslo", "Bonn")
]
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
}
OTHER = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {}}}},
}
ASKED = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]


def attempt(tmp_path, capsys, log: object, **config) -> str:
    "Run with a log (a value, or text as it is) and give what was said on standard error"
    path = tmp_path / "log.json"
    path.write_text(log if isinstance(log, str) else json.dumps(log), encoding="utf-8")
    file = tmp_path / "config.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "log_path": str(path),
                "output_dir": str(tmp_path / "out"),
                "train_data_path": str(tmp_path / "train.jsonl"),
            }
            | config
        ),
        encoding="utf-8",
    )
    assert main(["run", str(file)]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "log, said",
    [
        ("", "is empty"),
        (json.dumps(GOOD)[:30], "not JSON"),
        ([{"user": "?", "arguments": {}}], "tool_name is missing"),
        ([{"user": "?", "tool_name": "f", "arguments": [1]}], "arguments is an object such as"),
        ([{"user": "?", "tool_name": "f", "arguments": "{oops"}], "arguments is not JSON"),
        (
            [{"messages": ASKED, "tools": [TOOL, OTHER]}],
            "tool f is declared twice with different schemas",
        ),
        ([{"who": "knows"}], "no known format has the keys who"),
        ("[]", "holds no records"),
    ],
    ids=[
        "empty",
        "cut",
        "no tool",
        "list",
        "not json text",
        "tool conflict",
        "unknown format",
        "no records",
    ],
)
def test_bad_logs(tmp_path, capsys, log, said):
    error = attempt(tmp_path, capsys, log)
    assert said in error and "Traceback" not in error and "log.json" in error


def test_missing_file_and_folder(tmp_path, capsys):
    assert "no such file" in attempt(
        tmp_path, capsys, GOOD, log_path=str(tmp_path / "nothing.json")
    )
    assert "is a folder" in attempt(tmp_path, capsys, GOOD, log_path=str(tmp_path))


def test_unknown_key_names_the_nearest(tmp_path, capsys):
    assert "did you mean 'num_train_epochs'?" in attempt(tmp_path, capsys, GOOD, num_train_epoch=1)


def test_model_that_cannot_be_found_says_where_it_looked(tmp_path, capsys):
    error = attempt(tmp_path, capsys, GOOD, model_name_or_path="nobody/nothing-1B")
    assert "nobody/nothing-1B" in error and "Looked for a folder" in error and "Hub" in error
    assert "holds no config.json" in attempt(
        tmp_path, capsys, GOOD, model_name_or_path="./no-folder"
    )


def test_max_length_too_small_says_how_much_is_needed(tmp_path, capsys, tiny_folder):
    error = attempt(tmp_path, capsys, GOOD, model_name_or_path=str(tiny_folder), max_length=20)
    assert "max_length=20 is too small" in error and "set max_length to" in error
    assert not list((tmp_path / "out").glob("checkpoint-*"))


def test_bad_values(tmp_path, capsys):
    assert "batch_size is positive" in attempt(tmp_path, capsys, GOOD, batch_size=0)
    assert "chatml.style is auto or native or hermes or function_call, not 'xml'" in attempt(
        tmp_path, capsys, GOOD, chatml={"style": "xml"}
    )
