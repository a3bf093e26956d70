"""What a judge makes of training pairs, and of a corpus of which nothing is known but queries.

The judges are those of clustering: a triplet's query is a query, its choices are two documents.
No judgment of relevance of a test set is ever seen here.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import LABELS, Judgment, Output, Triplet, load_judgments, save_judgments
from perspective.data.pairs import Pair
from perspective.errors import DataError
from perspective.judging.protocol import Judge, Wording
from perspective.judging.session import discard_partial, judge_triplets
from perspective.judging.settings import record_judge
from perspective.layout import slugify_model
from perspective.options import option
from perspective.retrieval.embedding import EmbeddedTexts
from perspective.retrieval.layout import RETRIEVAL_STAGE
from perspective.triplets.conversion import convert_judgments
from perspective.trust.reliability import Reliability, assess_reliability

logger = logging.getLogger(__name__)

JUDGED = RETRIEVAL_STAGE / "judged_results"


@dataclass(frozen=True)
class JudgedSettings:
    """What the judge is asked, and what its answers change."""

    instruction: str = option(
        "the sentence that asks a judge of the kinds choice, reward and server",
        default="Select the document that better answers the Query.",
    )
    perspective: str = option(
        "what a query and a document that answers it share, for the kinds answer and pair", default="subject"
    )
    min_probability: float = option(
        "of pairs: drop a hard negative unless the document is closer to the query with a probability "
        "above this: the judge finds it as relevant",
        default=0.5,
    )
    top_k: int = option("of a corpus: the nearest documents of a query, of which two are compared", default=10)
    triplets_per_query: int = option("of a corpus: comparisons a query", default=1)
    seed: int = option("of drawing, and of the order of the choices", default=100)

    def __post_init__(self) -> None:
        """Check values."""
        if not 0 <= self.min_probability < 1:
            raise DataError(f"--min_probability {self.min_probability}: must be at least 0 and below 1")
        if self.top_k < 2:
            raise DataError(f"--top_k {self.top_k}: must be at least 2, for two documents to compare")
        if not 1 <= self.triplets_per_query < self.top_k:
            raise DataError(
                f"--triplets_per_query {self.triplets_per_query}: must be at least 1 and below --top_k {self.top_k}"
            )

    @property
    def wording(self) -> Wording:
        """How a judge is asked."""
        return Wording(self.perspective, self.instruction)

    def asked(self, by_corpus: bool) -> dict[str, Any]:
        """Return the settings that decide the questions, for the provenance of the judgments."""
        drawn = {"top_k": self.top_k, "triplets_per_query": self.triplets_per_query} if by_corpus else {}
        return {**asdict(self.wording), **drawn, "seed": self.seed}


@dataclass(frozen=True)
class Questions:
    """Triplets of a query and two documents.

    Attributes:
        texts: The distinct queries and documents.
        triplets: Rows of `texts`.
        pairs: For questions about pairs: the pair that each triplet asks about, by its place.
    """

    texts: list[str]
    triplets: list[Triplet]
    pairs: tuple[int, ...] = ()


def ask_about_pairs(pairs: Sequence[Pair], seed: int) -> Questions:
    """Ask of each hard negative whether the document is closer to the query.

    The document is choice 1 or 2 by a coin: were it always the same, a judge that follows position
    would look like one that is right.

    Raises:
        DataError: No pair has a hard negative.
    """
    rng = random.Random(seed)
    rows: dict[str, int] = {}
    triplets: list[Triplet] = []
    places: list[int] = []
    for place, pair in enumerate(pairs):
        for negative in dict.fromkeys(pair.hard_negatives):
            choices = [pair.document, negative]
            if rng.random() < 0.5:
                choices.reverse()
            triplets.append(_make_triplet(rows, pair.query, *choices))
            places.append(place)
    if not triplets:
        raise DataError("no pair has a hard negative to judge; run mine_negatives first")
    return Questions(list(rows), triplets, tuple(places))


def ask_about_corpus(embedded: EmbeddedTexts, settings: JudgedSettings) -> Questions:
    """Ask of each query whether the embedder's nearest document or another near one answers it better.

    The nearest document is compared, so that whoever wins is likely to be relevant; the others are
    drawn from the ranks down to `top_k`. The order of the two is drawn too.

    Raises:
        DataError: There are fewer documents than two.
    """
    from perspective.retrieval.search import search_dense

    queries, documents = list(embedded.queries), list(embedded.documents)
    if len(documents) < 2:
        raise DataError(f"{len(documents)} document(s): two are needed to compare")
    rng = random.Random(settings.seed)
    rows: dict[str, int] = {}
    triplets = []
    query_vectors, document_vectors = (np.stack(list(side.values())) for side in (embedded.queries, embedded.documents))
    # Where questions are documents too, a query would be its own nearest: one more, to leave it out.
    hits = search_dense(query_vectors, document_vectors, documents, settings.top_k + 1)
    for query, ranks in zip(queries, hits.rows, strict=True):
        nearest, *others = [documents[row] for row in ranks if documents[row] != query][: settings.top_k]
        for other in rng.sample(others, min(settings.triplets_per_query, len(others))):
            choices = [nearest, other]
            rng.shuffle(choices)
            triplets.append(_make_triplet(rows, query, *choices))
    return Questions(list(rows), triplets)


def load_or_ask_judgments(
    questions: Questions, dataset: str, output: Output, name: str, build: Callable[[], Judge], overwrite: bool = False
) -> list[Judgment]:
    """Return the judge's answers, asked where no finished file holds them; a killed run goes on.

    Args:
        questions: What is asked.
        dataset: Its name, recorded in the file.
        output: The file of the judgments.
        name: Of the judge, as it stands in file names.
        build: Loads or connects the judge, if it is needed.
        overwrite: Whether a file of other questions or of another judge is made anew; answers to
            the same questions are kept in any case.

    Raises:
        DataError: The file was made from other inputs or settings.
    """
    try:
        is_finished = output.is_finished()
    except DataError:
        if not overwrite:
            raise
        is_finished = False
    if is_finished:
        discard_partial(output.path)  # a kill may have come between the two
        return load_judgments(output.path, len(questions.texts), dataset)
    judge = build()
    judgments = judge_triplets(judge, questions.triplets, questions.texts, output)
    output.facts["n_judgments"] = len(judgments)
    output.record.judge = record_judge(name, judge.identity, {**judge.facts, **assess_reliability(judgments).facts()})
    save_judgments(output, judgments, questions.texts, dataset)
    discard_partial(output.path)
    return judgments


def weigh_pairs(
    pairs: Sequence[Pair], questions: Questions, judgments: Sequence[Judgment], min_probability: float
) -> tuple[list[Pair], dict[str, Any]]:
    """Weigh pairs by how sure the judge is of them, and drop hard negatives that it finds relevant too.

    A pair's weight is multiplied by the probability that its document is closer to the query than
    a hard negative, over all of them. A pair without hard negatives stays as it is.

    Args:
        pairs: As asked about.
        questions: Of `ask_about_pairs`.
        judgments: One a triplet, in order.
        min_probability: A hard negative stays if the document is closer with a probability above.

    Returns:
        The pairs, unchanged where the judge is not to be believed; and the figures.
    """
    probabilities: dict[int, dict[str, float]] = {}
    for place, judgment in zip(questions.pairs, judgments, strict=True):
        pair = pairs[place]
        choice1, choice2 = (questions.texts[row] for row in judgment.triplet.key[1:])
        first = _probability(judgment)
        negative, closer = (choice2, first) if choice1 == pair.document else (choice1, 1 - first)
        probabilities.setdefault(place, {})[negative] = closer
    told = np.array([value for one in probabilities.values() for value in one.values()])
    reliability = assess_reliability(judgments)
    decided = told[told != 0.5]
    facts = {
        **reliability.facts(),
        "document_closer_fraction": float((decided > 0.5).mean()) if len(decided) else None,
        "n_dropped_negatives": 0,
    }
    # A judge that prefers hard negatives as often as documents says nothing about these pairs.
    if not _is_believed(reliability) or not len(decided) or (decided > 0.5).mean() <= 0.5:
        if reliability.is_reliable:
            logger.warning("the judge prefers hard negatives as often as documents: nothing is changed")
        facts["unchanged"] = True
        return list(pairs), facts
    result = []
    for place, pair in enumerate(pairs):
        known = probabilities.get(place)
        if known is None:
            result.append(pair)
            continue
        kept = tuple(text for text in pair.hard_negatives if known[text] > min_probability)
        weight = pair.weight * float(np.mean(list(known.values())))
        result.append(replace(pair, hard_negatives=kept, weight=round(weight, 4)))
    facts["n_dropped_negatives"] = int((told <= min_probability).sum())
    logger.info(
        "%d of %d hard negatives dropped: the judge finds them as relevant (probability of the document at most %g)",
        *(facts["n_dropped_negatives"], len(told), min_probability),
    )
    return result, facts


def make_pairs(questions: Questions, judgments: Sequence[Judgment]) -> tuple[list[Pair], dict[str, Any]]:
    """Make the document that the judge prefers the query's, and the other its hard negative.

    Args:
        questions: Of `ask_about_corpus`.
        judgments: One a triplet, in order; abstentions are left out.

    Returns:
        Pairs weighted by how sure the judge was, |2p - 1|; and the figures.

    Raises:
        DataError: The judge is not to be believed: its answers would be the only thing trained on.
    """
    reliability = assess_reliability(judgments)
    facts: dict[str, Any] = reliability.facts()
    if not _is_believed(reliability):
        raise DataError("no training pairs: this judge is unreliable here; ask another, by --judge or --llm")
    made = [
        Pair(one.anchor, one.positive, (one.negative,), round(one.weight, 4), "judged")
        for one in convert_judgments(judgments, questions.texts)
    ]
    logger.info("%d of %d judgments become training pairs", len(made), len(judgments))
    return made, facts


def judged_path(dataset: str, embedder: str, judge: str, folder: Path | None = None) -> Path:
    """Return where judged pairs go; judgments and answer states lie beside them.

    >>> judged_path("docs", "minilm", "smollm2-choice").name
    'docs_minilm-smollm2-choice.jsonl'
    """
    return (folder or JUDGED) / f"{dataset}_{slugify_model(embedder)}-{judge}.jsonl"


def _make_triplet(rows: dict[str, int], *texts: str) -> Triplet:
    """Return the rows of a query and two documents, adding texts that are new."""
    query, choice1, choice2 = (rows.setdefault(text, len(rows)) for text in texts)
    return Triplet(query, choice1, choice2)


def _is_believed(reliability: Reliability) -> bool:
    if not reliability.is_reliable:
        logger.warning("this judge is unreliable here, nothing is changed by its answers: %s", reliability.describe())
        return False
    logger.info("%s", reliability.describe())
    return True


def _probability(judgment: Judgment) -> float:
    """Return the probability that choice 1 is closer; of words alone, 1, 0 or for an abstention a half."""
    if judgment.probability is not None:
        return judgment.probability
    return 0.5 if not judgment.prediction else float(judgment.prediction[0] == LABELS[0])
