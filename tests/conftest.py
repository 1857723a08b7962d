"""Loads the fixtures, nothing more."""

pytest_plugins = [
    "tests.fixtures.chance",
    "tests.fixtures.postgres",
    "tests.fixtures.proxy",
    "tests.fixtures.signals",
    "tests.fixtures.soak",
    "tests.fixtures.browser",
    "tests.fixtures.children",
    "tests.fixtures.frozen",
]
