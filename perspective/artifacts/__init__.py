"""The files that the stages hand to one another: schemas, atomic writes, provenance."""

from perspective.artifacts.provenance import ROOT, Output, discard_result, display_path, read_facts, sidecar_path
from perspective.artifacts.reading import hash_file, read_json, read_vectors
from perspective.artifacts.records import (
    LABELS,
    Judgment,
    TrainingTriplet,
    Triplet,
    mirror_prediction,
    parse_prediction,
    stack_rows,
)
from perspective.artifacts.triplet_files import (
    OPTIONS,
    ROW_FIELDS,
    load_judgments,
    load_training_triplets,
    load_triplets,
    save_judgments,
    save_training_triplets,
    save_triplets,
)
from perspective.artifacts.writing import atomic_path, dump_json, keep_block, write_text

__all__ = [
    "Judgment",
    "LABELS",
    "OPTIONS",
    "Output",
    "ROOT",
    "ROW_FIELDS",
    "TrainingTriplet",
    "Triplet",
    "atomic_path",
    "discard_result",
    "display_path",
    "dump_json",
    "hash_file",
    "keep_block",
    "load_judgments",
    "load_training_triplets",
    "load_triplets",
    "mirror_prediction",
    "parse_prediction",
    "read_facts",
    "read_json",
    "read_vectors",
    "save_judgments",
    "save_training_triplets",
    "save_triplets",
    "sidecar_path",
    "stack_rows",
    "write_text",
]
