"""Sample triplets at random: the control for uncertainty sampling.

Reads:  datasets/<dataset>/<scale>.jsonl, or --data_path
Writes: sampled_triplet_results/<dataset>_<scale>_random_m=<max_query>_seed=<seed>.json

python -m perspective.1_predict_triplet.random_triplet_sampling --dataset banking77
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import Output, save_triplets
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.evaluation.gold import add_gold_answers
from perspective.evaluation.labels import LabelOptions, load_labels
from perspective.layout import Layout
from perspective.options import option
from perspective.triplets.sampling import SampledOptions, sample_random_triplets


@dataclass(frozen=True)
class RandomSettings:
    """Number of triplets and random seed."""

    max_query: int = option("number of triplets", default=1024)
    seed: int = option("random seed", default=100)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Sample."""
    kinds = (CorpusSettings, LabelOptions, RandomSettings, SampledOptions)
    corpus, label, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout(corpus.dataset, corpus.scale, "random", settings.max_query, settings.seed)
    path = Path(out.out_dir) / layout.triplets.name if out.out_dir else layout.triplets
    texts = load_texts(corpus)
    made_from = {"sampling": "random", "max_query": settings.max_query, "seed": settings.seed}
    made_from |= {**label.made_from(), **corpus.made_from()}
    output = Output(path, "triplets", made_from, {"texts": corpus.path})
    if output.is_finished(out.overwrite):
        return
    triplets = sample_random_triplets(len(texts), settings.max_query, settings.seed)
    # Gold answers are added after sampling, for analysis only.
    triplets = add_gold_answers(triplets, load_labels(corpus, label.label_column))
    output.facts["n_triplets"] = len(triplets)
    save_triplets(output, triplets, texts, corpus.dataset)


if __name__ == "__main__":
    main()
