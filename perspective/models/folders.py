"""Checks of an embedder's folder: sentence-transformers replaces missing files with defaults, without a message."""

from __future__ import annotations

import logging
import re
from pathlib import Path

from perspective.artifacts import hash_file, read_json, read_sidecar, sidecar_path
from perspective.errors import DataError, ModelError
from perspective.models.decoders import is_bare_decoder

logger = logging.getLogger(__name__)

# tokenizer.json, vocab.txt, spiece.model, sentencepiece.bpe.model, vocab.json, bpe.codes, qwen.tiktoken ...
VOCABULARY = re.compile(r"tokenizer\.json|.*vocab.*|.*\.(model|codes|tiktoken)|tokenization_.*\.py")
# Files that only sentence-transformers writes: with one of them, modules.json was there once.
ONLY_IN_MODULES = ("config_sentence_transformers.json", "sentence_bert_config.json", "1_Pooling")


def check_folder(folder: Path, is_pooled: bool = True) -> None:
    """Check a folder before sentence-transformers loads it.

    A result of this pipeline must be what its sidecar says. Any other folder must hold a tokenizer, and the
    settings of its pooling and dense layers; one of plain transformers gets mean pooling, which is logged.

    Args:
        folder: The folder.
        is_pooled: Whether it is loaded as an embedder; a reranker pools nothing.

    Raises:
        ModelError: A file is missing, or a result of this pipeline was changed.
    """
    try:
        sidecar = read_sidecar(folder)
        if sidecar is not None and hash_file(folder) != sidecar.sha256:
            raise ModelError(
                f"{folder}: files were changed, added or lost since it was trained; train it again with --overwrite, "
                f"or remove {sidecar_path(folder).name} to use it as a model from elsewhere"
            )
        if sidecar is None:
            _check_modules(folder, is_pooled)
    except DataError as error:
        raise ModelError(str(error)) from None


def _check_modules(folder: Path, is_pooled: bool) -> None:
    listing = folder / "modules.json"
    if not listing.exists():
        if any((folder / name).exists() for name in ONLY_IN_MODULES):
            raise ModelError(f"{folder}: modules.json is missing; fetch the model again")
        if not (folder / "config.json").exists():
            return  # no model at all: loading it is an error
        _check_tokenizer(folder)
        if is_pooled:
            pooling = "its end-of-text token" if is_bare_decoder(folder) else "mean pooling over its tokens"
            logger.warning("%s: no modules.json; used with %s", folder, pooling)
        return
    modules = read_json(listing)
    if not isinstance(modules, list) or not modules or not all(map(_is_module, modules)):
        raise ModelError(f"{listing}: must list modules, each with its path and type; fetch the model again")
    for module in modules:
        kind, part = module["type"].rpartition(".")[2], folder / module["path"]
        if kind == "Transformer":
            _check_tokenizer(part)
        elif kind in ("Pooling", "Dense") and not (part / "config.json").is_file():
            raise ModelError(f"{part / 'config.json'}: no such file; fetch the model again")


def _is_module(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in ("type", "path"))


def _check_tokenizer(folder: Path) -> None:
    if folder.is_dir() and not any(VOCABULARY.fullmatch(path.name) for path in folder.iterdir()):
        raise ModelError(f"{folder}: holds no tokenizer (tokenizer.json, vocab.txt ...); fetch the model again")
