"""Latency at fractions of the sustainable rate, of drivetrain and of Flink, on the job of the comparison.

    python benches/compare/latency.py --drivetrain target/release/drivetrain [--seconds 60] [--systems drivetrain,flink]

Needs what benches/compare needs, and hdrhistogram for Python. Starts a real Kafka; finds, for each system, the largest rate
of an open loop at which its lag does not grow; then runs each setting at 10 %, 50 % and 80 % of it, with probes. Prints a
table, and writes latency.json and latency.svg to --out. benches/compare/README.md says what is measured and how.

Runs are added to the latency.json that is there (of the same machine, hopefully), so that they can be made in slices:
--rates takes the sustainable rates as given, --only-search ends when they are found.
"""

import argparse
import json
import os
import pathlib
import sys

import paced
import percentiles
from measure import await_quiet
from paced import SETTINGS, Plan
from systems import Failed, conditions, session

# Where the search begins, readings a second; and in which setting it is made. Flink's lag is only seen when its results are
# not held back until a checkpoint.
SEARCH = {"drivetrain": ("drivetrain", 750_000), "flink": ("flink-at-least-once", 400_000)}
# A rate is sustained when the lag grows by less than so many seconds in a second.
GROWTH = 0.02
# The search ends when it knows the rate to within this, and takes such steps.
FINE = 1.13
STEP = 1.12
TRIALS = 8
# A run is made again when others took more than this of a core.
DISTURBED = 0.15


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drivetrain", type=pathlib.Path, required=True, help="the release binary")
    parser.add_argument("--systems", default="drivetrain,flink,flink-1s,flink-at-least-once", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--rates", default="auto", help="sustainable rates, such as drivetrain=500000,flink=250000; auto: found")
    parser.add_argument("--shares", default="0.1,0.5,0.8", help="of the sustainable rate")
    parser.add_argument("--only-search", action="store_true", help="end when the sustainable rates are found")
    parser.add_argument("--seconds", type=float, default=60, help="whose probes count, in each run")
    parser.add_argument("--warm", type=float, default=20, help="seconds before these")
    parser.add_argument("--probes", type=int, default=50, help="a second")
    parser.add_argument("--vehicles", type=int, default=10_000)
    parser.add_argument("--records", type=int, help="readings that are packed; default: what the runs need (75 B of disk each)")
    parser.add_argument("--workers", type=int, default=2, help="of drivetrain; Flink has two slots")
    parser.add_argument("--wait", type=int, default=60, help="for a quiet machine before each run, at most so many seconds")
    parser.add_argument("--tries", type=int, default=3, help="of a run that others disturb; the least disturbed one counts")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("latency-results"))
    parser.add_argument("--scratch", type=pathlib.Path, help="kept, with the load and all logs; default: a temporary directory")
    args = parser.parse_args()
    args.systems = args.systems.split(",")
    args.shares = [float(share) for share in args.shares.split(",")]
    if args.rates != "auto":
        args.rates = {name: float(rate) for name, rate in (pair.split("=") for pair in args.rates.split(","))}
    if set(args.systems) - SETTINGS.keys() or not args.drivetrain.is_file():
        parser.error(f"--systems are of {', '.join(SETTINGS)}; --drivetrain is a file")
    return args


class Load:
    """The packed readings; made when first needed, made again when more are needed."""

    def __init__(self, args, scratch):
        self.args, self.path, self.count = args, scratch / "pool", scratch / "pool.records"

    def with_at_least(self, records):
        there = int(self.count.read_text()) if self.count.exists() else 0
        if there < records:
            records = max(int(records), self.args.records or 0)
            print(f"packing {records:,} readings", flush=True)
            paced.pack(self.args.drivetrain.resolve(), self.path, records, self.args.vehicles)
            self.count.write_text(str(records))
        return self.path


