"""How much of the texts a model reads: unknown tokens, tokens per character, texts that are cut off."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass

logger = logging.getLogger(__name__)

MAX_UNKNOWN = 0.05  # of tokens; English has less than 0.01 (emoji), Korean in MiniLM 0.08
MAX_TOKENS_PER_CHAR = 1.0  # English has 0.25, Korean in a multilingual model 0.5 to 0.8, in SmolLM2 2.2

EMBEDDERS_THAT_FIT = "--embedder intfloat/multilingual-e5-small or bge-m3 reads about 100 languages"
LLMS_THAT_FIT = "an LLM for these languages, such as --llm Qwen/Qwen2.5-0.5B-Instruct, reads them better"


@dataclass
class Coverage:
    """Counts over texts, filled while they are tokenised.

    Attributes:
        n_texts: Number of texts.
        n_chars: Their characters.
        n_tokens: Their tokens that are read, without special tokens.
        n_unknown: Of these, tokens for what the vocabulary does not hold.
        n_cut: Texts of which the end is not read.
    """

    n_texts: int = 0
    n_chars: int = 0
    n_tokens: int = 0
    n_unknown: int = 0
    n_cut: int = 0

    def add(self, n_chars: int, n_tokens: int, n_unknown: int, is_cut: bool) -> None:
        """Count a text; the characters are those that the tokens stand for."""
        self.n_texts += 1
        self.n_chars += n_chars
        self.n_tokens += n_tokens
        self.n_unknown += n_unknown
        self.n_cut += is_cut

    def describe_language(self) -> str | None:
        """Say why the model seems not to read the language of the texts, or None if it does.

        >>> Coverage(n_texts=1, n_chars=100, n_tokens=25).describe_language() is None
        True
        """
        if self.n_unknown > MAX_UNKNOWN * self.n_tokens:
            return f"{self.n_unknown:,} of {self.n_tokens:,} tokens ({self.n_unknown / self.n_tokens:.0%}) are unknown"
        if self.n_tokens > MAX_TOKENS_PER_CHAR * self.n_chars:
            return f"it needs {self.n_tokens / self.n_chars:.1f} tokens a character (English: 0.25)"
        return None

    def warn(self, model: str, max_tokens: int, remedy: str, longer: str = "") -> None:
        """Log a line if the language seems not to be read, and one if texts are cut off.

        Args:
            model: Name of the model.
            max_tokens: Number of tokens of a text that it reads.
            remedy: Models that fit.
            longer: What reads more of a text, if anything.
        """
        reason = self.describe_language()
        if reason:
            logger.warning("%s seems not to read the language of these texts: %s; %s", model, reason, remedy)
        if self.n_cut:
            rest = f"; {longer}" if longer else ""
            logger.warning(
                "%s reads the first %d tokens: %s of %s texts are longer, and their ends are not read%s",
                *(model, max_tokens, f"{self.n_cut:,}", f"{self.n_texts:,}", rest),
            )

    def facts(self) -> dict[str, dict[str, int]]:
        """Return the counts for the provenance."""
        return {"coverage": asdict(self)}
