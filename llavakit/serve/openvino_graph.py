"""A model of torch as OpenVINO graphs: the language model with its cache as state inside, and the way of a picture.

Converted in memory from the weights that are loaded; nothing is written to disk, so a checkpoint stays one format.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from typing import Any

import numpy as np
import torch
from torch import nn

from llavakit.base.errors import BadRequest
from llavakit.model.llava import Llava
from llavakit.model.quiet import quiet

INSTALL = "pip install 'llavakit[openvino]'"


def openvino() -> Any:
    """The package. Raises :class:`BadRequest` with the one command where it is not installed."""
    try:
        import openvino
    except ImportError:
        raise BadRequest(f"this engine needs the package openvino: {INSTALL}") from None
    return openvino


class _Grown:
    """In a transformers cache's place while the graph is traced: what was there before, and what is there after."""

    is_compileable = False

    def __init__(self, past: tuple[torch.Tensor, ...]) -> None:
        self.past = past
        self.now: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def get_seq_length(self, *_: Any) -> int:
        return self.past[0].shape[2]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        before = self.past[2 * layer : 2 * layer + 2]
        self.now[layer] = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
        return self.now[layer]


class _Step(nn.Module):
    def __init__(self, language_model: nn.Module) -> None:
        super().__init__()
        self.language_model = language_model

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *past: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        cache = _Grown(past)
        out = self.language_model(
            inputs_embeds=x,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return (out.logits[:, -1], *(tensor for layer in sorted(cache.now) for tensor in cache.now[layer]))


class _See(nn.Module):
    def __init__(self, model: Llava) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.image_features(pixels)


def language_graph(language_model: Any, shape: tuple[int, int, int]) -> Any:
    """Inputs ``x`` float[n, q, H], ``mask`` float[n, 1, q, M] that is added to scores, ``positions`` int64[n, q] and
    ``beam_idx`` int32[n], the rows of the state that these go on; output: logits float[n, V] after the last.

    The state is ``past.0``, ``past.1`` ...: keys and values of each layer, float[n, heads, M, d]. ``shape``: layers,
    heads of keys, and d.
    """
    layers, heads, width = shape
    n, q, past = 2, 3, 5
    example = (
        torch.zeros(n, q, language_model.config.hidden_size),
        torch.zeros(n, 1, q, past + q),
        torch.arange(past, past + q)[None].repeat(n, 1),
        *(torch.zeros(n, heads, past, width) for _ in range(2 * layers)),
    )
    graph = _converted(_Step(language_model), example)
    _keep_inside(graph, 2 * layers, heads, width)
    return graph


def picture_graph(model: Llava) -> Any:
    """uint8 pixels ``[n, 3, S, S]`` -> language embeddings ``[n, N, H]``."""
    size = model.square.size
    graph = _converted(_See(model), (torch.zeros(2, 3, size, size, dtype=torch.uint8),))
    return graph


def _converted(module: nn.Module, example: tuple[torch.Tensor, ...]) -> Any:
    ov = openvino()
    # Tracing warns of every branch that it follows; the parity of what comes out is what tests hold.
    with quiet(), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        return ov.convert_model(module.eval(), example_input=example)


def _keep_inside(graph: Any, count: int, heads: int, width: int) -> None:
    """Makes the ``count`` caches, inputs from the fourth and outputs from the second on, a state of the graph."""
    ov = openvino()
    from openvino import opset13 as ops
    from openvino._offline_transformations import apply_make_stateful_transformation

    rows = ops.parameter(ov.PartialShape([-1]), np.int32, name="beam_idx")
    rows.output(0).get_tensor().set_names({"beam_idx"})
    graph.add_parameters([rows])
    names = {}
    for number in range(count):
        before, after = graph.inputs[3 + number], graph.outputs[1 + number]
        names[f"past.{number}"] = f"now.{number}"
        before.get_tensor().set_names({f"past.{number}"})
        after.get_tensor().set_names({f"now.{number}"})
        readers = list(before.get_target_inputs())
        # The plugin fuses cache and attention only where rows are gathered right behind the state.
        gathered = ops.gather(before, rows, ops.constant(0, dtype=np.int64)).output(0)
        for reader in readers:
            reader.replace_source_output(gathered)
        before.get_node().set_partial_shape(ov.PartialShape([-1, heads, -1, width]))
    graph.validate_nodes_and_infer_types()
    x = graph.inputs[0]
    apply_make_stateful_transformation(graph, names)
    batch = ops.gather(
        ops.shape_of(x, output_type="i64"), ops.constant([0], dtype=np.int64), ops.constant(0, dtype=np.int64)
    )
    sizes = [ops.constant([size], dtype=np.int64) for size in (heads, 0, width)]
    for node in graph.get_ops():
        if node.get_type_name() == "ReadValue":  # what it reads before it was ever set: nothing, in as many rows
            nothing = ops.broadcast(ops.constant(0.0, dtype=np.float32), ops.concat([batch, *sizes], 0))
            node.set_arguments([nothing])
    graph.validate_nodes_and_infer_types()


def number_of(state: Any) -> int:
    """Which cache a state of the language graph is."""
    found = re.match(r"past\.(\d+)", state.name)
    assert found is not None, state.name
    return int(found[1])
