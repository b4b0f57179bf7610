"""Predictions: a training step split over towers, on one device, and data-parallel, and which of them to choose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from alexnet_mp.errors import ConfigurationError
from alexnet_mp.network.costs import NetworkCost, network_cost
from alexnet_mp.network.table import Network
from alexnet_mp.performance.cost_model.compute import VALUE_BYTES, Part, RowTime, optimizer_seconds, row_times
from alexnet_mp.performance.cost_model.device import Device
from alexnet_mp.performance.cost_model.memory import Memory, largest_batch, memory_of_a_step
from alexnet_mp.performance.cost_model.overlap import Transfer, all_reduce, crossings
from alexnet_mp.performance.cost_model.replicas import ONE_REPLICA, Layout, ring

Way = Literal["split", "single", "data_parallel"]

SECONDS_OF_A_DAY = 86_400
AS_FAST = 0.05  # two predictions nearer than this are not told apart


@dataclass(frozen=True)
class Prediction:
    """One way to train, predicted. Times are seconds of a step; `crossings` and `all_reduce` list its transfers.

    The step is the sum of the parts and of what is exposed of the transfers. Memory is of the fullest device.
    """

    way: Way
    devices: int
    batch: int
    convolution: float
    matmul: float
    elementwise: float
    optimizer: float
    crossings: tuple[Transfer, ...]
    all_reduce: tuple[Transfer, ...]
    memory: Memory
    capacity: float
    largest_batch: int

    @property
    def compute(self) -> float:
        return self.convolution + self.matmul + self.elementwise + self.optimizer

    @property
    def exposed(self) -> float:
        return sum(transfer.exposed for transfer in (*self.crossings, *self.all_reduce))

    @property
    def step(self) -> float:
        return self.compute + self.exposed

    @property
    def images_per_second(self) -> float:
        return self.batch / self.step

    @property
    def fits(self) -> bool:
        return self.memory.total <= self.capacity

    def days(self, epochs: float, images: int) -> float:
        """Days of training; without reading images, validation and checkpoints."""
        return epochs * images / self.images_per_second / SECONDS_OF_A_DAY


@dataclass(frozen=True)
class Plan:
    """The ways that this network and these devices allow, each predicted, and why the others are left out."""

    predictions: dict[Way, Prediction]
    left_out: dict[Way, str]


def predict(
    network: Network,
    device: Device,
    batch: int,
    precision: str = "float32",
    crossing_dtype: str = "float32",
    layout: Layout = ONE_REPLICA,
) -> Plan:
    """Predict every way for the same global batch.

    The split puts a tower of a replica on each device; data-parallel uses as many devices as there are towers in all
    replicas, and all of them where the network has one tower. Raises ConfigurationError for a precision that the device
    has no peak rate for, a batch below one, and a layout that these devices do not allow.
    """
    if batch < 1:
        raise ConfigurationError(f"batch_size is {batch}, must be at least 1")
    device.peak(precision)
    replicas = layout.replicas
    alone, device = device, layout.on(device, network.towers)
    costs = network_cost(network)
    predictions: dict[Way, Prediction] = {"single": _single(costs, alone, batch, precision)}
    left_out: dict[Way, str] = {}
    if network.towers == 1:
        left_out["split"] = f"network {network.name} has one tower"
    elif replicas == 1 and network.towers > device.devices:
        left_out["split"] = f"it takes {network.towers} devices, one a tower, and there are {device.devices}"
    elif batch % replicas:
        left_out["split"] = f"a batch of {batch} images is not dealt evenly to {replicas} replicas"
    else:
        predictions["split"] = _split(costs, device, batch, precision, crossing_dtype, layout)
    members = network.towers * replicas if network.towers * replicas > 1 else device.devices
    if (replicas == 1 and members > device.devices) or members == 1:
        left_out["data_parallel"] = f"there are {device.devices} devices, and it takes at least {max(2, members)}"
    elif batch % members:
        left_out["data_parallel"] = f"a batch of {batch} images is not dealt evenly to {members} devices"
    else:
        predictions["data_parallel"] = _data_parallel(costs, device, batch, members, precision, layout)
    ways: tuple[Way, ...] = ("split", "single", "data_parallel")
    return Plan({way: predictions[way] for way in ways if way in predictions}, left_out)


def _split(
    costs: NetworkCost, device: Device, batch: int, precision: str, crossing_dtype: str, layout: Layout
) -> Prediction:
    replicas, share = layout.replicas, batch // layout.replicas
    rows = row_times(costs, device, share, 1, precision)
    width = VALUE_BYTES[crossing_dtype]
    crossed = crossings(costs, rows, device.link, share, width)
    reduced = all_reduce(rows, ring(device, layout.nodes, costs.towers), replicas)  # a ring for each tower

    def memory(images: int) -> Memory:
        return memory_of_a_step(costs, images, range(1), True, replicas > 1, precision, width, device.reserved_bytes)

    updated = costs.parameters_per_tower[0]
    return _prediction(
        "split", costs.towers * replicas, batch, rows, crossed, reduced, updated, device, memory, replicas
    )


def _single(costs: NetworkCost, device: Device, batch: int, precision: str) -> Prediction:
    whole = device.as_one()
    rows = row_times(costs, whole, batch, costs.towers, precision)

    def memory(images: int) -> Memory:
        held = range(costs.towers)
        return memory_of_a_step(costs, images, held, False, False, precision, 0, whole.reserved_bytes)

    return _prediction("single", 1, batch, rows, [], [], costs.parameters, whole, memory, 1)


def _data_parallel(
    costs: NetworkCost, device: Device, batch: int, members: int, precision: str, layout: Layout
) -> Prediction:
    rows = row_times(costs, device, batch // members, costs.towers, precision)
    transfers = all_reduce(rows, ring(device, layout.nodes, 1), members)

    def memory(images: int) -> Memory:
        held = range(costs.towers)
        return memory_of_a_step(costs, images, held, False, True, precision, 0, device.reserved_bytes)

    return _prediction("data_parallel", members, batch, rows, [], transfers, costs.parameters, device, memory, members)


def _prediction(
    way: Way,
    devices: int,
    batch: int,
    rows: Sequence[RowTime],
    crossed: Sequence[Transfer],
    reduced: Sequence[Transfer],
    parameters: int,
    device: Device,
    memory: Callable[[int], Memory],
    shares: int,
) -> Prediction:
    def seconds(part: Part) -> float:
        return sum(row.forward + row.backward for row in rows if row.part == part)

    return Prediction(
        way=way,
        devices=devices,
        batch=batch,
        convolution=seconds("convolution"),
        matmul=seconds("matmul"),
        elementwise=seconds("elementwise"),
        optimizer=optimizer_seconds(parameters, device),
        crossings=tuple(crossed),
        all_reduce=tuple(reduced),
        memory=memory(batch // shares),
        capacity=device.memory_bytes,
        largest_batch=shares * largest_batch(memory(1), memory(2), device.memory_bytes),
    )
