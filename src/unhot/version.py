"""The version, for a checkout that is not installed too."""

__version__ = "0.2.0"
