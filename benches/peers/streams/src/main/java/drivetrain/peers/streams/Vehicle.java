package drivetrain.peers.streams;

import drivetrain.peers.Windows;

/** What is kept of a vehicle. */
final class Vehicle {
    String trip;
    int harsh;
    /** Its newest event time, ms. */
    long newest = Long.MIN_VALUE;
    Windows windows = new Windows();
}
