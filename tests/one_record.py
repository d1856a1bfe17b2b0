"Readers of one record, for tests of the formats"

import pytest

from toolcall.conversation import Conversation
from toolcall.curate.selection import failed_turns
from toolcall.errors import ConversationError
from toolcall.formats import expand, find_adapter


def one(record: dict) -> Conversation:
    [(_, inner)] = expand(record)
    return find_adapter()(inner)


def learned(conversation: Conversation) -> list[str]:
    "The turns that carry loss, as text"
    masked = failed_turns(conversation)
    return [
        " ".join([conversation.messages[i]["content"], *map(str, conversation.calls(i))]).strip()
        for i in conversation.turns
        if i not in masked
    ]


def refused(record: dict) -> ConversationError:
    with pytest.raises(ConversationError) as caught:
        one(record)
    return caught.value
