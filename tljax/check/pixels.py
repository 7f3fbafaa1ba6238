"""Features of pictures without any network: where their edges point to, and their colors."""

import numpy as np
from jaxtyping import Float32, UInt8

from tljax.check.twins import LUMA, TWIN_SIDE, shrink

# Edges are counted in cells of so many pixels a side, by so many directions; colors are means over these cells.
CELL, DIRECTIONS = 4, 8
# What keeps the sum over a block of four cells from being enlarged where there are no edges.
FAINT_EDGE = 1000.0


def describe_pixels(images: UInt8[np.ndarray, "n size size 3"]) -> Float32[np.ndarray, "n features"]:
    """Histograms of oriented gradients (Dalal and Triggs 2005) of pictures at 32 pixels a side, as they are and in
    blocks of 2 x 2 cells with equal sums of squares, and mean colors.

    A gradient counts for each direction with its part along it.
    """
    small = shrink(images).astype(np.float32)
    cells = _sum_cells(_find_edges(small @ LUMA), CELL)
    blocks = cells[:, :-1, :-1] + cells[:, 1:, :-1] + cells[:, :-1, 1:] + cells[:, 1:, 1:]
    blocks = blocks / np.sqrt(np.square(blocks).sum(-1, keepdims=True) + FAINT_EDGE)
    parts = blocks, np.sqrt(cells), _sum_cells(small, CELL) / CELL**2
    return np.concatenate([part.reshape(len(images), -1) for part in parts], axis=1)


def _find_edges(grays: Float32[np.ndarray, "n s s"]) -> Float32[np.ndarray, "n s s directions"]:
    slopes = np.zeros((*grays.shape, 2), np.float32)
    slopes[:, :, 1:-1, 0] = grays[:, :, 2:] - grays[:, :, :-2]
    slopes[:, 1:-1, :, 1] = grays[:, 2:] - grays[:, :-2]
    angles = 2 * np.pi * np.arange(DIRECTIONS, dtype=np.float32) / DIRECTIONS
    return np.maximum(slopes @ np.stack([np.cos(angles), np.sin(angles)]), 0)


def _sum_cells(maps: Float32[np.ndarray, "n s s c"], side: int) -> Float32[np.ndarray, "n k k c"]:
    n, cells = len(maps), TWIN_SIDE // side
    summed: np.ndarray = maps.reshape(n, cells, side, cells, side, maps.shape[-1]).sum((2, 4))
    return summed
