"""How throughput, memory, checkpoints, restarts and latency grow with the number of keys, workers and readings.

    python benches/growth DRIVETRAIN PART… [--out growth-results]

PART is one or more of:

    keys      `replay` of a file by --keys vehicles, with the job of the comparison and with configs/fleet.toml
    workers   the same with --workers, of 10,000 vehicles
    running   `run` on a Kafka of its own with configs/fleet.toml by --keys vehicles: memory, the checkpoint's size, the time
              from a start to new output, and latency under a light load
    long      `replay` of 100,000,000 readings (--long-records) of 10,000 vehicles from a pipe, with both jobs and no history
              of readings: memory as they go by
    long-running   the same with `run`, of a topic on a Kafka of its own
    report    nothing is measured

What is measured is added to growth.json in --out (a figure measured again replaces the older one), and growth.md and
growth.svg are written anew from all of it. So a machine that is not free for long can be used in slices:
`--keys 1000`, then `--keys 10000`. benches/growth/README.md says how each figure is come by.

Needs a release build; for `running` and `long-running` confluent-kafka, Java and Maven too. `keys` takes 3 GB of disk at a
million vehicles, `long-running` 10 GB.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import signal
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "compare")]

import replays
import tables

PARTS = ("keys", "workers", "running", "long", "long-running", "report")
FLEET = 10_000  # vehicles, where they are not what is varied


def arguments():
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drivetrain", type=pathlib.Path, help="the release binary")
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART")
    parser.add_argument("--keys", type=numbers, default=[1_000, 10_000, 100_000, 1_000_000], help="numbers of vehicles")
    parser.add_argument("--workers", type=numbers, default=[1, 2, 4, 8])
    parser.add_argument("--jobs", type=lambda text: text.split(","), default=["compare", "fleet"],
                        help="which, of keys, workers, long, long-running; there are also the comparison's with one trip a vehicle "
                        "(one-trip), and with trips that are sealed after 10 min (sealed)")
    parser.add_argument("--records", type=int, default=5_000_000, help="of a replay at least, and 10 a vehicle at least")
    parser.add_argument("--rounds", type=int, default=1, help="replays of each kind; the median counts")
    parser.add_argument("--rate", type=int, default=1_000, help="of `running`, readings a second")
    parser.add_argument("--seconds", type=int, default=30, help="of `running`, how long latency is measured")
    parser.add_argument("--long-records", type=int, default=100_000_000)
    parser.add_argument("--spare-gb", type=float, default=2, help="a job is killed when less memory is left")
    parser.add_argument("--wait", type=int, default=30, help="for a quiet machine before each replay, at most so many seconds")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("growth-results"))
    args = parser.parse_args()
    if not args.drivetrain.is_file() or set(args.jobs) - replays.JOBS.keys():
        parser.error("no such file, or no such job")
    args.drivetrain = args.drivetrain.resolve()
    return args


class Store:
    """growth.json: {part: {what was varied, as text: figures}}."""

    def __init__(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.file = directory, directory / "growth.json"
        self.found = json.loads(self.file.read_text()) if self.file.exists() else {}

    def add(self, part, key, figures):
        figures["date"] = datetime.datetime.now().isoformat(timespec="minutes")
        self.found.setdefault(part, {})[key] = figures
        self.found["machine"] = {"cores": os.cpu_count(), "cpu": platform.machine()}
        self.file.write_text(json.dumps(self.found, indent=1) + "\n")
        plain = {k: v for k, v in figures.items() if not isinstance(v, list)}
        print(f"{part} {key}: {json.dumps(plain)}", flush=True)


def measure(args, part, scratch, store):
    if part == "keys":
        for keys in args.keys:
            with replays.readings(args, keys, scratch) as (file, records):
                for job in args.jobs:
                    store.add("keys", f"{job}/{keys}", replays.median(args, job, file, records, 2, scratch))
    elif part == "workers":
        with replays.readings(args, FLEET, scratch) as (file, records):
            for job in args.jobs:
                for workers in args.workers:
                    store.add("workers", f"{job}/{workers}", replays.median(args, job, file, records, workers, scratch))
    elif part == "running":
        import running  # needs confluent-kafka

        with running.broker(scratch) as broker:
            for keys in args.keys:
                store.add("running", str(keys), running.measure(args, broker, keys, scratch))
    elif part == "long":
        for job in args.jobs:
            store.add("long", job, replays.long(args, job, FLEET, scratch))
    elif part == "long-running":
        import running

        with running.broker(scratch) as broker:
            running.load(args, broker, FLEET)
            for job in args.jobs:
                store.add("long-running", job, running.long(args, broker, job, FLEET, scratch))


def main():
    args = arguments()
    # So that what it has started ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    store = Store(args.out)
    with tempfile.TemporaryDirectory(prefix="drivetrain-growth-") as scratch:
        for part in args.parts:
            measure(args, part, pathlib.Path(scratch), store)
    text, drawing = tables.write(store.found)
    (args.out / "growth.md").write_text(text)
    if drawing:
        (args.out / "growth.svg").write_text(drawing)
    print(text)


main()
