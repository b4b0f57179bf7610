"""Fixtures: a finished run and the page of its report; a pack of random pictures and checkpoints that fit it."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from alexnet_mp.checkpoint.files import save_checkpoint
from alexnet_mp.model.build import build_model
from tests.support.evaluations import CLASSES, DIVISOR, Save, make_pack
from tests.support.reports import a_run, written
from tests.training.test_validation import small


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return a_run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="session")
def page(finished: Path) -> ET.Element:
    """The page of the finished run, with all of its images."""
    return written(finished)


@pytest.fixture(scope="session")
def pack(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_pack(tmp_path_factory.mktemp("seven"), CLASSES)


@pytest.fixture
def saved(pack: str, tmp_path: Path) -> Save:
    """Save a network with its initial weights, by default one that fits the pack, as a run leaves it behind."""

    def save(name: str = "step-000000001", seed: int = 1, classes: int = 7, **changes: Any) -> str:
        network = changes.pop("network", small(classes))
        description = {
            "data": {"source": "pack", "path": pack, "verify": True},
            "input": {"pixel_divisor": DIVISOR, "mean": "pixel"},
        }
        folder = tmp_path / "run" / "checkpoints" / name
        state = build_model(network, seed=seed).state_dict()
        save_checkpoint(folder, state, network, {**description, **changes}, timeout_seconds=10)
        return str(folder)

    return save
