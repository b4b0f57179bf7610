"""The checkpoints to evaluate: what each says of itself, and that their outputs can be averaged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet_mp.analysis.evaluate.settings import DataChanges, EvaluateSettings, InputChanges
from alexnet_mp.checkpoint.files import load_checkpoint
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.common.text import count
from alexnet_mp.data.dataset import DataSet
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.data.preprocessing import InputScale
from alexnet_mp.errors import ConfigurationError
from alexnet_mp.model.tower import Tower
from alexnet_mp.network.table import Network, parse_network


@dataclass(frozen=True)
class EnsembleMember:
    """One checkpoint: its network, and the data and the scale of the input that it is evaluated with.

    `class_names` are those it was trained on, empty where it does not say. `says_path` is True where the path of the
    data is its own word and nobody's change.
    """

    folder: Path
    network: Network
    data: DataSettings
    input: InputScale
    says_path: bool
    class_names: tuple[str, ...] = ()

    def weights(self, towers: Sequence[int]) -> dict[str, Tensor]:
        """`checked_weights` of its folder."""
        return checked_weights(self.folder, self.network, towers)

    def load_data(self, verify: bool | None = None) -> DataSet:
        """Open its data, and check their checksums where `verify`, or its settings, say so.

        Raises ConfigurationError where they are not here or do not fit; says whose word the path was.
        """
        settings = self.data if verify is None else replace(self.data, verify=verify)
        try:
            return load_data(settings, self.network.image, self.network.classes)
        except ConfigurationError as error:
            if not self.says_path:
                raise
            raise ConfigurationError(
                f"{error} (so says checkpoint {self.folder} of its data; data.path=FOLDER names another)"
            ) from error


def open_ensemble(settings: EvaluateSettings) -> list[EnsembleMember]:
    """Read what the checkpoints say, without their weights.

    Raises ConfigurationError for one that cannot be read or does not say enough, and for members whose outputs cannot
    be averaged: of other images, classes, towers, data or scale of the input.
    """
    members = [open_member(folder, settings.data, settings.input) for folder in settings.folders]
    for member in members[1:]:
        _check_alike(members[0], member)
    return members


def open_member(folder: Path, data_changes: DataChanges, input_changes: InputChanges) -> EnsembleMember:
    """Read what a checkpoint says, without its weights; raises ConfigurationError where it does not say enough."""
    description = describe_checkpoint(folder)
    try:
        network = parse_network(description["network"])
        data = data_settings(description.get("data"), data_changes)
        scale = input_scale(description.get("input"), input_changes)
        names = class_names(description)
    except ConfigurationError as error:
        raise ConfigurationError(f"checkpoint {folder}: {error}") from error
    says_path = data_changes.path is None and data.path is not None
    return EnsembleMember(folder, network, data, scale, says_path, names)


def describe_checkpoint(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself. Raises ConfigurationError, for a run's folder with the checkpoints in it."""
    try:
        return load_checkpoint(folder, towers=[])[1]
    except ConfigurationError as error:
        inside = sorted(path.name for path in folder.glob("checkpoints/*"))
        hint = f"; the checkpoints of this run are checkpoints/{{{','.join(inside)}}}" if inside else ""
        raise ConfigurationError(f"{error}{hint}") from error


def checked_weights(folder: Path, network: Network, towers: Sequence[int]) -> dict[str, Tensor]:
    """The state dict of some towers; raises ConfigurationError where it is damaged or not the network's."""
    state, _ = load_checkpoint(folder, towers)
    expected: dict[str, Tensor] = {}
    with torch.device("meta"):
        for tower in towers:
            layers = Tower(network, tower, seed=0).state_dict()
            expected |= {f"towers.{tower}.{name}": tensor for name, tensor in layers.items()}
    for name in sorted(expected.keys() | state.keys()):
        found, wanted = (_shape(tensors.get(name)) for tensors in (state, expected))
        if found != wanted:
            raise ConfigurationError(
                f"checkpoint {folder} does not hold the weights of its own network table: {name} is {found}, "
                f"and by the table {wanted}; save or convert it again"
            )
    return state


def class_names(description: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes that a checkpoint was trained on; empty where it does not say."""
    names = description.get("class_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigurationError("its class_names are not a list of names")
    return tuple(names)


def data_settings(said: object, changes: DataChanges) -> DataSettings:
    """The data that a checkpoint says it was trained on, and what was changed of them."""
    if said is None and changes.source is None:
        raise ConfigurationError(
            "it does not say what it was trained on; add data=pack data.path=FOLDER, or data=digits"
        )
    own = None if said is None else from_mapping(DataSettings, said, "data")
    if own is None or changes.source not in (None, own.source):
        own = DataSettings(changes.source or "pack")  # the path of another source would mean nothing here
    return replace(own, **_given(changes))


def input_scale(said: object, changes: InputChanges) -> InputScale:
    """The scale of the input that a checkpoint says it was trained with, and what was changed of it."""
    if said is None and (changes.pixel_divisor is None or changes.mean is None):
        raise ConfigurationError(
            "it does not say how its images were scaled; add input.pixel_divisor=1 input.mean=pixel, the paper's, or "
            "what it was trained with"
        )
    own = InputScale() if said is None else from_mapping(InputScale, said, "input")
    scale = replace(own, **_given(changes))
    if not 0 < scale.pixel_divisor < inf:
        raise ConfigurationError(f"input.pixel_divisor is {scale.pixel_divisor}, must be a positive number")
    return scale


def _given(changes: DataChanges | InputChanges) -> dict[str, Any]:
    return {key: value for key, value in vars(changes).items() if value is not None}


def _check_alike(first: EnsembleMember, other: EnsembleMember) -> None:
    for what, of_member, fix in (
        ("network", _signature, "evaluate them apart"),
        ("scale of the input", _scale_in_words, "evaluate them apart, or give input.pixel_divisor and input.mean"),
        ("data", _data_in_words, "add data=pack data.path=FOLDER, or data=digits, with the classes of both"),
    ):
        one, two = of_member(first), of_member(other)
        if one != two:
            raise ConfigurationError(
                f"cannot average checkpoints of different {what}: {first.folder} has {one}, {other.folder} has {two}; "
                f"{fix}"
            )


def _signature(member: EnsembleMember) -> str:
    network = member.network
    return f"image {'x'.join(map(str, network.image))}, {network.classes} classes, {count(network.towers, 'tower')}"


def _scale_in_words(member: EnsembleMember) -> str:
    return f"pixel_divisor {member.input.pixel_divisor:g} and mean {member.input.mean}"


def _data_in_words(member: EnsembleMember) -> str:
    data = member.data
    return data.source if data.path is None else f"{data.source} {Path(data.path).resolve()}"


def _shape(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else str(list(tensor.shape))
