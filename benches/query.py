"""Queries on a long history: `drivetrain sql` against DuckDB on the same files, what is pruned, and how it grows.

    python benches/query.py DRIVETRAIN DIRECTORY [--vehicles 10000] [--minutes 17] [--days 1 11 112] [--files 1440] [--rounds 5]

DIRECTORY is made (some 5 GB with these defaults): `simulate` and `replay` give one day of windows, trips, events, scores,
anomalies, quality and rejects; each further day is the same day moved on (history.py), at first one file a table as the job
leaves it; `drivetrain compact` then does what configs/fleet.toml says: days older than 7 have no retractions any more, the
newest 7 are as the job left them. Readings are there of the newest day of each size only. At each number of --days all queries are asked. In the end one
more day is added in --files files a table, as of a job that runs all day (0: not), and all are asked again. When DIRECTORY has
a history already, it is taken as it is.

Queries: those of docs/query.md, with the newest day for its 2026-05-01, and some more. Each is asked of both in turn. `sql`
is a process each time (`select 1` says what that costs); DuckDB is a fresh connection in this process on the views of
`drivetrain schema --format duckdb`; making the views (it reads the footers of all files) is a line of its own. Both must give
as many rows. CPU is user and system time of all threads: on a machine with others it says more. The files are in the page
cache after the first round. A query that takes longer than a minute is given up.

Pruned, by EXPLAIN ANALYZE: files that are left by day, of those of the tables; then what is left of the row groups by
statistics, then by Bloom filter; then the rows left by page index.

Needs pyarrow and duckdb, and a release build of the program.
"""

import argparse
import json
import re
import resource
import statistics
import subprocess
import threading
import time
from datetime import timedelta
from pathlib import Path

import duckdb

from history import FIRST, History

LIMIT = 60


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drivetrain")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--vehicles", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=17, help="that each vehicle drives a day")
    parser.add_argument("--days", type=int, nargs="+", default=[1, 11, 112])
    parser.add_argument("--files", type=int, default=1440)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", help="queries whose names contain one of these")
    return parser.parse_args()


def documented(day, next_day):
    """The queries of docs/query.md under short names, for that day."""
    names = ["drivers needing attention", "harsh per 100 km", "worst trips of a day", "events of a trip", "course of a score",
             "fleets and those above", "a sensor's hour", "readings around anomalies", "sensors to be trusted",
             "intake: all accounted for", "rejects by reason", "live against history", "long form of a day"]
    text = (Path(__file__).parent.parent / "docs" / "query.md").read_text()
    found = re.findall(r"^```sql\n(select .*?);\n```", text, flags=re.M | re.S)
    assert len(found) == len(names), [q[:40] for q in found]
    # That vehicle's second trip has events.
    here = {"2026-05-02": str(next_day), "2026-05-01": str(day), "'veh-000001:trp-000001-0001:": "'veh-000001:trp-000001-0002:"}
    for old, new in here.items():
        found = [q.replace(old, new) for q in found]
    return dict(zip(names, found))


def queries(day):
    vehicle, week = "vehicle_id = 'veh-000001'", str(day - timedelta(days=6))
    # Before the newest seven days, where there is such a day: a day without retractions.
    older = max(FIRST, day - timedelta(days=30))
    hour = "signal = 'speed_kmh' and resolution = '1m'"
    return {"select 1": "select 1"} | documented(day, day + timedelta(days=1)) | {
        "a sensor's hour, a month ago":
            f"select window_start, mean from windows where {vehicle} and {hour} and window_start >= '{older}T08:00:00Z' "
            f"and window_start < '{older}T09:00:00Z' order by window_start",
        "a vehicle's last day":
            f"select * from windows where {vehicle} and window_start >= '{day}T00:00:00Z' order by signal, window_start",
        "a sensor, day by day, all days":
            f"select window_start, mean from windows where {vehicle} and signal = 'speed_kmh' and resolution = '1d' order by 1",
        "a trip by its id": f"select * from trips where trip_id = 'veh-000001:trp-000001-0002:{older}'",
        "a trip by its id, log": f"select * from trips_log where trip_id = 'veh-000001:trp-000001-0002:{older}'",
        "top drivers": "select driver_id, score from driver_scores order by score desc, driver_id limit 10",
        "a fleet's week":
            f"select date_trunc('day', started_at) as day, count(*) as trips, avg(safety_score) as score, sum(distance_km) as km "
            f"from trips where fleet_id = 'depot-1-1' and started_at >= '{week}T00:00:00Z' group by 1 order by 1",
        "anomalies of a vehicle and a day":
            f"select a.anomaly_id, r.at, r.engine_rpm from anomalies a join readings r on r.vehicle_id = a.vehicle_id "
            f"and r.at between a.started_at - interval '30 seconds' and a.started_at + interval '30 seconds' "
            f"where a.signal = 'engine_rpm' and a.vehicle_id = 'veh-000003' and a.started_at >= '{day}T00:00:00Z' "
            f"and r.at >= '{day}T00:00:00Z' order by 1, 2",
        "all windows by signal and day":
            "select signal, date_trunc('day', window_start) as day, sum(count) as n from windows where resolution = '1d' "
            "group by 1, 2 order by 1, 2",
        "how many windows": "select count(*) from windows",
        "how many trips, as of yesterday": "select count(*) from trips",
    }


