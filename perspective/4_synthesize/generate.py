"""Ask an LLM for examples, one a call: free ones of several types, or queries of your own documents (grounded).

Reads:  tasks.yaml of brainstorm.sh (free); or --documents_path: a folder of .txt and .md files, or a
        .jsonl, .csv or .parquet file with a document a row (grounded)
Writes: results/<dataset>_<llm>/examples.jsonl: all replies, with what is wrong with them; grounded: corpus.jsonl,
        the documents cut into passages; replies.jsonl, by which a killed run and a larger one ask only what is new

python -m perspective.4_synthesize.generate --dataset notes --documents_path ~/notes --n_examples 512
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perspective.artifacts import Output, display_path, read_facts
from perspective.cli import entry_point, parse_settings
from perspective.data.documents import PassageSettings, read_passages, write_passages
from perspective.errors import require_least
from perspective.judging.session import lock_judgments
from perspective.llm.server.settings import ServerSettings
from perspective.options import LLMOptions, option
from perspective.synthesis.brainstorm import load_tasks
from perspective.synthesis.examples import read_examples, save_examples
from perspective.synthesis.forms import BRAINSTORMED
from perspective.synthesis.questions import plan_free, plan_grounded
from perspective.synthesis.settings import SynthesisFiles, SynthesisSettings, WritingSettings, describe_asking

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerateSettings(PassageSettings):
    """How many examples, of what."""

    n_examples: int = option("number of examples that are asked for", default=512)
    mix: Literal["published", "equal"] = option(
        "shares of the types: those of the recipe, or equal", default="published"
    )
    documents_path: str | None = option("your documents; their queries are asked for", default=None, group="input")

    def __post_init__(self) -> None:
        """Check values."""
        super().__post_init__()
        require_least(self, n_examples=1)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Generate."""
    kinds = (SynthesisSettings, GenerateSettings, WritingSettings, LLMOptions, ServerSettings)
    synthesis, settings, writing, llm, server = parse_settings(kinds, argv, __doc__)
    recipe, types, codes = synthesis.load(bool(settings.documents_path))
    writing = writing.choose_temperature(bool(settings.documents_path))
    files = SynthesisFiles.choose(synthesis, llm.llm)
    with lock_judgments(files.replies):
        inputs = {"recipe": synthesis.recipe}
        if settings.documents_path:
            passages = read_passages(Path(settings.documents_path), settings)
            write_passages(Output(files.corpus, "passages", {"passage_chars": settings.passage_chars}), passages)
            texts = {passage.id: passage.text for passage in passages}
            questions = plan_grounded(recipe, texts, settings.n_examples, codes, synthesis.seed)
            inputs["corpus"] = files.corpus
        else:
            tasks = load_tasks(files.tasks) if set(types) & set(BRAINSTORMED) else {}
            is_equal = settings.mix == "equal"
            questions = plan_free(recipe, types, settings.n_examples, is_equal, codes, tasks, synthesis.seed)
            inputs |= {"tasks": files.tasks} if tasks else {}
        made_from = {**synthesis.made_from(), "n_examples": settings.n_examples, "mix": settings.mix}
        output = Output(files.examples, "examples", {**made_from, **describe_asking(llm, server, writing)}, inputs)
        if output.is_current() and not read_facts(output.path).get("n_open"):
            output.log_finished()
            return
        from perspective.synthesis.llm import ask_all

        replies, prompter, facts = ask_all(questions, files.replies, recipe, llm, server, writing, "generate")
        examples = read_examples(questions, replies, prompter)
        style = "chat" if prompter.is_chat else "shots"
        output.facts |= {**facts, "style": f"{style}, temperature {writing.temperature:g}"}
        save_examples(output, examples)
    n_conforming = sum(not example.fault for example in examples)
    logger.info("%s: %d of %d replies conform", display_path(files.examples), n_conforming, len(examples))


if __name__ == "__main__":
    main()
