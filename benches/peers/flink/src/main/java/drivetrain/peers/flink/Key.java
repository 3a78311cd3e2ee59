package drivetrain.peers.flink;

import java.util.Objects;

/**
 * A vehicle, with a hash that lies in the key groups of the subtask that reads its partition: what
 * {@code reinterpretAsKeyedStream} demands.
 */
public final class Key {
    public String vehicle;
    public int hash;

    public Key() {}

    Key(String vehicle, int hash) {
        this.vehicle = vehicle;
        this.hash = hash;
    }

    @Override
    public int hashCode() {
        return hash;
    }

    @Override
    public boolean equals(Object other) {
        return other instanceof Key key && hash == key.hash && Objects.equals(vehicle, key.vehicle);
    }
}
