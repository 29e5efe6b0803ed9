"""The command line: which commands there are, and what all of them check, tell and refuse."""
