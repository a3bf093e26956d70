"""Judge by a reward model: it scores both answers, and the score difference is the log-odds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from perspective.artifacts import Judgment, Triplet
from perspective.errors import ModelError
from perspective.judging.prompting import Prompt, fit_question
from perspective.judging.protocol import ANSWERS, Question, judgment_from_probabilities, sigmoid
from perspective.llm.batching import choose_limit
from perspective.llm.chat import render_chat
from perspective.llm.loading import LLM, load_llm
from perspective.models.registry import explain_loading
from perspective.runtime.devices import describe_precision, pick_device, pick_reading_dtype
from perspective.runtime.memory import halve_on_out_of_memory, make_batches

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STARLING_BASE = "meta-llama/Llama-2-7b-chat-hf"  # Starling-RM uses its tokenizer and architecture


class RewardJudge:
    """Compare the rewards of the answers 'Choice 1' and 'Choice 2'.

    Args:
        llm: Model and tokenizer; the model returns one score per sequence.
        instruction: The sentence that states the data set's perspective.
        orders: 2 to ask with the choices in both orders, 1 to ask in the file's order only.
        batch_size: Sequences per forward pass; chosen by device memory when None.
    """

    def __init__(self, llm: LLM, instruction: str, orders: int = 2, batch_size: int | None = None) -> None:
        self.llm = llm
        self.instruction = instruction
        self.orders = orders
        self._limit = choose_limit(llm, batch_size)
        self._score_fitting = halve_on_out_of_memory(self._score, lambda prompt: len(prompt.ids))
        self._is_starling = isinstance(llm.model, StarlingRewardModel)
        self.identity: dict[str, Any] = {"kind": "reward", "instruction": instruction, "orders": orders}
        self.facts: dict[str, Any] = {**describe_precision(llm.model), "n_prompts": 0, "n_tokens": 0}

    def judge(self, questions: Sequence[Question]) -> Iterator[Judgment]:
        """Answer the questions, each as soon as all its scores are computed."""
        scores: dict[Triplet, dict[tuple[bool, str], float]] = {}
        prompts: dict[Triplet, str] = {}
        for batch in self._make_batches(questions):
            found = self._score_fitting([prompt for prompt, _ in batch])
            for (prompt, answer), score in zip(batch, found, strict=True):
                known = scores.setdefault(prompt.triplet, {})
                known[prompt.swapped, answer] = score
                if not prompt.swapped and answer == ANSWERS[0]:
                    prompts[prompt.triplet] = prompt.text
                if len(known) == 2 * self.orders:
                    yield self._join(prompt.triplet, scores.pop(prompt.triplet), prompts.pop(prompt.triplet))

    def _join(self, triplet: Triplet, scores: dict[tuple[bool, str], float], prepared: str) -> Judgment:
        first, swapped = (
            sigmoid(scores[order, ANSWERS[0]] - scores[order, ANSWERS[1]]) if (order, ANSWERS[0]) in scores else None
            for order in (False, True)
        )
        content = ", ".join(f"{answer}: {scores[False, answer]:.3f}" for answer in ANSWERS)
        assert first is not None  # the file's order is always asked
        return judgment_from_probabilities(triplet, first, swapped, prepared, content)

    def _make_batches(self, questions: Sequence[Question]) -> Iterator[list[tuple[Prompt, str]]]:
        """Batch sequences of equal length, so that padding cannot influence a reward model."""
        items = [(question, False) for question in questions]
        if self.orders == 2:
            items += [(question.swapped(), True) for question in questions]
        rows = [(self._prepare(question, swapped, answer), answer) for question, swapped in items for answer in ANSWERS]
        rows.sort(key=lambda row: -len(row[0].ids))
        for _, same_length in groupby(rows, lambda row: len(row[0].ids)):
            yield from make_batches(same_length, lambda row: len(row[0].ids), self._limit)

    def _prepare(self, question: Question, swapped: bool, answer: str) -> Prompt:
        def render(user: str) -> str:
            if self._is_starling:
                # The prompt format of its published model card.
                return f"<s>[INST] {user} </s> [/INST] {answer}</s>"
            return render_chat(self.llm.tokenizer, user, answer)

        def tokenize(text: str) -> list[int]:
            # As in the model card, the tokenizer adds a second BOS token; chat templates contain their own.
            return list(self.llm.tokenizer(text, add_special_tokens=self._is_starling)["input_ids"])

        return fit_question(self.llm, question, self.instruction, swapped, render, tokenize)

    @torch.inference_mode()
    def _score(self, prompts: Sequence[Prompt]) -> list[float]:
        ids = torch.tensor([prompt.ids for prompt in prompts], device=self.llm.device)
        scores = self.llm.model(ids, attention_mask=torch.ones_like(ids)).logits[:, 0]
        self.facts["n_prompts"] += len(prompts)
        self.facts["n_tokens"] += ids.numel()
        return list(scores.float().tolist())


def load_reward_model(name: str, **options: Any) -> LLM:  # noqa: ANN401  as load_llm
    """Load a reward model: Starling-RM's own layout, or any sequence classifier with one output.

    Raises:
        ModelError: The classifier has several outputs, quantisation is set for Starling-RM, or loading
            fails as in `load_llm`.
    """
    if name == "starling-rm" or _has_starling_layout(Path(name)):
        if options.get("load_in", "auto") != "auto":
            raise ModelError(f"--load_in {options['load_in']}: {name} can be loaded in half precision only (14 GB)")
        return load_starling_reward_model(name, revision=options.get("revision"))
    llm = load_llm(name, auto_class="AutoModelForSequenceClassification", **options)
    n_outputs = llm.model.config.num_labels
    if n_outputs != 1:
        raise ModelError(f"{name}: a reward model has one output, this one has {n_outputs}")
    config = llm.model.config.get_text_config()
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = -1  # sequences are never padded: the score is read at the last token
    return llm


class StarlingRewardModel(nn.Module):
    """Starling-RM-7B-alpha: a Llama-2 body and a linear head without bias on the last token.

    Source: the code in the published model card, which finds the last token by the first padding
    token; here sequences have no padding. Same interface as a transformers sequence classifier.
    """

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.config: Any = body.config
        self.v_head = nn.Linear(self.config.hidden_size, 1, bias=False)

    @property
    def device(self) -> torch.device:
        """The device for inputs."""
        return self.v_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return self.v_head.weight.dtype

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:  # noqa: ANN401
        """Return `logits` `(n, 1)` for sequences `(n, length)` without padding."""
        from transformers.modeling_outputs import SequenceClassifierOutput

        states = self.body(input_ids, attention_mask=attention_mask).last_hidden_state  # (n, length, dim)
        return SequenceClassifierOutput(logits=self.v_head(states[:, -1]))


def load_starling_reward_model(name: str, revision: str | None = None) -> LLM:
    """Load Starling-RM from the hub or from a folder with the same layout.

    The layout: safetensors with keys `transformer.*` (the body, duplicated as `model.model.*`) and
    `v_head.*` (the head). Config and tokenizer are loaded from the folder if present, otherwise from
    Llama-2-7b-chat.

    Raises:
        ModelError: No safetensors, mismatched weights, or an unreachable hub.
    """
    from huggingface_hub import snapshot_download
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    with explain_loading(name):
        patterns = ["*.safetensors", "*.json", "*.model"]
        folder = (
            Path(name)
            if Path(name).is_dir()
            else Path(
                snapshot_download("berkeley-nest/Starling-RM-7B-alpha", revision=revision, allow_patterns=patterns)
            )
        )
        weights: dict[str, torch.Tensor] = {}
        for shard in sorted(folder.glob("*.safetensors")):
            weights.update(load_file(shard))
        if not weights:
            raise ModelError(
                f"{name}: published as a pickle only, which is not loaded for safety; convert it once: "
                "python -m perspective.judging.convert_reward --checkpoint FILE --output_path FOLDER; then --llm FOLDER"
            )
        base = str(folder) if (folder / "config.json").exists() else STARLING_BASE
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base)
        device = pick_device()
        dtype = pick_reading_dtype(device)
        model = StarlingRewardModel(AutoModel.from_config(AutoConfig.from_pretrained(base), dtype=dtype))
        model.load_state_dict(_rename_weights(weights), strict=True)
    model = model.to(device, dtype).eval()
    return LLM(name, model, tokenizer)


def _rename_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for key, value in weights.items():
        if key.endswith("rotary_emb.inv_freq"):
            continue  # computed, not learned; stored in older checkpoints
        for prefix in ("transformer.", "model.model."):
            if key.startswith(prefix):
                renamed["body." + key.removeprefix(prefix)] = value
        if key.startswith("v_head."):
            renamed[key] = value
    return renamed


def _has_starling_layout(folder: Path) -> bool:
    from safetensors import safe_open

    if not folder.is_dir():
        return False
    for shard in sorted(folder.glob("*.safetensors")):
        with explain_loading(str(folder)), safe_open(shard, framework="pt") as file:
            if "v_head.weight" in file.keys():  # noqa: SIM118  not a mapping
                return True
    return False
