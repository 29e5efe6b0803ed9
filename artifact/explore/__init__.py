"""The page to play with: `python -m artifact explore`."""
