"""Settings of the judge, its name in files, and its construction."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perspective.artifacts import JudgeRecord, Triplet, load_judgments, read_judge
from perspective.artifacts.names import slugify_model
from perspective.errors import DataError
from perspective.judging.protocol import Judge, Wording
from perspective.layout import states_path
from perspective.llm.server.settings import ServerSettings
from perspective.models.registry import LLMS, describe_model, find_local
from perspective.options import DatasetOptions, LLMOptions, VectorOptions, option
from perspective.runtime.devices import reading_precision

if TYPE_CHECKING:
    import numpy as np

Kind = Literal["answer", "pair", "choice", "reward", "server", "recorded", "oracle"]
LOCAL_KINDS = ("answer", "pair", "choice", "reward")  # with a local LLM
WRITTEN = ("reason", "json")


@dataclass(frozen=True)
class JudgeSettings(LLMOptions):
    """The judge and its settings."""

    judge: Kind | None = option(
        "answer (compares the answer states of read_states; default for a local LLM), pair (do two texts share it?), "
        "choice (which one is closer?), reward, server or recorded; inferred from the other options by default; "
        "oracle answers by the labels and is for analysis only",
        default=None,
        group="model",
    )
    recorded_path: str | None = option("earlier predictions to reuse, ours or published", default=None, group="input")
    response: Literal["logprob", "generate", "reason", "json"] = option(
        "for choice: logprob compares the labels' log-probabilities; generate parses a short answer "
        "(published); reason generates an explanation first; json requires a JSON answer",
        default="logprob",
    )
    orders: Literal[1, 2] = option(
        "2 asks with the choices in both orders, 1 in the file's order only (published)", default=2
    )
    oracle_noise: float = option("share of the oracle's answers that are inverted", default=0.0)

    def __post_init__(self) -> None:
        """Check combinations of options."""
        if self.judge == "recorded" and not self.recorded_path:
            raise DataError("--judge recorded needs --recorded_path FILE")
        if self.recorded_path and self.judge not in (None, "recorded"):
            raise DataError(f"--recorded_path: replaces --judge {self.judge}; give only one of them")

    def kind(self, server: ServerSettings) -> Kind:
        """Return the kind of judge that the options select.

        Raises:
            DataError: A server is given with a kind that a server cannot provide.
        """
        if server.base_url:
            if self.recorded_path:
                raise DataError("--recorded_path: replaces --base_url; give only one of them")
            if self.judge not in (None, "server", "choice"):
                raise DataError(f"--judge {self.judge}: servers only support choices; give only one of both")
            return "server"
        if self.judge:
            return self.judge
        return "recorded" if self.recorded_path else default_kind(self.llm)

    def inputs(self, server: ServerSettings) -> dict[str, Path]:
        """Return the local input files of the judge: a local LLM or recorded answers."""
        kind = self.kind(server)
        if kind == "recorded":
            return {"recorded": Path(self.recorded_path or "")}
        return find_local(llm=self.llm) if kind in LOCAL_KINDS else {}

    def label(self, server: ServerSettings) -> str:
        """Return the judge's name in file names: the LLM, and the kind if it is not the default."""
        return name_judge_files(self.llm, self.kind(server), self.response, self.oracle_noise)

    def precision(self, server: ServerSettings) -> str | None:
        """Return the precision of a local LLM, and of its labels' scores if it is another; None for other judges."""
        kind = self.kind(server)
        if kind not in LOCAL_KINDS:
            return None
        precision = reading_precision()
        scores_labels = kind == "pair" or (kind == "choice" and self.response == "logprob")
        return f"{precision}, labels in float32" if scores_labels and precision != "float32" else precision

    def made_from(self, server: ServerSettings) -> dict[str, Any]:
        """Return the settings that change an answer, for the fingerprint.

        A server's address is not included, because the same model can move to another port. Budget
        and prices are not included, because they change the number of questions but no answer.
        """
        kind = self.kind(server)
        if kind == "recorded":
            return {"kind": kind}
        if kind == "oracle":
            return {"kind": kind, "oracle_noise": self.oracle_noise, "uses_labels": True}
        settings: dict[str, Any] = {"kind": kind, "llm": self.llm}
        if kind in ("choice", "reward", "server"):
            settings["orders"] = self.orders
        if kind in ("choice", "server"):
            settings["response"] = self.response
        if kind in LOCAL_KINDS:
            settings |= {"llm_revision": self.llm_revision, "load_in": self.load_in}
        return settings


@dataclass(frozen=True)
class StatesOptions(VectorOptions):
    """Vectors, and the answer states that are used with them."""

    states_path: str | None = option(
        "answer states as .npy; default: those of --states_llm", default=None, group="input"
    )
    states_llm: str | None = option(
        'LLM whose answer states are used; default: --llm; "none" to use none', default=None, group="input"
    )

    def find_states(self, data: DatasetOptions, llm: str) -> Path | None:
        """Return the file of answer states; None if none are used."""
        if self.states_llm == "none" and not self.states_path:
            return None
        name = name_judge_files(self.states_llm, "answer") if self.states_llm else llm
        return Path(self.states_path or states_path(data.dataset, data.scale, name))


