"""Whether the systems agree."""

import math

OPEN_AT_THE_END = "windows that no later reading closes are written by Flink alone, whose input has an end"


def disagreements(runs):
    """What differs between one round's runs ({system: Run}, without the drain), as sentences; none: all is equal.

    Scores: the same trips, the same score. Windows: of those that a later reading of the vehicle closed (these are what
    Kafka Streams writes) the same count, minimum and maximum, and a sum equal up to the rounding of 64-bit floats.
    """
    found = []
    names = list(runs)
    for name in names[1:]:
        found += scores(names[0], runs[names[0]].scores, name, runs[name].scores)
    if "streams" in runs:
        for name in names:
            if name != "streams":
                found += windows(runs["streams"].windows, name, runs[name].windows)
    return found


def scores(one, a, other, b):
    if not a:
        yield f"{one} has no scores"
    if a.keys() != b.keys():
        yield f"{one} has scores of {len(a.keys() - b.keys())} trips that {other} has not, and lacks {len(b.keys() - a.keys())}"
    differ = [trip for trip in a.keys() & b.keys() if a[trip] != b[trip]]
    if differ:
        trip = min(differ)
        yield f"{len(differ)} scores differ: {trip} has {a[trip]} in {one}, {b[trip]} in {other}"


def windows(closed, other, b):
    if not closed:
        yield "no windows were closed: too few readings per vehicle"
    missing = closed.keys() - b.keys()
    if missing:
        yield f"{other} lacks {len(missing)} windows of {len(closed)}, such as {min(missing)}"
    differ = [key for key in closed.keys() & b.keys() if not same(closed[key], b[key])]
    if differ:
        key = min(differ)
        yield f"{len(differ)} windows differ: {key} has {closed[key]} in streams, {b[key]} in {other}"


def same(one, other):
    (count, total, *extremes), (count2, total2, *extremes2) = one, other
    return count == count2 and extremes == extremes2 and math.isclose(total, total2, rel_tol=1e-9)
