"""Conversations as text: the ChatML template, and which of it a model learns to say."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import NamedTuple

BEGIN, END = "<|im_start|>", "<|im_end|>"
ROLES = ("system", "user", "assistant", "tool")


class Part(NamedTuple):
    """A stretch of a rendered conversation. Tokens never reach across its borders, so parts may be tokenised one by one."""

    text: str
    learnt: bool
    """Whether its tokens are targets: the assistant's words and the mark that ends them."""


def parts_of(messages: str) -> Iterator[Part]:
    """Renders a conversation: `<|im_start|>ROLE⏎CONTENT<|im_end|>⏎` for each message, contents without blanks around them.

    Args:
        messages: JSON, a list of {"role": system | user | assistant | tool, "content": text}.

    Raises:
        ValueError: it is not that, the assistant says nothing, or a content spells out a mark of the template: read again,
            it would not be told from the template's own.
    """
    try:
        conversation = json.loads(messages)
    except ValueError:
        conversation = None
    if not isinstance(conversation, list) or not conversation:
        raise ValueError('must be a list of messages, [{"role": "user", "content": "…"}, {"role": "assistant", …}, …]')
    answered = False
    for number, message in enumerate(conversation, 1):
        role = message.get("role") if isinstance(message, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        if role not in ROLES or not isinstance(content, str):
            raise ValueError(f"message {number} must have a role ({', '.join(ROLES)}) and a content that is text")
        if mark := next((mark for mark in (BEGIN, END) if mark in content), None):
            raise ValueError(f"message {number} holds {mark}, which is the template's own mark")
        learnt = role == "assistant" and bool(content.strip())
        answered = answered or learnt
        yield Part(f"{BEGIN}{role}\n", False)
        yield Part(f"{content.strip()}{END}\n", learnt)
    if not answered:
        raise ValueError("the assistant says nothing in it")


def render(messages: str) -> str:
    """The whole text of a conversation; see `parts_of`."""
    return "".join(part.text for part in parts_of(messages))


def before_answer(messages: str) -> str:
    """The text of a conversation up to where the assistant's first words begin."""
    return "".join(part.text for part in itertools.takewhile(lambda part: not part.learnt, parts_of(messages)))


QUESTION = (f"{BEGIN}user\n", f"{END}\n{BEGIN}assistant\n")
"""What stands before and behind a question, so that the answer is what comes next."""


def question(text: str) -> str:
    """A user's question, up to where the assistant's words begin."""
    return f"{QUESTION[0]}{text.strip()}{QUESTION[1]}"
