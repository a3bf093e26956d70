"""M3's heads: scores of the three ways, files, and the published layout of bge-m3."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import pad

from perspective.errors import ModelError
from perspective.hybrid import encoding
from perspective.hybrid.encoding import encode_texts
from perspective.models import pickles
from perspective.models.embedders import load_embedder
from perspective.models.hybrid import Representations, add_heads, remove_heads, score_ways, sum_scores
from perspective.models.hybrid_files import find_hybrid, load_heads, load_hybrid, save_heads, to_multi_vector
from perspective.models.pickles import HEADS, PICKLED_HEADS, read_tensors

TEXTS = ["card card lost", "top up my card by bank transfer and play a song", "rain"]


def represent(model, texts, n_padding=0):
    """The texts in one batch, with further padding."""
    features = model.preprocess(list(texts))
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        if name in features:
            features[name] = pad(features[name], [0, n_padding])
    with torch.no_grad():
        return Representations.from_features(model(features))


@pytest.fixture
def hybrid(embedder_folder):
    model = load_embedder(str(embedder_folder), device="cpu")
    torch.nn.init.normal_(add_heads(model, seed=1).lexical.weight, std=0.2, generator=torch.Generator().manual_seed(1))
    return model.eval()


def test_padding_changes_no_score(hybrid):
    plain = score_ways(represent(hybrid, TEXTS[:2]), represent(hybrid, TEXTS))
    padded = score_ways(represent(hybrid, TEXTS[:2], 9), represent(hybrid, TEXTS, 17))
    for way, scores in plain.items():
        torch.testing.assert_close(padded[way], scores, atol=1e-5, rtol=0)
        alone = [
            [score_ways(represent(hybrid, [q]), represent(hybrid, [d]))[way].item() for d in TEXTS] for q in TEXTS[:2]
        ]
        np.testing.assert_allclose(scores, alone, atol=1e-5)


def test_scores_are_those_of_the_definition_token_by_token(hybrid):
    queries, documents = represent(hybrid, TEXTS[:2]), represent(hybrid, TEXTS)
    scores = score_ways(queries, documents)
    special = set(hybrid.tokenizer.all_special_ids)
    assert (queries.weights > 0).any()

    def weigh(text, row):
        best = {}
        for token, weight in zip(text.ids[row].tolist(), text.weights[row].tolist(), strict=True):
            best[token] = max(weight, best.get(token, 0.0))
        assert all(best[token] == 0 for token in special & best.keys())
        return best

    for q in range(2):
        for d in range(3):
            one, other = weigh(queries, q), weigh(documents, d)
            lexical = sum(one[token] * other[token] for token in one.keys() & other.keys())
            assert scores["sparse"][q, d].item() == pytest.approx(lexical, abs=1e-5)
            a, b = (part.vectors[row][part.vector_mask[row]] for part, row in ((queries, q), (documents, d)))
            assert scores["multi"][q, d].item() == pytest.approx((a @ b.T).max(dim=1).values.mean().item(), abs=1e-5)
            assert scores["dense"][q, d].item() == pytest.approx(float(queries.dense[q] @ documents.dense[d]), abs=1e-5)
    # [CLS] has no vector, [SEP] has one; "card", given twice, counts once.
    assert queries.vector_mask[0].tolist()[:5] == [False, True, True, True, True]
    assert sum_scores({"dense": 1.0, "sparse": 2.0, "multi": 4.0}) == pytest.approx(5.6)


def test_maxsim_is_negative_where_no_token_is_near():
    """Padding scores 0: a document whose cosines are all negative must not gain from it."""
    vectors = torch.tensor([[[-1.0, 0.0], [0.0, 0.0]]])
    one = Representations(
        torch.ones(1, 2), torch.zeros(1, 2, dtype=int), torch.zeros(1, 2), vectors, torch.tensor([[True, False]])
    )
    other = Representations(one.dense, one.ids, one.weights, -vectors, one.vector_mask)
    assert score_ways(one, other)["multi"].item() == -1


def test_heads_come_back_and_the_folder_is_a_plain_embedder(hybrid, tmp_path, embedder_folder):
    from sentence_transformers import SentenceTransformer

    wanted = score_ways(represent(hybrid, TEXTS), represent(hybrid, TEXTS))
    folder = tmp_path / "model"
    heads = remove_heads(hybrid)
    hybrid.save_pretrained(str(folder), create_model_card=False)
    save_heads(heads, folder / HEADS)
    np.testing.assert_allclose(
        SentenceTransformer(str(folder), device="cpu").encode(TEXTS),
        SentenceTransformer(str(embedder_folder), device="cpu").encode(TEXTS),
        atol=1e-6,
    )
    model = load_hybrid(str(folder), device="cpu")
    assert model[0].can_flatten_inputs is False  # the heads need the mask
    for way, scores in score_ways(represent(model, TEXTS), represent(model, TEXTS)).items():
        torch.testing.assert_close(scores, wanted[way])


def test_missing_and_foreign_heads_are_refused(embedder_folder, tmp_path, hybrid):
    with pytest.raises(ModelError, match=r"has no heads .*train_hybrid\.sh"):
        load_hybrid(str(embedder_folder), device="cpu")
    heads = remove_heads(hybrid)
    heads.lexical = torch.nn.Linear(7, 1)
    save_heads(heads, tmp_path / HEADS)
    with pytest.raises(ModelError, match="no heads of this model"):
        load_heads(hybrid, tmp_path / HEADS)
    (tmp_path / HEADS).write_bytes(b"{}")
    with pytest.raises(ModelError, match="no heads of this model"):
        load_heads(load_embedder(str(embedder_folder), device="cpu"), tmp_path / HEADS)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """A folder in the layout of BAAI/bge-m3: a tiny XLM-R with [CLS] pooling, body and heads as pickles."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    torch.manual_seed(3)
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*special, *(f"▁{word}" for text in TEXTS for word in text.split()), "▁"]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in dict.fromkeys(pieces)], unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
    )
    config = XLMRobertaConfig(
        vocab_size=len(fast),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    XLMRobertaModel(config).save_pretrained(tmp_path / "body")
    fast.save_pretrained(tmp_path / "body")
    folder = tmp_path / "bge-m3"
    modules = [Transformer(str(tmp_path / "body"), max_seq_length=32), Pooling(16, "cls"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    torch.save(modules[0].auto_model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    heads = {name: torch.nn.Linear(16, size) for name, size in (("lexical", 1), ("multi", 16))}
    for name, head in heads.items():
        torch.save(head.half().state_dict(), folder / PICKLED_HEADS[name])
    return folder, modules[0].auto_model.eval(), heads


def test_the_published_layout_is_converted_once_and_scores_as_published(published, monkeypatch):
    folder, body, heads = published
    model = load_hybrid(str(folder), device="cpu")
    queries, documents = represent(model, TEXTS[:2]), represent(model, TEXTS)
    scores = score_ways(queries, documents)
    # By the definition of the paper, from the pickled weights: [CLS], ReLU of a linear, normalised linear after [CLS].
    with torch.no_grad():
        states = [body(**model.tokenizer(text, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]
    dense = torch.nn.functional.normalize(torch.stack([state[0] for state in states]), dim=-1)
    torch.testing.assert_close(scores["dense"], dense[:2] @ dense.T, atol=1e-5, rtol=0)
    vectors = [torch.nn.functional.normalize(heads["multi"].float()(state[1:]), dim=-1) for state in states]
    wanted = [[(one @ other.T).max(dim=1).values.mean().item() for other in vectors] for one in vectors[:2]]
    np.testing.assert_allclose(scores["multi"], wanted, atol=1e-5)
    weights = torch.relu(heads["lexical"].float()(states[0])).squeeze(-1)
    assert scores["sparse"][0, 0].item() == pytest.approx(
        max(weights[1].item(), weights[2].item()) ** 2 + weights[3].item() ** 2, abs=1e-5
    )
    converted = find_hybrid(str(folder))
    assert converted != folder and not [path for path in converted.rglob("*") if path.suffix in (".pt", ".bin")]
    monkeypatch.setattr(pickles, "read_tensors", lambda path: pytest.fail("converted twice"))
    assert find_hybrid(str(folder)) == converted


def test_the_short_name_takes_the_published_layout(published, monkeypatch):
    folder, *_ = published
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **_: {"BAAI/bge-m3": str(folder)}[name])
    whole, plain = load_hybrid("bge-m3", device="cpu"), load_embedder("bge-m3", device="cpu")
    np.testing.assert_allclose(whole.encode(TEXTS), plain.encode(TEXTS), atol=1e-6)


def test_a_long_document_has_a_cls_for_each_part(published, monkeypatch):
    folder, body, _ = published
    monkeypatch.setattr(encoding, "insert_cls", partial(encoding.insert_cls, every=4))
    model = load_hybrid(str(folder), device="cpu")
    text = "top up my card by bank"  # six tokens
    found = encode_texts(model, [text, "rain"], repeat_cls=True)
    ids = model.tokenizer(text)["input_ids"]
    with torch.no_grad():
        states = body(torch.tensor([[*ids[:5], ids[0], *ids[5:]]])).last_hidden_state[0]
    wanted = torch.nn.functional.normalize(states[[0, 5]].sum(dim=0), dim=-1)
    np.testing.assert_allclose(found.dense[0], wanted, atol=1e-5)
    plain = encode_texts(model, [text, "rain"])
    np.testing.assert_allclose(found.dense[1], plain.dense[1], atol=1e-5)  # a short one is as before
    assert found.offsets.tolist() == plain.offsets.tolist()  # a further [CLS] has no token vector


def test_a_cls_for_each_part_needs_an_embedder_that_is_pooled_there(hybrid):
    with pytest.raises(ModelError, match="--repeat_cls: needs an embedder that is pooled at its .CLS. token"):
        encode_texts(hybrid, TEXTS, repeat_cls=True)


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("code of a pickle ran",))


def test_a_pickle_that_would_run_code_is_refused(published):
    folder, *_ = published
    torch.save({"weight": Harmful()}, folder / PICKLED_HEADS["lexical"])
    with pytest.raises(ModelError, match=r"sparse_linear\.pt: holds more than tensors, and is not loaded"):
        load_hybrid(str(folder), device="cpu")
    torch.save([1], folder / "list.pt")
    with pytest.raises(ModelError, match="more than named tensors"):
        read_tensors(folder / "list.pt")


def test_the_token_vectors_alone_are_a_multi_vector_encoder(hybrid, tmp_path):
    from sentence_transformers import MultiVectorEncoder

    hybrid.prompts = {"query": "query: ", "document": "passage: "}
    to_multi_vector(hybrid).save_pretrained(str(tmp_path / "saved"))
    theirs = MultiVectorEncoder(str(tmp_path / "saved"), device="cpu")
    found = theirs.similarity(theirs.encode_query(TEXTS[:2]), theirs.encode_document(TEXTS))
    sides = (
        represent(hybrid, [prompt + text for text in texts])
        for prompt, texts in zip(hybrid.prompts.values(), (TEXTS[:2], TEXTS), strict=True)
    )
    np.testing.assert_allclose(found.numpy(), score_ways(*sides)["multi"].numpy(), atol=1e-5)
