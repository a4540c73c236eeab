"""Code blocks of the documentation, so that tests run what people are told to run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
_FENCE = re.compile(r'^```(\w+)(?: title="([^"]*)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    title: str
    code: str


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found = _FENCE.findall((DOCS / page).read_text())
    return [Block(language, title, code) for language, title, code in found]


def titled(page: str, title: str) -> str:
    """Return the code of the block with a title."""
    return next(block.code for block in blocks(page) if block.title == title)
