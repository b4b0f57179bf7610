"""Processes that were started differently find out before they train."""

from dataclasses import replace

import numpy as np
import pytest
import torch.distributed as dist

from alexnet_mp import ConfigurationError
from alexnet_mp.data.dataset import DataSet, ImagesInMemory, Statistics
from alexnet_mp.parallel.launch import Launch
from alexnet_mp.parallel.mesh import make_mesh
from alexnet_mp.parallel.placement import choose_placement
from alexnet_mp.training.train import check_agreement
from tests.support.processes import run_processes


def data(labels: list[int]) -> DataSet:
    images = ImagesInMemory(np.zeros((3, 2, 2, 3), np.uint8), np.array(labels))
    statistics = Statistics(np.zeros((2, 2, 3)), np.ones(3), np.eye(3))
    return DataSet("photos", "", ("a", "b"), {"train": images, "test": images}, statistics)


def agree(configurations: list[str], labels: list[list[int]]) -> str:
    rank = dist.get_rank()
    placement = choose_placement("distributed", "cpu", 2, Launch.from_environment(rank, dist.get_world_size()))
    try:
        check_agreement(configurations[rank], data(labels[rank]), make_mesh(placement, timeout_seconds=30))
    except ConfigurationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("configurations", "labels", "says"),
    [
        (["seed: 0", "seed: 1"], [[0, 1, 0], [0, 1, 0]], "different configurations"),
        (["seed: 0", "seed: 0"], [[0, 1, 0], [1, 0, 0]], "different data in photos"),
        (["seed: 0", "seed: 0"], [[0, 1, 0], [0, 1, 0]], ""),
    ],
)
def test_every_process_is_told_what_differs(configurations, labels, says):
    told = run_processes(2, agree, configurations, labels)
    assert [bool(line) for line in told] == [bool(says)] * 2
    assert all(says in line for line in told)


def test_a_fingerprint_depends_on_labels_their_split_and_the_mean():
    same = data([0, 1, 0])
    assert same.fingerprint() == data([0, 1, 0]).fingerprint()
    other_mean = replace(same.statistics, mean_image=np.ones((2, 2, 3)))
    splits = {"train": same.splits["train"], "validation": same.splits["test"]}
    others = [data([0, 0, 1]), replace(same, statistics=other_mean), replace(same, splits=splits)]
    assert same.fingerprint() not in {other.fingerprint() for other in others}
