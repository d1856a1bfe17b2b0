"What the scripts of `benchmarks/` compare, and a rehearsal of the one for a GPU"

import json
import sys
from pathlib import Path

import pytest
import torch

from toolcall.conversation import Conversation
from toolcall.turn import Example

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def device():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import device

        yield device
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))


def conversation(name: str, *turns: tuple[list[int], list[int]]) -> list[Example]:
    whole = Conversation(name, [], [])
    return [Example(prompt, answer, whole, turn) for turn, (prompt, answer) in enumerate(turns)]


def test_a_merged_conversation_learns_each_turn_once(device):
    from baselines import alike, merged, one_a_turn, padded_sum

    goes_on = conversation("a", ([1, 2], [5, 9]), ([1, 2, 5, 9, 3], [6, 9]))
    rewritten = conversation("b", ([1, 2], [5, 9]), ([1, 2, 7, 3], [6, 9]))
    rows = merged(goes_on + rewritten)
    assert [row.ids for row in rows] == [[1, 2, 5, 9, 3, 6, 9], [1, 2, 5, 9], [1, 2, 7, 3, 6, 9]]
    assert rows[0].supervised == [0, 0, 1, 1, 0, 1, 1]
    apart = one_a_turn(goes_on + rewritten)
    assert sum(row.logical for row in rows) == sum(row.logical for row in apart) == 21
    assert sum(sum(row.supervised) for row in rows) == sum(sum(row.supervised) for row in apart)
    assert padded_sum(alike(apart, 2), 2) == 2 * 4 + 2 * 7


def test_the_rows_of_the_plain_trainer_learn_what_trees_learn(device):
    from baselines import merged, plain_rows, right_padded

    examples = device.random_examples(tiny=True)
    batch = right_padded(0)(plain_rows(merged(examples)))
    learned = batch["labels"][batch["labels"] != -100]
    expected = [token for example in examples for token in example.completion_ids]
    assert learned.tolist() == expected


def test_the_script_for_a_gpu_is_rehearsed_on_this_machine(device, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(device, "find_spec", lambda _: None)  # TRL would take half of the time
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: False)
    arguments = ["--tiny", "--shapes", "SmolLM2-135M", "--out", str(tmp_path / "device.json")]
    results = device.main(arguments)
    assert not results["failed"]
    shape = "SmolLM2-135M: "
    ways = {name.removeprefix(shape) for name in results["measured"] if name.startswith(shape)}
    assert ways >= {"trees, mask", "turns", "merged", "padded", "HFEngine", "generate_batch"}
    left_out = {f"{shape}trees, blocks", f"{shape}TRL, merged", f"{shape}TRL, turns"}
    assert results["left_out"].keys() == left_out
    measured = results["measured"]
    assert measured[f"{shape}generate_batch"]["equal"] == measured[f"{shape}generate"]["equal"] == 1
    ideals = [measured[f"{shape}{way}"]["ideal"] for way in ("trees, mask", "merged", "turns")]
    assert 0.2 < ideals[0] <= 1 and ideals[2] < ideals[1]
    assert measured[f"{shape}trees, mask"]["loss"] == pytest.approx(6.2, abs=0.2)
    assert json.loads((tmp_path / "device.json").read_text()) == results
    assert "HFEngine" in capsys.readouterr().out


def test_what_the_time_does_not_allow_is_left_out_and_listed(device, tmp_path, capsys):
    out = str(tmp_path / "device.json")
    results = device.main(["--tiny", "--minutes", "0", "--shapes", "SmolLM2-135M", "--out", out])
    assert not results["measured"] and not results["failed"]
    assert results["left_out"]["SmolLM2-135M: trees, mask"] == "it takes about 2 seconds"
    assert "left out: SmolLM2-135M: turns" in capsys.readouterr().out


def test_a_page_is_run_up_to_its_last_cell_for_a_gpu(device, tmp_path):
    cells = ["x = 1", "#| slow\nx = 2", "#| gpu\ny = x + 1\ny", "1 / 0"]
    page = tmp_path / "page.ipynb"
    page.write_text(json.dumps({"cells": [{"cell_type": "code", "source": [c]} for c in cells]}))
    assert device.run_page(page, torch.device("cuda")) == {"cells": "2"}
    assert device.run_page(page, torch.device("cpu")) == {"cells": "1 of 4 need a GPU"}
    assert {path.stem for path in device.gpu_pages(device.argparse.Namespace(pages=None))} >= {
        "04_loss",
        "03_engine",
    }
