"""Niyama: QoS-aware scheduling for LLM inference. See README.md for the tour."""

from niyama.latency import load_card
from niyama.policies import BUILT_IN, Policy
from niyama.policy_files import load_policy
from niyama.qos import PAPER_CLASSES, QoSClass

__version__ = "0.1.0"
__all__ = ["BUILT_IN", "PAPER_CLASSES", "Policy", "QoSClass", "load_card", "load_policy"]
