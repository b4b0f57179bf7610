"""Predicts a training step for each strategy: split over towers, on one device, and data-parallel."""

from dataclasses import dataclass
from typing import Literal, get_args

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.costs import NetworkCost, network_cost
from alexnet_mp.network.table import Network
from alexnet_mp.performance.cost_model.compute import VALUE_BYTES, Part, optimizer_seconds, row_times
from alexnet_mp.performance.cost_model.hardware import Hardware
from alexnet_mp.performance.cost_model.memory import StepMemory, largest_batch, memory_of_a_step
from alexnet_mp.performance.cost_model.overlap import Transfer, all_reduce, crossings
from alexnet_mp.performance.cost_model.replicas import ONE_REPLICA, Layout, ring
from alexnet_mp.performance.cost_model.software import (
    AGREEMENT_HOP_SECONDS,
    OPERATIONS_BESIDE,
    OPERATIONS_OF_A_TRANSFER,
    PASSES,
)

Strategy = Literal["split", "single", "data_parallel"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)

AS_FAST = 0.05  # two predictions nearer than this are not told apart


@dataclass(frozen=True)
class Prediction:
    """One strategy, predicted. Times are seconds of a step; `crossings` and `all_reduce` list its transfers.

    The device's part of the step is the sum of the parts and of what is exposed of the transfers. `host` is what the
    host works, of which `host_exposed` comes on top: all of it, or what exceeds the device's part if it works ahead.
    `memory` is of the fullest device.
    """

    strategy: Strategy
    devices: int
    batch: int
    convolution: float
    matmul: float
    elementwise: float
    optimizer: float
    host: float
    host_ahead: bool
    crossings: tuple[Transfer, ...]
    all_reduce: tuple[Transfer, ...]
    memory: StepMemory
    capacity: float
    largest_batch: int

    @property
    def compute(self) -> float:
        return self.convolution + self.matmul + self.elementwise + self.optimizer

    @property
    def bytes_sent(self) -> float:
        """Bytes that a device sends in a step."""
        return sum(transfer.bytes_sent for transfer in (*self.crossings, *self.all_reduce))

    @property
    def exposed(self) -> float:
        return sum(transfer.exposed for transfer in (*self.crossings, *self.all_reduce))

    @property
    def host_exposed(self) -> float:
        return max(0.0, self.host - self.compute - self.exposed) if self.host_ahead else self.host

    @property
    def step(self) -> float:
        return self.compute + self.exposed + self.host_exposed

    @property
    def images_per_second(self) -> float:
        return self.batch / self.step

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.capacity

    def days(self, epochs: float, images: int) -> float:
        """Days of training; without reading images, validation and checkpoints."""
        return epochs * images / self.images_per_second / 86_400


@dataclass(frozen=True)
class Plan:
    """The strategies that this network and these devices allow, each predicted, and why the others are left out."""

    predictions: dict[Strategy, Prediction]
    left_out: dict[Strategy, str]


def predict(
    network: Network,
    hardware: Hardware,
    batch: int,
    precision: str = "float32",
    crossing_dtype: str = "float32",
    layout: Layout = ONE_REPLICA,
) -> Plan:
    """Predict every strategy for the same global batch.

    The split puts a tower of a replica on each device; data-parallel uses as many devices as there are towers in all
    replicas, and all of them if the network has one tower. Raises ConfigurationError for a precision that the hardware
    has no peak rate for, a batch below one, and a layout that these devices do not allow.
    """
    if batch < 1:
        raise ConfigurationError(f"batch_size is {batch}, must be at least 1")
    hardware.peak(precision)
    replicas, towers = layout.replicas, network.towers
    shared = layout.on(hardware, towers)
    members = towers * replicas if towers * replicas > 1 else shared.devices
    shares: dict[Strategy, int] = {"split": replicas, "single": 1, "data_parallel": members}
    left_out: dict[Strategy, str] = {}
    if towers == 1:
        left_out["split"] = f"network {network.name} has one tower"
    elif replicas == 1 and towers > shared.devices:
        left_out["split"] = f"it takes {towers} devices, one a tower, and there are {shared.devices}"
    elif batch % replicas:
        left_out["split"] = f"a batch of {batch} images is not dealt evenly to {replicas} replicas"
    if (replicas == 1 and members > shared.devices) or members == 1:
        left_out["data_parallel"] = f"there are {shared.devices} devices, and it takes at least {max(2, members)}"
    elif batch % members:
        left_out["data_parallel"] = f"a batch of {batch} images is not dealt evenly to {members} devices"
    costs = network_cost(network)
    predictions = {}
    for strategy in STRATEGIES:
        if strategy not in left_out:
            used = hardware.as_one() if strategy == "single" else shared
            predictions[strategy] = _prediction(
                strategy, costs, used, batch, shares[strategy], layout.nodes, precision, crossing_dtype
            )
    return Plan(predictions, left_out)


def _prediction(
    strategy: Strategy,
    costs: NetworkCost,
    hardware: Hardware,
    batch: int,
    shares: int,
    nodes: int,
    precision: str,
    crossing_dtype: str,
) -> Prediction:
    """One strategy; the batch is dealt to so many `shares`: replicas of a split, or devices that hold all towers."""
    split, images = strategy == "split", batch // shares
    towers = 1 if split else costs.towers  # of a device
    rows = row_times(costs, hardware, images, towers, precision)
    link = ring(hardware, nodes, rings=costs.towers if split else 1)

    def seconds(part: Part) -> float:
        return sum(row.forward + row.backward for row in rows if row.part == part)

    def memory(images: int) -> StepMemory:
        return memory_of_a_step(costs, hardware, images, towers, shares > 1, precision, crossing_dtype)

    devices = shares * costs.towers if split else shares
    crossed = crossings(costs, rows, hardware.link, images, VALUE_BYTES[crossing_dtype]) if split else []
    reduced = all_reduce(rows, link, shares)
    operations = OPERATIONS_BESIDE + PASSES["optimizer"].kernels + sum(row.operations for row in rows)
    operations += OPERATIONS_OF_A_TRANSFER * len([*crossed, *reduced])
    launches = operations * hardware.launch_seconds if hardware.asynchronous else 0.0
    return Prediction(
        strategy=strategy,
        devices=devices,
        batch=batch,
        convolution=seconds("convolution"),
        matmul=seconds("matmul"),
        elementwise=seconds("elementwise"),
        optimizer=optimizer_seconds(sum(costs.parameters_per_tower[:towers]), hardware),
        host=launches + 2 * (devices - 1) * AGREEMENT_HOP_SECONDS,
        host_ahead=hardware.asynchronous,
        crossings=tuple(crossed),
        all_reduce=tuple(reduced),
        memory=memory(images),
        capacity=hardware.memory_bytes,
        largest_batch=shares * largest_batch(memory(1), memory(2), hardware.memory_bytes),
    )
