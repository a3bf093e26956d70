"""Put content, styles and scripts into one HTML file that needs no network and runs nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perspective.artifacts.writing import replace_surrogates

FOLDER = Path(__file__).parent
SCRIPTS = ("data.js", "map.js", "panels.js", "main.js")
PLACE = re.compile(r"\{\{(\w+)\}\}")
# Inside <script>, HTML ends at "</script>" and JavaScript of old at U+2028 and U+2029; JSON may write any as \uXXXX.
ESCAPED = {char: f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def hash_parts() -> str:
    """Return the hash of the page's own files: another version of them makes another page."""
    parts = ("page.html", "style.css", *SCRIPTS)
    return _hash("".join((FOLDER / name).read_text(encoding="utf-8") for name in parts))


def assemble_page(content: Mapping[str, Any]) -> str:
    """Return the page.

    The content security policy allows only the page's own script and styles, by their hash: a script in a text
    or a name could not run even if it became part of the document, and nothing can be requested.

    Args:
        content: What the scripts read, as JSON.
    """
    style = (FOLDER / "style.css").read_text(encoding="utf-8")
    script = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    parts = {
        "policy": f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        "title": html.escape(replace_surrogates(str(content["title"]))),
        "style": style,
        "data": dump_for_html(content),
        "script": script,
    }
    template = (FOLDER / "page.html").read_text(encoding="utf-8")
    return PLACE.sub(lambda match: parts[match[1]], template)  # in one pass: a text may hold "{{script}}"


def dump_for_html(value: Any) -> str:  # noqa: ANN401  whatever JSON holds
    r"""Return JSON that HTML cannot take for anything else.

    >>> dump_for_html(["</script>", "a & b"])
    '["\\u003c/script\\u003e","a \\u0026 b"]'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return re.sub(r"[<>&\u2028\u2029]", lambda match: ESCAPED[match[0]], replace_surrogates(text))


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
