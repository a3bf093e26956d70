"""Compare the measures before and after fine-tuning.

Reads:  measures/ and after_measures/ of the given runs
Writes: after_measures/comparison_<embedder>-<judge>[-<recipe>][-large].md, .csv and .png; the measures in the
        model cards

python -m perspective.2_finetune.compare --datasets banking77 mtop_domain --llm smollm2 --seeds 100 13 21
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from perspective.artifacts import atomic_path, display_path, write_text
from perspective.cli import entry_point, parse_settings
from perspective.evaluation.clustering_scores import read_measures
from perspective.evaluation.comparison import (
    Comparison,
    add_measures_to_card,
    draw_comparison,
    format_csv,
    format_markdown,
    format_text,
    load_comparison,
)
from perspective.layout import Layout, comparison_path, measures_path
from perspective.options import FolderOptions, LearnedRunOptions, Scale, option

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CompareSettings:
    """The runs to compare."""

    datasets: list[str] = option("names of the data sets", group="input", aliases=("--dataset",))
    scale: Scale = option("small or large", default="small", group="input")
    seeds: list[int] | None = option(
        "training seeds of the same run; those that were measured are compared together. A verdict needs three; "
        "default: --seed",
        default=None,
        group="input",
    )


def _log_files(layout: Layout) -> None:
    files = {
        "measures before": measures_path(layout.embeds),
        "measures after": measures_path(layout.after_embeds),
        "judgments": layout.judgments,
        "training data": layout.train_file,
        "embedder": layout.checkpoint,
    }
    lines = (f"  {name:18s} {display_path(path)}" for name, path in files.items() if path.exists())
    logger.info("%s\n%s", layout.dataset, "\n".join(lines))


def _load(layouts: Sequence[Layout]) -> Comparison:
    first = layouts[0]
    before, after = measures_path(first.embeds), [measures_path(one.after_embeds) for one in layouts]
    checkpoints = [one.checkpoint for one in layouts]
    return load_comparison(before, after, checkpoints, first.dataset, first.embedder, first.scale, with_texts=True)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Compare, print and write."""
    settings, run, out = parse_settings((CompareSettings, LearnedRunOptions, FolderOptions), argv, __doc__)
    seeds = list(dict.fromkeys(settings.seeds or [run.seed]))
    comparisons = []
    for name in settings.datasets:
        layouts = [
            Layout(name, settings.scale, run.embedder, run.max_query, seed, run.llm, run.recipe) for seed in seeds
        ]
        layouts = [layout for layout in layouts if measures_path(layout.after_embeds).exists()] or layouts[:1]
        if len(layouts) < len(seeds):
            logger.info("%s: measured for %d of the %d training seeds", name, len(layouts), len(seeds))
        for layout in layouts:
            _log_files(layout)
        before = measures_path(layouts[0].embeds)
        if before.exists() and read_measures(before) is None:
            logger.info("%s: no labels to compare by; draw_map.sh says what is known without", name)
            continue
        comparison = _load(layouts)
        for layout in layouts:
            add_measures_to_card(layout.checkpoint, comparison)
        comparisons.append(comparison)
    if not comparisons:
        return
    sys.stdout.write(format_text(comparisons) + "\n")
    table, data, chart = (
        comparison_path(run.embedder, run.llm, kind, out.folder, run.recipe, settings.scale)
        for kind in ("md", "csv", "png")
    )
    write_text(table, format_markdown(comparisons))
    write_text(data, format_csv(comparisons))
    with atomic_path(chart) as temporary:
        draw_comparison(comparisons, temporary)
    logger.info("wrote %s, .csv, .png", display_path(table))


if __name__ == "__main__":
    main()
