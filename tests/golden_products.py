"""One record of each format that a framework or an application writes, and its messages.

The shapes follow the types that are named beside each record. The words and the tool are those of
`goldens`, which collects these records.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable


def products(tool: dict, user: dict, calls: list, results: list, answer: dict) -> dict:
    "Name → (format, record, messages); the parts are those of `goldens`"
    names = ("Paris", "Rome")
    said = {"role": "assistant", "content": answer["content"]}
    called = {"role": "assistant", "content": "", "tool_calls": calls}
    whole = [user, called, *results, said]
    known = [user, called, *(result | {"is_error": False} for result in results), said]
    schema = tool["function"]["parameters"]
    flat = {"name": "get_weather", "description": tool["function"]["description"]}

    def each(make) -> list:
        return [make(*pair) for pair in zip(calls, names, results)]

    return {
        # ai 5.0 and 6.0, src/ui/ui-messages.ts
        "ai_sdk ui messages": (
            "ai_sdk",
            {
                "id": "chat-1",
                "messages": [
                    {"id": "1", "role": "user", "parts": [text_part(user["content"])]},
                    {
                        "id": "2",
                        "role": "assistant",
                        "parts": [
                            {"type": "step-start"},
                            *each(
                                lambda call, city, result: {
                                    "type": "tool-get_weather",
                                    "toolCallId": call["id"],
                                    "state": "output-available",
                                    "input": {"city": city},
                                    "output": result["content"],
                                }
                            ),
                            {"type": "step-start"},
                            text_part(answer["content"]) | {"state": "done"},
                        ],
                    },
                ],
                "tools": {"get_weather": flat | {"inputSchema": {"jsonSchema": schema}}},
            },
            known,
        ),
        # ai 4.3, @ai-sdk/ui-utils: Message
        "ai_sdk tool invocations": (
            "ai_sdk",
            {
                "messages": [
                    user,
                    {
                        "role": "assistant",
                        "content": answer["content"],
                        "toolInvocations": each(
                            lambda call, city, result: {
                                "state": "result",
                                "step": 0,
                                "toolCallId": call["id"],
                                "toolName": "get_weather",
                                "args": {"city": city},
                                "result": result["content"],
                            }
                        ),
                    },
                ],
                "tools": [json.dumps(flat | {"parameters": schema})],
            },
            whole,
        ),
        # ai 5.0, @ai-sdk/provider-utils: ModelMessage
        "ai_sdk model messages": (
            "ai_sdk",
            {
                "messages": [
                    {"role": "user", "content": [text_part(user["content"])]},
                    {
                        "role": "assistant",
                        "content": each(
                            lambda call, city, _: {
                                "type": "tool-call",
                                "toolCallId": call["id"],
                                "toolName": "get_weather",
                                "input": {"city": city},
                            }
                        ),
                    },
                    {
                        "role": "tool",
                        "content": each(
                            lambda call, _, result: {
                                "type": "tool-result",
                                "toolCallId": call["id"],
                                "toolName": "get_weather",
                                "output": {"type": "text", "value": result["content"]},
                            }
                        ),
                    },
                    {"role": "assistant", "content": [text_part(answer["content"])]},
                ],
                "tools": [flat | {"inputSchema": schema}],
            },
            known,
        ),
        # ai 5.0, src/telemetry and src/generate-text
        "ai_sdk_spans": (
            "ai_sdk_spans",
            {
                "traceId": "t1",
                "spanId": "s1",
                "name": "ai.generateText.doGenerate",
                "attributes": attributes(
                    {
                        "ai.operationId": "ai.generateText.doGenerate",
                        "ai.prompt.messages": json.dumps([user]),
                        "ai.response.finishReason": "tool-calls",
                        "ai.response.toolCalls": json.dumps(
                            each(
                                lambda call, city, _: {
                                    "toolCallId": call["id"],
                                    "toolName": "get_weather",
                                    "input": json.dumps({"city": city}),
                                }
                            )
                        ),
                        "gen_ai.system": "openai.chat",
                    },
                    [json.dumps(flat | {"type": "function", "inputSchema": schema})],
                ),
            },
            [user, called],
        ),
        # Gemini CLI 0.20, packages/core/src/services/chatRecordingService.ts: ConversationRecord
        "gemini_cli": (
            "gemini_cli",
            {
                "sessionId": "s1",
                "projectHash": "0",
                "startTime": "2026-01-01T10:00:00Z",
                "messages": [
                    {"id": "1", "type": "user", "content": [{"text": user["content"]}]},
                    {
                        "id": "2",
                        "type": "gemini",
                        "content": "",
                        "model": "m",
                        "toolCalls": each(
                            lambda call, city, result: {
                                "id": call["id"],
                                "name": "get_weather",
                                "args": {"city": city},
                                "status": "success",
                                "result": [
                                    {
                                        "functionResponse": {
                                            "id": call["id"],
                                            "name": "get_weather",
                                            "response": {"output": result["content"]},
                                        }
                                    }
                                ],
                            }
                        ),
                    },
                    {"id": "3", "type": "gemini", "content": answer["content"]},
                ],
            },
            known,
        ),
        # OpenCode 1.1, packages/opencode/src/session/message-v2.ts, as `opencode export` writes it
        "opencode": (
            "opencode",
            {
                "info": {"id": "ses_1", "title": "Weather", "time": {"created": 1767261600000}},
                "messages": [
                    {
                        "info": {"id": "msg_1", "role": "user"},
                        "parts": [text_part(user["content"])],
                    },
                    {
                        "info": {"id": "msg_2", "role": "assistant"},
                        "parts": [
                            {"type": "step-start"},
                            *each(
                                lambda call, city, result: {
                                    "type": "tool",
                                    "callID": call["id"],
                                    "tool": "get_weather",
                                    "state": {
                                        "status": "completed",
                                        "input": {"city": city},
                                        "output": result["content"],
                                    },
                                }
                            ),
                            {"type": "step-finish", "reason": "tool-calls"},
                            {"type": "step-start"},
                            text_part(answer["content"]),
                            {"type": "step-finish", "reason": "stop"},
                        ],
                    },
                ],
            },
            known,
        ),
        # AG-UI, sdks/typescript/packages/core/src/types.ts: RunAgentInput
        "ag_ui": (
            "ag_ui",
            {
                "threadId": "t1",
                "runId": "r1",
                "messages": [
                    {"id": "1", **user},
                    {"id": "2", "role": "assistant", "toolCalls": wire(calls)},
                    *each(
                        lambda call, _, result: {
                            "id": call["id"],
                            "role": "tool",
                            "toolCallId": call["id"],
                            "content": result["content"],
                        }
                    ),
                    {"id": "3", **said},
                ],
                "tools": [flat | {"parameters": schema}],
            },
            whole,
        ),
        # Open WebUI 0.6, backend/open_webui/utils/middleware.py: serialize_output
        "open_webui": (
            "open_webui",
            {
                "id": "w",
                "user_id": "u1",
                "chat": {
                    "models": ["m"],
                    "tools": [tool],
                    "history": {
                        "currentId": "b",
                        "messages": {
                            "a": {"id": "a", "parentId": None, "childrenIds": ["b"], **user},
                            "b": {
                                "id": "b",
                                "parentId": "a",
                                "role": "assistant",
                                "done": True,
                                "content": "".join(map(details, calls, results))
                                + answer["content"],
                            },
                        },
                    },
                },
            },
            whole,
        ),
        # pydantic-ai 1.0, pydantic_ai/messages.py: ModelMessage
        "pydantic_ai": (
            "pydantic_ai",
            {
                "messages": [
                    {
                        "kind": "request",
                        "parts": [{"part_kind": "user-prompt", "content": user["content"]}],
                    },
                    {
                        "kind": "response",
                        "parts": each(
                            lambda call, city, _: {
                                "part_kind": "tool-call",
                                "tool_name": "get_weather",
                                "args": json.dumps({"city": city}),
                                "tool_call_id": call["id"],
                            }
                        ),
                    },
                    {
                        "kind": "request",
                        "parts": each(
                            lambda call, _, result: {
                                "part_kind": "tool-return",
                                "tool_name": "get_weather",
                                "content": result["content"],
                                "tool_call_id": call["id"],
                                "outcome": "success",
                            }
                        ),
                    },
                    {
                        "kind": "response",
                        "parts": [{"part_kind": "text", "content": answer["content"]}],
                    },
                ],
                "tools": [tool],
            },
            known,
        ),
        # autogen-agentchat 0.7, autogen_agentchat/messages.py
        "autogen": (
            "autogen",
            {
                "messages": [
                    {"type": "TextMessage", "source": "user", "content": user["content"]},
                    {
                        "type": "ToolCallRequestEvent",
                        "source": "agent",
                        "content": [{"id": call["id"]} | call["function"] for call in wire(calls)],
                    },
                    {
                        "type": "ToolCallExecutionEvent",
                        "source": "agent",
                        "content": each(
                            lambda call, _, result: {
                                "call_id": call["id"],
                                "name": "get_weather",
                                "content": result["content"],
                                "is_error": False,
                            }
                        ),
                    },
                    {"type": "TextMessage", "source": "agent", "content": answer["content"]},
                ],
                "tools": [tool],
            },
            known,
        ),
        # smolagents 1.20, src/smolagents/memory.py: ActionStep.to_messages
        "smolagents": (
            "smolagents",
            {
                "messages": [
                    {"role": "user", "content": [text_part(user["content"])]},
                    {"role": "tool-call", "content": f"Calling tools:\n{calls[:1]}"},
                    {
                        "role": "tool-response",
                        "content": f"Observation:\n{results[0]['content']}",
                    },
                    {"role": "assistant", "content": [text_part(answer["content"])]},
                ],
                "tools": [tool],
            },
            [user, called | {"tool_calls": calls[:1]}, results[0], said],
        ),
        # langchain-core 1.0, langchain_core/messages: messages_to_dict
        "langchain": (
            "langchain",
            {
                "messages": [
                    {"type": "human", "data": {"type": "human", "content": user["content"]}},
                    {
                        "type": "ai",
                        "data": {
                            "content": "",
                            "tool_calls": each(
                                lambda call, city, _: {
                                    "name": "get_weather",
                                    "args": {"city": city},
                                    "id": call["id"],
                                    "type": "tool_call",
                                }
                            ),
                        },
                    },
                    *each(
                        lambda call, _, result: {
                            "type": "tool",
                            "data": {"content": result["content"], "tool_call_id": call["id"]},
                        }
                    ),
                    {"type": "ai", "data": {"content": answer["content"], "tool_calls": []}},
                ],
                "tools": [tool],
            },
            whole,
        ),
        # verifiers 0.1.9, verifiers/utils/save_utils.py: state_to_output
        "verifiers": (
            "verifiers",
            {
                "example_id": 0,
                "prompt": [user],
                "completion": [
                    {
                        "role": "assistant",
                        "content": None,
                        "tool_calls": [json.dumps(call) for call in wire(calls)],
                    },
                    *results,
                    said,
                ],
                "reward": 1.0,
                "info": {"oai_tools": [tool]},
            },
            whole,
        ),
        # llama-index-core 0.14, llama_index/core/base/llms/types.py: ChatMessage
        "frameworks": (
            "frameworks",
            {
                "messages": [
                    {"role": "user", "blocks": [block(user["content"])]},
                    {"role": "assistant", "additional_kwargs": {"tool_calls": wire(calls)}},
                    *(
                        {
                            "role": "tool",
                            "blocks": [block(result["content"])],
                            "additional_kwargs": {
                                "tool_call_id": result["tool_call_id"],
                                "name": result["name"],
                            },
                        }
                        for result in results
                    ),
                    {"role": "assistant", "blocks": [block(answer["content"])]},
                ],
                "tools": [tool],
            },
            whole,
        ),
        # kiln-ai 0.20, kiln_ai/datamodel/task_run.py
        "kiln": (
            "kiln",
            {
                "v": 1,
                "id": "k1",
                "model_type": "task_run",
                "input": user["content"],
                "output": {"output": answer["content"]},
                "trace": [
                    user,
                    {"role": "assistant", "content": None, "tool_calls": wire(calls)},
                    *results,
                    said,
                ],
                "tools": [tool],
            },
            whole,
        ),
    }


def wire(calls: list[dict]) -> list[dict]:
    "Calls whose arguments are text"
    return [
        call
        | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
        for call in calls
    ]


def details(call: dict, result: dict) -> str:
    "A call as HTML"
    arguments = html.escape(json.dumps(json.dumps(call["function"]["arguments"])))
    value = html.escape(json.dumps(result["content"], ensure_ascii=False))
    return (
        f'<details type="tool_calls" done="true" id="{call["id"]}" name="get_weather"'
        f' arguments="{arguments}" result="{value}" files="">\n'
        "<summary>Tool Executed</summary>\n</details>\n"
    )


def block(text: str) -> dict:
    return {"block_type": "text", "text": text}


def text_part(text: str) -> dict:
    return {"type": "text", "text": text}


def attributes(texts: dict[str, str], tools: Iterable[str]) -> list[dict]:
    "Attributes as a collector writes them, with the tools as a list of texts"
    values = {"values": [{"stringValue": tool} for tool in tools]}
    return [
        *({"key": key, "value": {"stringValue": text}} for key, text in texts.items()),
        {"key": "ai.prompt.tools", "value": {"arrayValue": values}},
    ]
