"""Which examples are kept: no exact and near duplicates, in the language that was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from perspective.data.likeness import find_similar, keep_distinct
from perspective.data.pairs import Pair
from perspective.errors import DataError
from perspective.synthesis.examples import Example
from perspective.synthesis.forms import GROUNDED, make_pair, normalize_text

DUPLICATE, NEAR, LANGUAGE, INCONSISTENT = "duplicate", "near duplicate", "wrong language", "not found by its query"
FILTERS = (DUPLICATE, NEAR, LANGUAGE, INCONSISTENT)  # in their order
SAME_TEXT = 0.85  # cosine of binary vectors of words, as of queries in stage 6's docstrings
MIN_LETTERS = 20  # of a text whose language can be told
MIN_PROBABILITY = 0.05  # of the language that was asked for


def filter_examples(examples: Sequence[Example]) -> list[Example]:
    """Return the examples in their order; those that fail a check have its name as their fault.

    Raises:
        DataError: No example conforms.
    """
    if all(example.fault for example in examples):
        faults = count_faults(examples)
        most = max(faults, key=faults.__getitem__) if faults else "no examples"
        raise DataError(
            f"none of {len(examples)} replies conforms (most: {most}, {faults.get(most, 0)}); "
            "use a larger LLM, a server, or --style shots"
        )
    checked = _reject(examples, DUPLICATE, _find_duplicates)
    checked = _reject(checked, NEAR, _find_near)
    return _reject(checked, LANGUAGE, lambda group: [is_other_language(example) for example in group])


def reject_inconsistent(examples: Sequence[Example], pairs: Mapping[int, Pair], kept: Sequence[Pair]) -> list[Example]:
    """Return the examples with those rejected whose pair a retriever did not find.

    Args:
        examples: All examples.
        pairs: The pair of each example that had no fault, by its place.
        kept: The pairs that were found.
    """
    found = {id(pair) for pair in kept}
    return [
        example.reject(INCONSISTENT) if place in pairs and id(pairs[place]) not in found else example
        for place, example in enumerate(examples)
    ]


def make_pairs(examples: Sequence[Example], passages: Mapping[str, str]) -> dict[int, Pair]:
    """Return the training pair of each example without a fault, by its place.

    Raises:
        DataError: The document of a grounded example is not among the passages.
    """
    pairs = {}
    for place, example in enumerate(examples):
        if example.fault:
            continue
        document = None
        if example.kind == GROUNDED:
            if example.passage not in passages:
                raise DataError(f'example {place + 1}: no passage "{example.passage}" in corpus.jsonl; generate again')
            document = passages[example.passage]
        pairs[place] = make_pair(example.kind, list(example.texts), document)
    return pairs


def count_faults(examples: Sequence[Example]) -> dict[str, int]:
    """Return how many examples have each fault, most frequent first."""
    return dict(Counter(example.fault for example in examples if example.fault).most_common())


def is_other_language(example: Example) -> bool:
    """Tell whether a text is in another language than was asked for; False where it cannot be told."""
    code = example.values.get("language", "")
    codes = [code, *[example.values.get("target_language", code)] * 2]
    return any(_is_other(text, wanted) for text, wanted in zip(example.texts, codes, strict=False))


def _reject(
    examples: Sequence[Example], fault: str, check: Callable[[Sequence[Example]], Sequence[bool]]
) -> list[Example]:
    places = [place for place, example in enumerate(examples) if not example.fault]
    bad = {place for place, is_bad in zip(places, check([examples[place] for place in places]), strict=True) if is_bad}
    return [example.reject(fault) if place in bad else example for place, example in enumerate(examples)]


def _find_duplicates(examples: Sequence[Example]) -> list[bool]:
    seen: set[tuple[str, str]] = set()
    found = []
    for example in examples:
        key = (example.kind, normalize_text(example.texts[0]))
        found.append(key in seen)
        seen.add(key)
    return found


def _find_near(examples: Sequence[Example]) -> list[bool]:
    found = [False] * len(examples)
    for kind in {example.kind for example in examples}:
        places = [place for place, example in enumerate(examples) if example.kind == kind]
        texts = [normalize_text(examples[place].texts[0]) for place in places]
        for place, is_kept in zip(places, keep_distinct(find_similar(texts, texts, 1, SAME_TEXT)), strict=True):
            found[place] = not is_kept
    return found


def _is_other(text: str, code: str) -> bool:
    identifier = _load_identifier()
    if code not in identifier.labels or sum(map(str.isalpha, text)) < MIN_LETTERS:
        return False
    return bool(dict(identifier.rank(text)).get(code, 0.0) < MIN_PROBABILITY)


@lru_cache(maxsize=1)
def _load_identifier() -> Any:  # noqa: ANN401
    import py3langid.langid as langid

    return langid.LanguageIdentifier.from_modelpath(Path(langid.__file__).parent / langid.MODEL_FILE, norm_probs=True)
