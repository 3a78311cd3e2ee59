"""What was measured, as Markdown and as curves."""

from curves import Line, Panel, svg

NAMES = {"compare": "job of the comparison", "fleet": "configs/fleet.toml", "one-trip": "comparison, one trip a vehicle",
         "sealed": "comparison, trips sealed after 10 min"}
COLOURS = {"compare": "#2a78d6", "fleet": "#1b7f4b", "one-trip": "#c98a1b", "sealed": "#8a5bd6"}
FAR = 10_000_000  # keys that nobody has measured


def expected(points, far=FAR):
    """At `far` keys, by the line through the last two of [(keys, figure)]; None with fewer, or when it falls."""
    if len(points) < 2 or points[-1][0] < 100_000:
        return None
    (a, y), (b, z) = points[-2:]
    return z + (far - b) * (z - y) / (b - a) if z > y else None


def by_number(found, part):
    """{job: [(number, figures)]} of "job/number"."""
    sorted_ = {}
    for key, figures in found.get(part, {}).items():
        job, number = key.split("/")
        sorted_.setdefault(job, []).append((int(number), figures))
    return {job: sorted(rows, key=lambda row: row[0]) for job, rows in sorted(sorted_.items())}


def table(head, rows):
    line = lambda cells: "| " + " | ".join(map(str, cells)) + " |"
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)]) + "\n"


def million(value):
    return f"{value / 1e6:.2f}M"


def spread(run):
    rates = run.get("rates", [])
    return f"{min(rates) / 1e6:.2f}-{max(rates) / 1e6:.2f}M" if len(rates) > 1 else ""


def points(rows, measure):
    return [(n, figures[measure]) for n, figures in rows if figures.get("fits", True) and measure in figures]


def replayed(found, part, what):
    """Table and the lines of two panels and memory."""
    rows, lines = [], {"records_per_s": [], "records_per_cpu_s": [], "peak_mb": []}
    for job, runs in by_number(found, part).items():
        for n, run in runs:
            if run["fits"]:
                rows.append([NAMES[job], f"{n:,}", f"{run['records']:,}", million(run["records_per_s"]), spread(run),
                             million(run["records_per_cpu_s"]), f"{run['others_cpu_s']:.1f}", f"{run['peak_mb']:,.0f}"])
            else:
                rows.append([NAMES[job], f"{n:,}", f"{run['records']:,}", "did not fit", "", "", "", f"> {run['peak_mb']:,.0f}"])
        for measure, some in lines.items():
            if points(runs, measure):
                line = Line(NAMES[job], COLOURS[job], points(runs, measure))
                far = expected(line.points) if part == "keys" and measure == "peak_mb" else None
                line.expected = [(FAR, far)] if far else []
                some.append(line)
                if far:
                    rows.append([NAMES[job], f"{FAR:,} (extrapolated)", "", "", "", "", "", f"{far:,.0f}"])
    head = ["job", what, "readings", "records/s", "min-max", "records/CPU-s", "others' CPU-s", "peak MB"]
    return table(head, rows) if rows else "", lines


RUNNING = [  # measure, title of its column, how it is written, whether it is extrapolated
    ("steady_mb", "memory, MB", "{:,.0f}", True),
    ("peak_mb", "peak MB", "{:,.0f}", True),
    ("checkpoint_mb", "checkpoint, MB", "{:,.1f}", True),
    ("clean_s", "new output after a stop, s", "{:.1f}", True),
    ("killed_s", "after a kill, s", "{:.1f}", True),
    ("p50_ms", "p50, ms", "{:.0f}", False),
    ("p99_ms", "p99, ms", "{:.0f}", False),
    ("max_ms", "max, ms", "{:.0f}", False),
    ("probes", "probes", "{:,}", False),
]


def running(found):
    runs = sorted((int(n), figures) for n, figures in found.get("running", {}).items())
    rows = [[f"{n:,}", r["readings_per_vehicle"], *(form.format(r[m]) if m in r else "did not fit" for m, _, form, _ in RUNNING)]
            for n, r in runs]
    far = {m: expected(points(runs, m)) for m, _, _, wanted in RUNNING if wanted}
    if any(far.values()):
        cells = [form.format(far[m]) if far.get(m) else "" for m, _, form, _ in RUNNING]
        rows.append([f"{FAR:,} (extrapolated)", "", *cells])
    line = lambda m, name, colour: Line(name, colour, points(runs, m), [(FAR, far[m])] if far.get(m) else [])
    return (table(["vehicles", "s of event time before", *(title for _, title, _, _ in RUNNING)], rows) if rows else ""), line


