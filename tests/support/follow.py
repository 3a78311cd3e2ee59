"""Follows the live topics of a job as an outside, read-committed consumer, and checks at the cut of every progress record
that the totals agree: trips over all drivers = completed trips with a driver = trips over all root fleets, and each fleet
has its own trips and its members'. Ends when the file `stop` exists and all records have been taken.

The progress topic is trimmed: a reader that comes late finds its place gone and goes on with the oldest record there is.
It loses cuts by it, never counts, which are cumulative. From the other topics nothing is taken away under its feet.

follow.py BROKERS PREFIX JOB STOP  prints one JSON object.
"""

import json
import os
import sys
import time
from collections import defaultdict, deque

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

brokers, prefix, job, stop = sys.argv[1:5]
TOPICS = ["driver_scores", "trip_scores", "fleet_aggregates"]
progress = f"{job}.progress"

consumer = Consumer({
    "bootstrap.servers": brokers,
    "group.id": "follower",
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
})


def partitions(topic):
    while True:
        found = consumer.list_topics(prefix + topic, timeout=30).topics[prefix + topic].partitions
        if found:
            return sorted(found)
        time.sleep(0.2)


assignment = [TopicPartition(prefix + t, p, OFFSET_BEGINNING) for t in [*TOPICS, progress] for p in partitions(t)]
consumer.assign(assignment)

waiting = defaultdict(deque)  # (topic, partition) -> records not applied yet
taken = defaultdict(int)  # (topic, partition) -> records applied
offsets = {}  # (topic, partition) -> offset of the last record read
records = deque()  # progress records not applied yet
state = {t: {} for t in TOPICS}
cuts, impossible, tombstones, last_commit = 0, [], 0, 0


def apply(counts):
    """Takes each partition's records up to its count; False while some are missing."""
    global tombstones
    wanted = {(t, p): n for t in TOPICS for p, n in enumerate(counts.get(t, []))}
    if any(taken[place] + len(waiting[place]) < n for place, n in wanted.items()):
        return False
    for (topic, partition), n in wanted.items():
        place = (topic, partition)
        if taken[place] > n:
            impossible.append(f"{place}: {taken[place]} records where {n} were written")
        while taken[place] < n:
            key, value = waiting[place].popleft()
            taken[place] += 1
            if value is None:
                tombstones += 1
                state[topic].pop(key, None)
            else:
                state[topic][key] = json.loads(value)
    return True


def check(epoch):
    drivers = sum(d["trips"] for d in state["driver_scores"].values())
    own = defaultdict(int)
    trips = 0
    for trip in state["trip_scores"].values():
        if trip["status"] == "COMPLETED" and trip["driver_id"] is not None and not trip["excluded"]:
            trips += 1
            own[trip["fleet_id"]] += 1
    fleets = state["fleet_aggregates"]
    members = defaultdict(list)
    for name, fleet in fleets.items():
        members[fleet["parent_id"]].append(name)
    roots = sum(fleets[f]["trips"] for f in members[None])
    if not drivers == trips == roots:
        impossible.append(f"epoch {epoch}: {drivers} trips over drivers, {trips} completed, {roots} over root fleets")
    for name, fleet in fleets.items():
        total = own[name] + sum(fleets[m]["trips"] for m in members[name])
        if fleet["trips"] != total:
            impossible.append(f"epoch {epoch}: fleet {name} has {fleet['trips']} trips, its members {total}")


idle_since = None
while True:
    batch = consumer.consume(num_messages=2000, timeout=0.2)
    for message in batch:
        if message.error():
            if message.error().fatal():
                raise SystemExit(str(message.error()))
            continue
        topic = message.topic()[len(prefix):]
        place = (topic, message.partition())
        if message.offset() <= offsets.get(place, -1):
            raise SystemExit(f"{place}: offset {message.offset()} after {offsets[place]}: it was read again")
        offsets[place] = message.offset()
        if topic == progress:
            record = json.loads(message.value())
            if "commit" in record:
                records.append(record["commit"])
        else:
            key = message.key().decode()
            waiting[place].append((key, message.value()))
    while records and apply(records[0]["topics"]):
        record = records.popleft()
        if record["commit"] <= last_commit:
            impossible.append(f"commit {record['commit']} came after {last_commit}")
        last_commit = record["commit"]
        cuts += 1
        check(record["committed_epoch"])
    idle_since = None if batch else (idle_since or time.monotonic())
    if os.path.exists(stop) and idle_since and time.monotonic() - idle_since > 3 and not records:
        break

consumer.close()
left = sum(len(queue) for queue in waiting.values())
print(json.dumps({
    "cuts": cuts,
    "impossible": impossible[:20],
    "records": sum(taken.values()),
    "left": left,
    "tombstones": tombstones,
    "trips": len(state["trip_scores"]),
    "drivers": len(state["driver_scores"]),
    "fleets": len(state["fleet_aggregates"]),
    "nested": sum(f["parent_id"] is not None for f in state["fleet_aggregates"].values()),
}))