def default_kind(llm: str) -> Kind:
    """Return the default kind of judge for an LLM."""
    return LLMS[llm].judge if llm in LLMS else "answer"


def name_judge_files(llm: str, kind: Kind, response: str = "logprob", oracle_noise: float = 0.0) -> str:
    """Return a judge's name in file names.

    >>> name_judge_files("org/Starling", "answer"), name_judge_files("smollm2", "choice", "json")
    ('starling', 'smollm2-choice-json')
    >>> name_judge_files("org/Starling", "server")
    'starling-server'
    """
    if kind == "recorded":
        return kind
    if kind == "oracle":
        return f"oracle-{oracle_noise:g}"
    parts = [llm.rstrip("/")]
    if kind != default_kind(llm):
        parts.append(kind)
    if kind == "choice" and response in WRITTEN:
        parts.append(response)
    return slugify_model("-".join(parts))


def record_judge(name: str, identity: Mapping[str, Any], figures: Mapping[str, Any]) -> JudgeRecord:
    """Return the record of a judge that later stages read.

    Args:
        name: The judge's name in file names.
        identity: `Judge.identity`: kind, orders and other settings.
        figures: Tokens, requests, money, reliability.
    """
    asked = dict(identity)
    kind, orders, uses_labels = asked.pop("kind"), asked.pop("orders", 1), asked.pop("uses_labels", False)
    return JudgeRecord(name=name, kind=kind, orders=orders, uses_labels=uses_labels, asked=asked, figures=dict(figures))


@dataclass(frozen=True)
class JudgingTask:
    """Data for a judge.

    Attributes:
        dataset: Name of the data set, to refuse recorded answers of another.
        wording: The wording of its perspective.
        texts: All texts.
        triplets: The triplets to judge.
        states: Answer states `(n_texts, hidden)`, for the answer judge only.
    """

    dataset: str
    wording: Wording
    texts: Sequence[str]
    triplets: Sequence[Triplet]
    states: np.ndarray | None = None


def build_judge(settings: JudgeSettings, server: ServerSettings, task: JudgingTask) -> Judge:
    """Build the judge that the settings select.

    Args:
        settings: Settings of the judge.
        server: Settings of the server, used by the server judge only.
        task: Data to judge.
    """
    kind = settings.kind(server)
    if kind == "recorded":
        return _build_recorded_judge(Path(settings.recorded_path or ""), task)
    if kind == "oracle":
        from perspective.judging.oracle import OracleJudge

        return OracleJudge(task.triplets, settings.oracle_noise, seed=0)
    if kind == "answer":
        from perspective.judging.answer import AnswerJudge

        if task.states is None:
            raise DataError("--judge answer needs answer states, and there are none; run read_states first")
        return AnswerJudge(task.states, task.triplets, {"perspective": task.wording.perspective, "llm": settings.llm})
    if kind == "server":
        from perspective.judging.server import ServerJudge

        if settings.response in WRITTEN:
            raise DataError(f"--response {settings.response}: only for a local LLM; servers take logprob, generate")
        logprobs = settings.response == "logprob"
        return ServerJudge(server, settings.llm, task.wording.instruction, settings.orders, logprobs)
    return _build_local_judge(settings, kind, task.wording)


def _build_recorded_judge(path: Path, task: JudgingTask) -> Judge:
    from perspective.judging.recorded import RecordedJudge

    recorded = load_judgments(path, task.texts, task.dataset)
    return RecordedJudge(recorded, task.triplets, read_judge(path))


def _build_local_judge(settings: JudgeSettings, kind: Kind, wording: Wording) -> Judge:
    judge: Judge
    if kind == "reward":
        from perspective.judging.reward import RewardJudge, load_reward_model

        judge = RewardJudge(load_reward_model(settings.llm, **settings.loading()), wording.instruction, settings.orders)
    else:
        from perspective.llm.loading import load_llm

        llm = load_llm(settings.llm, **settings.loading())
        if kind == "pair":
            from perspective.judging.pair import PairJudge

            judge = PairJudge(llm, wording.perspective)
        else:
            from perspective.judging.choice import ChoiceJudge

            judge = ChoiceJudge(llm, wording.instruction, settings.orders, settings.response)
    judge.facts.update(describe_model(settings.llm))
    return judge


if __name__ == "__main__":  # for scripts: print the judge's kind and its name in file names
    from perspective.cli import entry_point, parse_settings

    @entry_point
    def main(argv: Sequence[str] | None = None) -> None:
        """Name the judge."""
        judge, server = parse_settings((JudgeSettings, ServerSettings), argv, __doc__)
        sys.stdout.write(f"{judge.kind(server)} {judge.label(server)}\n")

    main()
