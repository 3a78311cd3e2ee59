"""drivetrain against Flink and Kafka Streams, on the same job and the same topic, and against draining it.

    python benches/compare --drivetrain target/release/drivetrain [--records 10000000] [--rounds 3] [--everything]

Needs Java 17, Maven, cargo, and confluent-kafka for Python. Starts a real Kafka, loads the readings of a simulated fleet
(about 227 B each, keyed by vehicle, 4 partitions, lz4), then runs the systems in turn, several rounds; checks that all
give the same scores and windows; prints a table, and writes compare.json and compare.svg to --out. benches/compare/README.md
says what is measured and how.
"""

import argparse
import os
import pathlib
import sys

import report
import results
from measure import await_quiet
from systems import SYSTEMS, Failed, conditions, drain_binary, feed, session

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


def main():
    args = arguments()
    systems = args.systems.split(",")
    runs, wrong = {system: [] for system in systems}, []
    with session(args, "compare", TOPIC, args.records, args.checkpoint_ms, args.commit_ms) as context:
        context.broker.create(TOPIC)
        loader = [drain_binary(), "load", context.broker.address, TOPIC, str(args.records)]
        feed(context.drivetrain, args.records, args.vehicles, loader)
        for number in range(1, args.rounds + 1):
            done = one_round(context, systems, number, args.wait)
            wrong += results.disagreements({name: run for name, run in done.items() if name != "drain"})
            for name, run in done.items():
                runs[name].append(run)
    what = (f"{args.records:,} readings of about 227 B, {args.vehicles:,} vehicles "
            f"({args.records // args.vehicles:,} readings each), {os.cpu_count()} cores shared with the broker")
    summed = report.summary(runs, args.records)
    report.write(args.out, conditions(args, what), runs, summed)
    print(f"\n{what}\n\n{report.table(summed)}\n\n{args.out}/compare.json, {args.out}/compare.svg")
    if wrong:
        sys.exit("compare: the systems do not agree:\n  " + "\n  ".join(wrong))
    print("all give the same scores and windows")


main()
