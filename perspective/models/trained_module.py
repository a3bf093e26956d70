"""A module that is trained with an embedder, after its own, and kept in the checkpoints."""

from __future__ import annotations

from typing import Any, Self

from sentence_transformers.base.modules.module import Module


class TrainedModule(Module):
    """A module of sentence-transformers whose constructor takes its `config_keys`, with weights of its own."""

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:  # noqa: ANN401
        """Write config and weights; called for the checkpoints of a training."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=safe_serialization)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **_: Any) -> Self:  # noqa: ANN401
        """Read what `save` wrote."""
        module = cls(**cls.load_config(model_name_or_path, subfolder=subfolder))
        cls.load_torch_weights(model_name_or_path, subfolder=subfolder, model=module)
        return module
