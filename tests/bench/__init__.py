"""Measurements, not tests: the same workload through us and through a yardstick, in one run."""
