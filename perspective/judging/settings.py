"""Which judge is asked, and how it is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from perspective.artifacts import Output, Triplet, load_judgments, read_facts
from perspective.errors import DataError
from perspective.judging.protocol import Judge, Wording
from perspective.layout import slugify_model
from perspective.llm.loading import load_llm
from perspective.llm.server.settings import ServerSettings
from perspective.models.embedding import embed_by_name
from perspective.models.registry import LLMS, describe_model, find_local
from perspective.options import option
from perspective.runtime.ray import EngineSettings

Kind = Literal["answer", "pair", "choice", "reward", "server", "recorded", "oracle"]
WRITTEN = ("reason", "json")


@dataclass(frozen=True)
class JudgeSettings:
    """Who judges."""

    llm: str = option(
        "smollm2, starling, starling-rm, a hub id, a folder, a .gguf file, or the name of a server's model",
        default="smollm2",
        group="model",
        aliases=("--model",),
    )
    judge: Kind | None = option(
        "answer (reads each text once; the default for a local LLM), pair (do these two share it?), "
        "choice (which one is closer?), reward, server, recorded; found from the other options when left out; "
        "oracle answers by the labels and is for analysis alone",
        default=None,
        group="model",
    )
    answer_form: Literal["state", "distribution", "phrase"] = option(
        "what answer reads: state (hidden state where the answer begins), distribution (of its first "
        "token) or phrase (a few words, embedded by the embedder)",
        default="state",
    )
    answer_layer: int = option("layer of the state, counted from the input; -1 the last", default=-1)
    oracle_noise: float = option("share of the oracle's answers that are turned round", default=0.0)
    recorded_path: str | None = option("earlier predictions, ours or published, to repeat", default=None, group="input")
    response: Literal["logprob", "generate", "reason", "json"] = option(
        "of choice: logprob compares the labels' log-probabilities; generate reads a short answer "
        "(published); reason lets the LLM think in words first; json forces the answer into JSON",
        default="logprob",
    )
    orders: Literal[1, 2] = option(
        "2 asks with the choices in both orders, 1 in the order of the file (published)", default=2
    )
    judge_batch_size: int | None = option(
        "prompts in one forward pass of a local LLM; left out, 16 on a CPU, by its memory on a GPU",
        default=None,
        group="scale",
    )
    load_in: Literal["auto", "8bit", "4bit"] = option(
        "8bit or 4bit on a CUDA GPU with bitsandbytes; auto for half precision where the device is fast in "
        "it, else float32",
        default="auto",
        group="model",
    )
    llm_revision: str | None = option("branch, tag or commit of the LLM on the hub", default=None, group="model")
    trust_remote_code: bool = option(
        "run code from the LLM's repository; only where you trust it", default=False, group="model"
    )

    def __post_init__(self) -> None:
        """Check what argparse cannot."""
        if self.judge_batch_size is not None and self.judge_batch_size < 1:
            raise DataError(f"--judge_batch_size {self.judge_batch_size}: must be at least 1")
        if self.judge == "recorded" and not self.recorded_path:
            raise DataError("--judge recorded needs --recorded_path FILE")
        if self.recorded_path and self.judge not in (None, "recorded"):
            raise DataError(f"--recorded_path: its answers take the place of --judge {self.judge}; leave one out")

    def loading(self) -> dict[str, Any]:
        """Return how a local LLM is loaded."""
        return {
            "revision": self.llm_revision,
            "trust_remote_code": self.trust_remote_code,
            "load_in": self.load_in,
        }

    def kind(self, server: ServerSettings) -> str:
        """Return the kind of judge that the options ask for.

        Raises:
            DataError: A server is given, and a kind that needs more than a server's answers.
        """
        if server.base_url:
            if self.judge not in (None, "server", "choice"):
                raise DataError(f"--judge {self.judge}: not by a server, which is asked for choices; leave one out")
            return "server"
        if self.judge:
            return self.judge
        return "recorded" if self.recorded_path else default_kind(self.llm)

    def inputs(self, server: ServerSettings) -> dict[str, Path]:
        """Return what the answers come from that lies here: a local LLM's files, recorded answers."""
        kind = self.kind(server)
        if kind == "recorded":
            return {"recorded": Path(self.recorded_path or "")}
        return {} if kind in ("server", "oracle") else find_local(llm=self.llm)

    def label(self, server: ServerSettings) -> str:
        """Return the judge's name as it stands in file names: the LLM's, and the kind where it is another."""
        kind = self.kind(server)
        if kind == "recorded":
            return kind
        if kind == "oracle":
            return f"oracle-{self.oracle_noise:g}"
        parts = [self.llm.rstrip("/")]
        if kind not in ("server", default_kind(self.llm)):
            parts.append(kind)
        if kind == "choice" and self.response in WRITTEN:
            parts.append(self.response)
        return slugify_model("-".join(parts))

    def made_from(self, server: ServerSettings) -> dict[str, Any]:
        """Return the settings that change an answer, for the provenance."""
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
        if kind == "answer":
            settings |= {"answer_form": self.answer_form, "answer_layer": self.answer_layer}
        # A server's address is left out: the same model may move to another port.
        if kind != "server":
            settings |= {"llm_revision": self.llm_revision, "load_in": self.load_in}
        elif server.budget is not None:
            settings["budget"] = server.budget
        return settings


