"""How a stage computes, beside what it computes: none of this changes a result."""

from __future__ import annotations

from pathlib import Path

from llavakit.model.features import FeatureCache
from llavakit.model.lean import arrange_layers
from llavakit.model.llava import Llava
from llavakit.model.products import choose_products
from llavakit.train.stage import Stage


def arrange(model: Llava, stage: Stage) -> None:
    """Sets up matrix products, layers and kept features, in place; to be called once the model has its weights.

    Raises :class:`BadRequest` when features are asked for and cannot be kept.
    """
    if model.device.type == "cpu":
        choose_products()
    arrange_layers(model.language_model, stage.checkpoint, stage.compile)
    model.features = None
    if stage.features is None:
        return
    model.features = FeatureCache(Path(stage.features), model.vision_tower, model.square, stage.features_gib)
