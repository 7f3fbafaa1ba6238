"""Classifies a folder of pictures with ResNet50 in PyTorch, one row a picture, as one writes it who knows how.

python torch_predict.py FOLDER OUT.csv WORKERS

WORKERS processes decode and resize ahead (0: none), the network is channels_last and in inference mode. Its weights are
random, which saves the time of reading them.
"""

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset
from torch_worker import build

BATCH, SIDE, TOP = 16, 224, 5


class Pictures(Dataset):
    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.rglob("*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[str, torch.Tensor]:
        with Image.open(self.paths[i]) as image:
            square = ImageOps.fit(image.convert("RGB"), (SIDE, SIDE), Image.Resampling.BILINEAR)
        return str(self.paths[i]), torch.from_numpy(np.array(square))


def main(folder: Path, out: Path, workers: int) -> None:
    network, _ = build(1000, None)
    pictures = DataLoader(Pictures(folder), BATCH, num_workers=workers)
    with torch.inference_mode(), out.open("w", newline="") as file:
        rows = csv.writer(file)
        for paths, images in pictures:
            best = network(images).softmax(1).topk(TOP)
            for path, probabilities, labels in zip(paths, best.values.tolist(), best.indices.tolist(), strict=True):
                rows.writerow([path, *(x for pair in zip(labels, probabilities, strict=True) for x in pair)])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
