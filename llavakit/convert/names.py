"""One table of tensor names, read in both directions: original LLaVA <-> transformers' ``llava``."""

from __future__ import annotations

from llavakit.model.connector import ConnectorKind

# Prefixes, original and native. The first that fits wins, so what is more special stands first.
_TABLE = (
    ("model.mm_projector.", "multi_modal_projector."),
    ("model.vision_tower.vision_tower.", "vision_tower."),
    ("model.image_newline", "image_newline"),
    ("model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
)
# A linear connector has no number in the original, and an identity behind it in transformers' format.
_CONNECTORS: dict[ConnectorKind, tuple[tuple[str, str], ...]] = {
    "linear": (("", "linear_1."),),
    "mlp2x_gelu": (("0.", "linear_1."), ("2.", "linear_2.")),
}


def pairs(kind: ConnectorKind) -> list[tuple[str, str]]:
    """The table of (original, native) prefixes for a connector of ``kind``."""
    first, *rest = _TABLE
    return [(first[0] + a, first[1] + b) for a, b in _CONNECTORS[kind]] + rest


def to_native(name: str, kind: ConnectorKind) -> str | None:
    """The native name of an original tensor; None when it has no place there."""
    return _renamed(name, pairs(kind))


def to_original(name: str, kind: ConnectorKind) -> str | None:
    """The original's name of a native tensor; None when it has no place there (a linear connector's identity)."""
    return _renamed(name, [(native, original) for original, native in pairs(kind)])


def _renamed(name: str, table: list[tuple[str, str]]) -> str | None:
    return next((there + name.removeprefix(here) for here, there in table if name.startswith(here)), None)
