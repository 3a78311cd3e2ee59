package drivetrain.peers;

/** What the job needs of a record; one object is used again for each. */
public final class Reading {
    public String vehicle;
    public String trip;
    /** Event time, ms since 1970. */
    public long at;
    public double speed;
    public double gForceLong;
}
