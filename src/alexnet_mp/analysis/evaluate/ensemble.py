"""Opens the checkpoints to evaluate, and checks that the outputs of several can be averaged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alexnet_mp.analysis.evaluate.settings import DataChanges, EvaluateSettings, InputChanges
from alexnet_mp.checkpoint.files import load_checkpoint
from alexnet_mp.common.schema import from_mapping
from alexnet_mp.common.text import count
from alexnet_mp.data.dataset import DataSet
from alexnet_mp.data.find import find_data
from alexnet_mp.data.load import DataSettings, load_data
from alexnet_mp.data.preprocessing import InputScale
from alexnet_mp.errors import ConfigurationError, explained
from alexnet_mp.model.tower import Tower
from alexnet_mp.network.table import Network, parse_network
from alexnet_mp.training.run_input import RunInput, read_run_input

_MUST_AGREE = {  # what members of an ensemble must have in common, and what to do if they do not
    "network": "evaluate them apart",
    "scale of the input": "evaluate them apart, or give input.pixel_divisor and input.mean",
    "data": "add data=pack data.path=FOLDER, or data=digits, with the classes of both",
}


@dataclass(frozen=True)
class EnsembleMember:
    """One checkpoint: its network, and the data and the scale of the input that it is evaluated with.

    `class_names` are those it was trained on, empty if it does not say. `says_data` is True if the data are its own
    word and nobody's change; they have the `fingerprint`, None if it does not say. `digests` are of its files.
    """

    folder: Path
    network: Network
    data: DataSettings
    input: InputScale
    says_data: bool
    class_names: tuple[str, ...] = ()
    fingerprint: int | None = None
    digests: str = ""

    @property
    def run(self) -> Path:
        """The folder of its run; of a checkpoint elsewhere, the folder that it lies in."""
        return self.folder.parent.parent if self.folder.parent.name == "checkpoints" else self.folder.parent

    @cached_property
    def run_input(self) -> RunInput | None:
        """What its run's folder says of the data that it was trained on; None if that says nothing of them.

        Raises ConfigurationError if the file is damaged.
        """
        found = read_run_input(self.run)
        return None if found and self.fingerprint not in (None, found.fingerprint) else found

    @cached_property
    def found_data(self) -> DataSettings:
        """Its data where they are now, if it was not told others: the path may be that of another time or machine."""
        if not self.says_data:
            return self.data
        known = self.run_input
        return find_data(self.data, self.run, known.data_from_run if known else None, self.fingerprint)

    def weights(self, towers: Sequence[int]) -> dict[str, Tensor]:
        """The state dict of some towers; raises ConfigurationError if it is damaged or not the network's."""
        state, _ = load_checkpoint(self.folder, towers)
        with torch.device("meta"):
            layers = {tower: Tower(self.network, tower, seed=0).state_dict() for tower in towers}
        expected = {f"towers.{tower}.{name}": layer[name] for tower, layer in layers.items() for name in layer}
        found, wanted = ({name: list(tensors[name].shape) for name in tensors} for tensors in (state, expected))
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                raise ConfigurationError(
                    f"checkpoint {self.folder} does not hold the weights of its own network table: {name} is "
                    f"{found.get(name, 'missing')}, and by the table {wanted.get(name, 'missing')}; save or convert it "
                    "again"
                )
        return state

    def load_data(self, verify: bool | None = None) -> DataSet:
        """Open its data, and check their checksums if `verify` says so; None leaves that to its settings.

        Raises ConfigurationError if they are not here or do not fit; says whose word the path was.
        """
        settings = self.found_data if verify is None else replace(self.found_data, verify=verify)
        own_word = self.says_data and settings.path is not None
        try:
            data = load_data(settings, self.network.image, self.network.classes)
            if own_word and self.fingerprint not in (None, data.fingerprint()):
                raise ConfigurationError(
                    f"{settings.path} has other data, of fingerprint {data.fingerprint():014x}; "
                    f"data.path={settings.path} takes them all the same"
                )
        except ConfigurationError as error:
            if not own_word:
                raise
            wanted = "" if self.fingerprint is None else f", with fingerprint {self.fingerprint:014x}"
            raise ConfigurationError(
                f"{error} (so says checkpoint {self.folder} of its data{wanted}; data.path=FOLDER names another)"
            ) from error
        # Under the name that the run knows them by.
        return data if self.found_data == self.data else replace(data, name=Path(self.data.path or "").name)

    def check_classes(self, data: DataSet) -> None:
        """Raise ConfigurationError if `data` has other classes than it was trained on, or in another order."""
        trained, given = self.class_names, data.class_names
        if trained and trained != given:
            pairs = enumerate(zip(trained, given, strict=False))
            named = (f"class {label} is {one!r} there and {two!r} here" for label, (one, two) in pairs if one != two)
            raise ConfigurationError(
                f"checkpoint {self.folder} was trained on other classes, or in another order, than those of "
                f"{data.name}: {next(named, f'{len(trained)} there and {len(given)} here')}"
            )


