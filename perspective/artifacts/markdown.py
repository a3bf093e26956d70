"""Markdown tables of reports and model cards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Return a table; bars in cells are escaped, and line breaks become spaces.

    >>> print(format_table(["name", "value"], [["seed", 100], ["prompt", "a|b"]]), end="")
    | name | value |
    | --- | --- |
    | seed | 100 |
    | prompt | a\|b |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(map(_format_cell, line))} |\n" for line in lines)


def format_interval(ends: Iterable[float], form: str = ".1f") -> str:
    """Return the ends of an interval.

    >>> format_interval((2.06, 4.05), "+.2f")
    '[+2.06, +4.05]'
    """
    return f"[{', '.join(format(float(end), form) for end in ends)}]"


def _format_cell(cell: object) -> str:
    return str(cell).replace("|", r"\|").replace("\n", " ")
