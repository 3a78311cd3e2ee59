package drivetrain.peers.streams;

import drivetrain.peers.Job;
import drivetrain.peers.Parser;
import drivetrain.peers.Reading;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.HashMap;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Scores and windows of a vehicle: one put a reading (into the cache), one get a vehicle. */
final class ScoreAndWindows implements Processor<String, byte[], byte[], byte[]> {
    private static final AtomicBoolean BEGUN = new AtomicBoolean();
    private static final List<AtomicLong> COUNTS = new CopyOnWriteArrayList<>();

    private final AtomicLong count = new AtomicLong();
    private final Parser parser = new Parser();
    private final Reading reading = new Reading();
    /** What the store has, read: a task is the only writer of its store, and a new task begins without it. */
    private final HashMap<String, Vehicle> known = new HashMap<>();
    private ProcessorContext<byte[], byte[]> context;
    private KeyValueStore<String, Vehicle> vehicles;
    /** Harsh samples of the trips before the present one. */
    private KeyValueStore<String, Integer> trips;

    static long processed() {
        return COUNTS.stream().mapToLong(AtomicLong::get).sum();
    }

    @Override
    public void init(ProcessorContext<byte[], byte[]> context) {
        this.context = context;
        vehicles = context.getStateStore("vehicles");
        trips = context.getStateStore("trips");
        COUNTS.add(count);
    }

    @Override
    public void process(Record<String, byte[]> record) {
        if (count.getPlain() == 0 && BEGUN.compareAndSet(false, true)) {
            Job.say("FIRST");
        }
        try {
            parser.parse(record.value(), reading);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
        reading.vehicle = record.key();
        Vehicle vehicle = known.get(reading.vehicle);
        if (vehicle == null) {
            vehicle = vehicles.get(reading.vehicle);
            vehicle = vehicle == null ? new Vehicle() : vehicle;
            known.put(reading.vehicle, vehicle);
        }
        score(vehicle, record.timestamp());
        window(vehicle, record.timestamp());
        vehicles.put(reading.vehicle, vehicle);
        count.setRelease(count.getPlain() + 1);
    }

    private void score(Vehicle vehicle, long timestamp) {
        boolean changed = false;
        if (!reading.trip.equals(vehicle.trip)) {
            if (vehicle.trip != null) {
                trips.put(vehicle.trip, vehicle.harsh);
            }
            Integer before = trips.get(reading.trip);
            vehicle.trip = reading.trip;
            vehicle.harsh = before == null ? 0 : before;
            changed = before == null;
        }
        if (Job.harsh(reading)) {
            changed |= Job.score(vehicle.harsh) > 0;
            vehicle.harsh++;
        }
        if (changed) {
            byte[] document = Job.scoreDocument(reading.trip, reading.vehicle, vehicle.harsh);
            context.forward(new Record<>(Job.bytes(reading.trip), document, timestamp), "scores");
        }
    }

    /** A window is written when the vehicle's time is 5 s beyond its end; readings that come later for it are dropped. */
    private void window(Vehicle vehicle, long timestamp) {
        if (reading.at > vehicle.newest) {
            vehicle.newest = reading.at;
            for (int i = 0; i < vehicle.windows.open; ) {
                long start = vehicle.windows.start[i];
                if (start + Job.WINDOW_MS + Job.OUT_OF_ORDER_MS > vehicle.newest) {
                    i++;
                    continue;
                }
                byte[] key = Job.windowKey(reading.vehicle, start);
                byte[] document = vehicle.windows.document(i, reading.vehicle);
                context.forward(new Record<>(key, document, timestamp), "windows");
                vehicle.windows.remove(i);
            }
        }
        long start = Job.windowStart(reading.at);
        if (start + Job.WINDOW_MS + Job.OUT_OF_ORDER_MS > vehicle.newest) {
            vehicle.windows.add(start, reading.speed);
        }
    }
}
