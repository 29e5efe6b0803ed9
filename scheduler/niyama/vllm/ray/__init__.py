"""Niyama on Ray Serve: vLLM servers as replicas, and in front of them the simulator's routers (docs/FLEETS.md).

`pip install .[ray]`. Private names of Ray are in `engine` and `router` alone.
"""
