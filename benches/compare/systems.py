"""The systems compared. Each runs once over the whole topic and says when its first record came and when it was done.

    run(context, name) -> Run      `name`: of this run, a prefix of everything that it writes
"""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from broker import CACHE, HERE, VERSION, Broker
from measure import Watch

PATIENCE = 900
# The collector for throughput; enough heap for it to be seldom needed.
JVM = ["-Xms2g", "-Xmx2g", "-XX:+UseParallelGC"]
OPEN = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("util", "lang", "time")]


@dataclasses.dataclass
class Run:
    started: float  # s since 1970, as the next two
    first: float  # the first record came
    done: float  # all results committed
    cpu: float  # CPU seconds from first to done
    cpu_total: float  # from the start on
    broker_cpu: float  # the broker's, from first to done
    others_cpu: float  # everybody else's, meanwhile: what a shared machine took away
    peak: int  # bytes resident
    disturbed: bool
    closing: float  # drivetrain: seconds from SIGTERM to its end, by which all files of the history are published
    closing_cpu: float  # CPU seconds from done to that end
    written: dict  # records, by kind of output
    scores: dict  # trip -> newest score
    windows: dict  # (vehicle, start in ms) -> (count, sum, min, max), of the speed by the minute

    @property
    def seconds(self):
        return self.done - self.first


@dataclasses.dataclass
class Context:
    broker: object
    topic: str
    records: int
    drivetrain: str
    workers: int
    checkpoint_ms: int
    commit_ms: int
    scratch: object
    processes: list = dataclasses.field(default_factory=list)  # all that were started


class Failed(Exception):
    """A run that did not end as it should."""


@contextlib.contextmanager
def session(args, bench, topic="", records=0, checkpoint_ms=0, commit_ms=0):
    """Builds what is needed, and gives a Context with a broker of its own; all that was started ends with it. `--scratch`
    is kept, but for the broker's logs."""
    # So that the broker ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    build()
    scratch = args.scratch or pathlib.Path(tempfile.mkdtemp(prefix=f"drivetrain-{bench}-"))
    scratch.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(scratch / "kafka", ignore_errors=True)
    broker = Broker(scratch / "kafka")
    context = Context(broker, topic, records, str(args.drivetrain.resolve()), args.workers, checkpoint_ms, commit_ms, scratch)
    try:
        yield context
    finally:
        for process in context.processes:
            if process.poll() is None:
                process.kill()
        broker.stop()
        shutil.rmtree(scratch / "kafka/logs" if args.scratch else scratch, ignore_errors=True)


def conditions(args, what):
    """What figures were measured on, and with which versions."""
    java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.splitlines()[0]
    return {
        "what": what,
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"kafka": VERSION, "flink": "2.1.0", "flink-connector-kafka": "4.0.1-2.0", "kafka-streams": "4.1.0",
                     "java": java, "python": platform.python_version()},
        "arguments": {k: str(v) for k, v in vars(args).items()},
    }


