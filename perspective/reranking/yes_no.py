"""A causal LM as a reranker without training: the log-odds that the document answers the query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from tqdm import tqdm

from perspective.llm.batching import batch_by_length
from perspective.llm.chat import fit_texts, list_special_tokens, make_harmless, render_chat
from perspective.llm.labels import LabelReader, find_yes_no_token_ids
from perspective.llm.loading import LLM
from perspective.runtime.memory import BatchLimit

PAIRS_AT_A_TIME = 64  # enough to share the beginnings of a query's prompts


class YesNoReranker:
    """Score a document by log p(Yes) - log p(No), the answer to whether it answers the query.

    The query is before the document, so that the prompts of a query share their beginning, which is
    computed once. Source of the way of asking: "Document Ranking with a Pretrained
    Sequence-to-Sequence Model" (Nogueira et al., 2020), section 3.

    Args:
        llm: Model and tokenizer.

    Raises:
        ModelError: The tokenizer cannot tell Yes from No.
    """

    def __init__(self, llm: LLM) -> None:
        self.llm = llm
        self._markers = list_special_tokens(llm.tokenizer)
        prompt = self._render(["x", "y"])
        self._begin, label_ids = find_yes_no_token_ids(llm.tokenizer, prompt)
        self._labels = LabelReader(llm, label_ids, {"n_prompts": 0, "n_tokens": 0})

    def predict(self, inputs: list[tuple[str, str]], **options: Any) -> Any:  # noqa: ANN401
        """Return one score for each (query, document), float32 `(n_pairs,)`.

        Args:
            inputs: Queries with their documents.
            **options: As those of `CrossEncoder.predict`; with an `activation_fn`, scores are log-odds, as
                they are before a CrossEncoder's sigmoid, and without one the probability of Yes. A tensor
                with `convert_to_tensor`, as mining has it.
        """
        prompts = [self._prepare(pair) for pair in inputs]
        limit = BatchLimit(items=options.get("batch_size") or math.inf)  # the reader limits batches by memory
        log_odds = np.empty(len(prompts), dtype=np.float32)
        with tqdm(total=len(prompts), desc="asking", unit="pair", disable=not options.get("show_progress_bar")) as bar:
            for start in range(0, len(prompts), PAIRS_AT_A_TIME):
                block = range(start, min(start + PAIRS_AT_A_TIME, len(prompts)))
                for rows in batch_by_length(block, lambda row: prompts[row], limit):
                    log_odds[rows] = self._labels.read([prompts[row] for row in rows])
                    bar.update(len(rows))
        scores = log_odds if options.get("activation_fn") is not None else expit(log_odds)
        return torch.from_numpy(scores) if options.get("convert_to_tensor") else scores

    def _prepare(self, pair: Sequence[str]) -> tuple[int, ...]:
        def tokenize(text: str) -> list[int]:
            # The template already contains the special tokens.
            return list(self.llm.tokenizer(text + self._begin, add_special_tokens=False)["input_ids"])

        return fit_texts(self.llm, pair, self._render, tokenize)[1]

    def _render(self, texts: Sequence[str]) -> str:
        query, document = (make_harmless(text, self._markers) for text in texts)
        message = (
            f"Query: {query}\nDocument: {document}\n\n"
            "Does the document answer the query? Please respond with 'Yes' or 'No' without explanation."
        )
        # A trailing space would change the tokenization of the answer.
        return render_chat(self.llm.tokenizer, message).rstrip(" ")
