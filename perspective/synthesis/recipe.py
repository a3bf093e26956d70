"""What is asked: types, attributes with probabilities and prompts, from YAML; and sampling from them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from perspective.artifacts import ROOT, display_path
from perspective.artifacts.yaml_files import explain_yaml
from perspective.errors import DataError, suggest_name
from perspective.synthesis.forms import BRAINSTORMED, FORMS, GROUNDED, TYPES, TypeName

RECIPE = ROOT / "perspective" / "4_synthesize" / "recipe.yaml"
# Placeholders that are no attributes, and the types that have them.
GIVEN: dict[str, tuple[TypeName, ...]] = {
    "task": BRAINSTORMED,
    "language": TYPES,
    "target_language": ("bitext",),
    "document": (GROUNDED,),
}
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Shot(_Strict):
    """An example for small LLMs: what is given and the reply."""

    given: dict[str, str]
    reply: dict[str, str]


class TypeRecipe(_Strict):
    """How examples of one type are asked for.

    Attributes:
        share: Weight in the mix of types.
        attributes: Weights of the values of each placeholder.
        brainstorm: Prompt that asks for tasks; empty for types without.
        tasks: Examples of tasks.
        generate: Prompt that asks for one example.
        shots: Examples for small LLMs.
    """

    share: Weight
    attributes: dict[str, dict[str, Weight]]
    brainstorm: str = ""
    tasks: list[str] = []
    generate: str
    shots: list[Shot] = Field(min_length=1)


class Recipe(_Strict):
    """All types, and languages by code."""

    languages: dict[str, str]
    language_weights: dict[str, Weight] = {}
    types: dict[TypeName, TypeRecipe]

    def choose_languages(self, codes: Sequence[str]) -> list[str]:
        """Return the codes of languages, without those of weight 0; those of the recipe for "all".

        Raises:
            DataError: A code is not in the recipe, or all have weight 0.
        """
        for code in codes:
            if code != "all" and code not in self.languages:
                by_name = next((key for key, name in self.languages.items() if name.lower() == code.lower()), None)
                hint = f"did you mean {by_name}?" if by_name else f"known: {', '.join(self.languages)}, all"
                raise DataError(f'--languages "{code}": unknown code; {hint}')
        chosen = self.languages if "all" in codes else dict.fromkeys(codes)
        drawn = [code for code in chosen if self.language_weights.get(code, 1.0) > 0]
        if not drawn:
            raise DataError(f'--languages "{" ".join(codes)}": weight 0 in the recipe; raise one in language_weights')
        return drawn


def load_recipe(path: Path = RECIPE) -> Recipe:
    """Read and check a recipe.

    Raises:
        DataError: The file is not YAML of this form, or a prompt has a placeholder that nothing fills.
    """
    found = load_yaml(path)
    try:
        recipe = Recipe.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise DataError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from None
    for kind, one in recipe.types.items():
        names = [*one.attributes, *(name for name, kinds in GIVEN.items() if kind in kinds)]
        try:
            asked = {name for _, name, _, _ in Formatter().parse(one.generate) if name is not None}
        except ValueError as error:
            raise DataError(f"{path}: {kind}: {error}; write {{{{ for a brace") from None
        for name in sorted(asked | {key for shot in one.shots for key in shot.given}):
            if name not in names:
                raise DataError(f'{path}: {kind}: placeholder "{name}": {suggest_name(name, names)}')
        for shot in one.shots:
            if list(shot.reply) != list(FORMS[kind].model_fields):
                raise DataError(f"{path}: {kind}: a shot's reply must have {', '.join(FORMS[kind].model_fields)}")
        for name, values in one.attributes.items():
            if not sum(values.values()) > 0:
                raise DataError(f"{path}: {kind}: {name}: the probabilities must not all be 0")
    return recipe


def load_yaml(path: Path) -> Any:  # noqa: ANN401
    """Read a YAML file; DataError names the file and the line of a fault."""
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    with explain_yaml(path, f"compare with {display_path(RECIPE)}", what="bad YAML: "):
        return yaml.safe_load(path.read_text(encoding="utf-8-sig"))


def seed_generator(*parts: object) -> np.random.Generator:
    """Return a generator that depends on the parts alone, so that more examples do not change earlier ones."""
    digest = hashlib.sha256("\n".join(map(str, parts)).encode("utf-8", "replace")).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def draw(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Return one of the values by their weights."""
    values = np.array(list(weights.values()), dtype=float)
    return str(list(weights)[rng.choice(len(values), p=values / values.sum())])


def sample_values(recipe: Recipe, kind: TypeName, codes: Sequence[str], rng: np.random.Generator) -> dict[str, str]:
    """Sample the attributes of one example, with the codes of its languages under "language" and "target_language".

    Args:
        recipe: Values and weights.
        kind: Type of the example.
        codes: Languages; two or more for bitext, whose languages differ.
        rng: Random generator.
    """
    values = {name: draw(rng, weights) for name, weights in recipe.types[kind].attributes.items()}
    weights = {code: recipe.language_weights.get(code, 1.0) for code in codes}
    values["language"] = draw(rng, weights)
    if kind == "bitext":
        values["target_language"] = draw(rng, {code: w for code, w in weights.items() if code != values["language"]})
    return values


def share_out(recipe: Recipe, kinds: Sequence[TypeName], n: int, equal: bool) -> dict[TypeName, int]:
    """Return how many of n examples are of each type: by the recipe's shares, or as many of each.

    Rounded by the largest remainders.
    """
    weights = np.array([1.0 if equal else recipe.types[kind].share for kind in kinds])
    if not weights.sum():  # types without a share in the mix
        weights[:] = 1.0
    exact = n * weights / weights.sum()
    counts = exact.astype(int)
    for place in np.argsort(counts - exact, kind="stable")[: n - counts.sum()]:
        counts[place] += 1
    return {kind: int(count) for kind, count in zip(kinds, counts, strict=True) if count}
