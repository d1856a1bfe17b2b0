"Real logs, where `TOOLCALL_REAL_LOGS` names their folder: every record accounted for"
import pytest

from toolcall.chatml import ChatML, encode
from toolcall.conversation import argument_errors
from toolcall.curate import curate, split
from toolcall.logs import read_logs


def test_voice_assistant(real_logs):
    log = read_logs(real_logs / "voice_assistant.simple.json.gz")
    assert (log.report.records, log.report.conversations, log.rejects) == (6892, 6892, [])
    curated = curate(log.conversations)
    assert curated.report.kept + curated.report.merged == 6892
    tools = {tool["function"]["name"] for c in curated.conversations for tool in c.tools}
    assert len(tools) == 7 and curated.report.inferred == curated.report.kept
    assert not any(argument_errors(call, c.tools) for c in curated.conversations[:500] for call in c.calls())
    splits = split(curated.conversations)
    assert sum(len(part) for part in vars(splits).values()) == curated.report.kept
    sources = [{c.meta["source"] for c in part} for part in vars(splits).values()]
    assert not sources[0] & sources[1] and not sources[0] & sources[2] and not sources[1] & sources[2]


def test_sealtools(real_logs, smollm):
    log = read_logs(real_logs / "sealtools.messages.jsonl.gz")
    assert (log.report.records, log.report.conversations) == (1400, 1400)
    chosen = log.conversations[:200]
    encoded = encode(ChatML(smollm), chosen)
    assert len(encoded.examples) + len(encoded.rejects) == sum(len(c.turns) for c in chosen)
    assert not encoded.rejects


@pytest.mark.parametrize("template", ["qwen2_5", "qwen3"])
def test_sealtools_on_qwen(real_logs, template):
    from conftest import make_qwen
    encoded = encode(ChatML(make_qwen(template)), read_logs(real_logs / "sealtools.messages.jsonl.gz").conversations[:100])
    assert not encoded.rejects and all(e.prompt_ids for e in encoded.examples)
