"""Name the clusters and the branches of their tree: two to four words and one sentence each.

Reads:  the files of cluster.sh; the vectors that were clustered, and the checkpoint that made them;
        clusters/<run>-edits.yaml, a person's names
Writes: clusters/<run>-names.json; clusters/<run>-names.json.replies.jsonl, the LLM's replies: it is asked only
        what it was not asked before, also after a kill, a change of clusters or a higher budget

python -m perspective.3_describe.name_clusters --dataset banking77
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perspective.artifacts import Output, read_sidecar
from perspective.artifacts.sidecar import JudgeRecord
from perspective.cli import entry_point, parse_settings
from perspective.data.corpus import CorpusSettings
from perspective.description.files import find_embeddings, require_same_model, require_same_texts
from perspective.errors import DataError
from perspective.judging.protocol import choose_wording
from perspective.judging.session import is_complete, lock_judgments
from perspective.layout import Layout
from perspective.llm.server.settings import ServerSettings
from perspective.models.embedding import EmbedSettings
from perspective.models.registry import find_local
from perspective.options import LearnedRunOptions, LLMOptions, OutputOptions, PerspectiveOptions, option
from perspective.runtime.devices import reading_precision


@dataclass(frozen=True)
class NamingSettings(PerspectiveOptions):
    """Who names the clusters, and how the names are checked."""

    naming_llm: str | None = option(
        "the LLM that names, if it is not that of --llm; none: name by keywords alone",
        default=None,
        group="model",
    )
    checkpoint: str | None = option(
        "embedder of the clustered vectors, which checks the names: a short name or a folder; default: the run's own",
        default=None,
        group="model",
    )
    or_keywords: bool = option(
        "let keywords stand in when the server fails; run it again to ask for the names that are open", default=False
    )


@entry_point
def main(argv: Sequence[str] | None = None) -> None:
    """Name."""
    kinds = (
        CorpusSettings,
        LearnedRunOptions,
        NamingSettings,
        LLMOptions,
        ServerSettings,
        EmbedSettings,
        OutputOptions,
    )
    corpus, run, settings, llm, server, embedding, out = parse_settings(kinds, argv, __doc__)
    if embedding.instruction:
        raise DataError("--instruction: names are embedded without one; leave it out")
    layout = Layout.of(corpus, run)
    files = layout.description.inside(out.folder)
    name, checkpoint = settings.naming_llm or llm.llm, settings.checkpoint or str(layout.checkpoint)
    is_local = not server.base_url and name != "none"
    perspective = choose_wording(corpus.dataset, settings.perspective).perspective
    made_from = {"llm": name, "llm_revision": llm.llm_revision, "load_in": llm.load_in, "perspective": perspective}
    inputs = {"clusters": files.clusters, "texts": files.texts, "edits": files.edits}
    inputs |= find_local(llm=name if is_local else None, embedder=checkpoint)
    output = Output(
        files.names,
        "cluster names",
        {**made_from, "server": bool(server.base_url), "checkpoint": Path(checkpoint).name},
        {role: path for role, path in inputs.items() if role != "edits" or path.exists()},
        precision=reading_precision() if is_local else None,
    )
    if corpus.data_path:
        require_same_texts(files, corpus.path)
    hashes = output.fingerprint.inputs
    if not settings.checkpoint and "embedder" in hashes:
        require_same_model(read_sidecar(find_embeddings(files)), hashes["embedder"], checkpoint)
    with lock_judgments(files.names):
        if _is_named(output, server.limits(), out.overwrite):
            output.log_finished()
            return
        from perspective.naming.files import write_names

        asked = made_from | ({"llm_sha256": hashes["llm"]} if "llm" in hashes else {})
        asked |= {"precision": output.precision} if is_local else {}
        output.record.judge = JudgeRecord(name=name, kind="server" if server.base_url else "names", asked=asked)
        write_names(output, files, checkpoint, perspective, name, llm, server, embedding, settings.or_keywords)


def _is_named(output: Output, limits: Sequence[float | None], overwrite: bool) -> bool:
    """Tell whether the names are there, of these clusters and edits, and no question is open.

    Other clusters or edits are no reason to refuse: only what is new is asked.

    Raises:
        DataError: The names were made with other settings, or not by this stage.
    """
    if overwrite or not output.path.exists():
        return False
    made, wanted = read_sidecar(output.path), output.fingerprint
    if made is None or (made.settings, made.precision) != (wanted.settings, wanted.precision):
        output.is_finished()  # says what differs
    return output.is_current() and is_complete(output, limits)


if __name__ == "__main__":
    main()
