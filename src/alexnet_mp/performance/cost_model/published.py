"""Predictions beside published numbers, and the error of each: `python launch/plan.py check=true`."""

from dataclasses import dataclass, replace
from typing import Any

from alexnet_mp.common.text import aligned
from alexnet_mp.network.rows import Dropout
from alexnet_mp.network.table import Network, load_network
from alexnet_mp.performance.cost_model.device import Device, load_device
from alexnet_mp.performance.cost_model.prediction import Prediction, Way, predict
from alexnet_mp.performance.cost_model.settings import IMAGENET_TRAIN

CONVNET_BENCHMARKS = "convnet-benchmarks, README.md"
ONE_WEIRD_TRICK = "Krizhevsky 2014 (arXiv 1404.5997)"


@dataclass(frozen=True)
class Published:
    """A published time and what to predict for it.

    `low` and `high` are the same where one number was published. `unit`: "ms" is a forward and a backward pass without
    dropout and update, "days" and "hours" are `epochs` of `images`. `calibrates`: the software generation's fraction
    was taken from this number, so that it proves nothing.
    """

    what: str
    low: float
    high: float
    unit: str
    network: str
    device: str
    software: str
    way: Way
    batch: int
    source: str
    note: str
    precision: str = "float32"
    epochs: float = 90
    images: int = IMAGENET_TRAIN
    calibrates: bool = False


def _titan_x(software: str, published: float, network: str, note: str, precision: str = "float32") -> Published:
    calibrates = network == "overfeat_fast" and precision == "float32"
    return Published(
        f"{network}, {software}, {precision}",
        published,
        published,
        "ms",
        network,
        "titan_x",
        software,
        "single",
        128,
        CONVNET_BENCHMARKS,
        note,
        precision,
        calibrates=calibrates,
    )


PUBLISHED = (
    _titan_x("cuda_convnet2_2014", 723, "overfeat_fast", ""),
    _titan_x("cudnn_r2_2015", 810, "overfeat_fast", ""),
    _titan_x("cudnn_r4_2016", 268, "overfeat_fast", ""),
    _titan_x(
        "cudnn_r4_2016", 242, "overfeat_fast", "float32's fraction; half precision only halves traffic", "float16"
    ),
    _titan_x("cuda_convnet2_2014", 177, "one_weird_trick", "without dropout and softmax, as timed"),
    _titan_x(
        "cudnn_r2_2015",
        231,
        "one_weird_trick",
        "probably its layers are less suited than Overfeat's: 10 % of the operations are in conv1, with three maps and "
        "stride 4, against 4 % there",
    ),
    _titan_x(
        "cudnn_r4_2016",
        81,
        "one_weird_trick",
        "R4's fast transforms are for small kernels of stride 1: 79 % of Overfeat's operations are in 3x3 layers, 51 % "
        "of this net's",
    ),
    _titan_x("cudnn_r4_2016", 71, "one_weird_trick", "as for float32", "float16"),
    Published(
        "paper, two GTX 580",
        5,
        6,
        "days",
        "paper",
        "two_gtx_580",
        "cuda_convnet_2012",
        "split",
        128,
        "paper §5: about 90 epochs of 1.2 million images",
        "the published days include reading images and testing, and cuda-convnet of 2012 on a Fermi board is taken to "
        "achieve what it did later on Maxwell",
        images=1_200_000,
    ),
    Published(
        "one tower, one K20",
        98.05,
        98.05,
        "hours",
        "one_weird_trick",
        "two_k20",
        "cuda_convnet2_2014",
        "single",
        128,
        ONE_WEIRD_TRICK,
        "that net had two normalizations (layers-imagenet-1gpu.cfg), ours of this name has none; its hours include "
        "reading images and testing; the fraction was taken from a Maxwell board",
    ),
    Published(
        "one tower, two K20",
        50.24,
        50.24,
        "hours",
        "one_weird_trick",
        "two_k20",
        "cuda_convnet2_2014",
        "data_parallel",
        256,
        ONE_WEIRD_TRICK,
        "not the same method: there the convolutions are data-parallel and the fully-connected layers model-parallel, "
        "which never sends the 58.6 million fully-connected gradients; here all is data-parallel",
    ),
    Published(
        "two towers, two K20, against the same",
        50.24,
        50.24,
        "hours",
        "paper",
        "two_k20",
        "cuda_convnet2_2014",
        "split",
        128,
        ONE_WEIRD_TRICK,
        "not the same network: the paper's two towers, with normalization, in place of one tower; for comparison",
    ),
)


def compare(published: Published) -> dict[str, Any]:
    """What was published, what the model says, and the error: relative to the nearer end of a range, 0 inside it."""
    device: Device = replace(load_device(published.device), software=published.software)
    network = load_network(published.network)
    if published.unit == "ms":
        network = _without_dropout(network)
    plan = predict(network, device, published.batch, published.precision)
    predicted = _in_unit(plan.predictions[published.way], published)
    nearest = min(max(predicted, published.low), published.high)
    return {
        "what": published.what,
        "way": published.way,
        "batch_size": published.batch,
        "software": published.software,
        "published": [published.low, published.high],
        "unit": published.unit,
        "predicted": predicted,
        "error": predicted / nearest - 1,
        "calibrates": published.calibrates,
        "source": published.source,
        "note": published.note,
    }


def _in_unit(prediction: Prediction, published: Published) -> float:
    if published.unit == "ms":
        return 1e3 * (prediction.step - prediction.optimizer)
    days = prediction.days(published.epochs, published.images)
    return days if published.unit == "days" else 24 * days


def _without_dropout(network: Network) -> Network:
    return replace(network, rows={name: row for name, row in network.rows.items() if not isinstance(row, Dropout)})


def as_text(comparisons: list[dict[str, Any]]) -> str:
    """The comparisons as a table, and what is not the same in each."""
    rows = [["", "way", "batch", "published", "predicted", "error"]]
    rows += [
        [
            comparison["what"],
            comparison["way"],
            str(comparison["batch_size"]),
            _published(comparison),
            f"{comparison['predicted']:.4g} {comparison['unit']}",
            "by construction" if comparison["calibrates"] else f"{comparison['error']:+z.0%}",
        ]
        for comparison in comparisons
    ]
    notes = [f"{c['what']} ({c['source']}): {c['note']}." for c in comparisons if c["note"]]
    return "\n".join([*aligned(rows, text_columns=2), "", *notes])


def _published(comparison: dict[str, Any]) -> str:
    low, high = comparison["published"]
    return f"{low:g} {comparison['unit']}" if low == high else f"{low:g} to {high:g} {comparison['unit']}"
