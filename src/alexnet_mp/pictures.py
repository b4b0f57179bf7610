"""Pictures of a run."""

import json
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def draw_learning_curves(metrics: Path, picture: Path, title: str) -> None:
    """Draw loss and error over epochs, from the lines of `metrics.jsonl`, as a PNG."""
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    steps = [record for record in records if record["kind"] == "train"]
    validations = [record for record in records if record["kind"] == "validation"]
    epochs_per_step = validations[-1]["epoch"] / validations[-1]["step"]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [record["epoch"] for record in validations]
    left.plot([r["step"] * epochs_per_step for r in steps], [r["loss"] for r in steps], lw=0.8, label="training")
    left.plot(epochs, [r["loss"] for r in validations], "o-", ms=3, label="validation")
    left.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
    for key, label in (("top1_error", "top-1"), ("top5_error", "top-5")):
        right.plot(epochs, [100 * r[key] for r in validations], "o-", ms=3, label=f"{label}, validation")
    last = 100 * validations[-1]["top1_error"]
    right.annotate(f"{last:.2f} %", (epochs[-1], last), textcoords="offset points", xytext=(6, 0), va="center")
    highest = 100 * max(r["top1_error"] for r in validations)
    right.set(xlabel="epoch", ylabel="error, %", xlim=(0, 1.2 * epochs[-1]), ylim=(0, 1.1 * highest or 1))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
    figure.suptitle(title, parse_math=False)  # a name may hold dollar signs
    figure.savefig(picture, dpi=120)
