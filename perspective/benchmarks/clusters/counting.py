"""Compare the estimates of the number of clusters with the number of classes.

The default criterion was chosen by the data sets of `TUNING`; the others confirm.

Reads:  datasets/<dataset>/small.jsonl with labels; the vectors of the untouched embedder and the answer states of
        the LLM, which are made where they are missing
Writes: measures/benchmark_counting.json, shown in docs/clusters.md

python -m perspective.benchmarks.clusters.counting
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perspective.artifacts import dump_json, read_json, read_vectors, write_text
from perspective.benchmarks.stages import run_stage
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings, load_texts
from perspective.description.counting import count_clusters
from perspective.description.settings import CountSettings
from perspective.evaluation.labels import require_labels
from perspective.layout import MEASURES, Layout
from perspective.options import option

TUNING = ("banking77", "stackexchange", "clinc", "massive_scenario", "go_emotion")
CONFIRMATION = ("few_nerd_nat", "mtop_domain", "reddit")


@dataclass(frozen=True)
class CountingSettings:
    """What is compared."""

    datasets: list[str] = option("data sets", default=[*TUNING, *CONFIRMATION], group="input", aliases=("--dataset",))
    data_folder: str | None = option(
        "folder with <dataset>/small.jsonl; default: datasets/ of this repository", default=None, group="input"
    )
    embedder: str = option("the embedder", default="minilm", group="model")
    llm: str = option("the LLM", default="smollm2", group="model")


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Compare."""
    settings = parse_settings(CountingSettings, argv, __doc__)
    path = MEASURES / "benchmark_counting.json"
    results: dict[str, Any] = read_json(path) if path.exists() else {}
    for name in settings.datasets:
        results[name] = measure(name, settings)
        write_text(path, dump_json(results))


def measure(name: str, settings: CountingSettings) -> dict[str, Any]:
    """Return the number of classes of a data set, and what each criterion estimates."""
    given = ["--data_path", str(Path(settings.data_folder) / name / "small.jsonl")] if settings.data_folder else []
    data = ["--dataset", name, *given]
    corpus = parse_settings(CorpusSettings, data)
    layout = Layout(name, "small", settings.embedder, judge=settings.llm)
    if not layout.embeds.exists():
        run_stage("2_finetune.get_embedding", *data, "--embedder", settings.embedder, "--no_measure")
    if not layout.states.exists():
        run_stage("1_predict_triplet.read_states", *data, "--llm", settings.llm)
    texts, labels = load_texts(corpus), require_labels(corpus)
    vectors, states = read_vectors(layout.embeds, len(texts)), read_vectors(layout.states, len(texts))
    count = count_clusters(vectors, texts, states, CountSettings())
    estimates = {
        criterion: {"n_clusters": one.n_clusters, "seconds": one.seconds} for criterion, one in count.estimates.items()
    }
    return {
        "use": "tuning" if name in TUNING else "confirmation",
        "n_texts": len(texts),
        "n_classes": len(set(labels) - {None}),
        "chosen": count.n_clusters,
        "criterion": count.criterion,
        "estimates": estimates,
    }


if __name__ == "__main__":
    main()
