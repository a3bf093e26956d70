"""Sample triplets at random: the control for the uncertain ones.

Reads:  datasets/<dataset>/<scale>.jsonl, or --data_path
Writes: sampled_triplet_results/<dataset>_<scale>_random_m=<max_query>_seed=<seed>.json

python -m perspective.1_predict_triplet.random_triplet_sampling --dataset banking77
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perspective.artifacts import Output, save_triplets
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.evaluation.gold import answer_by_labels
from perspective.evaluation.labels import load_labels
from perspective.layout import Layout
from perspective.triplets.sampling import sample_random_triplets


@dataclass(frozen=True)
class RandomSettings:
    """How many, and where they go."""

    max_query: int = field(default=1024, metadata={"help": "number of triplets"})
    seed: int = field(default=100, metadata={"help": "of the draw"})
    out_dir: str | None = field(default=None, metadata={"help": "folder; default sampled_triplet_results"})
    overwrite: bool = field(default=False, metadata={"help": "make a finished file anew"})


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Sample."""
    corpus, settings = parse_settings((CorpusSettings, RandomSettings), argv, __doc__)
    layout = Layout(corpus.dataset, corpus.scale, "random", settings.max_query, settings.seed)
    path = Path(settings.out_dir) / layout.triplets.name if settings.out_dir else layout.triplets
    texts = load_texts(corpus)
    made_from = {"sampling": "random", "max_query": settings.max_query, "seed": settings.seed}
    output = Output(path, "triplets", made_from, {"texts": corpus.path})
    if output.is_finished(settings.overwrite):
        return
    triplets = sample_random_triplets(len(texts), settings.max_query, settings.seed)
    triplets = answer_by_labels(triplets, load_labels(corpus))  # for analysis: the draw is over
    output.facts["n_triplets"] = len(triplets)
    save_triplets(output, triplets, texts, corpus.dataset)


if __name__ == "__main__":
    main()
