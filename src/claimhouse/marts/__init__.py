"""Figures: business models as SQL files, over the tables of whatever insurer a model file describes."""

from claimhouse.marts.figure import PARAMETERS, Figure, figure_names, find
from claimhouse.marts.follower import MartFollower
from claimhouse.marts.fresh import ClaimMart, changed_claims
from claimhouse.marts.model import Model, ModelError, load
from claimhouse.marts.runner import Availability, available, check, figures, fitting, left_out

__all__ = [
    "PARAMETERS",
    "Availability",
    "ClaimMart",
    "Figure",
    "MartFollower",
    "Model",
    "ModelError",
    "available",
    "changed_claims",
    "check",
    "figure_names",
    "figures",
    "find",
    "fitting",
    "left_out",
    "load",
]
