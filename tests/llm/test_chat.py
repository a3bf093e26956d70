"""Chat templates: models that think, and templates that ask for the date."""

import pytest

from perspective.llm.chat import render_chat

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
