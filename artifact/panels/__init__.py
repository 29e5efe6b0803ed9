"""Panels: figures of the paper that look inside a run, or need a fleet of their own kind.

chunk_curve (Fig 4), five_requests (Fig 6), chunk_windows and chunk_throughput (Fig 9 and 15a), polyserve (Fig 15b).
Each is a function from its settings (`settings`) and a latency model to rows of one table.
"""