def open_ensemble(settings: EvaluateSettings) -> list[EnsembleMember]:
    """Read what the checkpoints say, without their weights.

    Raises ConfigurationError for one that cannot be read or does not say enough, and for members whose outputs cannot
    be averaged: of other images, classes, towers, data or scale of the input.
    """
    members = [open_member(folder, settings.data, settings.input) for folder in settings.folders]
    for other in members[1:]:
        for what, fix in _MUST_AGREE.items():
            one, two = (_in_words(member)[what] for member in (members[0], other))
            if one != two:
                raise ConfigurationError(
                    f"cannot average checkpoints of different {what}: {members[0].folder} has {one}, {other.folder} "
                    f"has {two}; {fix}"
                )
    return members


def open_member(folder: Path, data_changes: DataChanges, input_changes: InputChanges) -> EnsembleMember:
    """Read what a checkpoint says, without its weights; raises ConfigurationError if it does not say enough."""
    description = load_checkpoint(folder, towers=[])[1]
    with explained(f"checkpoint {folder}", ConfigurationError):
        network = parse_network(description["network"])
        data = _data_settings(description.get("data"), data_changes)
        scale = _input_scale(description.get("input"), input_changes)
        names = description.get("class_names", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigurationError("its class_names are not a list of names")
    says_data = data_changes.path is None and data_changes.source in (None, data.source)
    fingerprint, files = description.get("data_fingerprint"), description.get("sha256_of_files")
    fingerprint = fingerprint if isinstance(fingerprint, int) else None
    digests = " ".join(map(str, files.values())) if isinstance(files, Mapping) else ""
    return EnsembleMember(folder, network, data, scale, says_data, tuple(names), fingerprint, digests)


def _data_settings(said: object, changes: DataChanges) -> DataSettings:
    """The data that a checkpoint says it was trained on, and what was changed of them."""
    if said is None and changes.source is None:
        raise ConfigurationError(
            "it does not say what it was trained on; add data=pack data.path=FOLDER, or data=digits"
        )
    own = None if said is None else from_mapping(DataSettings, said, "data")
    if own is None or changes.source not in (None, own.source):
        own = DataSettings(changes.source or "pack")  # the path of another source would mean nothing here
    return replace(own, **_given(changes))


def _input_scale(said: object, changes: InputChanges) -> InputScale:
    """The scale of the input that a checkpoint says it was trained with, and what was changed of it."""
    if said is None and (changes.pixel_divisor is None or changes.mean is None):
        raise ConfigurationError(
            "it does not say how its images were scaled; add input.pixel_divisor=1 input.mean=pixel, the paper's, or "
            "what it was trained with"
        )
    own = InputScale() if said is None else from_mapping(InputScale, said, "input")
    return replace(own, **_given(changes))


def _given(changes: DataChanges | InputChanges) -> dict[str, Any]:
    return {key: value for key, value in vars(changes).items() if value is not None}


def _in_words(member: EnsembleMember) -> dict[str, str]:
    network, scale, data = member.network, member.input, member.data
    image = "x".join(map(str, network.image))
    where = "" if data.path is None else f" {Path(data.path).resolve()}"
    if where and member.says_data and member.fingerprint is not None:
        where = f" with fingerprint {member.fingerprint:014x}"  # wherever they lie
    return {
        "network": f"image {image}, {network.classes} classes, {count(network.towers, 'tower')}",
        "scale of the input": f"pixel_divisor {scale.pixel_divisor:g} and mean {scale.mean}",
        "data": data.source + where,
    }
