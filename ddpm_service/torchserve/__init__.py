"""Starting, watching and talking to TorchServe, and keeping it at the state that models.yaml wants."""
