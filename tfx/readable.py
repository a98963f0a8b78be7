"""Numbers and durations as a person reads them; files for programs keep every digit."""

from __future__ import annotations

import math

DIGITS = 4
"""Significant digits of a measured value."""
_UNITS = ("", "k", "M", "G", "T")


def number(value: float, digits: int = DIGITS) -> str:
    """Returns a value with so many significant digits at least: `0.8617`, `12,346`, `2.5e-05`.

    Digits before the point are never rounded away, so that a large value is not written as a power of ten.

    Args:
        value: any number; integers are written whole.
        digits: number of significant digits.
    """
    if isinstance(value, int):
        return f"{value:,}"
    if math.isfinite(value) and 10 ** (digits - 1) <= abs(value) < 1e15:
        whole = len(str(int(abs(value))))
        return f"{value:,.{max(0, digits - whole)}f}"
    return f"{value:.{digits}g}"


def metric(value: float) -> str:
    """Returns a metric: with four places, which shares have, and with four digits from 10 on."""
    return f"{value:.4f}" if abs(value) < 10 else number(value)


def apart(value: float, bound: float) -> tuple[str, str]:
    """Returns two values with as many digits as tell them apart: `0.89996` and `0.9`."""
    digits = DIGITS
    while value != bound and digits < 17 and number(value, digits) == number(bound, digits):
        digits += 1
    return number(value, digits), number(bound, digits)


def count(value: int) -> str:
    """Returns a large count with three digits: `950`, `12.3k`, `22.7M`, `1.50G`."""
    unit, scaled = 0, float(value)
    while scaled >= 999.5 and unit < len(_UNITS) - 1:
        scaled, unit = scaled / 1000, unit + 1
    if not unit:
        return str(value)
    places = 2 if scaled < 9.995 else 1 if scaled < 99.95 else 0
    return f"{scaled:.{places}f}{_UNITS[unit]}"


def counted(value: int, thing: str) -> str:
    """Returns how many there are of a thing whose plural ends in s: `1 row`, `1,800 steps`."""
    return f"{value:,} {thing}{'' if value == 1 else 's'}"


def clock(seconds: float) -> str:
    """Returns a duration: `0:07`, `2:10`, `1:05:12`; `–` for one without an end."""
    if not math.isfinite(seconds):
        return "–"
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
