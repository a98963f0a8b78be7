"""Whether the examples have the columns that `evaluate.slices` names."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from lmworks.configs.errors import UserError


def check_slices(slices: Sequence[str], columns: Sequence[str]) -> None:
    """Refuses slices by columns that are not there.

    Args:
        slices: Of the config.
        columns: Of the examples of the split that is evaluated.

    Raises:
        UserError: Naming all that are not there.
    """
    wrong = []
    for name in slices:
        if name not in columns:
            near = difflib.get_close_matches(name, columns, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            wrong.append(f"evaluate.slices: {name}: the examples have no such column ({', '.join(columns)}){hint}")
    if wrong:
        raise UserError("\n".join(wrong))
