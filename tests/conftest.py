"""Tiny models, made in code: real architectures and tokenizers, random weights."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("COMPUTE_DTYPE", "float32")  # the tolerances are those of single precision

import string
import tempfile
import threading
from types import SimpleNamespace

import pytest
from hypothesis import settings

# No model of the machine's own cache, in the tests' subprocesses neither; the folder goes when the tests end.
empty_cache = tempfile.TemporaryDirectory()
os.environ["HF_HOME"] = empty_cache.name
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = [
    "Query: how do I top up my card? Choice 1: my card was declined Choice 2: top up by bank transfer",
    "Please respond with 'Choice 1' or 'Choice 2' without explanation. Choice",
    "Select the banking utterance that better corresponds with the Query in terms of intent. user assistant",
]
WORDS = [
    "card",
    "bank",
    "top",
    "up",
    "transfer",
    "weather",
    "rain",
    "sun",
    "music",
    "song",
    "play",
    "pin",
    "lost",
    "money",
    "cash",
    "alarm",
    "wake",
]


def pytest_collection_modifyitems(items):
    """Files of whole pipeline runs come first, so that no process is left alone with one of them at the end."""
    long = {item.path for item in items if item.get_closest_marker("slow") and item.get_closest_marker("real")}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """A copy of what a stranger gets, in a path with spaces."""
    from helpers import copy_repository

    folder = tmp_path_factory.mktemp("a clone") / "EMB with LLM"
    folder.mkdir()
    return copy_repository(folder)


@pytest.fixture
def server():
    """A server that answers rightly until a test says otherwise."""
    from fake_server import FakeServer

    made = FakeServer()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield made
    made.released.set()
    made.shutdown()
    made.server_close()


@pytest.fixture
def plain_network(monkeypatch):
    """No key, address or proxy of the machine's own; servers are asked again at once."""
    from perspective.llm.server import pool

    for name in (
        "OPENAI_API_KEY",
        "LLM_SERVER_KEY",
        "OPENAI_BASE_URL",
        "HTTP_PROXY",
        "http_proxy",
        "ALL_PROXY",
        "all_proxy",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pool, "FIRST_WAIT_SECONDS", 0.01)


def make_wordpiece_tokenizer():
    """A BERT tokenizer that can spell every ASCII text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = string.ascii_lowercase + string.digits + string.punctuation
    pieces = [*special, *WORDS, *characters, *(f"##{char}" for char in characters)]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def make_bpe_tokenizer(special=("<|endoftext|>", "<|im_start|>", "<|im_end|>"), chat_template=CHAT_TEMPLATE, bos=None):
    """A byte-level BPE tokenizer as chat models have one; `bos` is put before a text if given."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[-1], pad_token=special[0]
    )
    # Special by the model's template, though none of its standard roles: as in SmolLM2 and Qwen.
    made.add_special_tokens({"additional_special_tokens": list(special[1:])})
    made.chat_template = chat_template
    return made


def make_llama_config(tokenizer, **options):
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=768,
        initializer_range=0.4,  # wide: answers that differ from 0.5, so that a fault shows
        **options,
    )


def save_llama(folder, class_name, tokenizer, seed=0, **options):
    import torch
    import transformers

    torch.manual_seed(seed)
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": None}
    model = getattr(transformers, class_name)(make_llama_config(tokenizer, **ids, **options))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def build():
    """The builders, for tests that need a variant."""
    return SimpleNamespace(
        wordpiece=make_wordpiece_tokenizer, bpe=make_bpe_tokenizer, save_llama=save_llama, config=make_llama_config
    )


@pytest.fixture(scope="session")
def embedder_folder(models_folder):
    """A sentence-transformers folder: tiny BERT, mean pooling, normalisation."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    tokenizer = make_wordpiece_tokenizer()
    body = models_folder / "bert"
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
            initializer_range=0.2,
        )
    ).save_pretrained(body)
    tokenizer.save_pretrained(body)
    folder = models_folder / "embedder"
    modules = [Transformer(str(body), max_seq_length=64), Pooling(32, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save(str(folder))
    return folder


@pytest.fixture(scope="session")
def llm_folder(models_folder):
    """A tiny Llama causal LM with a chat template."""
    return save_llama(models_folder / "llm", "LlamaForCausalLM", make_bpe_tokenizer())


@pytest.fixture(scope="module")
def llm(llm_folder):
    """That LLM, loaded."""
    from perspective.llm.loading import load_llm

    return load_llm(str(llm_folder))


@pytest.fixture(scope="session")
def reward_folder(models_folder):
    """A tiny Llama sequence classifier with one output."""
    return save_llama(
        models_folder / "reward", "LlamaForSequenceClassification", make_bpe_tokenizer(), seed=1, num_labels=1
    )


@pytest.fixture(scope="session")
def starling_weights():
    """(tokenizer, config, state dict) of a tiny Starling-RM, the body stored under both its names."""
    import torch
    from transformers import LlamaModel

    torch.manual_seed(2)
    tokenizer = make_bpe_tokenizer(("<s>", "</s>"), chat_template=None, bos="<s>")
    config = make_llama_config(tokenizer)
    body = LlamaModel(config).state_dict()
    weights = {f"model.model.{key}": value for key, value in body.items()}
    weights |= {f"transformer.{key}": value for key, value in body.items()}
    weights["model.lm_head.weight"] = torch.randn(len(tokenizer), 32)
    weights["transformer.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    weights["v_head.weight"] = torch.randn(1, 32)
    return tokenizer, config, weights


@pytest.fixture(scope="session")
def starling_folder(models_folder, starling_weights):
    """A folder in Starling-RM's own layout, with its shape and tokenizer."""
    from safetensors.torch import save_file

    tokenizer, config, weights = starling_weights
    folder = models_folder / "starling"
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    kept = {key: value.clone() for key, value in weights.items() if key.startswith(("transformer.", "v_head."))}
    save_file(kept, folder / "model.safetensors")
    return folder


@pytest.fixture
def one_thread():
    """Torch on one thread: with matrices this small, threads only wait for one another."""
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def sentences():
    """Make n short texts from everyday words."""
    import random

    def make(n, seed=0, n_words=6):
        rng = random.Random(seed)
        return [" ".join(rng.choices(WORDS, k=rng.randint(1, n_words))) for _ in range(n)]

    return make
