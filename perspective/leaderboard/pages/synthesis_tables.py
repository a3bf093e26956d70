"""Tables and the picture of docs/synthesis.md: conformity of replies, and what the data is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perspective.artifacts.markdown import format_table
from perspective.layout import MEASURES
from perspective.leaderboard.measured import load
from perspective.synthesis.report import draw_report, format_report

SYNTHESIS = MEASURES / "benchmark_synthesis.json"
NAMES = {
    "untouched": "as it comes",
    "grounded": "queries of the documents by the LLM",
    "first_sentence": "first sentences of the same documents, no LLM",
    "titles": "queries by people, of other documents: summary lines or titles",
    "free": "queries and documents by the LLM",
    "shuffled": "the LLM's queries with others' documents",
}


def tabulate_conformity() -> str:
    """Share of replies left after each check, by type and LLM."""
    return format_report(load(SYNTHESIS)["conformity"])


def tabulate_worth() -> str:
    """NDCG@10 by origin of the training pairs, with differences and intervals."""
    rows = []
    for study in load(SYNTHESIS)["worth"]:
        for arm in study["arms"]:
            score = f"{arm['mean']:.2f}" + (f" ± {arm['std']:.2f}" if arm["arm"] != "untouched" else "")
            against = [show_difference(arm.get(f"against_{base}")) for base in ("untouched", "first_sentence")]
            n_pairs = "" if arm["arm"] == "untouched" else study["n_pairs"]
            rows.append([study["dataset"], study["llm"], n_pairs, NAMES[arm["arm"]], score, *against])
    columns = ["set", "LLM", "pairs", "trained on", "NDCG@10", "against as it comes", "against no LLM"]
    return format_table(columns, rows)


def draw_conformity(path: Path) -> None:
    """Draw the shares as bars."""
    draw_report(load(SYNTHESIS)["conformity"], path)


def show_difference(difference: Any) -> str:  # noqa: ANN401
    """Difference, lower and upper end of its interval; nothing for None."""
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*difference) if difference else ""
