"""run.sh on texts of one's own, with the real packaged models: an LLM that is trusted, rounds, scripts of the world."""

import csv
import random
import unicodedata

import numpy as np
import pytest
from helpers import run_bash, run_stage, write_jsonl

from perspective.artifacts import read_json, read_record

pytestmark = [pytest.mark.slow, pytest.mark.real]

THINGS = (
    *("train", "phone", "soup", "exam", "flat", "final", "speech", "update", "garden", "letter", "dentist", "dog"),
    *("concert", "hotel", "interview", "play", "driver", "kitchen", "boat", "museum", "bicycle", "bill", "cake"),
    *("shift", "parcel", "lamp", "choir", "neighbour", "printer", "market", "blanket", "mountain", "ticket", "bridge"),
)
PLACES = (
    *("at work", "in Oslo", "by the lake", "at school", "on the third floor", "near the church", "in our village"),
    *("next to the bank", "on the island", "at my aunt's", "in the old town", "behind the station", "down the road"),
)
EMOTIONS = {
    "joy": ("I could not stop smiling", "I am so happy", "I was over the moon", "I laughed with joy"),
    "anger": ("I am furious", "it makes my blood boil", "I was so angry I shouted", "I am sick of it and mad"),
    "fear": ("I was terrified", "I am so scared", "my hands were shaking with fear", "it frightens me"),
    "sadness": ("I cried all evening", "I feel so sad", "my heart is broken", "it leaves me miserable"),
}
FORMS = ("About {thing}: {feeling}.", "{Feeling}, all because of {thing}.", "{Feeling} when I think of {thing}.")


def run(repository, *command, environment=None):
    code, shown, log = run_bash(repository, *command, environment=environment)
    assert code == 0, log
    assert "Traceback" not in log
    return shown, log


def write_feelings(path, n_texts=200):
    """Texts about many things, each with one of four emotions: things are what the embedder sees first."""
    rng = random.Random(0)
    records = []
    for _ in range(n_texts):
        emotion = rng.choice(list(EMOTIONS))
        feeling = rng.choice(EMOTIONS[emotion])
        thing = f"the {rng.choice(THINGS)} {rng.choice(PLACES)}"
        text = rng.choice(FORMS).format(thing=thing, feeling=feeling, Feeling=feeling[0].upper() + feeling[1:])
        records.append({"input": text, "label": emotion})
    return write_jsonl(path, records)


def test_a_sample_is_adapted_on_by_an_llm_that_knows_the_perspective_in_two_rounds(repository, tmp_path):
    texts = write_feelings(tmp_path / "feelings.jsonl")
    options = ("--data_path", texts, "--perspective", "emotion", "--adapt_on", 180, "--rounds", 2)
    shown, log = run(repository, "scripts/run.sh", "--no_describe", *options)
    measures, after = repository / "measures", repository / "after_measures"
    stage2 = repository / "perspective" / "2_finetune"
    before = measures / "feelings_n=180_small_embeds_minilm.npy"
    first = after / "feelings_n=180_small_embeds_minilm-smollm2_seed=100.npy"
    teacher = stage2 / "converted_triplet_results" / "feelings_n=180_small_minilm-smollm2-teacher.npy"
    checkpoint = stage2 / "checkpoints" / "feelings_n=180_small_minilm-smollm2_seed=100"
    assert read_record(teacher).llm_weight > 0 and read_record(checkpoint).llm_weight > 0
    assert not read_record(checkpoint).unchanged

    # The LLM made a difference to what was learnt, and the embedder learnt it.
    here = ("--feat_path", before, "--output_path", tmp_path)
    run_stage("convert_states", "--dataset", "feelings_n=180", "--by_embedder", *here)
    alone = np.load(tmp_path / "feelings_n=180_small_minilm-self-teacher.npy")
    vectors = {path: np.load(path) for path in (before, teacher, first)}
    assert vectors[teacher].shape == alone.shape and np.abs(vectors[teacher] - alone).max() > 0.1
    assert np.abs(vectors[first] - vectors[before]).max() > 0.1
    to_teacher = [(rows * vectors[teacher]).sum(axis=1).mean() for rows in (vectors[before], vectors[first])]
    assert to_teacher[1] > to_teacher[0]
    scores = [read_json(path.with_name(f"{path.stem}_measures.json")) for path in (before, first)]
    assert scores[1]["NMI_mean"] > scores[0]["NMI_mean"] + 5
    assert "feelings_n=180" in shown and "unchanged" not in shown

    # The second round starts from the first one's embedder, and reads no text with the LLM again.
    assert "== round 2 of feelings_n=180" in log
    assert "answer_states/feelings_n=180_small-smollm2.npy: already made from the same inputs and settings" in log
    again = measures / "feelings_n=180_small_embeds_minilm-smollm2_seed=100.npy"
    np.testing.assert_array_equal(np.load(again), vectors[first])
    second = after / "feelings_n=180_small_embeds_minilm-smollm2_seed=100-smollm2_seed=100.npy"
    assert np.abs(np.load(second) - vectors[first]).max() > 1e-3

    # All of this with a sample; in the end all texts are embedded.
    assert len(vectors[before]) == 180
    assert len(np.load(after / f"feelings_small_embeds_{checkpoint.name}-smollm2_seed=100.npy")) == 200


