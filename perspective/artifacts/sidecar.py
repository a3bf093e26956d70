"""The sidecar of a result: what it was made from, and what later stages read about it.

Every record is validated when it is read, so that a damaged or foreign file is one line for the user.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perspective.artifacts.reading import read_json
from perspective.errors import DataError

SCHEMA_VERSION = 2  # of the sidecar itself

Model = TypeVar("Model", bound=BaseModel)


class JudgeRecord(BaseModel):
    """Who judged, and how.

    Attributes:
        name: As it stands in file names.
        kind: Kind of judge: answer, pair, choice, reward, server, recorded or oracle; empty where
            recorded answers do not say.
        orders: In how many orders of the choices each triplet was asked: 1 or 2.
        uses_labels: Whether the answers come from the labels: for analysis only.
        asked: What the judge was asked (model, wording ...), for people.
        figures: Tokens, requests, money, reliability ..., for people.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    kind: str = ""
    orders: int = Field(default=1, ge=1, le=2)
    uses_labels: bool = False
    asked: dict[str, Any] = {}
    figures: dict[str, Any] = {}

    @property
    def reads_states(self) -> bool:
        """Whether the judge compares answer states, which have no order of choices."""
        return self.kind == "answer"


class ResultRecord(BaseModel):
    """What later stages read about a result; each stage fills what it knows.

    Attributes:
        judge: Who judged, of judgments and all that is made from them.
        llm_weight: Weight of the answer states in a teacher, against 1 of the embedder.
        unchanged: Whether the embedder stays as it is, because nothing was fit to train on.
        prompts: Of a retriever: what it puts before a query and before a document.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    judge: JudgeRecord | None = None
    llm_weight: float | None = Field(default=None, ge=0)
    unchanged: bool = False
    prompts: tuple[str, str] | None = None


class Fingerprint(BaseModel):
    """Everything that decides a result's numbers.

    Attributes:
        schema_name: What the result holds.
        schema_version: Of the sidecar.
        method_version: Of the algorithm; a change of method raises it.
        settings: Every setting that changes the numbers.
        precision: In which a model computed; None where none did.
        inputs: sha256 of each file or folder that it is made from, by role.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", serialize_by_alias=True)

    schema_name: str = Field(alias="schema")
    schema_version: int
    method_version: int = 1
    settings: dict[str, Any] = {}
    precision: str | None = None
    inputs: dict[str, str] = {}


class Sidecar(Fingerprint):
    """A result's sidecar.

    Attributes:
        sha256: Of the result.
        record: What later stages read.
        facts: Counts, model names, losses: for people.
        input_paths: Where the inputs lay, by role.
        wall_seconds: Time that the stage took.
        git_commit: Of the code.
        versions: Of Python and of the libraries that compute.
    """

    sha256: str
    record: ResultRecord = ResultRecord()
    facts: dict[str, Any] = {}
    input_paths: dict[str, str] = {}
    wall_seconds: float = 0.0
    git_commit: str | None = None
    versions: dict[str, str] = {}


def sidecar_path(path: Path) -> Path:
    """Return the path of the sidecar beside a result."""
    return path.with_name(path.name + ".meta.json")


def read_sidecar(path: Path) -> Sidecar | None:
    """Read the sidecar of a result; None for a result without one.

    Raises:
        DataError: The sidecar is damaged, or an earlier version wrote it.
    """
    sidecar = sidecar_path(Path(path))
    if not sidecar.exists():
        return None
    found = read_json(sidecar)
    if isinstance(found, dict) and found.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path}: made by another version of this pipeline; run the stage that makes it with --overwrite, "
            f"or remove {sidecar.name} to use the file as one from elsewhere"
        )
    return validate_record(Sidecar, found, sidecar)


def read_record(path: Path) -> ResultRecord:
    """Return what is recorded about a result for later stages; an empty record for a file without a sidecar."""
    sidecar = read_sidecar(path)
    return sidecar.record if sidecar else ResultRecord()


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts recorded beside a result, which are for people; empty for a file without a sidecar."""
    sidecar = read_sidecar(path)
    return sidecar.facts if sidecar else {}


def validate_record(kind: type[Model], value: Any, path: Path) -> Model:  # noqa: ANN401  whatever the file holds
    """Return a file's JSON as a typed record.

    Raises:
        DataError: It does not fit; one line with the first fault and the remedy.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(
            f"{path}: damaged ({place}: {first['msg'].lower()}); remove it, or make the result again with --overwrite"
        ) from None
