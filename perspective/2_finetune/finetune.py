"""Fine-tune the embedder on a teacher's vectors or on training triplets.

Reads:  converted_triplet_results/<run>-<judge>-teacher.npy if convert_states made one, else
        ...-train.json; or --train_file, either of them
Writes: checkpoints/<run>-<judge>/, a folder that SentenceTransformer(path) loads, with its model
        card, loss.csv and loss.png; until it is complete, <folder>.partial/, from which a killed
        run resumes

python -m perspective.2_finetune.finetune --dataset banking77 --llm smollm2

Several GPUs share each batch when torchrun or `accelerate launch` starts it:
torchrun --nproc_per_node 8 -m perspective.2_finetune.finetune --dataset banking77 --llm smollm2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perspective.artifacts import Output, load_training_triplets, read_record, read_vectors
from perspective.cli import parse_settings, shared_entry_point
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.errors import DataError
from perspective.layout import Layout, checkpoint_path
from perspective.models.registry import describe_model, find_local
from perspective.options import ModelOptions, OverwriteOptions, RunOptions, TrainedEmbedderOptions, option
from perspective.runtime.devices import training_precision
from perspective.runtime.distributed import broadcast_from_main, is_main
from perspective.training.settings import TrainSettings


@dataclass(frozen=True)
class FinetuneSettings(TrainedEmbedderOptions, RunOptions, ModelOptions, OverwriteOptions):
    """Training data, and where the model is written."""

    train_file: str | None = option(
        "training triplets (.json, ours or published) or a teacher (.npy); default: those of the run",
        default=None,
        group="input",
    )
    output_dir: str | None = option(
        "folder of the model; default: checkpoints/<run>-<judge>", default=None, group="output"
    )


@shared_entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Fine-tune."""
    corpus, files, settings = parse_settings((CorpusSettings, FinetuneSettings, TrainSettings), argv, __doc__)
    layout = Layout(
        corpus.dataset, corpus.scale, files.embedder, files.max_query, settings.seed, files.llm, settings.recipe
    )
    train_file = Path(files.train_file) if files.train_file else layout.train_file
    by_teacher = train_file.suffix == ".npy"
    record = read_record(train_file)
    if settings.recipe is None:
        if not by_teacher and record.judge and record.judge.reads_states:
            raise DataError(f"{layout.teacher}: no such file; run convert_states first, or use --recipe standard")
        settings = replace(settings, recipe="distill" if by_teacher else "standard")
    if (settings.recipe == "distill") != by_teacher:
        raise DataError(f"--recipe {settings.recipe}: does not fit {train_file.name}; distill needs a teacher (.npy)")
    path = Path(files.output_dir) if files.output_dir else checkpoint_path(train_file, settings.seed, settings.recipe)
    made_from = {
        "dataset": corpus.dataset,
        "embedder": files.embedder,
        "revision": files.revision,
        **settings.made_from(),
        **(corpus.made_from() if by_teacher else {}),
    }
    inputs = {"teacher": train_file, "texts": corpus.path} if by_teacher else {"training_triplets": train_file}
    inputs |= find_local(embedder=files.embedder)
    output = Output(path, "embedder", made_from, inputs, precision=training_precision())
    if broadcast_from_main(lambda: output.is_finished(files.overwrite)):
        if is_main():
            output.discard_partial()  # of a run that was killed when all was written
        return
    output.record = record
    trained_before = read_record(Path(files.embedder)).judge
    if record.judge and trained_before and trained_before.uses_labels:
        output.record.judge = record.judge.model_copy(update={"uses_labels": True})
    output.facts |= describe_model(files.embedder)
    from perspective.models.embedders import load_embedder
    from perspective.training.distillation import distill_embedder
    from perspective.training.finetuning import finetune_embedder

    model = load_embedder(files.embedder, **files.loading())
    if by_teacher:
        texts = load_texts(corpus)
        teacher = read_vectors(train_file, len(texts))
        distill_embedder(model, texts, teacher, settings, output)
    else:
        finetune_embedder(model, load_training_triplets(train_file), settings, output)


if __name__ == "__main__":
    main()
