"""One run: what it is (`spec`, `systems`, `sources`), doing it (`run`), and its rows and raw times on disk."""
