"""Latency models from profiles: fitting three families, judging them, and the cards that ship.

A profile is measured on an engine or added up from kernels.
"""
