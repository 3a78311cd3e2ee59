package drivetrain.peers.flink;

import java.util.HashMap;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.runtime.state.KeyGroupRangeAssignment;

/** Gives each reading the key of its vehicle on this subtask. */
final class Place extends RichMapFunction<Keyed, Keyed> {
    private transient HashMap<String, Key> keys;
    private transient int subtask;
    private transient int parallelism;
    private transient int maxParallelism;

    @Override
    public void open(OpenContext context) {
        keys = new HashMap<>();
        subtask = getRuntimeContext().getTaskInfo().getIndexOfThisSubtask();
        parallelism = getRuntimeContext().getTaskInfo().getNumberOfParallelSubtasks();
        maxParallelism = getRuntimeContext().getTaskInfo().getMaxNumberOfParallelSubtasks();
    }

    @Override
    public Keyed map(Keyed keyed) {
        Key key = keys.get(keyed.reading.vehicle);
        if (key == null) {
            key = key(keyed.reading.vehicle);
            keys.put(key.vehicle, key);
        }
        keyed.key = key;
        return keyed;
    }

    private Key key(String vehicle) {
        Key key = new Key(vehicle, vehicle.hashCode());
        while (KeyGroupRangeAssignment.assignKeyToParallelOperator(key, maxParallelism, parallelism) != subtask) {
            key.hash += 0x9E3779B9;
        }
        return key;
    }
}
