"""A real Kafka of our own, from its jars, as tests/support/kafka.rs starts it; and what is asked of it."""

import json
import os
import pathlib
import socket
import subprocess
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "drivetrain"
VERSION = "4.1.0"

PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
log.dirs={logs}
num.partitions=4
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.segment.delete.delay.ms=1000
# A machine that writes much lets the broker's heartbeat to itself wait; then it has no leaders, after 9 s by default.
broker.session.timeout.ms=60000
"""


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def jars():
    """Fetched once, into the cache that the tests use too."""
    directory = CACHE / f"kafka-{VERSION}"
    if not (directory / ".complete").exists():
        pom = REPOSITORY / "tests/support/kafka/pom.xml"
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={directory}"]
        subprocess.run(["mvn", "-q", "-B", "-f", pom, *copy], check=True)
        (directory / ".complete").touch()
    return directory


class Broker:
    """Runs until `stop`."""

    def __init__(self, directory):
        directory.mkdir(parents=True)
        port, controller = free_ports(2)
        self.address = f"127.0.0.1:{port}"
        properties = directory / "server.properties"
        properties.write_text(PROPERTIES.format(port=port, controller=controller, logs=directory / "logs"))
        java = ["java", "-cp", f"{jars()}/*"]
        storage = ["kafka.tools.StorageTool", "format", "-t", "3Db5QLSqSZieL3rJBUUegA", "-c", properties]
        subprocess.run([*java, *storage], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(directory / "kafka.log", "w") as log:
            self.process = subprocess.Popen([*java, "-Xmx1g", "kafka.Kafka", properties], stdout=log, stderr=log)
        deadline = time.monotonic() + 60
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise SystemExit(f"Kafka did not start; see {directory / 'kafka.log'}")
            time.sleep(0.1)
        self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 2})

    def create(self, *names, partitions=4):
        """Topics that lose nothing to retention: the readings' times are not today's."""
        topics = [NewTopic(name, partitions, 1, config={"retention.ms": "-1"}) for name in names]
        deadline = time.monotonic() + 60
        while True:
            try:
                for future in self.admin.create_topics(topics).values():
                    future.result(30)
                return
            except KafkaException as problem:
                # A broker that a loaded machine has starved is fenced for a moment.
                if problem.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                    return
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)

    def delete_all_but(self, kept):
        """What a run has written, so that the disk does not fill."""
        topics = [t for t in self.admin.list_topics(timeout=30).topics if t != kept and not t.startswith("__")]
        for future in (self.admin.delete_topics(topics) if topics else {}).values():
            future.result(30)

    def consumer(self, group):
        """Read committed, and told of each partition's end."""
        return Consumer({
            "bootstrap.servers": self.address,
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
            "log_level": 2,
        })

    def partitions(self, topic):
        # Asking for a topic by its name would create it.
        found = self.admin.list_topics(timeout=30).topics.get(topic)
        return sorted(found.partitions) if found else []

    def read_all(self, topic):
        """Each (key, document) of a topic, in each partition's order."""
        consumer = self.consumer("reader")
        partitions = self.partitions(topic)
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
        ended = set()
        while len(ended) < len(partitions):
            batch = consumer.consume(10_000, timeout=30)
            if not batch:
                raise SystemExit(f"{topic}: no answer within 30 s")
            for message in batch:
                if not message.error():
                    value = message.value()
                    yield message.key().decode(), None if value is None else json.loads(value)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                else:
                    raise SystemExit(f"{topic}: {message.error()}")
        consumer.close()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