def default_kind(llm: str) -> str:
    """Return how an LLM is asked where nothing else is said."""
    return LLMS[llm].judge if llm in LLMS else "answer"


@dataclass(frozen=True)
class JudgingTask:
    """What is to be judged.

    Attributes:
        dataset: Name of the data set, to refuse another's recorded answers.
        wording: Its perspective.
        texts: All texts.
        triplets: The questions about them.
        states: The file of the answer states, made where it is not there; None for other judges.
        embedder: Embeds the phrases of an answer judge.
        overwrite: Whether answer states that are there are read anew.
        engine: Where the answer states are read; in this process when None.
    """

    dataset: str
    wording: Wording
    texts: Sequence[str]
    triplets: Sequence[Triplet]
    states: Output | None
    embedder: str
    overwrite: bool = False
    engine: EngineSettings | None = None


def build_judge(settings: JudgeSettings, server: ServerSettings, case: JudgingTask) -> Judge:
    """Load or connect the judge that the settings ask for.

    Args:
        settings: Who judges.
        server: Where a server is, if one judges.
        case: What is judged.
    """
    kind = settings.kind(server)
    if case.engine and case.engine.engine == "ray" and kind != "answer":
        raise DataError(f"--engine ray: for the judge answer, not {kind}; servers scale by several --base_url")
    if kind == "recorded":
        from perspective.judging.recorded import RecordedJudge

        assert settings.recorded_path is not None  # checked by JudgeSettings
        path = Path(settings.recorded_path)
        recorded = load_judgments(path, len(case.texts), case.dataset)
        return RecordedJudge(recorded, case.triplets, asked=read_facts(path).get("asked", {}))
    if kind == "oracle":
        from perspective.judging.oracle import OracleJudge

        return OracleJudge(case.triplets, settings.oracle_noise, seed=0)
    instruction = case.wording.instruction
    if kind == "server":
        from perspective.judging.server import ServerJudge

        if settings.response in WRITTEN:
            raise DataError(f"--response {settings.response}: only for a local LLM; a server takes logprob or generate")
        return ServerJudge(server, settings.llm, instruction, settings.orders, logprobs=settings.response == "logprob")
    judge: Judge
    if kind == "reward":
        from perspective.judging.reward import RewardJudge, load_reward_model

        llm = load_reward_model(settings.llm, **settings.loading())
        judge = RewardJudge(llm, instruction, settings.orders, settings.judge_batch_size)
    elif kind == "choice":
        from perspective.judging.choice import ChoiceJudge

        llm = load_llm(settings.llm, **settings.loading())
        judge = ChoiceJudge(llm, instruction, settings.orders, settings.response, settings.judge_batch_size)
    elif kind == "pair":
        from perspective.judging.pair import PairJudge

        llm = load_llm(settings.llm, **settings.loading())
        judge = PairJudge(llm, case.wording.perspective, settings.judge_batch_size)
    else:
        judge = _build_answer_judge(settings, case)
    judge.facts.update(describe_model(settings.llm))
    return judge


def _build_answer_judge(settings: JudgeSettings, case: JudgingTask) -> Judge:
    from perspective.judging.answer import AnswerJudge
    from perspective.teacher.states import StateSettings, load_or_compute_states

    assert case.states is not None  # given with this kind of judge
    asked = StateSettings(case.wording.perspective, settings.answer_form, settings.answer_layer)
    case.states.facts |= describe_model(settings.llm)
    states = load_or_compute_states(
        case.states,
        case.texts,
        asked,
        # Pickled for the workers of Ray: what they need, not the case with all its texts.
        load=partial(load_llm, settings.llm, **settings.loading()),
        embed=partial(embed_by_name, case.embedder),
        overwrite=case.overwrite,
        engine=case.engine,
    )
    return AnswerJudge(states, case.triplets, asdict(asked))
