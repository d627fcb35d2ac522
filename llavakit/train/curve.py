"""The curves of a run as a picture: loss, learning rates, and whose loss it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llavakit.base.files import writing

Records = Sequence[Mapping[str, Any]]
MOST = 10  # sources with a line of their own; more could not be told apart


def draw_curve(metrics: Records, path: Path) -> None:
    """A column a stage: above, the loss of every step, its running mean, what was held out, and the learning rates;
    below, where there are several sources or any validation by source, the loss of each."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    stages = {name: [r for r in metrics if r["stage"] == name] for name in dict.fromkeys(r["stage"] for r in metrics)}
    tall = any(_sources(records) for records in stages.values())
    size = (5.8 * len(stages), 7.2 if tall else 3.8)
    figure, axes = plt.subplots(1 + tall, len(stages), figsize=size, squeeze=False)
    for column, (stage, records) in enumerate(stages.items()):
        axes[0][column].set_title(stage)
        _losses(axes[0][column], records)
        if tall:
            _by_source(axes[1][column], records)
    figure.tight_layout()
    with writing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    plt.close(figure)


def _losses(axis: Any, records: Records) -> None:
    steps, losses = _series(records, "loss")
    axis.plot(steps, losses, color="#9db4d3", linewidth=0.8, label="loss")
    axis.plot(steps, running_mean(losses), color="#1f4e8c", linewidth=1.8, label="running mean")
    held = _series(records, "valid/loss")
    if len(held[0]):
        axis.plot(*held, "o-", color="#c2571a", linewidth=1.4, markersize=4, label="held out")
    skipped = [r["step"] for r in records if r.get("skipped")]
    if skipped:
        axis.plot(skipped, [axis.get_ylim()[1]] * len(skipped), "x", color="#b00020", label="skipped")
    axis.set(xlabel="step", ylabel="loss per supervised token")
    rates = axis.twinx()
    for number, key in enumerate(k for k in records[0] if k.startswith("lr/")):
        colour = ("#4d9a6a", "#8a63b5", "#888888")[number % 3]
        rates.plot(*_series(records, key), "--", color=colour, linewidth=0.9, alpha=0.7, label=key.replace("/", " "))
    rates.set_ylabel("learning rate")
    rates.set_ylim(bottom=0)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    handles = [*axis.get_legend_handles_labels()[0], *rates.get_legend_handles_labels()[0]]
    axis.legend(handles, [handle.get_label() for handle in handles], fontsize=7, loc="upper right", framealpha=0.85)


def _by_source(axis: Any, records: Records) -> None:
    """Running means of what trains, as lines; what is held out, as dots in the colour of its source."""
    sources = _sources(records)
    if not sources:
        axis.set_axis_off()
        return
    for number, source in enumerate(sources):
        colour = f"C{number}"
        steps, losses = _series(records, f"loss/{source}")
        if len(steps):
            axis.plot(steps, running_mean(losses, 0.1), color=colour, linewidth=1.3, label=source)
        held = _series(records, f"valid/loss/{source}")
        if len(held[0]):
            axis.plot(*held, "o:", color=colour, markersize=4, linewidth=0.9, label=f"{source}, held out")
    axis.set(xlabel="step", ylabel="loss by source (running mean)")
    axis.legend(fontsize=7, loc="upper right", framealpha=0.85, ncols=2)


def _sources(records: Records) -> list[str]:
    """Names that have a loss of their own, the first :data:`MOST`."""
    keys = (key for record in records for key in record)
    names = (key.removeprefix("valid/").removeprefix("loss/") for key in keys if "loss/" in key)
    return list(dict.fromkeys(names))[:MOST]


def _series(records: Records, key: str) -> tuple[list[int], np.ndarray]:
    """Steps at which ``key`` was measured, and its values."""
    found = [(record["step"], record[key]) for record in records if record.get(key) is not None]
    return [step for step, _ in found], np.array([value for _, value in found], dtype=float)


def running_mean(values: np.ndarray, share: float = 0.05) -> np.ndarray:
    """Exponential running mean over ``share`` of the curve, unbiased at its start."""
    keep = 1 - 1 / max(1.0, share * len(values))
    out, mean, weight = np.empty(len(values)), 0.0, 0.0
    for index, value in enumerate(values):
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        out[index] = mean / weight
    return out
