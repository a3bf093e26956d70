"""The form of an example of each type, and how a reply is checked against it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perspective.artifacts.jsonl import is_blank
from perspective.artifacts.reading import parse_json
from perspective.data.pairs import Pair
from perspective.errors import DataError

TypeName = Literal["grounded", "short_long", "long_short", "short_short", "long_long", "sts", "bitext"]
TYPES: tuple[TypeName, ...] = get_args(TypeName)
GROUNDED: TypeName = "grounded"
FREE = TYPES[1:]  # the document is written too
BRAINSTORMED: tuple[TypeName, ...] = ("short_long", "long_short", "short_short", "long_long")

_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_FAULTS = {"missing": "a field is missing", "extra_forbidden": "an unknown field", "string_type": "not a text"}


class Form(BaseModel):
    """One example: texts in the order query, document, hard negative; the last may be missing.

    Attributes:
        max_new_tokens: Longest reply.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    max_new_tokens: ClassVar[int]

    def texts(self) -> list[str]:
        """Return the texts in order."""
        return list(self.model_dump().values())


class Grounded(Form):
    """The query of a document that is there."""

    max_new_tokens = 64
    query: str = Field(description="the query")


class ShortLong(Form):
    """A short query and longer documents."""

    max_new_tokens = 900
    query: str = Field(description="the query")
    positive: str = Field(description="a document that answers it")
    hard_negative: str = Field(description="a document that only seems to")


class LongShort(Form):
    """A text and labels."""

    max_new_tokens = 400
    text: str = Field(description="the text")
    label: str = Field(description="its label")
    misleading_label: str = Field(description="a label that does not fit")


class Match(Form):
    """Two short texts that belong together."""

    max_new_tokens = 120
    text: str = Field(description="the first text")
    match: str = Field(description="the text that belongs to it")


class LongMatch(Match):
    """Two long texts that belong together."""

    max_new_tokens = 800


class Similar(Form):
    """A sentence and two that are more and less similar."""

    max_new_tokens = 400
    sentence: str = Field(description="the first text")
    similar: str = Field(description="the more similar text")
    less_similar: str = Field(description="the less similar text")


class Translated(Form):
    """A text, its translation and a wrong one."""

    max_new_tokens = 500
    source: str = Field(description="the text")
    translation: str = Field(description="its translation")
    wrong_translation: str = Field(description="a fluent translation with a mistake")


FORMS: dict[TypeName, type[Form]] = {
    "grounded": Grounded,
    "short_long": ShortLong,
    "long_short": LongShort,
    "short_short": Match,
    "long_long": LongMatch,
    "sts": Similar,
    "bitext": Translated,
}


def describe_form(kind: TypeName) -> str:
    """Return how a reply must look, in words.

    >>> describe_form("grounded")
    'Reply with one JSON object and nothing else: {"query": the query}'
    """
    fields = ", ".join(f'"{name}": {field.description}' for name, field in FORMS[kind].model_fields.items())
    return f"Reply with one JSON object and nothing else: {{{fields}}}"


def response_format(kind: TypeName) -> dict[str, Any]:
    """Return the schema that a server may enforce, as OpenAI's API takes it."""
    return {
        "type": "json_schema",
        "json_schema": {"name": kind, "strict": True, "schema": FORMS[kind].model_json_schema()},
    }


def read_reply(kind: TypeName, reply: str, known: Collection[str] = ()) -> tuple[list[str], str]:
    """Read an example strictly: one JSON object of the right fields, alone or in one code block.

    Args:
        kind: Type of the example.
        reply: What the LLM wrote.
        known: Normalised texts that were shown in the prompt as examples.

    Returns:
        The texts, and ""; or no texts, and what is wrong with the reply.

    >>> read_reply("short_short", '{"text": "Which sea has no coast?", "match": "the Sargasso Sea"}')
    (['Which sea has no coast?', 'the Sargasso Sea'], '')
    >>> read_reply("grounded", "Sure! A query is: how?"), read_reply("grounded", '{"query": "how')
    (([], 'not JSON'), ([], 'JSON that is cut off'))
    """
    reply = reply.strip()
    fenced = _FENCE.fullmatch(reply)
    text = fenced[1] if fenced else reply
    if not text:
        return [], "no reply"
    try:
        texts = [one.strip() for one in FORMS[kind].model_validate(parse_json(text, "reply")).texts()]
    except DataError:
        return [], "JSON that is cut off" if text.startswith("{") and "}" not in text else "not JSON"
    except ValidationError as error:
        return [], _FAULTS.get(error.errors()[0]["type"], "not an object")
    if any(map(is_blank, texts)):
        return [], "an empty field"
    normalized = [normalize_text(one) for one in texts]
    if len(set(normalized)) < len(normalized):
        return [], "the same text twice"
    if not set(normalized).isdisjoint(known):
        return [], "copied from the prompt"
    return texts, ""


def normalize_text(text: str) -> str:
    """Return a text by which exact duplicates are found.

    >>> normalize_text("How do I  top up?"), normalize_text("how do i top up")
    ('how do i top up', 'how do i top up')
    """
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def make_pair(kind: TypeName, texts: list[str], document: str | None = None) -> Pair:
    """Return an example as a training pair of stage 6.

    Args:
        kind: Type of the example.
        texts: Its texts, as `read_reply` returns them.
        document: The real document of a grounded example.
    """
    query, *rest = texts
    positive, *negatives = [document, *rest] if document is not None else rest
    return Pair(query, positive, tuple(negatives), source=kind)
