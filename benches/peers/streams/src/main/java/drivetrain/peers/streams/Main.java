package drivetrain.peers.streams;

import drivetrain.peers.Job;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.state.Stores;

/**
 * The job on Kafka Streams' processor API, in one JVM: no repartition, because the topic is keyed by vehicle; state in
 * memory behind the cache, with its changelog; exactly_once_v2.
 *
 * <p>Arguments: brokers, input topic, prefix of the output topics and the application's id, threads, commit interval
 * (ms), directory for state. It ends when all that was in the topic at the start is processed and committed.
 */
public final class Main {
    private Main() {}

    public static void main(String[] args) throws Exception {
        Properties properties = properties(args[0], args[2], args[3], args[4], args[5]);
        long expected = records(args[0], args[1]);
        KafkaStreams streams = new KafkaStreams(topology(args[1], args[2]), properties);
        CountDownLatch failed = new CountDownLatch(1);
        streams.setUncaughtExceptionHandler(problem -> {
            problem.printStackTrace();
            failed.countDown();
            return org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.start();
        while (ScoreAndWindows.processed() < expected) {
            if (failed.getCount() == 0) {
                System.exit(1);
            }
            Thread.sleep(10);
        }
        Job.say("PROCESSED");
        // Commits.
        streams.close();
        Job.say("DONE");
        System.exit(0);
    }

    private static Topology topology(String input, String prefix) {
        Topology topology = new Topology();
        topology.addSource("readings", new StringDeserializer(), new ByteArrayDeserializer(), input);
        topology.addProcessor("job", ScoreAndWindows::new, "readings");
        topology.addStateStore(
                Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("vehicles"), Serdes.String(), new VehicleSerde())
                        .withCachingEnabled(),
                "job");
        topology.addStateStore(
                Stores.keyValueStoreBuilder(Stores.inMemoryKeyValueStore("trips"), Serdes.String(), Serdes.Integer())
                        .withCachingEnabled(),
                "job");
        ByteArraySerializer bytes = new ByteArraySerializer();
        topology.addSink("scores", prefix + "trip_scores", bytes, bytes, "job");
        topology.addSink("windows", prefix + "windows", bytes, bytes, "job");
        return topology;
    }

    private static Properties properties(String brokers, String prefix, String threads, String commit, String state) {
        Properties p = new Properties();
        p.put(StreamsConfig.APPLICATION_ID_CONFIG, prefix + "streams");
        p.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        p.put(StreamsConfig.STATE_DIR_CONFIG, state);
        p.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        p.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, threads);
        p.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, commit);
        p.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256 << 20);
        p.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 20_000);
        p.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.CHECK_CRCS_CONFIG), false);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 10_000);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MAX_BYTES_CONFIG), 50 << 20);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 10 << 20);
        p.put(StreamsConfig.consumerPrefix(ConsumerConfig.RECEIVE_BUFFER_CONFIG), 1 << 20);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        p.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 512 << 10);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 100);
        p.put(StreamsConfig.producerPrefix(ProducerConfig.TRANSACTION_TIMEOUT_CONFIG), 60_000);
        return p;
    }

    private static long records(String brokers, String topic) throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
            var partitions = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions();
            long records = 0;
            for (var partition : partitions) {
                TopicPartition at = new TopicPartition(topic, partition.partition());
                records += admin.listOffsets(Map.of(at, OffsetSpec.latest())).partitionResult(at).get().offset();
            }
            return records;
        }
    }
}
