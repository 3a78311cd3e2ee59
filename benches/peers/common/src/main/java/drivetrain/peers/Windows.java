package drivetrain.peers;

/** The open windows of a vehicle, the newest last; seldom more than two. Public fields, so that Flink sees a POJO. */
public class Windows {
    public int open;
    public long[] start = new long[2];
    public long[] count = new long[2];
    public double[] sum = new double[2];
    public double[] min = new double[2];
    public double[] max = new double[2];

    /** Adds a value; true when a window was opened for it. */
    public boolean add(long windowStart, double value) {
        for (int i = open - 1; i >= 0; i--) {
            if (start[i] == windowStart) {
                count[i]++;
                sum[i] += value;
                min[i] = Math.min(min[i], value);
                max[i] = Math.max(max[i], value);
                return false;
            }
        }
        if (open == start.length) {
            resize(2 * open);
        }
        start[open] = windowStart;
        count[open] = 1;
        sum[open] = min[open] = max[open] = value;
        open++;
        return true;
    }

    /** Takes away the window at an index. */
    public void remove(int index) {
        open--;
        for (int i = index; i < open; i++) {
            start[i] = start[i + 1];
            count[i] = count[i + 1];
            sum[i] = sum[i + 1];
            min[i] = min[i + 1];
            max[i] = max[i + 1];
        }
    }

    public byte[] document(int index, String vehicle) {
        return Job.windowDocument(vehicle, start[index], count[index], sum[index], min[index], max[index]);
    }

    private void resize(int length) {
        start = java.util.Arrays.copyOf(start, length);
        count = java.util.Arrays.copyOf(count, length);
        sum = java.util.Arrays.copyOf(sum, length);
        min = java.util.Arrays.copyOf(min, length);
        max = java.util.Arrays.copyOf(max, length);
    }
}
