import numpy as np

from perspective.naming import keywords
from perspective.naming.keywords import TermCounts, is_shown, list_terms, split_words
from perspective.naming.prompts import normalize_name

TEXTS = [
    "where is my card", "my card is lost", "i lost the card", "the card was stolen",
    "what is the weather in rome", "the weather is bad", "is it rain or sun", "will the rain stop",
    "play my song", "is the song loud", "play the music", "the music is old",
]  # fmt: skip
CLUSTERS = np.repeat([0, 1, 2], 4)


def test_words_that_all_clusters_use_are_no_keywords():
    counts = TermCounts(TEXTS, CLUSTERS, 3)
    ranked = [counts.rank([cluster]) for cluster in range(3)]
    assert ranked == [["card", "lost"], ["weather", "rain"], ["music", "play", "song"]]


def test_keywords_of_a_branch_are_those_of_its_clusters():
    counts = TermCounts(TEXTS, CLUSTERS, 3)
    words = counts.rank([1, 2])
    assert {"weather", "song"} <= set(words) and "card" not in words


def test_keywords_of_all_texts_are_the_most_common_terms():
    texts = ["my refund is late", "a refund please", "no refund yet", "refund of internationalisation", "refund refund"]
    assert TermCounts(texts, np.zeros(5, dtype=int), 1).rank([0])[0] == "refund"


def test_many_texts_are_counted_by_a_sample_with_some_of_each_cluster(monkeypatch):
    monkeypatch.setattr(keywords, "MAX_COUNTED", 20)
    monkeypatch.setattr(keywords, "MIN_COUNTED", 3)
    clusters = np.repeat([0, 1, -1, 2], [500, 4, 40, 60])
    rows = keywords._choose_counted(clusters, 3)
    counted = clusters[rows]
    assert 20 <= len(rows) < 30 and (np.diff(rows) > 0).all()
    assert all((counted == cluster).sum() >= 3 for cluster in range(3))
    texts = [["card", "rain", "song", "none"][cluster] for cluster in clusters]
    counts = TermCounts(texts, clusters, 3)
    assert [counts.rank([cluster])[0] for cluster in range(3)] == ["card", "rain", "song"]


def test_texts_of_no_cluster_are_background():
    clusters = CLUSTERS.copy()
    clusters[8:] = -1
    words = TermCounts(TEXTS, clusters, 2).rank([1])
    assert "rain" in words and "song" not in words


def test_chinese_japanese_and_korean_give_words():
    texts = ["我的卡丢失了", "银行卡丢失", "卡丢失怎么办", "今天天气很好", "明天天气怎么样", "天气预报"]
    counts = TermCounts(texts, np.repeat([0, 1], 3), 2)
    assert counts.rank([0])[0] == "卡丢失" and counts.rank([1])[0] == "天气"
    korean = [
        "카드를 분실했어요",
        "카드가 없어졌어요",
        "제 카드는 어디",
        "날씨가 좋아요",
        "오늘 날씨는 어때",
        "날씨를 알려줘",
    ]
    counts = TermCounts(korean, np.repeat([0, 1], 3), 2)
    assert counts.rank([0])[0] == "카드" and counts.rank([1])[0] == "날씨"


def test_sentences_of_scripts_without_spaces_are_no_long_words():
    cards = ["ฉันทำบัตรหายเมื่อวานนี้และต้องการบัตรใหม่โดยเร็วที่สุดเพื่อใช้จ่าย", "บัตรของฉันหายไปที่สนามบินและฉันต้องการยกเลิกบัตรทันทีตอนนี้เลย"]
    rain = ["วันนี้ฝนตกหนักมากทั้งวันและพรุ่งนี้ฝนจะตกอีกหรือเปล่าช่วยบอกหน่อย", "พรุ่งนี้ที่กรุงเทพฝนจะตกตอนเช้าหรือตอนเย็นช่วยบอกฉันหน่อยได้ไหม"]
    counts = TermCounts(cards + rain, np.repeat([0, 1], 2), 2)
    ranked = [counts.rank([cluster]) for cluster in range(2)]
    assert "บัตร" in ranked[0] and "ฝนจะ" in ranked[1]  # card, and "rain will"
    assert max(len(term) for words in ranked for term in words) <= 4


def test_combining_marks_stay_in_their_words():
    assert split_words("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]
    assert normalize_name("काल") != normalize_name("कील")


def test_texts_without_words_have_no_keywords():
    counts = TermCounts(["!!!", "🙂", "…", "?"], np.array([0, 0, 1, 1]), 2)
    assert counts.rank([0]) == [] and counts.find_phrases(["!!!"], []) == []
    assert TermCounts(["", ""], np.array([0, 0]), 1).rank([0]) == []


def test_a_cluster_of_one_text_has_keywords():
    texts = [*TEXTS, "unblock pin"]
    words = TermCounts(texts, np.array([*CLUSTERS, 3]), 4).rank([3])
    assert set(" ".join(words).split()) == {"unblock", "pin"}


def test_a_pair_replaces_its_words():
    texts = ["exchange rate today", "the exchange rate", "exchange rate now", "my card", "lost card", "new card"]
    words = TermCounts(texts, np.repeat([0, 1], 3), 2).rank([0])
    assert words[0] == "exchange rate" and not {"exchange", "rate"} & set(words[1:])


def test_phrases_hold_keywords_and_begin_and_end_with_content():
    texts = [
        *("how do i verify my identity", "verify my identity please", "to verify my identity now"),
        *("how do i play my song", "to play my music", "please play my song now"),
    ]
    counts = TermCounts(texts, np.repeat([0, 1], 3), 2)
    phrases = counts.find_phrases(texts[:3], counts.rank([0]))
    assert phrases == ["verify my identity"]
    assert counts.trim("to verify identity") == "verify identity" and counts.trim("to my") == "to my"


def test_long_addresses_and_control_characters_are_no_terms():
    terms = set(list_terms(f"see {'x' * 60} a\x00b"))
    assert "see" in terms and not any("x" * 60 in term or "\x00" in term for term in terms)


def test_contractions_are_not_shown():
    assert not is_shown("i didn't") and is_shown("l'eau")
