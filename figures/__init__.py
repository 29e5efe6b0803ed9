"""Figures and tables of the paper: each module says what it reads and draws it."""
