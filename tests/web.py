"""HTTP for tests: an answer may take as long as any condition; httpx alone gives up after 5 s."""

from __future__ import annotations

from functools import partial

import httpx

from tests.waiting import PATIENCE_S

get = partial(httpx.get, timeout=PATIENCE_S)
post = partial(httpx.post, timeout=PATIENCE_S)
patch = partial(httpx.patch, timeout=PATIENCE_S)
