"""One record of each format that a provider's client or a gateway writes, and its messages.

The shapes follow the types of the SDKs openai 3.54 (chat completions, chunks, Responses, batch,
fine-tuning), anthropic 2.12 (Messages) and google-genai 3.4 (contents), NVIDIA's data flywheel
(docs/data-logging.md), OpenPipe's log export and LiteLLM's StandardLoggingPayload. Formats of
traces and of training sets have theirs in their own tests, those of frameworks in
`golden_products`.
"""

import json

from golden_products import products

TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
FLAT = {"type": "function", **TOOL["function"]}
USER = {"role": "user", "content": "Weather in Paris and Rome?"}
CALLS = [
    {
        "id": f"call_{n}",
        "type": "function",
        "function": {"name": "get_weather", "arguments": {"city": city}},
    }
    for n, city in enumerate(("Paris", "Rome"))
]
RESULTS = [
    {"role": "tool", "tool_call_id": f"call_{n}", "name": "get_weather", "content": text}
    for n, text in enumerate(("12 °C", "19 °C"))
]
ANSWER = {"role": "assistant", "content": "Paris 12 °C, Rome 19 °C."}
CALLED = {"role": "assistant", "content": "", "tool_calls": CALLS}
WHOLE = [USER, CALLED, *RESULTS, ANSWER]

WIRE_CALLS = [
    call | {"function": {"name": "get_weather", "arguments": f'{{"city": "{city}"}}'}}
    for call, city in zip(CALLS, ("Paris", "Rome"))
]
WIRE = [
    USER,
    {"role": "assistant", "content": None, "tool_calls": WIRE_CALLS},
    *({k: v for k, v in m.items() if k != "name"} for m in RESULTS),
]
REQUEST = {"model": "gpt-x", "messages": WIRE, "tools": [TOOL]}
RESPONSE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1732000604,
    "model": "gpt-x",
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": ANSWER["content"], "refusal": None},
        }
    ],
}


def chunk(delta: dict, finish: str | None = None) -> dict:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1732000604,
        "model": "gpt-x",
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
    }


def piece(index: int, arguments: str, **head: str) -> dict:
    name = {"name": head.pop("name")} if "name" in head else {}
    return {"tool_calls": [{"index": index, **head, "function": {**name, "arguments": arguments}}]}


CHUNKS = [
    chunk({"role": "assistant", "content": None}),
    chunk(piece(0, "", id="call_0", type="function", name="get_weather")),
    chunk(piece(0, '{"city": ')),
    chunk(piece(0, '"Paris"}')),
    chunk(piece(1, "", id="call_1", type="function", name="get_weather")),
    chunk(piece(1, '{"city": "Rome"}')),
    chunk({}, "tool_calls"),
]

ITEMS = [
    {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": USER["content"]}],
    },
    *(
        {
            "type": "function_call",
            "call_id": call["id"],
            "name": "get_weather",
            "arguments": call["function"]["arguments"],
            "id": f"fc_{n}",
            "status": "completed",
        }
        for n, call in enumerate(WIRE_CALLS)
    ),
    *(
        {"type": "function_call_output", "call_id": m["tool_call_id"], "output": m["content"]}
        for m in RESULTS
    ),
]
OUTPUT = [
    {
        "type": "message",
        "id": "msg_1",
        "status": "completed",
        "role": "assistant",
        "content": [{"type": "output_text", "text": ANSWER["content"], "annotations": []}],
    }
]

BLOCKS = [
    USER,
    {
        "role": "assistant",
        "content": [
            {
                "type": "tool_use",
                "id": call["id"],
                "name": "get_weather",
                "input": call["function"]["arguments"],
            }
            for call in CALLS
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": m["tool_call_id"], "content": m["content"]}
            for m in RESULTS
        ],
    },
]
CLAUDE_TOOL = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": TOOL["function"]["parameters"],
}

PARTS = [
    {"role": "user", "parts": [{"text": USER["content"]}]},
    {
        "role": "model",
        "parts": [
            {
                "functionCall": {
                    "id": call["id"],
                    "name": "get_weather",
                    "args": call["function"]["arguments"],
                }
            }
            for call in CALLS
        ],
    },
    {
        "role": "user",
        "parts": [
            {
                "functionResponse": {
                    "id": m["tool_call_id"],
                    "name": "get_weather",
                    "response": {"output": m["content"]},
                }
            }
            for m in RESULTS
        ],
    },
]
GEMINI_TOOL = {
    "functionDeclarations": [
        {
            "name": "get_weather",
            "description": "Weather of a city",
            "parameters": {
                "type": "OBJECT",
                "properties": {"city": {"type": "STRING"}},
                "required": ["city"],
            },
        }
    ]
}

