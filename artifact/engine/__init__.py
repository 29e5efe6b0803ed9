"""vLLM's own engine in this process and in virtual time: compared with the simulator, and in the server sweep."""
