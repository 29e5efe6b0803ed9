"""How many GPUs a trace with its QoS classes needs, in silos or shared, and what they cost: `artifact plan`.

from artifact.planning import Question, plan, quick
plan(Question(trace, classes, "a100-llama3-8b-linear", qps=40.0))     # everything that the command prints
quick(question, "niyama")                                             # one system by one seed, in about a second
"""

from artifact.planning.answer import Plan, plan, quick
from artifact.planning.question import Question

__all__ = ["Plan", "Question", "plan", "quick"]
