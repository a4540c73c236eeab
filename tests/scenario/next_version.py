"""A Headwater as its next version may be: it stores more than this one knows of.

What is stored may only grow by fields that an older reader passes over (``docs/upgrading.md``). So
workers of both versions can share the partitions of one group while they are upgraded one by one.
"""

from __future__ import annotations

from streams import version

VERSION = "1000.0.0"
ADDED = "of_a_later_version"


def main() -> None:
    """Run the commands as that version."""
    version.VERSION = VERSION  # Before anything else has taken it.
    from streams.adapters import shard_codec
    from streams.cli.main import main as run

    encode = shard_codec.encode
    shard_codec.encode = lambda state: encode({**state, ADDED: {"of": VERSION, "more": [1, 2]}})
    run()


if __name__ == "__main__":
    main()
