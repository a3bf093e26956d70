"""Ask an LLM for tasks, about 20 one-sentence tasks a call, pooled by type and without duplicates.

Reads:  recipe.yaml, or --recipe_path
Writes: results/<dataset>_<llm>/tasks.yaml, which you may edit: an edited list is used as it is;
        replies.jsonl beside it, by which nothing is asked twice

python -m perspective.4_synthesize.brainstorm --dataset free --llm smollm2
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from perspective.artifacts import Output, display_path, read_facts
from perspective.cli import entry_point, parse_settings
from perspective.judging.session import lock_judgments
from perspective.llm.server.settings import ServerSettings
from perspective.options import LLMOptions, OverwriteOptions, option
from perspective.synthesis.brainstorm import is_edited, pool_tasks, save_tasks
from perspective.synthesis.forms import BRAINSTORMED
from perspective.synthesis.questions import plan_brainstorm
from perspective.synthesis.settings import SynthesisFiles, SynthesisSettings, WritingSettings, describe_asking

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BrainstormSettings(OverwriteOptions):
    """How often it is asked."""

    n_calls: int = option("calls a type, about 20 tasks each", default=3)


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Brainstorm."""
    kinds = (SynthesisSettings, BrainstormSettings, WritingSettings, LLMOptions, ServerSettings)
    synthesis, settings, writing, llm, server = parse_settings(kinds, argv, __doc__)
    recipe, types, _ = synthesis.load()
    writing = writing.choose_temperature(is_grounded=False)
    files = SynthesisFiles.choose(synthesis, llm.llm)
    if is_edited(files.tasks) and not settings.overwrite:
        logger.info("%s: written by a person; used as it is", display_path(files.tasks))
        return
    made_from = {"types": types, "n_calls": settings.n_calls, **describe_asking(llm, server, writing)}
    output = Output(files.tasks, "tasks", made_from, {"recipe": synthesis.recipe})
    with lock_judgments(files.replies):
        if not read_facts(files.tasks).get("n_open") and output.is_finished(settings.overwrite):
            return
        asked = [kind for kind in types if kind in BRAINSTORMED]
        questions = plan_brainstorm(asked, settings.n_calls)
        from perspective.synthesis.llm import ask_all

        replies, prompter, facts = ask_all(questions, files.replies, recipe, llm, server, writing, "brainstorm")
        dash = "" if prompter.is_chat else "-"  # of the first task, in which a prompt without a chat ends
        pooled = pool_tasks(
            (
                (question.kind, f"{dash}{reply}" if reply else "")
                for question, reply in zip(questions, replies, strict=True)
            ),
            {kind: recipe.types[kind].tasks for kind in asked},
        )
        output.facts |= {**pooled["facts"], **facts}
        save_tasks(output, pooled["tasks"])
    logger.info(
        "%s: %d tasks, %d of them new; %d lines were no task",
        *(display_path(files.tasks), sum(map(len, pooled["tasks"].values()))),
        *(pooled["facts"][name] for name in ("n_new", "n_other_lines")),
    )


if __name__ == "__main__":
    main()