def long(found, part):
    """Memory at each fifth of the way, and MB more for each 10M readings, from a fifth on (least squares)."""
    rows, memory = [], []
    for job, run in sorted(found.get(part, {}).items()):
        samples, end = run["samples"], run["records"]
        at = lambda share: min(samples, key=lambda s: abs(s[0] - share * end))
        later = [s for s in samples if s[0] >= end / 5]
        rows.append([NAMES[job], f"{end:,}", f"{run['trips']:,}" if run.get("trips") else "",
                     *(f"{at(n / 10)[1]:,.0f}" for n in (1, 2, 4, 6, 8, 10)), f"{slope(later) * 1e7:+.1f}",
                     f"{run['peak_mb']:,.0f}", f"{samples[-1][2]:,.0f}", million(run["records_per_s"])])
        memory.append(Line(NAMES[job], COLOURS[job], [(s[0], s[1]) for s in samples if s[1] > 0]))
    head = ["job", "readings", "trips", *(f"MB at {n}0 %" for n in (1, 2, 4, 6, 8, 10)),
            "MB more for 10M readings, from 20 % on", "peak MB", "disk at the end, MB", "records/s"]
    return (table(head, rows) if rows else ""), memory


def slope(samples):
    """MB a reading: least squares."""
    n = len(samples)
    mean = lambda k: sum(s[k] for s in samples) / n
    x, y = mean(0), mean(1)
    below = sum((s[0] - x) ** 2 for s in samples)
    return sum((s[0] - x) * (s[1] - y) for s in samples) / below if below else 0


def write(found):
    """(Markdown, SVG or None)"""
    keys, key_lines = replayed(found, "keys", "vehicles")
    workers, worker_lines = replayed(found, "workers", "workers")
    live, line = running(found)
    going, memory = long(found, "long")
    kafka, kafka_memory = long(found, "long-running")
    log = (True, False)
    panels = [
        Panel("replay: records/s", "vehicles", key_lines["records_per_s"], log),
        Panel("replay: records per CPU-second", "vehicles", key_lines["records_per_cpu_s"], log),
        Panel("replay: peak memory, MB", "vehicles", key_lines["peak_mb"], (True, True)),
        Panel("run: memory, MB", "vehicles", [line("steady_mb", "steady", "#1b7f4b"), line("peak_mb", "peak", "#c98a1b")], (True, True)),
        Panel("run: checkpoint, MB", "vehicles", [line("checkpoint_mb", "", "#1b7f4b")], (True, True)),
        Panel("run: start to new output, s", "vehicles",
              [line("clean_s", "after a stop", "#1b7f4b"), line("killed_s", "after a kill", "#e6526f")], (True, True)),
        Panel("run: produced to readable, ms", "vehicles", [line("p50_ms", "p50", "#1b7f4b"), line("p99_ms", "p99", "#c98a1b")], log),
        Panel("replay: records/s of 10,000 vehicles", "workers (2 cores)", worker_lines["records_per_s"]),
        Panel("replay: records per CPU-second", "workers", worker_lines["records_per_cpu_s"]),
        Panel("replay: memory, MB, as readings go by", "readings of 10,000 vehicles", memory),
        Panel("run: memory, MB, as readings go by", "readings of 10,000 vehicles", kafka_memory),
    ]
    for panel in panels:
        panel.lines = [line for line in panel.lines if line.points]
    panels = [panel for panel in panels if panel.lines]
    cores = found.get("machine", {}).get("cores", "?")
    sections = [("By vehicles: `replay` of a file, two workers", keys), ("By workers: the same, 10,000 vehicles", workers),
                ("By vehicles: `run` on Kafka, two workers, configs/fleet.toml", live),
                ("By readings: `replay` from a pipe, `simulate` beside it", going),
                ("By readings: `run` on Kafka, of a topic that is there", kafka)]
    text = "\n".join(f"### {title}\n\n{body}" for title, body in sections if body)
    return text, svg("Growth", f"{cores} cores; dashed: extrapolated", panels) if panels else None
