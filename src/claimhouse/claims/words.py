"""The vocabulary of the demo book: names, places, vehicles and the sentences that adjusters write.

The long lists are in vocabulary.toml. All of it is invented or generic; no row describes a real person. Telephone
numbers, bank codes and e-mail domains lie in ranges that are never given out.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files

_LISTS = tomllib.loads(files("claimhouse.claims").joinpath("vocabulary.toml").read_text(encoding="utf-8"))
GIVEN: tuple[str, ...] = tuple(_LISTS["given"].split())
FAMILY: tuple[str, ...] = tuple(_LISTS["family"].split())
STREETS: tuple[str, ...] = tuple(_LISTS["streets"].split("\n")[:-1])
VEHICLES: tuple[str, ...] = tuple(_LISTS["vehicles"].split("\n")[:-1])
SENTENCES: tuple[str, ...] = tuple(_LISTS["sentences"].split("\n")[:-1])
# state, its share of the book, cities with the start of their postcodes, the area code of its telephones
STATES: tuple[tuple[str, float, tuple[tuple[str, str], ...], str], ...] = (
    ("OH", 0.18, (("Columbus", "432"), ("Cleveland", "441"), ("Dayton", "454")), "614"),
    ("TX", 0.16, (("Houston", "770"), ("Austin", "787"), ("Lubbock", "794")), "512"),
    ("FL", 0.13, (("Miami", "331"), ("Tampa", "336"), ("Ocala", "344")), "813"),
    ("CA", 0.12, (("Fresno", "937"), ("San Diego", "921"), ("Oakland", "946")), "559"),
    ("IL", 0.10, (("Chicago", "606"), ("Peoria", "616")), "309"),
    ("NY", 0.09, (("Albany", "122"), ("Buffalo", "142")), "518"),
    ("PA", 0.08, (("Pittsburgh", "152"), ("Erie", "165")), "412"),
    ("CO", 0.07, (("Denver", "802"), ("Pueblo", "810")), "303"),
    ("GA", 0.07, (("Atlanta", "303"), ("Macon", "312")), "404"),
)
COMPANIES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "body_shop": (
        ("Precision", "Main Street", "Eagle", "Citywide", "Harbor", "Keystone", "Lakeview", "Summit"),
        ("Auto Body", "Collision Center", "Paint & Body", "Repair Works"),
    ),
    "clinic": (
        ("Northside", "Riverside", "Mercy", "Valley", "Union", "Lakeside", "Westfield", "Hillcrest"),
        ("Physical Therapy", "Family Clinic", "Orthopedics", "Urgent Care"),
    ),
    "contractor": (
        ("Blue Ridge", "Allied", "Pioneer", "Cornerstone", "Heritage", "Redwood", "Sterling", "Frontier"),
        ("Restoration", "Roofing", "Builders", "Water & Fire"),
    ),
    "law_firm": (
        ("Harper", "Stone", "Whitfield", "Delgado", "Barrett", "Ellison", "Marsh", "Quinn"),
        ("& Partners", "Law Group", "Trial Lawyers", "LLP"),
    ),
}
SPECIALTIES = {
    "body_shop": ("frame", "paint", "glass"),
    "clinic": ("physiotherapy", "imaging", "surgery"),
    "contractor": ("roof", "water", "fire"),
    "law_firm": ("injury", "property"),
}