CACHE_POINT = {"cachePoint": {"type": "default"}}

# name → (format, record, messages)
GOLDENS: dict[str, tuple[str, dict, list[dict]]] = {
    # README.md
    "simple": (
        "simple",
        {
            "user": "Weather in Paris?",
            "tool_name": "get_weather",
            "arguments": {"city": "Paris"},
            "tool_response": {"t": 12},
            "final_answer": "12 °C.",
        },
        [
            {"role": "user", "content": "Weather in Paris?"},
            {"role": "assistant", "content": "", "tool_calls": CALLS[:1]},
            {
                "role": "tool",
                "tool_call_id": "call_0",
                "name": "get_weather",
                "content": '{"t": 12}',
            },
            {"role": "assistant", "content": "12 °C."},
        ],
    ),
    # github.com/NVIDIA-AI-Blueprints/data-flywheel docs/data-logging.md
    "flywheel": (
        "requests",
        {
            "timestamp": 1732000604,
            "workload_id": "w",
            "client_id": "c",
            "request": REQUEST,
            "response": RESPONSE,
        },
        WHOLE,
    ),
    # github.com/OpenPipe/OpenPipe docs/features/exporting-data.mdx
    "openpipe": (
        "requests",
        {"input": REQUEST, "output": RESPONSE, "tags": {"prompt_id": "weather"}},
        WHOLE,
    ),
    # platform.openai.com/docs/guides/batch, input and output joined
    "batch": (
        "requests",
        {
            "custom_id": "r1",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": REQUEST,
            "response": {"status_code": 200, "request_id": "q", "body": RESPONSE},
            "error": None,
        },
        WHOLE,
    ),
    # litellm.types.utils.StandardLoggingPayload
    "litellm": (
        "litellm",
        {
            "id": "l1",
            "call_type": "acompletion",
            "status": "success",
            "messages": WIRE,
            "model_parameters": {"tools": [TOOL]},
            "response": RESPONSE,
            "end_user": "u",
            "startTime": 1732000604.5,
        },
        WHOLE,
    ),
    # openai.types.chat.ChatCompletionChunk
    "chunks": (
        "requests",
        {
            "request": {"model": "gpt-x", "messages": [USER], "tools": [TOOL], "stream": True},
            "response": CHUNKS,
        },
        [USER, CALLED],
    ),
    # openai.types.chat, functions and function_call
    "legacy": (
        "messages",
        {
            "functions": [TOOL["function"]],
            "messages": [
                USER,
                {"role": "assistant", "content": None, "function_call": WIRE_CALLS[0]["function"]},
                {"role": "function", "name": "get_weather", "content": "12 °C"},
            ],
        },
        [
            USER,
            {"role": "assistant", "content": "", "tool_calls": [CALLS[0] | {"id": "call_1_0"}]},
            RESULTS[0] | {"tool_call_id": "call_1_0"},
        ],
    ),
    # platform.openai.com/docs/guides/fine-tuning, function calling
    "fine-tuning": (
        "messages",
        {"messages": [*WIRE, ANSWER], "tools": [TOOL], "parallel_tool_calls": True},
        WHOLE,
    ),
    # huggingface.co/docs/transformers/chat_extras, with an object as arguments
    "hugging face": (
        "messages",
        {
            "messages": [
                USER,
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"type": "function", "function": call["function"]} for call in CALLS
                    ],
                },
                *(
                    {"role": "tool", "name": "get_weather", "content": m["content"]}
                    for m in RESULTS
                ),
                ANSWER,
            ],
            "tools": [TOOL],
        },
        [
            USER,
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [call | {"id": f"call_1_{n}"} for n, call in enumerate(CALLS)],
            },
            *(m | {"tool_call_id": f"call_1_{n}"} for n, m in enumerate(RESULTS)),
            ANSWER,
        ],
    ),
    # openai.types.responses.ResponseInputItem and Response
    "responses": (
        "responses",
        {
            "id": "resp_1",
            "object": "response",
            "status": "completed",
            "model": "gpt-x",
            "instructions": "Be brief.",
            "input": ITEMS,
            "output": OUTPUT,
            "tools": [FLAT | {"strict": True}],
        },
        [{"role": "system", "content": "Be brief."}, *WHOLE],
    ),
    # anthropic.types.MessageParam
    "anthropic": (
        "anthropic",
        {
            "model": "claude-x",
            "system": "Be brief.",
            "max_tokens": 99,
            "messages": [
                *BLOCKS,
                {"role": "assistant", "content": [{"type": "text", "text": ANSWER["content"]}]},
            ],
            "tools": [CLAUDE_TOOL],
        },
        [{"role": "system", "content": "Be brief."}, *WHOLE],
    ),
    # anthropic.types.Message, beside its request
    "anthropic pair": (
        "requests",
        {
            "request": {
                "model": "claude-x",
                "messages": BLOCKS,
                "max_tokens": 99,
                "tools": [CLAUDE_TOOL],
            },
            "response": {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": "claude-x",
                "content": [{"type": "text", "text": ANSWER["content"]}],
                "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 9, "output_tokens": 9},
            },
        },
        WHOLE,
    ),
    # ai.google.dev/api/generate-content
    "gemini": (
        "gemini",
        {
            "contents": PARTS,
            "tools": [GEMINI_TOOL],
            "candidates": [
                {
                    "content": {"role": "model", "parts": [{"text": ANSWER["content"]}]},
                    "finishReason": "STOP",
                }
            ],
        },
        WHOLE,
    ),
    # github.com/ollama/ollama docs/api.md, "Generate a chat completion"
    "ollama": (
        "requests",
        {
            "request": {"model": "q", "messages": WIRE, "tools": [TOOL], "stream": False},
            "response": {
                "model": "q",
                "created_at": "2024-11-19T07:16:44Z",
                "message": ANSWER,
                "done_reason": "stop",
                "done": True,
                "eval_count": 9,
            },
        },
        WHOLE,
    ),
    # a row of a data set, whose messages are JSON text in one column
    "row of messages": (
        "messages",
        {"context": json.dumps({"messages": [*WIRE, ANSWER]}), "tools": json.dumps([TOOL])},
        WHOLE,
    ),
    # a row of a test set, whose other columns are empty
    "row of an answer": (
        "requests",
        {
            "context": None,
            "question": json.dumps(WIRE),
            "answer": ANSWER["content"],
            "reasoning": None,
            "metadata": None,
            "tools": [TOOL],
        },
        WHOLE,
    ),
    # docs.cohere.com/reference/chat, version 2
    "cohere": (
        "requests",
        {
            "request": {"model": "command-a", "messages": WIRE, "tools": [TOOL]},
            "response": {
                "id": "c0",
                "finish_reason": "COMPLETE",
                "message": {
                    "role": "assistant",
                    "content": [{"type": "text", "text": ANSWER["content"]}],
                },
                "usage": {"tokens": {"input_tokens": 9}},
            },
        },
        WHOLE,
    ),
    # docs.anthropic.com/en/api/messages-streaming
    "anthropic stream": (
        "requests",
        {
            "request": {"model": "claude-x", "messages": BLOCKS, "tools": [CLAUDE_TOOL]},
            "response": [
                {
                    "type": "message_start",
                    "message": {"id": "msg_1", "role": "assistant", "content": []},
                },
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "text", "text": ""},
                },
                *(
                    {
                        "type": "content_block_delta",
                        "index": 0,
                        "delta": {"type": "text_delta", "text": text},
                    }
                    for text in (ANSWER["content"][:3], ANSWER["content"][3:])
                ),
                {"type": "content_block_stop", "index": 0},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
                {"type": "message_stop"},
            ],
        },
        WHOLE,
    ),
    # openai.types.responses.ResponseStreamEvent
    "responses stream": (
        "requests",
        {
            "request": {"model": "gpt-x", "input": ITEMS, "tools": [FLAT]},
            "response": [
                {"type": "response.created", "response": {"status": "in_progress", "output": []}},
                # openai.types.responses.ResponseStreamEvent, an event a record
                {"type": "response.output_item.done", "output_index": 0, "item": OUTPUT[0]},
                {"type": "response.completed", "response": {"status": "completed", "output": []}},
            ],
        },
        WHOLE,
    ),
    # ai.google.dev/api/generate-content, streamGenerateContent
    "gemini stream": (
        "requests",
        {
            "request": {"contents": PARTS, "tools": [GEMINI_TOOL]},
            "response": [
                {
                    "candidates": [
                        {
                            "content": {"role": "model", "parts": [{"text": ANSWER["content"]}]},
                            "index": 0,
                        }
                    ]
                },
                {
                    "candidates": [
                        {
                            "content": {"role": "model", "parts": [{"thoughtSignature": "x"}]},
                            "finishReason": "STOP",
                        }
                    ]
                },
            ],
        },
        WHOLE,
    ),
    # docs.aws.amazon.com/bedrock, API_runtime_ConverseStream, and model-invocation-logging
    "bedrock log": (
        "bedrock_log",
        {
            "schemaType": "ModelInvocationLog",
            "schemaVersion": "1.0",
            "timestamp": "2024-11-19T07:16:44Z",
            "requestId": "r1",
            "operation": "ConverseStream",
            "modelId": "anthropic.claude-x",
            "input": {
                "inputBodyJson": {
                    "messages": [
                        {"role": "user", "content": [{"text": USER["content"]}, CACHE_POINT]},
                        {
                            "role": "assistant",
                            "content": [
                                {
                                    "toolUse": {
                                        "toolUseId": call["id"],
                                        "name": "get_weather",
                                        "input": call["function"]["arguments"],
                                    }
                                }
                                for call in CALLS
                            ],
                        },
                        {
                            "role": "user",
                            "content": [
                                {
                                    "toolResult": {
                                        "toolUseId": m["tool_call_id"],
                                        "content": [{"text": m["content"]}],
                                    }
                                }
                                for m in RESULTS
                            ],
                        },
                    ],
                    "toolConfig": {
                        "tools": [
                            {
                                "toolSpec": {
                                    "name": "get_weather",
                                    "description": "Weather of a city",
                                    "inputSchema": {"json": TOOL["function"]["parameters"]},
                                }
                            },
                            CACHE_POINT,
                        ]
                    },
                }
            },
            "output": {
                "outputBodyJson": [
                    {"messageStart": {"role": "assistant"}},
                    {
                        "contentBlockDelta": {
                            "delta": {"text": ANSWER["content"]},
                            "contentBlockIndex": 0,
                        }
                    },
                    {"contentBlockStop": {"contentBlockIndex": 0}},
                    {"messageStop": {"stopReason": "end_turn"}},
                ]
            },
        },
        WHOLE,
    ),
    # docs.konghq.com, plugin http-log, with the bodies
    "http log": (
        "requests",
        {
            "request": {"method": "POST", "url": "/v1/chat/completions", "body": REQUEST},
            "response": {"status": 200, "headers": {}, "body": RESPONSE},
            "started_at": 1732000604000,
        },
        WHOLE,
    ),
    # docs.litellm.ai/docs/proxy/ui_logs, table LiteLLM_SpendLogs
    "litellm spend logs": (
        "litellm",
        {
            "request_id": "r1",
            "call_type": "acompletion",
            "status": "success",
            "messages": {},
            "response": RESPONSE,
            "proxy_server_request": {"model": "gpt-x", "messages": WIRE, "tools": [TOOL]},
            "end_user": "u",
            "startTime": "2024-11-19T07:16:44Z",
        },
        WHOLE,
    ),
    # weave.trace_server.trace_server_interface.CallSchema
    "weave": (
        "weave",
        {
            "id": "w1",
            "project_id": "team/weather",
            "op_name": "weave:///team/weather/op/openai.chat.completions.create:abc",
            "trace_id": "t1",
            "parent_id": None,
            "thread_id": "thread-1",
            "started_at": "2024-11-19T07:16:44Z",
            "attributes": {},
            "inputs": {"self": {}} | REQUEST,
            "output": RESPONSE,
            "exception": None,
            "summary": {"status": "success"},
        },
        WHOLE,
    ),
    # openai-agents, agents.tracing.span_data.GenerationSpanData
    "openai agents": (
        "openai_agents",
        {
            "object": "trace.span",
            "id": "span_1",
            "trace_id": "trace_1",
            "parent_id": None,
            "started_at": "2024-11-19T07:16:44Z",
            "span_data": {
                "type": "generation",
                "input": WIRE,
                "output": [ANSWER],
                "model": "gpt-x",
                "model_config": {"temperature": 0, "tools": [TOOL]},
            },
            "error": None,
        },
        WHOLE,
    ),
}

