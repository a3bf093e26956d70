"""Chat templates: models that think, and templates that ask for the date. Prompts in parts."""

import pytest

from perspective.llm.chat import render_chat, tokenize_beginning, tokenize_continuations

QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DEEPSEEK = "{{ messages[0]['content'] }}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
LLAMA = "Today: {{ strftime_now('%d %b %Y') }}\n{{ messages[0]['content'] }}"


@pytest.mark.parametrize("template", [QWEN3, DEEPSEEK])
def test_models_that_think_begin_with_the_answer(build, template):
    prompt = render_chat(build.bpe(chat_template=template), "Yes or no?")
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_finished_answer_is_left_as_it_is(build):
    prompt = render_chat(build.bpe(chat_template=QWEN3), "Yes or no?", "Yes")
    assert prompt.endswith("<|im_start|>assistant\nYes<|im_end|>\n")


def test_prompts_are_the_same_every_day(build):
    assert render_chat(build.bpe(chat_template=LLAMA), "a") == "Today: 26 Jul 2024\na"


def make_sentencepiece(layout):
    """A tokenizer that puts a space before what it gets, as that of Llama 2 or of Mistral does."""
    from conftest import SENTENCES
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    made.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=600, special_tokens=special))
    if layout == "Llama 2":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        made.pre_tokenizer = None
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.mark.parametrize("layout", ["Llama 2", "Mistral", "byte level"])
def test_a_prompt_in_parts_has_the_tokens_of_the_whole(build, layout):
    tokenizer = build.bpe() if layout == "byte level" else make_sentencepiece(layout)
    parts = ["Query: my card. Text:", " top up by bank transfer", "\nQuestion: what is the intent?"]
    found = tokenize_beginning(tokenizer, parts[0]) + sum(tokenize_continuations(tokenizer, parts[1:]), [])
    assert found == tokenizer("".join(parts))["input_ids"]
