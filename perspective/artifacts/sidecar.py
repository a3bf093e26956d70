"""The sidecar of a result: its inputs and settings, and the fields that later stages read.

Every record is validated when it is read: a damaged or foreign file is one line for the user.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perspective.artifacts.reading import read_json
from perspective.errors import DataError

REMEDY = "remove it, or compute the result again with --overwrite"
SCHEMA_VERSION = 2  # of the sidecar itself

Model = TypeVar("Model", bound=BaseModel)


ITSELF = "the embedder itself"  # name of the judge of the self-training control


class JudgeRecord(BaseModel):
    """The judge and its settings.

    Attributes:
        name: Its name, as in file names.
        kind: Kind of judge: answer, pair, choice, reward, server, recorded or oracle; empty if unknown, as
            for recorded answers of other programs.
        orders: Number of orders of the choices in which each triplet was asked: 1 or 2.
        uses_labels: Whether the answers come from the labels, for analysis only.
        asked: Model, wording and other settings of the questions, for people.
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
    """Fields of a result that later stages read; each stage fills those that it knows.

    Attributes:
        judge: Judge of the judgments, and of everything made from them.
        llm_weight: Weight of the answer states in a teacher; the embedder's weight is 1.
        unchanged: Whether the embedder was not trained, because there was nothing to train on.
        prompts: Prompts of a retriever, for queries and for documents.
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
        record: Fields that later stages read.
        facts: Counts, model names, losses, for people.
        input_paths: Paths of the inputs, by role.
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
    try:
        found = read_json(sidecar)
    except DataError as error:
        raise DataError(f"{error}; {REMEDY}") from None
    if isinstance(found, dict) and found.get("schema_version") != SCHEMA_VERSION:
        raise DataError(
            f"{path}: made by another version of this pipeline; run the stage that makes it with --overwrite, "
            f"or remove {sidecar.name} to use it as a file from elsewhere"
        )
    try:
        json.dumps(found, allow_nan=False)  # what cannot be written must not reach the records of later results
    except (ValueError, RecursionError):
        raise _damaged(sidecar, "a number is NaN or infinite, or lists are nested too deeply") from None
    return validate_record(Sidecar, found, sidecar)


def read_record(path: Path) -> ResultRecord:
    """Return the record of a result for later stages; an empty one for a file without a sidecar."""
    sidecar = read_sidecar(path)
    return sidecar.record if sidecar else ResultRecord()


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts of a result, which are for people; empty for a file without a sidecar."""
    sidecar = read_sidecar(path)
    return sidecar.facts if sidecar else {}


def validate_record(kind: type[Model], value: Any, path: Path) -> Model:  # noqa: ANN401  whatever the file holds
    """Return a file's JSON as a typed record.

    Raises:
        DataError: It does not fit; the message names the first fault and the remedy.
    """
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise _damaged(path, f"{place}: {first['msg'].lower()}") from None


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: damaged ({reason}); {REMEDY}")
