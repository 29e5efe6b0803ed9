"""vLLM's own engine in this process and in virtual time: beside the simulator, and in the server sweep."""
