"""Any of the usual trained models → a bundle.

A source is a folder in diffusers' form, a repository of the Hugging Face hub, or a checkpoint file. Nothing of a source
is run; only a network's code that was named is.
"""

from ddpm_core.importers.answers import Answers, Schedule, read_config
from ddpm_core.importers.importing import import_model

__all__ = ["Answers", "Schedule", "import_model", "read_config"]
