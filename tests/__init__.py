"""The tests. A package, so that `tests.helpers` is ours whatever else is installed under that name."""
