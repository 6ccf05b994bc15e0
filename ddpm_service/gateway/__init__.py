"""The front door: what people and clients touch. TorchServe stays behind it, on loopback."""
