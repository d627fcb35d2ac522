"""What transformers' own ``llava`` can hold. Known from a recipe before any weight is read, and checked again on the
parts themselves before anything trains."""

from __future__ import annotations

from typing import Any, Literal

from llavakit.base.errors import BadRequest
from llavakit.model.connector import NATIVE

Format = Literal["llava", "llavakit"]

CHOOSE = "say model.format: llavakit to have it all the same, in a checkpoint that llavakit alone can load"


def unheld(connector: str, keep_registers: bool) -> list[str]:
    """What of a model's choices transformers' ``llava`` has no place for."""
    found = [] if connector in NATIVE else [f"connector {connector} (it holds {' and '.join(NATIVE)})"]
    return found if keep_registers else [*found, "keep_registers: false (it leaves out CLS alone)"]


def check_language(language: Any, form: Format) -> None:
    """Raises :class:`BadRequest` for a language model whose logits llavakit or, in its own format, transformers'
    ``llava`` would not reproduce."""
    config = language.config
    scaled = [name for name in ("logit_scale", "logits_scaling", "lm_head_multiplier") if getattr(config, name, None)]
    if scaled:
        raise BadRequest(
            f"a {config.model_type} language model scales its logits ({scaled[0]}), which is not known here"
        )
    if form != "llava":
        return
    found = []
    if getattr(config, "final_logit_softcapping", None):
        found.append("caps its logits (final_logit_softcapping)")
    if getattr(language.get_output_embeddings(), "bias", None) is not None:
        found.append("has a bias in its head")
    if found:
        raise BadRequest(f"this {config.model_type} {' and '.join(found)}; transformers' llava does not: {CHOOSE}")
