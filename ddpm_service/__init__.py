"""Everything around TorchServe; knows no torch."""