def cpu_ms(who):
    used = resource.getrusage(who)
    return (used.ru_utime + used.ru_stime) * 1000


class Drivetrain:
    def __init__(self, program, data):
        self.program, self.data = program, data

    def call(self, *arguments):
        command = [self.program, "sql", "--data", str(self.data), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=LIMIT).stdout

    def ask(self, query, epoch):
        """(ms, ms of CPU, rows)"""
        began, cpu = time.perf_counter(), cpu_ms(resource.RUSAGE_CHILDREN)
        text = self.call("--format", "json", *(["--as-of", str(epoch)] if epoch else []), query)
        return (time.perf_counter() - began) * 1000, cpu_ms(resource.RUSAGE_CHILDREN) - cpu, text.count("\n")

    def pruned(self, query, epoch, files):
        """What EXPLAIN ANALYZE says. One partition, so that a file is one range."""
        asked = f"set datafusion.execution.target_partitions = 1; explain analyze {query}"
        plan = self.call("--format", "json", *(["--as-of", str(epoch)] if epoch else []), asked)

        def left(metric):
            factor = {"": 1, " K": 1e3, " M": 1e6}
            pairs = re.findall(rf"{metric}=([\d.]+)( [KM])? total → ([\d.]+)( [KM])? matched", plan)
            return [sum(float(p[i]) * factor[p[i + 1]] for p in pairs) for i in (2, 0)]

        if "files_ranges_pruned" not in plan:
            return ["-"] * 4
        shown = [f"{left('files_ranges_pruned_statistics')[1]:.0f} of {files}"]
        for metric in ("row_groups_pruned_statistics", "row_groups_pruned_bloom_filter", "page_index_rows_pruned"):
            shown.append("{:,.0f} of {:,.0f}".format(*left(metric)))
        return shown


class Duck:
    def __init__(self, program, data):
        command = [program, "schema", "--format", "duckdb", "--data", str(data)]
        self.views = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def connect(self):
        connection = duckdb.connect()
        connection.execute("set threads = 2; set memory_limit = '4GB'; set TimeZone = 'UTC'")
        began = time.perf_counter()
        connection.execute(self.views)
        return connection, (time.perf_counter() - began) * 1000

    def ask(self, query):
        """(ms, ms of CPU, rows, ms of making the views)"""
        connection, views = self.connect()
        timer = threading.Timer(LIMIT, connection.interrupt)
        timer.start()
        began, cpu = time.perf_counter(), cpu_ms(resource.RUSAGE_SELF)
        try:
            rows = connection.sql(query).to_arrow_table()
        finally:
            timer.cancel()
            took, cpu = (time.perf_counter() - began) * 1000, cpu_ms(resource.RUSAGE_SELF) - cpu
            connection.close()
        return took, cpu, len(rows), views


def for_duckdb(query):
    """In DuckDB's words; None where its views have no such table."""
    if "live_" in query:
        return None
    if "vehicle_telemetry" in query:
        parts = [f'''select vehicle_id, '{s}' as sensor_type, "at", {s} as value from readings where {s} is not null'''
                 for s in ("speed_kmh", "engine_rpm")]
        query = query.replace("vehicle_telemetry", f"({' union all '.join(parts)})").replace(" at >=", ' "at" >=')
    return query.replace("arrow_cast(payload, 'LargeBinary')", "payload")


def files_of(query, status):
    """Files of the tables that a query names."""
    names = [n.removesuffix("_log") for n in re.findall(r"(?:from|join) (\w+)", query)]
    names = [n for n in names for n in (["readings"] * 2 if n == "vehicle_telemetry" else [n])]
    return sum(status.get(n, (0,))[0] for n in names)


def attempt(ask, *arguments):
    """What it answers; None when it takes too long or fails, with the reason printed."""
    try:
        return ask(*arguments)
    except subprocess.TimeoutExpired:
        return None
    except subprocess.CalledProcessError as error:
        print(f"sql: {error.stderr.strip()}", flush=True)
    except duckdb.Error as error:
        if "interrupt" not in str(error).lower():
            print(f"DuckDB: {error}", flush=True)
    return None


