package drivetrain.peers.flink;

import drivetrain.peers.Job;
import drivetrain.peers.Parser;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.atomic.AtomicBoolean;
import org.apache.flink.api.common.serialization.DeserializationSchema.InitializationContext;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/** A record of the topic to a reading, in an object that is used again. */
final class Decode implements KafkaRecordDeserializationSchema<Keyed> {
    private static final AtomicBoolean BEGUN = new AtomicBoolean();

    private transient Parser parser;
    private transient Keyed keyed;

    @Override
    public void open(InitializationContext context) {
        parser = new Parser();
        keyed = new Keyed();
    }

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Keyed> out) throws IOException {
        if (keyed.reading.vehicle == null && BEGUN.compareAndSet(false, true)) {
            Job.say("FIRST");
        }
        keyed.reading.vehicle = new String(record.key(), StandardCharsets.UTF_8);
        parser.parse(record.value(), keyed.reading);
        out.collect(keyed);
    }

    @Override
    public TypeInformation<Keyed> getProducedType() {
        return TypeInformation.of(Keyed.class);
    }
}
