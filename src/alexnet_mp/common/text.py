"""Text for people: names made safe to print, counted things, and aligned columns."""

import codecs
import csv
import io
import sys
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")  # control characters, bytes that are no text, line and paragraph separators
_DIRECTIONS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}  # turn the text that follows

_ASCII = str.maketrans({"█": "#", "…": "...", "→": "->", "×": "x", "−": "-", "µ": "u", "α": "alpha", "β": "beta"})


def take_every_character() -> None:
    """Have standard output and errors show what their encoding lacks in ASCII, in place of ending the command."""
    codecs.register_error("in_ascii", _in_ascii)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="in_ascii")


def _in_ascii(error: Any) -> tuple[str, int]:
    lacking = error.object[error.start : error.end].translate(_ASCII)
    return lacking.encode("ascii", "backslashreplace").decode("ascii"), error.end


def printable(text: str) -> str:
    """`text` in one line, with every character escaped that acts on a terminal instead of being shown by it.

    A name may hold an escape sequence, which moves the cursor or changes the window's title, or a mark that turns the
    direction of what follows, so that a name reads as another.
    """
    return "".join(_escaped(each) if _acts(each) else each for each in text)


def short_name(name: str, longest: int = 28) -> str:
    """A `printable` name, cut if it is too long for a table or a picture."""
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


def csv_table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """A CSV file: a line of `columns` and one for each row, empty if it lacks a column; texts are `csv_cell`s."""
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: csv_cell(value) if isinstance(value, str) else value for key, value in row.items()})
    return written.getvalue()


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def count(number: int, thing: str, plural: str = "s") -> str:
    """`1 epoch`, `0 epochs`, `1,320 steps`; `plural` is what is put behind `thing` for any number but one."""
    return f"{number:,} {thing}{'' if number == 1 else plural}"


def aligned(rows: Sequence[Sequence[str]], text_columns: int = 1, totals: int = 0) -> list[str]:
    """Lines of a table for a terminal: the first row is its head, and so many rows at its end are totals.

    The first `text_columns` columns are text, the others are numbers.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "  ".join("-" * width for width in widths)
    body = lines[1 : len(lines) - totals]
    return [lines[0], rule, *body, *([rule] if totals else []), *lines[len(lines) - totals :]]


def markdown_table(rows: Sequence[Sequence[str]], text_columns: int | None = None) -> str:
    """A Markdown table: the first row is its head. Cells are Markdown already, all but for `|`.

    The first `text_columns` columns are text, or all; the others are numbers, to the right.
    """
    numbers = 0 if text_columns is None else len(rows[0]) - text_columns
    rule = ["---"] * (len(rows[0]) - numbers) + ["---:"] * numbers
    lines = [rows[0], rule, *rows[1:]]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
