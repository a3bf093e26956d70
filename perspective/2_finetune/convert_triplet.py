"""Turn judgments into training triplets: the chosen text positive, the other negative.

Reads:  ../1_predict_triplet/predicted_triplet_results/<run>-<judge>-pred.json, or --pred_path
Writes: converted_triplet_results/<run>-<judge>-train.json; empty where the judge is unreliable

python -m perspective.2_finetune.convert_triplet --dataset banking77 --llm smollm2
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from perspective.artifacts import Output, load_judgments, read_facts, save_training_triplets
from perspective.cli import entry_point, parse_settings
from perspective.conversion import ConvertSettings, choose_instruction, convert_judgments
from perspective.corpus import CorpusSettings, load_texts
from perspective.judging.reliability import assess_reliability
from perspective.layout import Layout, converted_path

logger = logging.getLogger(__name__)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    corpus, settings = parse_settings((CorpusSettings, ConvertSettings), argv, __doc__)
    layout = Layout(corpus.dataset, corpus.scale, settings.embedder, settings.max_query, settings.seed, settings.llm)
    predictions = Path(settings.pred_path or layout.judgments)
    folder = Path(settings.output_path) if settings.output_path else layout.training_triplets.parent
    instruction = choose_instruction(settings.embedder, corpus.dataset, settings.instruction)
    inputs = {"texts": corpus.path, "judgments": predictions}
    output = Output(converted_path(predictions, folder), "training triplets", {"instruction": instruction}, inputs)
    if output.is_finished(settings.overwrite):
        return
    texts = load_texts(corpus)
    judgments = load_judgments(predictions, len(texts), corpus.dataset)
    reliability = assess_reliability(judgments)
    triplets = convert_judgments(judgments, texts, instruction) if reliability.is_reliable else []
    if not reliability.is_reliable:
        logger.warning("judge unreliable, no training triplet is made: %s", reliability.describe())
    output.facts |= {"judge": read_facts(predictions), "n_judgments": len(judgments), "n_triplets": len(triplets)}
    logger.info("%d of %d judgments become training triplets", len(triplets), len(judgments))
    save_training_triplets(output, triplets, corpus.dataset)


if __name__ == "__main__":
    main()
