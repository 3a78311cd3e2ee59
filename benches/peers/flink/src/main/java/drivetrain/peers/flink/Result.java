package drivetrain.peers.flink;

/** A record of an output topic. */
public final class Result {
    public String topic;
    public byte[] key;
    public byte[] value;

    public Result() {}

    Result(String topic, byte[] key, byte[] value) {
        this.topic = topic;
        this.key = key;
        this.value = value;
    }
}
