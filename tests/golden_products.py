"""One record of each format that a framework or an application writes, and its messages.

The shapes follow the types that are named beside each record. The words and the tool are those of
`goldens`, which collects these records.
"""

from __future__ import annotations

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
    }


def text_part(text: str) -> dict:
    return {"type": "text", "text": text}


def attributes(texts: dict[str, str], tools: Iterable[str]) -> list[dict]:
    "Attributes as a collector writes them, with the tools as a list of texts"
    values = {"values": [{"stringValue": tool} for tool in tools]}
    return [
        *({"key": key, "value": {"stringValue": text}} for key, text in texts.items()),
        {"key": "ai.prompt.tools", "value": {"arrayValue": values}},
    ]
