"""What the pipeline runs to make its tables: grids of runs, searches for capacity, fleets, and looks inside a run.

config says what an experiment file holds. grid (runs at given loads), capacity (searches), fleets (GPUs for a load, by
planner), disaggregated (Fig 8) and overload (Fig 12, 13) make rows; chunk_curve (Fig 4), five_requests (Fig 6),
chunk_windows (Fig 9, 15a), polyserve (Fig 15b) and operators (behind a gateway) look inside a run or need a fleet of
their own kind.
"""
