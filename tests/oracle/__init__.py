"""Random traffic, random rules, restarts and crashes: what buckets hold equals a plain SELECT."""
