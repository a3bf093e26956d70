"""Measure the accuracy of the judge, the embedder and both together against the labels; for analysis only.

Reads:  predicted_triplet_results/<run>-<judge>-pred.json, the vectors, the labels, answer states if given
Writes: predicted_triplet_results/<run>-<judge>-accuracy.json

python -m perspective.1_predict_triplet.calculate_accuracy --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from perspective.artifacts import Output, load_judgments, read_record
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.errors import DataError
from perspective.evaluation.gold import add_gold_answers, keep_labelled
from perspective.evaluation.judge_accuracy import analyse_judgments, format_analysis
from perspective.evaluation.labels import LabelOptions, load_labels
from perspective.layout import Layout
from perspective.options import FolderOptions, JudgedOptions, RunOptions
from perspective.trust.evidence import name_source

logger = logging.getLogger(__name__)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Analyse and print."""
    kinds = (CorpusSettings, LabelOptions, RunOptions, JudgedOptions, FolderOptions)
    corpus, label, run, files, out = parse_settings(kinds, argv, __doc__)
    layout = Layout.of(corpus, run)
    predictions = Path(files.pred_path or layout.judgments)
    inputs = {"judgments": predictions, "embeddings": Path(files.feat_path or layout.embeds)}
    if files.states_path:
        inputs["states"] = Path(files.states_path)
    path = (out.folder or predictions.parent) / f"{predictions.stem.removesuffix('-pred')}-accuracy.json"
    output = Output(path, "accuracy", {}, {**inputs, "texts": corpus.path})
    texts, labels = load_texts(corpus), load_labels(corpus, label.label_column)
    if labels is None:
        raise DataError(f"{corpus.path}: accuracy needs labels, found none")
    judgments = load_judgments(predictions, texts, corpus.dataset)
    gold = {triplet.key: triplet for triplet in add_gold_answers([one.triplet for one in judgments], labels)}
    known = {triplet.key for triplet in keep_labelled(gold.values(), labels)}
    if len(known) < len(gold):
        logger.info("analysed on the %d of %d triplets whose texts all have a label", len(known), len(gold))
    judgments = [replace(one, triplet=gold[one.triplet.key]) for one in judgments if one.triplet.key in known]
    vectors = output.read_vectors("embeddings", len(texts))
    states = output.read_vectors("states", len(texts)) if "states" in inputs else None
    analysis = analyse_judgments(judgments, vectors, states, name_source(read_record(predictions).judge))
    sys.stdout.write(format_analysis(analysis) + "\n")
    output.write_json(analysis)


if __name__ == "__main__":
    main()
