"""The quickstart's data: scikit-learn's embedded digits, 1,797 scans of handwritten digits, 8x8, 16 grey levels."""

import torch
from torch.nn import functional as F

from alexnet_mp.data.images import DataSet, Images

VALIDATION_IMAGES = 360  # a fifth


def digits(image: tuple[int, int, int]) -> DataSet:
    """The digits enlarged to `image` = (channels, height, width), grey repeated over the channels.

    The split is fixed, by class: 1,437 to train on, 360 to validate on. Values 0..16 become 0..255.
    """
    from sklearn.datasets import load_digits  # slow to import, and other sources do not need it
    from sklearn.model_selection import train_test_split

    channels, height, width = image
    scans = load_digits()
    grey = torch.from_numpy(scans.images).unsqueeze(1) * (255 / 16)  # [1797, 1, 8, 8]
    enlarged = F.interpolate(grey, (height, width), mode="bilinear", align_corners=False)
    pixels = enlarged.round().clamp(0, 255).to(torch.uint8).expand(-1, channels, -1, -1).contiguous()
    labels = torch.from_numpy(scans.target).long()
    train, validation = train_test_split(
        range(len(labels)), test_size=VALIDATION_IMAGES, random_state=0, stratify=scans.target
    )
    return DataSet(
        name="digits",
        description=f"scikit-learn's {len(labels):,} scanned digits, enlarged to {height}x{width}: "
        f"{len(train):,} to train, {len(validation)} to validate",
        class_names=tuple(str(name) for name in scans.target_names),
        train=Images(pixels[train], labels[train]),
        validation=Images(pixels[validation], labels[validation]),
    )
