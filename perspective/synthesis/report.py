"""How many replies conform, are distinct, are in the right language and are found: by type, language and LLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from perspective.artifacts import atomic_path
from perspective.artifacts.markdown import format_table
from perspective.plots import make_figure, save_figure
from perspective.synthesis.examples import Example
from perspective.synthesis.filters import DUPLICATE, FILTERS, INCONSISTENT, LANGUAGE, NEAR, count_faults

# Steps in their order: name, title, and the faults of the examples that a step leaves out.
STEPS: tuple[tuple[str, str, frozenset[str]], ...] = (
    ("conforming", "of the form", frozenset()),  # every fault that no filter finds
    ("unique", "no duplicate", frozenset((DUPLICATE, NEAR))),
    ("right_language", "right language", frozenset((LANGUAGE,))),
    ("found", "found by its query", frozenset((INCONSISTENT,))),
)
COLORS = ("#c3ccd8", "#93b4d6", "#5b8fc7", "#1f5fa8")


def count_steps(examples: Sequence[Example], llm: str, style: str) -> list[dict[str, Any]]:
    """Return a row for each type and language: numbers of examples that are left after each step, and their faults."""
    rows = []
    groups = sorted({(example.kind, _name_languages(example)) for example in examples})
    for kind, language in groups:
        group = [example for example in examples if (example.kind, _name_languages(example)) == (kind, language)]
        left = len(group)
        row: dict[str, Any] = {"type": kind, "language": language, "llm": llm, "style": style, "asked": left}
        faults = count_faults(group)
        for name, _, found in STEPS:
            left -= sum(n for fault, n in faults.items() if (fault in found if found else fault not in FILTERS))
            row[name] = left
        rows.append({**row, "faults": faults})
    return rows


def sum_languages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each type, LLM and style, over all languages."""
    summed: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = {name: row[name] for name in ("type", "llm", "style")}
        total = summed.setdefault(tuple(key.values()), {**key, "asked": 0, "faults": {}})
        for name in ("asked", *(name for name, _, _ in STEPS)):
            total[name] = total.get(name, 0) + row[name]
        for fault, n in row["faults"].items():
            total["faults"][fault] = total["faults"].get(fault, 0) + n
    return list(summed.values())


def format_report(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table: the share of all replies that is left after each step, in percent."""
    columns = ["type", "LLM", "asked", *(f"{title}, %" for _, title, _ in STEPS), "most frequent faults"]
    lines = []
    for row in rows:
        shares = [f"{100 * row[name] / row['asked']:.0f}" for name, _, _ in STEPS]
        faults = sorted(row["faults"].items(), key=lambda item: -item[1])[:2]
        language = f", {row['language']}" if row.get("language") else ""
        llm = f"{row['llm']} ({row['style']})"
        named = ", ".join(f"{fault} {n}" for fault, n in faults)
        lines.append([f"{row['type']}{language}", llm, str(row["asked"]), *shares, named])
    return format_table(columns, lines)


def draw_report(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the same shares as bars, a group of bars for each type and LLM."""
    names = [f"{row['type']}\n{row['llm']}\n{row['style'].replace(', ', chr(10))}" for row in rows]
    figure, (axis,) = make_figure(ncols=1, width=max(6.0, 1.5 * len(rows)), height=4.0)
    for step, ((name, title, _), color) in enumerate(zip(STEPS, COLORS, strict=True)):
        places = [place + 0.2 * (step - 1.5) for place in range(len(rows))]
        bars = axis.bar(places, [100 * row[name] / row["asked"] for row in rows], 0.18, label=title, color=color)
        axis.bar_label(bars, fmt="%.0f", fontsize=6, padding=1)
    axis.set_xticks(range(len(rows)), names, fontsize=7)
    axis.set_ylabel("% of the replies")
    axis.set_ylim(0, 105)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    with atomic_path(path) as temporary:
        save_figure(figure, temporary)


def _name_languages(example: Example) -> str:
    codes = (example.values.get("language", ""), example.values.get("target_language", ""))
    return "-".join(filter(None, codes))
