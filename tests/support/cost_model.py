"""A network and hardware of a few numbers, so that a prediction can be made by hand."""

from dataclasses import replace
from typing import Any

from alexnet_mp import Network
from alexnet_mp.network.table import parse_network
from alexnet_mp.performance.cost_model.hardware import DeviceLink, Hardware
from alexnet_mp.performance.cost_model.prediction import Prediction, predict
from alexnet_mp.performance.cost_model.software import Achieved

INIT = {"std": 0.01, "bias": 0}


def small(towers: int = 2) -> Network:
    """Per tower: conv 4 kernels 3x3 on 3x8x8, ReLU, fc 10 reading both, classifier of 5."""
    return parse_network(
        {
            "name": "tiny",
            "towers": towers,
            "image": [3, 8, 8],
            "classes": 5,
            "layers": {
                "conv1": {"kind": "conv", "kernels": 4, "size": 3, "pad": [1, 1], "reads": "image", **INIT},
                "relu1": {"kind": "relu"},
                "fc2": {"kind": "fc", "units": 10, "reads": "both", **INIT},
                "fc3": {"kind": "classifier", **INIT},
            },
        }
    )


# Multiply-adds of one tower and one image.
CONV1, FC2, FC3 = 4 * 3 * 9 * 64, 10 * 2 * 256, 5 * 10
PARAMETERS_OF_TOWER_0 = (4 * 27 + 4) + (10 * 512 + 10) + (5 * 10 + 5)
PARAMETERS_OF_TOWER_1 = PARAMETERS_OF_TOWER_0 - 5


def device(**changes: Any) -> Hardware:
    """Arithmetic at 500 and 250 operations a second, memory so fast that it costs nothing, a link of 100 bytes/s."""
    plain = Hardware(
        name="tiny",
        devices=2,
        peak_flops={"float32": 1000.0},
        achieved=Achieved(convolution=0.5, matmul=0.25, memory=1.0),
        memory_bandwidth=1e30,
        memory_bytes=1e9,
        link=DeviceLink("wire", bandwidth=200.0, achieved=0.5, latency_seconds=2.0),
        asynchronous=False,
    )
    return replace(plain, **changes)


def split(batch: int = 1, **changes: Any) -> Prediction:
    return predict(small(), device(**changes), batch).predictions["split"]
