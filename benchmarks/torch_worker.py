"""The jobs with PyTorch, run eagerly (`--eager`) or with torch.compile on inductor (`--compile`).

The network is Keras's ResNet50, not torchvision's: a stage's stride sits on its first 1x1 convolution, and
convolutions have a bias. Everything is channels_last, the faster layout on a CPU.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import protocol
import torch
import torch._inductor.config
from protocol import BATCH, Arrays, Request, Stopwatch
from torch import Tensor, nn
from torch.nn import functional as F

STAGE_SIZES = (3, 4, 6, 3)
FEATURES = 2048
CAFFE_MEANS = (103.939, 116.779, 123.68)


class Preprocess(nn.Module):
    """RGB pixels, uint8 [n, h, w, 3] -> BGR without the means, float32 [n, 3, h, w] in channels_last."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.tensor(CAFFE_MEANS))

    def forward(self, images: Tensor) -> Tensor:
        return (images.flip(-1).float() - self.means).permute(0, 3, 1, 2)


def convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2), nn.BatchNorm2d(outputs, eps=1.001e-5)
    )


class Block(nn.Module):
    """A bottleneck block. ReLU and the sum work in place, as in torchvision."""

    def __init__(self, inputs: int, width: int, stride: int, project: bool) -> None:
        super().__init__()
        self.shortcut = convolution(inputs, 4 * width, 1, stride) if project else nn.Identity()
        self.body = nn.Sequential(
            convolution(inputs, width, 1, stride),
            nn.ReLU(inplace=True),
            convolution(width, width, 3),
            nn.ReLU(inplace=True),
            convolution(width, 4 * width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).add_(self.shortcut(x)).relu_()


def build(classes: int, cut: str | None) -> tuple[nn.Sequential, nn.Sequential]:
    """ResNet50 from pixels to logits, BatchNorm in inference mode: the frozen part before the unit `cut`, and the rest.

    Without a cut nothing trains, and the first part is the whole network.
    """
    stem = nn.Sequential(convolution(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, padding=1))
    units: dict[str, nn.Module] = {"conv1": nn.Sequential(Preprocess(), stem)}
    inputs = 64
    for stage, blocks in enumerate(STAGE_SIZES):
        for i in range(blocks):
            stride = 2 if stage > 0 and i == 0 else 1
            units[f"conv{stage + 2}_block{i + 1}"] = Block(inputs, 64 * 2**stage, stride, project=i == 0)
            inputs = 4 * 64 * 2**stage
    units["pool"] = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    units["head"] = nn.Linear(FEATURES, classes)
    names = list(units)
    at = len(names) if cut is None else names.index(cut)
    parts = [nn.Sequential(*map(units.get, chosen)) for chosen in (names[:at], names[at:])]
    frozen, trained = (part.eval().to(memory_format=torch.channels_last) for part in parts)
    return frozen.requires_grad_(False), trained


def compile_whole(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """Compiles one graph for one shape, or raises an error.

    By default torch.compile would go on without one: with several graphs, or eagerly.
    """
    return torch.compile(network, dynamic=False, fullgraph=True)


def batches(images: Tensor, labels: Tensor, rows: Tensor, pad: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of `images` and `labels` in the order of `rows`.

    With `pad` the last batch is filled up with zeros and the label that cross_entropy ignores. Otherwise torch.compile
    would compile once more for its shape.
    """
    for chosen in rows.split(BATCH):
        x, y = images[chosen], labels[chosen]
        missing = BATCH - len(chosen)
        if pad and missing:
            x, y = F.pad(x, [0, 0] * (x.dim() - 1) + [0, missing]), F.pad(y, (0, missing), value=-100)
        yield x, y


class Trainer:
    """Trains the part `trained`, which follows `frozen`, with Adam, and evaluates the whole network."""

    def __init__(self, frozen: Callable[[Tensor], Tensor], trained: nn.Module, compiled: bool) -> None:
        self.frozen, self.pad = frozen, compiled
        # The fused implementation is one pass over each parameter; the others are dozens of small operations.
        self.optimizer = torch.optim.Adam(trained.parameters(), 1e-3, eps=1e-7, fused=True)
        self.trained = compile_whole(trained) if compiled else trained

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One update. Returns the sum of the losses and the number of correct predictions, both from before it."""
        with torch.no_grad():
            x = self.frozen(images)
        logits = self.trained(x)
        loss = F.cross_entropy(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return _sums(loss.detach(), logits.detach(), labels)

    def fit(self, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], epochs: int, stopwatch: Stopwatch) -> None:
        for _ in range(epochs):
            stopwatch.begin_epoch()
            total = torch.zeros(2)
            for batch in batches(*train, torch.randperm(len(train[1])), self.pad):
                total += self.step(*batch)
                stopwatch.end_step()
            self.evaluate(*val)
            stopwatch.end_epoch()

    @torch.no_grad()
    def evaluate(self, images: Tensor, labels: Tensor) -> Tensor:
        total = torch.zeros(2)
        for x, y in batches(images, labels, torch.arange(len(labels)), self.pad):
            logits = self.trained(self.frozen(x))
            total += _sums(F.cross_entropy(logits, y), logits, y)
        return total / len(labels)


def _sums(loss: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    return torch.stack([loss * (labels >= 0).sum(), (logits.argmax(1) == labels).sum()])


class TorchWorker:
    jobs = frozenset({"forward_224", "forward_32", "job_cached", *protocol.STEP_CUTS, *protocol.JOB_CUTS})

    def __init__(self, arrays: Arrays, compiled: bool) -> None:
        self.arrays, self.compiled = arrays, compiled

    def prepare(self, job: str) -> tuple[Callable[[], object], int]:
        if job.startswith("forward_"):
            large = job == "forward_224"
            size, classes = (protocol.LARGE_BATCH, protocol.LARGE_CLASSES) if large else (BATCH, protocol.CLASSES)
            images = torch.from_numpy(self.arrays["large_images" if large else "train_images"])
            with torch.inference_mode():
                forward, _ = self._build(classes, None, images[:size])
            inputs = protocol.repeat_batches(size, images)
            return torch.inference_mode()(lambda: forward(*next(inputs))), size
        images, labels = (torch.from_numpy(self.arrays[f"train_{name}"]) for name in ("images", "labels"))
        with torch.no_grad():
            parts = self._build(protocol.CLASSES, protocol.STEP_CUTS[job], images[:BATCH])
        parts[1].train(job == protocol.BATCH_NORM_JOB)
        trainer = Trainer(*parts, self.compiled)
        inputs = protocol.repeat_batches(BATCH, images, labels.long())
        return lambda: trainer.step(*next(inputs)), BATCH

    def run(self, job: str, request: Request, stopwatch: Stopwatch) -> None:
        images, labels, val_images, val_labels = map(torch.from_numpy, protocol.take_rows(self.arrays, request))
        train, val = (images, labels.long()), (val_images, val_labels.long())
        if job == "job_cached":
            with torch.inference_mode():
                embed, head = self._build(protocol.CLASSES, "head", images[:BATCH])
            train, val = (self._features(embed, *train), train[1]), (self._features(embed, *val), val[1])
            # A single matrix product leaves a compiler nothing to do.
            trainer = Trainer(nn.Identity(), head, compiled=False)
        else:
            with torch.no_grad():
                parts = self._build(protocol.CLASSES, protocol.JOB_CUTS[job], images[:BATCH])
            trainer = Trainer(*parts, self.compiled)
        trainer.fit(train, val, request["epochs"], stopwatch)

    def _features(self, embed: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
        # Created outside inference mode: autograd cannot save a tensor of inference mode for the backward pass.
        features = torch.empty(len(images), FEATURES)
        with torch.inference_mode():
            rows = torch.arange(len(images))
            for part, (x, _) in zip(features.split(BATCH), batches(images, labels, rows, self.compiled), strict=True):
                part.copy_(embed(x)[: len(part)])
        return features

    def _build(
        self, classes: int, cut: str | None, example: Tensor
    ) -> tuple[Callable[[Tensor], Tensor], nn.Sequential]:
        """The frozen part of the network, with `--compile` compiled for the shape of `example`, and the rest.

        Inductor's `freezing` makes the frozen weights constants: BatchNorm is folded into the convolutions, and their
        weights are packed. As an option of torch.compile it has no effect, because Dynamo reads the global setting. It
        compiles at the first call. So the setting is on for that call, and off before anything that trains is compiled.
        """
        torch.compiler.reset()
        frozen, trained = build(classes, cut)
        # Compiling a network without layers makes torch.compile skip the forward of every other Sequential, too.
        if not self.compiled or not len(frozen):
            return frozen, trained
        torch._inductor.config.freezing = True
        try:
            compiled = compile_whole(frozen)
            compiled(example)
        finally:
            torch._inductor.config.freezing = False
        return compiled, trained


if __name__ == "__main__":
    flags = protocol.arguments(__doc__, ("compile", "eager"))
    torch.set_num_threads(os.cpu_count() or 1)
    versions = {"torch": torch.__version__, "numpy": np.__version__}
    protocol.serve(partial(TorchWorker, compiled=flags.setting == "compile"), flags.arrays, versions)
