"Tools for a log that declares none: every shape of a file, Python modules, and what is neither"

import json

import pytest

from toolcall.errors import LogError
from toolcall.logs import read_logs
from toolcall.pipeline.config import make_config
from toolcall.pipeline.data import prepare

SCHEMA = {
    "type": "object",
    "properties": {"harbour": {"type": "string"}},
    "required": ["harbour"],
}
NAMED = {"name": "get_tide", "description": "Tide at a harbour"}
TOOL = {"type": "function", "function": NAMED | {"parameters": SCHEMA}}
MCP = NAMED | {"title": "Tide", "inputSchema": SCHEMA, "outputSchema": {"type": "object"}}
UPPER = {"type": "OBJECT", "properties": {"harbour": {"type": "STRING"}}, "required": ["harbour"]}
SHAPES = {
    "OpenAI": [TOOL],
    "OpenAI, a request": {"model": "m", "tools": [TOOL]},
    "OpenAI, older": {"functions": [NAMED | {"parameters": SCHEMA}]},
    "Responses": [NAMED | {"type": "function", "parameters": SCHEMA, "strict": None}],
    "Anthropic": [NAMED | {"input_schema": SCHEMA}],
    "Gemini": [{"functionDeclarations": [NAMED | {"parameters": UPPER}]}],
    "Gemini, snake case": {"tools": [{"function_declarations": [NAMED | {"parameters": UPPER}]}]},
    "Bedrock": {"tools": [{"toolSpec": NAMED | {"inputSchema": {"json": SCHEMA}}}]},
    "Bedrock, toolConfig": {
        "toolConfig": {"tools": [{"toolSpec": NAMED | {"inputSchema": {"json": SCHEMA}}}]}
    },
    "MCP": [MCP],
    "MCP, a result": {"tools": [MCP], "nextCursor": None},
    "MCP, a response": {"jsonrpc": "2.0", "id": 1, "result": {"tools": [MCP]}},
    "one tool": TOOL,
}
LOG = '{"user": "Tide at Brest?", "tool_name": "get_tide", "arguments": {"harbour": "Brest"}}\n'
MODULE = '''
from dataclasses import asdict
from json import dumps as get_json

LIMIT = 3


def get_tide(harbour: str) -> str:
    """
    Tide at a harbour

    Args:
        harbour: Its name
    """
    return get_json(harbour)


def _helper(n):
    return n


class Tide:
    pass
'''


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(LOG)
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_of_each_shape_gives_the_same_tool(log, tmp_path, shape):
    (tmp_path / "tools.json").write_text(json.dumps(SHAPES[shape], indent=1))
    [conversation] = read_logs(log, tools=tmp_path / "tools.json")
    [tool] = conversation.tools
    function = {key: value for key, value in tool["function"].items() if value is not None}
    assert tool["type"] == "function" and function == TOOL["function"]
    assert conversation.meta["tools_from"] == ("mcp" if "response" in shape else "given")


def test_tools_stand_one_a_line(log, tmp_path):
    other = NAMED | {"name": "get_wind", "input_schema": SCHEMA}
    (tmp_path / "tools.jsonl").write_text(f"{json.dumps(TOOL)}\n{json.dumps(other)}\n")
    [conversation] = read_logs(log, tools=tmp_path / "tools.jsonl")
    assert [tool["function"]["name"] for tool in conversation.tools] == ["get_tide", "get_wind"]


def test_a_module_gives_its_public_functions(log, tmp_path):
    (tmp_path / "tides.py").write_text(MODULE)
    [conversation] = read_logs(log, tools=tmp_path / "tides.py")
    [tool] = conversation.tools
    assert tool["function"]["parameters"]["required"] == ["harbour"]
    assert conversation.meta["tools_from"] == "given"


def test_a_module_chooses_its_tools(log, tmp_path):
    (tmp_path / "helpers.py").write_text(MODULE)
    source = "from helpers import get_tide\n__all__ = ['get_tide']\n\ndef other(x): ...\n"
    (tmp_path / "chosen.py").write_text(source)
    [conversation] = read_logs(log, tools=str(tmp_path / "chosen.py"))
    assert [tool["function"]["name"] for tool in conversation.tools] == ["get_tide"]


def test_functions_are_given_as_they_are(log):
    def get_tide(harbour: str) -> str:
        """
        Tide at a harbour

        Args:
            harbour: Its name
        """
        return harbour

    [conversation] = read_logs(log, tools=[get_tide, {"name": "get_wind"}])
    assert [tool["function"]["name"] for tool in conversation.tools] == ["get_tide", "get_wind"]


def test_declared_tools_stay(tmp_path):
    record = {
        "messages": [{"role": "user", "content": "Tide?"}, {"role": "assistant", "content": "Low"}],
        "tools": [{"name": "own", "description": "Own"}],
    }
    (tmp_path / "log.jsonl").write_text(json.dumps(record))
    [conversation] = read_logs(tmp_path / "log.jsonl", tools=[TOOL])
    assert conversation.tools[0]["function"]["name"] == "own"
    assert conversation.meta["tools_from"] == "declared"


WRONG = {
    "a log": ("tools.jsonl", LOG, "no tool: .*it is a JSON list of tools"),
    "no list": ("tools.json", "3", "no tool: 3"),
    "text": ("tools.json", '["get_tide"]', 'no tool: "get_tide"'),
    "empty": ("tools.json", '{"tools": []}', "no tools in"),
    "no JSON": ("tools.yaml", "tools:\n  - name: get_tide\n", "JSON list of tools"),
    "twice": ("tools.json", json.dumps([TOOL, NAMED]), "get_tide is there twice"),
    "no name": ("tools.json", json.dumps([{"type": "function", "function": {}}]), "with a name"),
    "a schema that is none": ("tools.json", '[{"name": "a", "parameters": 1}]', "parameters of a"),
    "of the provider": ("tools.json", '[{"type": "web_search"}]', "provider"),
    "no functions": ("tools.py", "LIMIT = 3\n", "no tools in"),
    "no docstring": ("tools.py", "def low(): ...\n", "function low is no tool: .*docstring"),
    "no type": ("tools.py", 'def low(a):\n    "Low"\n', "function low is no tool: .*type hint"),
    "no words": ("tools.py", 'def low(a: int):\n    "Low"\n', "low is no tool: .*argument 'a'"),
    "a broken module": ("tools.py", "def low(:\n", "can't be imported: SyntaxError"),
    "a module that ends": ("tools.py", "raise SystemExit(3)\n", "can't be imported: SystemExit"),
    "a missing module": ("tools.py", None, "no such file"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_file_of_tools_is_named(log, tmp_path, kind):
    name, text, message = WRONG[kind]
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(LogError, match=message) as caught:
        read_logs(log, tools=tmp_path / name)
    assert name in str(caught.value)


def test_the_configuration_names_the_file(log, tmp_path):
    (tmp_path / "tools.json").write_text(json.dumps([TOOL]))
    log.write_text("".join(LOG.replace("Brest", name) for name in ("Brest", "Vannes", "Dinard")))
    options = {"log_path": str(log), "logs": {"tools": str(tmp_path / "tools.json")}}
    options |= {"output_dir": str(tmp_path / "run"), "split": {"validation": 0.0, "test": 0.34}}
    data = prepare(make_config(options))
    assert {c.tools[0]["function"]["name"] for c in data.log} == {"get_tide"}
