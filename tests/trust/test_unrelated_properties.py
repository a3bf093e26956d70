"""A real LLM whose answer states group the texts by something that nobody asked for."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score

from perspective.artifacts import Output
from perspective.llm.loading import load_llm
from perspective.models.embedders import load_embedder
from perspective.models.embedding import embed_texts
from perspective.teacher.states import read_states, write_control_questions
from perspective.teacher.teacher import TeacherEvidence, TeachSettings, make_teacher

DEMO = Path(__file__).parents[2] / "datasets/demo/small.jsonl"
FRAMES = {
    "language": (
        "{}",
        "Hallo, ich habe eine Frage an Sie: {} Vielen Dank für Ihre Hilfe.",
        "Buenos días, tengo una pregunta para ustedes: {} Muchas gracias por su ayuda.",
    ),
    "length": (
        "{}",
        "{} Please take your time, there is no hurry at all, I can wait until next week.",
        "{} I have used this service for years, and was always content with it. I live near the station, and come by "
        "on most days. My sister and two of my neighbours use it, too.",
    ),
    "register": (
        "{}",
        "Dear Sir or Madam, I am writing to you about the following matter. {} Yours faithfully,",
        "yo lol {} thx m8 plz hurry up!!!",
    ),
}


def cluster_nmi(rows, kinds):
    runs = (KMeans(kinds.max() + 1, n_init=10, random_state=seed).fit_predict(rows) for seed in range(3))
    return 100 * np.mean([normalized_mutual_info_score(kinds, clusters) for clusters in runs])


@pytest.mark.real
def test_language_length_and_register_do_little_harm(tmp_path):
    """120 real messages of 12 intents, each in one of three frames that have nothing to do with its intent."""
    lines = [json.loads(line) for line in DEMO.read_text(encoding="utf-8").splitlines()][::3]
    kinds = np.unique([line["label"] for line in lines], return_inverse=True)[1]
    frames_of = np.random.default_rng(0).integers(0, 3, len(lines))
    framed = {
        name: [frames[frame].format(line["input"]) for frame, line in zip(frames_of, lines, strict=True)]
        for name, frames in FRAMES.items()
    }
    output = Output(tmp_path / "states.npy", "answer states", {}, {})
    questions = write_control_questions("intent")
    states = read_states(load_llm("smollm2"), sum(framed.values(), []), questions, output)
    embedder = load_embedder("minilm", device="cpu", reading=True)
    for name, texts, rows in zip(framed, framed.values(), np.split(states, len(framed)), strict=True):
        asked, *others = np.split(rows, len(questions), axis=1)
        vectors = embed_texts(embedder, texts)
        alone = make_teacher(vectors, TeacherEvidence(), TeachSettings())
        teacher = make_teacher(vectors, TeacherEvidence(asked, (asked, *others)), TeachSettings())
        # The states do show the property, more than the intents.
        assert cluster_nmi(asked, frames_of) > cluster_nmi(asked, kinds), name
        best = max(cluster_nmi(one, kinds) for one in (vectors, alone.vectors))
        assert cluster_nmi(teacher.vectors, kinds) > best - 5, name
        assert teacher.trust.weight < 0.8, name
