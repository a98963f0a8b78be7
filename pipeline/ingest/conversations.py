"""Conversations in the forms that people publish them in, as JSON in one form: [{"role": …, "content": …}, …].

`messages`: a list of {"role", "content"}, as chat APIs have it; a content may be a list of parts. `sharegpt`: a list of
{"from", "value"}, and a column `system` where there is one. `alpaca`: columns `instruction` and `output`, and where they are
there `input`, `system` and `history`, a list of [question, answer].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from lmworks.configs import conversations
from lmworks.configs.conversations import ALPACA, SYSTEM, columns_of
from lmworks.configs.schema import IngestStage
from lmworks.models.chat import ROLES, parts_of

_ROLES = {role: role for role in ROLES} | {"developer": "system", "function": "tool"}
_SHAREGPT_ROLES = _ROLES | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "function_response": "tool",
    "observation": "tool",
}
_NOT_RENDERED = ("tool_calls", "function_call", "reasoning_content", "thinking", "audio", "images")
"""Keys of a message whose content the template has no place for: to leave it out in silence would teach something else."""


def columns_with_turns(config: IngestStage) -> set[str]:
    """Names every column that a part of a conversation may stand in."""
    return conversations.columns_with_turns(config.conversation, config.text)


def lacking(config: IngestStage, columns: Collection[str]) -> str | None:
    """What a file lacks to hold conversations, or None."""
    lists, alpaca = columns_of(config.conversation, config.text)
    if any(name in columns for name in lists) or (alpaca and all(name in columns for name in ALPACA)):
        return None
    needed = [*map(repr, lists), *(["'instruction' with 'output'"] if alpaca else [])]
    return f"no column {' or '.join(needed)} (ingest.text, ingest.conversation); it has: {', '.join(columns) or 'none'}"


def with_conversation(config: IngestStage, values: dict[str, Any]) -> dict[str, Any]:
    """Puts a row's conversation into the column `ingest.text`, in the form of `messages`, in place of where it stood.

    Args:
        config: of the stage; `conversation` says the form, else it is recognised.
        values: the row; a list may be JSON text.

    Raises:
        ValueError: it holds none.
    """
    lists, alpaca = columns_of(config.conversation, config.text)
    candidates = ((name, _list_of(values[name])) for name in lists if name in values)
    column, turns = next((pair for pair in candidates if pair[1]), ("", []))
    if turns:
        messages, used = _messages(config.conversation, turns, values.get(SYSTEM))
        used.add(column)
    elif alpaca and all(name in values for name in ALPACA):
        messages, used = _alpaca(values), {*alpaca}
    else:
        raise ValueError('must be a list of messages, [{"role": "user", "content": "…"}, {"role": "assistant", …}, …]')
    return {name: value for name, value in values.items() if name not in used} | {config.text: _json(messages)}


def map_contents(conversation: str, change: Callable[[str], str]) -> str:
    """Changes what is said in a conversation of the form `messages`."""
    return _json([message | {"content": change(message["content"])} for message in json.loads(conversation)])


def check(conversation: str) -> None:
    """Refuses a conversation that cannot be rendered.

    Raises:
        ValueError: see `chat.parts_of`; or it holds half a surrogate pair.
    """
    try:
        conversation.encode()
    except UnicodeEncodeError:
        raise ValueError("a content holds half of a surrogate pair, which is no text") from None
    for _ in parts_of(conversation):
        pass


def _messages(form: str | None, turns: list[Any], system: Any) -> tuple[list[dict[str, str]], set[str]]:
    """The messages of a list, and the columns beside it that they took."""
    first = turns[0]
    sharegpt = form == "sharegpt" or (
        form is None and isinstance(first, dict) and "role" not in first and "from" in first
    )
    messages = [_message(number, turn, sharegpt) for number, turn in enumerate(turns, 1)]
    if sharegpt and messages[0]["role"] != "system" and isinstance(system, str) and system.strip():
        return [{"role": "system", "content": system}, *messages], {"system"}
    return messages, set()


def _list_of(value: Any) -> list[Any] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, list) else None


def _message(number: int, message: Any, sharegpt: bool) -> dict[str, str]:
    where = f"message {number}"
    role_key, content_key, roles = ("from", "value", _SHAREGPT_ROLES) if sharegpt else ("role", "content", _ROLES)
    if not isinstance(message, dict) or not {role_key, content_key} <= message.keys():
        raise ValueError(f"{where} must be an object with {role_key!r} and {content_key!r}")
    role = message[role_key]
    known = roles.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        raise ValueError(f"{where} has the role {role!r}; known: {', '.join(roles)}")
    if lost := [key for key in _NOT_RENDERED if message.get(key)]:
        raise ValueError(f"{where} has {lost[0]!r}, which the template does not render")
    if message.get("weight") not in (None, 1):
        raise ValueError(f"{where} has the weight {message['weight']!r}; every answer is learnt alike")
    return {"role": known, "content": _content(message[content_key], where)}


def _content(content: Any, where: str) -> str:
    """The text of a content, of which a list of parts is one text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise ValueError(f"{where} must have a content that is text, and it is {json.dumps(content)[:40]}")
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text") if isinstance(part, dict) else part
        if kind != "text" or not isinstance(text, str):
            raise ValueError(f"{where} has a part of type {kind!r} that is no text")
        texts.append(text)
    return "".join(texts)


def _alpaca(values: dict[str, Any]) -> list[dict[str, str]]:
    """The question is the instruction, and on lines of its own the input."""
    question = [text for name in ("instruction", "input") if (text := _text(values.get(name), name)).strip()]
    if not question:
        raise ValueError("instruction and input are empty")
    messages = [{"role": "user", "content": "\n".join(question)}]
    messages += [{"role": "assistant", "content": _text(values["output"], "output")}]
    history = values.get("history") or []
    turns = _list_of(history) if history else []
    if turns is None or not all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in turns):
        raise ValueError("history must be a list of [question, answer]")
    before = [
        {"role": role, "content": _text(text, "history")}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]
    system = _text(values.get(SYSTEM), "system")
    return [*([{"role": "system", "content": system}] if system.strip() else []), *before, *messages]


def _text(value: Any, column: str) -> str:
    if value is None:
        return ""
    if isinstance(value, dict | list | bool):
        raise ValueError(f"{column} is no text: {json.dumps(value)[:40]}")
    return str(value)


def _json(messages: list[dict[str, str]]) -> str:
    return json.dumps(messages, ensure_ascii=False)