WORLD = {
    "배송": (
        "택배가 아직 안 왔어요",
        "배송이 너무 늦어요 🐢",
        "주문한 물건이 언제 도착하나요?",
        "배달 기사님이 친절해요",
    ),
    "환불": ("환불해 주세요", "돈을 돌려받고 싶어요 💸", "반품은 어떻게 하나요?", "결제가 두 번 됐어요"),
    "الشحن": ("لم تصل الشحنة بعد", "متى يصل طلبي؟ 📦", "التوصيل بطيء جدا", "المندوب كان لطيفا"),
    "الاسترداد": ("أريد استرداد المال", "كيف أعيد المنتج؟", "تم الخصم مرتين 😡", "أعيدوا لي نقودي"),
    "发货": ("快递还没到", "我的订单什么时候发货？", "配送太慢了 🐌", "送货员很好"),
    "退款": ("我要退款", "怎么退货？", "被扣了两次钱 😡😡", "请把钱还给我"),
    "emoji": ("📦🐢🐢", "💸💸💸", "😡📦", "👍👍🏽"),
}


def test_texts_in_scripts_of_the_world(repository, tmp_path):
    """A table with names and columns in Korean, 28 texts in Korean, Arabic, Chinese and emoji, through all stages."""
    texts = [(text, kind) for kind, texts in WORLD.items() for text in texts]
    path = tmp_path / "고객 문의 😀.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("본문", "갈래"), *texts])
    data, columns = ("--data_path", path, "--text_column", "본문"), ("--label_column", "갈래")
    shown, _ = run(repository, "scripts/run.sh", "--no_describe", *data, *columns, "--perspective", "주제")
    name = "고객_문의__"
    assert name in shown
    stage1, stage2 = repository / "perspective" / "1_predict_triplet", repository / "perspective" / "2_finetune"
    for script in ("triplet_sampling.sh", "predict_triplet.sh"):
        run(repository, stage1 / "scripts" / script, *data, environment={"DATASETS": name, "MAX_QUERY": "12"})
    triplets = f"{name}_small_minilm_m=12_seed=100"
    sampled = read_json(stage1 / "sampled_triplet_results" / f"{triplets}.json")
    judged = read_json(stage1 / "predicted_triplet_results" / f"{triplets}-smollm2-pred.json")
    assert len(sampled) == len(judged) > 0
    for record in sampled:
        assert all(texts[record[place]][0] in record["input"] for place in ("query_idx", "choice1_idx", "choice2_idx"))
    states = np.load(stage1 / "answer_states" / f"{name}_small-smollm2.npy")
    assert len(states) == len(texts) and np.isfinite(states).all()
    assert len(np.unique(states.round(3), axis=0)) == len(texts)  # byte by byte, each text is read as itself
    checkpoint = stage2 / "checkpoints" / f"{name}_small_minilm-smollm2_seed=100"
    assert name in (checkpoint / "README.md").read_text(encoding="utf-8")
    for folder, part in (("measures", "minilm"), ("after_measures", "minilm-smollm2_seed=100")):
        measures = read_json(repository / folder / f"{name}_small_embeds_{part}_measures.json")
        assert measures["n_clusters"] == len(WORLD) and len(measures["ACC"]) == 5
    made = [one.name for one in repository.rglob("*") if name in unicodedata.normalize("NFC", one.name)]
    assert made and all(one == unicodedata.normalize("NFC", one) for one in made)
