"""Secrets that are planted in a log and redacted can't be got out of the model that was tuned on it

Twenty values stand in the calls of conversations. A small model reads the conversations until it
knows them by heart. Without redaction each value comes out when the model continues its
prompt; this shows that the attack works. With redaction none does, and the values are no more
likely than random ones of their form (exposure, Carlini et al. 2019).
"""

import math
import random

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from toolcall.chatml.encoding import encode
from toolcall.chatml.examples import ChatML
from toolcall.conversation import Conversation, ToolCall
from toolcall.curate.privacy import redact
from toolcall.curate.privacy_values import draw
from toolcall.text import dumps

SHAPES = ["{w6}.{w5}@{w6}.example.com"] * 8 + ["sk-{a24}"] * 6 + ["+1 415 2{d2} {d4}"] * 6
ALTERNATIVES = 32  # values of the same form, of which the planted one is one


def planted(values):
    "One conversation a value; only the call of the assistant holds it"
    return [
        Conversation(
            f"c{number}",
            [
                {"role": "user", "content": f"Notify customer {number} of branch {number * 7}"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [ToolCall("notify", {"to": value}, "1").to_message()],
                },
            ],
        )
        for number, value in enumerate(values)
    ]


class Memory:
    "A small model of the token ids that occur, trained until it knows its conversations by heart"

    def __init__(self, examples, every_id):
        torch.manual_seed(0)
        self.ids = {id: place for place, id in enumerate(sorted(every_id))}
        sizes = {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2}
        heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
        config = LlamaConfig(vocab_size=len(self.ids), **sizes, **heads)
        self.model = LlamaForCausalLM(config)
        inputs, labels = self.batch(examples)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=4e-3)
        for self.steps in range(400):
            loss = self.model(input_ids=inputs, labels=labels).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if loss.item() < 0.01:
                break
        self.model.eval()

    def batch(self, examples):
        rows = [[self.ids[id] for id in (*e.prompt_ids, *e.completion_ids)] for e in examples]
        width = max(map(len, rows))
        inputs = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        labels = torch.full_like(inputs, -100)
        for place, (row, example) in enumerate(zip(rows, examples)):
            labels[place, len(example.prompt_ids) : len(row)] = inputs[
                place, len(example.prompt_ids) : len(row)
            ]
        return inputs, labels

    @torch.no_grad()
    def continued(self, example, tokens=60):
        "What the model says after a prompt, most likely token by token"
        back = {place: id for id, place in self.ids.items()}
        ids = [self.ids[id] for id in example.prompt_ids]
        for _ in range(tokens):
            ids.append(int(self.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        return [back[id] for id in ids[len(example.prompt_ids) :]]

    @torch.no_grad()
    def losses(self, examples):
        "Negative log-likelihood of each completion"
        inputs, labels = self.batch(examples)
        logits = self.model(input_ids=inputs).logits[:, :-1].log_softmax(-1)
        targets = labels[:, 1:]
        picked = logits.gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0]
        return (-picked * (targets != -100)).sum(1).tolist()


def exposure(losses):
    "log2 of how many values, over log2 of the rank of the first one among them"
    rank = 1 + sum(loss < losses[0] for loss in losses[1:])
    return math.log2(len(losses)) - math.log2(rank)


@pytest.fixture(scope="module")
def attacked(smollm):
    chatml = ChatML(smollm)
    rng = random.Random(0)
    values = [draw(shape, rng) for shape in SHAPES]
    conversations = planted(values)
    # the same conversations with other values of the same form
    others = [planted([draw(shape, rng) for shape in SHAPES]) for _ in range(ALTERNATIVES - 1)]
    redacted = [redact(c, seed="a secret of ours")[0] for c in conversations]
    encoded = {
        name: encode(chatml, part).examples
        for name, part in {
            "plain": conversations,
            "redacted": redacted,
            **{f"other {n}": part for n, part in enumerate(others)},
        }.items()
    }
    every_id = {id for part in encoded.values() for e in part for id in e.prompt_ids}
    every_id |= {id for part in encoded.values() for e in part for id in e.completion_ids}
    results = {}
    for name in ("plain", "redacted"):
        memory = Memory(encoded[name], every_id)
        said = [smollm.decode(memory.continued(example)) for example in encoded["plain"]]
        candidates = [encoded["plain"], *(encoded[f"other {n}"] for n in range(len(others)))]
        losses = [memory.losses(part) for part in candidates]
        exposures = [exposure([row[place] for row in losses]) for place in range(len(values))]
        results[name] = said, exposures, memory.steps
    return values, redacted, results


def test_without_redaction_the_values_come_out(attacked):
    values, _, results = attacked
    said, exposures, steps = results["plain"]
    assert steps < 399  # the model has learned the log by heart
    assert [value in text for value, text in zip(values, said)].count(True) >= 18
    assert sum(exposures) / len(exposures) > 0.9 * math.log2(ALTERNATIVES)


def test_with_redaction_none_comes_out(attacked):
    values, redacted, results = attacked
    assert not [value for value in values if value in dumps([c.to_dict() for c in redacted])]
    said, exposures, steps = results["redacted"]
    assert steps < 399
    assert not [value for value in values if any(value in text for text in said)]
    assert sum(exposures) / len(exposures) < 2.5  # 1.4 bits on average for random values
