"""Weight training pairs by a judge, or create pairs from a corpus and queries.

The judges are those of clustering: a triplet is a query and, as its choices, two documents.
Relevance judgments of test sets are not used.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np

from perspective.artifacts import LABELS, Judgment, Output, Triplet, load_judgments, save_judgments
from perspective.artifacts.names import slugify_model
from perspective.data.pairs import Pair
from perspective.errors import DataError
from perspective.judging.protocol import Judge, Wording, is_unanswered
from perspective.judging.session import discard_partial, is_complete, judge_triplets, lock_judgments
from perspective.judging.settings import record_judge
from perspective.options import option
from perspective.retrieval.embedding import EmbeddedTexts
from perspective.retrieval.layout import RETRIEVAL_STAGE
from perspective.triplets.conversion import convert_judgments
from perspective.trust.evidence import is_trusted
from perspective.trust.reliability import assess_reliability

logger = logging.getLogger(__name__)

JUDGED = RETRIEVAL_STAGE / "judged_results"


@dataclass(frozen=True)
class PairJudgingSettings:
    """The judge's questions, and how its answers are used."""

    instruction: str = option(
        "the instruction for judges of the kinds choice, reward and server",
        default="Select the document that better answers the Query.",
    )
    perspective: str = option(
        "what a query and its relevant document share, for judges of the kinds answer and pair", default="subject"
    )
    min_probability: float = option(
        "with pairs: keep a hard negative if the document is closer to the query with a probability above this; "
        "otherwise it may be relevant too",
        default=0.5,
    )
    top_k: int = option("with a corpus: compare two of this many nearest documents of a query", default=10)
    triplets_per_query: int = option("with a corpus: comparisons a query", default=1)
    seed: int = option("random seed of sampling and of the order of the choices", default=100)

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
        """The wording of the questions."""
        return Wording(self.perspective, self.instruction)

    def fingerprint_questions(self, by_corpus: bool) -> dict[str, Any]:
        """Return the settings that determine the questions, for the fingerprint of the judgments."""
        drawn = {"top_k": self.top_k, "triplets_per_query": self.triplets_per_query} if by_corpus else {}
        return {**asdict(self.wording), **drawn, "seed": self.seed}


@dataclass(frozen=True)
class Questions:
    """Triplets of a query and two documents.

    Attributes:
        texts: The distinct queries and documents.
        triplets: Rows of `texts`.
        pairs: For questions about pairs, the index of each triplet's pair.
        vectors: For questions from a corpus, the embedder's vectors of the texts, `(n_texts, dim)`.
    """

    texts: list[str]
    triplets: list[Triplet]
    pairs: tuple[int, ...] = ()
    vectors: np.ndarray | None = None


