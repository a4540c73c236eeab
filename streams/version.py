"""The version of the running code, stamped into every result."""

from importlib.metadata import version

VERSION = version("headwater")
