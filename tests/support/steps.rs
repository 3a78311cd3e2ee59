//! Kills at each named step of the commit protocol.

/// All steps of `sinks/src/failpoint.rs`, with how many times a replay passes each before it is killed.
pub const STEPS: [(&str, u32); 36] = [
    ("claim.before", 1),
    ("claim.after", 1),
    ("begin", 3),
    ("produce.before", 2),
    ("produce.between", 30),
    ("recovery.live", 1),
    ("record", 4),
    ("recovery.staging", 1),
    ("commit.before", 3),
    ("recovery.sweep", 1),
    ("commit.after", 2),
    ("recovery.bindings", 1),
    ("history.close", 1),
    ("recovery.manifest", 1),
    ("history.closed", 1),
    ("recovery.done", 1),
    ("final_files", 3),
    ("checkpoint.write", 1),
    ("checkpoint.sync", 1),
    ("checkpoint.rename", 1),
    ("publish.before", 1),
    ("recovery.publish", 1),
    ("publish.between", 1),
    ("publish.after", 1),
    ("manifest.before", 1),
    ("manifest.between", 1),
    ("manifest.rewrite", 1),
    ("manifest.after", 1),
    ("trim.before", 1),
    ("trim.between", 1),
    ("trim.after", 1),
    ("compact.written", 1),
    ("compact.renamed", 2),
    ("recovery.cut", 3),
    ("checkpoint.write", 5),
    ("commit.after", 9),
];

/// The steps of `sinks/src/failpoint.rs` that a run on Kafka comes to, with how many times it passes each before it is
/// killed. The others are those of local live logs (`recovery.cut`, `compact.*`).
pub const STEPS_ON_KAFKA: [(&str, u32); 31] = [
    ("claim.before", 1),
    ("claim.after", 1),
    ("recovery.publish", 1),
    ("recovery.staging", 1),
    ("recovery.live", 1),
    ("recovery.sweep", 1),
    ("recovery.bindings", 1),
    ("recovery.manifest", 1),
    ("recovery.done", 1),
    ("history.close", 2),
    ("history.closed", 3),
    ("checkpoint.write", 2),
    ("checkpoint.sync", 3),
    ("checkpoint.rename", 2),
    ("final_files", 4),
    ("begin", 9),
    ("produce.before", 5),
    ("produce.between", 40),
    ("record", 7),
    ("commit.before", 6),
    ("commit.after", 8),
    ("publish.before", 2),
    ("publish.between", 2),
    ("publish.after", 1),
    ("manifest.before", 2),
    ("manifest.between", 1),
    ("manifest.rewrite", 1),
    ("manifest.after", 1),
    ("trim.before", 1),
    ("trim.between", 1),
    ("trim.after", 1),
];

/// The variable with which a job comes to all of these steps within seconds.
pub const OFTEN: (&str, &str) = ("DRIVETRAIN_OFTEN", "1");

/// Has a job started again and again, each time to be killed at another step: `start` is given its variables, and gives the exit code (none: ended by a signal) and what was said.
pub fn kill_at_each_step(what: &str, mut start: impl FnMut([(&str, &str); 2]) -> (Option<i32>, String)) {
    for (step, nth) in STEPS {
        let point = format!("{step}:{nth}");
        let (code, said) = start([OFTEN, ("DRIVETRAIN_FAILPOINT", &point)]);
        assert_ne!(code, Some(0), "{what}: the input ended before {point}: make it longer");
        assert_eq!(code, None, "{what}: {point}: {said}");
    }
}
