"""The lines of business of the demo book: how often losses happen, how large they are, how late and how they are paid.

One visible table, `LINES`; the generator and the simulator both read it. Severities are lognormal with a Pareto tail
for the lines that have one, in dollars of the book's first year; they grow by INFLATION a year. Premiums are set to
reach TARGET_LOSS_RATIO on average, so the figures mean something.
"""

from __future__ import annotations

from dataclasses import dataclass

INFLATION = 0.04
TARGET_LOSS_RATIO = 0.64
CURRENCY = "USD"
RETENTION = 0.86


@dataclass(frozen=True)
class Cover:
    """One kind of coverage.

    `limits` and `deductibles` in dollars, from low to high; a limit increase moves one step. `median` and `sigma`
    describe the loss; `tail` is the share of losses from a Pareto tail. `payments`: mean number of them. `settle`:
    median days from report to the last payment. `provider`: who is paid, in `direct` of the cases, instead of the
    claimant. `expense`: share of the indemnity that handling costs.
    """

    kind: str
    limits: tuple[int, ...]
    deductibles: tuple[int, ...]
    median: float
    sigma: float
    tail: float
    payments: float
    settle: float
    provider: str
    direct: float
    expense: float
    categories: tuple[str, str]


@dataclass(frozen=True)
class Cause:
    """A cause of loss: its weight in the line, the coverage it falls on, and further exposures with their odds."""

    name: str
    weight: float
    cover: str
    also: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Line:
    """One line of business; `season` weighs the months, `lag` is the median days from loss to report."""

    name: str
    share: float
    frequency: float
    season: tuple[float, ...]
    lag: float
    lag_sigma: float
    asset: str
    covers: tuple[Cover, ...]
    causes: tuple[Cause, ...]
    perils: tuple[str, ...] = ()
    activities: tuple[str, ...] = ("acknowledge", "contact", "inspect", "review", "pay", "close_file")


_MOTOR = (
    Cover("collision", (15_000, 30_000, 50_000), (250, 500, 1000), 2800, 0.85, 0.0, 1.4, 24, "body_shop", 0.75, 0.05,
          ("repair", "rental")),
    Cover("comprehensive", (15_000, 30_000, 50_000), (100, 250, 500), 1700, 0.9, 0.0, 1.2, 18, "body_shop", 0.7, 0.04,
          ("repair", "glass")),
    Cover("property_damage", (10_000, 25_000, 50_000), (0,), 2300, 0.9, 0.0, 1.3, 30, "body_shop", 0.6, 0.06,
          ("repair", "loss_of_use")),
    Cover("bodily_injury", (25_000, 50_000, 100_000, 250_000), (0,), 5200, 1.15, 0.04, 2.6, 210, "clinic", 0.5, 0.18,
          ("medical", "wage_loss")),
)  # fmt: skip
_PROPERTY = (
    Cover("dwelling", (150_000, 250_000, 400_000, 700_000), (500, 1000, 2500), 5200, 1.15, 0.02, 2.0, 60, "contractor",
          0.65, 0.07, ("repair", "mitigation")),
    Cover("contents", (30_000, 60_000, 120_000), (500, 1000), 1900, 0.95, 0.0, 1.3, 35, "contractor", 0.2, 0.05,
          ("replacement", "cleaning")),
)  # fmt: skip
_LIABILITY = (
    Cover("premises", (100_000, 300_000, 1_000_000), (0, 1000), 7800, 1.3, 0.05, 2.8, 330, "law_firm", 0.4, 0.28,
          ("settlement", "medical")),
    Cover("products", (100_000, 300_000, 1_000_000), (1000, 2500), 9000, 1.35, 0.05, 2.6, 400, "law_firm", 0.4, 0.3,
          ("settlement", "recall")),
)  # fmt: skip
_TRAVEL = (
    Cover("medical_expense", (10_000, 50_000, 100_000), (100, 250), 850, 1.1, 0.015, 1.8, 28, "clinic", 0.7, 0.05,
          ("treatment", "medication")),
    Cover("cancellation", (2_500, 5_000, 10_000), (50, 100), 1100, 0.7, 0.0, 1.0, 20, "clinic", 0.0, 0.03,
          ("trip", "lodging")),
    Cover("baggage", (1_000, 2_500), (50, 100), 420, 0.6, 0.0, 1.0, 16, "clinic", 0.0, 0.03, ("contents", "documents")),
)  # fmt: skip

