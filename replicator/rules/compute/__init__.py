"""Expressions → values, and Python that computes them: what operators and functions mean."""
