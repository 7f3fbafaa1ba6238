"""Files that are downloaded once into the user's cache folder, and verified by their checksums."""

import sys
from pathlib import Path
from urllib.parse import urlsplit

from tljax.storage.cache import folder


def find_download(url: str, md5: str) -> Path | None:
    """The file of `url` if it is there with that MD5; nothing is downloaded.

    Raises:
      OSError: if the cache folder cannot be used.
    """
    file = folder("downloads") / url.rsplit("/", 1)[1]
    return file if file.is_file() and not _describe_missing(file, md5) else None


def download(url: str, md5: str) -> Path:
    """Downloads the file at `url` unless it is there already, verifies its MD5, and returns its path.

    Raises:
      FileNotFoundError: if the download fails or the checksum is wrong; the message names the folder to put the file
        into by hand.
    """
    import pooch

    file = folder("downloads") / url.rsplit("/", 1)[1]
    # A pipe would be read without end.
    if file.exists() and not file.is_file():
        raise FileNotFoundError(f"{file} is no regular file; delete it, and put the one of {url} there")
    if not (missing := _describe_missing(file, md5)):
        return file
    print(f"{missing}; downloading it from {urlsplit(url).netloc}", flush=True)
    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(
            pooch.retrieve(url, f"md5:{md5}", fname=file.name, path=file.parent, progressbar=sys.stderr.isatty())
        )
    # Without a network pooch passes on the OSErrors of requests; for a wrong checksum it raises ValueError.
    except (OSError, ValueError) as error:
        why = "what came has another MD5" if isinstance(error, ValueError) else type(error).__name__
        raise FileNotFoundError(
            f"cannot download {url} ({why}): set HTTPS_PROXY if there is a proxy, or put that file, MD5 {md5}, into "
            f"{file.parent}"
        ) from error


def _describe_missing(file: Path, md5: str) -> str:
    """What is there instead of a file with that MD5; empty where it is there."""
    import pooch

    if file.exists():
        found = pooch.file_hash(str(file), alg="md5")
        return "" if found == md5 else f"{file} is another file, or cut off (MD5 {found})"
    others = sorted(path.name for path in file.parent.glob("*"))
    held = f", which holds {others[0]}{f' and {len(others) - 1} others' * bool(others[1:])}" if others else ""
    return f"{file.name} is not in {file.parent}{held}"
