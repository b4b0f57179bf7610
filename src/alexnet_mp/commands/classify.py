"""Classify: python launch/classify.py checkpoint=CHECKPOINT pictures=[FILE,FILE]; see `conf/classify.yaml`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_mp.analysis.evaluate.photograph_bars import bars_of_text, check_out, draw_photographs
from alexnet_mp.analysis.evaluate.photographs import classify
from alexnet_mp.analysis.evaluate.settings import ClassifySettings
from alexnet_mp.common.cli import run_command, show
from alexnet_mp.common.schema import from_mapping


def run(configuration: Mapping[str, Any]) -> None:
    """Classify, print bars of text, and draw them if a file is named."""
    settings = from_mapping(ClassifySettings, configuration, "")
    out = None if settings.out is None else Path(settings.out)
    if out is not None:
        check_out(out, len(settings.paths))
    found = classify(settings)
    show(bars_of_text(found))
    if out is not None:
        draw_photographs(found, out)
        show(f"wrote {out}")


def main() -> None:
    """Entry point of `launch/classify.py`."""
    run_command("classify", run)


if __name__ == "__main__":
    main()
