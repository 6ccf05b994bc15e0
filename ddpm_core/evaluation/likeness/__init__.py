"""Resemblance against realism: how like a selfie the faces are, how real they look, and whether they are copies."""
