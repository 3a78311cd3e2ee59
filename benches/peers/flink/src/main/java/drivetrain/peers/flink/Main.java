package drivetrain.peers.flink;

import drivetrain.peers.Job;
import java.io.Serializable;
import java.time.Duration;
import java.util.Arrays;
import java.util.Map;
import java.util.Properties;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
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
 * (ms), directory for checkpoints; then, for the runs that measure latency, {@code unbounded} (the input has no end, and
 * records wait at most 5 ms for others of their batch instead of 100) and {@code at-least-once}.
 */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws Exception {
        String brokers = args[0];
        String topic = args[1];
        String prefix = args[2];
        boolean unbounded = Arrays.asList(args).contains("unbounded");
        DeliveryGuarantee guarantee = Arrays.asList(args).contains("at-least-once")
                ? DeliveryGuarantee.AT_LEAST_ONCE : DeliveryGuarantee.EXACTLY_ONCE;
        StreamExecutionEnvironment env = environment(Integer.parseInt(args[3]), args[4], args[5], guarantee);
        WatermarkStrategy<Keyed> watermarks =
                WatermarkStrategy.<Keyed>forBoundedOutOfOrderness(Duration.ofMillis(Job.OUT_OF_ORDER_MS))
                        .withTimestampAssigner((record, ignored) -> record.reading.at);
        DataStream<Keyed> readings =
                env.fromSource(source(brokers, topic, prefix, unbounded), watermarks, "readings").map(new Place());
        DataStreamUtils.reinterpretAsKeyedStream(readings, keyed -> keyed.key, TypeInformation.of(Key.class))
                .process(new ScoreAndWindows(prefix + "trip_scores", prefix + "windows"))
                .sinkTo(sink(brokers, prefix, guarantee, unbounded ? 5 : 100));
        env.execute("compare");
        Job.say("DONE");
    }

    private static StreamExecutionEnvironment environment(
            int parallelism, String interval, String checkpoints, DeliveryGuarantee guarantee) {
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
        boolean once = guarantee == DeliveryGuarantee.EXACTLY_ONCE;
        env.enableCheckpointing(
                Long.parseLong(interval), once ? CheckpointingMode.EXACTLY_ONCE : CheckpointingMode.AT_LEAST_ONCE);
        return env;
    }

    /** Bounded: it ends where the topic ends when the job starts, and a last checkpoint commits everything. */
    private static KafkaSource<Keyed> source(String brokers, String topic, String group, boolean unbounded) {
        KafkaSourceBuilder<Keyed> source = KafkaSource.<Keyed>builder()
                .setBootstrapServers(brokers)
                .setTopics(topic)
                .setGroupId(group + "flink")
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setDeserializer(new Decode())
                .setProperty("isolation.level", "read_committed")
                .setProperty("check.crcs", "false")
                .setProperty("max.poll.records", "10000")
                .setProperty("fetch.max.bytes", "52428800")
                .setProperty("max.partition.fetch.bytes", "10485760")
                .setProperty("receive.buffer.bytes", "1048576");
        return (unbounded ? source : source.setBounded(OffsetsInitializer.latest())).build();
    }

    private static KafkaSink<Result> sink(
            String brokers, String prefix, DeliveryGuarantee guarantee, int lingerMs) {
        Properties producer = new Properties();
        producer.setProperty("transaction.timeout.ms", "600000");
        producer.setProperty("compression.type", "lz4");
        producer.setProperty("linger.ms", String.valueOf(lingerMs));
        producer.setProperty("batch.size", "524288");
        return KafkaSink.<Result>builder()
                .setBootstrapServers(brokers)
                .setDeliveryGuarantee(guarantee)
                .setTransactionalIdPrefix(prefix + "flink")
                .setKafkaProducerConfig(producer)
                .setRecordSerializer((KafkaRecordSerializationSchema<Result> & Serializable)
                        (result, context, timestamp) -> new ProducerRecord<>(result.topic, result.key, result.value))
                .build();
    }
}