def create_pair_questions(pairs: Sequence[Pair], seed: int) -> Questions:
    """Create one question for each hard negative: is it or the document closer to the query?

    The document is choice 1 or 2 at random: otherwise a judge with a position bias would seem to be
    right.

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


def create_corpus_questions(embedded: EmbeddedTexts, settings: PairJudgingSettings) -> Questions:
    """Create questions for each query: is the embedder's nearest document or another near one closer?

    The nearest document is always compared, so that the winner is likely to be relevant; the other
    is sampled from the next ones, down to rank `top_k`. The order of the two is random.

    Raises:
        DataError: There are fewer than two documents, or no query has two beside itself.
    """
    from perspective.retrieval.search import search_dense

    queries, documents = list(embedded.queries), list(embedded.documents)
    if len(documents) < 2:
        raise DataError(f"{len(documents)} document(s): two are needed for a comparison")
    rng = random.Random(settings.seed)
    rows: dict[str, int] = {}
    triplets = []
    query_vectors, document_vectors = (np.stack(list(side.values())) for side in (embedded.queries, embedded.documents))
    # A query that is also a document is its own nearest: search one more, to leave it out.
    hits = search_dense(query_vectors, document_vectors, documents, settings.top_k + 1)
    for query, ranks in zip(queries, hits.rows, strict=True):
        nearest, *others = [documents[row] for row in ranks if documents[row] != query][: settings.top_k]
        for other in rng.sample(others, min(settings.triplets_per_query, len(others))):
            choices = [nearest, other]
            rng.shuffle(choices)
            triplets.append(_make_triplet(rows, query, *choices))
    if not triplets:
        raise DataError("no query has two documents to compare beside itself; give more documents")
    vectors = {**embedded.documents, **embedded.queries}
    return Questions(list(rows), triplets, vectors=np.stack([vectors[text] for text in rows]))


def load_or_collect_judgments(
    questions: Questions, dataset: str, output: Output, name: str, build: Callable[[], Judge], overwrite: bool = False
) -> list[Judgment]:
    """Return the judge's answers, read from a finished file or collected; a killed run resumes.

    Args:
        questions: The questions.
        dataset: Name of the data set, recorded in the file.
        output: The file of the judgments.
        name: Name of the judge, as in file names.
        build: Loads or connects the judge; called only if it is needed.
        overwrite: Whether to overwrite a file of other questions or another judge; answers to the
            same questions are always kept.

    Raises:
        DataError: The file was made from other inputs or settings.
    """
    try:
        is_finished = is_complete(output, limits=())
    except DataError:
        if not overwrite:
            raise
        is_finished = False
    if is_finished:
        discard_partial(output.path)  # left if a kill came between saving and removing
        return load_judgments(output.path, questions.texts, dataset)
    with lock_judgments(output.path):
        # Of a file with questions that failed, the answers.
        earlier = load_judgments(output.path, questions.texts, dataset) if output.record.judge else []
        judge = build()
        judgments = judge_triplets(judge, questions.triplets, questions.texts, output, earlier)
        figures = {**judge.facts, **assess_reliability(judgments).facts()}
        output.facts["n_judgments"] = len(judgments)
        output.record.judge = record_judge(name, judge.identity, figures)
        save_judgments(output, judgments, questions.texts, dataset)
        discard_partial(output.path)
    return judgments


def weight_pairs(
    pairs: Sequence[Pair], questions: Questions, judgments: Sequence[Judgment], min_probability: float
) -> tuple[list[Pair], dict[str, Any]]:
    """Weight pairs by the judge's probabilities and drop hard negatives that may be relevant.

    A pair's weight is multiplied by the mean probability that its document is closer to the query
    than a hard negative. Pairs without hard negatives are unchanged.

    Args:
        pairs: The pairs that the questions are about.
        questions: From `create_pair_questions`.
        judgments: One for each triplet, in order.
        min_probability: A hard negative is kept if the document is closer with a probability above this.

    Returns:
        The pairs, unchanged if the judge is not trusted, and the figures.
    """
    probabilities: dict[int, dict[str, float]] = {}
    for place, judgment in zip(questions.pairs, judgments, strict=True):
        if is_unanswered(judgment):
            continue
        pair = pairs[place]
        choice1, choice2 = (questions.texts[row] for row in judgment.triplet.key[1:])
        first = _read_probability(judgment)
        negative, closer = (choice2, first) if choice1 == pair.document else (choice1, 1 - first)
        probabilities.setdefault(place, {})[negative] = closer
    closer_probabilities = np.array([value for one in probabilities.values() for value in one.values()])
    reliability = assess_reliability(judgments)
    decided = closer_probabilities[closer_probabilities != 0.5]
    preferred = float((decided > 0.5).mean()) if len(decided) else None
    facts = {**reliability.facts(), "document_closer_fraction": preferred, "n_dropped_negatives": 0}
    trusted = is_trusted(judgments, None)
    # By two standard errors of a guess: a judge without information about these pairs prefers either as often.
    if trusted and (preferred is None or preferred <= 0.5 + len(decided) ** -0.5):
        logger.warning(
            "the judge prefers documents to hard negatives no more often than a guess: the pairs are unchanged"
        )
        trusted = False
    if not trusted:
        facts["unchanged"] = True
        return list(pairs), facts
    logger.info("%s", reliability.describe())
    result = []
    for place, pair in enumerate(pairs):
        known = probabilities.get(place)
        if known is None:
            result.append(pair)
            continue
        # A question that failed says nothing against a negative.
        is_kept = [known.get(text, 1) > min_probability for text in pair.hard_negatives]
        kept = tuple(compress(pair.hard_negatives, is_kept))
        scores = tuple(compress(pair.scores, [True, *is_kept]))
        weight = pair.weight * float(np.mean(list(known.values())))
        result.append(replace(pair, hard_negatives=kept, scores=scores, weight=round(weight, 4)))
    facts["n_dropped_negatives"] = int((closer_probabilities <= min_probability).sum())
    logger.info(
        "%d of %d hard negatives dropped as possibly relevant (probability of the document at most %g)",
        *(facts["n_dropped_negatives"], len(closer_probabilities), min_probability),
    )
    return result, facts


def make_pairs(
    questions: Questions, judgments: Sequence[Judgment], in_two_orders: bool = False
) -> tuple[list[Pair], dict[str, Any]]:
    """Create pairs of a query, the document that the judge prefers, and the other as hard negative.

    Args:
        questions: From `create_corpus_questions`.
        judgments: One for each triplet, in order; abstentions are left out.
        in_two_orders: As `is_trusted`.

    Returns:
        Pairs weighted by the judge's confidence, |2p - 1|, and the figures.

    Raises:
        DataError: The judge is not trusted, and there is nothing else to train on.
    """
    reliability = assess_reliability(judgments)
    facts: dict[str, Any] = reliability.facts()
    if not is_trusted(judgments, questions.vectors, in_two_orders):
        raise DataError("no training pairs: this judge is unreliable here; choose another with --judge or --llm")
    logger.info("%s", reliability.describe())
    made = [
        Pair(one.anchor, one.positive, (one.negative,), round(one.weight, 4), "judged")
        for one in convert_judgments(judgments, questions.texts)
    ]
    logger.info("%d of %d judgments become training pairs", len(made), len(judgments))
    return made, facts


def judged_path(dataset: str, embedder: str, judge: str, folder: Path | None = None) -> Path:
    """Return the path of judged pairs; judgments and answer states are beside them.

    >>> judged_path("docs", "minilm", "smollm2-choice").name
    'docs_minilm-smollm2-choice.jsonl'
    """
    return (folder or JUDGED) / f"{dataset}_{slugify_model(embedder)}-{judge}.jsonl"


def _make_triplet(rows: dict[str, int], *texts: str) -> Triplet:
    """Return the rows of a query and two documents; new texts are added to `rows`."""
    query, choice1, choice2 = (rows.setdefault(text, len(rows)) for text in texts)
    return Triplet(query, choice1, choice2)


def _read_probability(judgment: Judgment) -> float:
    """Return the probability that choice 1 is closer; without probabilities 1 or 0, and 0.5 for an abstention."""
    if judgment.probability is not None:
        return judgment.probability
    return 0.5 if not judgment.prediction else float(judgment.prediction[0] == LABELS[0])
