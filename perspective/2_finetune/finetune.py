"""Fine-tune the embedder on training triplets.

Reads:  converted_triplet_results/<run>-<judge>-train.json, or --train_file
Writes: checkpoints/<run>-<judge>/, a folder that SentenceTransformer(path) loads, with its model
        card, loss.csv and loss.png; until it is whole, <folder>.partial/, from which a killed run
        goes on

python -m perspective.2_finetune.finetune --dataset banking77 --llm smollm2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perspective.artifacts import Output, load_training_triplets, read_facts
from perspective.cli import entry_point, parse_settings
from perspective.layout import Layout, checkpoint_path
from perspective.models import describe_model, load_embedder
from perspective.training import TrainSettings, finetune_embedder


@dataclass(frozen=True)
class FileSettings:
    """What is trained, and where it goes."""

    dataset: str = field(metadata={"help": "name of the data set"})
    scale: str = field(default="small", metadata={"help": "small or large", "choices": ["small", "large"]})
    embedder: str = field(
        default="minilm",
        metadata={
            "help": "the embedder to adapt: gte, e5, minilm, an id of the hub or a folder",
            "aliases": ["--embed_method", "--model_name_or_path"],
        },
    )
    llm: str = field(default="smollm2", metadata={"help": "the judge, as it stands in the file's name"})
    max_query: int = field(default=1024, metadata={"help": "of the run"})
    train_file: str | None = field(
        default=None, metadata={"help": "training triplets, ours or published; default those of the run"}
    )
    output_dir: str | None = field(
        default=None, metadata={"help": "the folder to make; default checkpoints/<run>-<judge>"}
    )
    revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of the embedder on the hub"})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "run code from the embedder's repository; only where you trust it"}
    )
    overwrite: bool = field(default=False, metadata={"help": "make a finished model anew; an unfinished run goes on"})


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Fine-tune."""
    files, settings = parse_settings((FileSettings, TrainSettings), argv, __doc__)
    layout = Layout(files.dataset, files.scale, files.embedder, files.max_query, settings.seed, files.llm)
    train_file = Path(files.train_file or layout.training_triplets)
    path = Path(files.output_dir) if files.output_dir else checkpoint_path(train_file)
    made_from = {
        "dataset": files.dataset,
        "embedder": files.embedder,
        "revision": files.revision,
        **settings.made_from(),
    }
    output = Output(path, "embedder", made_from, {"training_triplets": train_file})
    if output.is_finished(files.overwrite):
        return
    triplets = load_training_triplets(train_file)
    output.facts |= {**describe_model(files.embedder), "judge": read_facts(train_file).get("judge", {})}
    model = load_embedder(files.embedder, revision=files.revision, trust_remote_code=files.trust_remote_code)
    finetune_embedder(model, triplets, settings, output)


if __name__ == "__main__":
    main()
