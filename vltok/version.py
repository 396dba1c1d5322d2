"""The version of vltok; nothing else, so that the command line can print it without importing torch."""

__version__ = "0.1.0"
