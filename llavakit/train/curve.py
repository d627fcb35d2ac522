"""The loss curve of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llavakit.base.files import writing


def draw_curve(metrics: Sequence[dict[str, Any]], path: Path) -> None:
    """One panel a stage: loss of every step, its running mean, and the learning rate."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    stages = list(dict.fromkeys(record["stage"] for record in metrics))
    figure, axes = plt.subplots(1, len(stages), figsize=(5.5 * len(stages), 3.6), squeeze=False)
    for axis, stage in zip(axes[0], stages, strict=True):
        records = [record for record in metrics if record["stage"] == stage]
        steps = [record["step"] for record in records]
        losses = np.array([record["loss"] for record in records])
        axis.plot(steps, losses, color="#9db4d3", linewidth=0.8, label="loss")
        axis.plot(steps, running_mean(losses), color="#1f4e8c", linewidth=1.8, label="running mean")
        axis.set(title=stage, xlabel="step", ylabel="loss per supervised token")
        rates = axis.twinx()
        for key in [k for k in records[0] if k.startswith("lr/")]:
            rates.plot(steps, [record[key] for record in records], "--", linewidth=0.9, alpha=0.6, label=key)
        rates.set_ylabel("learning rate")
        rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
        handles = [*axis.get_legend_handles_labels()[0], *rates.get_legend_handles_labels()[0]]
        axis.legend(handles, [handle.get_label() for handle in handles], fontsize=7, loc="upper right")
    figure.tight_layout()
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def running_mean(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Exponential running mean over ``share`` of the curve, unbiased at its start."""
    keep = 1 - 1 / max(1.0, share * len(values))
    out, mean, weight = np.empty(len(values)), 0.0, 0.0
    for index, value in enumerate(values):
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        out[index] = mean / weight
    return out
