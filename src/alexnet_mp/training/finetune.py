"""Starts a run from the weights of another: pretraining on many classes, then fine-tuning (paper §6)."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from alexnet_mp.checkpoint.files import load_checkpoint
from alexnet_mp.checkpoint.names import find_checkpoint
from alexnet_mp.common.schema import differences
from alexnet_mp.data.preprocessing import InputScale
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.tower_model import TowerModel
from alexnet_mp.network.rows import Dropout
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.parallel.mesh import Mesh


@dataclass(frozen=True)
class InitialWeights:
    """Where a run's first weights come from: a `checkpoint`, by name, or, without one, the table and the seed.

    The layers named in `but` are drawn anew all the same, such as a classifier of other classes.
    """

    checkpoint: str | None = None
    but: tuple[str, ...] = ()


def load_initial_weights(model: TowerModel, initial: InitialWeights, scale: InputScale, mesh: Mesh) -> list[str]:
    """Put a checkpoint's weights and running statistics into a model that has its own; every process calls it.

    Velocities and learning rates are not taken over. Replica 0 reads the files, and the others have theirs from it.
    Returns, in replica 0, what the weights were trained with and this run, whose input has `scale`, has otherwise: no
    shape shows it, and the first losses would be those of other weights.

    Raises ConfigurationError in every process if the checkpoint cannot be read or does not fit.
    """
    if initial.checkpoint is None:
        return []
    problem, otherwise, folder = "", [], ""
    try:
        folder = str(find_checkpoint(initial.checkpoint)) if mesh.placement.is_main else ""
    except ConfigurationError as error:
        problem = f"initial_weights.checkpoint={initial.checkpoint}: {error}"
    folder = mesh.text_from_main(folder)  # one for all: another run may save a newer one meanwhile
    try:
        if mesh.placement.replica == 0 and folder:
            weights, description = load_checkpoint(folder, list(mesh.placement.devices))
            own = model.state_dict()
            _check_fit(weights, own, initial)
            model.load_state_dict({**own, **_without(weights, initial.but)})
            otherwise = _otherwise(description, model.network, scale)
    except (ConfigurationError, IndexError, KeyError) as error:
        problem = f"initial_weights.checkpoint={initial.checkpoint}: {error}"
    if mesh.any(bool(problem)):
        raise ConfigurationError(problem or "another process could not read initial_weights.checkpoint")
    mesh.from_replica_0(list(model.state_dict().values()))
    return otherwise


def _otherwise(description: Mapping[str, Any], network: Network, scale: InputScale) -> list[str]:
    """The scale of the input and the conventions of dropout that are not those of the checkpoint."""
    said = description.get("input")
    found = differences(said, asdict(scale), "recipe.input") if isinstance(said, Mapping) else []
    theirs = parse_network(description["network"]).layer_rows
    for name, row in network.layer_rows.items():
        other = theirs.get(name)
        if isinstance(row, Dropout) and isinstance(other, Dropout):
            found += differences(other.inverted, row.inverted, f"network.layers.{name}.inverted")
    return found


def _check_fit(found: Mapping[str, Tensor], own: Mapping[str, Tensor], initial: InitialWeights) -> None:
    layers = {_layer(name) for name in own}
    for name in initial.but:
        if name not in layers:
            raise ConfigurationError(f"initial_weights.but names {name!r}; layers: {', '.join(sorted(layers))}")
    here, there = _without(own, initial.but), _without(found, initial.but)
    wrong: dict[str, str] = {}  # of each layer the first tensor
    for name in there:
        if name not in here:
            wrong.setdefault(_layer(name), f"{name} is not in the network")
    for name, tensor in here.items():
        if name not in there:
            wrong.setdefault(_layer(name), f"{name} is not in the checkpoint")
        elif there[name].shape != tensor.shape:
            wrong.setdefault(_layer(name), f"{name} is {list(there[name].shape)}, the network's {list(tensor.shape)}")
    if wrong:
        but = ",".join([*initial.but, *wrong])
        raise ConfigurationError(
            f"it does not fit: {'; '.join(wrong.values())}; to draw such layers anew: initial_weights.but=[{but}]"
        )


def _without(tensors: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if _layer(name) not in layers}


def _layer(name: str) -> str:
    return name.split(".")[2]
