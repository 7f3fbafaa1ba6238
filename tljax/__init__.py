"""Transfer learning for image classification with ResNets in JAX and Flax.

`tljax.load` gives a trained network as an object, `tljax.train` runs a `tljax.Config` or a `tljax.Lesson`.
"""
