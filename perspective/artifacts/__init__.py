"""The files that the stages hand to one another: schemas, atomic writes, provenance."""

from perspective.artifacts.provenance import ROOT, Output, discard_result, display_path
from perspective.artifacts.reading import hash_file, read_json, read_object, read_vectors
from perspective.artifacts.records import (
    LABELS,
    Judgment,
    TrainingTriplet,
    Triplet,
    mirror_prediction,
    parse_prediction,
    stack_rows,
)
from perspective.artifacts.sidecar import JudgeRecord, ResultRecord, read_facts, read_record, sidecar_path
from perspective.artifacts.triplet_files import (
    OPTIONS,
    ROW_FIELDS,
    judgment_record,
    load_judgments,
    load_training_triplets,
    load_triplets,
    read_judgment,
    save_judgments,
    save_training_triplets,
    save_triplets,
)
from perspective.artifacts.writing import atomic_path, dump_json, explain_full_disk, keep_block, write_text

__all__ = [
    "JudgeRecord",
    "Judgment",
    "LABELS",
    "OPTIONS",
    "Output",
    "ROOT",
    "ResultRecord",
    "ROW_FIELDS",
    "TrainingTriplet",
    "Triplet",
    "atomic_path",
    "discard_result",
    "display_path",
    "dump_json",
    "explain_full_disk",
    "hash_file",
    "judgment_record",
    "keep_block",
    "load_judgments",
    "load_training_triplets",
    "load_triplets",
    "mirror_prediction",
    "parse_prediction",
    "read_facts",
    "read_json",
    "read_judgment",
    "read_object",
    "read_record",
    "read_vectors",
    "save_judgments",
    "save_training_triplets",
    "save_triplets",
    "sidecar_path",
    "stack_rows",
    "write_text",
]
