"""Embed the texts and measure how well they cluster.

Reads:  datasets/<dataset>/<scale>.jsonl, or --data_path
Writes: measures/<dataset>_<scale>_embeds_<embedder>.npy, ..._measures.json and, where there are labels,
        ..._clusterings.npy; with --finetuned or --checkpoint the same in after_measures/

python -m perspective.2_finetune.get_embedding --dataset banking77 --embedder minilm

Several GPUs share the texts if torchrun or `accelerate launch` starts it; one process measures:
torchrun --nproc_per_node 8 -m perspective.2_finetune.get_embedding --dataset banking77 --embedder gte
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from perspective.artifacts import Output, read_json, read_record, read_sidecar, read_vectors
from perspective.cli import parse_settings, shared_entry_point
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.errors import DataError
from perspective.evaluation.labels import LabelOptions, load_labels
from perspective.layout import Layout, after_path, clusterings_path, measures_path
from perspective.models.coverage import EMBEDDERS_THAT_FIT
from perspective.models.embedding import EmbedSettings, load_embedding
from perspective.models.prompts import PROMPTS, read_prompt
from perspective.models.registry import describe_model, find_local
from perspective.options import LearnedRunOptions, OutputOptions, option
from perspective.runtime.devices import describe_precision, reading_precision
from perspective.runtime.distributed import broadcast_from_main, end_process_group, is_main, n_processes, share_texts
from perspective.runtime.ray import EngineSettings, write_vectors_on_ray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MeasureSettings(LabelOptions, OutputOptions):
    """Which checkpoint is used, what is measured, and where results are written."""

    checkpoint: str | None = option("folder of a fine-tuned model to use as embedder", default=None, group="model")
    finetuned: bool = option("embed with the run's own checkpoint", default=False, group="model")
    measure: bool = option("measure the clustering too", default=True)


@shared_entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Embed, then measure."""
    kinds = (CorpusSettings, LearnedRunOptions, EmbedSettings, MeasureSettings, EngineSettings)
    corpus, run, settings, files, engine = parse_settings(kinds, argv, __doc__)
    if engine.engine == "ray" and n_processes() > 1:
        raise DataError("--engine ray starts its own processes; start it without torchrun or accelerate")
    texts = load_texts(corpus)
    layout = Layout.of(corpus, run)
    given = Path(os.path.abspath(files.checkpoint)) if files.checkpoint else None  # "." has no name
    checkpoint = given or (layout.checkpoint if files.finetuned else None)
    path = after_path(checkpoint, corpus.dataset, corpus.scale) if checkpoint else layout.embeds
    if files.output_path:
        path = Path(files.output_path) / path.name
    instruction = read_prompt(PROMPTS, corpus.dataset) if settings.instruction else None
    model = {"checkpoint": checkpoint} if checkpoint else find_local(embedder=run.embedder)
    inputs = {"texts": corpus.path, **model}
    made_from: dict[str, Any] = {
        "embedder": run.embedder,
        "revision": settings.revision,
        "instruction": instruction,
        "text_column": corpus.text_column,
    }
    output = Output(path, "embeddings", made_from, inputs, precision=reading_precision())
    if checkpoint:
        output.record = read_record(checkpoint)
        _check_base(checkpoint, run.embedder)
    if not broadcast_from_main(lambda: output.is_finished(files.overwrite)):
        load = partial(load_embedding, str(checkpoint or run.embedder), settings, instruction)
        output.facts |= describe_model(run.embedder)
        if engine.engine == "ray":
            write_vectors_on_ray(output, texts, load, engine)
        else:
            embed = load()
            vectors = share_texts(embed, texts)
            if vectors is not None:
                embed.coverage.warn(run.embedder, embed.model.max_seq_length, EMBEDDERS_THAT_FIT)
                output.facts |= embed.coverage.facts()  # of this process's share of the texts
                output.facts |= {"n_texts": len(texts), "dim": vectors.shape[1], **describe_precision(embed.model)}
                output.write_vectors(vectors)
    end_process_group()
    if not is_main():
        return
    output.discard_partial()
    if files.measure:
        measure(corpus, output.path, len(texts), files)


def _check_base(checkpoint: Path, embedder: str) -> None:
    """Refuse another embedder than the checkpoint was trained from: it would be compared with that one's measures."""
    made = read_sidecar(checkpoint)
    base = made.settings.get("embedder") if made else None
    if base not in (None, embedder):
        raise DataError(f"{checkpoint}: trained from {base}; add --embedder {base}, or set EMBEDDER={base}")


def measure(corpus: CorpusSettings, embeds: Path, n_texts: int, files: MeasureSettings) -> None:
    """Measure vectors and write the measures."""
    made_from = {"scale": corpus.scale, "label_column": files.label_column}
    inputs = {"embeddings": embeds, "texts": corpus.path}
    output = Output(measures_path(embeds), "measures", made_from, inputs)
    clusterings = output.beside(clusterings_path(embeds), "clusterings")
    # Measures by an earlier version are without the clusterings, which a comparison over training seeds needs.
    if output.is_finished(files.overwrite) and (
        "ACC" not in read_json(output.path) or clusterings.is_finished(quiet=True)
    ):
        return
    from perspective.clustering.n_clusters import score_without_labels
    from perspective.evaluation.clustering_scores import METRICS, cluster_labelled, score_clusterings

    vectors = read_vectors(embeds, n_texts)
    labels = load_labels(corpus, files.label_column)  # labels are used only to measure
    if labels is None:
        measures = score_without_labels(vectors)
        logger.info("no labels, so no ACC, NMI or ARI; best silhouette %s", measures["silhouette"])
    else:
        found = cluster_labelled(vectors, labels, corpus.scale)
        clusterings.write_vectors(found)
        measures = score_clusterings(found, len(vectors))
        scores = [f"{metric} {measures[f'{metric}_mean']:.2f} ± {measures[f'{metric}_std']:.2f}" for metric in METRICS]
        logger.info("%s: %s", corpus.dataset, ", ".join(scores))
        if "n_labelled" in measures:
            logger.info("measured on the %d of %d texts that have a label", measures["n_labelled"], len(vectors))
    output.facts["n_texts"] = len(vectors)
    output.write_json(measures)


if __name__ == "__main__":
    main()
