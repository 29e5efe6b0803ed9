"""Latency models from profiles: reading a profile, fitting three families, judging them, and the cards that ship."""
