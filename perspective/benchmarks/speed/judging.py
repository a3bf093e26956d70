"""Choice judging against one prompt at a time; answer states against the bare forward pass."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from perspective.artifacts import Output
from perspective.benchmarks.baselines import plain_judging
from perspective.benchmarks.random_models import count_parameters
from perspective.benchmarks.speed.comparison import (
    Row,
    SpeedSettings,
    ask_questions,
    describe_rate,
    read_texts,
    time_pairs,
)
from perspective.judging.choice import ChoiceJudge
from perspective.judging.protocol import choose_wording
from perspective.llm.loading import load_llm
from perspective.teacher.states import read_states, write_question

N_QUESTIONS, N_PLAIN = 64, 8  # triplets judged by ours, and those of them that are judged one prompt at a time


def bench_judging(settings: SpeedSettings) -> list[Row]:
    """Judge the same triplets with each LLM of the settings."""
    return [compare_judging(name, settings.n_pairs) for name in settings.llm]


def compare_judging(name: str, n_pairs: int) -> Row:
    """Judge triplets with one LLM, by `ChoiceJudge` and one prompt at a time, and compare the choices."""
    llm, (questions, wording) = load_llm(name), ask_questions(N_QUESTIONS)
    judge = ChoiceJudge(llm, wording)
    written = ChoiceJudge(llm, wording, response="generate")
    prompts = [
        written._prepare(ordered, swapped).text  # exactly the judge's prompts
        for question in questions[:N_PLAIN]
        for swapped, ordered in ((False, question), (True, question.swapped()))
    ]
    judgments = {judgment.triplet.key: judgment for judgment in judge.judge(questions)}
    n_tokens = judge.facts["n_tokens"]
    ours = []
    for judgment in (judgments[question.triplet.key] for question in questions[:N_PLAIN]):
        assert judgment.forward_probability is not None and judgment.swapped_probability is not None  # both orders
        swapped = 1 - judgment.swapped_probability  # of label 1, which is then the other choice
        ours += ["1" if value > 0.5 else "2" for value in (judgment.forward_probability, swapped)]
    other = plain_judging.judge(llm, prompts)
    decided = [(one, two) for one, two in zip(ours, other, strict=True) if two is not None]
    same = sum(one == two for one, two in decided)
    seconds, part, ratio = time_pairs(
        lambda: list(judge.judge(questions)), lambda: plain_judging.judge(llm, prompts), n_pairs
    )
    flop, config = 2 * count_parameters(llm.model) * n_tokens, llm.model.config
    scale = len(questions) / N_PLAIN
    return Row(
        f"choice judging, {len(questions)} triplets in both orders, {Path(name).stem}",
        f"one prompt at a time, generate(max_new_tokens=20) ({N_PLAIN} of the triplets timed)",
        "10x, 60% of the matrix rate",
        seconds,
        part * scale,
        ratio * scale,
        f"same label on {same} of {len(decided)} decided, {len(prompts) - len(decided)} undecided",
        f"{n_tokens / seconds:.0f} tokens/s, "
        f"{describe_rate(flop, seconds, (1536, config.hidden_size, config.intermediate_size))}",
    )


def bench_states(settings: SpeedSettings) -> list[Row]:
    """Read the texts of banking77 with the first LLM of the settings."""
    llm, texts = load_llm(settings.llm[0]), read_texts("banking77")
    perspective = choose_wording("banking77").perspective
    facts: dict[str, Any] = {}

    def ours(texts: list[str] = texts) -> None:
        with tempfile.TemporaryDirectory() as folder:
            output = Output(Path(folder) / "states.npy", "answer states", {})
            read_states(llm, texts, (write_question(perspective),), output)
            facts.update(output.facts)

    ours(texts[:64])
    ids = torch.full((42, 24), 5)  # texts of equal length: the lowest cost for the bare model

    def count_batches() -> int:
        return max(1, round(facts["n_tokens"] / ids.numel()))

    @torch.inference_mode()
    def other() -> None:
        for _ in range(count_batches()):
            llm.body(ids, use_cache=False)

    one, two, _ = time_pairs(ours, other, settings.n_pairs)
    rates = facts["n_tokens"] / one, count_batches() * ids.numel() / two
    return [
        Row(
            f"answer states, {len(texts)} texts, {settings.llm[0]}",
            "the bare forward pass on as many tokens, without any context or padding",
            "within 10%",
            one,
            facts["n_tokens"] / rates[1],
            rates[0] / rates[1],
            "",
            f"{rates[0]:.0f} against {rates[1]:.0f} tokens/s; ours attend to a cached beginning, and read once what "
            "texts of a row begin with",
        )
    ]
