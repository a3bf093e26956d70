"""Make a set of training pairs from examples: filters, queries that are held out, pairs without an LLM, report."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from perspective.artifacts import Output, discard_result, write_text
from perspective.data.collection import QRELS_PLACES, Collection, save_collection
from perspective.data.documents import Passage, make_title_pairs, write_passages
from perspective.data.pairs import Pair, save_pairs
from perspective.errors import DataError
from perspective.synthesis.examples import Example, save_examples
from perspective.synthesis.filters import count_faults, filter_examples, make_pairs, reject_inconsistent
from perspective.synthesis.forms import GROUNDED
from perspective.synthesis.report import count_steps, draw_report, format_report, sum_languages
from perspective.synthesis.settings import SynthesisFiles

logger = logging.getLogger(__name__)

FindPairs = Callable[[Sequence[Pair], Sequence[str]], Sequence[Pair]]


@dataclass(frozen=True)
class SyntheticSet:
    """What is made from examples.

    Attributes:
        examples: All examples; those that are left out have a fault.
        pairs: Pairs to train on.
        control: Pairs of the same documents without an LLM.
        held_out: Pairs to measure with, whose documents are not trained on.
    """

    examples: list[Example]
    pairs: list[Pair]
    control: list[Pair]
    held_out: list[Pair]


def assemble_set(
    examples: Sequence[Example], passages: Sequence[Passage], find: FindPairs, n_held_out: int, seed: int
) -> SyntheticSet:
    """Filter examples and make pairs.

    Args:
        examples: All replies.
        passages: The real documents, if there are any.
        find: Returns those of the pairs whose query finds the document among further documents.
        n_held_out: Number of queries to hold out, at most half of them. They are drawn before `find`, which would
            leave the queries that the embedder answers already.
        seed: Of the draw.

    Raises:
        DataError: Fewer than two pairs are left, or there is no real document to hold a query out of.
    """
    checked = filter_examples(examples)
    pairs = make_pairs(checked, {passage.id: passage.text for passage in passages})
    if not pairs:  # nothing to hold out and to search with
        raise _explain_too_few(0, checked)
    held_out = hold_out(list(pairs.values()), n_held_out, seed)
    found = find(list(pairs.values()), [passage.text for passage in passages])
    checked = reject_inconsistent(checked, pairs, found)
    apart = {pair.document for pair in held_out}
    kept = [pair for place, pair in pairs.items() if not checked[place].fault and pair.document not in apart]
    if len(kept) < 2:
        raise _explain_too_few(len(kept), checked)
    trained = {pair.document for pair in kept}
    control = make_title_pairs([passage for passage in passages if passage.text in trained])
    return SyntheticSet(checked, kept, control, held_out)


def _explain_too_few(n_left: int, examples: Sequence[Example]) -> DataError:
    most = "".join(f" (most: {fault}, {n})" for fault, n in [*count_faults(examples).items()][:1])
    return DataError(
        f"{n_left} of {len(examples)} examples are left to train on{most}; ask for more with --n_examples, "
        "use a larger LLM, or raise --keep_top_k"
    )


def hold_out(pairs: Sequence[Pair], n: int, seed: int) -> list[Pair]:
    """Return a pair of each of at most n documents, drawn at random, and of at most half of all documents.

    Raises:
        DataError: No pair has a real document.
    """
    first: dict[str, Pair] = {}
    for pair in pairs:
        if pair.source == GROUNDED:
            first.setdefault(pair.document, pair)  # a document may have several queries
    grounded = list(first.values())
    if n and not grounded:
        raise DataError(f"--n_held_out {n}: only queries of real documents can be held out; see --documents_path")
    rows = np.random.default_rng(seed).permutation(len(grounded))[: min(n, len(grounded) // 2)]
    return [grounded[row] for row in sorted(rows)]


def save_set(
    made: SyntheticSet, passages: Sequence[Passage], files: SynthesisFiles, output: Output, llm: str, style: str
) -> None:
    """Write all files of a set, the pairs last.

    Args:
        made: The set.
        passages: The real documents.
        files: Where the files are.
        output: The file of pairs; the others have the same settings and inputs.
        llm: Name of the LLM, for the report.
        style: How it was asked.
    """
    discard_result(output.path)  # until all that belongs to the pairs is written
    rows = count_steps(made.examples, llm, style)
    by_type = sum_languages(rows)
    save_examples(output.beside(files.filtered, "filtered examples"), made.examples)
    if made.control:
        save_pairs(output.beside(files.control, "control pairs"), made.control)
    else:
        discard_result(files.control)
    if passages:
        apart = {pair.document for pair in made.held_out}
        trained = [passage for passage in passages if passage.text not in apart]
        write_passages(output.beside(files.train_corpus, "passages"), trained)
    else:
        discard_result(files.train_corpus)
    shutil.rmtree(files.held_out, ignore_errors=True)
    if made.held_out:
        ids = {passage.text: passage.id for passage in passages}
        corpus = {passage.id: passage.text for passage in passages}
        queries = {f"q{place}": pair.query for place, pair in enumerate(made.held_out)}
        qrels = {f"q{place}": {ids[pair.document]: 1} for place, pair in enumerate(made.held_out)}
        path = files.held_out / QRELS_PLACES[0]
        collection = Collection(files.held_out.name, corpus, queries, qrels)
        save_collection(output.beside(path, "collection"), collection)
    output.beside(files.report, "synthesis report").write_json(rows)
    write_text(files.report.with_suffix(".md"), format_report(by_type))
    draw_report(by_type, files.report.with_suffix(".png"))
    save_pairs(output, made.pairs)
    logger.info("%d pairs to train on of %d examples", len(made.pairs), len(made.examples))
