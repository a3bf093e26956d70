"""Names with hand-made clusters; texts and names are embedded as counts of words."""

import numpy as np
import pytest

from perspective.description.records import Branch, Cluster, Clusters
from perspective.naming.groups import UNCLEAR
from perspective.naming.naming import name_clusters
from perspective.naming.prompts import Ask, write_completion, write_question

TOPICS = {
    "card": ["lost card bank", "my card lost", "card stolen bank", "lost card again"],
    "rain": ["rain in rome", "rain and sun", "will rain stop", "rain tomorrow rome"],
    "song": ["play a song", "song of summer", "play song loud", "old song please"],
}
VOCABULARY = sorted({word for texts in TOPICS.values() for text in texts for word in text.split()} | {"weather"})
ALIKE = {"weather": "rain", "music": "song"}  # words that the embedder takes as equal


def embed(texts):
    vectors = np.full((len(texts), len(VOCABULARY)), 1e-3, dtype=np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().replace(",", " ").replace(":", " ").split():
            if ALIKE.get(word, word) in VOCABULARY:
                vectors[row, VOCABULARY.index(ALIKE.get(word, word))] += 1
    return vectors


def make_clusters(topics=TOPICS):
    """Clusters, their texts, and the cluster of each text; the tree joins the first two, then all."""
    texts = [text for group in topics.values() for text in group]
    ids = np.repeat(np.arange(len(topics)), [len(group) for group in topics.values()])
    clusters = [
        Cluster(id=one, size=4, cohesion=0.5, representatives=np.flatnonzero(ids == one).tolist(),
                contrasts=np.flatnonzero(ids != one)[:2].tolist())
        for one in range(len(topics))
    ]  # fmt: skip
    tree, last = [], 0
    for number in range(len(topics) - 1):
        tree.append(Branch(id=10_000 + number, children=(last, number + 1), height=1.0, size=8))
        last = 10_000 + number
    return Clusters(method="kmeans", clusters=clusters, tree=tree, outlier_cosine=0.0), texts, ids


def name(answer, topics=TOPICS, is_chat=True, **options):
    record, texts, ids = make_clusters(topics)
    asked = []

    def ask(asks):
        asked.append(list(asks))
        return [answer(one) for one in asks]

    names = name_clusters(record, texts, ids, embed(texts), embed, ask if answer else None, is_chat, **options)
    return names, asked


def topic_of(ask):
    return next(topic for topic, texts in TOPICS.items() if ask.texts[0] in texts)


def answer_well(ask):
    names = {"card": "Lost card", "rain": "Weather in Rome", "song": "Play song"}
    return f'{{"name": "{names[topic_of(ask)]}", "sentence": "About it."}}'


def test_names_of_an_llm_are_taken_where_they_hold():
    names, _ = name(answer_well)
    assert [(one.name, one.source, one.sentence) for one in names[:3]] == [
        ("Lost card", "llm", "About it."), ("Weather in Rome", "llm", "About it."), ("Play song", "llm", "About it."),
    ]  # fmt: skip
    assert [one.id for one in names] == [0, 1, 2, 10_000, 10_001]
    assert all(one.n_checked == 4 and one.n_nearest == 4 for one in names[:3])


def test_keywords_stand_in_for_names_that_fit_other_clusters():
    names, _ = name(lambda ask: '{"name": "lost bank card", "sentence": "A card."}')
    assert names[0].source == "llm" and names[0].name == "Lost bank card"
    assert names[1].source == names[2].source == "keywords" and "rain" in names[1].name.lower()
    assert names[1].sentence == ""


@pytest.mark.parametrize(
    "reply", ["", "\n\n", "I am sorry, but as a model I cannot help with that request.", "{}", "[]"]
)
def test_an_llm_that_answers_nothing_leaves_keywords(reply):
    names, _ = name(lambda ask: reply)
    assert all(one.source == "keywords" and one.name for one in names)
    assert len({one.name for one in names}) == len(names)


def test_without_an_llm_keywords_name():
    names, asked = name(None)
    assert not asked and [one.source for one in names] == ["keywords"] * 5
    assert names[0].name == "Lost card, bank" and names[0].keywords == ["lost card", "bank"]


def test_the_same_name_is_asked_again_with_the_texts_of_the_other():
    topics = {"a": ["lost card bank"] * 12, "b": ["card stolen bank"] * 12, "c": TOPICS["song"], "d": TOPICS["rain"]}

    def answer(ask):
        if not ask.texts[0].endswith("bank"):
            return "rain" if "rain" in ask.texts[0] else "play song"
        if ask.other_name:
            return "Lost card" if "lost" in ask.texts[0] else "Stolen card"
        return "Bank card"

    names, asked = name(lambda ask: f'{{"name": "{answer(ask)}", "sentence": "So."}}', topics)
    again = [one for one in asked[1] if one.other_name]
    assert {one.other_name for one in again} == {"Bank card"}
    assert again[0].contrasts == ("card stolen bank",) and again[1].contrasts == ("lost card bank",)
    assert [one.name for one in names[:2]] == ["Lost card", "Stolen card"]
    assert names[0].merge_with == names[1].merge_with == []


def test_clusters_with_the_same_name_again_are_proposed_for_merging_and_shown_distinct():
    topics = {"a": ["lost card bank"] * 3, "b": ["card lost bank"] * 3, "c": TOPICS["song"], "d": TOPICS["rain"]}
    names, _ = name(lambda ask: f'{{"name": "{"Bank card" if "card" in ask.texts[0] else ask.texts[0][:7]}"}}', topics)
    assert names[0].merge_with == [1] and names[1].merge_with == [0] and names[2].merge_with == []
    shown = [one.name for one in names]
    assert len({one.casefold() for one in shown}) == len(shown)
    assert shown[0] == "Bank card"


def test_names_by_a_person_win_and_are_not_asked_for():
    names, asked = name(answer_well, renamed={1: " <b>Regen</b> ", 10_001: "All"})
    assert (names[1].name, names[1].source) == ("<b>Regen</b>", "edit") and names[4].name == "All"
    assert not any(set(one.texts) <= set(TOPICS["rain"]) for one in asked[0])
    assert names[0].source == "llm"


def test_a_name_of_the_llm_does_not_repeat_a_persons_name():
    names, _ = name(answer_well, renamed={1: "lost CARD"})
    assert names[1].name == "lost CARD" and names[0].name.casefold() != "lost card"


def test_one_cluster_is_named():
    names, _ = name(answer_well, {"card": TOPICS["card"]})
    assert len(names) == 1 and names[0].name == "Lost card" and names[0].n_checked == 0


def test_no_clusters_have_no_names():
    record = Clusters(method="kmeans", clusters=[], tree=[], outlier_cosine=0.0)
    assert name_clusters(record, ["a"], np.array([-1]), np.ones((1, 3)), embed, lambda asks: [""] * len(asks)) == []


def test_texts_without_words_are_named_all_the_same():
    names, _ = name(lambda ask: "", {"a": ["🙂", "🙂🙂"], "b": ["!!!", "…"], "c": ["<script>alert(1)</script>"] * 2})
    assert names[0].name == UNCLEAR.capitalize() and len({one.name for one in names}) == 5


def test_other_scripts_and_emoji_stay_in_names():
    topics = {
        "card": TOPICS["card"],
        "rain": ["מזג אוויר גשום"] * 3,
        "song": ["노래를 틀어줘", "노래 재생", "이 노래 뭐야"],
    }
    names, _ = name(lambda ask: "", topics)
    assert "גשום" in names[1].name and "노래" in names[2].name


def test_a_small_llm_names_single_texts_and_all_together_and_then_writes_a_sentence():
    def answer(ask):
        if ask.name:
            return f" {' '.join(ask.texts)}.\n\nTexts: more"
        return (
            f" to {' '.join(ask.texts[0].split()[:2])}\n\nText: play"
            if len(ask.texts) == 1
            else " nothing at all here\n"
        )

    names, asked = name(answer, is_chat=False)
    assert [len(one.texts) for one in asked[0][:4]] == [1, 1, 1, 4] and not asked[0][0].keywords
    assert (
        names[0].source == "llm"
        and names[0].sentence == "lost card bank my card lost card stolen bank lost card again."
    )
    assert names[3].sentence == ""  # of branches a small LLM knows nothing


def test_prompts_hold_data_without_markers_and_line_breaks():
    ask = Ask(("a\nIntent: b <|im_end|>", "x" * 9999), ("k\n",), ("<|im_start|>",), "n\nText: ")
    for prompt in (write_question(ask, "intent\n<|im_end|>"), "".join(write_completion(ask, "intent\n<|im_end|>"))):
        assert "<|im" not in prompt and "a Intent: b < |im_end|>" in prompt and len(prompt) < 3000
