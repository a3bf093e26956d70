"""Sample triplets for the texts that the embedder is most uncertain about.

Reads:  measures/<dataset>_<scale>_embeds_<embedder>.npy, or --feat_path
Writes: sampled_triplet_results/<run>.json

python -m perspective.1_predict_triplet.triplet_sampling --dataset banking77
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from perspective.artifacts import Output, save_triplets
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.errors import NothingToSample
from perspective.evaluation.gold import add_gold_answers, keep_labelled, measure_answerable
from perspective.evaluation.labels import LabelOptions, load_labels
from perspective.layout import Layout
from perspective.options import EmbedderOptions, VectorOptions
from perspective.triplets.sampling import SampledOptions, SampleSettings, sample_triplets

logger = logging.getLogger(__name__)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Sample."""
    kinds = (CorpusSettings, LabelOptions, EmbedderOptions, VectorOptions, SampleSettings, SampledOptions)
    corpus, label, model, files, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout(corpus.dataset, corpus.scale, model.embedder, settings.max_query, settings.seed)
    texts = load_texts(corpus)
    feats = Path(files.feat_path) if files.feat_path else layout.embeds
    path = Path(out.out_dir) / layout.triplets.name if out.out_dir else layout.triplets
    made_from = {**asdict(settings), "scale": corpus.scale, **label.made_from(), **corpus.made_from()}
    output = Output(path, "triplets", made_from, {"texts": corpus.path, "embeddings": feats})
    if output.is_finished(out.overwrite):
        return
    vectors = output.read_vectors("embeddings", len(texts))
    try:
        triplets, uncertainty = sample_triplets(vectors, settings, corpus.scale)
    except NothingToSample as reason:
        logger.warning("no triplets, the run continues without them: %s", reason)
        save_triplets(output, [], texts, corpus.dataset)
        return
    # Gold answers are added after sampling, for analysis only.
    labels = load_labels(corpus, label.label_column)
    triplets = add_gold_answers(triplets, labels)
    output.facts |= {"n_triplets": len(triplets), "n_clusters": uncertainty.n_clusters}
    logger.info("%d triplets from %d clusters", len(triplets), uncertainty.n_clusters)
    answerable = measure_answerable(keep_labelled(triplets, labels)) if labels else None
    if answerable is not None:
        output.facts["answerable_fraction"] = answerable
        logger.info("for analysis only: by the labels, %.1f%% have exactly one right answer", 100 * answerable)
    save_triplets(output, triplets, texts, corpus.dataset)


if __name__ == "__main__":
    main()
