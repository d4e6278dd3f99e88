"""Durations on command lines."""

from __future__ import annotations

from typing import Final

import click

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0}


def seconds_of(text: str) -> float | None:
    """``15ms``, ``30s``, ``5m``, ``1h`` or plain seconds; None where it is none of these. Fractions are allowed."""
    text = text.strip().lower()
    unit = next((unit for unit in _UNITS if text.endswith(unit)), "")
    digits = text.removesuffix(unit)
    if not digits.isascii() or not digits.replace(".", "", 1).isdigit():
        return None
    return float(digits) * _UNITS.get(unit, 1.0)


def whole_seconds(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """The callback of an option: whole seconds from 1 to 86,400."""
    seconds = seconds_of(value)
    if seconds is None or seconds != int(seconds) or not 1 <= seconds <= 86_400:
        raise click.BadParameter(f"{value!r} is not a duration from 1s to 24h, such as 30s or 5m", ctx, param)
    return int(seconds)


def delay_s(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """The callback of an option: seconds from 0 to 10, usually given as milliseconds."""
    seconds = seconds_of(value)
    if seconds is None or not 0 <= seconds <= 10:
        raise click.BadParameter(f"{value!r} is not a delay from 0 to 10s, such as 15ms", ctx, param)
    return seconds
