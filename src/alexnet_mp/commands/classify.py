"""Classify photographs: python launch/classify.py checkpoint=CHECKPOINT pictures=[FILE]; see `conf/classify.yaml`."""

from functools import partial
from pathlib import Path

from alexnet_mp.analysis.evaluate.classification import bars_of_text, classify, draw_photographs
from alexnet_mp.analysis.evaluate.settings import ClassifySettings
from alexnet_mp.common.cli import Configuration, run_command, show
from alexnet_mp.common.schema import from_mapping


def run(configuration: Configuration) -> None:
    """Classify, print bars of text, and draw them if a file is named."""
    settings = from_mapping(ClassifySettings, configuration, "")
    found = classify(settings)
    show(bars_of_text(found))
    if settings.out is not None:
        draw_photographs(found, Path(settings.out))
        show(f"wrote {Path(settings.out)}")


main = partial(run_command, "classify", run)  # what launch/classify.py calls

if __name__ == "__main__":
    main()
