"""llavakit: the whole LLaVA-1.5 system."""

__version__ = "0.1.0"
