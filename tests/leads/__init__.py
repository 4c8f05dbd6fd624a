"""Batches, leads, degraded answers and signed lists."""
