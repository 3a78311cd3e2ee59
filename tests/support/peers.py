"""What other tools read: DuckDB and pyarrow from the history, confluent-kafka from the topics. Prints JSON."""

import json
import pathlib
import sys

import duckdb
import pyarrow.compute as pc
import pyarrow.dataset as ds
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

data, views, brokers = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
measures = {"trips": "duration_s", "windows": "count", "readings": "1"}
said = {"duckdb": {}, "pyarrow": {}}

connection = duckdb.connect()
for table, measure in measures.items():
    files = f"{data}/history/{table}_log/**/*.parquet"
    query = f'select count(*), sum(diff), sum(diff * "{measure}")' if measure != "1" else "select count(*), sum(diff), 0"
    said["duckdb"][table] = [float(v) for v in connection.execute(f"{query} from read_parquet('{files}')").fetchone()]
    if measure != "1":
        columns = ds.dataset(f"{data}/history/{table}_log", partitioning="hive").to_table(columns=["diff", measure])
        product = pc.multiply(pc.cast(columns["diff"], "double"), pc.cast(columns[measure], "double"))
        said["pyarrow"][table] = [columns.num_rows, pc.sum(columns["diff"]).as_py(), pc.sum(product).as_py()]

connection.execute(views.read_text())
said["views"] = ",".join(str(v) for v in connection.execute("select count(*), sum(trips) from driver_scores").fetchone())

settings = {"bootstrap.servers": brokers, "group.id": "peers", "isolation.level": "read_committed", "enable.partition.eof": True}
consumer = Consumer(settings)
partitions = consumer.list_topics("driver_scores").topics["driver_scores"].partitions
consumer.assign([TopicPartition("driver_scores", p, OFFSET_BEGINNING) for p in partitions])
latest, waiting = {}, len(partitions)
while waiting:
    message = consumer.poll(10)
    if message is None:
        sys.exit("confluent-kafka: no answer")
    if message.error():
        if message.error().code() != KafkaError._PARTITION_EOF:
            sys.exit(str(message.error()))
        waiting -= 1
    elif message.value() is None:
        latest.pop(message.key(), None)
    else:
        latest[message.key()] = json.loads(message.value())
consumer.close()
said["confluent"] = len(latest)
print(json.dumps(said))
