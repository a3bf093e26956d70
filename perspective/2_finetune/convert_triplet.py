"""Turn judgments into training triplets: the chosen text positive, the other negative.

Reads:  ../1_predict_triplet/predicted_triplet_results/<run>-<judge>-pred.json, or --pred_path;
        the embedder's vectors, where they are there; with --evidence, where given, answer states
Writes: converted_triplet_results/<run>-<judge>-train.json; empty where the judge is unreliable

python -m perspective.2_finetune.convert_triplet --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from perspective.artifacts import Judgment, Output, load_judgments, read_facts, read_vectors, save_training_triplets
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.layout import Layout, converted_path
from perspective.models.prompts import choose_instruction
from perspective.options import OutputOptions, RunOptions
from perspective.triplets.conversion import ConvertSettings, convert_by_evidence, convert_judgments
from perspective.trust.evidence import EMBEDDER, gather_evidence, is_noise, name_judge
from perspective.trust.reliability import assess_reliability

logger = logging.getLogger(__name__)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    kinds = (CorpusSettings, RunOptions, ConvertSettings, OutputOptions)
    corpus, run, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout(corpus.dataset, corpus.scale, run.embedder, run.max_query, run.seed, run.llm)
    predictions = Path(settings.pred_path or layout.judgments)
    folder = Path(out.output_path) if out.output_path else layout.training_triplets.parent
    instruction = choose_instruction(run.embedder, corpus.dataset, settings.instruction)
    inputs = {"texts": corpus.path, "judgments": predictions}
    made_with: dict[str, object] = {"instruction": instruction}
    if not settings.check:
        made_with["check"] = False
    feats = Path(settings.feat_path or layout.embeds)
    if settings.evidence or settings.feat_path or feats.exists():
        inputs["embeddings"] = feats
    if settings.evidence:
        made_with["evidence"] = True
        if settings.states_path:
            inputs["states"] = Path(settings.states_path)
    output = Output(converted_path(predictions, folder), "training triplets", made_with, inputs)
    if output.is_finished(out.overwrite):
        return
    texts = load_texts(corpus)
    judgments = load_judgments(predictions, len(texts), corpus.dataset)
    vectors = read_vectors(feats, len(texts)) if "embeddings" in inputs else None
    judged = read_facts(predictions)
    asked = judged.get("asked") or {}
    # Answers in both orders were held against one another, states have no order, and evidence weighs all by itself.
    in_one_order = asked.get("orders", 1) == 1 and asked.get("kind") != "answer"
    is_checked = settings.check and in_one_order and not settings.evidence
    is_believed = believe(judgments, vectors if is_checked else None)
    if settings.evidence:
        assert vectors is not None  # an input
        states = read_vectors(inputs["states"], len(texts)) if "states" in inputs else None
        judge = name_judge(judged) if is_believed else None
        evidence = gather_evidence(judgments, vectors, states, judge)
        logger.info("sources believed: %s", ", ".join(f"{name} {mu:.2f}" for name, mu in evidence.reliability.items()))
        output.facts["reliability"] = evidence.reliability
        # The embedder alone would teach itself what it holds already: that is the self-training control.
        is_believed = any(mu > 0 for name, mu in evidence.reliability.items() if name != EMBEDDER)
        if not is_believed:
            logger.warning("no source but the embedder is believed, no training triplet is made")
        triplets = convert_by_evidence(judgments, texts, evidence, instruction) if is_believed else []
    else:
        triplets = convert_judgments(judgments, texts, instruction) if is_believed else []
    output.facts |= {"judge": judged, "n_judgments": len(judgments), "n_triplets": len(triplets)}
    logger.info("%d of %d judgments become training triplets", len(triplets), len(judgments))
    save_training_triplets(output, triplets, corpus.dataset)


def believe(judgments: Sequence[Judgment], vectors: np.ndarray | None) -> bool:
    """Tell without labels whether a judge's answers are fit to train on, and log why not.

    Args:
        judgments: Of triplets of n texts.
        vectors: The untouched embedder's `(n_texts, dim)`, to check answers of one order against;
            None for no check.
    """
    reliability = assess_reliability(judgments)
    if not reliability.is_reliable:
        logger.warning("judge unreliable, its answers are not used: %s", reliability.describe())
        return False
    if vectors is not None and is_noise(judgments, vectors):
        logger.warning(
            "judge unreliable, its answers are not used: given in one order, they agree with the embedder no more than "
            "noise; ask in both (--orders 2), or convert with --no_check"
        )
        return False
    return True


if __name__ == "__main__":
    main()
