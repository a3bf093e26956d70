"""RetroMAE: what the decoder may see, the loss by hand, tiny BERTs and RoBERTas, a kill, bad input."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import make_wordpiece_tokenizer
from helpers import fail_at_step, run_stage, stage_environment, write_jsonl
from sentence_transformers import SentenceTransformer

from perspective.artifacts import Output, read_facts
from perspective.errors import ModelError
from perspective.models.embedders import load_embedder
from perspective.pretraining.masking import draw_masked
from perspective.pretraining.retromae import RetroMaeLoss, draw_seen, load_rebuilder, pretrain_encoder
from perspective.pretraining.settings import RetroMaeSettings, describe_texts

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}


def save_encoder(folder, name):
    import transformers

    torch.manual_seed(0)
    tokenizer = make_wordpiece_tokenizer()
    kind = transformers.XLMRobertaConfig if "Roberta" in name else transformers.BertConfig
    config = kind(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, max_position_embeddings=40, **SIZES)
    getattr(transformers, name)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["BertForMaskedLM", "XLMRobertaForMaskedLM"])
def folder(request, tmp_path_factory):
    """A tiny encoder as the hub has them."""
    return save_encoder(tmp_path_factory.mktemp("encoders") / request.param, request.param)


def test_an_encoder_without_a_masked_lm_head_is_refused(tmp_path):
    with pytest.raises(ModelError, match="without a masked-LM head"):
        load(save_encoder(tmp_path / "encoder", "BertModel"))


def test_an_encoder_without_positions_in_its_embeddings_is_refused(tmp_path):
    """As DeBERTa: the decoder's questions would all be the same."""
    from transformers import DebertaV2Config, DebertaV2ForMaskedLM

    tokenizer = make_wordpiece_tokenizer()
    options = {"vocab_size": len(tokenizer), "position_biased_input": False, "relative_attention": True}
    folder = tmp_path / "deberta"
    DebertaV2ForMaskedLM(DebertaV2Config(**options, **SIZES)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model = load_embedder(str(folder), device="cpu")
    settings = RetroMaeSettings(num_train_epochs=1)
    output = Output(tmp_path / "made", "embedder", {})
    with pytest.raises(ModelError, match="embeddings hold no positions"):
        pretrain_encoder(model, load_rebuilder(str(folder), model), [f"card {n}" for n in range(40)], settings, output)


def load(folder):
    model = load_embedder(str(folder), device="cpu")
    model.append(load_rebuilder(str(folder), model))
    return model.eval()


def read(model, *texts):
    return {key: value for key, value in model.preprocess(list(texts)).items() if key != "modality"}


def test_a_position_sees_the_first_and_a_random_half_of_the_others_but_not_itself():
    attention = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    drawn = torch.stack([draw_seen(attention) for _ in range(400)]).float()
    share = drawn.mean(dim=0)
    expected = torch.tensor([[1, 0.5, 0.5, 0.5], [1, 0, 0.5, 0.5], [1, 0.5, 0, 0.5], [1, 0.5, 0.5, 0]])
    assert (share[0] - expected).abs().max() < 0.1
    expected[:, 3] = 0  # padding
    assert (share[1] - expected).abs().max() < 0.1
    # Each position draws for itself.
    assert ((drawn[:, 0, 1, 2] == 1) & (drawn[:, 0, 3, 2] == 0)).any()


def test_the_loss_by_hand(folder):
    model = load(folder)
    loss = RetroMaeLoss(model, 0.3)
    features = read(model, "top up my card", "rain")
    ids, attention = features["input_ids"], features["attention_mask"]
    torch.manual_seed(3)
    found = loss([features])
    torch.manual_seed(3)
    masked, may_see = draw_masked(ids, attention, loss.special, 0.3), None
    # The masked LM itself, as transformers loads it.
    from transformers import AutoModelForMaskedLM

    whole = AutoModelForMaskedLM.from_pretrained(folder).eval()
    hidden = ids.masked_fill(masked, model.tokenizer.mask_token_id)
    out = whole(hidden, attention_mask=attention, output_hidden_states=True)
    first = -out.logits.log_softmax(-1).gather(2, ids[..., None])[..., 0][masked].mean()
    may_see = draw_seen(attention)
    cls = out.hidden_states[-1][:, :1]
    embed = whole.base_model.embeddings
    asking = embed(inputs_embeds=cls.repeat(1, ids.shape[1], 1))
    seen = torch.cat([cls, embed(input_ids=ids)[:, 1:]], dim=1)
    # Attention of one position of one text at a time, over what it sees alone.
    layer = model[-1].layer
    states = torch.zeros_like(asking)
    for text in range(2):
        for place in range(ids.shape[1]):
            keys = seen[text, may_see[text, place]][None]
            answer, _ = layer.attention(asking[text, place][None, None], keys, keys)
            one = layer.norms[0](asking[text, place] + answer[0, 0])
            states[text, place] = layer.norms[1](one + layer.inner(one))
    wanted = attention.bool() & ~torch.isin(ids, loss.special)
    second = -model[-1].head(states).log_softmax(-1).gather(2, ids[..., None])[..., 0][wanted].mean()
    assert found.item() == pytest.approx((first + second).item(), abs=1e-4)
    alone = RetroMaeLoss(model, 0.3, rebuilds=False).compute_loss(features, masked) / masked.sum()
    assert alone.item() == pytest.approx(first.item(), abs=1e-4)


def test_scores_of_a_few_tokens_at_a_time_give_the_same_gradients(folder, monkeypatch):
    gradients = []
    for n_tokens in (2048, 3):
        monkeypatch.setattr("perspective.pretraining.retromae.SCORED_TOKENS", n_tokens)
        model = load(folder)
        torch.manual_seed(3)
        RetroMaeLoss(model, 0.3)([read(model, "top up my card", "rain")]).backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None})
    whole, parts = gradients
    assert len(whole) > 20 and set(whole) == set(parts)
    for name, gradient in whole.items():
        assert torch.allclose(gradient, parts[name], atol=1e-6), name


