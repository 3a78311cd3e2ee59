"""drivetrain against Flink and Kafka Streams, on the same job and the same topic, and against draining it.

    python benches/compare --drivetrain target/release/drivetrain [--records 10000000] [--rounds 3] [--everything]

Needs Java 17, Maven, cargo, and confluent-kafka for Python. Starts a real Kafka, loads the readings of a simulated fleet
(about 227 B each, keyed by vehicle, 4 partitions, lz4), then runs the systems in turn, several rounds; checks that all
give the same scores and windows; prints a table, and writes compare.json and compare.svg to --out. benches/compare/README.md
says what is measured and how.
"""

import argparse
import datetime
import os
import pathlib
import platform
import shutil
import signal
import subprocess
import sys
import tempfile

import report
import results
from broker import VERSION, Broker
from measure import await_quiet
from systems import SYSTEMS, Context, Failed, build, drain_binary

TOPIC = "telemetry"
TRIES = 4


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drivetrain", type=pathlib.Path, required=True, help="the release binary")
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--vehicles", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of drivetrain; the peers have two threads")
    parser.add_argument("--checkpoint-ms", type=int, default=10_000, help="Flink's checkpoint interval, and so its commits'")
    parser.add_argument("--commit-ms", type=int, default=1_000, help="Kafka Streams' commit interval")
    parser.add_argument("--wait", type=int, default=60, help="for a quiet machine before each run, at most so many seconds")
    usual = ",".join(name for name in SYSTEMS if name != "everything")
    parser.add_argument("--systems", default=usual, help="which, and in which order")
    parser.add_argument("--everything", action="store_true",
                        help="in each round drivetrain once more, with all that it can do switched on (everything.toml)")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("compare-results"))
    parser.add_argument("--scratch", type=pathlib.Path, help="kept, with all logs; default: a temporary directory")
    args = parser.parse_args()
    if args.everything:
        args.systems += ",everything"
    unknown = set(args.systems.split(",")) - SYSTEMS.keys()
    if unknown or not args.drivetrain.is_file():
        parser.error(f"no such system: {sorted(unknown)}" if unknown else f"{args.drivetrain}: no such file")
    return args


def load(args, broker):
    """Fills the topic; what stands in it."""
    broker.create(TOPIC)
    # A tenth of the fleet stands at any time, and more of it at first.
    seconds = 2 * args.records // args.vehicles + 120
    simulate = [args.drivetrain.resolve(), "simulate", "--vehicles", str(args.vehicles), "--for", f"{seconds}s", "--out", "-"]
    simulator = subprocess.Popen(simulate, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    loader = [drain_binary(), "load", broker.address, TOPIC, str(args.records)]
    subprocess.run(loader, stdin=simulator.stdout, check=True, stdout=subprocess.DEVNULL)
    simulator.stdout.close()
    simulator.wait()


def one_round(context, systems, number, wait):
    """{system: Run}; what was disturbed, or failed once, is run again."""
    runs = {}
    for system in systems:
        for attempt in range(TRIES):
            await_quiet(wait)
            try:
                run = SYSTEMS[system](context, f"{system}-{number}-{attempt}-")
            except Failed as problem:
                sys.exit(f"compare: {problem} in {context.scratch}")
            context.broker.delete_all_but(TOPIC)
            rate = context.records / run.seconds
            print(f"round {number} {report.NAMES[system]}: {rate:,.0f}/s, {context.records / run.cpu:,.0f} per CPU-second, "
                  f"{run.seconds:.2f} s, broker {run.broker_cpu:.1f} CPU-s, others {run.others_cpu:.1f} CPU-s"
                  + (f", then closed in {run.closing:.1f} s, {run.closing_cpu:.1f} CPU-s" if run.closing else "")
                  + (" (disturbed: again)" if run.disturbed else ""), flush=True)
            if not run.disturbed:
                runs[system] = run
                break
        else:
            print(f"round {number}: {system} was disturbed {TRIES} times and is left out")
    return runs


def setting(args):
    java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.splitlines()[0]
    return {
        "what": f"{args.records:,} readings of about 227 B, {args.vehicles:,} vehicles "
                f"({args.records // args.vehicles:,} readings each), {os.cpu_count()} cores shared with the broker",
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"kafka": VERSION, "flink": "2.1.0", "flink-connector-kafka": "4.0.1-2.0", "kafka-streams": "4.1.0",
                     "java": java, "python": platform.python_version()},
        "arguments": {k: str(v) for k, v in vars(args).items()},
    }


def main():
    args = arguments()
    # So that the broker ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    build()
    scratch = args.scratch or pathlib.Path(tempfile.mkdtemp(prefix="drivetrain-compare-"))
    scratch.mkdir(parents=True, exist_ok=True)
    broker = Broker(scratch / "kafka")
    context = Context(broker, TOPIC, args.records, str(args.drivetrain.resolve()), args.workers, args.checkpoint_ms,
                      args.commit_ms, scratch)
    try:
        load(args, broker)
        systems = args.systems.split(",")
        runs, wrong = {system: [] for system in systems}, []
        for number in range(1, args.rounds + 1):
            done = one_round(context, systems, number, args.wait)
            wrong += results.disagreements({name: run for name, run in done.items() if name != "drain"})
            for name, run in done.items():
                runs[name].append(run)
    finally:
        for process in context.processes:
            if process.poll() is None:
                process.kill()
        broker.stop()
        if args.scratch:
            shutil.rmtree(scratch / "kafka/logs", ignore_errors=True)
        else:
            shutil.rmtree(scratch, ignore_errors=True)
    summed = report.summary(runs, args.records)
    report.write(args.out, setting(args), runs, summed)
    print(f"\n{setting(args)['what']}\n\n{report.table(summed)}\n\n{args.out}/compare.json, {args.out}/compare.svg")
    if wrong:
        sys.exit("compare: the systems do not agree:\n  " + "\n  ".join(wrong))
    print("all give the same scores and windows")


main()
