"""Settings and files of the synthesis stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from perspective.artifacts import ROOT, display_path, hash_file
from perspective.artifacts.names import slugify_model
from perspective.errors import DataError, require_known, require_least
from perspective.llm.server.settings import ServerSettings
from perspective.models.registry import find_local
from perspective.options import FolderOptions, LLMOptions, option
from perspective.runtime.devices import reading_precision
from perspective.synthesis.forms import FREE, GROUNDED, TypeName
from perspective.synthesis.recipe import RECIPE, Recipe, load_recipe

STAGE = ROOT / "perspective" / "4_synthesize"


@dataclass(frozen=True)
class SetOptions(FolderOptions):
    """The set that is made."""

    dataset: str = option("name of the set that is made", default="free", group="input")
    seed: int = option("of attributes, of sampling and of what is held out", default=100)


@dataclass(frozen=True)
class SynthesisSettings(SetOptions):
    """What data is made, and from which recipe."""

    recipe_path: str | None = option(
        "types, attributes and prompts as YAML; default: recipe.yaml of the stage", default=None, group="input"
    )
    types: list[str] | None = option(
        "types of examples without documents: short_long, long_short, short_short, long_long, sts, bitext; default "
        "all, bitext if there are two languages",
        default=None,
    )
    languages: list[str] = option(
        "codes of the languages in which is written, such as en ko; all: those of the recipe", default=["en"]
    )

    @property
    def recipe(self) -> Path:
        """The file of the recipe."""
        return Path(self.recipe_path) if self.recipe_path else RECIPE

    def load(self, is_grounded: bool = False) -> tuple[Recipe, list[TypeName], list[str]]:
        """Return the recipe, the types and the languages.

        Args:
            is_grounded: Whether queries of documents are asked for, in place of the types.

        Raises:
            DataError: A type or a language is unknown or not in the recipe, or the recipe is invalid.
        """
        recipe = load_recipe(self.recipe)
        codes = recipe.choose_languages(self.languages)
        require_known("types", self.types or (), FREE)
        default = [kind for kind in FREE if kind in recipe.types and (kind != "bitext" or len(codes) > 1)]
        chosen = [kind for kind in FREE if kind in self.types] if self.types else default
        kinds = [GROUNDED] if is_grounded else chosen
        for kind in kinds:
            if kind not in recipe.types:
                found = ", ".join(recipe.types)
                raise DataError(
                    f'{self.recipe}: no type "{kind}" (found: {found}); copy it from {display_path(RECIPE)}'
                )
        return recipe, kinds, codes

    def made_from(self) -> dict[str, Any]:
        """Return the settings that change what is asked."""
        return {"types": self.types, "languages": self.languages, "seed": self.seed}


@dataclass(frozen=True)
class WritingSettings:
    """How the LLM is asked."""

    style: Literal["auto", "chat", "shots"] = option(
        "chat: a request; shots: examples to continue; auto: shots for local LLMs of less than 10^9 parameters",
        default="auto",
    )
    temperature: float | None = option(
        "of sampling, from the whole vocabulary; 0 is greedy; default: 1, as published, and 0 for queries of documents",
        default=None,
    )
    llm_batch_size: int | None = option("prompts a batch of a local LLM", default=None, group="scale")

    def choose_temperature(self, is_grounded: bool) -> WritingSettings:
        """Return the settings with a temperature: documents differ, so their queries need no sampling to differ."""
        default = 0.0 if is_grounded else 1.0
        return replace(self, temperature=default) if self.temperature is None else self

    def __post_init__(self) -> None:
        """Check values."""
        if self.temperature is not None and not 0 <= self.temperature <= 2:
            raise DataError(f"--temperature {self.temperature}: must lie between 0 and 2")
        require_least(self, llm_batch_size=1)


@dataclass(frozen=True)
class SynthesisFiles:
    """The files of a set, all of them in one folder."""

    folder: Path

    @classmethod
    def choose(cls, settings: SetOptions, llm: str) -> SynthesisFiles:
        """Return the files of a set and an LLM, in the given folder or the stage's own."""
        return cls(settings.folder or STAGE / "results" / f"{settings.dataset}_{slugify_model(llm)}")

    @property
    def tasks(self) -> Path:
        """Tasks by type, which a person may edit."""
        return self.folder / "tasks.yaml"

    @property
    def corpus(self) -> Path:
        """Passages of the documents."""
        return self.folder / "corpus.jsonl"

    @property
    def train_corpus(self) -> Path:
        """Those passages that no query is held out for: negatives are mined among them."""
        return self.folder / "train_corpus.jsonl"

    @property
    def examples(self) -> Path:
        """All replies with what is wrong with them."""
        return self.folder / "examples.jsonl"

    @property
    def replies(self) -> Path:
        """Log of replies, by which nothing is asked twice."""
        return self.folder / "replies.jsonl"

    @property
    def filtered(self) -> Path:
        """All examples with why they were left out."""
        return self.folder / "filtered.jsonl"

    @property
    def pairs(self) -> Path:
        """Training pairs."""
        return self.folder / "pairs.jsonl"

    @property
    def control(self) -> Path:
        """A pair of each of the same documents, made without an LLM."""
        return self.folder / "control.jsonl"

    @property
    def held_out(self) -> Path:
        """Retrieval collection of queries that are not trained on."""
        return self.folder / "held_out"

    @property
    def report(self) -> Path:
        """Counts by type and language; a table and a picture are beside it."""
        return self.folder / "report.json"


_hash_once = cache(hash_file)  # gigabytes, asked for by the fingerprint and by the log of replies


def describe_asking(llm: LLMOptions, server: ServerSettings, settings: WritingSettings) -> dict[str, Any]:
    """Return what decides a reply, apart from its prompt."""
    described = {"llm": llm.llm, "server": bool(server.base_url), "temperature": settings.temperature}
    if server.base_url:
        return described
    local = {"llm_revision": llm.llm_revision, "load_in": llm.load_in, "precision": reading_precision()}
    files = {f"{role}_sha256": _hash_once(path) for role, path in find_local(llm=llm.llm).items()}
    return {**described, **local, "style": settings.style, **files}


if __name__ == "__main__":  # for scripts: print the folder of a set and an LLM
    import sys

    set_name, llm_name = sys.argv[1:]
    sys.stdout.write(f"{SynthesisFiles.choose(SetOptions(dataset=set_name), llm_name).folder}\n")
