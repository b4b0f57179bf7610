"""The quickstart's data: scikit-learn's embedded digits, 1,797 scans of handwritten digits, 8x8, 16 gray levels."""

import numpy as np
import torch
from torch.nn import functional as F

from alexnet_mp.data.dataset import DataSet, ImagesInMemory, Statistics

VALIDATION_IMAGES = 360  # a fifth


def digits(image: tuple[int, int, int]) -> DataSet:
    """The digits enlarged to `image` = (channels, height, width), gray repeated over the channels.

    The split is fixed, by class: 1,437 to train on, 360 to validate on. Values 0..16 become 0..255.
    """
    from sklearn.datasets import load_digits  # slow to import, and other sources do not need it
    from sklearn.model_selection import train_test_split

    channels, height, width = image
    scans = load_digits()
    gray = torch.from_numpy(scans.images).unsqueeze(1) * (255 / 16)  # [1797, 1, 8, 8]
    enlarged = F.interpolate(gray, (height, width), mode="bilinear", align_corners=False)
    pixels = enlarged.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).expand(-1, -1, -1, channels).numpy()
    labels = scans.target.astype(np.int64)
    train, validation = train_test_split(
        range(len(labels)), test_size=VALIDATION_IMAGES, random_state=0, stratify=scans.target
    )
    # The channels are equal, so their covariance has one eigenvector, gray, that is not nothing.
    eigenvalues, eigenvectors = np.linalg.eigh(np.full((channels, channels), pixels[train, ..., 0].var()))
    return DataSet(
        name="digits",
        description=f"scikit-learn's {len(labels):,} scanned digits, enlarged to {height}x{width}: "
        f"{len(train):,} to train, {len(validation)} to validate",
        class_names=tuple(str(name) for name in scans.target_names),
        splits={
            "train": ImagesInMemory(pixels[train], labels[train]),
            "validation": ImagesInMemory(pixels[validation], labels[validation]),
        },
        statistics=Statistics(
            mean_image=pixels[train].mean(axis=0, dtype=np.float64),
            eigenvalues=np.maximum(eigenvalues[::-1], 0),
            eigenvectors=eigenvectors[:, ::-1].copy(),
        ),
    )
