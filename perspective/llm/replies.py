"""A log of an LLM's replies, so that nothing is asked twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from perspective.artifacts.jsonl import append_jsonl, drop_cut_line, read_jsonl
from perspective.artifacts.writing import replace_surrogates
from perspective.llm.server.budget import read_counts, take_counts

Ask = TypeVar("Ask", contravariant=True)


class Replier(Protocol[Ask]):
    """An LLM that replies to questions of one kind.

    Attributes:
        facts: Counters of tokens and requests.
    """

    facts: dict[str, Any]

    def write_prompt(self, ask: Ask) -> str:
        """Return the prompt of what is asked; equal prompts get equal replies."""

    def reply(self, asks: Sequence[Ask]) -> Iterator[tuple[int, str]]:
        """Yield (position, reply) in any order, each as soon as it is there; those that failed are left out."""


class ReplyLog:
    """Replies by prompt, one line each, appended as soon as they are there.

    It stays beside the result: when the questions change, only new prompts are asked. Use it while no other
    process writes to it.

    Args:
        path: The log.
        identity: LLM, revision and precision; replies of others are not used.
        facts: Counters of the LLM, continued from the log.
        purpose: Shown with the progress.
    """

    def __init__(self, path: Path, identity: dict[str, Any], facts: dict[str, Any], purpose: str = "asking") -> None:
        self._path = path
        self._purpose = purpose
        self._identity = json.dumps(identity, sort_keys=True)
        self._facts = facts
        self._replies: dict[str, str] = {}
        if not path.exists():
            return
        drop_cut_line(path)
        counted: Any = {}
        for _, record in read_jsonl(path):
            if isinstance(record.get("reply"), str):
                self._replies[str(record.get("key"))] = record["reply"]
            if record.get("identity") == self._identity:
                counted = record.get("counted")
        facts |= read_counts(counted)

    def find(self, llm: Replier[Ask], asks: Sequence[Ask]) -> list[str]:
        """Return the replies that are there already, in order; empty where there is none."""
        return [self._replies.get(self._key(llm.write_prompt(ask)), "") for ask in asks]

    def ask(self, llm: Replier[Ask], asks: Sequence[Ask]) -> list[str | None]:
        """Return the reply to each, in order; None for those that failed or are beyond the budget."""
        keys = [self._key(llm.write_prompt(ask)) for ask in asks]
        places = {key: place for place, key in enumerate(keys) if key not in self._replies}
        if "n_answered" in llm.facts:
            llm.facts["n_answered"] += len(set(keys)) - len(places)
        if places:
            open_asks = [asks[place] for place in places.values()]
            open_keys = list(places)
            self._path.parent.mkdir(parents=True, exist_ok=True)
            progress = tqdm(
                total=len(set(keys)), initial=len(set(keys)) - len(places), desc=self._purpose, unit="prompt"
            )
            with progress, self._path.open("a", encoding="utf-8") as log:
                written = take_counts(self._facts)
                replies = llm.reply(open_asks)
                try:
                    for place, reply in replies:
                        written = take_counts(self._facts)
                        self._replies[open_keys[place]] = reply
                        record = {"key": open_keys[place], "reply": replace_surrogates(reply)}
                        append_jsonl(log, {**record, "identity": self._identity, "counted": written})
                        progress.update()
                finally:
                    if hasattr(replies, "close"):
                        replies.close()  # counts the requests that are cancelled
                    if take_counts(self._facts) != written:
                        append_jsonl(log, {"identity": self._identity, "counted": take_counts(self._facts)})
        return [self._replies.get(key) for key in keys]

    def _key(self, prompt: str) -> str:
        return hashlib.sha256(f"{self._identity}\n{prompt}".encode("utf-8", "replace")).hexdigest()
