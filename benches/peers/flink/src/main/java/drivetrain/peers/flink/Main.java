package drivetrain.peers.flink;

import drivetrain.peers.Job;
import java.io.Serializable;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.execution.CheckpointingMode;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.datastream.DataStreamUtils;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.kafka.clients.producer.ProducerRecord;

/**
 * The job on Flink's DataStream API, in one JVM: one chain from source to sink, without a repartition, because the topic
 * is keyed by vehicle. State on the heap, checkpoints to files, object reuse, transactional sink.
 *
 * <p>Arguments: brokers, input topic, prefix of the output topics and the transactions, parallelism, checkpoint interval
 * (ms), directory for checkpoints.
 */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws Exception {
        String brokers = args[0];
        String topic = args[1];
        String prefix = args[2];
        StreamExecutionEnvironment env = environment(Integer.parseInt(args[3]), args[4], args[5]);
        WatermarkStrategy<Keyed> watermarks =
                WatermarkStrategy.<Keyed>forBoundedOutOfOrderness(Duration.ofMillis(Job.OUT_OF_ORDER_MS))
                        .withTimestampAssigner((record, ignored) -> record.reading.at);
        DataStream<Keyed> readings =
                env.fromSource(source(brokers, topic, prefix), watermarks, "readings").map(new Place());
        DataStreamUtils.reinterpretAsKeyedStream(readings, keyed -> keyed.key, TypeInformation.of(Key.class))
                .process(new ScoreAndWindows(prefix + "trip_scores", prefix + "windows"))
                .sinkTo(sink(brokers, prefix));
        env.execute("compare");
        Job.say("DONE");
    }

    private static StreamExecutionEnvironment environment(int parallelism, String interval, String checkpoints) {
        Configuration configuration = Configuration.fromMap(Map.of(
                "taskmanager.numberOfTaskSlots", String.valueOf(parallelism),
                "taskmanager.memory.managed.size", "32m",
                "taskmanager.memory.network.min", "64m",
                "taskmanager.memory.network.max", "64m",
                "pipeline.object-reuse", "true",
                "state.backend.type", "hashmap",
                "execution.checkpointing.storage", "filesystem",
                "execution.checkpointing.dir", "file://" + checkpoints));
        StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(parallelism, configuration);
        env.enableCheckpointing(Long.parseLong(interval), CheckpointingMode.EXACTLY_ONCE);
        return env;
    }

    /** Bounded: it ends where the topic ends when the job starts, and a last checkpoint commits everything. */
    private static KafkaSource<Keyed> source(String brokers, String topic, String group) {
        return KafkaSource.<Keyed>builder()
                .setBootstrapServers(brokers)
                .setTopics(topic)
                .setGroupId(group + "flink")
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setBounded(OffsetsInitializer.latest())
                .setDeserializer(new Decode())
                .setProperty("isolation.level", "read_committed")
                .setProperty("check.crcs", "false")
                .setProperty("max.poll.records", "10000")
                .setProperty("fetch.max.bytes", "52428800")
                .setProperty("max.partition.fetch.bytes", "10485760")
                .setProperty("receive.buffer.bytes", "1048576")
                .build();
    }

    private static KafkaSink<Result> sink(String brokers, String prefix) {
        Properties producer = new Properties();
        producer.setProperty("transaction.timeout.ms", "600000");
        producer.setProperty("compression.type", "lz4");
        producer.setProperty("linger.ms", "100");
        producer.setProperty("batch.size", "524288");
        return KafkaSink.<Result>builder()
                .setBootstrapServers(brokers)
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(prefix + "flink")
                .setKafkaProducerConfig(producer)
                .setRecordSerializer((KafkaRecordSerializationSchema<Result> & Serializable)
                        (result, context, timestamp) -> new ProducerRecord<>(result.topic, result.key, result.value))
                .build();
    }
}
