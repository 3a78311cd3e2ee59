"""What other tools read: DuckDB and pyarrow from the history, confluent-kafka from the topics. Prints JSON."""

import json
import pathlib
import sys

import duckdb
import pyarrow.compute as pc
import pyarrow.dataset as ds
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

data, brokers = pathlib.Path(sys.argv[1]), sys.argv[2]
measures = {"trips": "duration_s", "windows": "count"}
said = {"duckdb": {}, "pyarrow": {}}

connection = duckdb.connect()
for table, measure in measures.items():
    files = f"{data}/history/{table}_log/**/*.parquet"
    query = f'select count(*), sum(diff), sum(diff * "{measure}") from read_parquet(\'{files}\')'
    said["duckdb"][table] = [float(v) for v in connection.execute(query).fetchone()]
    columns = ds.dataset(f"{data}/history/{table}_log", partitioning="hive").to_table(columns=["diff", measure])
    product = pc.multiply(pc.cast(columns["diff"], "double"), pc.cast(columns[measure], "double"))
    said["pyarrow"][table] = [columns.num_rows, pc.sum(columns["diff"]).as_py(), pc.sum(product).as_py()]

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
