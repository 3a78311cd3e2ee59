"""CPU time, memory and interruptions of a process, from /proc."""

import bisect
import os
import threading
import time

TICK = os.sysconf("SC_CLK_TCK")
EVERY = 0.02


def read(pid):
    """(state, CPU seconds of its threads and of its children that have ended); None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], sum(map(int, fields[11:15])) / TICK


def peak_memory(pid):
    """VmHWM in bytes, 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/status") as status:
            lines = dict(line.split(":", 1) for line in status if ":" in line)
        return int(lines.get("VmHWM", "0 kB").split()[0]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        return 0


class Watch:
    """Samples a process every 20 ms until `stop`. None of the systems compared starts another process.

    `disturbed` says that the process or the broker was stopped (SIGSTOP), or the machine stood still: such a round
    measures nothing and is repeated.
    """

    def __init__(self, pid, broker):
        self.pid, self.broker = pid, broker
        self.times, self.cpu, self.broker_cpu = [], [], []
        self.peak, self.disturbed = 0, False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        last = time.time()
        while not self._over.wait(EVERY):
            now, process, broker = time.time(), read(self.pid), read(self.broker)
            if process is None or process[0] == "Z":
                return
            self.disturbed |= process[0] == "T" or broker is None or broker[0] == "T" or now - last > 1
            self.times.append(now)
            self.cpu.append(process[1])
            self.broker_cpu.append(broker[1] if broker else 0)
            self.peak = max(self.peak, peak_memory(self.pid))
            last = now

    def stop(self):
        self._over.set()
        self._thread.join()

    def spent(self, begin, end):
        """CPU seconds (the process's, the broker's) between two wall times."""
        return tuple(at(self.times, values, end) - at(self.times, values, begin) for values in (self.cpu, self.broker_cpu))


def at(times, values, when):
    """The value at a time, between the samples beside it."""
    if not times:
        return 0
    right = bisect.bisect_left(times, when)
    if right == 0:
        return values[0]
    if right == len(times):
        return values[-1]
    share = (when - times[right - 1]) / (times[right] - times[right - 1])
    return values[right - 1] + share * (values[right] - values[right - 1])
