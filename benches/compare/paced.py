"""One run of a system under a steady load: an open loop of readings, and of probes whose latency is taken.

    run(context, setting, pool, rate, plan) -> Trial

The load is `drain pace` (benches/drain): units of 1,000 readings that were packed into Kafka's batches before, each sent at
its instant, whatever comes back. The probes are harsh samples at fixed instants; the latency of each is from the instant at
which it was due to its score being readable, read committed. So what a pause of the system, of the broker or of the load
itself delays counts for each probe that it delays.
"""

import dataclasses
import json
import shutil
import statistics
import subprocess
import time

from measure import busy, peak_memory, read
from systems import HERE, OPEN, Failed, drain_binary, feed, jvm, start, start_drivetrain

PARTITIONS = 4


@dataclasses.dataclass(frozen=True)
class Setting:
    name: str  # what the table says
    system: str  # whose sustainable rate its load is a share of
    checkpoint_ms: int | None = None  # Flink's; drivetrain has its default
    guarantee: str = "exactly-once"


SETTINGS = {
    "drivetrain": Setting("drivetrain", "drivetrain"),
    "flink": Setting("Flink, checkpoints every 10 s", "flink", 10_000),
    "flink-1s": Setting("Flink, checkpoints every 1 s", "flink", 1_000),
    "flink-200ms": Setting("Flink, checkpoints every 200 ms", "flink", 200),
    "flink-at-least-once": Setting("Flink, at least once", "flink", 10_000, "at-least-once"),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    probes: int  # a second
    warm: float  # s, before the probes that count
    seconds: float  # s, of the probes that count
    tail: float  # s at most, under the same load, until those are answered


@dataclasses.dataclass
class Trial:
    setting: str
    rate: float  # readings a second that were to be sent
    sent: float  # readings a second that were
    latencies: list  # (s from the start at which a probe was due, s that its result took); answered ones that count
    missing: int  # probes that count and were not answered in time
    cores: dict  # CPU seconds a second: job, broker, load (generator and reader), others
    peak: int  # bytes resident
    late: dict  # by how much the load and the probes were late, µs

    @property
    def growth(self):
        """By how many seconds the lag grows in a second: the medians of the first and the last third of the time."""
        dues = [due for due, _ in self.latencies]
        third = (dues[-1] - dues[0]) / 3
        first = [took for due, took in self.latencies if due < dues[0] + third]
        last = [took for due, took in self.latencies if due > dues[-1] - third]
        return (statistics.median(last) - statistics.median(first)) / (2 * third)


def pack(drivetrain, path, records, vehicles):
    """The load of all runs: the first so many readings of the simulated fleet, as in the comparison."""
    feed(drivetrain, records, vehicles, [drain_binary(), "pack", path, str(PARTITIONS), str(records)])


def launch(context, setting, topic, name, data):
    context.broker.create(topic, partitions=PARTITIONS)
    if setting.system == "drivetrain":
        config = context.scratch / f"{name}job.toml"
        text = (HERE / "compare.toml").read_text()
        config.write_text(text.replace('topics = ["telemetry"]', f'topics = ["{topic}"]'))
        process = start_drivetrain(context, name, config, data)
    else:
        context.broker.create(f"{name}trip_scores", f"{name}windows", partitions=PARTITIONS)
        arguments = [2, setting.checkpoint_ms, data, "unbounded", setting.guarantee]
        command = jvm(context, topic, name, "flink", OPEN, arguments)
        process = start(context, name, command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not context.broker.partitions(f"{name}trip_scores"):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"{setting.name} did not start; see {name}log")
        time.sleep(0.1)
    return process


def cpu(*processes):
    """CPU seconds so far: of each process, and of the whole machine."""
    return [(read(p.pid) or ("Z", 0))[1] for p in processes] + [busy()]


def run(context, setting, pool, rate, plan):
    name = f"{setting}-{rate:.0f}-{time.monotonic_ns() // 10**6 % 10**6}-"
    topic, data = f"{name}telemetry", context.scratch / f"{name}data"
    process = launch(context, SETTINGS[setting], topic, name, data)
    load = [drain_binary(), "pace", context.broker.address, topic, f"{name}trip_scores", pool, f"{rate:.0f}", plan.probes,
            plan.warm, plan.seconds, plan.tail]
    pacer = start(context, f"{name}load-", load, stdout=subprocess.PIPE, text=True)
    try:
        began = pacer.stdout.readline()
        if not began:
            raise Failed(f"the load did not start; see {name}load-log and {name}log")
        began = json.loads(began)["began"]
        everybody = process, context.broker.process, pacer
        time.sleep(max(0, began + plan.warm - time.time()))
        before, since = cpu(*everybody), time.time()
        time.sleep(max(0, began + plan.warm + plan.seconds - time.time()))
        after, took = cpu(*everybody), time.time() - since
        said, _ = pacer.communicate(timeout=plan.tail + 60)
        peak, ended = peak_memory(process.pid), process.poll()
    finally:
        for child in (pacer, process):
            child.terminate()
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        context.broker.delete_all_but(None)
        shutil.rmtree(data, ignore_errors=True)
    if pacer.returncode != 0 or ended is not None or not said:
        raise Failed(f"{setting} at {rate:,.0f}/s; see {name}load-log and {name}log")
    said = json.loads(said)
    if not said["enough"]:
        raise Failed(f"the load has too few readings for {rate:,.0f}/s: give a larger --records")
    spent = [(b - a) / took for a, b in zip(before, after)]
    cores = dict(zip(("job", "broker", "load"), spent)) | {"others": max(0, spent[3] - sum(spent[:3]))}
    return trial(setting, rate, plan, said, cores, peak)


def trial(setting, rate, plan, said, cores, peak):
    latencies, missing = [], 0
    for k, readable in enumerate(said["readable_us"]):
        due = k / plan.probes
        if plan.warm <= due < plan.warm + plan.seconds:
            if readable:
                latencies.append((due, readable / 1e6 - due))
            else:
                missing += 1
    late = {"load": said["load_late_us"], "probes": said["probes_late_us"]}
    return Trial(setting, rate, said["sent_per_s"], latencies, missing, cores, peak, late)
