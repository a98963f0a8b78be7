"""The columns that conversations are read from, by the form that `ingest.conversation` names."""

from __future__ import annotations

from typing import Literal

Form = Literal["messages", "sharegpt", "alpaca"]

LISTS = {"messages": "messages", "sharegpt": "conversations"}
"""Where the lists usually stand, if not in `ingest.text`."""
ALPACA = ("instruction", "output")
"""What a conversation of the form `alpaca` needs."""
SYSTEM = "system"
ALPACA_MORE = ("input", SYSTEM, "history")


def columns_of(form: Form | None, text: str) -> tuple[list[str], list[str]]:
    """Lists the columns that a conversation may stand in.

    Args:
        form: Of the conversations; None if it is recognised row by row.
        text: The column that `ingest.text` names.

    Returns:
        Those that hold a list of messages, the first one that does is taken; and those of the form `alpaca`, of which
        `instruction` and `output` must be there.
    """
    usual = [column for name, column in LISTS.items() if form in (None, name)]
    lists = [] if form == "alpaca" else list(dict.fromkeys([text, *usual]))
    return lists, [*ALPACA, *ALPACA_MORE] if form in (None, "alpaca") else []


def columns_with_turns(form: Form | None, text: str) -> set[str]:
    """Names every column that a part of a conversation may stand in; see `columns_of`."""
    lists, alpaca = columns_of(form, text)
    return {*lists, *alpaca} if form == "messages" else {*lists, *alpaca, SYSTEM}
