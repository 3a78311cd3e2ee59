package drivetrain.peers;

import java.nio.charset.StandardCharsets;

/** The rules of the job, and how its results are written. */
public final class Job {
    public static final long WINDOW_MS = 60_000;
    public static final long OUT_OF_ORDER_MS = 5_000;

    private Job() {}

    public static boolean harsh(Reading reading) {
        return reading.gForceLong > 0.4 || reading.gForceLong < -0.4;
    }

    public static long windowStart(long at) {
        return at - Math.floorMod(at, WINDOW_MS);
    }

    public static int score(int harsh) {
        return Math.max(0, 100 - 5 * harsh);
    }

    /** The value of a record on the topic of scores; its key is the trip. */
    public static byte[] scoreDocument(String trip, String vehicle, int harsh) {
        return bytes("{\"trip_id\":\"" + trip + "\",\"vehicle_id\":\"" + vehicle + "\",\"harsh\":" + harsh
                + ",\"score\":" + score(harsh) + "}");
    }

    public static byte[] windowKey(String vehicle, long start) {
        return bytes(vehicle + "@" + start);
    }

    /** The value of a record on the topic of windows. */
    public static byte[] windowDocument(
            String vehicle, long start, long count, double sum, double min, double max) {
        return bytes("{\"vehicle_id\":\"" + vehicle + "\",\"window_start\":" + start + ",\"count\":" + count
                + ",\"sum\":" + sum + ",\"min\":" + min + ",\"max\":" + max + "}");
    }

    public static byte[] bytes(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    /** A line that compare.py reads: what happened, and when (s since 1970). */
    public static void say(String what) {
        long micros = System.currentTimeMillis() * 1_000;
        System.out.println(what + " " + micros / 1e6);
        System.out.flush();
    }
}
