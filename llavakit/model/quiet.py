"""transformers' loading bars and reports, silenced where llavakit checks for itself what was loaded."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

# transformers imports torchao wherever it is installed, and that complains of kernels for other machines.
for name in ("torchao", "torch.utils._pytree"):
    logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within the block transformers logs errors only and draws no bars; after it, as before."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
