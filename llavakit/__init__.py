"""llavakit: the whole LLaVA-1.5 system. ``load`` a model and ask it; everything else is on the command line."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llavakit.chat.conversation import Conversation, ImageRef, Turn
    from llavakit.engine.load import load

__version__ = "0.1.0"

__all__ = ["Conversation", "ImageRef", "Turn", "__version__", "load"]

# Every packed row has a length of its own, and torch's CPU library keeps the kernel and buffers of the last 1024
# shapes: gigabytes within minutes. Read when torch is imported, so it is said here.
os.environ.setdefault("LRU_CACHE_CAPACITY", "32")
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")

# Found when they are first asked for: `import llavakit` must not wait for torch.
_LAZY = {
    "Conversation": "llavakit.chat.conversation",
    "ImageRef": "llavakit.chat.conversation",
    "Turn": "llavakit.chat.conversation",
    "load": "llavakit.engine.load",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
