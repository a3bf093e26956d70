"""Examples: what was asked, what the LLM wrote, and why it is not used if it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perspective.artifacts import Output
from perspective.artifacts.jsonl import read_jsonl, read_text, write_jsonl
from perspective.artifacts.writing import replace_surrogates
from perspective.errors import DataError
from perspective.synthesis.forms import GROUNDED, TYPES, TypeName, read_reply
from perspective.synthesis.questions import Prompter, WritingRequest


@dataclass(frozen=True)
class Example:
    """A reply with its question.

    Attributes:
        kind: Type of the example.
        number: Among those of its type.
        values: Attributes, language codes and task of the question; not the document.
        passage: Id of the document of a grounded example.
        texts: Query, document and hard negative, as far as the type has them; empty if the reply has a fault.
        reply: What the LLM wrote, if it has a fault.
        fault: Why the example is not used; "" if it is.
    """

    kind: TypeName
    number: int
    values: Mapping[str, str]
    passage: str = ""
    texts: tuple[str, ...] = ()
    reply: str = ""
    fault: str = ""

    def reject(self, fault: str) -> Example:
        """Return the example with a reason against it."""
        return replace(self, fault=fault)


def read_examples(
    questions: Sequence[WritingRequest], replies: Sequence[str | None], prompter: Prompter
) -> list[Example]:
    """Check all replies against their forms; questions without one (None) make no example."""
    known = {kind: prompter.known(kind) for kind in {question.kind for question in questions}}
    examples = []
    for question, reply in zip(questions, replies, strict=True):
        if reply is None:
            continue
        texts, fault = read_reply(question.kind, reply, known[question.kind])
        values = {name: value for name, value in question.values.items() if name != "document"}
        kept = "" if texts else reply
        examples.append(Example(question.kind, question.number, values, question.passage, tuple(texts), kept, fault))
    return examples


def save_examples(output: Output, examples: Sequence[Example]) -> None:
    """Write examples as jsonl."""
    with output.open() as temporary:
        write_jsonl(temporary, map(_write_record, examples))


def load_examples(path: Path) -> list[Example]:
    """Read examples.

    Raises:
        DataError: With file, line and cause.
    """
    examples = []
    for place, record in read_jsonl(path):
        kind = read_text(record, "type", place)
        texts, values = record.get("texts", []), record.get("values", {})
        if kind not in TYPES or not isinstance(values, dict) or not _are_texts([*values.values()]):
            raise DataError(f'{place}: not an example (type "{kind:.40}")')
        if not isinstance(texts, list) or not _are_texts(texts) or (not texts and not record.get("fault")):
            raise DataError(f'{place}: "texts" must be a list of texts')
        fields = {name: str(record.get(name, "")) for name in ("passage", "reply", "fault")}
        examples.append(Example(kind, int(record.get("number", 0)), values, texts=tuple(texts), **fields))
    return examples


def _are_texts(values: Sequence[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _write_record(example: Example) -> dict[str, Any]:
    record: dict[str, Any] = {"type": example.kind, "number": example.number, "values": dict(example.values)}
    record |= {"passage": example.passage} if example.kind == GROUNDED else {}
    record |= {"texts": list(example.texts)} if example.texts else {"reply": replace_surrogates(example.reply)}
    return {**record, "fault": example.fault} if example.fault else record
