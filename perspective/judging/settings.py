"""Which judge is asked, and how it is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perspective.artifacts import LABELS, Triplet, load_judgments
from perspective.errors import DataError, suggest_name
from perspective.judging.protocol import Judge
from perspective.judging.server import ServerJudge, ServerSettings
from perspective.models import LLMS, describe_model, slugify_model

KINDS = ("choice", "reward", "server", "recorded")
RESPONSES = ("logprob", "generate")


@dataclass(frozen=True)
class JudgeSettings:
    """Who judges."""

    llm: str = field(
        default="smollm2",
        metadata={
            "help": "smollm2, starling, starling-rm, a hub id, a folder, a .gguf file, or the name of a server's model",
            "aliases": ["--model"],
        },
    )
    judge: str | None = field(
        default=None,
        metadata={"help": "choice, reward, server or recorded; found from the other options when left out"},
    )
    recorded_path: str | None = field(
        default=None, metadata={"help": "earlier predictions, ours or published, to repeat"}
    )
    response: str = field(
        default="logprob",
        metadata={"help": "logprob compares the labels' log-probabilities; generate reads a short answer (published)"},
    )
    orders: int = field(
        default=2, metadata={"help": "2 asks with the choices in both orders, 1 in the order of the file (published)"}
    )
    judge_batch_size: int = field(default=16, metadata={"help": "prompts in one forward pass of a local LLM"})
    load_in: str = field(
        default="auto",
        metadata={"help": "8bit or 4bit on a CUDA GPU with bitsandbytes; auto for bfloat16 there, float32 on a CPU"},
    )
    llm_revision: str | None = field(default=None, metadata={"help": "branch, tag or commit of the LLM on the hub"})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "run code from the LLM's repository; only where you trust it"}
    )

    def __post_init__(self) -> None:
        """Check what argparse cannot."""
        if self.judge is not None and self.judge not in KINDS:
            raise DataError(f'--judge "{self.judge}": {suggest_name(self.judge, KINDS)}')
        if self.response not in RESPONSES:
            raise DataError(f'--response "{self.response}": {suggest_name(self.response, RESPONSES)}')
        if self.orders not in (1, len(LABELS)):
            raise DataError(f"--orders {self.orders}: choose 1 or 2")
        if self.judge_batch_size < 1:
            raise DataError(f"--judge_batch_size {self.judge_batch_size}: must be at least 1")
        if self.judge == "recorded" and not self.recorded_path:
            raise DataError("--judge recorded needs --recorded_path FILE")

    def kind(self, server: ServerSettings) -> str:
        """Return the kind of judge that the options ask for."""
        if self.judge:
            return self.judge
        if self.recorded_path:
            return "recorded"
        if server.base_url:
            return "server"
        return LLMS[self.llm].judge if self.llm in LLMS else "choice"

    def label(self, server: ServerSettings) -> str:
        """Return the judge's name as it stands in file names."""
        return "recorded" if self.kind(server) == "recorded" else slugify_model(self.llm)

    def made_from(self, server: ServerSettings) -> dict[str, Any]:
        """Return the settings that change an answer, for the provenance."""
        kind = self.kind(server)
        if kind == "recorded":
            return {"kind": kind}
        settings: dict[str, Any] = {"kind": kind, "llm": self.llm, "orders": self.orders}
        if kind != "reward":
            settings["response"] = self.response
        # A server's address is left out: the same model may move to another port.
        if kind != "server":
            settings |= {"llm_revision": self.llm_revision, "load_in": self.load_in}
        return settings


def build_judge(
    settings: JudgeSettings,
    server: ServerSettings,
    instruction: str,
    triplets: Sequence[Triplet],
    n_texts: int,
    task: str,
) -> Judge:
    """Load or connect the judge that the settings ask for.

    Args:
        settings: Who judges.
        server: Where a server is, if one judges.
        instruction: The data set's perspective.
        triplets: What will be judged; a recorded judge matches its answers to them.
        n_texts: Number of texts, to check recorded indices.
        task: Name of the data set, to refuse another's recorded answers.
    """
    kind = settings.kind(server)
    if kind == "recorded":
        from perspective.judging.recorded import RecordedJudge

        assert settings.recorded_path is not None  # checked by JudgeSettings
        return RecordedJudge(load_judgments(Path(settings.recorded_path), n_texts, task), triplets)
    if kind == "server":
        return ServerJudge(server, settings.llm, instruction, settings.orders, logprobs=settings.response == "logprob")
    options: dict[str, Any] = {
        "revision": settings.llm_revision,
        "trust_remote_code": settings.trust_remote_code,
        "load_in": settings.load_in,
    }
    judge: Judge
    if kind == "reward":
        from perspective.judging.reward import RewardJudge, load_reward_model

        judge = RewardJudge(
            load_reward_model(settings.llm, **options), instruction, settings.orders, settings.judge_batch_size
        )
    else:
        from perspective.judging.choice import ChoiceJudge
        from perspective.models import load_llm

        llm = load_llm(settings.llm, **options)
        judge = ChoiceJudge(llm, instruction, settings.orders, settings.response, settings.judge_batch_size)
    judge.facts.update(describe_model(settings.llm))
    return judge
