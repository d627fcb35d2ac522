"""Weights in 8 or 4 bits, for inference and under LoRA: the matrices inside the language model's layers (all but a few
percent of its weights). Embeddings, head, connector and tower stay as they are.

``int8``, ``int4``: torchao, weight-only; int8 with a scale a row, int4 with one for every 32 weights.
``nf4``: QLoRA's 4-bit normal floats with doubly quantised scales: bitsandbytes' kernels on a GPU where it is
installed, else torchao's of the same format.
"""

from __future__ import annotations

import importlib.util
import warnings
from typing import Any, Literal

import torch
from torch import nn

from llavakit.base.errors import BadRequest

Bits = Literal["int8", "int4", "nf4"]

GROUP = 32
INSTALL = "pip install 'llavakit[quantize]'"


def layer_linears(model: nn.Module) -> dict[str, nn.Linear]:
    """The matrices inside a model's list of layers, by their names in it."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and (".layers." in f".{name}" or ".layer." in f".{name}")
    }


def quantise(language: nn.Module, bits: Bits, device: torch.device | str) -> None:
    """Replaces the weights of ``language``'s layers, one matrix at a time, and moves the model to ``device``.

    Raises :class:`BadRequest` when the package is not installed or a matrix does not fit the format.
    """
    if importlib.util.find_spec("torchao") is None:
        raise BadRequest(f"quantised weights ({bits}) need torchao: {INSTALL}")
    linears = layer_linears(language)
    unfit = [name for name, linear in linears.items() if linear.in_features % GROUP]
    if bits == "int4" and unfit:
        raise BadRequest(f"int4 takes weights in groups of {GROUP}, and {unfit[0]} has {linears[unfit[0]].in_features}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torchao
        for name, linear in linears.items():
            if bits == "nf4":
                to_nf4(language, name, linear, torch.device(device))
            else:
                _weight_only(linear.to(device), bits, torch.device(device))
    language.to(device)


def _weight_only(linear: nn.Linear, bits: Bits, device: torch.device) -> None:
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig, quantize_

    config: Any
    if bits == "int8":
        config = Int8WeightOnlyConfig(version=2)
    elif device.type == "cpu":
        # torchao's stable int4 has GPU layouts only.
        from torchao.prototype.quantization.int4 import PrototypeInt4WeightOnlyConfig

        config = PrototypeInt4WeightOnlyConfig(group_size=GROUP, set_inductor_config=False)
    else:
        config = Int4WeightOnlyConfig(group_size=GROUP, int4_packing_format="tile_packed_to_4d")
    quantize_(linear, config)


def to_nf4(owner: nn.Module, name: str, linear: nn.Linear, device: torch.device) -> None:
    """Puts ``linear``, which is ``name`` within ``owner``, into 4 bits on ``device``."""
    if device.type == "cuda" and importlib.util.find_spec("bitsandbytes") is not None:
        owner.set_submodule(name, bitsandbytes_nf4(linear).to(device))
        return
    from torchao.quantization import to_nf4

    weight = linear.weight.detach().to(device)
    # The scales are quantised in blocks of 256 blocks of 64; a small matrix takes what divides it.
    blocks = weight.numel() // 64
    scales = next(size for size in range(min(256, blocks), 0, -1) if blocks % size == 0)
    linear.weight = nn.Parameter(to_nf4(weight, 64, scales), requires_grad=False)


def bitsandbytes_nf4(linear: nn.Linear) -> Any:
    """The same layer as bitsandbytes' ``Linear4bit``; it quantises when it is moved to a device."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    made = Linear4bit(
        linear.in_features,
        linear.out_features,
        bias=linear.bias is not None,
        compute_dtype=torch.bfloat16,
        quant_type="nf4",
    )
    made.weight = Params4bit(linear.weight.detach(), requires_grad=False, quant_type="nf4", compress_statistics=True)
    made.bias = linear.bias
    return made


def full(linear: nn.Module) -> nn.Linear:
    """A quantised layer as an ordinary float32 one of the values that it computes with."""
    held: Any = linear
    if type(held.weight).__name__ == "Params4bit":
        from bitsandbytes.functional import dequantize_4bit

        weight = dequantize_4bit(held.weight.data, held.weight.quant_state)
    else:
        weight = held.weight.get_original_weight() if hasattr(held.weight, "get_original_weight") else held.weight
    out = nn.Linear(held.in_features, held.out_features, held.bias is not None, device="meta")
    out.weight = nn.Parameter(weight.detach().float())
    if held.bias is not None:
        out.bias = nn.Parameter(held.bias.detach().float())
    return out