def test_the_decoder_cannot_see_the_token_that_it_predicts(folder):
    model = load(folder)
    ids = read(model, "top up my card")["input_ids"]
    may_see = draw_seen(torch.ones_like(ids), share=1.0)  # all others
    cls = torch.randn(1, SIZES["hidden_size"])
    other = ids.clone()
    other[0, 2] = model.tokenizer("rain")["input_ids"][1]
    one, changed = (model[-1].decode(tokens, cls, may_see) for tokens in (ids, other))
    same = (one - changed).abs().amax(dim=2)[0]
    assert same[2] < 1e-6 and (same[[1, 3]] > 1e-4).all()
    assert (model[-1].decode(ids, cls + 1, may_see) - one).abs().amax() > 1e-3


@pytest.mark.parametrize("objective", ["retromae", "mlm"])
def test_a_killed_training_resumes_to_the_same_encoder(folder, objective, tmp_path, sentences, monkeypatch, one_thread):
    texts = sentences(40)
    settings = RetroMaeSettings(
        objective=objective, per_device_train_batch_size=4, save_steps=2, learning_rate=1e-2, max_source_length=16
    )

    def train(path):
        model = load_embedder(str(folder), device="cpu")
        output = Output(path, "pre-trained embedder", settings.made_from(), {})
        pretrain_encoder(model, load_rebuilder(str(folder), model), texts, settings, output)
        return read_facts(path)

    facts = train(tmp_path / "whole")
    assert facts["masked_loss_trained"] < facts["masked_loss_before"]
    with monkeypatch.context() as patch:
        fail_at_step(patch, 6)
        with pytest.raises(RuntimeError):
            train(tmp_path / "killed")
    assert train(tmp_path / "killed")["masked_loss_trained"] == pytest.approx(facts["masked_loss_trained"], abs=1e-4)
    # A stranger's program: the vector is the first token's state.
    model = SentenceTransformer(str(tmp_path / "whole"), device="cpu")
    states = model.encode("top up my card", output_value="token_embeddings")
    np.testing.assert_allclose(model.encode("top up my card"), states[0].numpy(), rtol=1e-5)
    assert len(model) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "objective"), [("BertForMaskedLM", "retromae"), ("XLMRobertaForMaskedLM", "mlm")], indirect=["folder"]
)
def test_two_processes_train_one_encoder(folder, objective, tmp_path, sentences):
    texts = write_jsonl(tmp_path / "texts.jsonl", [{"input": text} for text in sentences(40)])
    options = ["--dataset", "tiny", "--data_path", texts, "--embedder", folder, "--objective", objective]
    options += ["--per_device_train_batch_size", 4, "--learning_rate", 1e-2, "--output_path", tmp_path / "out"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    called = [*launch, "perspective.5_pretrain.retromae", *map(str, options)]
    environment = stage_environment(OMP_NUM_THREADS="1")
    done = subprocess.run(called, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = (tmp_path / "out").glob("*.meta.json")
    facts = read_facts(path.with_name(path.name.removesuffix(".meta.json")))
    assert facts["masked_loss_trained"] < facts["masked_loss_before"] and facts["n_processes"] == 2


def test_bad_input_is_one_line(tmp_path, llm_folder, sentences, capsys):
    texts = write_jsonl(tmp_path / "few.jsonl", [{"input": text} for text in sentences(3)])
    for options, message in (
        (("--embedder", llm_folder), "no encoder with a mask token"),
        (("--embedder", llm_folder, "--mask_share", 1), "--mask_share 1.0: must be above 0 and below 1"),
    ):
        with pytest.raises(SystemExit) as ended:
            run_stage("retromae", "--dataset", "tiny", "--data_path", texts, "--output_path", tmp_path, *options)
        assert ended.value.code == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert message in line


def test_training_on_the_documents_of_a_collection_is_said(tmp_path, caplog):
    (tmp_path / "help").mkdir()
    path = write_jsonl(tmp_path / "help" / "corpus.jsonl", [{"text": "a page"}])
    assert describe_texts(path) == {} and not caplog.records
    (tmp_path / "help" / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n")
    assert describe_texts(path) == {"trained_on_collection": "help"}
    assert "has read its documents" in caplog.text
