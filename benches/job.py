"""What the benches of a running job share: its configuration, its process, and where it stands."""

import os
import re
import subprocess
import time
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition

REFERENCE = Path(__file__).parent.parent / "configs" / "fleet.toml"


class Job:
    """`drivetrain run` with the reference configuration, on topics of its own; `fields` are set to other values."""

    environment = {}  # more than the brokers

    def __init__(self, drivetrain, brokers, name, directory, **fields):
        self.drivetrain, self.brokers, self.name, self.directory = drivetrain, brokers, name, Path(directory)
        self.topic = f"{name}-readings"
        fields = {"name": f'"{name}"', "topic_prefix": f'"{name}."', "topics": f'["{self.topic}"]'} | fields
        text = REFERENCE.read_text()
        for field, value in fields.items():
            text, found = re.subn(rf"^{field} = .*", f"{field} = {value}", text, count=1, flags=re.M)
            assert found, field
        self.config, self.log = self.directory / "job.toml", self.directory / "log"
        self.config.write_text(text)
        self.data = self.directory / "data"

    def start(self):
        env = {**os.environ, "DRIVETRAIN_KAFKA__BROKERS": self.brokers, **self.environment}
        command = [self.drivetrain, "run", "--workers", "2", "--config", self.config, "--data", self.data]
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL, env=env)

    def end(self, how):
        self.process.send_signal(how)
        return self.process.wait()

    def check(self):
        if self.process.poll() is not None:
            raise SystemExit(f"the job ended with code {self.process.returncode}:\n{self.log.read_text()}")

    def memory(self, what="VmRSS"):
        """MB resident now, or (VmHWM) at most so far."""
        found = re.search(rf"{what}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text())
        if found is None:
            # It has just ended.
            self.process.wait()
            self.check()
        return int(found[1]) // 1024

    def behind(self, consumer):
        """How many records there are that the job has not committed. A broker with much to do is asked again."""
        until = time.monotonic() + 60
        while True:
            try:
                return self.ask_behind(consumer)
            except KafkaException:
                # The group has no coordinator yet, or the partition no leader.
                if time.monotonic() > until:
                    raise
                time.sleep(0.2)

    def ask_behind(self, consumer):
        ids = consumer.list_topics(self.topic, timeout=30).topics[self.topic].partitions
        places = [TopicPartition(self.topic, p) for p in ids]
        ends = {p.partition: consumer.get_watermark_offsets(p, timeout=30)[1] for p in places}
        return sum(ends[p.partition] - max(0, p.offset) for p in consumer.committed(places, timeout=30))

    def wait_read(self):
        consumer = Consumer({"bootstrap.servers": self.brokers, "group.id": self.name})
        while self.behind(consumer) > 0:
            self.check()
            time.sleep(0.2)
        consumer.close()