def feed(drivetrain, records, vehicles, command):
    """Runs a command with the readings of the simulated fleet on its standard input: as many as asked for, or a few more."""
    # A tenth of the fleet stands at any time, and more of it at first.
    seconds = 2 * records // vehicles + 120
    simulate = [drivetrain, "simulate", "--vehicles", str(vehicles), "--for", f"{seconds}s", "--out", "-"]
    simulator = subprocess.Popen(simulate, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    subprocess.run(command, stdin=simulator.stdout, check=True, stdout=subprocess.DEVNULL)
    simulator.stdout.close()
    simulator.wait()


def build():
    """The drain (Rust) and the peers (Maven), once."""
    drain = ["cargo", "build", "--release", "--target-dir", CACHE / "drain"]
    subprocess.run(drain, cwd=HERE.parent / "drain", check=True)
    maven = ["mvn", "-q", "-B", "-f", HERE.parent / "peers/pom.xml", f"-Dpeers.build={CACHE / 'peers'}", "package"]
    subprocess.run(maven, check=True)


def drain_binary():
    return CACHE / "drain/release/drain"


def start(context, name, command, **options):
    with open(context.scratch / f"{name}log", "w") as log:
        process = subprocess.Popen([str(part) for part in command], stderr=log, **options)
    context.processes.append(process)
    return process


def finish(watch, started, first, done, **outputs):
    cpu, broker_cpu, all_cpu = watch.spent(first, done)
    total, *_ = watch.spent(started, done)
    others = max(0, all_cpu - cpu - broker_cpu)
    outputs = {"closing": 0, "closing_cpu": 0, "written": {}, "scores": {}, "windows": {}} | outputs
    return Run(started, first, done, cpu, total, broker_cpu, others, watch.peak, watch.disturbed, **outputs)


def drain(context, name):
    started = time.time()
    command = [drain_binary(), "drain", context.broker.address, context.topic]
    process = start(context, name, command, stdout=subprocess.PIPE, text=True)
    watch = Watch(process.pid, context.broker.process.pid)
    said, _ = process.communicate(timeout=PATIENCE)
    watch.stop()
    if process.returncode != 0:
        raise Failed(f"drain; see {name}log")
    said = json.loads(said)
    return finish(watch, started, said["first"], said["last"], written={"records": said["records"]})


def jvm(context, topic, name, module, options, arguments):
    """The command of a peer that reads this topic."""
    libs = CACHE / f"peers/peers-{module}"
    path = f"{libs}/peers-{module}-1.jar:{libs}/libs/*"
    logging = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    main = f"drivetrain.peers.{module}.Main"
    return ["java", *JVM, *options, logging, "-cp", path, main, context.broker.address, topic, name, *arguments]


def peer(context, name, module, options, arguments):
    """A JVM that says FIRST and DONE."""
    context.broker.create(f"{name}trip_scores", f"{name}windows")
    command = jvm(context, context.topic, name, module, options, arguments)
    started = time.time()
    process = start(context, name, command, stdout=subprocess.PIPE, text=True)
    watch = Watch(process.pid, context.broker.process.pid)
    try:
        said, _ = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Failed(f"{module}: not done within {PATIENCE} s; see {name}log") from None
    watch.stop()
    said = dict(line.split() for line in said.splitlines() if len(line.split()) == 2)
    if process.returncode != 0 or "DONE" not in said:
        raise Failed(f"{module}; see {name}log")
    scores, n = scores_of(context, f"{name}trip_scores")
    windows = {}
    for _, w in context.broker.read_all(f"{name}windows"):
        windows[w["vehicle_id"], w["window_start"]] = (w["count"], w["sum"], w["min"], w["max"])
    return finish(watch, started, float(said["FIRST"]), float(said["DONE"]), scores=scores, windows=windows,
                  written={"scores": n, "windows": len(windows)})


def scores_of(context, topic):
    """The newest score of each trip, and how many records there are."""
    scores, n = {}, 0
    for trip, document in context.broker.read_all(topic):
        n += 1
        scores[trip] = document.get("score", document.get("safety_score"))
    return scores, n


def flink(context, name):
    arguments = [2, context.checkpoint_ms, context.scratch / f"{name}checkpoints"]
    return peer(context, name, "flink", OPEN, arguments)


def streams(context, name):
    arguments = [2, context.commit_ms, context.scratch / f"{name}state"]
    return peer(context, name, "streams", [], arguments)


def start_drivetrain(context, name, config, data):
    variables = {
        "DRIVETRAIN_KAFKA__BROKERS": context.broker.address,
        "DRIVETRAIN_KAFKA__TOPIC_PREFIX": name,
    }
    command = [context.drivetrain, "run", "--config", config, "--data", data, "--workers", context.workers]
    return start(context, name, command, stdout=subprocess.DEVNULL, env=os.environ | variables)


def drivetrain(context, name, config="compare"):
    """`config`: a file beside this one, and the job's name in it."""
    data = context.scratch / f"{name}data"
    started = time.time()
    process = start_drivetrain(context, name, HERE / f"{config}.toml", data)
    watch = Watch(process.pid, context.broker.process.pid)
    try:
        first, done = follow(context, process, f"{name}{config}.progress", name)
    finally:
        told = time.time()
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        ended = time.time()
        watch.stop()
    if process.returncode != 0:
        raise Failed(f"drivetrain; see {name}log")
    scores, n = scores_of(context, f"{name}trip_scores")
    windows = history(context, data)
    written = {"scores": n, "windows": len(windows)} if config == "compare" else {"scores": n} | kept(context, data)
    closing_cpu, *_ = watch.spent(done, ended)
    run = finish(watch, started, first, done, scores=scores, windows=windows, written=written,
                 closing=ended - told, closing_cpu=closing_cpu)
    shutil.rmtree(data)
    return run


def everything(context, name):
    """All that drivetrain does, where the others have their smaller job. All readings must be in its history."""
    run = drivetrain(context, name, "everything")
    if run.written["readings"] != context.records:
        raise Failed(f"drivetrain kept {run.written['readings']} readings of {context.records}; see {name}log")
    return run


def follow(context, process, topic, name):
    """Reads the progress topic until all input is committed: when the first record came, and when it was done.

    An epoch's wall time is that of its end, so the first record came after that of the last epoch without one.
    """
    while not context.broker.partitions(topic):
        if process.poll() is not None:
            raise Failed(f"drivetrain ended; see {name}log")
        time.sleep(0.02)
    consumer = context.broker.consumer(f"{topic}.follower")
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    first, ends, deadline = 0, {}, time.monotonic() + PATIENCE
    while sum(ends.values()) < context.records:
        message = consumer.poll(1)
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failed(f"drivetrain did not read to the end ({ends}); see {name}log")
        if message is None or message.error():
            continue
        for ticket in tickets(json.loads(message.value())):
            ends |= {binding["origin"]["partition"]: binding["end"] for binding in ticket["bindings"]}
            if sum(ends.values()) == 0:
                first = ticket["wall"] / 1e6
    done = time.time()
    consumer.close()
    if first == 0:
        raise Failed("drivetrain's first epoch has records: when did they come?")
    return first, done


def tickets(record):
    return record.get("commit", {}).get("epochs", [])


def history(context, data):
    """The windows, which drivetrain keeps in Parquet."""
    query = ("select vehicle_id, cast(date_part('epoch', window_start) * 1000 as bigint), count, sum, min, max "
             "from windows where resolution = '1m' and signal = 'speed_kmh'")
    windows = {}
    for vehicle, start_ms, count, *numbers in sql(context, data, query):
        windows[vehicle, int(start_ms)] = (int(count), *map(float, numbers))
    return windows


def kept(context, data):
    """{table: rows} of the history."""
    tables = ("windows", "trips", "events", "anomalies", "quality", "readings")
    query = "select " + ", ".join(f"(select count(*) from {table}) as {table}" for table in tables)
    [counts] = sql(context, data, query)
    return dict(zip(tables, map(int, counts)))


def sql(context, data, query):
    command = [context.drivetrain, "sql", "--data", data, "--format", "csv", query]
    rows = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[1:]
    return [row.split(",") for row in rows]


SYSTEMS = {"drain": drain, "flink": flink, "streams": streams, "drivetrain": drivetrain, "everything": everything}
