"""What measures an engine: its steps' times by the shape of the batch, and what Niyama's planning adds to them.

`step_grid` can be imported without vLLM.
"""
