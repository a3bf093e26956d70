"""Compare the measures before and after fine-tuning.

Reads:  measures/ and after_measures/ of the given runs
Writes: after_measures/comparison_<embedder>-<judge>.md, .csv and .png; the measures in the model cards

python -m perspective.2_finetune.compare --datasets banking77 mtop_domain --llm smollm2
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from perspective.artifacts import atomic_path, display_path, read_json, write_text
from perspective.cli import entry_point, parse_settings
from perspective.evaluation.comparison import (
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


def _log_files(layout: Layout) -> None:
    files = {
        "measures before": measures_path(layout.embeds),
        "measures after": measures_path(layout.after_embeds),
        "judgments": layout.judgments,
        "training triplets": layout.training_triplets,
        "teacher": layout.teacher,
        "embedder": layout.checkpoint,
    }
    lines = (f"  {name:18s} {display_path(path)}" for name, path in files.items() if path.exists())
    logger.info("%s\n%s", layout.dataset, "\n".join(lines))


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Compare, print and write."""
    settings, run, out = parse_settings((CompareSettings, LearnedRunOptions, FolderOptions), argv, __doc__)
    layouts = [
        Layout(name, settings.scale, run.embedder, run.max_query, run.seed, run.llm, run.recipe)
        for name in settings.datasets
    ]
    comparisons = []
    for layout in layouts:
        _log_files(layout)
        before, after = measures_path(layout.embeds), measures_path(layout.after_embeds)
        if before.exists() and "ACC" not in read_json(before):
            logger.info("%s: no labels to compare by; draw_map.sh says what is known without", layout.dataset)
            continue
        comparison = load_comparison(before, after, layout.checkpoint, layout.dataset, run.embedder)
        add_measures_to_card(layout.checkpoint, comparison)
        comparisons.append(comparison)
        blended = measures_path(layout.after_blend)
        if blended.exists():
            blend = load_comparison(before, blended, layout.checkpoint, layout.dataset, run.embedder)
            comparisons.append(replace(blend, judge=f"{blend.judge}, at inference too"))
    if not comparisons:
        return
    sys.stdout.write(format_text(comparisons) + "\n")
    table, data, chart = (comparison_path(run.embedder, run.llm, kind, out.folder) for kind in ("md", "csv", "png"))
    write_text(table, format_markdown(comparisons))
    write_text(data, format_csv(comparisons))
    with atomic_path(chart) as temporary:
        draw_comparison(comparisons, temporary)
    logger.info("wrote %s, .csv, .png", display_path(table))


if __name__ == "__main__":
    main()