def rounds(ask, other, count):
    """Asks both in turn: by system, the answers."""
    answers, over = ([], []), set()
    for _ in range(count):
        for i, (asked, query) in enumerate((ask, other)):
            answer = attempt(asked, *query) if query and i not in over else None
            if answer:
                answers[i].append(answer)
            if not answer or answer[0] > 10_000:
                # Once is enough.
                over.add(i)
    return answers


def measure(program, data, status, args):
    """Prints the table; returns the medians of `sql` by query."""
    line = (data / "manifest" / "g1.jsonl").read_text().splitlines()[-1]
    newest = max(d for d in re.findall(r"windows_log/date=([\d-]+)", line))
    day = FIRST.fromisoformat(newest)
    days = (day - FIRST).days + 1
    epochs = (json.loads(line[9:])["history_epoch"] + 1) // days
    drivetrain, duck = Drivetrain(program, data), Duck(program, data)
    print("| query | rows | sql, ms | DuckDB, ms | CPU: sql, ms | DuckDB, ms | files left by day | row groups by statistics "
          "| by Bloom filter | rows by page index |\n|---|---|---|---|---|---|---|---|---|---|", flush=True)
    medians, views, notes = {}, [], []
    for name, query in queries(day).items():
        if args.only and not any(part in name for part in args.only):
            continue
        epoch = (days - 1) * epochs - 1 if "as of" in name and days > 1 else None
        other = for_duckdb(query)
        if epoch:
            other = f"select count(*) from (select * exclude (epoch, diff, date) from trips_log where epoch <= {epoch} " \
                    "group by all having sum(diff) > 0)"
        answers = rounds((drivetrain.ask, (query, epoch)), (duck.ask, other and (other,)), args.rounds)
        counts = [{a[2] for a in of} for of in answers]
        if all(counts) and counts[0] != counts[1]:
            notes.append(f"NOT THE SAME: {name}: {counts[0]} rows, DuckDB {counts[1]}")
        views += [a[3] for a in answers[1]]
        middle = [statistics.median(a[i] for a in of) if of else None for i in (0, 1) for of in answers]
        medians[name] = middle[0]
        pruned = attempt(drivetrain.pruned, query, epoch, files_of(query, status)) if middle[0] else None
        shown = [f"{m:,.0f}" if m else "-" for m in middle]
        count = next((n for of in counts for n in of), "over a minute")
        print(f"| {name} | {count} | {' | '.join(shown)} | {' | '.join(pruned or ['-'] * 4)} |", flush=True)
    if views:
        print(f"\nDuckDB's views: {statistics.median(views):,.0f} ms to make")
    print("\n".join(notes), flush=True)
    return medians


def size(status):
    files, _, bytes_ = map(sum, zip(*status.values()))
    return f"{status['windows'][1]:,} windows, {status['trips'][1]:,} rows of trips; {files:,} files, {bytes_ / 1e6:,.0f} MB"


def status_of(program, data):
    """By table: files, rows, bytes."""
    text = subprocess.run([program, "compact", "--data", str(data), "--status"], check=True, capture_output=True, text=True).stdout
    found = re.findall(r"^(\w+) +(\d+) +(\d+) +(\d+)$", text, flags=re.M)
    return {name: tuple(map(int, numbers)) for name, *numbers in found}


def main():
    args = arguments()
    data, results = args.directory / "data", {}

    def stage(title):
        status = status_of(args.drivetrain, data)
        print(f"\n## {title}: {size(status)}\n", flush=True)
        print(", ".join(f"{t} {n[0]:,} files {n[2] / 1e6:,.1f} MB" for t, n in status.items()) + "\n")
        results[title] = measure(args.drivetrain, data, status, args)

    args.directory.mkdir(parents=True, exist_ok=True)
    history = History(args.drivetrain, args.directory, args.vehicles, args.minutes)
    for days in (d for d in args.days if d >= history.days):
        began = time.perf_counter()
        while history.days < days:
            history.grow(readings=history.days + 1 == days)
        grown = time.perf_counter() - began
        history.compact()
        print(f"\n{days} days: {grown:.0f} s to make, {time.perf_counter() - began - grown:.0f} s to compact")
        stage(f"{days} days")
    if args.files:
        history.grow(files=args.files)
        stage(f"and a day in {args.files} files")
    print("\n## growth: median of sql, ms\n\n| query | " + " | ".join(results) + " |\n|" + "---|" * (len(results) + 1))
    for name in next(iter(results.values())):
        print(f"| {name} | " + " | ".join(f"{r[name]:,.0f}" if r[name] else "-" for r in results.values()) + " |")


main()
