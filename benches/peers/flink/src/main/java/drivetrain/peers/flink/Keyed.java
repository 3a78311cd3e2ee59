package drivetrain.peers.flink;

import drivetrain.peers.Reading;

/** A reading on its way through the chain; the same object again and again. */
public final class Keyed {
    public Key key;
    public Reading reading = new Reading();
}
