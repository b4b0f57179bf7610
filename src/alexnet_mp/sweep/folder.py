"""Locks the folder of a sweep, checks that it holds no other sweep, and writes the results into it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alexnet_mp.common.disk import FolderLock, lock_folder, regular, write_whole
from alexnet_mp.common.schema import differences
from alexnet_mp.common.text import csv_table
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.sweep.results import ROW_KEYS, VariantResult, sweep_rows, sweep_values
from alexnet_mp.sweep.settings import CSV_FILE, JSON_FILE, SweepSettings

FORMAT_VERSION = 1


def sweep_lock(out: Path) -> FolderLock:
    """Make the folder `out` and lock it for this sweep alone; its jobs hold the lock too.

    Raises ConfigurationError if it cannot be made, and if another sweep, or a job that one left running when it was
    killed, works in it.
    """
    busy = f"another sweep works in out={out}, or a job that one has left running; wait for it, or end it"
    return lock_folder(out, out, busy)


def check_definition(out: Path, settings: SweepSettings) -> None:
    """Raise ConfigurationError with the difference if `out` holds a sweep of other variants than `settings` say.

    Variants and seeds may be added; what is there must stay, so that every row of a table is of one kind.
    """
    path = out / JSON_FILE
    if not path.exists():
        return
    unreadable = (OSError, ValueError, KeyError, TypeError, RecursionError)
    with explained(f"{path} is not what a sweep writes; choose another out", *unreadable):
        values = json.loads(regular(path).read_text(encoding="utf-8"))
        version, definition = values["format_version"], values["definition"]
        held = {"overrides": definition["overrides"], "variants": dict(definition["variants"])}
    if version != FORMAT_VERSION:
        raise ConfigurationError(f"{path} has format_version {version!r}; this version reads {FORMAT_VERSION}")
    asked = _definition(settings)
    asked["variants"] = {name: asked["variants"].get(name) for name in held["variants"]}
    different = differences(held, asked, "")
    if different:
        raise ConfigurationError(
            f"out={out} holds a sweep of other variants: {'; '.join(different)}; go on with those, or choose another "
            "out (variants and seeds may be added)"
        )


def write_sweep_results(
    out: Path, settings: SweepSettings, results: Sequence[VariantResult], command: str | None = None
) -> None:
    """Write `sweep.json` and `sweep.csv`, each whole or not at all. Raises OSError if it cannot.

    `command` is the command line that asked for the sweep, if there is one.
    """
    values = {
        "format_version": FORMAT_VERSION,
        "command": command,
        "definition": _definition(settings),
        "seeds": list(settings.seeds),
        **sweep_values(results),
    }
    write_whole(out / CSV_FILE, csv_table(ROW_KEYS, sweep_rows(results)).encode())
    write_whole(out / JSON_FILE, (json.dumps(values, indent=2, allow_nan=False) + "\n").encode())


def _definition(settings: SweepSettings) -> dict[str, Any]:
    return {
        "overrides": list(settings.overrides),
        "variants": {name: list(variant.overrides) for name, variant in settings.variants.items()},
    }
