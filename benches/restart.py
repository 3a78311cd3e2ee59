"""Restart with many keys: checkpoint size, what a checkpoint costs in latency, and the time from a start to new output.

    python benches/restart.py BROKERS DRIVETRAIN [KEYS…]        (default 10000 100000 1000000)

KEYS are vehicles and drivers together: half as many vehicles, each with a driver of its own and ten trips of two readings,
which all stay in memory. For each number of keys, on topics of its own:

1. load: 20 readings a vehicle, read by `drivetrain run --workers 2` to the end; its peak memory;
2. pause: 20 s of a probe (a harsh reading, to its trip's score readable) while 2,000 readings a second of all vehicles
   arrive, with a checkpoint each 5 s: median and maximum;
3. clean: SIGTERM, start again, time to a new score of a reading sent before the start;
4. killed: SIGKILL, start again, the same.

Needs confluent-kafka and kcat, a broker, and a release build of the program.
"""

import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from job import Job

brokers, drivetrain = sys.argv[1:3]
sizes = [int(n) for n in sys.argv[3:]] or [10_000, 100_000, 1_000_000]
base = datetime(2026, 5, 1, 8, tzinfo=timezone.utc)


def stamp(at):
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def reading(vehicle, trip, at, g=0.1):
    return (
        f'{{"vehicle_id":"v{vehicle:07}","driver_id":"d{vehicle:07}","trip_id":"t{trip}","fleet_id":"f{vehicle % 50:02}",'
        f'"at":"{stamp(at)}","speed_kmh":50.0,"g_force_long":{g},"odometer_km":{trip + 0.5}}}'
    )


class Restart(Job):
    def __init__(self, keys, directory):
        super().__init__(drivetrain, brokers, f"restart{keys}", directory, checkpoint_every='"5s"')
        self.vehicles = keys // 2
        self.producer = Producer({"bootstrap.servers": brokers, "linger.ms": 1, "queue.buffering.max.messages": 1_000_000})

    def load(self):
        subprocess.run([drivetrain, "simulate", "--vehicles", "1", "--for", "1s", "--start", "2026-04-01T00:00:00Z",
                        "--brokers", brokers, "--topic", self.topic], check=True, stderr=subprocess.DEVNULL)
        kcat = subprocess.Popen(["kcat", "-P", "-b", brokers, "-t", self.topic, "-K", "|", "-z", "lz4",
                                 "-X", "topic.partitioner=murmur2", "-X", "linger.ms=50"], stdin=subprocess.PIPE)
        for trip in range(10):
            for second in (0, 10):
                at = base + timedelta(seconds=60 * trip + second)
                for v in range(self.vehicles):
                    kcat.stdin.write(f"v{v:07}|{reading(v, trip, at)}\n".encode())
        kcat.stdin.close()
        assert kcat.wait() == 0

    def scores(self):
        topic = f"{self.name}.trip_scores"
        consumer = Consumer({"bootstrap.servers": brokers, "group.id": "scores", "isolation.level": "read_committed",
                             "fetch.wait.max.ms": 5})
        ids = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        consumer.assign([TopicPartition(topic, p, OFFSET_END) for p in ids])
        consumer.poll(2)
        return consumer

    def send(self, vehicle, trip, at, g=0.1):
        self.producer.produce(self.topic, reading(vehicle, trip, at, g), key=f"v{vehicle:07}")

    def until_scored(self, consumer, trip, harsh):
        """Waits for the score of the probe's trip with so many harsh samples."""
        wanted = f"v{self.vehicles:07}:t{trip}:".encode()
        while True:
            # Waits for the whole batch or the time: a short one.
            for message in consumer.consume(100, 0.002):
                if message.error() or not (message.key() or b"").startswith(wanted) or not message.value():
                    continue
                if json.loads(message.value())["harsh_braking"] >= harsh:
                    return
            self.check()


def background(job, stop, trip):
    n = 0
    began = time.monotonic()
    while not stop.is_set():
        at = base + timedelta(seconds=700 + time.monotonic() - began)
        for _ in range(40):
            job.send(random.randrange(job.vehicles), trip, at)
            n += 1
        job.producer.poll(0)
        time.sleep(max(0.0, began + n / 2000 - time.monotonic()))


def probe(job):
    consumer, stop = job.scores(), threading.Event()
    thread = threading.Thread(target=background, args=(job, stop, 9))  # no trip ends
    thread.start()
    took, began = [], time.monotonic()
    while time.monotonic() - began < 20:
        sent = time.perf_counter()
        job.send(job.vehicles, 10, base + timedelta(seconds=700 + time.monotonic() - began), -0.9)
        job.producer.flush()
        job.until_scored(consumer, 10, len(took) + 1)
        took.append((time.perf_counter() - sent) * 1000)
        time.sleep(0.05)
    stop.set()
    thread.join()
    job.producer.flush()
    consumer.close()
    return statistics.median(took), sorted(took)[int(0.99 * len(took))], max(took)


def restart(job, trip):
    consumer = job.scores()
    job.send(job.vehicles, trip, base + timedelta(seconds=800 + trip), -0.9)
    job.producer.flush()
    began = time.perf_counter()
    job.start()
    job.until_scored(consumer, trip, 1)
    consumer.close()
    return time.perf_counter() - began


print("| keys | load, records/s | peak, MB | checkpoint, MB | probe median / p99 / max, ms | restart, s | after a kill, s |")
print("|---|---|---|---|---|---|---|")
for keys in sizes:
    with tempfile.TemporaryDirectory() as directory:
        job = Restart(keys, directory)
        job.load()
        began = time.perf_counter()
        job.start()
        job.wait_read()
        rate = 20 * job.vehicles / (time.perf_counter() - began)
        median, p99, most = probe(job)
        job.wait_read()
        peak = job.memory("VmHWM")
        assert job.end(signal.SIGTERM) == 0
        size = sum(f.stat().st_size for f in (job.data / "checkpoints").rglob("*") if f.is_file()) / 1e6
        clean = restart(job, 11)
        time.sleep(3)
        job.end(signal.SIGKILL)
        killed = restart(job, 12)
        job.end(signal.SIGTERM)
        print(f"| {keys:,} | {rate:,.0f} | {peak:,} | {size:,.1f} | {median:.0f} / {p99:.0f} / {most:.0f} | {clean:.1f} | {killed:.1f} |",
              flush=True)
