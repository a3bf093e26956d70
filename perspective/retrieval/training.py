"""Fine-tune a retriever on pairs with hard negatives. Relevance judgments of test sets are not used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

from perspective.artifacts import Output
from perspective.data.corpus import sample_in_order
from perspective.data.pairs import Pair
from perspective.errors import DataError, require_above_zero, require_least
from perspective.options import PromptOptions, option
from perspective.training.model_card import write_card
from perspective.training.run import RunSettings, run_training, save_trained
from perspective.training.settings import PairTrainSettings

if TYPE_CHECKING:
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class RetrieverTrainSettings(PromptOptions, PairTrainSettings):
    """How the retriever is trained."""

    temperature: float = option("divides the cosine similarities in the loss", default=0.02)
    learning_rate: float = option("peak learning rate of AdamW", default=2e-5)
    num_train_epochs: float = option("passes over the pairs", default=1.0)
    per_device_train_batch_size: int = option(
        "pairs a step, over all processes: each query is compared with the documents and negatives of all", default=128
    )
    mini_batch_size: int = option(
        "texts that a process embeds at a time (gradient caching): memory is that of a mini-batch, for any "
        "batch size, at about twice the time; 0 embeds the whole batch at once",
        default=32,
        group="scale",
    )
    warmup_steps: int | None = option("steps in which it rises, in place of --warmup_ratio", default=None)
    weight_decay: float = option("weight decay of AdamW", default=0.0)
    distill: bool = option(
        "learn a reranker's ranking of each query's document and hard negatives, from the scores of score_pairs: KL "
        "divergence plus 0.2 times the InfoNCE loss, as E5; use --num_negatives 3 or more",
        default=False,
    )
    weighted: bool = option("multiply a pair's loss by its weight", default=True)
    lora_rank: int = option(
        "train LoRA adapters of this rank on all linear layers, merged at the end; 0 trains all weights", default=0
    )

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        require_above_zero(self, "temperature")
        require_least(self, warmup_steps=1, mini_batch_size=0, lora_rank=0, weight_decay=0)

    def made_from(self) -> dict[str, Any]:
        """Return the settings that change the model, for the fingerprint."""
        given = super().made_from()
        # Not in the fingerprints of earlier versions, which had none of them.
        later = ("task", "warmup_steps", "weight_decay", "distill")
        return {name: value for name, value in given.items() if value or name not in later}


def train_retriever(
    model: SentenceTransformer, pairs: Sequence[Pair], settings: RetrieverTrainSettings, output: Output
) -> None:
    """Fine-tune an embedder on pairs and write it as a folder that `SentenceTransformer(path)` loads.

    Queries and documents are trained with their prompts, which are saved with the model for
    `encode_query` and `encode_document`. Checkpoints are kept in `<folder>.partial/` until the
    result is complete; a killed run resumes from the last complete one.

    Args:
        model: The base embedder, with prompts from `set_retrieval_prompts`; changed in place.
        pairs: The training pairs.
        settings: How to train.
        output: The folder to write; counts and the last loss are added to its facts.

    Raises:
        DataError: There are fewer than two pairs, all have weight 0, or a pair to distil has no scores.
    """
    from perspective.training.batch_samplers import DistinctBatchSampler
    from perspective.training.losses.distilled_ranking import build_ranking_loss

    pairs = sample_in_order(pairs, settings.max_pairs, settings.seed)
    dataset = make_dataset(pairs, settings.num_negatives, settings.weighted, settings.distill)
    used = [pair.hard_negatives[: settings.num_negatives] for pair in pairs]
    output.facts |= {"n_pairs": len(pairs), "n_hard_negatives": sum(map(len, used))}
    loss = build_ranking_loss(model, settings.temperature, settings.mini_batch_size, settings.distill)
    # A text that is one query's document and another's negative must not be in a batch twice.
    prompts = prompts_by_column(model, dataset.column_names)
    history = run_training(model, dataset, loss, DistinctBatchSampler, prompts, RunSettings.collect(settings), output)
    save_trained(model, history, output, describe_retriever)


def make_dataset(pairs: Sequence[Pair], num_negatives: int, weighted: bool, distill: bool = False) -> Dataset:
    """Return the pairs in columns: query, document, negative_1 ..., label.

    Columns have equal length: a pair with fewer hard negatives is padded with its own texts, which
    the label marks for the loss to leave out. The same padding text in several rows would keep them
    out of one batch, since rows of a batch share no text.

    Args:
        pairs: The training pairs.
        num_negatives: Maximum number of hard negatives of a pair; the first ones are taken.
        weighted: Whether the label holds the pairs' weights, or 1 for each.
        distill: Whether the label also holds the pairs' scores.

    Returns:
        A data set with labels as `perspective.training.losses.ranking.RankingLoss` reads them, or
        `DistilledRankingLoss` with `distill`.

    Raises:
        DataError: There are fewer than two pairs, all have weight 0, or a pair to distil has no scores or
            no pair a hard negative.
    """
    from datasets import Dataset

    if len(pairs) < 2:
        raise DataError(f"{len(pairs)} training pair(s): a query needs other pairs' documents as negatives")
    if weighted and not any(pair.weight for pair in pairs):
        raise DataError("every training pair has weight 0: the confidence is 0 everywhere; --no_weighted ignores it")
    n_columns = max(min(len(pair.hard_negatives), num_negatives) for pair in pairs)
    if not n_columns and min(len({pair.document for pair in pairs}), len({pair.query for pair in pairs})) < 2:
        raise DataError("all training pairs share a text: none is another's negative; give pairs of other documents")
    if distill:
        bare = next((pair for pair in pairs if not pair.scores), None)
        if bare is not None:
            raise DataError(f'--distill: the pair of "{bare.query:.40}" has no "scores"; run score_pairs first')
        if not n_columns:
            raise DataError(
                "--distill: there is no hard negative to rank; mine some, and use --num_negatives 3 or more"
            )
    columns: dict[str, list[Any]] = {"query": [pair.query for pair in pairs], "document": [p.document for p in pairs]}
    filled = [list(islice(cycle(pair.hard_negatives[:n_columns] or (pair.document,)), n_columns)) for pair in pairs]
    for place in range(n_columns):
        columns[f"negative_{place + 1}"] = [row[place] for row in filled]
    columns["label"] = [
        [
            pair.weight if weighted else 1.0,
            *(float(place < len(pair.hard_negatives)) for place in range(n_columns)),
            *([*pair.scores, *[0.0] * n_columns][: 1 + n_columns] if distill else ()),
        ]
        for pair in pairs
    ]
    return Dataset.from_dict(columns)


def describe_retriever(output: Output) -> str:
    """Return the model card: data, prompts, settings."""
    taught = " and a reranker's ranking of each query's group" if output.settings.get("distill") else ""
    about = (
        f"trained to retrieve on the pairs of `{output.settings.get('dataset')}`, by InfoNCE over in-batch\n"
        f"and hard negatives{taught}.\n"
    )
    return write_retriever_card(output, about)


def write_retriever_card(output: Output, about: str) -> str:
    """Return the model card of an embedder for search; `about` follows the name of its base."""
    usage = (
        f'model = SentenceTransformer("{output.path.name}")\n'
        'scores = model.similarity(model.encode_query(["a question"]), model.encode_document(["a text", "another"]))'
    )
    return write_card(output, "retrieval", about, usage, output.facts)


def prompts_by_column(model: SentenceTransformer, columns: Sequence[str]) -> Mapping[str, str] | None:
    """Return the prompts of the columns of `make_dataset`, from those of the model; None without any."""
    query, document = model.prompts.get("query") or "", model.prompts.get("document") or ""
    if not query and not document:
        return None
    return {name: query if name == "query" else document for name in columns if name != "label"}
