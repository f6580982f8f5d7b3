"""Explainable signs on claims: rules as SQL files, evaluated as the source changes; never a verdict.

The queue that people read is in `claimhouse.fraud.queue`.
"""

from claimhouse.fraud.disposition import VERDICTS, Disposition, Dispositions
from claimhouse.fraud.follower import Follower, Step, follow
from claimhouse.fraud.model import load
from claimhouse.fraud.rule import Rule, RuleSet, load_rules

__all__ = [
    "VERDICTS",
    "Disposition",
    "Dispositions",
    "Follower",
    "Rule",
    "RuleSet",
    "Step",
    "follow",
    "load",
    "load_rules",
]
