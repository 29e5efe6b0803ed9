"""What surrounds a run of the pipeline: its configuration, its lock, what it costs, and how it begins and ends."""
