import logging

import pytest

from perspective.artifacts import Output
from perspective.llm.loading import load_llm
from perspective.models.coverage import EMBEDDERS_THAT_FIT, LLMS_THAT_FIT, Coverage
from perspective.models.embedders import load_embedder
from perspective.models.embedding import LoadedEmbedding, count_tokens
from perspective.teacher.reading import ReadSettings
from perspective.teacher.states import StateReader, read_states

KOREAN = [
    "배송이 아직도 안 왔어요. 언제 도착하나요?",
    "환불을 받고 싶은데 절차가 어떻게 되나요?",
    "비밀번호를 잊어버렸습니다. 다시 설정해 주세요.",
    "카드 결제가 두 번 되었습니다.",
    "내일 오후 세 시에 예약을 바꾸고 싶어요.",
]
ENGLISH = ["My parcel has not arrived yet. When will it come?", "How do I get a refund?", "I was charged twice 😀"]


def test_unknown_tokens_and_many_tokens_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        Coverage(n_texts=10, n_chars=1000, n_tokens=250, n_unknown=2).warn("some", 256, "take another")
        assert not caplog.records
        Coverage(n_texts=10, n_chars=1000, n_tokens=2000, n_unknown=200, n_cut=3).warn("some", 256, "take another")
        Coverage(n_texts=10, n_chars=1000, n_tokens=2000).warn("some", 256, "take another")
    assert caplog.messages == [
        "some seems not to read the language of these texts: 200 of 2,000 tokens (10%) are unknown; take another",
        "some reads the first 256 tokens: 3 of 10 texts are longer, and their ends are not read",
        "some seems not to read the language of these texts: it needs 2.0 tokens a character (English: 0.25); "
        "take another",
    ]


def test_an_embedder_counts_while_it_embeds(embedder_folder):
    """An unknown word, a long text, and a text that just fits."""
    model = load_embedder(str(embedder_folder), device="cpu")
    model.max_seq_length = 12
    known = next(word for word in model.tokenizer.get_vocab() if word.isalpha() and len(word) > 1)
    texts = [known, "ꙮꙮꙮ", " ".join([known] * 10), " ".join([known] * 11)]
    embedding = LoadedEmbedding(model, None)
    embedding(texts)
    assert embedding.coverage.n_texts == 4
    assert (embedding.coverage.n_cut, embedding.coverage.n_tokens, embedding.coverage.n_unknown) == (1, 22, 1)
    # Of the text that is cut, what was read: its tokens are for these characters.
    assert embedding.coverage.n_chars == sum(map(len, texts)) - len(known) - 1
    assert count_tokens(model, texts) == [3, 3, 12, 12]


def test_an_llm_reads_more_of_long_texts_by_an_option(llm_folder, tmp_path, caplog):
    llm = load_llm(str(llm_folder))
    texts = ["a short text", "word " * 6]
    outputs = [Output(tmp_path / f"{most}.npy", "answer states", {"most": most}) for most in (5, 60)]
    with caplog.at_level(logging.WARNING):
        few, many = (
            read_states(llm, texts, ["\nIntent:"], output, most) for output, most in zip(outputs, (5, 60), strict=True)
        )
    assert outputs[0].facts["coverage"]["n_cut"] >= 1 and outputs[1].facts["coverage"]["n_cut"] == 0
    assert "texts are longer, and their ends are not read; --max_text_tokens reads more" in caplog.text
    assert (few[1] != many[1]).any()


def test_the_default_leaves_earlier_files_valid():
    assert ReadSettings().made_from() == {}
    assert ReadSettings(max_text_tokens=512).made_from() == {"max_text_tokens": 512}


@pytest.mark.real
def test_korean_is_not_read_by_the_default_models(caplog):
    embedder = LoadedEmbedding(load_embedder("minilm", device="cpu"), None)
    reader = StateReader(load_llm("smollm2"), ["\nIntent:"])
    embedder(ENGLISH)
    reader.arrange(ENGLISH)
    for found in (embedder.coverage, reader.coverage):
        assert found.describe_language() is None and found.n_cut == 0
    embedder.coverage, reader.coverage = Coverage(), Coverage()
    embedder(KOREAN)
    reader.arrange(KOREAN)
    with caplog.at_level(logging.WARNING):
        embedder.coverage.warn("minilm", 256, EMBEDDERS_THAT_FIT)
        reader.coverage.warn("smollm2", 256, LLMS_THAT_FIT)
    one, other = caplog.messages
    assert one.startswith("minilm seems not to read the language of these texts: ") and "are unknown" in one
    assert "multilingual-e5-small" in one
    assert "smollm2 seems not to read" in other and "it needs 2.0 tokens a character" in other and "Qwen" in other
