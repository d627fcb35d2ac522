"""Vision towers: any vision model that transformers' AutoModel builds, stopped after the last layer that is used.

LLaVA takes the patch features of one hidden layer (``hidden_states[-2]`` of CLIP, CLS dropped); several layers are
put side by side. What comes after the last of them is never run, but it is kept, so that a saved checkpoint is the
whole tower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from llavakit.base.errors import BadRequest
from llavakit.model.attention import whole

WRAPPED = {"clip_vision_model", "siglip_vision_model"}
"""Models whose classic tensor names begin with ``vision_model.``: the others (DINO) never had that wrapper."""


def vision_config(config: Any) -> Any:
    """The vision half of a CLIP-like configuration, or the configuration itself.

    Raises :class:`BadRequest` for a tower that pictures of one square size do not fit, such as SigLIP 2's NaFlex.
    """
    config = getattr(config, "vision_config", config)
    sizes = [getattr(config, name, None) for name in ("image_size", "patch_size", "num_hidden_layers")]
    if not all(isinstance(size, int) for size in sizes):
        raise BadRequest(
            f"a {config.model_type} model is no vision tower for LLaVA: it needs one square image_size, one patch_size "
            "and a list of layers (of SigLIP 2 take a checkpoint of fixed resolution, not NaFlex)"
        )
    return config


class VisionTower(nn.Module):
    """A vision model of transformers that gives features ``float[n, N, D]`` of hidden layer ``layer``, or
    ``float[n, N, D * k]`` of k of them.

    ``layer`` counts as transformers does: 0 is the embeddings, -1 the last layer, -2 the one before it. Of the tokens
    before the patches, CLS (where there is one) is left out unless ``keep_cls``, and register tokens stay unless
    ``keep_registers`` is False: transformers' ``llava`` drops CLS alone. Raises :class:`BadRequest` when the tower has
    no such layer.
    """

    def __init__(
        self, model: Any, layer: int | tuple[int, ...] = -2, keep_cls: bool = False, keep_registers: bool = True
    ) -> None:
        super().__init__()
        self.config: Any = model.config
        self.layer = layer
        self.has_cls = any(
            n.rpartition(".")[2] in ("class_embedding", "cls_token") for n, _ in model.named_parameters()
        )
        self.keep_cls = keep_cls and self.has_cls
        self.registers = int(getattr(self.config, "num_register_tokens", 0))
        self.keep_registers = keep_registers
        depth = self.config.num_hidden_layers
        self.chosen = [_index(number, depth) for number in (layer if isinstance(layer, tuple) else (layer,))]
        self.used = max(self.chosen)
        self.path, name = layer_list(model)
        owner = model.get_submodule(self.path)
        self.path = _classic(f"{self.path}.{name}")
        layers = getattr(owner, name)
        self.model: nn.Module = model
        self.layers: list[nn.Module] = list(layers[: self.used])
        """Those that run, in order; they train when the tower does."""
        self.unused: nn.ModuleList = layers[self.used :]
        setattr(owner, name, layers[: self.used])
        self._features: dict[int, torch.Tensor] = {}
        for number in set(self.chosen):
            # A hook, not last_hidden_state or output_hidden_states: several towers put a norm into those.
            self.layers[number - 1].register_forward_hook(self._keep(number))

    @property
    def width(self) -> int:
        """Length of a feature vector."""
        return int(self.config.hidden_size) * len(self.chosen)

    @property
    def specials(self) -> int:
        """Tokens that the model puts before the patches."""
        return int(self.has_cls) + self.registers

    @property
    def tokens(self) -> int:
        """Number of feature vectors an image gives."""
        patches = (self.config.image_size // self.config.patch_size) ** 2
        return int(patches) + self.registers * self.keep_registers + self.keep_cls

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised pixels ``float[n, 3, S, S]`` -> features ``float[n, N, D * k]``."""
        with whole(self.model, pixels.device):
            self.model(pixels)
        features = torch.cat([self._features[number] for number in self.chosen], dim=-1)
        self._features.clear()
        patches = features[:, self.specials if not self.keep_registers else int(self.has_cls) :]
        return torch.cat([features[:, :1], patches], dim=1) if self.keep_cls else patches

    def _keep(self, number: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            self._features[number] = output[0] if isinstance(output, tuple) else output

        return hook

    def whole_state(self, parameters: bool = False) -> dict[str, torch.Tensor]:
        """Every tensor of the tower, the unused layers too, under its classic name without ``vision_model.``;
        ``parameters``: the tower's own, not detached."""
        state = {_classic(key): value for key, value in self.model.state_dict(keep_vars=parameters).items()}
        for index, layer in enumerate(self.unused, self.used):
            for key, value in layer.state_dict(keep_vars=parameters).items():
                state[f"{self.path}.{index}.{key}"] = value
        return {key: value for key, value in state.items() if not key.endswith("position_ids")}


def _classic(name: str) -> str:
    """A tensor's name without the wrapper that some models, of some versions of transformers, have around them."""
    return name.removeprefix("vision_model.").removeprefix("model.")


def _index(layer: int, depth: int) -> int:
    used = layer if layer >= 0 else depth + 1 + layer
    if not 1 <= used <= depth:
        raise BadRequest(f"feature layer {layer} does not exist in a tower of {depth} layers")
    return used


def layer_list(model: Any) -> tuple[str, str]:
    """Where the tower's transformer blocks are: the path of the module that owns their list, and its name there."""
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == model.config.num_hidden_layers:
            owner, _, name = path.rpartition(".")
            return owner, name
    raise BadRequest(f"{type(model).__name__} has no list of transformer layers; it cannot be a vision tower here")
