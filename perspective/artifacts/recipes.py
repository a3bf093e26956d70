"""Recipes: options in a YAML file, each with its line for messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import yaml

from perspective.artifacts.yaml_files import explain_yaml
from perspective.errors import DataError

HINT = 'write "option: value", an option a line, as in recipes/e5-mistral.yaml'


class RecipeLine(NamedTuple):
    """An option of a recipe: its place for messages, name and value."""

    place: str
    name: str
    value: Any


def read_recipe(path: Path) -> list[RecipeLine]:
    """Read the options of a recipe, in its order.

    Raises:
        DataError: The file is not such YAML; the message names the line and the remedy.
    """
    try:
        with explain_yaml(path, HINT):
            root = yaml.compose(path.read_text(encoding="utf-8-sig"), yaml.SafeLoader)
    except OSError:
        raise DataError(f"--recipe_file {path}: no such file, or not readable") from None
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise DataError(f"{path}:1: holds no options; {HINT}")
    lines: list[RecipeLine] = []
    for key, value in root.value:
        place = f"{path}:{key.start_mark.line + 1}"
        found = _read_scalar(value, place)
        if any(line.name == key.value for line in lines):
            raise DataError(f'{place}: "{key.value}" is given twice; remove one line')
        lines.append(RecipeLine(place, str(key.value), found))
    return lines


def _read_scalar(node: yaml.Node, place: str) -> Any:  # noqa: ANN401  a scalar of YAML
    """Return true and false as booleans, a list as texts, any other value as its text: options have their own types."""
    if isinstance(node, yaml.SequenceNode) and all(isinstance(entry, yaml.ScalarNode) for entry in node.value):
        return [entry.value for entry in node.value]
    if not isinstance(node, yaml.ScalarNode) or node.tag.endswith(":null"):
        raise DataError(f"{place}: no value, or a nested one; {HINT}")
    if node.tag.endswith(":bool"):
        return node.value.lower() in ("true", "yes", "on")
    return node.value
