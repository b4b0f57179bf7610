"""Text from files and archives that a terminal, a table or a page can show without obeying it."""

import unicodedata

_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are no text, line and paragraph separators
_DIRECTIONS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}  # turn the text that follows


def printable(text: str) -> str:
    """`text` in one line, with every character escaped that acts on a terminal instead of being shown by it.

    A name may hold an escape sequence, which moves the cursor or changes the window's title, or a mark that turns the
    direction of what follows, so that a name reads as another.
    """
    return "".join(_escaped(each) if _acts(each) else each for each in text)


def short_name(name: str, longest: int = 28) -> str:
    """A `printable` name, cut where it is too long for a table or a picture."""
    shown = printable(name)
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def printable_lines(text: str) -> str:
    """`printable`, but for the ends of lines and for tabs."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _CATEGORIES or character in _DIRECTIONS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def csv_cell(text: str) -> str:
    """`printable` text for a cell of a CSV file: a spreadsheet would take one that begins like a formula for one.

    Such a cell gets an apostrophe in front, by which spreadsheets know text; a plain number stays.
    """
    shown = printable(text)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) and not _is_number(shown) else shown


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
