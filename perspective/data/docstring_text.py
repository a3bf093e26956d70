"""Split a docstring into a query (first sentence) and a document (the rest) without markup."""

from __future__ import annotations

import re

MIN_QUERY_WORDS = 4
MAX_QUERY_WORDS = 40
MIN_DOCUMENT_WORDS = 20
MAX_DOCUMENT_CHARACTERS = 600  # about 140 tokens

# Sections that name other functions or contain code; "See Also" repeats other entries' summaries.
DROPPED_SECTIONS = {"see also", "references", "examples", "example", "usage", "shape", "methods", "attributes"}
KEPT_DIRECTIVES = {"note", "warning", "tip", "important"}
BOILERPLATE = re.compile(
    r"deprecated|alias (of|for)|see (the )?(docs|documentation|help|base class|parent|superclass|super|:)|"
    r"for internal use|internal helper|same as |like :|todo|fixme|copied from|adapted from|refer to|equivalent to ",
    re.IGNORECASE,
)


def split_docstring(docstring: str) -> tuple[str, str] | None:
    """Split a docstring into its first sentence and its body, both as plain text.

    Returns:
        (summary, body), with an empty summary if it is not usable as a query; None if the body is too
        short, contains template fields, or repeats the summary.

    >>> split_docstring("Return x.")
    >>> split_docstring("Count the rows of a table. Blank rows count." + chr(10) * 2 + "word " * 20)[0]
    'Count the rows of a table.'
    """
    if re.search(r"%\(\w+\)|\{\{|\{\w+\}|\$\w+\$?\b", docstring):  # template fields
        return None
    paragraphs = re.split(r"\n[ \t]*\n", docstring.strip(), maxsplit=1)
    summary, rest = map(clean_text, _split_sentence(paragraphs[0]))
    body = " ".join(filter(None, (rest, clean_text(_drop_sections(paragraphs[1] if len(paragraphs) > 1 else "")))))
    body = _truncate(body)
    if len(body.split()) < MIN_DOCUMENT_WORDS or BOILERPLATE.match(body) or summary.lower() in body.lower():
        return None
    return (summary if _is_usable_query(summary) else ""), body


def clean_text(text: str) -> str:
    """Return a docstring's text on one line without markup.

    >>> clean_text("See :func:`~numpy.dot` and ``x``, a [`Trainer`]." + chr(10) + "----")
    'See dot and x, a Trainer.'
    """
    text = re.sub(r"[-=~^]{3,}", "", text)  # underlines and table rules
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)  # [text](address)
    text = re.sub(r"\[(`[^`]*`)\]", r"\1", text)  # [`name`]
    text = re.sub(r":[a-z:]+:(`[^`]*`)", r"\1", text)  # :role:`name`
    text = re.sub(r"`([^`<]+?)\s*<[^>`]*>`_*", r"\1", text)  # `text <address>`_
    text = re.sub(r"`~(?:\w*\.)*(\w+)`", r"\1", text)  # `~package.name` is displayed as the name only
    text = re.sub(r"`[.!]?([^`]*)`", r"\1", text)
    text = re.sub(r"(?<![*\w])\*([\w.]+)\*(?![*\w])", r"\1", text)  # *emphasis*
    text = re.sub(r"\[\d+\]_|</?[A-Z]\w*[^<>]*>|\\(?=\W)", "", text)  # [1]_, <Tip>, <Added version="2"/>
    return " ".join(text.replace("`", "").split())


def _drop_sections(text: str) -> str:
    """Drop directives, doctests and sections that name other entries."""
    kept: list[str] = []
    lines = text.split("\n")
    dropped_indent: int | None = None  # indent of the current directive or Google section
    in_dropped_section = False  # inside a numpydoc section
    for number, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        title = line.strip().rstrip(":").lower()
        underlined = number + 1 < len(lines) and re.fullmatch(r"\s*[-=~]{3,}\s*", lines[number + 1]) is not None
        if underlined:
            in_dropped_section = title in DROPPED_SECTIONS
        if dropped_indent is not None and line.strip() and indent <= dropped_indent:
            dropped_indent = None
        if in_dropped_section or dropped_indent is not None:
            continue
        directive = re.match(r"\s*\.\. ?([\w-]*)", line)
        if directive:
            if directive[1] not in KEPT_DIRECTIVES:
                dropped_indent = indent
            continue
        if line.strip().endswith(":") and title in DROPPED_SECTIONS:
            dropped_indent = indent
            continue
        if re.match(r"\s*(>>>|\.\.\. |```)", line):
            continue
        kept.append(line)
    return "\n".join(kept)


def _split_sentence(paragraph: str) -> tuple[str, str]:
    # A full stop ends a sentence at the end of a line or before a capital letter.
    match = re.search(r"(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)[.!?](?=[ \t]*\n|\s+[A-Z\"'(\[])", paragraph)
    return (paragraph[: match.end()], paragraph[match.end() :]) if match else (paragraph, "")


def _is_usable_query(summary: str) -> bool:
    words = summary.split()
    return (
        MIN_QUERY_WORDS <= len(words) <= MAX_QUERY_WORDS
        # A signature, a dotted name, markup, or an argument: "rank (int): ..."
        and not re.match(r"[\w.]+\(|[a-z_]+\.[a-z_]+|\W|[*\w]+ ?(\(.*?\))? ?:", summary)
        and not BOILERPLATE.search(summary)
        and not summary.endswith(":")
        and ">>>" not in summary
    )


def _truncate(text: str) -> str:
    if len(text) <= MAX_DOCUMENT_CHARACTERS:
        return text
    return text[:MAX_DOCUMENT_CHARACTERS].rsplit(" ", 1)[0]