GOLDENS |= products(TOOL, USER, CALLS, RESULTS, ANSWER)

# Records that are refused by name: each is a part of a conversation
PARTS_OF_CONVERSATIONS: list[dict] = [
    # a table of messages
    {"conversation_id": "c1", "seq": 0, "role": "user", "content": "Weather in Paris?"},
    # code.claude.com/docs, a line of a session's transcript
    {
        "type": "assistant",
        "sessionId": "s1",
        "parentUuid": None,
        "isSidechain": False,
        "message": {
            "id": "msg_1",
            "role": "assistant",
            "content": [{"type": "text", "text": "Hm"}],
        },
        "uuid": "u1",
    },
    # github.com/openai/codex, codex-rs/protocol: RolloutLine
    {
        "timestamp": "2024-11-19T07:16:44Z",
        "type": "response_item",
        "payload": {"type": "message", "role": "user", "content": []},
    },
    # openai.types.realtime, events of a server
    {"type": "session.updated", "session": {"instructions": "Be brief.", "tools": [FLAT]}},
    {"type": "response.output_item.done", "output_index": 0, "item": OUTPUT[0]},
    {"title": "Weather", "mapping": {"a": {"message": None}}, "current_node": "a"},
    {"toolCall": {"functionCalls": [{"id": "c1", "name": "get_weather", "args": {}}]}},
]
