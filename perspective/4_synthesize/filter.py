"""Keep the examples that conform, are distinct, in the right language, and found by their query; make training pairs.

Reads:  results/<dataset>_<llm>/examples.jsonl and corpus.jsonl of generate.sh
Writes: beside them pairs.jsonl, for stage 6; filtered.jsonl: every example with why it is left out; report.json,
        .md and .png; of a grounded set control.jsonl: a pair of each of the same documents without an LLM (headings, or
        first sentences), and held_out/, a collection of queries that are not trained on

python -m perspective.4_synthesize.filter --dataset notes --embedder minilm
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from perspective.artifacts import Output, read_facts, read_sidecar
from perspective.artifacts.names import slugify_model
from perspective.cli import entry_point, parse_settings
from perspective.data.documents import load_passages
from perspective.data.pairs import Pair
from perspective.errors import DataError, require_least
from perspective.models.registry import find_local
from perspective.options import EmbedderOptions, OverwriteOptions, option
from perspective.synthesis.settings import SetOptions, SynthesisFiles


@dataclass(frozen=True)
class FilterSettings(EmbedderOptions, OverwriteOptions):
    """What is kept."""

    llm: str = option("the LLM that wrote the examples", default="smollm2", group="model", aliases=("--model",))
    keep_top_k: int = option(
        "keep an example if its document is among this many nearest to its query, of all documents; 0 keeps all",
        default=20,
    )
    n_held_out: int = option("queries of real documents that are kept apart, to measure with", default=0)

    def __post_init__(self) -> None:
        """Check values."""
        require_least(self, keep_top_k=0, n_held_out=0)

    def find(self, pairs: Sequence[Pair], documents: Sequence[str], seed: int) -> list[Pair]:
        """Return the pairs whose document the embedder finds by its query."""
        from perspective.models.embedders import load_embedder
        from perspective.models.prompts import set_retrieval_prompts
        from perspective.retrieval.embedding import embed_sides
        from perspective.retrieval.mining import MineSettings, filter_pairs

        model = load_embedder(self.embedder)
        set_retrieval_prompts(model, self.embedder)
        embedded = embed_sides(model, (pair.query for pair in pairs), [*(pair.document for pair in pairs), *documents])
        return filter_pairs(pairs, embedded, MineSettings(keep_top_k=self.keep_top_k, seed=seed))


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Filter."""
    chosen, settings = parse_settings((SetOptions, FilterSettings), argv, __doc__)
    files = SynthesisFiles.choose(chosen, settings.llm)
    inputs = {"examples": files.examples, **find_local(embedder=settings.embedder)}
    written = read_sidecar(files.examples)
    # Free examples may be beside the corpus of an earlier run; those of a person, without a sidecar, may be about it.
    has_corpus = files.corpus.exists() and (written is None or "corpus" in written.inputs)
    inputs |= {"corpus": files.corpus} if has_corpus else {}
    made_from = {name: getattr(settings, name) for name in ("embedder", "keep_top_k", "n_held_out")}
    output = Output(files.pairs, "synthetic pairs", {**made_from, "seed": chosen.seed}, inputs)
    about = written.inputs.get("corpus") if written else None
    if about and about != output.fingerprint.inputs.get("corpus"):
        raise DataError(f"{files.examples}: about other passages than {files.corpus.name} holds; run generate.sh again")
    if not output.is_finished(settings.overwrite):
        from perspective.synthesis.assembly import assemble_set, save_set
        from perspective.synthesis.examples import load_examples

        passages = load_passages(files.corpus) if has_corpus else []

        def find(pairs: Sequence[Pair], documents: Sequence[str]) -> Sequence[Pair]:
            return settings.find(pairs, documents, chosen.seed) if settings.keep_top_k else pairs

        made = assemble_set(load_examples(files.examples), passages, find, settings.n_held_out, chosen.seed)
        style = str(read_facts(files.examples).get("style", ""))
        save_set(made, passages, files, output, slugify_model(settings.llm), style)
    sys.stdout.write(files.report.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
