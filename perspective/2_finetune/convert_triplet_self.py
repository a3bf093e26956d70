"""Make training triplets from the embedder's own distances: the self-training control.

Reads:  the triplets of ../1_predict_triplet/predicted_triplet_results/<run>-<judge>-pred.json and
        the vectors of the embedder before fine-tuning
Writes: converted_triplet_results/<run>-<judge>-self-train.json

python -m perspective.2_finetune.convert_triplet_self --dataset banking77 --llm smollm2
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perspective.artifacts import JudgeRecord, Output, load_judgments, save_training_triplets
from perspective.artifacts.sidecar import ITSELF
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.layout import Layout, converted_path
from perspective.models.prompts import choose_instruction
from perspective.options import OutputOptions, RunOptions
from perspective.triplets.conversion import SelfConvertSettings, convert_by_embedder


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Convert."""
    kinds = (CorpusSettings, RunOptions, SelfConvertSettings, OutputOptions)
    corpus, run, settings, out = parse_settings(kinds, argv, __doc__)
    layout = Layout.of(corpus, run)
    predictions = Path(settings.pred_path or layout.judgments)
    feats = Path(settings.feat_path or layout.embeds)
    instruction = choose_instruction(run.embedder, corpus.dataset, settings.instruction)
    path = converted_path(predictions, out.folder, by_embedder=True)
    inputs = {"texts": corpus.path, "triplets": predictions, "embeddings": feats}
    output = Output(path, "training triplets", {"instruction": instruction, **corpus.made_from()}, inputs)
    if output.is_finished(out.overwrite):
        return
    texts = load_texts(corpus)
    judgments = load_judgments(predictions, texts, corpus.dataset)
    triplets = convert_by_embedder(judgments, texts, output.read_vectors("embeddings", len(texts)), instruction)
    output.record.judge = JudgeRecord(name=ITSELF)
    output.facts["n_triplets"] = len(triplets)
    save_training_triplets(output, triplets, corpus.dataset)


if __name__ == "__main__":
    main()
