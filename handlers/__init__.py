"""The TorchServe handler: a thin skin over the engine."""
