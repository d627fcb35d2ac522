"""A stage's model made ready to train: filled, adapted and, over several ranks, sharded, one layer at a time.

Each rank holds its share of every tensor and no more than one whole layer at once, so that loading 13B does not need
13B a rank. Sharding is PyTorch's FSDP2, in the layers of the tower and of the language model; what is outside of them
(embeddings, head, connector) is gathered once a row.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from llavakit.base.dist import device as own_device
from llavakit.base.dist import is_main, local_size, world_size
from llavakit.model.adapters import adapted, attach, require
from llavakit.model.checkpoint import native_state, parameter_names
from llavakit.model.llava import Llava
from llavakit.model.parts import blocks, freeze_all_but
from llavakit.model.tensors import Give, fill
from llavakit.train.stage import Sharding, Stage


def mesh(sharding: Sharding) -> DeviceMesh | None:
    """How ranks share the model: one group of all, or (``node``) one on each machine; None for a process alone."""
    ranks, near = world_size(), local_size()
    if ranks == 1:
        return None
    kind = own_device().type
    if sharding == "node" and near < ranks:
        return init_device_mesh(kind, (ranks // near, near), mesh_dim_names=("replicate", "shard"))
    return init_device_mesh(kind, (ranks,), mesh_dim_names=("shard",))


def prepare(
    model: Llava,
    stage: Stage,
    seed: int = 0,
    device: torch.device | str = "cpu",
    give: Give | None = None,
    over: DeviceMesh | None = None,
    precision: torch.dtype = torch.float32,
) -> None:
    """Gives ``model`` its weights (from ``give``, where they are on the meta device) and the stage's adapters, puts
    it on ``device``, shards it ``over`` ranks, and decides what trains.

    Weights and gradients are what the stage says; ``precision`` is what sharded layers compute in. Raises
    :class:`~llavakit.base.errors.BadRequest` when the model lacks what the stage trains.
    """
    names = parameter_names(model)
    chosen = adapted(model, stage.lora, stage.tower_layers) if stage.lora else {}
    if stage.lora is not None:
        require(stage.lora)
    torch.manual_seed(seed)
    for block in blocks(model):
        if give is not None:
            fill(block, names, give)
        if stage.lora is not None and id(block) in chosen:
            attach(block, stage.lora, chosen[id(block)], device)
        _hold(block, stage)
        block.to(device)
        _shard(block, over, precision)
    if give is not None:
        fill(model, names, give)
    _hold(model, stage)
    if over is None:
        model.to(device)
    _shard(model, over, precision)
    freeze_all_but(model, stage.train, stage.tower_layers, stage.lora.parts if stage.lora else ())


def _hold(module: nn.Module, stage: Stage) -> None:
    """Parameters alone: rotary frequencies in bfloat16 would name wrong positions."""
    if stage.weights == "bfloat16":
        for parameter in module.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)


def _shard(module: nn.Module, over: DeviceMesh | None, precision: torch.dtype) -> None:
    if over is None:
        return
    # Weights in 4 bits are no tensors that FSDP can cut; every rank keeps them.
    quantised = {p for p in module.parameters() if type(p) is not nn.Parameter and not hasattr(p, "full_tensor")}
    compute = None if precision == torch.float32 else precision
    policy = MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32)
    fully_shard(module, mesh=over, mp_policy=policy, ignored_params=quantised)
    sharded: Any = module
    assert isinstance(sharded, FSDPModule)
    # The sum, not FSDP's mean: the loss is divided by the supervised tokens of all ranks already.
    sharded.set_gradient_divide_factor(1.0)
    sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other reduction


def broadcast(model: Llava | None) -> Give:
    """Weights of a model that the first rank alone has, given to all, tensor by tensor."""
    state = {} if model is None else native_state(model)

    def give(name: str, parameter: nn.Parameter) -> torch.Tensor:
        import torch.distributed as dist

        # The first rank frees what it has given.
        value = state.pop(name).contiguous() if is_main() else torch.empty_like(parameter, device="cpu")
        dist.broadcast(value, 0)
        return value

    return give
