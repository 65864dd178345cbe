"""The base checkpoint as a local folder: one that is there, or a download from Hugging Face of what is needed."""

import re
from pathlib import Path

from ..workspace import DataError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
# No pickles and no code: neither is ever used.
_WANTED_FILES = ["*.json", "*.safetensors", "*.txt", "tokenizer.model", "*.jinja"]


def fetch_base(path: str, revision: str | None = None) -> Path:
    """The folder of a base model, given as a folder or as a Hugging Face id (downloaded into the usual cache).

    Raises:
        DataError: there is no such folder or repository, it cannot be reached, or it has no safetensors.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise DataError(f"base {path} is a folder, which has no revision {revision!r}; leave `revision` out")
        return folder
    if folder.is_absolute() or not _HUB_ID.fullmatch(path):
        raise DataError(
            f"base {path}: no such folder; give a model's folder or a Hugging Face id such as bigcode/starcoder"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        fetched = Path(snapshot_download(path, revision=revision, allow_patterns=_WANTED_FILES))
    except GatedRepoError:
        raise DataError(
            f"base {path} is gated: accept its terms on its page, then log in with `hf auth login`"
        ) from None
    except RepositoryNotFoundError:
        raise DataError(f"base {path} is neither a folder here nor a Hugging Face repository you can read") from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise DataError(
            f"base {path} could not be fetched ({reason}); check the network, or give a local folder"
        ) from None
    if not any(fetched.glob("*.safetensors")):
        raise DataError(f"base {path} publishes no safetensors, and pickles are never loaded; convert it first")
    return fetched
