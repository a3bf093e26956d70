"""Tell how right the judge, the embedder and both together are, by the labels. For analysis alone.

Reads:  predicted_triplet_results/<run>-<judge>-pred.json, the vectors, the labels, answer states if given
Writes: predicted_triplet_results/<run>-<judge>-accuracy.json

python -m perspective.1_predict_triplet.calculate_accuracy --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from perspective.artifacts import Output, load_judgments, read_facts, read_vectors
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.errors import DataError
from perspective.evaluation.gold import answer_by_labels
from perspective.evaluation.judge_accuracy import analyse_judgments, format_analysis
from perspective.evaluation.labels import load_labels
from perspective.layout import Layout
from perspective.trust.evidence import name_judge


@dataclass(frozen=True)
class AccuracySettings:
    """Which judgments."""

    embedder: str = field(default="minilm", metadata={"help": "whose vectors", "aliases": ["--embed_method"]})
    llm: str = field(default="smollm2", metadata={"help": "the judge, as it stands in the file's name"})
    max_query: int = field(default=1024, metadata={"help": "of the run"})
    seed: int = field(default=100, metadata={"help": "of the run"})
    pred_path: str | None = field(
        default=None, metadata={"help": "judgments, ours or published; default those of the run"}
    )
    feat_path: str | None = field(default=None, metadata={"help": "vectors as .npy; default those of --embedder"})
    states_path: str | None = field(
        default=None, metadata={"help": "answer states as .npy, one more source of the combined evidence"}
    )
    output_path: str | None = field(default=None, metadata={"help": "folder; default that of the judgments"})


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Analyse and print."""
    corpus, settings = parse_settings((CorpusSettings, AccuracySettings), argv, __doc__)
    layout = Layout(corpus.dataset, corpus.scale, settings.embedder, settings.max_query, settings.seed, settings.llm)
    predictions = Path(settings.pred_path or layout.judgments)
    inputs = {"judgments": predictions, "embeddings": Path(settings.feat_path or layout.embeds)}
    if settings.states_path:
        inputs["states"] = Path(settings.states_path)
    texts, labels = load_texts(corpus), load_labels(corpus)
    if labels is None:
        raise DataError(f"{corpus.path}: accuracy needs labels, and there are none")
    judgments = load_judgments(predictions, len(texts), corpus.dataset)
    gold = answer_by_labels([judgment.triplet for judgment in judgments], labels)
    judgments = [replace(judgment, triplet=triplet) for judgment, triplet in zip(judgments, gold, strict=True)]
    vectors = read_vectors(inputs["embeddings"], len(texts))
    states = read_vectors(inputs["states"], len(texts)) if "states" in inputs else None
    analysis = analyse_judgments(judgments, vectors, states, name_judge(read_facts(predictions)))
    sys.stdout.write(format_analysis(analysis) + "\n")
    folder = Path(settings.output_path) if settings.output_path else predictions.parent
    name = f"{predictions.stem.removesuffix('-pred')}-accuracy.json"
    Output(folder / name, "accuracy", {}, {**inputs, "texts": corpus.path}).write_json(analysis)


if __name__ == "__main__":
    main()
