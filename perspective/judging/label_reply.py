"""Read the choice and its probability from a chat server's reply."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from perspective.artifacts import LABELS
from perspective.judging.protocol import parse_answer, sigmoid
from perspective.llm.server.reply import REASONING_BEGIN, Reply, skip_reasoning

# Text allowed before the label: nothing or "Choice", with optional quotes or emphasis.
_BEFORE_LABEL = re.compile(r"(?:^|\bchoice)[\s:#*_\"'(\[]*$", re.IGNORECASE)


def read_probability(reply: Reply) -> float | None:
    """Return the probability of choice 1 at the token that names the choice.

    Returns None if there are no log-probabilities or no such token, or if the text names both choices
    or neither: that is no answer, whatever the token probabilities.
    """
    if not parse_answer(reply.content):
        return None
    before = ""
    for token in reply.tokens:
        if token.text.strip() in LABELS and _begins_label(before):
            listed = token.top
            if token.text not in dict(listed):
                listed = (*listed, (token.text, token.log_probability))
            return compare_labels(listed)
        before += token.text
    return None


def _begins_label(before: str) -> bool:
    before = skip_reasoning(before)
    return REASONING_BEGIN not in before and bool(_BEFORE_LABEL.search(before))


def compare_labels(listed: Sequence[tuple[str, float]]) -> float | None:
    """Return the probability of label 1 against label 2 from the most likely tokens.

    The list is truncated. A missing label is at most as likely as the least likely token in the list,
    and gets that token's log-probability.

    Args:
        listed: Tokens with their log-probabilities; a label can have several spellings ("1", " 1").

    Returns:
        The probability; None if the list does not allow a comparison.

    >>> round(compare_labels([("1", -0.2), (" 2", -1.7), ("The", -5.0)]), 3)
    0.818
    >>> round(compare_labels([("2", -0.1), ("Both", -3.1)]), 3)
    0.047
    """
    # OpenAI writes -9999 for 'very unlikely', which does not show the cut-off of the list.
    known = [(token.strip(), value) for token, value in listed if math.isfinite(value) and value > -9999]
    if len(known) < 2:
        return None
    cut = min(value for _, value in known)
    first, second = (_add_up([value for token, value in known if token == label]) for label in LABELS)
    if first is None and second is None:
        return None
    return sigmoid((cut if first is None else first) - (cut if second is None else second))


def _add_up(log_probabilities: Sequence[float]) -> float | None:
    if not log_probabilities:
        return None
    largest = max(log_probabilities)
    return largest + math.log(sum(math.exp(value - largest) for value in log_probabilities))
