"""Medians as a table, JSON and a chart."""

import json
import statistics

NAMES = {"drain": "bare drain", "flink": "Flink", "streams": "Kafka Streams", "drivetrain": "drivetrain",
         "everything": "drivetrain, everything on"}
COLOURS = {"drain": "#9aa0a6", "flink": "#e6526f", "streams": "#c98a1b", "drivetrain": "#2a78d6", "everything": "#1b4e8c"}


def summary(runs, records):
    """{system: {measure: {"median": …, "min": …, "max": …}}} of {system: [Run]}."""
    measures = {
        "records_per_s": lambda run: records / run.seconds,
        "records_per_cpu_s": lambda run: records / run.cpu,
        "seconds": lambda run: run.seconds,
        "seconds_from_start": lambda run: run.done - run.started,
        "cpu_s": lambda run: run.cpu,
        "cpu_s_from_start": lambda run: run.cpu_total,
        "broker_cpu_s": lambda run: run.broker_cpu,
        "others_cpu_s": lambda run: run.others_cpu,
        "peak_bytes": lambda run: run.peak,
    }
    spread = lambda values: {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {
        system: {name: spread([of(run) for run in some]) for name, of in measures.items()} | {"written": some[-1].written}
        for system, some in runs.items() if some
    }


def ratios(summed, measure):
    """Of each system against the better peer and against the drain; None where there is nothing to compare with."""
    value = lambda system: summed[system][measure]["median"]
    peers = [value(system) for system in ("flink", "streams") if system in summed]
    against = lambda system, base: value(system) / base if base else None
    drain = value("drain") if "drain" in summed else None
    return {system: (against(system, max(peers, default=None)), against(system, drain)) for system in summed}


def table(summed):
    head = ["", "records/s", "min-max", "× peer", "of drain", "records/CPU-s", "× peer", "of drain", "s from start", "others' CPU-s", "peak MB", "written"]
    rate, cpu = ratios(summed, "records_per_s"), ratios(summed, "records_per_cpu_s")
    rows = []
    for system, m in summed.items():
        million = lambda v: f"{v / 1e6:.2f}M"
        of = lambda pair: [f"{pair[0]:.2f}" if pair[0] else "", f"{pair[1]:.0%}" if pair[1] else ""]
        r, c = m["records_per_s"], m["records_per_cpu_s"]
        spread = f"{r['min'] / 1e6:.2f}-{r['max'] / 1e6:.2f}M"
        written = ", ".join(f"{n:,} {kind}" for kind, n in m["written"].items() if system != "drain")
        rows.append([NAMES[system], million(r["median"]), spread, *of(rate[system]), million(c["median"]), *of(cpu[system]),
                     f"{m['seconds_from_start']['median']:.1f}", f"{m['others_cpu_s']['median']:.1f}",
                     f"{m['peak_bytes']['median'] / 1e6:.0f}", written])
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def write(directory, setting, runs, summed):
    directory.mkdir(parents=True, exist_ok=True)
    plain = lambda run: {k: v for k, v in vars(run).items() if k not in ("scores", "windows")}
    document = {
        "setting": setting,
        "summary": summed,
        "ratios": {m: ratios(summed, m) for m in ("records_per_s", "records_per_cpu_s")},
        "rounds": {system: [plain(run) for run in some] for system, some in runs.items()},
    }
    (directory / "compare.json").write_text(json.dumps(document, indent=1) + "\n")
    (directory / "compare.svg").write_text(chart(setting, summed))


def title(summed):
    more = "; drivetrain also with everything on" if "everything" in summed else ""
    return f"The same job, Kafka to Kafka, exactly once{more}"


def chart(setting, summed):
    """Two groups of bars: records/s, and records per CPU-second; a thin line is the spread."""
    width, left, bar, top = 760, 190, 26, 70
    groups = [("records/s", "records_per_s"), ("records per CPU-second", "records_per_cpu_s")]
    height = top + len(groups) * (len(summed) * bar + 50) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="16" y="26" font-size="16">{title(summed)}</text>',
        f'<text x="16" y="46" fill="#666">{setting["what"]}</text>',
    ]
    y = top
    for heading, measure in groups:
        largest = max(m[measure]["max"] for m in summed.values())
        x = lambda value: left + value / largest * (width - left - 90)
        parts.append(f'<text x="16" y="{y + 10}" font-weight="bold">{heading}</text>')
        y += 20
        for system, m in summed.items():
            v = m[measure]
            middle = y + bar / 2
            parts += [
                f'<text x="{left - 8}" y="{middle + 4}" text-anchor="end">{NAMES[system]}</text>',
                f'<rect x="{left}" y="{y + 3}" width="{x(v["median"]) - left:.1f}" height="{bar - 6}" fill="{COLOURS[system]}"/>',
                f'<line x1="{x(v["min"]):.1f}" x2="{x(v["max"]):.1f}" y1="{middle}" y2="{middle}" stroke="#222"/>',
                f'<text x="{x(v["max"]) + 8:.1f}" y="{middle + 4}">{v["median"] / 1e6:.2f}M</text>',
            ]
            y += bar
        y += 30
    return "\n".join([*parts, "</svg>", ""])
