"""Time from a harsh sample's send to the trip's new score being readable (read committed), on an idle job.

    python benches/latency.py BROKERS [SAMPLES]

Needs confluent-kafka, and a running `drivetrain run --config configs/fleet.toml` on the same brokers.
Prints median, p90 and p99 in milliseconds.
"""

import json
import statistics
import sys
import time
from datetime import datetime, timedelta, timezone

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

brokers, samples = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100
producer = Producer({"bootstrap.servers": brokers, "linger.ms": 0})
consumer = Consumer({
    "bootstrap.servers": brokers,
    "group.id": "latency",
    "isolation.level": "read_committed",
    "fetch.wait.max.ms": 5,
})
partitions = consumer.list_topics("trip_scores").topics["trip_scores"].partitions
consumer.assign([TopicPartition("trip_scores", p, OFFSET_END) for p in partitions])
consumer.poll(2)

at = datetime.now(timezone.utc) - timedelta(seconds=30)
trip = f"latency-{int(time.time())}"
took = []
for n in range(samples + 5):
    at += timedelta(milliseconds=200)
    reading = {"vehicle_id": "latency", "driver_id": "nobody", "trip_id": trip, "at": at.isoformat(), "g_force_long": -0.9}
    sent = time.perf_counter()
    producer.produce("telemetry", json.dumps(reading), key="latency")
    producer.flush()
    while True:
        message = consumer.poll(5)
        if message is None:
            sys.exit("no new score within 5 s: does the job run?")
        if message.error() or not message.key().startswith(b"latency:"):
            continue
        if json.loads(message.value())["harsh_braking"] == n + 1:
            break
    if n >= 5:
        took.append((time.perf_counter() - sent) * 1000)
    time.sleep(0.05)
took.sort()
rank = lambda q: took[min(len(took) - 1, int(q * len(took)))]
print(f"{len(took)} samples: median {statistics.median(took):.1f} ms, p90 {rank(0.9):.1f} ms, p99 {rank(0.99):.1f} ms")
