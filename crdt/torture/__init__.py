"""A simulated world of replicas, for tests and for ``headwater torture``."""
