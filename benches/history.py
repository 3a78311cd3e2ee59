"""A long history made from a short one, for the benches of queries.

A short one is real: `drivetrain simulate` and `replay`. Each further day is the same rows with their times, ids and epochs
moved on, written as the job's own writer writes (row groups, order, encodings, compression, statistics, Bloom filters), and
published by a line of the manifest. `drivetrain compact` then does with them what it does with a job's.
"""

import json
import shutil
import subprocess
import zlib
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

CONFIG = Path(__file__).parent.parent / "configs" / "fleet.toml"
FIRST = date(2026, 5, 1)
KEYS = {  # the text columns of the keys: they have Bloom filters
    "anomalies": ["anomaly_id"], "events": ["event_id"], "trips": ["trip_id"], "driver_scores": ["driver_id", "policy_id"],
    "fleet_aggregates": ["fleet_id"], "quality": ["vehicle_id", "signal"], "readings": ["vehicle_id"],
    "rejects": ["origin"], "windows": ["vehicle_id", "signal", "resolution"],
}
# Ids in which the day stands; and a table's own that end with the instant (µs) at which something began.
DATED, INSTANT = ["trip_id", "event_id"], {"events": "event_id", "anomalies": "anomaly_id"}
# Not by day: a day's first rows retract what the day before has left.
STATES = ["driver_scores", "fleet_aggregates"]


def day_of(number):
    return FIRST + timedelta(days=number)


