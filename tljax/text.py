"""Names as text for a reader and as cells of a table: those of files and classes may hold what a terminal or a
spreadsheet obeys."""

import re
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


# Text that begins so is a formula to a spreadsheet, and what is marked begins with an apostrophe before that;
# https://owasp.org/www-community/attacks/CSV_Injection.
FORMULA = re.compile("'*[=+@\t\r\n-]")


def _is_formula(text: str) -> bool:
    return bool(FORMULA.match(text)) and not re.fullmatch(r"[+-]?\d+(\.\d+)?", text)


def plain_cell(text: str) -> str:
    """`text` as a cell that no spreadsheet takes for a formula: behind an apostrophe if it begins as one. A number
    stays one."""
    return f"'{text}" if _is_formula(text) else text


def as_written(cell: str) -> str:
    """The text of which `plain_cell` makes this cell."""
    return cell[1:] if cell[:1] == "'" and _is_formula(cell[1:]) else cell


# A surrogate, or what stands for one, and the backslashes before it.
_SURROGATE = re.compile(r"(\\*)([\ud800-\udfff]|ud[89a-f][0-9a-f]{2})")


def escape_surrogates(text: str) -> str:
    r"""`text` that UTF-8 can hold: bytes of a file's name that are no UTF-8 as `\udcff`. Where the text has that
    itself, its backslashes are doubled."""

    def spell(found: re.Match[str]) -> str:
        escaped = escape(found[2]) if len(found[2]) == 1 else found[2]
        return 2 * found[1] + escaped

    return _SURROGATE.sub(spell, text)


def restore_surrogates(text: str) -> str:
    """The text of which `escape_surrogates` makes this."""

    def read(found: re.Match[str]) -> str:
        half, is_escape = divmod(len(found[1]), 2)
        return "\\" * half + (chr(int(found[2][1:], 16)) if is_escape else found[2])

    return _SURROGATE.sub(read, text)
