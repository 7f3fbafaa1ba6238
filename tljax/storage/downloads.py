"""Files fetched once, with the right checksum, into the user's cache folder."""

from pathlib import Path

from tljax.storage.cache import folder


def download(url: str, md5: str) -> Path:
    """The file at `url`, downloaded unless it is there already; its checksum is right.

    Raises:
      FileNotFoundError: without a network or with another checksum, naming the folder to put the file into by hand.
    """
    import pooch

    target, file_name = folder("downloads"), url.rsplit("/", 1)[1]
    try:
        return Path(pooch.retrieve(url, f"md5:{md5}", fname=file_name, path=target, progressbar=True))
    # pooch lets through what requests raises without a network, and ValueError for a wrong checksum.
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"cannot download {url} ({type(error).__name__}); put that file, MD5 {md5}, into {target}"
        ) from error
