"""Names as text for a reader: those of files and classes may hold what a terminal obeys."""

import unicodedata

# Kinds of characters that steer a terminal or cannot be seen; a surrogate is a byte that is no UTF-8.
_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
# They join letters in Indian and Persian words, and parts of emoji.
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    r"""`text` on one line, in which control characters, ends of lines and marks of the direction of writing are
    escapes, such as `\n`, `\x1b` and `\u202e`."""
    return "".join(escape(c) if unicodedata.category(c) in _UNSEEN and c not in _JOINERS else c for c in text)


def escape(character: str) -> str:
    r"""A character as Python writes it, such as `\n` and `\u202e`."""
    return character.encode("unicode_escape").decode("ascii")


def count_words(number: int, noun: str) -> str:
    """A number with its noun, such as `1 picture` and `1,200 pictures`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def join_lines(*lines: str) -> str:
    """Lines below each other, each of them `printable`."""
    return "\n".join(map(printable, lines))
