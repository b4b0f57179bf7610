"""Where the time of a step goes, by kinds of operations, from PyTorch's profiler."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

PRODUCTS, REST = "products", "other"
KINDS = {
    PRODUCTS: ("mkldnn_convolution", "convolution_backward", "mkldnn_convolution_backward", "addmm", "mm", "bmm"),
    "normalization": ("sum", "addcmul", "addcmul_", "rsqrt", "rsqrt_", "sqrt", "mul", "mul_", "div_", "avg_pool2d"),
    "pooling": ("max_pool2d_with_indices", "max_pool2d_with_indices_backward"),
    "ReLU": ("relu", "relu_", "clamp_min", "clamp_min_", "threshold_backward"),
    "update": ("_fused_sgd_", "_foreach_add_", "_foreach_mul_"),
    "copies": ("copy_", "cat", "constant_pad_nd"),
    "fills": ("fill_", "zero_"),
}
_KIND_OF = {f"aten::{name}": kind for kind, names in KINDS.items() for name in names}


def step_parts(step: Callable[[], object]) -> dict[str, float]:
    """Seconds of the calling process by kind of operation, in one call of `step`; the profiler's own time is in them.

    On a CPU. Normalization has dropout's products with its masks too, and what the operations' names do not tell apart.
    """
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        step()
    parts = dict.fromkeys((*KINDS, REST), 0.0)
    for operation in recorded.key_averages():
        parts[_KIND_OF.get(operation.key, REST)] += operation.self_cpu_time_total / 1e6
    return parts