class History:
    """The data directory; `grow` adds days. One that is there already goes on where it ended."""

    def __init__(self, drivetrain, directory, vehicles, minutes):
        self.drivetrain, self.data, self.base, self.minutes = drivetrain, directory / "data", directory / "base", minutes
        begins = not self.data.exists()
        if begins:
            records = directory / "records.jsonl.zst"
            self.call("simulate", "--vehicles", vehicles, "--for", f"{minutes}m", "--faults", "--broken", "0.1%",
                      "--out", records)
            self.call("replay", "--config", CONFIG, "--data", self.base, records)
            records.unlink()
        lines = [json.loads(line[9:]) for line in (self.base / "manifest" / "g1.jsonl").read_text().splitlines()]
        # Records without a readable time, or with a wrong one, lie in days of their own: those of rejects are moved.
        self.files = [f for line in lines for f in line["files"]
                      if "date=" not in f["path"] or str(FIRST) in f["path"] or f["table"] == "rejects"]
        self.epochs, self.format = lines[-1]["committed_epoch"] + 1, lines[-1]["format"]
        self.ends = {t: self.final(t) for t in STATES}
        if not begins:
            # Its first line is the beginning, each further one a day.
            self.days = len((self.data / "manifest" / "g1.jsonl").read_text().splitlines()) - 1
            self.sequence = 1_000_000 * self.days
            return
        self.days, self.sequence = 0, 1000
        for name in ("manifest", "bindings"):
            (self.data / name).mkdir(parents=True)
        for name in ("catalogue.json", "drivetrain.json"):
            (self.data / name).write_bytes((self.base / name).read_bytes())
        shutil.copytree(self.base / "live", self.data / "live")
        self.publish([], -1)

    def call(self, *arguments):
        subprocess.run([self.drivetrain, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    def publish(self, files, epoch):
        """A line of the manifest. The checksums are left empty, which is allowed: nothing checks them then."""
        text = json.dumps({"format": self.format, "generation": 1, "commit": self.days, "committed_epoch": epoch,
                           "history_epoch": epoch, "files": files, "end": False}, separators=(",", ":"))
        with open(self.data / "manifest" / "g1.jsonl", "a") as manifest:
            manifest.write(f"{zlib.crc32(text.encode()):08x} {text}\n")

    def final(self, table):
        """A table's rows at the end of a day, as retractions at its beginning."""
        rows = pa.concat_tables(pq.read_table(self.base / f["path"], partitioning=None)
                                for f in self.files if f["table"] == table)
        names = [n for n in rows.column_names if n not in ("epoch", "diff")]
        left = rows.group_by(names).aggregate([("diff", "sum")]).filter(pc.field("diff_sum") > 0)
        left = left.select(names).append_column("epoch", pa.array([0] * len(left), pa.int64()))
        left = left.append_column("diff", pa.array([-1] * len(left), pa.int64()))
        return left.select(rows.column_names).cast(rows.schema).sort_by([(k, "ascending") for k in KEYS[table]])

    def moved(self, rows, number, table):
        """The rows of the first day as those of another. The order of the keys stays."""
        fields = {f.name: i for i, f in enumerate(rows.schema)}

        def put(name, values):
            return rows.set_column(fields[name], rows.schema.field(name), values.cast(rows.schema.field(name).type))

        for name, i in fields.items():
            if pa.types.is_timestamp(rows.schema.field(i).type):
                values = rows.column(i)
                if table == "rejects":
                    noon = datetime(FIRST.year, FIRST.month, FIRST.day, 12, tzinfo=timezone.utc)
                    values = pc.fill_null(values, pa.scalar(noon, values.type))
                rows = put(name, pc.add(values, pa.scalar(timedelta(days=number), pa.duration("us"))))
        for name in (n for n in DATED if n in fields):
            rows = put(name, pc.replace_substring(rows.column(name), str(FIRST), str(day_of(number))))
        if name := INSTANT.get(table):
            stem = pc.replace_substring_regex(rows.column(name), r":\d+$", "")
            instant = rows.column("started_at").cast(pa.int64()).cast(pa.string())
            rows = put(name, pc.binary_join_element_wise(stem.cast(pa.string()), instant, ":"))
        if table == "rejects":
            rows = put("position", pc.add(rows.column("position"), number * 10**9))
        return put("epoch", pc.add(rows.column("epoch"), number * self.epochs))

    def writer(self, table, path, schema, sorting):
        """As `properties` in sinks/src/history/file.rs says."""
        plain = {f.name for f in schema if pa.types.is_timestamp(f.type)} | {"epoch"}
        wide = {f.name for f in schema if pa.types.is_floating(f.type) or pa.types.is_binary(f.type)}
        dictionary = [n for n in schema.names if n not in plain | wide and not pa.types.is_boolean(schema.field(n).type)]
        return pq.ParquetWriter(
            path, schema, compression="zstd", compression_level=1 if table in ("windows", "readings") else 3,
            use_dictionary=dictionary, column_encoding={n: "DELTA_BINARY_PACKED" for n in plain}, write_page_index=True,
            data_page_size=1 << 20, max_rows_per_page=20_000, sorting_columns=sorting,
            bloom_filter_options={n: {"ndv": 20_000, "fpp": 0.01} for n in KEYS[table]})

    def write(self, table, number, groups, sorting):
        """One file of these row groups; its entry of the manifest."""
        place = f"history/{table}_log" if table in STATES else f"history/{table}_log/date={day_of(number)}"
        (self.data / place).mkdir(parents=True, exist_ok=True)
        low = min(pc.min(g.column("epoch")).as_py() for g in groups)
        high = max(pc.max(g.column("epoch")).as_py() for g in groups)
        self.sequence += 1
        path = f"{place}/g1-{low}-{high}-{self.sequence}.parquet"
        with self.writer(table, self.data / path, groups[0].schema, sorting) as file:
            for rows in groups:
                file.write_table(rows, row_group_size=len(rows))
        return {"table": table, "path": path, "rows": sum(map(len, groups)), "bytes": (self.data / path).stat().st_size,
                "retractions": sum(pc.sum(pc.less(g.column("diff"), 0)).as_py() or 0 for g in groups),
                "min_epoch": low, "max_epoch": high, "checksum": ""}

    def grow(self, readings=False, files=1):
        """Adds a day; `files`: of so many minutes a file each, as a job does that runs all day (but of `readings`)."""
        number, added = self.days, []
        for entry in self.files:
            table = entry["table"]
            if table == "intake" or table == "readings" and not readings:
                continue
            source = pq.ParquetFile(self.base / entry["path"])
            sorting = source.metadata.row_group(0).sorting_columns
            groups = [self.moved(source.read_row_group(i), number, table) for i in range(source.num_row_groups)]
            if files == 1 or table == "readings":
                added.append(self.write(table, number, groups, sorting))
            else:
                added += [self.write(table, number, [rows], sorting) for rows in self.minutes_of(groups, files, sorting)]
        for table, rows in self.ends.items() if number else ():
            sorting = pq.SortingColumn.from_ordering(rows.schema, [(k, "ascending") for k in KEYS[table]])
            added.append(self.write(table, number, [self.moved(rows, number, table)], sorting))
        if number == 0:
            for entry in self.files:
                if entry["table"] == "intake":
                    to = self.data / entry["path"]
                    to.parent.mkdir(parents=True)
                    to.write_bytes((self.base / entry["path"]).read_bytes())
                    added.append(entry)
        # The epochs are spread over the minutes that were simulated.
        begin = int(datetime(FIRST.year, FIRST.month, FIRST.day, 8, tzinfo=timezone.utc).timestamp()) + 86_400 * number
        step = self.minutes * 60_000_000 // self.epochs
        with open(self.data / "bindings" / "g1.jsonl", "a") as bindings:
            for e in range(self.epochs):
                bindings.write(f'{{"epoch":{number * self.epochs + e},"wall":{begin * 1_000_000 + e * step},'
                               f'"bindings":[],"idle":[],"end":false}}\n')
        self.days += 1
        self.publish(added, self.days * self.epochs - 1)

    def minutes_of(self, groups, files, sorting):
        """So many files, by epoch; each epoch's rows are dealt out, so that each file has rows of all vehicles."""
        rows = pa.concat_tables(groups)
        rows = rows.sort_by([(rows.column_names[s.column_index], "ascending") for s in sorting])
        pieces = max(1, files // self.epochs)
        for epoch in sorted(pc.unique(rows.column("epoch")).to_pylist()):
            of_epoch = rows.filter(pc.field("epoch") == epoch)
            for piece in range(min(pieces, len(of_epoch))):
                yield of_epoch.take(pa.array(range(piece, len(of_epoch), pieces), pa.int64()))

    def compact(self):
        self.call("compact", "--config", CONFIG, "--data", self.data, "--grace", "0s", "--wait")
