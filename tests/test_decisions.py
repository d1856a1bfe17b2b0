"How sure a model is of a turn, and thresholds, on tiny random models"

import math

import pytest
import torch
from conftest import TEMPLATES, make_tiny_model, packaged_file
from transformers import Lfm2Config, Lfm2ForCausalLM

from toolcall.chatml import ChatML
from toolcall.conversation import make_tool
from toolcall.generate.decisions import find_opener
from toolcall.generate.engine import HFEngine, Prompt
from toolcall.models import load_tokenizer

TOOL = make_tool("get_weather", "Weather of a city")
TEXTS = ("Weather in Oslo?", "Hello!", "And in the old town of Bergen?", "Thanks")


@pytest.fixture(scope="module")
def chatml():
    return ChatML(load_tokenizer("SmolLM2-135M-Instruct"))


@pytest.fixture(scope="module")
def models(chatml):
    size = len(chatml.tokenizer)
    torch.manual_seed(1)
    padded = Lfm2ForCausalLM(
        Lfm2Config(
            vocab_size=size,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            layer_types=["conv", "full_attention"],
            pad_token_id=0,
        )
    )
    return {"tree": make_tiny_model(chatml.tokenizer), "padded": padded}


def make_prompts(chatml, tools=(TOOL,)):
    messages = [[{"role": "user", "content": text}] for text in TEXTS]
    return [Prompt(chatml.prompt_ids(one, list(tools)), list(tools)) for one in messages]


def logprobs_of(model, prompt, ids):
    "Log-probabilities of all tokens at each place of an answer, in one forward pass"
    with torch.inference_mode():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)


def answer(model, chatml, batch_size=4, prompts=None, **options):
    engine = HFEngine(model, chatml, max_new_tokens=12, **options)
    return engine.generate(
        make_prompts(chatml) if prompts is None else prompts, batch_size=batch_size, progress=False
    )


@pytest.mark.parametrize("way", ["tree", "padded"])
def test_the_probability_is_that_of_the_opener_at_the_first_token(way, models, chatml):
    first = find_opener(chatml).ids[0]
    for prompt, output in zip(make_prompts(chatml), answer(models[way], chatml)):
        expected = logprobs_of(models[way], prompt, output.ids)[0, first].exp().item()
        assert output.decision.call_probability == pytest.approx(expected, rel=1e-4)
        assert output.decision.call_logprob is None


@pytest.mark.parametrize("way", ["tree", "padded"])
def test_a_forced_call_has_the_model_s_own_log_probabilities(way, models, chatml):
    "A threshold so low that even a random model's 1/V reaches it all along the opener"
    opener = find_opener(chatml).ids
    outputs = answer(models[way], chatml, call_threshold=1e-40)
    for prompt, output in zip(make_prompts(chatml), outputs):
        assert output.ids[: len(opener)] == opener
        rows = logprobs_of(models[way], prompt, output.ids)
        each = rows[torch.arange(len(output.ids)), torch.tensor(output.ids)]
        decision = output.decision
        assert decision.call_tokens == len(output.ids)
        assert decision.call_logprob == pytest.approx(each.sum().item(), rel=1e-4)
        assert decision.call_min_logprob == pytest.approx(each.min().item(), rel=1e-4)
        opening = each[: len(opener)].sum().item()
        assert math.log(decision.call_probability) == pytest.approx(opening, rel=1e-4)


@pytest.mark.parametrize("way", ["tree", "padded"])
@pytest.mark.parametrize("threshold", [None, 0.5, 1e-40])
def test_alone_and_in_a_batch_decide_alike(way, threshold, models, chatml):
    together = answer(models[way], chatml, call_threshold=threshold)
    alone = answer(models[way], chatml, batch_size=1, call_threshold=threshold)
    assert [o.ids for o in together] == [o.ids for o in alone]
    for one, other in zip(together, alone):
        near = pytest.approx(other.decision.call_probability, rel=1e-4)
        assert one.decision.call_probability == near
    again = answer(models[way], chatml, call_threshold=threshold)
    assert [o.decision for o in again] == [o.decision for o in together]


@pytest.mark.parametrize("way", ["tree", "padded"])
def test_a_threshold_of_0_is_greedy(way, models, chatml):
    plain = [o.ids for o in answer(models[way], chatml)]
    assert [o.ids for o in answer(models[way], chatml, call_threshold=0.0)] == plain
    assert [o.ids for o in answer(models[way], chatml, call_threshold=0.5)] == plain


def test_without_tools_nothing_is_forced(models, chatml):
    prompts = make_prompts(chatml, tools=())
    plain = answer(models["tree"], chatml, prompts=prompts)
    held = answer(models["tree"], chatml, prompts=prompts, call_threshold=1e-40)
    assert [o.ids for o in held] == [o.ids for o in plain]


def prefer(model, token, bias):
    "A copy that gives a token a higher logit everywhere"

    class Biased(type(model)):
        def forward(self, *args, **kwargs):
            output = super().forward(*args, **kwargs)
            output.logits[..., token] += bias
            return output

    biased = Biased(model.config).eval()
    biased.load_state_dict(model.state_dict())
    return biased


@pytest.mark.parametrize("way", ["tree", "padded"])
def test_a_doubtful_call_becomes_words(way, models, chatml):
    opener = find_opener(chatml).ids
    eager = prefer(models[way], opener[0], 11.0)
    plain = answer(eager, chatml)
    chances = [o.decision.call_probability for o in plain]
    assert all(o.ids[0] == opener[0] for o in plain) and max(chances) < 0.9
    held = answer(eager, chatml, call_threshold=0.95)
    assert all(opener[0] not in o.ids for o in held)
    for prompt, output in zip(make_prompts(chatml), held):
        rows = logprobs_of(eager, prompt, output.ids)
        rows[:, opener[0]] = -math.inf
        assert rows.argmax(-1).tolist() == list(output.ids)
    low = answer(eager, chatml, call_threshold=0.5 * min(chances) ** 6, structured=True)
    assert all(o.ids[0] == opener[0] for o in low)


@pytest.mark.parametrize(
    ("template", "opening"),
    [
        ("qwen3", "<tool_call>"),
        ("glm4moe", "<tool_call>"),
        ("llama3_1", '{"name": "'),
        ("gptoss", " to=functions"),
    ],
)
def test_every_style_has_an_opener(template, opening):
    tokenizer = load_tokenizer("SmolLM2-135M-Instruct")
    tokenizer.add_special_tokens({"additional_special_tokens": TEMPLATES[template]})
    path = packaged_file("trl", f"chat_templates/{template}.jinja")
    tokenizer.chat_template = path.read_text(encoding="utf-8")
    opener = find_opener(ChatML(tokenizer, "native"))
    assert tokenizer.decode(list(opener.ids)).startswith(opening)
