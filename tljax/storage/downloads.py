"""Files that are downloaded once into the user's cache folder, and verified by their checksums."""

from pathlib import Path

from tljax.storage.cache import folder


def download(url: str, md5: str) -> Path:
    """Downloads the file at `url` unless it is there already, verifies its MD5, and returns its path.

    Raises:
      FileNotFoundError: if the download fails or the checksum is wrong; the message names the folder to put the file
        into by hand.
    """
    import pooch

    target, file_name = folder("downloads"), url.rsplit("/", 1)[1]
    # A pipe would be read without end.
    if (target / file_name).exists() and not (target / file_name).is_file():
        raise FileNotFoundError(f"{target / file_name} is no regular file; delete it, and put the one of {url} there")
    try:
        return Path(pooch.retrieve(url, f"md5:{md5}", fname=file_name, path=target, progressbar=True))
    # Without a network pooch passes on the OSErrors of requests; for a wrong checksum it raises ValueError.
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"cannot download {url} ({type(error).__name__}); put that file, MD5 {md5}, into {target}"
        ) from error
