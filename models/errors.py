"""What models raise on purpose."""

from __future__ import annotations


class ModelError(ValueError):
    """A model cannot be trained, stored or used. The message says what was found and expected."""
