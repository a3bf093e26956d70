"""The questions to an LLM and their prompts: for chat models, or examples that a small LLM continues."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from perspective.errors import DataError
from perspective.llm.chat import make_harmless
from perspective.synthesis.forms import BRAINSTORMED, FORMS, GROUNDED, TypeName, describe_form, normalize_text
from perspective.synthesis.recipe import Recipe, sample_values, seed_generator, share_out

BRAINSTORM_TOKENS = 700  # 20 sentences


@dataclass(frozen=True)
class WritingRequest:
    """What an LLM is asked once.

    Attributes:
        kind: Type of the example.
        number: Among the requests of its type.
        values: Sampled attributes; languages by code, the task and the document.
        passage: Id of the document of a grounded example.
    """

    kind: TypeName
    number: int
    values: Mapping[str, str]
    passage: str = ""

    @property
    def asks_tasks(self) -> bool:
        """Whether tasks are asked for, and not an example."""
        return not self.values

    @property
    def max_new_tokens(self) -> int:
        """Longest reply."""
        return BRAINSTORM_TOKENS if self.asks_tasks else FORMS[self.kind].max_new_tokens


def plan_free(
    recipe: Recipe,
    kinds: Sequence[TypeName],
    n: int,
    equal: bool,
    codes: Sequence[str],
    tasks: Mapping[str, Sequence[str]],
    seed: int,
) -> list[WritingRequest]:
    """Return the questions of examples whose documents are written too.

    Args:
        recipe: Attributes and shares.
        kinds: Types to choose from.
        n: Number of examples.
        equal: As many of each type, in place of the recipe's shares.
        codes: Languages.
        tasks: Tasks by type.
        seed: Random seed; another n keeps the questions that both have.

    Raises:
        DataError: A type has no tasks, or bitext has one language.
    """
    questions = []
    for kind, count in share_out(recipe, kinds, n, equal).items():
        if kind == "bitext" and len(codes) < 2:
            found = f'found --languages "{" ".join(codes)}"'
            raise DataError(f"--types bitext needs two languages or more with a weight above 0; {found}")
        listed = tasks.get(kind, ())
        if kind in BRAINSTORMED and not listed:
            raise DataError(f'no tasks of type "{kind}"; add some to tasks.yaml, or run brainstorm.sh')
        for number in range(count):
            rng = seed_generator(seed, kind, number)
            values = sample_values(recipe, kind, codes, rng)
            if listed:
                values["task"] = listed[int(rng.integers(len(listed)))]
            questions.append(WritingRequest(kind, number, values))
    return questions


def plan_grounded(
    recipe: Recipe, passages: Mapping[str, str], n: int, codes: Sequence[str], seed: int
) -> list[WritingRequest]:
    """Return the questions about real documents, in random order; every one is asked before any is asked again.

    Raises:
        DataError: There is one passage.
    """
    if len(passages) < 2:
        raise DataError("the documents make one passage; a retriever learns to tell several apart")
    ids = list(passages)
    order = np.random.default_rng(seed).permutation(len(ids))
    questions = []
    for number in range(n):
        passage = ids[order[number % len(ids)]]
        values = sample_values(recipe, GROUNDED, codes, seed_generator(seed, passage, number // len(ids)))
        questions.append(WritingRequest(GROUNDED, number, {**values, "document": passages[passage]}, passage))
    return questions


def plan_brainstorm(kinds: Iterable[TypeName], n_calls: int) -> list[WritingRequest]:
    """Return the questions that ask for tasks."""
    return [WritingRequest(kind, number, {}) for kind in kinds for number in range(n_calls)]


@dataclass(frozen=True)
class Prompter:
    """Writes prompts.

    Attributes:
        recipe: Prompts and examples.
        is_chat: Whether the LLM gets a request; otherwise examples to continue.
        markers: Special tokens of the LLM's tokenizer.
    """

    recipe: Recipe
    is_chat: bool
    markers: tuple[str, ...] = ()

    def split(self, question: WritingRequest) -> tuple[str, str]:
        """Return the part of a prompt that others share, and the rest."""
        recipe = self.recipe.types[question.kind]
        if question.asks_tasks:
            if self.is_chat:
                return "", recipe.brainstorm
            return "", f"{recipe.brainstorm}\n" + "".join(f"- {task}\n" for task in recipe.tasks) + "-"
        values = {
            name: self.recipe.languages[value]
            if name in ("language", "target_language")
            else make_harmless(value, self.markers)
            for name, value in question.values.items()
        }
        if self.is_chat:
            return "", f"{recipe.generate.format_map(values)}\n{describe_form(question.kind)}"
        shots = "".join(
            f"{_list_given(shot.given)}JSON: {json.dumps(shot.reply, ensure_ascii=False)}\n\n" for shot in recipe.shots
        )
        return shots, f"{_list_given({name: values[name] for name in recipe.shots[0].given})}JSON:"

    def shorten(self, question: WritingRequest, text: str) -> WritingRequest:
        """Return a question with another document or task, where there is one."""
        return WritingRequest(question.kind, question.number, {**question.values, self.long_value(question): text})

    def long_value(self, question: WritingRequest) -> str:
        """Return the name of the longest value, which can be shortened."""
        return max(question.values, key=lambda name: len(question.values[name]))

    def known(self, kind: TypeName) -> frozenset[str]:
        """Return the normalised texts of the examples, which a reply must not repeat."""
        shots = () if self.is_chat else self.recipe.types[kind].shots
        return frozenset(normalize_text(text) for shot in shots for text in shot.reply.values())


def _list_given(given: Mapping[str, str]) -> str:
    return "".join(f"{name.replace('_', ' ').capitalize()}: {value}\n" for name, value in given.items())
