package drivetrain.peers.flink;

import drivetrain.peers.Job;
import drivetrain.peers.Reading;
import drivetrain.peers.Windows;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/** Scores and windows of a vehicle. One look at the state a reading, one timer a window. */
final class ScoreAndWindows extends KeyedProcessFunction<Key, Keyed, Result> {
    /** What is kept of a vehicle. */
    public static class Vehicle {
        public String trip;
        public int harsh;
        public Windows windows = new Windows();
    }

    private final String scores;
    private final String windows;
    private transient ValueState<Vehicle> vehicles;
    /** Harsh samples of the trips before the present one. */
    private transient MapState<String, Integer> trips;

    ScoreAndWindows(String scores, String windows) {
        this.scores = scores;
        this.windows = windows;
    }

    @Override
    public void open(OpenContext context) {
        vehicles = getRuntimeContext().getState(new ValueStateDescriptor<>("vehicle", Vehicle.class));
        trips = getRuntimeContext().getMapState(new MapStateDescriptor<>("trips", String.class, Integer.class));
    }

    @Override
    public void processElement(Keyed keyed, Context context, Collector<Result> out) throws Exception {
        Reading reading = keyed.reading;
        Vehicle vehicle = vehicles.value();
        if (vehicle == null) {
            vehicle = new Vehicle();
        }
        boolean changed = false;
        if (!reading.trip.equals(vehicle.trip)) {
            changed = enter(vehicle, reading.trip);
        }
        if (Job.harsh(reading)) {
            changed |= Job.score(vehicle.harsh) > 0;
            vehicle.harsh++;
        }
        if (changed) {
            byte[] document = Job.scoreDocument(reading.trip, reading.vehicle, vehicle.harsh);
            out.collect(new Result(scores, Job.bytes(reading.trip), document));
        }
        long start = Job.windowStart(reading.at);
        long last = start + Job.WINDOW_MS - 1;
        // A reading of a window that is closed is late, and dropped.
        if (last > context.timerService().currentWatermark() && vehicle.windows.add(start, reading.speed)) {
            context.timerService().registerEventTimeTimer(last);
        }
        vehicles.update(vehicle);
    }

    /** Another trip of the vehicle; true when it is new. */
    private boolean enter(Vehicle vehicle, String trip) throws Exception {
        if (vehicle.trip != null) {
            trips.put(vehicle.trip, vehicle.harsh);
        }
        Integer before = trips.get(trip);
        vehicle.trip = trip;
        vehicle.harsh = before == null ? 0 : before;
        return before == null;
    }

    @Override
    public void onTimer(long last, OnTimerContext context, Collector<Result> out) throws Exception {
        Vehicle vehicle = vehicles.value();
        for (int i = 0; i < vehicle.windows.open; i++) {
            if (vehicle.windows.start[i] + Job.WINDOW_MS - 1 == last) {
                String id = context.getCurrentKey().vehicle;
                byte[] key = Job.windowKey(id, vehicle.windows.start[i]);
                out.collect(new Result(windows, key, vehicle.windows.document(i, id)));
                vehicle.windows.remove(i);
                break;
            }
        }
        vehicles.update(vehicle);
    }
}
