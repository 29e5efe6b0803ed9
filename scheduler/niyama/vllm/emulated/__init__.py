"""What stands in for a GPU: an executor whose steps only take the time a latency model says, and virtual time."""
