"""Fixtures: finished runs of a narrow network, which the tests read and copy but do not change."""

from pathlib import Path

import pytest

from tests.support.disturbed import trained
from tests.training.test_train import NARROW


@pytest.fixture(scope="session")
def after_one_epoch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("narrow") / "one", *NARROW, "recipe.epochs=1")


@pytest.fixture(scope="session")
def after_two_epochs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("narrow") / "two", *NARROW, "recipe.epochs=2")
