"""`drivetrain run` with many keys: memory, the checkpoint's size, restarts, and latency under a light load; and with many
readings: memory."""

import contextlib
import signal
import subprocess
import tempfile
import time

from confluent_kafka import Consumer

from broker import Broker
from job import Job
from load import Probe
from replays import DRIVING, JOBS, PER_VEHICLE, free, simulate, size

START = "2026-05-01T{:02}:{:02}:{:02}Z"
READINGS = 1_000_000  # at least, so that few vehicles have many
WARM = 10  # s, before latency counts
CHECKPOINT = 10  # s, between two
PATIENCE = 280  # s, for the backlog


@contextlib.contextmanager
def broker(scratch):
    running = Broker(scratch / "kafka")
    try:
        yield running
    finally:
        running.stop()


class Vehicles:
    """The simulated fleet: first `seconds` of it as fast as may be, then it goes on at a rate."""

    def __init__(self, args, broker, keys, topic):
        self.args, self.keys = args, keys
        self.where = ["--brokers", broker.address, "--topic", topic]
        self.seconds = max(PER_VEHICLE, READINGS // keys)

    def load(self):
        subprocess.run(simulate(self.args, self.keys, self.seconds, *self.where), check=True, stderr=subprocess.DEVNULL)

    def go_on(self):
        """Where the load ended, without a gap in event time."""
        minutes, second = divmod(self.seconds, 60)
        start = START.format(8 + minutes // 60, minutes % 60, second)
        steady = ["--start", start, "--rate", str(self.args.rate)]
        return subprocess.Popen(simulate(self.args, self.keys, 86_400, *self.where, *steady), stderr=subprocess.DEVNULL)


def catch_up(job, spare_gb):
    """Seconds until all is read; None when memory was wanting, or patience."""
    consumer, began = Consumer({"bootstrap.servers": job.brokers, "group.id": job.name}), time.monotonic()
    time.sleep(1)
    try:
        while job.behind(consumer) > 0:
            job.check()
            if free() < spare_gb * 1e3 or time.monotonic() - began > PATIENCE:
                return None
            time.sleep(0.2)
    finally:
        consumer.close()
    return time.monotonic() - began


def latency(probe, seconds):
    """ms by quantile, of the probes sent in this time that came back."""
    begin = time.perf_counter() + WARM
    time.sleep(WARM + seconds)
    end = time.perf_counter()
    time.sleep(3)
    took = sorted(ms for instant, ms in list(probe.took) if begin <= instant < end)
    rank = lambda q: took[min(len(took) - 1, int(q * len(took)))]
    missing = round((end - begin) * 20) - len(took)
    return {"p50_ms": rank(0.5), "p99_ms": rank(0.99), "max_ms": took[-1], "probes": len(took), "probes_missing": max(0, missing)}


def restart(job, probe):
    """Seconds from the start of the job, which has ended, to the first new score that can be read."""
    began = time.perf_counter()
    job.start()
    while not any(instant + ms / 1000 > began for instant, ms in probe.took[-50:]):
        job.check()
        time.sleep(0.01)
    arrival = min(instant + ms / 1000 for instant, ms in list(probe.took) if instant + ms / 1000 > began)
    return arrival - began


def measure(args, broker, keys, scratch):
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        job = Job(str(args.drivetrain), broker.address, f"growth{keys}", directory)
        vehicles = Vehicles(args, broker, keys, job.topic)
        vehicles.load()
        job.start()
        processes = []
        try:
            return follow(args, job, vehicles, processes)
        finally:
            for process in processes:
                process.kill()
                process.wait()
            if job.process.poll() is None:
                job.end(signal.SIGKILL)
            broker.delete_all_but(None)


def follow(args, job, vehicles, processes):
    figures = {"readings_per_vehicle": vehicles.seconds, "rate": args.rate}
    caught_up = catch_up(job, args.spare_gb)
    if caught_up is None:
        return figures | {"fits": False, "peak_mb": job.memory("VmHWM")}
    time.sleep(CHECKPOINT + 2)
    processes.append(vehicles.go_on())
    time.sleep(5)
    probe = Probe(job, "steady")
    probe.start()
    figures |= latency(probe, args.seconds)
    figures |= {"steady_mb": job.memory(), "peak_mb": job.memory("VmHWM")}
    job.end(signal.SIGTERM)
    figures["checkpoint_mb"] = size(job.data / "checkpoints")
    figures["clean_s"] = restart(job, probe)
    time.sleep(CHECKPOINT + 5)
    job.end(signal.SIGKILL)
    figures["killed_s"] = restart(job, probe)
    time.sleep(2)
    figures["after_restart_mb"] = job.memory("VmHWM")
    probe.stop.set()
    probe.join()
    return figures | {"fits": True}


def load(args, broker, keys):
    """The topic `telemetry` with so many readings."""
    seconds = int(args.long_records / keys / DRIVING)
    command = simulate(args, keys, seconds, "--brokers", broker.address, "--topic", LongJob.topic)
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


class LongJob(Job):
    """One of `JOBS`, on the topic that [`load`] has made."""

    topic = "telemetry"

    def __init__(self, args, broker, job, directory):
        self.config, fields = JOBS[job]
        self.drivetrain, self.brokers, self.name = args.drivetrain, broker.address, f"long-{job}"
        self.data, self.log = directory / self.name, directory / f"{self.name}.log"
        self.environment = fields | {"DRIVETRAIN_JOB__NAME": self.name, "DRIVETRAIN_KAFKA__TOPIC_PREFIX": f"{self.name}.",
                                     "DRIVETRAIN_HISTORY__READINGS": "none"}


def long(args, broker, job, keys, scratch):
    """As `replays.long`: nothing runs beside it but the broker."""
    job = LongJob(args, broker, job, scratch)
    consumer = Consumer({"bootstrap.servers": job.brokers, "group.id": job.name})
    total, samples, began = job.behind(consumer), [], time.monotonic()
    job.start()
    try:
        while not samples or samples[-1][0] < total:
            time.sleep(0.5)
            job.check()
            done, seconds = total - job.behind(consumer), time.monotonic() - began
            samples.append([done, job.memory(), round(size(job.data), 1), round(seconds, 1)])
        figures = {"records": total, "keys": keys, "records_per_s": total / samples[-1][3],
                   "peak_mb": job.memory("VmHWM"), "samples": [s for s in samples if s[0]]}
        if job.end(signal.SIGTERM):
            job.check()
        return figures | {"checkpoint_mb": size(job.data / "checkpoints")}
    finally:
        consumer.close()
        if job.process.poll() is None:
            job.end(signal.SIGKILL)
        broker.delete_all_but(job.topic)
