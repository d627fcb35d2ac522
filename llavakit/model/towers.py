"""Vision towers: any vision model that transformers' AutoModel builds, stopped after the layer that is used.

LLaVA takes the patch features of one hidden layer (``hidden_states[-2]`` of CLIP, CLS dropped). What comes after that
layer is never run, but it is kept, so that a saved checkpoint is the whole tower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llavakit.base.errors import BadRequest

# Below this many tokens torch's fused attention is the slower one on a CPU, above all backward.
FUSED_FROM = 200


def patch_tokens(config: Any, keep_cls: bool = False) -> int:
    """Number of feature vectors an image gives: (image_size / patch_size)^2, and one more when CLS is kept."""
    return int((config.image_size // config.patch_size) ** 2) + int(keep_cls)


def vision_config(config: Any) -> Any:
    """The vision half of a CLIP-like configuration, or the configuration itself."""
    return getattr(config, "vision_config", config)


class VisionTower(nn.Module):
    """A vision model of transformers that gives patch features ``float[n, N, D]`` of hidden layer ``layer``.

    ``layer`` counts as transformers does: 0 is the embeddings, -1 the last layer, -2 the one before it.
    Raises :class:`BadRequest` when the tower has no such layer.
    """

    def __init__(self, model: Any, layer: int = -2, keep_cls: bool = False) -> None:
        super().__init__()
        self.config: Any = model.config
        self.layer = layer
        self.keep_cls = keep_cls
        owner, depth = _layer_list(model), self.config.num_hidden_layers
        self.used = layer if layer >= 0 else depth + 1 + layer
        if not 1 <= self.used <= depth:
            raise BadRequest(f"feature layer {layer} does not exist in a tower of {depth} layers")
        layers = owner.layers
        self.model: nn.Module = model
        self.unused: nn.ModuleList = layers[self.used :]
        owner.layers = layers[: self.used]
        self._features: torch.Tensor | None = None
        # A hook, not last_hidden_state or output_hidden_states: several towers put a norm into those.
        owner.layers[-1].register_forward_hook(self._keep)

    @property
    def tokens(self) -> int:
        return patch_tokens(self.config, self.keep_cls)

    @property
    def has_cls(self) -> bool:
        return _has_cls(self.model)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels ``float[n, 3, S, S]`` -> features ``float[n, N, D]``."""
        self.model(pixels)
        features, self._features = self._features, None
        assert features is not None
        return features[:, 1:] if self.has_cls and not self.keep_cls else features

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._features = output[0] if isinstance(output, tuple) else output

    def whole_state(self) -> dict[str, torch.Tensor]:
        """Every tensor of the tower, the unused layers too, under its classic name without ``vision_model.``."""
        state = {key.removeprefix("vision_model."): value for key, value in self.model.state_dict().items()}
        prefix = next(key for key in state if ".layers.0." in key).partition(".layers.0.")[0]
        for index, layer in enumerate(self.unused):
            for key, value in layer.state_dict().items():
                state[f"{prefix}.layers.{self.used + index}.{key}"] = value
        return {key: value for key, value in state.items() if not key.endswith("position_ids")}


def _layer_list(model: Any) -> Any:
    """The module that owns ``layers``, the tower's transformer blocks."""
    for module in model.modules():
        layers = getattr(module, "layers", None)
        if isinstance(layers, nn.ModuleList) and len(layers) == model.config.num_hidden_layers:
            return module
    raise BadRequest(f"{type(model).__name__} has no list of transformer layers; it cannot be a vision tower here")


def _has_cls(model: nn.Module) -> bool:
    return any(name.rpartition(".")[2] in ("class_embedding", "cls_token") for name, _ in model.named_parameters())
