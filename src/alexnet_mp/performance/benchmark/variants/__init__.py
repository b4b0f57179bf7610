"""The variants: ways to train the same network, each an entry of `VARIANTS`."""

from alexnet_mp.model.single_device import one_column_network, ungrouped_network
from alexnet_mp.performance.benchmark.variants import ours
from alexnet_mp.performance.benchmark.variants.pipeline import check_pipeline, pipelined
from alexnet_mp.performance.benchmark.variants.replicas import (
    check_replicas,
    stock_network_whole,
    tuned_stock_network_whole,
)
from alexnet_mp.performance.benchmark.variants.train_step import TrainingVariant

SPLIT = "split_two_processes"
STOCK_BASELINE = "single_stock"
TUNED_BASELINE = "single_stock_tuned"
OTHER_NETWORKS = ("ungrouped", "one_column")  # trained for comparison: their work is not the table's

VARIANTS = {
    SPLIT: TrainingVariant("one process for each tower", ours.towers, ours.check_split, one_per_tower=True),
    "split_one_process": TrainingVariant("all towers in one process", ours.towers, ours.check_split),
    "single_ours": TrainingVariant("the same network whole, of our layers", ours.whole_network),
    STOCK_BASELINE: TrainingVariant(
        "the same network in stock PyTorch, on one device", stock_network_whole, ours=False
    ),
    TUNED_BASELINE: TrainingVariant(
        "the same, set up as a good engineer would: our allocator's settings, channels_last, fused SGD, torch.compile",
        tuned_stock_network_whole,
        ours=False,
    ),
    "ungrouped": TrainingVariant(
        "all kernels in one tower, every layer reading all maps", ours.one_tower(ungrouped_network)
    ),
    "one_column": TrainingVariant(
        "the paper's one-GPU network, half the kernels (§3.2)", ours.one_tower(one_column_network)
    ),
    "ddp_stock": TrainingVariant(
        "stock PyTorch data-parallel, the same global batch", stock_network_whole, check_replicas, True, ours=False
    ),
    "ddp_stock_tuned": TrainingVariant(
        "single_stock_tuned data-parallel", tuned_stock_network_whole, check_replicas, True, ours=False
    ),
    "ddp_ours": TrainingVariant(
        "the network of single_ours data-parallel, the same global batch", ours.whole_network, check_replicas, True
    ),
    "pipeline_stock": TrainingVariant(
        "stock PyTorch cut layer-wise, by torch.distributed.pipelining", pipelined, check_pipeline, True, ours=False
    ),
}
