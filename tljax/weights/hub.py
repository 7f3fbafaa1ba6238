"""Weights from the Hugging Face Hub, as timm puts them there: a `.safetensors` file, and a `config.json` that says what
network it is and which input it expects.

The cache, tokens, mirrors and the offline mode are those of `huggingface_hub`: HF_HOME, HF_TOKEN, HF_ENDPOINT,
HF_HUB_OFFLINE.
"""

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from tljax.runs.files import open_file, read_file

TIMM_CONFIG, WEIGHTS = "config.json", "model.safetensors"


class Unreachable(FileNotFoundError):
    """The hub does not answer, and the cache does not have it; `advice` says what to do."""

    def __init__(self, why: str, advice: str):
        self.advice = advice
        super().__init__(why)


def is_hub_name(name: str) -> bool:
    """Whether `name` looks like OWNER/NAME or OWNER/NAME@REVISION, and OWNER is no folder here."""
    found = re.fullmatch(r"([A-Za-z0-9][\w.-]*)/[\w.-]+(@[\w./-]+)?", name)
    return found is not None and not Path(found[1]).exists()


def describe_search(name: str) -> str:
    """What the cache has of a repository, and whether the hub is asked for it."""
    from huggingface_hub import constants, errors, is_offline_mode, try_to_load_from_cache

    repository, _, revision = name.partition("@")
    found = None
    with suppress(errors.HFValidationError):
        found = try_to_load_from_cache(repository, WEIGHTS, revision=revision or None)
    there = f"{'in' if isinstance(found, str) else 'not in'} the cache {constants.HF_HUB_CACHE}"
    return f"{there}; {'HF_HUB_OFFLINE is set' if is_offline_mode() else 'asking the Hugging Face Hub'}"


def fetch_config(name: str) -> tuple[str, dict[str, Any]]:
    """timm's name of the network in a repository of the hub, and the input that it expects.

    Raises:
      ValueError, OSError: with one line.
    """
    file = _download(name, TIMM_CONFIG)
    try:
        config = json.loads(read_file(file).decode("utf-8"))
        return str(config["architecture"]), config | config.get("pretrained_cfg", {})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"its {TIMM_CONFIG} is not one of timm's ({type(error).__name__}: {error})") from error


def fetch_weights(name: str) -> Path:
    """The weights of a repository of the hub, compared with the SHA-256 that the hub names.

    Raises:
      ValueError, OSError: with one line.
    """
    file = _download(name, WEIGHTS)
    # The cache links a file to one that is named by the hub's digest of it.
    digest = os.path.basename(os.readlink(file)) if file.is_symlink() else ""
    if re.fullmatch("[0-9a-f]{64}", digest):
        with open_file(file) as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if found != digest:
            raise ValueError(f"{file.resolve()} is damaged: its SHA-256 is not the hub's; delete it and try again")
    else:
        print(f"{name}: the hub names no SHA-256, so the file is not compared with one")
    return file


def _download(name: str, file: str) -> Path:
    """The path of a file of OWNER/NAME@REVISION in the cache, downloaded if it is not there.

    Raises:
      ValueError, OSError: with one line.
    """
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_download, hf_hub_url

    repository, _, revision = name.partition("@")
    place: dict[str, Any] = {"repo_id": repository, "filename": file, "revision": revision or None}
    try:
        try:
            # It asks once. `hf_hub_download` would try to reach the hub for half a minute, and say so.
            get_hf_file_metadata(hf_hub_url(**place))
            answers, reason = True, ""
        except errors.HfHubHTTPError as error:
            answers, reason = error.response.status_code < 500, _first_line(error)
        except errors.HFValidationError:
            raise
        # Whatever its HTTP library raises without a network.
        except Exception as error:
            answers, reason = False, _first_line(error)
        return Path(hf_hub_download(**place, library_name="tljax", local_files_only=not answers))
    except errors.GatedRepoError as error:
        raise OSError(
            f"{repository} is gated: accept its terms on the hub's page, then log in with `hf auth login` or HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise FileNotFoundError(
            f"the hub has no {repository}, or it is private: check the name, or log in with `hf auth login` or HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise FileNotFoundError(f"{repository} has no revision {revision!r}") from error
    except errors.LocalEntryNotFoundError as error:
        raise _explain_unreachable(repository, revision, file, reason) from error
    except errors.EntryNotFoundError as error:
        raise FileNotFoundError(f"{repository} holds no {file}: it is no model of timm") from error
    except errors.HFValidationError as error:
        raise ValueError(f"{repository!r} is no name of a repository ({_first_line(error)})") from error
    # Whatever its HTTP library raises.
    except Exception as error:
        raise OSError(f"{file} of {name} cannot be downloaded ({_first_line(error)})") from error


def _explain_unreachable(repository: str, revision: str, file: str, reason: str) -> Unreachable:
    """Why a file is neither in the cache nor downloaded, and what to do."""
    from huggingface_hub import constants, is_offline_mode

    why, first = f"the hub cannot be reached ({reason})", "set HTTPS_PROXY if there is a proxy"
    if is_offline_mode():
        why, first = "HF_HUB_OFFLINE is set", "unset it"
    command = f"hf download {repository}{f' --revision {revision}' if revision else ''}"
    folder = f"models--{repository.replace('/', '--')}"
    return Unreachable(
        f"{file} of {repository} is not in the cache, and {why}",
        f"{first}, or run `{command}` elsewhere and copy {folder} from the cache there into {constants.HF_HUB_CACHE}",
    )


def _first_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
