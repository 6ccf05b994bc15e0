"""Training images: finding, decoding, splitting, streaming and preparing them."""
