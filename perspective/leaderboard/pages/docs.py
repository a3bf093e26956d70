"""Fill the tables, figures and the picture of README and docs from the committed JSON.

Reads:  measures/*.json and after_measures/*.json that are committed, datasets/sources.json
Writes: README.md, README.ko.md and docs/*.md, between their markers; docs/results.png and docs/synthesis.png

    <!-- table: NAME [ARGUMENT ...] -->   a table of `TABLES`
    <!-- end -->
    <!-- = NAME ARGUMENT ... -->62.60<!-- / -->   a figure of `measured.FIGURES`

bash scripts/make_docs.sh
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from perspective.artifacts import ROOT, display_path, write_text
from perspective.artifacts.markdown import format_interval, format_table
from perspective.cli import entry_point, parse_settings
from perspective.errors import DataError, suggest_name
from perspective.evaluation.comparison import Comparison, format_text
from perspective.leaderboard import measured
from perspective.leaderboard.pages import (
    cluster_tables,
    decoder_tables,
    hybrid_tables,
    pretraining_tables,
    reranking_tables,
    study_tables,
    synthesis_tables,
)

logger = logging.getLogger(__name__)

SYNTHESIS_PICTURE = ROOT / "docs" / "synthesis.png"
BODY = r"(?:(?!<!--).)*"  # no other marker: one that lacks its end is an error
TABLE = re.compile(rf"(<!-- table: ([^>]+?) -->\n){BODY}(<!-- end -->)", re.DOTALL)
FIGURE = re.compile(rf"(<!-- = ([^>]+?) -->){BODY}(<!-- / -->)", re.DOTALL)


def list_pages() -> list[Path]:
    """Return the pages that are filled."""
    return [ROOT / "README.md", ROOT / "README.ko.md", *sorted((ROOT / "docs").glob("*.md"))]


def fill_page(text: str, name: str) -> str:
    """Return a page with every table and figure as the JSON gives it.

    Args:
        text: The page.
        name: Its name, for errors.

    Raises:
        DataError: A marker names nothing that is known, or has no end.
    """
    for pattern, opening, known in ((TABLE, "<!-- table:", TABLES), (FIGURE, "<!-- = ", FIGURES)):
        text, n_filled = pattern.subn(partial(_fill, known=known, page=name), text)
        if n_filled != text.count(opening):
            raise DataError(f'{name}: a marker "{opening}" has no end, or is inside another')
    return text


def _fill(match: re.Match[str], known: Mapping[str, Callable[..., str]], page: str) -> str:
    start, call, end = match.groups()
    name, *arguments = call.split()
    if name not in known:
        raise DataError(f'{page}: marker "{call}": {suggest_name(name, known)}')
    try:
        return start + known[name](*arguments) + end
    except TypeError as error:
        raise DataError(f'{page}: marker "{call}": {error}') from None


def show_quick_start() -> str:
    """The output of the first command, as `compare.sh` prints it."""
    before, after = (measured.load(path) for path in measured.QUICK_START.values())
    run = Comparison("banking77", "minilm", "smollm2", unchanged=False, before=before, runs=[after])
    return f"```\n{format_text([run])}\n```\n"


def tabulate_speed() -> str:
    """Our stages against what people would run instead."""
    rows = [
        [
            row["what"],
            row["against"],
            row["target"],
            f"{row['ratio']:.2f}x" if row["ratio"] else "",
            f"{row['ours_seconds']:.3g}" if row["ours_seconds"] else "",
            f"{row['other_seconds']:.3g}" if row["other_seconds"] else "",
            row["equal"],
            row["note"],
        ]
        for stage in measured.load(measured.SPEED)["stages"].values()
        for row in stage
    ]
    return format_table(["stage", "against", "target", "ratio", "ours, s", "other, s", "equal", "note"], rows)


def describe_machines() -> str:
    """The machines of the speed table, and what was measured on each."""
    stages: dict[str, list[str]] = {}
    for stage, machine in measured.load(measured.SPEED)["machines"].items():
        stages.setdefault(", ".join(f"{name} {value}" for name, value in machine.items()), []).append(stage)
    return "".join(f"- {', '.join(names)}: {machine}\n" for machine, names in stages.items())


def tabulate_retrieval() -> str:
    """Retrievers on the docstrings, with 95% intervals over queries."""
    rows = [
        [
            row["retriever"],
            *(
                f"{row['scores'][metric]:.2f} {format_interval(row['interval'][metric], '.2f')}"
                for metric in ("NDCG@1", "NDCG@10")
            ),
        ]
        for row in measured.load(measured.RETRIEVAL)["rows"]
    ]
    return format_table(["retriever", "NDCG@1", "NDCG@10"], rows)


TABLES: dict[str, Callable[..., str]] = {
    "headline": study_tables.tabulate_headline,
    "judged": study_tables.tabulate_judged,
    "untouched": study_tables.tabulate_untouched,
    "sets": study_tables.tabulate_sets,
    "gains": study_tables.tabulate_gains,
    "published": study_tables.tabulate_published,
    "clusterllm": study_tables.tabulate_clusterllm,
    "quick_start": show_quick_start,
    "speed": tabulate_speed,
    "speed_machines": describe_machines,
    "retrieval": tabulate_retrieval,
    "help_pages": reranking_tables.tabulate_help_pages,
    "reranked": reranking_tables.tabulate_reranked,
    "learned_from_reranker": reranking_tables.tabulate_learned,
    "filtered_pairs": reranking_tables.tabulate_filtered,
    "noisy_pairs": reranking_tables.tabulate_noisy,
    "counting": cluster_tables.tabulate_counting,
    "naming": cluster_tables.tabulate_naming,
    "unseen_texts": cluster_tables.tabulate_unseen,
    "unknown_classes": cluster_tables.tabulate_unknown,
    "conformity": synthesis_tables.tabulate_conformity,
    "synthesis_worth": synthesis_tables.tabulate_worth,
    "pretraining": pretraining_tables.tabulate_pretraining,
    "decoder_arms": decoder_tables.tabulate_arms,
    "masked_loss": decoder_tables.tabulate_masked_loss,
    "decoders_tuned": decoder_tables.tabulate_tuned,
    "hybrid": hybrid_tables.tabulate_hybrid,
    "unseen_gains": study_tables.tabulate_unseen_gains,
    "views": study_tables.tabulate_views,
    "perspectives": study_tables.tabulate_perspectives,
    "judges": study_tables.tabulate_judges,
    "wordings": study_tables.tabulate_wordings,
    "published_way": hybrid_tables.tabulate_published_way,
    "hybrid_gains": hybrid_tables.tabulate_hybrid_gains,
}

FIGURES: dict[str, Callable[..., str]] = {
    **measured.FIGURES,
    "unseen_gain": study_tables.show_unseen_gain,
    "role_gain": study_tables.show_role_gain,
    "help_pages_size": reranking_tables.show_help_size,
    "reranking_size": partial(measured.show_size, reranking_tables.RERANKING),
    "reranking_rate": reranking_tables.show_rate,
    "reranking_difference": reranking_tables.show_difference,
    "decoder_size": partial(measured.show_size, decoder_tables.DECODERS),
    "decoder_minutes": partial(measured.show_minutes, decoder_tables.DECODERS),
    "pretraining_tokens": pretraining_tables.show_tokens,
    "pretraining_speed": pretraining_tables.show_speed,
    "hybrid_size": partial(measured.show_size, hybrid_tables.HYBRID),
    "hybrid_seeds": hybrid_tables.show_seeds,
    "hybrid_minutes": partial(measured.show_minutes, hybrid_tables.HYBRID),
}


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Fill the pages."""
    parse_settings((), argv, __doc__)
    for path in list_pages():
        old = path.read_text(encoding="utf-8")
        new = fill_page(old, path.name)
        if new != old:
            write_text(path, new)
            logger.info("wrote %s", display_path(path))
    study_tables.draw_results(study_tables.PICTURE)
    synthesis_tables.draw_conformity(SYNTHESIS_PICTURE)
    logger.info("wrote %s and %s", display_path(study_tables.PICTURE), display_path(SYNTHESIS_PICTURE))


if __name__ == "__main__":
    main()
