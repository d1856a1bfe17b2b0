"A config with nine keys and a log of four Chinese records, end to end; the simple file by bytes"

import json

import pytest
import yaml

from toolcall.chatml import SYSTEM_TEXT, build_chatml_entry, generate_data, parse_log_to_chatml
from toolcall.errors import ConversationError
from toolcall.pipeline.commands import main

RECORDS = [
    {
        "user": "北京今天天气怎么样？",
        "tool_name": "get_weather",
        "arguments": {"city": "北京", "date": "今天"},
    },
    {
        "user": "帮我推荐上海的川菜馆",
        "tool_name": "search_restaurant",
        "arguments": {"city": "上海", "cuisine": "川菜"},
    },
    {"user": "杭州有哪些景点？", "tool_name": "search_sights", "arguments": {"city": "杭州"}},
    {
        "user": "广州明天会下雨吗？",
        "tool_name": "get_weather",
        "arguments": {"city": "广州", "date": "明天"},
        "tool_response": {"weather": "小雨"},
        "final_answer": "广州明天有小雨。",
    },
]


def config(tmp_path, model) -> str:
    (tmp_path / "logs.json").write_text(json.dumps(RECORDS, ensure_ascii=False), encoding="utf-8")
    keys = {
        "log_path": str(tmp_path / "logs.json"),
        "train_data_path": str(tmp_path / "toolcall_train.jsonl"),
        "model_name_or_path": str(model),
        "output_dir": str(tmp_path / "output"),
        "batch_size": 2,
        "num_train_epochs": 3,
        "save_steps": 100,
        "logging_steps": 1,
        "max_length": 1024,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    return str(tmp_path / "config.yaml")


def test_nine_keys_and_four_records_run_end_to_end(tmp_path, tiny_folder, capsys):
    assert main(["run", config(tmp_path, tiny_folder)]) == 0
    rows = [
        json.loads(line)
        for line in (tmp_path / "toolcall_train.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert rows and all(
        list(row) == ["input"] and row["input"].startswith("<|im_start|>system\n") for row in rows
    )
    assert all("\\n" not in row["input"].replace('\\"', "") for row in rows)
    report = json.loads((tmp_path / "output" / "report.json").read_text(encoding="utf-8"))
    held_out = len({turn["conversation_id"] for turn in report["tuned"]["turns"]})
    assert held_out >= 1 and len(rows) + held_out <= len(RECORDS)
    assert "never-call baseline" in capsys.readouterr().out


def test_function_call_style_trains_the_simple_file(tmp_path, tiny_folder):
    assert (
        main(
            [
                "train",
                config(tmp_path, tiny_folder),
                "chatml.style=function_call",
                "training.max_steps=1",
            ]
        )
        == 0
    )
    text = (tmp_path / "toolcall_train.jsonl").read_text(encoding="utf-8")
    assert SYSTEM_TEXT in text and "<function_call>" in text and "\\u" not in text


SAMPLE = [
    {"user": "今天适合出门吗?", "tool_name": "get_weather", "arguments": {"city": "广州"}},
    {
        "user": "帮我找一下附近的餐厅",
        "tool_name": "search_restaurants",
        "arguments": {"location": "广州", "sort_by": "rating"},
    },
    {"user": "查一下北京的天气", "tool_name": "get_weather", "arguments": {"city": "北京"}},
    {
        "user": "推荐一些好玩的景点",
        "tool_name": "search_tourist_spots",
        "arguments": {"location": "北京"},
    },
]
FIRST_ROW = (
    r'{"input": "<|im_start|>system\n'
    r"你是一个可以调用工具的智能助手，帮助用户查询信息。<|im_end|>\n"
    r"<|im_start|>user\n今天适合出门吗?<|im_end|>\n"
    r"<|im_start|>assistant\n<function_call>{\"name\": \"get_weather\", "
    r'\"arguments\": {\"city\": \"广州\"}}</function_call><|im_end|>"}'
)


def test_the_sample_byte_for_byte(tmp_path, monkeypatch):
    assert json.dumps(build_chatml_entry(SAMPLE[0]), ensure_ascii=False) == FIRST_ROW
    monkeypatch.chdir(tmp_path)
    generate_data(SAMPLE)
    lines = (tmp_path / "toolcall_train.jsonl").read_bytes().decode("utf-8").split("\n")
    assert lines[0] == FIRST_ROW and len(lines) == 5 and lines[4] == ""


def test_a_refused_record_is_told(tmp_path):
    bad = {"user": "x", "tool_name": "f", "arguments": ["x"]}
    (tmp_path / "logs.json").write_text(
        json.dumps([*SAMPLE, *RECORDS, bad], ensure_ascii=False), encoding="utf-8"
    )
    with pytest.warns(UserWarning, match="1 of 9 records are not in"):
        assert len(parse_log_to_chatml(tmp_path / "logs.json", tmp_path / "out.jsonl")) == 8
    with pytest.raises(ConversationError):
        generate_data([*SAMPLE, bad], tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()


def test_all_four_parts_and_several_turns(tmp_path):
    two = {"turns": [RECORDS[3], RECORDS[0]]}
    [row] = generate_data([two], tmp_path / "rows.jsonl")
    order = [
        "广州明天会下雨吗",
        "<function_call>",
        '<|im_start|>tool\n{"weather": "小雨"}',
        "广州明天有小雨。",
        "北京今天天气",
        '"city": "北京"',
    ]
    places = [row["input"].index(part) for part in order]
    assert places == sorted(places)


def test_the_file_round_trips(tmp_path):
    (tmp_path / "logs.json").write_text(json.dumps(RECORDS, ensure_ascii=False), encoding="utf-8")
    rows = parse_log_to_chatml(tmp_path / "logs.json", tmp_path / "out.jsonl")
    raw = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert (
        [json.loads(line) for line in raw.splitlines()] == rows and "北京" in raw and len(rows) == 4
    )
