"""The science of the product: guided denoising diffusion. Knows no server."""
