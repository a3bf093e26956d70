"""Turn judgments into training triplets: the chosen text positive, the other negative.

Reads:  ../1_predict_triplet/predicted_triplet_results/<run>-<judge>-pred.json, or --pred_path;
        the embedder's vectors if they exist; with --evidence, answer states if given
Writes: converted_triplet_results/<run>-<judge>-train.json; empty if the judge is unreliable

python -m perspective.2_finetune.convert_triplet --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from perspective.artifacts import Output, load_judgments, read_judge, save_training_triplets
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.layout import Layout, converted_path
from perspective.models.prompts import choose_instruction
from perspective.options import OutputOptions, RunOptions
from perspective.triplets.conversion import ConvertSettings, convert_by_evidence, convert_judgments
from perspective.trust.evidence import EMBEDDER, gather_evidence, is_trusted, name_source

logger = logging.getLogger(__name__)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    kinds = (CorpusSettings, RunOptions, ConvertSettings, OutputOptions)
    corpus, run, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout.of(corpus, run)
    predictions = Path(settings.pred_path or layout.judgments)
    instruction = choose_instruction(run.embedder, corpus.dataset, settings.instruction)
    inputs = {"texts": corpus.path, "judgments": predictions}
    feats = Path(settings.feat_path or layout.embeds)
    if settings.evidence or settings.feat_path or feats.exists():
        inputs["embeddings"] = feats
    if settings.states_path:
        inputs["states"] = Path(settings.states_path)
    made_from = {"instruction": instruction, "check": settings.check, "evidence": settings.evidence}
    made_from |= corpus.made_from()
    output = Output(converted_path(predictions, out.folder), "training triplets", made_from, inputs)
    if output.is_finished(out.overwrite):
        return
    texts = load_texts(corpus)
    judgments = load_judgments(predictions, texts, corpus.dataset)
    vectors = output.read_vectors("embeddings", len(texts)) if "embeddings" in inputs else None
    judge = read_judge(predictions)
    # What states are worth is decided by control questions, and evidence weighs its sources itself.
    is_checked = settings.check and not (judge and judge.reads_states) and not settings.evidence
    trusted = is_trusted(judgments, vectors if is_checked else None, judge is not None and judge.orders == 2)
    if settings.evidence:
        states = output.read_vectors("states", len(texts)) if "states" in inputs else None
        assert vectors is not None  # an input
        evidence = gather_evidence(judgments, vectors, states, name_source(judge) if trusted else None)
        output.facts["reliability"] = evidence.reliability
        logger.info("sources trusted: %s", ", ".join(f"{name} {mu:.2f}" for name, mu in evidence.reliability.items()))
        # From the embedder alone it would learn only what it already represents: the self-training control.
        trusted = any(mu > 0 for name, mu in evidence.reliability.items() if name != EMBEDDER)
        if not trusted:
            logger.warning("no source except the embedder is trusted: no training triplets are made")
        triplets = convert_by_evidence(judgments, texts, evidence, instruction) if trusted else []
    else:
        triplets = convert_judgments(judgments, texts, instruction) if trusted else []
    output.record.judge = judge
    output.facts |= {"n_judgments": len(judgments), "n_triplets": len(triplets)}
    logger.info("%d training triplets from %d judgments", len(triplets), len(judgments))
    save_training_triplets(output, triplets, corpus.dataset)


if __name__ == "__main__":
    main()
