"""vLLM's own scheduler tests, run against Niyama's two scheduler classes: `make vllm-suite`.

`source` gets the tests from vLLM's source distribution, `hub` makes the configurations of the models they name,
`inside` is the pytest plugin that puts our classes in the place of vLLM's, `expected` compares what came out with
`expected.yaml`, the one list of tests that do not pass and why, and `commands` runs it all.
"""
