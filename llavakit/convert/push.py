"""A checkpoint onto a Hugging Face hub (``HF_ENDPOINT`` names another than huggingface.co), in one commit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from llavakit.base.errors import BadRequest, WorkFailed
from llavakit.base.files import read_json
from llavakit.base.log import log
from llavakit.convert.card import README, card

CARD = "llavakit.json"
PUSHED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.gguf", "LICENSE*", README)
"""Files of a checkpoint, and no others that may lie beside them."""


def push(path: Path, name: str, license: str | None = None, private: bool = False) -> str:
    """Pushes a native directory to the repository ``name`` (made where there is none) and returns the commit's address.

    Its README.md goes as it is; where there is none, one is written for the hub alone. Of absolute paths in
    llavakit.json, which say how this machine is arranged, only the last part goes. All files arrive in one commit or
    none does. Raises :class:`BadRequest` for a name that cannot be, or where nobody is logged in;
    :class:`WorkFailed` when the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import validate_repo_id

    files = list(_files(path))
    said = (path / README).read_bytes() if (path / README).is_file() else card(path, name, license).encode()
    operations = [CommitOperationAdd(file.name, file) for file in files if file.name not in (README, CARD)]
    operations.append(CommitOperationAdd(README, said))
    if (path / CARD).is_file():
        told = json.dumps(_placeless(read_json(path / CARD)), indent=2, ensure_ascii=False)
        operations.append(CommitOperationAdd(CARD, f"{told}\n".encode()))
    api = HfApi(library_name="llavakit")
    try:
        validate_repo_id(name)
        repository = api.create_repo(name, private=private or None, exist_ok=True).repo_id
        commit = api.create_commit(repository, operations, commit_message="A checkpoint by llavakit")
    except HFValidationError as error:
        raise BadRequest(f"{name!r} is no name of a repository: {' '.join(str(error).split())}") from None
    except OfflineModeIsEnabled:
        raise BadRequest("HF_HUB_OFFLINE is set, and pushing needs the hub; unset it") from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        first = str(error).strip().splitlines()[0]
        if status in (401, 403):
            raise BadRequest(
                f"the hub lets nobody write {name!r} with this token ({status}); log in with `hf auth login`, or set "
                "HF_TOKEN to one that may write"
            ) from None
        raise WorkFailed(f"the hub refused {name!r}: {first}") from None
    size = sum(file.stat().st_size for file in files)
    log.info(f"{len(operations)} files, {size / 2**20:,.1f} MiB, at {commit.commit_url}")
    return str(commit.commit_url)


def _placeless(value: Any) -> Any:
    """Values of JSON with absolute paths shortened to their last part."""
    if isinstance(value, dict):
        return {key: _placeless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_placeless(item) for item in value]
    kinds = (PurePosixPath, PureWindowsPath)
    if isinstance(value, str) and (kind := next((kind for kind in kinds if kind(value).is_absolute()), None)):
        return kind(value).name
    return value


def _files(path: Path) -> Iterator[Path]:
    for file in sorted(path.iterdir()):
        if file.is_file() and any(file.match(pattern) for pattern in PUSHED):
            yield file
        elif not file.name.startswith("."):
            log.info(f"not pushed, since it is no part of a checkpoint: {file.name}")