LINES: tuple[Line, ...] = (
    Line("motor", 0.52, 0.20, (1.2, 1.1, 1.0, 0.9, 0.95, 1.0, 1.0, 1.0, 0.95, 1.0, 1.05, 1.25), 1.2, 1.1, "vehicle",
         _MOTOR, (
        Cause("rear_end", 0.3, "collision", (("property_damage", 0.45), ("bodily_injury", 0.22))),
        Cause("intersection", 0.2, "collision", (("property_damage", 0.5), ("bodily_injury", 0.3))),
        Cause("parking", 0.18, "collision", (("property_damage", 0.25),)),
        Cause("single_vehicle", 0.08, "collision"),
        Cause("theft", 0.08, "comprehensive"),
        Cause("glass", 0.1, "comprehensive"),
        Cause("animal", 0.06, "comprehensive"),
        Cause("hail", 0.0, "comprehensive"),
        Cause("flood", 0.0, "comprehensive")), ("hail", "flood")),
    Line("property", 0.26, 0.19, (1.25, 1.2, 1.0, 0.95, 0.95, 1.0, 1.05, 1.1, 0.95, 0.85, 0.85, 1.0), 2.5, 1.2,
         "building", _PROPERTY, (
        Cause("water", 0.42, "dwelling", (("contents", 0.4),)),
        Cause("fire", 0.12, "dwelling", (("contents", 0.6),)),
        Cause("wind", 0.2, "dwelling"),
        Cause("burglary", 0.26, "contents")), ("hail", "wind", "flood", "wildfire", "freeze")),
    Line("liability", 0.08, 0.24, (1.1, 1.05, 1.0, 0.95, 0.95, 1.0, 1.0, 1.0, 0.95, 0.95, 1.0, 1.1), 16, 1.35,
         "premises", _LIABILITY, (
        Cause("slip_and_fall", 0.6, "premises"),
        Cause("falling_object", 0.15, "premises"),
        Cause("defective_product", 0.25, "products"))),
    Line("travel", 0.14, 0.22, (0.8, 0.9, 1.0, 0.9, 0.95, 1.2, 1.5, 1.45, 1.0, 0.8, 0.7, 0.9), 7, 0.9, "traveller",
         _TRAVEL, (
        Cause("illness", 0.45, "medical_expense"),
        Cause("accident_abroad", 0.15, "medical_expense", (("baggage", 0.1),)),
        Cause("trip_cancelled", 0.22, "cancellation"),
        Cause("lost_baggage", 0.18, "baggage"))),
)  # fmt: skip

COVERS: tuple[Cover, ...] = tuple(cover for line in LINES for cover in line.covers)
COVER_INDEX = {cover.kind: place for place, cover in enumerate(COVERS)}
CAUSES: tuple[Cause, ...] = tuple(cause for line in LINES for cause in line.causes)
CAUSE_INDEX = {cause.name: place for place, cause in enumerate(CAUSES)}
# the cause under which each line books a catastrophe's peril
PERIL_CAUSE = {
    "motor": {"hail": "hail", "flood": "flood"},
    "property": {"hail": "wind", "wind": "wind", "flood": "water", "wildfire": "fire", "freeze": "water"},
}


def covers_of(line: Line) -> list[int]:
    """Places in COVERS of a line's coverages."""
    return [COVER_INDEX[c.kind] for c in line.covers]


def causes_of(line: Line) -> list[int]:
    """Places in CAUSES of a line's causes."""
    return [CAUSE_INDEX[c.name] for c in line.causes]
