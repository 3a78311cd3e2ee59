package drivetrain.peers.streams;

import drivetrain.peers.Windows;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serializer;

/** A vehicle in about a hundred bytes. */
final class VehicleSerde implements Serde<Vehicle> {
    @Override
    public Serializer<Vehicle> serializer() {
        return (topic, vehicle) -> vehicle == null ? null : write(vehicle);
    }

    @Override
    public Deserializer<Vehicle> deserializer() {
        return (topic, bytes) -> bytes == null ? null : read(bytes);
    }

    private static byte[] write(Vehicle vehicle) {
        byte[] trip = vehicle.trip.getBytes(StandardCharsets.UTF_8);
        Windows windows = vehicle.windows;
        ByteBuffer out = ByteBuffer.allocate(4 + trip.length + 4 + 8 + 4 + windows.open * 40);
        out.putInt(trip.length).put(trip).putInt(vehicle.harsh).putLong(vehicle.newest).putInt(windows.open);
        for (int i = 0; i < windows.open; i++) {
            out.putLong(windows.start[i]).putLong(windows.count[i]);
            out.putDouble(windows.sum[i]).putDouble(windows.min[i]).putDouble(windows.max[i]);
        }
        return out.array();
    }

    private static Vehicle read(byte[] bytes) {
        ByteBuffer in = ByteBuffer.wrap(bytes);
        Vehicle vehicle = new Vehicle();
        byte[] trip = new byte[in.getInt()];
        in.get(trip);
        vehicle.trip = new String(trip, StandardCharsets.UTF_8);
        vehicle.harsh = in.getInt();
        vehicle.newest = in.getLong();
        int open = in.getInt();
        for (int i = 0; i < open; i++) {
            vehicle.windows.add(in.getLong(), 0);
            vehicle.windows.count[i] = in.getLong();
            vehicle.windows.sum[i] = in.getDouble();
            vehicle.windows.min[i] = in.getDouble();
            vehicle.windows.max[i] = in.getDouble();
        }
        return vehicle;
    }
}
