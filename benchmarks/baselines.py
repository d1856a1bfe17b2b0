"""What toolcall is compared with when it trains, and how tokens are counted in all ways.

A competent user of a plain trainer has two ways: one row a turn, or one row a conversation with
loss on each of its assistant turns, where the template leaves earlier turns as they were. Logical
tokens are those of one row a turn in every way, so that figures compare.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from toolcall.turn import Example


@dataclass
class TokenRow:
    "Tokens of a row that is not packed"

    ids: list[int]
    supervised: list[int] = field(default_factory=list)  # 1 where a token is learned
    logical: int = 0  # Tokens of its turns, one row a turn


def one_a_turn(examples: Sequence[Example]) -> list[TokenRow]:
    "A row for each turn"
    return [
        TokenRow(
            example.prompt_ids + example.completion_ids,
            [0] * len(example.prompt_ids) + [1] * len(example.completion_ids),
            len(example),
        )
        for example in examples
    ]


def merged(examples: Sequence[Example]) -> list[TokenRow]:
    "A row for each conversation; a turn that doesn't go on from the turn before begins a row"
    rows: list[TokenRow] = []
    conversation = None
    for example in examples:
        row = rows[-1] if rows else None
        goes_on = (
            row is not None
            and example.conversation is conversation
            and example.prompt_ids[: len(row.ids)] == row.ids
        )
        if row is None or not goes_on:
            row = TokenRow([])
            rows.append(row)
        row.ids += example.prompt_ids[len(row.ids) :] + example.completion_ids
        row.supervised += [0] * (len(row.ids) - len(row.supervised))
        row.supervised[-len(example.completion_ids) :] = [1] * len(example.completion_ids)
        row.logical += len(example)
        conversation = example.conversation
    return rows


def alike(rows: list[TokenRow], many: int, seed: int = 0) -> list[TokenRow]:
    "Put rows of like length next to each other, `many` a batch, and shuffle the batches"
    ordered = sorted(rows, key=lambda row: len(row.ids))
    batches = [ordered[start : start + many] for start in range(0, len(ordered), many)]
    whole = [batch for batch in batches if len(batch) == many]
    random.Random(seed).shuffle(whole)
    return [row for batch in whole for row in batch] + [
        row for batch in batches if len(batch) < many for row in batch
    ]


def padded_sum(rows: list[TokenRow], many: int) -> int:
    "Tokens of all batches, padding included"
    return sum(
        max(len(row.ids) for row in batch) * len(batch)
        for batch in (rows[start : start + many] for start in range(0, len(rows), many))
    )


class Counted:
    "A collator that counts the tokens of each batch, padding included"

    def __init__(self, collator: Callable) -> None:
        self.collator = collator
        self.computed: list[int] = []

    def __call__(self, rows):
        batch = self.collator(rows)
        self.computed.append(batch["input_ids"].numel())
        return batch


def right_padded(pad_id: int) -> Callable:
    "A collator for causal models: padding stands after the last token, so that no mask is needed"

    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in rows)

        def pad(name: str, value: int) -> torch.Tensor:
            return torch.tensor([row[name] + [value] * (width - len(row[name])) for row in rows])

        return {"input_ids": pad("input_ids", pad_id), "labels": pad("labels", -100)}

    return collate


def plain_rows(rows: Sequence[TokenRow]) -> list[dict]:
    "Rows with labels, for a plain `Trainer`"
    return [
        {
            "input_ids": row.ids,
            "labels": [
                token if learned else -100 for token, learned in zip(row.ids, row.supervised)
            ],
        }
        for row in rows
    ]
