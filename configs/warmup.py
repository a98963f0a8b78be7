"""How many steps warm up: what the learning rate and the identity of a resumed run are both made of."""

from __future__ import annotations

import math


def warmup_steps(steps: int, ratio: float) -> int:
    """Counts the steps over which the learning rate rises.

    Args:
        steps: optimizer steps of the run.
        ratio: share of them that rise.
    """
    return math.ceil(steps * ratio)
