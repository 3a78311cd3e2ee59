"""`drivetrain replay`, measured: of a file, or of a pipe without an end in sight."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import time

from measure import await_quiet, busy

BENCHES = pathlib.Path(__file__).resolve().parent.parent
COMPARE, REFERENCE = BENCHES / "compare/compare.toml", BENCHES.parent / "configs/fleet.toml"
# Configuration, and fields of it that are set to other values.
JOBS = {
    "compare": (COMPARE, {}),
    "fleet": (REFERENCE, {}),
    # To tell what grows with trips from what grows with readings.
    "one-trip": (COMPARE, {"DRIVETRAIN_SOURCES__TELEMETRY__FIELDS__TRIP": "=all", "DRIVETRAIN_TRIP__ID_UNIQUE": "false"}),
    # Trips leave memory after some minutes of event time.
    "sealed": (COMPARE, {"DRIVETRAIN_FACTS__RETENTION": "10m"}),
}
PER_VEHICLE = 10  # readings, at least
# Of a vehicle's seconds, it drives a little less in: 0.86 at first, 0.84 later.
DRIVING = 0.83
PAGE = os.sysconf("SC_PAGE_SIZE")


def simulate(args, keys, seconds, *options):
    return [str(args.drivetrain), "simulate", "--vehicles", str(keys), "--for", f"{seconds}s", *options]


@contextlib.contextmanager
def readings(args, keys, scratch):
    """(a file of the fleet's first readings, how many they are), deleted afterwards."""
    records = max(args.records, PER_VEHICLE * keys)
    file = scratch / f"readings-{keys}.jsonl"
    command = simulate(args, keys, int(records / keys / DRIVING) + 60, "--out", "-")
    with open(file, "wb") as output:
        simulator = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        subprocess.run(["head", "-n", str(records)], stdin=simulator.stdout, stdout=output, check=True)
        simulator.stdout.close()
        simulator.wait()
    try:
        yield file, records
    finally:
        file.unlink()


def median(args, job, file, records, workers, scratch):
    """The run with the median CPU time, and the range of rates."""
    runs = [once(args, job, file, records, workers, scratch) for _ in range(args.rounds)]
    runs.sort(key=lambda run: run.get("cpu_s", 0))
    rates = [run["records_per_s"] for run in runs if "records_per_s" in run]
    middle = runs[len(runs) // 2]
    return middle | ({"records_per_s": statistics.median(rates), "rates": rates} if rates else {})


def once(args, job, file, records, workers, scratch):
    data, log = scratch / "data", scratch / "replay.log"
    config, fields = JOBS[job]
    command = [str(args.drivetrain), "replay", "--config", str(config), "--data", str(data), "--workers", str(workers), str(file)]
    await_quiet(args.wait)
    before = busy()
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | fields)
    _, usage, fits = watch(process, args.spare_gb)
    cpu = usage.ru_utime + usage.ru_stime
    figures = {"records": records, "bytes": file.stat().st_size, "peak_mb": usage.ru_maxrss / 1e3, "fits": fits}
    shutil.rmtree(data, ignore_errors=True)
    if not fits:
        return figures
    said = re.search(r"^(\d+) records in ([\d.]+) s: (\d+) records/s", log.read_text(), re.M)
    if not said or int(said[1]) != records:
        raise SystemExit(f"growth: {job} did not read {records} records:\n{log.read_text()[-2000:]}")
    return figures | {"records_per_s": int(said[3]), "records_per_cpu_s": records / cpu, "cpu_s": cpu,
                      "others_cpu_s": max(0, busy() - before - cpu)}


def watch(process, spare_gb, every=0.5, note=lambda resident: None):
    """Waits for the end: (most MB resident that were seen, resource usage, False when it was killed for want of memory)."""
    try:
        return follow(process, spare_gb, every, note)
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def follow(process, spare_gb, every, note):
    most, fits = 0, True
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            if fits and process.returncode != 0:
                raise SystemExit(f"growth: ended with {process.returncode}: {process.args}")
            return most, usage, fits
        resident = memory(process.pid)
        most = max(most, resident)
        note(resident)
        if free() < spare_gb * 1e3:
            process.send_signal(signal.SIGKILL)
            fits = False
        time.sleep(every)


def memory(pid):
    """MB resident now; 0 when the process is gone."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6
    except (FileNotFoundError, ProcessLookupError):
        return 0


def free():
    """MB that the machine could still give."""
    return int(re.search(r"MemAvailable:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())[1]) / 1e3


def written(pid):
    """Bytes that a process has written."""
    try:
        return int(re.search(r"wchar: (\d+)", pathlib.Path(f"/proc/{pid}/io").read_text())[1])
    except (FileNotFoundError, ProcessLookupError, PermissionError, TypeError):
        return None


def size(directory):
    files = (os.path.join(top, name) for top, _, names in os.walk(directory) for name in names)
    total = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            total += os.path.getsize(file)
    return total / 1e6


def long(args, job, keys, scratch):
    """Memory while the readings go by: [[readings so far, MB resident, MB on disk], …]."""
    data, log = scratch / "data", scratch / "replay.log"
    seconds = int(args.long_records / keys / DRIVING)
    # The first four bytes are lost: the program looks at the head of a file, and cannot go back in a pipe. Empty lines are
    # passed over.
    command = "printf '\\n\\n\\n\\n'; exec " + " ".join(simulate(args, keys, seconds, "--out", "-"))
    source = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    config, fields = JOBS[job]
    fields = fields | {"DRIVETRAIN_SOURCES__TELEMETRY__FORMAT": "json", "DRIVETRAIN_HISTORY__READINGS": "none"}
    command = [str(args.drivetrain), "replay", "--config", str(config), "--data", str(data), "--workers", "2", "/dev/stdin"]
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdin=source.stdout, stdout=output, stderr=subprocess.STDOUT, env=os.environ | fields)
    source.stdout.close()
    samples, began = [], time.monotonic()

    def note(resident):
        so_far = written(source.pid)
        if so_far and source.poll() is None:
            samples.append([so_far, round(resident, 1), round(size(data), 1), round(time.monotonic() - began, 1)])

    _, usage, fits = watch(process, args.spare_gb, 1, note)
    source.wait()
    counted = [str(args.drivetrain), "sql", "--data", str(data), "--format", "csv", "select count(*) as n from trips"]
    trips = subprocess.run(counted, capture_output=True, text=True).stdout.split()[-1:]
    shutil.rmtree(data, ignore_errors=True)
    said = re.search(r"^(\d+) records in ([\d.]+) s: (\d+) records/s", log.read_text(), re.M)
    if not said or not samples:
        raise SystemExit(f"growth: {log.read_text()[-2000:]}")
    # Readings are all about as long: bytes say how many there were.
    records, total = int(said[1]), samples[-1][0]
    samples = [[round(records * done / total), *rest] for done, *rest in samples]
    return {"records": records, "keys": keys, "records_per_s": int(said[3]), "cpu_s": usage.ru_utime + usage.ru_stime,
            "peak_mb": usage.ru_maxrss / 1e3, "fits": fits, "trips": int(trips[0]) if trips else 0, "samples": samples}
