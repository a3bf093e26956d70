"""Assign new texts to the clusters: cluster, name, confidence, and whether a text belongs nowhere.

Reads:  --data_path, texts, embedded with the run's checkpoint; or --feat_path, their vectors; the files of
        cluster.sh; clusters/<run>-names.json, if there is one; clusters/<run>-edits.yaml, a person's edits
Writes: clusters/<run>-<file>-assigned.parquet and .csv; -<file>-embeds.npy, the vectors; with --update, clusters
        that form among the texts that belong nowhere are added to the files of cluster.sh

python -m perspective.3_describe.assign --dataset banking77 --data_path new.csv
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from perspective.artifacts import Output, read_sidecar, read_vectors
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, read_texts
from perspective.errors import DataError
from perspective.layout import ClusterFiles, Layout
from perspective.models.embedding import EmbedSettings, load_embedding
from perspective.models.prompts import PROMPTS, read_prompt
from perspective.options import LearnedRunOptions, OutputOptions, option
from perspective.runtime.devices import reading_precision


@dataclass(frozen=True)
class AssignSettings(OutputOptions):
    """What is assigned, and whether clusters may be added."""

    feat_path: str | None = option(
        "vectors of the new texts as .npy; default: they are embedded with the checkpoint", default=None, group="input"
    )
    checkpoint: str | None = option(
        "folder of the model that embeds; default: the run's own", default=None, group="model"
    )
    update: bool = option(
        "add clusters that form among the texts that belong nowhere; old ones are kept", default=False
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Assign."""
    kinds = (CorpusSettings, LearnedRunOptions, EmbedSettings, AssignSettings)
    corpus, run, embedding, settings = parse_settings(kinds, argv, __doc__)
    if not corpus.data_path and (settings.update or not settings.feat_path):
        raise DataError(
            "assign needs new texts: --data_path FILE" + ("" if settings.update else ", or --feat_path FILE")
        )
    layout = Layout.of(corpus, run)
    files = layout.description.inside(settings.folder)
    texts = read_texts(corpus.path, corpus.text_column) if corpus.data_path else None
    vectors = (
        Path(settings.feat_path)
        if settings.feat_path
        else embed(corpus, texts or [], layout, embedding, settings, files)
    )
    from perspective.description.files import require_same_space
    from perspective.description.new_texts import NewTexts, assign_new_texts

    if settings.feat_path:
        require_same_space(files, vectors)
    new = NewTexts(read_vectors(vectors, len(texts) if texts else None), texts, vectors)
    assign_new_texts(files, new, Path(corpus.data_path or vectors), settings.update, run.seed, settings.overwrite)


def embed(
    corpus: CorpusSettings,
    texts: Sequence[str],
    layout: Layout,
    settings: EmbedSettings,
    given: AssignSettings,
    files: ClusterFiles,
) -> Path:
    """Write the vectors of the new texts, unless they are there; return their path.

    Raises:
        DataError: The clustered vectors are of another model, or were made with another instruction.
    """
    from perspective.description.files import find_embeddings, require_same_model

    checkpoint = Path(given.checkpoint or layout.checkpoint)
    instruction = read_prompt(PROMPTS, corpus.dataset) if settings.instruction else None
    made_from = {"instruction": instruction, "text_column": corpus.text_column}
    inputs = {"texts": corpus.path, "checkpoint": checkpoint}
    output = Output(files.new_vectors(corpus.path), "embeddings", made_from, inputs, precision=reading_precision())
    if clustered := read_sidecar(find_embeddings(files)):
        if not given.checkpoint:
            require_same_model(clustered, output.fingerprint.inputs["checkpoint"], str(checkpoint))
        if clustered.settings.get("instruction") != instruction:
            option_name = "--no_instruction" if instruction else "--instruction"
            raise DataError(f"the clustered vectors were made with another instruction; add {option_name}")
    if not output.is_finished(given.overwrite):
        from perspective.description.new_texts import write_vectors_of

        write_vectors_of(output, texts, partial(load_embedding, str(checkpoint), settings, instruction))
    return output.path


if __name__ == "__main__":
    main()
