"""Filter weak pairs by the embedder's ranking, and mine hard negatives for the others.

Reads:  datasets/<dataset>/train.jsonl, or --train_file; --corpus_path for more documents
Writes: mined_results/<dataset>_<embedder>.jsonl

python -m perspective.6_retrieval.mine_negatives --dataset docstrings
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import Output
from perspective.cli import entry_point, parse_settings
from perspective.data.collection import read_texts
from perspective.data.corpus import DATASETS
from perspective.data.pairs import load_pairs, save_pairs
from perspective.models.embedders import load_embedder
from perspective.models.prompts import choose_prompts, set_retrieval_prompts
from perspective.models.registry import describe_model, find_local
from perspective.options import EmbedderOptions, ModelOptions, OutputOptions, PromptOptions, RetrievalSetOptions, option
from perspective.retrieval.embedding import embed_sides
from perspective.retrieval.layout import mined_path
from perspective.retrieval.mining import MineSettings, filter_pairs, mine_negatives
from perspective.runtime.devices import reading_precision


@dataclass(frozen=True)
class MiningFiles(EmbedderOptions, PromptOptions, ModelOptions, OutputOptions, RetrievalSetOptions):
    """Input pairs, embedder and output of mining."""

    train_file: str | None = option("pairs as jsonl; default those of the data set", default=None, group="input")
    corpus_path: str | None = option(
        "a corpus.jsonl: more documents to choose negatives from", default=None, group="input"
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Filter and mine."""
    files, settings = parse_settings((MiningFiles, MineSettings), argv, __doc__)
    inputs = {"pairs": Path(files.train_file or DATASETS / files.dataset / "train.jsonl")}
    if files.corpus_path:
        inputs["corpus"] = Path(files.corpus_path)
    inputs |= find_local(embedder=files.embedder, reranker=settings.reranker)
    prompts = choose_prompts(files)
    made_from = {
        **{"embedder": files.embedder, "revision": files.revision},
        **{"query_prompt": prompts[0], "document_prompt": prompts[1]},
        **settings.made_from(),
    }
    path = mined_path(files.dataset, files.embedder, files.folder)
    precision = reading_precision() if settings.reranker else None
    output = Output(path, "mined pairs", made_from, inputs, precision=precision)
    if output.is_finished(files.overwrite):
        return
    from perspective.reranking.loading import load_reranker

    pairs = load_pairs(inputs["pairs"])
    corpus = list(read_texts(inputs["corpus"]).values()) if files.corpus_path else []
    model = load_embedder(files.embedder, **files.loading())
    set_retrieval_prompts(model, files.embedder, *prompts)
    embedded = embed_sides(model, (pair.query for pair in pairs), [*(pair.document for pair in pairs), *corpus])
    kept = filter_pairs(pairs, embedded, settings)
    reranker = None
    if settings.reranker:
        reranker = load_reranker(settings.reranker, trust_remote_code=files.trust_remote_code)
    mined = mine_negatives(kept, embedded, settings, reranker, dropped=pairs)
    output.facts |= {**describe_model(files.embedder), "n_dropped": len(pairs) - len(kept)}
    save_pairs(output, mined)


if __name__ == "__main__":
    main()
