"""A running job under a steady load: latency from produced to readable, growth, and the memory of a recovery.

    python benches/load.py BROKERS DRIVETRAIN [--rate 2000] [--vehicles 2000] [--minutes 30] [--checkpoint-every 10s]

`drivetrain simulate --rate` gives the load: so many readings a second of so many vehicles, again and again. Beside it
20 probes a second, at fixed instants whatever comes back (so that a pause of the job counts for every probe that it
delays), each a harsh sample of one of 20 vehicles; its latency is the time from that instant to the trip's new score being
readable, read committed.

Prints each minute, and in the end: latency by quantile; memory, local disk without the history, and the bytes of the
progress topic. Then the job is killed (SIGKILL), started again 10 s later under the same load, and the largest memory
until it has caught up, and 10 s more, is compared with that before.

Needs confluent-kafka, a broker, and a release build of the program.
"""

import argparse
import json
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Producer, TopicPartition

from job import Job

PROBES = 20
GAP = 1 / 20


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("brokers")
    parser.add_argument("drivetrain")
    parser.add_argument("--rate", type=int, default=2000, help="readings a second")
    parser.add_argument("--vehicles", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--checkpoint-every", default="10s")
    return parser.parse_args()


class Probe(threading.Thread):
    """Sends at fixed instants, and notes when what it sent can be read."""

    def __init__(self, job, trip):
        super().__init__(daemon=True)
        self.job, self.trip, self.stop = job, trip, threading.Event()
        self.took = []  # (instant sent, ms)
        self.waiting = [{} for _ in range(PROBES)]  # by probe: number of the sample -> instant
        self.producer = Producer({"bootstrap.servers": job.brokers, "linger.ms": 0, "partitioner": "murmur2_random"})
        self.scores = self.consumer("scores")
        topic = f"{job.name}.trip_scores"
        ids = self.scores.list_topics(topic, timeout=30).topics[topic].partitions
        self.scores.assign([TopicPartition(topic, p, OFFSET_END) for p in ids])
        self.scores.poll(2)
        self.clock = self.consumer("clock")
        threading.Thread(target=self.read, daemon=True).start()

    def consumer(self, group):
        return Consumer({"bootstrap.servers": self.job.brokers, "group.id": group, "isolation.level": "read_committed",
                         "fetch.wait.max.ms": 5, "enable.auto.commit": False})

    def event_time(self):
        """That of the newest reading of a partition; the probes' must not be far from it."""
        place = TopicPartition(self.job.topic, 0)
        _, end = self.clock.get_watermark_offsets(place, timeout=30)
        place.offset = max(0, end - 1)
        self.clock.assign([place])
        message = self.clock.poll(10)
        return datetime.fromisoformat(json.loads(message.value())["at"])

    def run(self):
        began, sent, at = time.perf_counter(), 0, self.event_time()
        asked, counts = time.perf_counter(), [0] * PROBES
        while not self.stop.is_set():
            instant = began + sent * GAP
            time.sleep(max(0.0, instant - time.perf_counter()))
            if time.perf_counter() - asked > 2:
                try:
                    at = max(at, self.event_time())
                except KafkaException:
                    pass  # The broker is busy; the time before is near enough.
                asked = time.perf_counter()
            at += timedelta(milliseconds=1)
            probe = sent % PROBES
            counts[probe] += 1
            self.waiting[probe][counts[probe]] = instant
            reading = {"vehicle_id": f"probe{probe}", "driver_id": "nobody", "trip_id": self.trip,
                       "at": at.isoformat(timespec="microseconds"), "g_force_long": -0.9}
            self.producer.produce(self.job.topic, json.dumps(reading), key=f"probe{probe}")
            self.producer.poll(0)
            sent += 1
        self.producer.flush()

    def read(self):
        while True:
            for message in self.scores.consume(1000, 0.002):
                now = time.perf_counter()
                key = (message.key() or b"").decode()
                if message.error() or not key.startswith("probe") or f":{self.trip}:" not in key or not message.value():
                    continue
                waiting, reached = self.waiting[int(key[5:].split(":")[0])], json.loads(message.value())["harsh_braking"]
                for number in [n for n in list(waiting) if n <= reached]:
                    instant = waiting.pop(number)
                    self.took.append((instant, (now - instant) * 1000))


class Load:
    """The simulated fleet, again and again."""

    def __init__(self, job, args):
        seconds = int(args.minutes * 60 * args.rate / args.vehicles * 1.3) + 3600
        self.process = subprocess.Popen(
            [args.drivetrain, "simulate", "--vehicles", str(args.vehicles), "--for", f"{seconds}s", "--rate", str(args.rate),
             "--brokers", job.brokers, "--topic", job.topic], stderr=subprocess.DEVNULL)

    def end(self):
        self.process.kill()
        self.process.wait()


def quantiles(took):
    took = sorted(took)
    rank = lambda q: took[min(len(took) - 1, int(q * len(took)))]
    return f"{statistics.median(took):.0f} / {rank(0.99):.0f} / {rank(0.999):.0f} / {took[-1]:.0f}"


def disk(directory, skip):
    files = (f for f in directory.rglob("*") if f.relative_to(directory).parts[0] != skip)
    return sum(f.stat().st_size for f in files if f.is_file()) / 1e6


def progress(consumer, job):
    """Records of the progress topic that are still there, markers of transactions included."""
    low, high = consumer.get_watermark_offsets(TopicPartition(f"{job.name}.{job.name}.progress", 0), timeout=30)
    return high - low


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as directory:
        job = Job(args.drivetrain, args.brokers, f"load{int(time.time())}", directory,
                  checkpoint_every=f'"{args.checkpoint_every}"')
        load = Load(job, args)
        time.sleep(3)
        job.start()
        consumer = Consumer({"bootstrap.servers": args.brokers, "group.id": job.name})
        time.sleep(7)
        probe = Probe(job, "steady")
        probe.start()
        print(f"{args.rate:,} readings/s of {args.vehicles:,} vehicles, checkpoints every {args.checkpoint_every}\n")
        print("| minute | memory, MB | local disk but history, MB | progress topic, records | behind | p50 / p99 / p99.9 / max, ms |")
        print("|---|---|---|---|---|---|", flush=True)
        began, done, memory = time.perf_counter(), 0, []
        while time.perf_counter() - began < args.minutes * 60:
            minute = min(60.0, args.minutes * 60)
            end = time.perf_counter() + minute
            while time.perf_counter() < end:
                time.sleep(1)
                job.check()
                memory.append(job.memory())
            took = [ms for _, ms in probe.took[done:]]
            done += len(took)
            print(f"| {(time.perf_counter() - began) / 60:.1f} | {statistics.median(memory[-int(minute):]):.0f} "
                  f"| {disk(job.data, 'history'):.1f} | {progress(consumer, job):,} | {job.behind(consumer):,} "
                  f"| {quantiles(took) if took else 'none'} |", flush=True)
        probe.stop.set()
        # The first minute is that of the start.
        took = [ms for instant, ms in probe.took if instant - began > min(60, args.minutes * 30)]
        steady, peak = statistics.median(memory[-60:]), job.memory("VmHWM")
        print(f"\nlatency of {len(took):,} probes, p50 / p99 / p99.9 / max: {quantiles(took)} ms")
        job.end(signal.SIGKILL)
        time.sleep(10)
        job.start()
        started = time.perf_counter()
        time.sleep(1)
        # Offsets for lag monitors are committed every 5 s.
        while job.behind(consumer) > 6 * args.rate:
            job.check()
            time.sleep(0.2)
        took = time.perf_counter() - started
        time.sleep(10)
        job.check()
        most = job.memory("VmHWM")
        print(f"memory: steady {steady:.0f} MB, peak {peak} MB; recovery caught up in {took:.1f} s with a peak of {most} MB, "
              f"{most / steady:.2f} of steady")
        job.end(signal.SIGTERM)
        load.end()


if __name__ == "__main__":
    main()