def one(args, context, load, setting, rate, plan):
    """A run that others did not disturb, or the least disturbed of some."""
    pool, runs = load.with_at_least(rate * (plan.warm + plan.seconds + min(plan.tail, 12)) + 10_000), []
    while not runs or (min(others(run) for run in runs) > DISTURBED and len(runs) < args.tries):
        await_quiet(args.wait)
        runs.append(paced.run(context, setting, pool, rate, plan))
        if others(runs[-1]) > DISTURBED:
            print(f"{setting} at {rate:,.0f}/s: others took {others(runs[-1]):.2f} cores", flush=True)
    return min(runs, key=others)


def others(run):
    return run.cores["others"]


def sustained(trial):
    enough = len(trial.latencies) > 10 * trial.missing and len(trial.latencies) > 30
    return enough and trial.growth < GROWTH and trial.sent > 0.98 * trial.rate


def search(args, context, load, system):
    """The largest rate found to be sustained, and what was tried: {"rate": …, "trials": […]}."""
    setting, rate = SEARCH[system]
    plan = Plan(args.probes, min(args.warm, 15 if system == "flink" else 8), 15, 1)
    low, high, trials = None, None, []
    while len(trials) < TRIALS and not (low and high and high / low < FINE):
        trial = one(args, context, load, setting, rate, plan)
        good, growth = sustained(trial), trial.growth if len(trial.latencies) > 30 else 1.0
        trials.append({"rate": rate, "sustained": good, "growth": growth, "missing": trial.missing, "cores": trial.cores})
        print(f"{system} at {rate:,.0f}/s: {'sustained' if good else 'not sustained'}, lag grows by {growth * 1000:.0f} ms/s, "
              f"{trial.missing} unanswered, {trial.sent / rate:.0%} sent, cores " +
              ", ".join(f"{who} {share:.2f}" for who, share in trial.cores.items()), flush=True)
        low, high = (rate, high) if good else (low, rate)
        if low and high:
            rate = (low * high) ** 0.5
        else:
            # A step up, or what was sent and worked off while more was to come.
            rate = rate * STEP if good else min(rate / STEP, trial.sent / (1 + max(0, growth)))
    if not low:
        sys.exit(f"latency: no rate was sustained by {system}")
    return {"rate": low, "trials": trials}


def measure(args, context, load, found, rows):
    # Else the first run measures how the broker's code is compiled.
    paced.run(context, "drivetrain", load.with_at_least(5_000_000), 300_000, Plan(args.probes, 0, 15, 1))
    for share in args.shares:
        for setting in args.systems:
            system = SETTINGS[setting].system
            if system not in found:
                given = args.rates != "auto"
                found[system] = {"rate": args.rates[system]} if given else search(args, context, load, system)
            if args.only_search:
                continue
            # A result may wait for the next checkpoint, and the one after it when that is late.
            tail = 5 + 2.5 * (SETTINGS[setting].checkpoint_ms or 0) / 1000
            plan = Plan(args.probes, args.warm, args.seconds, tail)
            trial = one(args, context, load, setting, share * found[system]["rate"], plan)
            rows[:] = [r for r in rows if (r["setting"], r["share"]) != (setting, share)] + [percentiles.row(trial, share)]
            print(percentiles.table(rows[-1:]).splitlines()[-1], flush=True)


def main():
    args = arguments()
    before = args.out / "latency.json"
    document = json.loads(before.read_text()) if before.exists() else {"sustainable": {}, "runs": []}
    found, rows = {} if args.rates != "auto" or args.only_search else document["sustainable"], document["runs"]
    what = (f"readings of about 227 B, {args.vehicles:,} vehicles, {os.cpu_count()} cores shared with the broker and the load; "
            f"{args.probes} probes a second")
    with session(args, "latency") as context:
        try:
            measure(args, context, Load(args, context.scratch), found, rows)
        except Failed as problem:
            sys.exit(f"latency: {problem} in {context.scratch}")
        finally:
            percentiles.write(args.out, conditions(args, what), document["sustainable"] | found, rows)
    print(f"\n{what}\n")
    print("\n".join(f"{system}: {of['rate']:,.0f} readings/s are sustained" for system, of in found.items()))
    rows.sort(key=lambda r: (list(SETTINGS).index(r["setting"]), r["share"]))
    print(f"\n{percentiles.table(rows)}\n\n{args.out}/latency.json, {args.out}/latency.svg")


main()
