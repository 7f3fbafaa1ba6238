"""The program as a shell starts it: `python main.py`, `python -m tljax`, or the command `tljax`."""

import os
import sys

# Read by glibc (2.35 or later) when a process starts, and by nothing else.
HUGE_PAGES = "glibc.malloc.hugetlb=1"


def use_huge_pages() -> None:
    """Starts this process once more with large arrays in huge pages, unless it has been.

    A step on a CPU gets its working memory from Linux, which fills it with zeros page by page. With pages of 2 MiB
    instead of 4 KiB a step of everything takes 214 ms instead of 311, dispatched alone (32 pixels, batches of 128, two
    cores). Where Linux gives huge pages to every process, or to none, nothing changes. A value of this setting that the
    environment has in `GLIBC_TUNABLES` stays.
    """
    settings = os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform == "linux" and sys.executable and "glibc.malloc.hugetlb" not in settings:
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [settings, HUGE_PAGES]))
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def start() -> None:
    """Runs the command line. On Linux this process is replaced first by one that uses huge pages, and that one runs
    it."""
    use_huge_pages()
    from tljax.cli import main

    main()


if __name__ == "__main__":
    start()
