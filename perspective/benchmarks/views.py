"""Compare other ways to read an LLM, to make a teacher of it and to cluster, without training.

Each teacher is clustered and measured like an embedder; on tuning sets only. What differs from the method is one thing:

several wordings     five questions in place of one, each half-whitened, their cosines averaged
fewer layers         the states after 85% of the layers
late layers          the states after 80%, 90% and all of the layers, half-whitened, their cosines averaged
middle directions    not half-whitened: the middle half of the unembedding matrix's directions (EmbedFilter: Wu et al.,
                     2026, arXiv:2606.07502)
own examples         before each text, in place of the four fixed examples, eight of these texts, the nearest to the
                     centres of eight clusters, with labels that the LLM wrote
written labels       the LLM writes a label, and the embedder's vector of it is the LLM's view
labels beside texts  the LLM writes a label by each of three questions, and the mean of the embedder's vectors of these
                     is added to its vector of the text
pulled to clusters   the method's teacher, each vector moved half-way to the centre of its cluster (Ward's, of fifteen
                     texts on average, on 50 directions)
places in the graph  beside the method's teacher, at two thirds of its weight, where four steps of a walk over its graph
                     of neighbours lead (a diffusion map: Coifman & Lafon, 2006, in random directions)
starts at names      the method's teacher; its clusters are named by the LLM, and k-means goes on from half-way between
                     their centres and the embedder's vectors of their names

Reads:  datasets/<dataset>/small.jsonl with labels; the study's vectors and answer states, made if they are not there
Writes: measures/benchmark_views.json, after each teacher; those that are there are kept

python -m perspective.benchmarks.views --datasets banking77 stackexchange
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from perspective.artifacts import dump_json, read_json, read_record, read_vectors, write_text
from perspective.benchmarks.clusters.naming import name_found
from perspective.benchmarks.quality import score_vectors
from perspective.benchmarks.study_run import StudyOptions, StudyRun
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import load_texts
from perspective.errors import require_known
from perspective.evaluation.clustering_scores import METRICS, cluster_labelled, score_clusterings
from perspective.evaluation.labels import require_labels
from perspective.judging.protocol import choose_wording
from perspective.layout import study_folder
from perspective.llm.batching import batch_by_length, choose_limit
from perspective.llm.chat import tokenize_beginning, tokenize_continuations
from perspective.llm.loading import load_llm
from perspective.llm.writing import AnswerWriter
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_texts
from perspective.naming.llm import LocalNamer
from perspective.naming.prompts import Ask
from perspective.options import option
from perspective.teacher.graph import connect_neighbors, diffuse
from perspective.teacher.states import EXAMPLES, StateReader, write_question
from perspective.teacher.teacher import GATE_WEIGHT, blend_views
from perspective.vectors import average_by_cluster, center_rows, half_whiten, keep_directions, normalize_rows

if TYPE_CHECKING:
    from scipy import sparse

logger = logging.getLogger(__name__)

# Beside the method's own.
WORDINGS = ("the {} of this text", "{} in one word", "category ({})", "best label for the {}")
FEWER = 0.85  # share of the layers that are read
LAYERS = (0.8, 0.9)  # the same, beside all
TEXTS_PER_CLUSTER = 15
N_DIRECTIONS = 50  # on which Ward's clusters are found
N_EXAMPLES = 8
LABEL_TOKENS = 8
N_LABELS = 3
PLACE_WEIGHT = 2 / 3
PLACE_STEPS = 4
PLACE_DIRECTIONS = 768


@dataclass(frozen=True)
class ViewSettings(StudyOptions):
    """What is measured."""

    datasets: list[str] = option(
        "data sets", default=["banking77", "massive_scenario", "stackexchange"], group="input", aliases=("--dataset",)
    )
    views: list[str] | None = option(
        'rows of the above, such as "the method" "own examples"; default all', default=None
    )

    def __post_init__(self) -> None:
        """Check values."""
        require_known("views", self.views or [], VIEWS)


class ViewReader:
    """Makes the teachers of one data set; no label is read."""

    def __init__(self, run: StudyRun) -> None:
        self._run = run
        self.corpus = run.corpus
        self._texts = load_texts(run.corpus)
        self._perspective = choose_wording(run.dataset).perspective
        self._vectors = read_vectors(run.embed(), len(self._texts))
        self._states = read_vectors(run.read_states(), len(self._texts))
        self.weight = read_record(run.teach()).llm_weight or 0.0

    def make_teacher(self, view: np.ndarray) -> np.ndarray:
        """Return the teacher of a view of unit rows, at the weight of the method, `(n_texts, dim)`."""
        return diffuse(*self._connect(view))

    def _connect(self, view: np.ndarray, rows: np.ndarray | None = None) -> tuple[np.ndarray, sparse.csr_matrix]:
        rows = center_rows(self._vectors) if rows is None else rows
        blended = blend_views(rows, view, self.weight)
        return blended, connect_neighbors(blended, rows, view, max(self.weight, GATE_WEIGHT))

    def make_method(self) -> np.ndarray:
        """Return the method's teacher."""
        return self.make_teacher(half_whiten(self._states))

    def read_wordings(self) -> np.ndarray:
        """Return the teacher of five questions."""
        questions = [write_question(wording.format(self._perspective)) for wording in WORDINGS]
        states = StateReader(load_llm(self._run.settings.llm), questions)(self._texts)
        return self.make_teacher(_average([self._states, *np.split(states, len(questions), axis=1)]))

    def read_fewer_layers(self) -> np.ndarray:
        """Return the teacher of states after fewer layers."""
        return self.make_teacher(half_whiten(self._read_after(FEWER)))

    def read_layers(self) -> np.ndarray:
        """Return the teacher of states after fewer layers and of the method's."""
        return self.make_teacher(_average([self._states, *map(self._read_after, LAYERS)]))

    def _read_after(self, share: float) -> np.ndarray:
        """Return the states after a share of the layers, `(n_texts, hidden)`."""
        llm = load_llm(self._run.settings.llm)
        body = llm.body
        n_layers = round(share * len(body.layers))
        body.layers = body.layers[:n_layers]
        body.config.num_hidden_layers = n_layers
        return StateReader(llm, [write_question(self._perspective)])(self._texts)

    def filter_directions(self) -> np.ndarray:
        """Return the teacher of states in the middle half of the unembedding matrix's directions."""
        weights = load_llm(self._run.settings.llm).model.get_output_embeddings().weight.detach().double().cpu().numpy()
        directions = np.linalg.eigh(weights.T @ weights)[1]
        quarter = directions.shape[1] // 4
        return self.make_teacher(center_rows(self._states @ directions[:, quarter:-quarter].astype(np.float32)))

    def read_after_own(self) -> np.ndarray:
        """Return the teacher of states after examples that the LLM wrote."""
        from sklearn.cluster import KMeans
        from sklearn.metrics import pairwise_distances_argmin

        rows, question = center_rows(self._vectors), write_question(self._perspective)
        centers = KMeans(N_EXAMPLES, n_init=10, random_state=0).fit(rows).cluster_centers_
        typical = [self._texts[place] for place in pairwise_distances_argmin(centers, rows)]
        examples = [
            f"Text: {text}{question} {label}\n\n"
            for text, label in zip(typical, self._write(question, typical), strict=True)
        ]
        logger.info("%s: examples: %s", self._run.dataset, examples)
        reader = StateReader(load_llm(self._run.settings.llm), [question], examples="".join(examples))
        return self.make_teacher(half_whiten(reader(self._texts)))

    def write_labels(self) -> np.ndarray:
        """Return the teacher in which the embedder's vector of a written label is the LLM's view."""
        return self.make_teacher(center_rows(self._label(write_question(self._perspective))))

    def add_labels(self) -> np.ndarray:
        """Return the teacher of texts whose vectors are averaged with those of their written labels."""
        wordings = (self._perspective, *(wording.format(self._perspective) for wording in WORDINGS[: N_LABELS - 1]))
        labels = normalize_rows(np.sum([self._label(write_question(wording)) for wording in wordings], axis=0))
        rows = center_rows(normalize_rows(normalize_rows(self._vectors) + labels))
        return diffuse(*self._connect(half_whiten(self._states), rows))

    def _label(self, question: str) -> np.ndarray:
        """Return the embedder's vectors of the labels that the LLM writes, unit rows `(n_texts, dim)`."""
        labels = self._write(question, self._texts)
        logger.info("%s: written labels, the first ten: %s", self._run.dataset, labels[:10])
        return normalize_rows(embed_texts(load_embedder(self._run.settings.embedder, reading=True), labels))

    def _write(self, question: str, texts: Sequence[str]) -> list[str]:
        """Return the label that the LLM writes of each text."""
        llm = load_llm(self._run.settings.llm)
        rows, _ = StateReader(llm, [question]).arrange(texts)
        head = tokenize_beginning(llm.tokenizer, f"{EXAMPLES}Text:")
        (tail,) = tokenize_continuations(llm.tokenizer, [question])
        writer = AnswerWriter(llm, LABEL_TOKENS, {"n_prompts": 0, "n_tokens": 0}, stop="\n")
        writer.begin(head)
        labels = [""] * len(rows)
        for batch in batch_by_length(range(len(rows)), rows.__getitem__, choose_limit(llm, None)):
            written = writer.write([[*head, *rows[place].tolist(), *tail] for place in batch])
            replies = llm.tokenizer.batch_decode(written, skip_special_tokens=True)
            for place, reply in zip(batch, replies, strict=True):
                labels[place] = reply.split("\n")[0].strip()
        return labels

    def pull_to_clusters(self) -> np.ndarray:
        """Return the method's teacher, moved half-way to the centres of its clusters."""
        from sklearn.cluster import AgglomerativeClustering

        teacher = center_rows(self.make_method())
        n_clusters = max(2, len(teacher) // TEXTS_PER_CLUSTER)
        clusters = AgglomerativeClustering(n_clusters, linkage="ward").fit_predict(
            keep_directions(teacher, N_DIRECTIONS)
        )
        centers = normalize_rows(average_by_cluster(teacher, clusters, n_clusters))
        return normalize_rows(teacher + centers[clusters])

    def add_places(self) -> np.ndarray:
        """Return the method's teacher with each text's place in the graph beside it."""
        blended, graph = self._connect(half_whiten(self._states))
        # Random rows are nearly orthogonal: after the steps, the cosine of two texts says how far their walks overlap.
        places = np.random.default_rng(0).standard_normal((len(blended), PLACE_DIRECTIONS), dtype=np.float32)
        for _ in range(PLACE_STEPS):
            places = graph @ places
        return np.hstack([center_rows(diffuse(blended, graph)), PLACE_WEIGHT * normalize_rows(places)])

    def start_at_names(self) -> np.ndarray:
        """Return the classes, and clusterings of the method's teacher that begin at names, `(1 + n_seeds, n_texts)`.

        Raises:
            DataError: There are no labels, whose number of classes is that of clusters.
        """
        from sklearn.cluster import KMeans

        labels, teacher = require_labels(self.corpus), self.make_method()
        embed = partial(embed_texts, load_embedder(self._run.settings.embedder, reading=True))
        namer = LocalNamer(load_llm(self._run.settings.llm), self._perspective)
        clusterings = cluster_labelled(teacher, labels)
        for place, found in enumerate(clusterings[1:], start=1):
            names = name_found(teacher, self._texts, found, embed, partial(_write_names, namer), namer.is_chat)
            centers = average_by_cluster(teacher, found, len(names))[[name.id for name in names]]
            starts = normalize_rows(centers) + normalize_rows(embed([name.name for name in names]))
            clusterings[place] = KMeans(len(names), init=normalize_rows(starts), n_init=1).fit_predict(teacher)
        return clusterings


NAMED = "starts at names"  # another way to cluster, not another teacher
VIEWS: dict[str, Callable[[ViewReader], np.ndarray]] = {
    "the method": ViewReader.make_method,
    "several wordings": ViewReader.read_wordings,
    "fewer layers": ViewReader.read_fewer_layers,
    "late layers": ViewReader.read_layers,
    "middle directions": ViewReader.filter_directions,
    "own examples": ViewReader.read_after_own,
    "written labels": ViewReader.write_labels,
    "labels beside texts": ViewReader.add_labels,
    "pulled to clusters": ViewReader.pull_to_clusters,
    "places in the graph": ViewReader.add_places,
    NAMED: ViewReader.start_at_names,
}


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Measure."""
    settings = parse_settings(ViewSettings, argv, __doc__)
    folder = study_folder(settings.embedder, settings.llm, "benchmark_views", settings.output_path)
    path = folder.with_name(f"{folder.name}.json")
    results: dict[str, Any] = read_json(path) if path.exists() else {}
    get_reader = cache(lambda dataset: ViewReader(StudyRun(dataset, settings)))
    for name in settings.views or VIEWS:
        for dataset in settings.datasets:
            if name in results.setdefault(dataset, {}) and not settings.overwrite:
                continue
            reader = get_reader(dataset)
            made = VIEWS[name](reader)
            scores = score_clusterings(made, made.shape[1]) if name == NAMED else score_vectors(made, reader.corpus)
            results[dataset][name] = {**{metric: scores[metric] for metric in METRICS}, "weight": reader.weight}
            write_text(path, dump_json(results))
            means = [np.mean(scores[metric]) for metric in ("ACC", "NMI")]
            logger.info("%s, %s: ACC %.2f NMI %.2f", dataset, name, *means)


def _write_names(namer: LocalNamer, asks: Sequence[Ask]) -> list[str]:
    return [reply for _, reply in sorted(namer.reply(asks))]


def _average(views: Sequence[np.ndarray]) -> np.ndarray:
    """Return unit rows whose cosines are the mean of the half-whitened views' cosines."""
    return normalize_rows(np.hstack([half_whiten(view) for view in views]))


if __name__ == "__main__":
    main()
