"""What a person or a program sees of a stage that trains: one record a step, a bar, lines where there is no bar."""

from __future__ import annotations

import math
import resource
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from llavakit.base.dist import is_main, share
from llavakit.base.log import log, metrics_line, progress
from llavakit.data.loader import Step
from llavakit.model.llava import Llava
from llavakit.train.flops import Cost, Work
from llavakit.train.peak import measured_peak
from llavakit.train.sinks import Sink
from llavakit.train.step import Outcome

TOTALS = ("samples", "tokens", "supervised", "cut")


def no_totals() -> dict[str, Any]:
    """Of a stage that has not begun."""
    return {**dict.fromkeys(TOTALS, 0), "bad": [], "seconds": 0.0, "skipped": 0, "unsound": 0}


class Meter:
    """Follows one stage from step ``done`` of ``total``. ``totals`` are kept up to date; ``peak``: FLOP/s of this
    process's device, of which the model FLOPs utilisation of its own rows is a share."""

    def __init__(
        self,
        stage: str,
        model: Llava,
        sources: Sequence[str],
        total: int,
        done: int,
        totals: dict[str, Any],
        peak: float,
        sinks: Sequence[Sink] = (),
    ) -> None:
        self.stage = stage
        self.sources = sources
        self.total = total
        self.totals = totals
        self.sinks = sinks
        self.device = model.device
        self.cost = Cost.of(model)
        self.peak = peak
        self.bar = progress(total=total, desc=stage, unit="step")
        self.bar.update(done)
        self.recent: deque[float] = deque(maxlen=50)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.clock = time.perf_counter()

    def record(self, step: Step, outcome: Outcome, rates: Mapping[str, float]) -> dict[str, Any]:
        """The metrics of a step that has just ended."""
        seconds = time.perf_counter() - self.clock
        self.recent.append(seconds)
        for key in TOTALS:
            self.totals[key] += getattr(step, key)
        self.totals["bad"] += step.bad
        self.totals["seconds"] += seconds
        self.totals["skipped"] += outcome.skipped
        self.totals["unsound"] += bool(outcome.unsound)
        for reason in step.bad if is_main() else ():
            log.warning(f"skipped: {reason}")
        by_source = outcome.ledger.by_source(self.sources) if len(self.sources) > 1 else {}
        found: dict[str, Any] = {
            "stage": self.stage,
            "step": step.number + 1,
            # JSON has no NaN, and a curve has a gap there.
            "loss": outcome.loss if math.isfinite(outcome.loss) else None,
            "grad_norm": outcome.grad_norm if math.isfinite(outcome.grad_norm) else None,
            **{f"loss/{name}": one.mean for name, one in by_source.items() if math.isfinite(one.loss)},
            **{f"lr/{key}": rate for key, rate in rates.items()},
            "samples": step.samples,
            "tokens": step.tokens,
            "supervised": step.supervised,
            "bad": len(step.bad),
            "seconds": round(seconds, 4),
            **self._speed(step, seconds),
        }
        if outcome.unsound:
            ids = [member.id for own in share(outcome.ledger.members) for member in own]
            found |= {"unsound": outcome.unsound, "skipped": outcome.skipped, "ids": ids}
        self._show(found, rates)
        return found

    def _speed(self, step: Step, seconds: float) -> dict[str, float]:
        flops = self.cost(Work.of(step.rows))
        return {
            "samples_per_second": round(step.samples / seconds, 3),
            "supervised_per_second": round(step.supervised / seconds, 1),
            "mfu": round(flops / seconds / self.peak, 4),
            "memory_gib": round(peak_memory(self.device), 3),
            "seconds_left": round(sum(self.recent) / len(self.recent) * (self.total - step.number - 1), 1),
        }

    def _show(self, found: Mapping[str, Any], rates: Mapping[str, float]) -> None:
        loss = math.nan if found["loss"] is None else found["loss"]
        norm = math.nan if found["grad_norm"] is None else found["grad_norm"]
        shown = {
            "loss": round(loss, 3),
            "norm": round(norm, 2),
            **{f"lr {key}": f"{rate:.2g}" for key, rate in rates.items()},
            "answer tok/s": round(found["supervised_per_second"]),
            "samples/s": round(found["samples_per_second"], 1),
            "MFU": f"{found['mfu']:.0%}",
            "GiB": round(found["memory_gib"], 1),
        }
        self.bar.update()
        self.bar.set_postfix_str("  ".join(f"{key} {value}" for key, value in shown.items()))
        if self.bar.disable and found["step"] % max(1, self.total // 10) == 0:
            left = f"{found['seconds_left']:.0f} s"
            log.info(metrics_line({self.stage: f"{found['step']}/{self.total}", **shown, "left": left}))

    def send(self, found: Mapping[str, Any]) -> None:
        """A record that is complete, to the sinks; what comes before the next step's time begins here."""
        values = {key: value for key, value in found.items() if isinstance(value, int | float) and key != "step"}
        for sink in self.sinks:
            sink.log(values, found["step"])
        self.clock = time.perf_counter()

    def close(self) -> None:
        self.bar.close()
        for sink in self.sinks:
            sink.close()

    def summary(self) -> str:
        """The stage in one line; whatever could cast doubt on it is counted."""
        t = self.totals
        return (
            f"{self.stage}: {t['samples']:,} samples, {t['tokens']:,} tokens ({t['supervised']:,} supervised) in "
            f"{t['seconds']:.0f} s, {t['tokens'] / max(t['seconds'], 1e-9):,.0f} tokens/s; {len(t['bad'])} bad records "
            f"skipped, {t['cut']:,} tokens cut, {t['unsound']} unsound steps, {t['skipped']} of them skipped"
        )


def peak_memory(device: torch.device) -> float:
    """GiB at most: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def peak_of(device: torch.device, precision: torch.dtype) -> float:
    """The measured peak, said once."""
    peak = measured_peak(device, precision)
    log.info(f"MFU is the share of {peak / 1e12:.3g} TFLOP/s, this device's own {precision} matrix product")
    return peak
