"A record of each format: what the tests begin with that break records"

from goldens import GOLDENS, PARTS_OF_CONVERSATIONS
from test_traces import GOLDEN as TRACE_GOLDENS
from test_training_sets import RECORDS as TRAINING_GOLDENS

from toolcall.formats import FORMATS, expand, find_format

# an answer without its question, which is refused by name
ANSWER = {"id": "r", "choices": [{"message": {"role": "assistant", "content": "12 °C."}}]}
# an item of a workflow product, refused by name as well
PRODUCT = {"json": {"output": "12 °C.", "chatInput": "Weather?"}, "pairedItem": {"item": 0}}
# a call in DSPy 3's history, dspy/clients/base_lm.py: BaseLM._process_lm_response
DSPY = {
    "prompt": None,
    "messages": [{"role": "user", "content": "Weather?"}],
    "kwargs": {"temperature": 0.0, "tools": [{"name": "get_weather", "parameters": {}}]},
    "response": "ModelResponse(…)",
    "outputs": ["12 °C."],
    "model_type": "chat",
}
EVERYTHING: list[dict] = [
    *(record for _, record, _ in GOLDENS.values()),
    *TRACE_GOLDENS.values(),
    *TRAINING_GOLDENS.values(),
    *PARTS_OF_CONVERSATIONS,
    ANSWER,
    PRODUCT,
    DSPY,
]


def missing_formats() -> set[str]:
    "Formats of the registry of which no seed is"
    parts = [part for record in EVERYTHING for _, part in [("", record), *expand(record)]]
    found = [find_format(part) for part in parts if isinstance(part, dict)]
    return {format.name for format in FORMATS} - {format.name for format in found if format}
