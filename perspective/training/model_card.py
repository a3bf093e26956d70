"""The model card of a trained embedder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perspective.artifacts import Output
from perspective.artifacts.markdown import format_table
from perspective.artifacts.provenance import REPLACED
from perspective.artifacts.sidecar import ITSELF


def describe_training(output: Output) -> str:
    """Return the card of an embedder fine-tuned for clustering, without the measures, which are added later."""
    record, judge = output.record, output.record.judge
    rows = {
        "judge": judge and judge.name,
        "judge's model": judge and (judge.asked.get("llm") or judge.figures.get("hub")),
        "weight of the answer states": record.llm_weight,
        **{name: fact for name, fact in output.facts.items() if name != REPLACED},
    }
    unchanged = "\n**Unchanged**: no judgment was usable for training.\n" if record.unchanged else ""
    labels = "No label was used in training."
    if judge and judge.uses_labels:
        labels = "**Trained on labels**, given by an oracle: an upper bound for analysis, not a result."
    source = "an LLM's answers"
    if judge and judge.name == ITSELF:
        source = "its own vectors, without an LLM"
    elif judge and judge.uses_labels:
        source = "labels"
    perspective = judge and judge.asked.get("perspective")
    wanted = f'the perspective "{perspective}"' if perspective else "the perspective"
    about = f"adapted to {wanted} of the texts of `{output.settings.get('dataset')}` with {source}."
    usage = f'vectors = SentenceTransformer("{output.path.name}").encode(["a text"])'
    return write_card(output, "clustering", f"{about}\n{labels}\n{unchanged}", usage, rows)


def write_card(
    output: Output,
    tag: str,
    about: str,
    usage: str,
    facts: Mapping[str, Any],
    class_name: str = "SentenceTransformer",
) -> str:
    """Return a card: what the model is, how to load it, what it was trained with.

    Args:
        output: The folder of the model.
        tag: The task, as a tag of the Hugging Face Hub.
        about: Text that follows the name of the base embedder.
        usage: Python code after the import of the class.
        facts: First rows of the table, before the settings; None is left out.
        class_name: The class of sentence-transformers that loads it.
    """
    rows = {**facts, **output.settings}
    model = output.facts.get("model")
    pipeline, kind = "sentence-similarity", "feature-extraction"
    if class_name == "CrossEncoder":
        pipeline, kind = "text-ranking", "cross-encoder"
    return f"""---
library_name: sentence-transformers
pipeline_tag: {pipeline}
base_model: {output.facts.get("hub", model)}
tags: [sentence-transformers, {kind}, {tag}]
---
# {output.path.name}

`{model}` {about}
```python
from sentence_transformers import {class_name}

{usage}
```

{format_table(("setting", "value"), [row for row in rows.items() if row[1] is not None])}"""
