"""A tiny network from scratch on augmented digits, with all that a training can keep beside its weights."""

from tljax.config import Config, Data, Head, Optimizer


def get_config() -> Config:
    data = Data(name="digits", classes=("5", "6", "7"), max_images=100, augment="flip_crop")
    optimizer = Optimizer("adamw", schedule="cosine", warmup_epochs=1.5, weight_decay=0.05, clip_norm=1, ema_decay=0.9)
    settings = {"stage": "from_scratch", "cut": "conv1", "batch_norm": "training", "network": "tiny"}
    loss = {"label_smoothing": 0.1, "class_weights": "balanced", "head": Head(hidden=(8,), dropout=0.2)}
    return Config(data=data, batch_size=8, epochs=6, patience=None, optimizer=optimizer, **settings, **loss)
