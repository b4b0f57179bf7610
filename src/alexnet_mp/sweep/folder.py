"""The folder of a sweep: whose it is, what it compares, and the files with its results."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alexnet_mp.common.disk import FolderLock, write_whole
from alexnet_mp.common.text import csv_cell
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.sweep.results import ROW_KEYS, VariantResult, as_rows, as_values
from alexnet_mp.sweep.settings import SweepSettings

FORMAT_VERSION = 1
VALUES, TABLE = "sweep.json", "sweep.csv"


@contextmanager
def locked(out: Path) -> Iterator[FolderLock]:
    """Make the folder `out` and have it for this sweep alone; yields the lock, which its jobs hold too.

    Raises ConfigurationError where it cannot be made, and where another sweep, or a job that one left running when it
    was killed, works in it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(out)
    except BlockingIOError as error:
        raise ConfigurationError(
            f"another sweep works in out={out}, or a job that one has left running; wait for it, or end it"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot write out={out}: {error.strerror}") from error
    try:
        yield lock
    finally:
        lock.release()


def check_definition(out: Path, settings: SweepSettings) -> None:
    """Raise ConfigurationError with the difference where `out` holds a sweep of other variants than `settings` say.

    Variants and seeds may be added; what is there must stay, so that every row of a table is of one kind.
    """
    path = out / VALUES
    if not path.exists():
        return
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        version = held["format_version"]
        held_overrides, held_variants = held["definition"]["overrides"], dict(held["definition"]["variants"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not what a sweep writes ({error}); choose another out") from error
    if version != FORMAT_VERSION:
        raise ConfigurationError(f"{path} has format_version {version!r}; this version reads {FORMAT_VERSION}")
    ours = _definition(settings)
    different = []
    if held_overrides != ours["overrides"]:
        different.append(f"overrides {json.dumps(held_overrides)} -> {json.dumps(ours['overrides'])}")
    for name, overrides in held_variants.items():
        asked = ours["variants"].get(name)
        if asked != overrides:
            different.append(
                f"variant {name} {json.dumps(overrides)} -> {'not there' if asked is None else json.dumps(asked)}"
            )
    if different:
        raise ConfigurationError(
            f"out={out} holds a sweep of other variants: {'; '.join(different)}; go on with those, or choose another "
            "out (variants and seeds may be added)"
        )


def write_results(
    out: Path, settings: SweepSettings, results: Sequence[VariantResult], command: str | None = None
) -> None:
    """Write `sweep.json` and `sweep.csv`, each whole or not at all. Raises OSError where it cannot.

    `command` is the command line that asked for the sweep, where there is one.
    """
    values = {
        "format_version": FORMAT_VERSION,
        "command": command,
        "definition": _definition(settings),
        "seeds": list(settings.seeds),
        **as_values(results),
    }
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ROW_KEYS, lineterminator="\n")
    writer.writeheader()
    for row in as_rows(results):
        writer.writerow({key: csv_cell(value) if isinstance(value, str) else value for key, value in row.items()})
    write_whole(out / TABLE, text.getvalue().encode())
    write_whole(out / VALUES, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def _definition(settings: SweepSettings) -> Mapping[str, Any]:
    return {
        "overrides": list(settings.overrides),
        "variants": {name: list(variant.overrides) for name, variant in settings.variants.items()},
    }
