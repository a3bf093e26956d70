"""What a model card says about the training."""

from __future__ import annotations

from perspective.artifacts import Output


def describe_training(output: Output) -> str:
    """Return the model card: data, judge, settings. The measures join it when they are known."""
    facts, judge = output.facts, output.facts.get("judge", {})
    rows = {
        "judge": judge.get("name"),
        "judge's model": judge.get("hub"),
        "judgments": judge.get("n_judgments"),
        **{name: value for name, value in facts.items() if name != "judge"},
        **output.settings,
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items() if value is not None)
    unchanged = "\n**Unchanged**: nothing the judge said was fit to train on.\n" if facts.get("unchanged") else ""
    labels = "No label was used in training."
    if judge.get("asked", {}).get("uses_labels"):
        labels = "**Trained on labels**, told by an oracle: a ceiling for analysis, no result."
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
base_model: {facts.get("hub", facts.get("model"))}
tags: [sentence-transformers, feature-extraction, clustering]
---
# {output.path.name}

`{facts.get("model")}` adapted to the perspective of `{output.settings.get("dataset")}` with an LLM's judgments.
{labels}
{unchanged}
```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("{output.path.name}").encode(["a text"])
```

| setting | value |
| --- | --- |
{table}
"""
