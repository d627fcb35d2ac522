"""Two kinds of failure, told apart by exit code: the request was wrong (2) or the work failed (1)."""

from __future__ import annotations

from collections.abc import Iterable


class LlavakitError(Exception):
    """A failure that is fully explained by its message: what, where, and what to do. Shown without a traceback."""

    exit_code = 1


class WorkFailed(LlavakitError):
    """The request was sound but could not be carried out (a corrupt file, a full disk, a refused connection)."""


class BadRequest(LlavakitError):
    """The request itself was wrong: an unknown name, a missing file, a configuration that cannot be."""

    exit_code = 2


class BadRecord(LlavakitError):
    """One data record cannot be used. ``where`` names file, line or index, and id; ``reason`` says what is wrong."""

    def __init__(self, reason: str, where: str = "") -> None:
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason
        self.where = where

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        # Exception's own pickling passes only args[0]; data workers send these across processes.
        return (BadRecord, (self.reason, self.where))


def nearest(name: str, names: Iterable[str]) -> str:
    """A ``" (did you mean 'x'?)"`` suffix, or nothing when no name is near."""
    import difflib  # here, because only the unlucky need it: errors is imported by everything

    match = difflib.get_close_matches(name, list(names), n=1, cutoff=0.55)
    return f" (did you mean {match[0]!r}?)" if match else ""
