//! Places at which a test can kill the process, or stop it: one before or after each step that a crash may cut off.
//!
//! ```text
//! DRIVETRAIN_FAILPOINT=publish.between       abort when this step is first reached
//! DRIVETRAIN_FAILPOINT=publish.between:3     … when it is reached for the third time
//! DRIVETRAIN_FAILPOINT=publish.between:3:stop  stop there (SIGSTOP), until somebody continues it
//! DRIVETRAIN_STEPS=FILE                  note in a file which step was reached last
//! DRIVETRAIN_OFTEN=1                     what is done after thousands of commits is done after a few ([`threshold`])
//! ```
//!
//! Only in debug builds; in a release build [`hit`] is empty and the variables have no effect. Tests of this crate set a
//! plan for the thread (and the threads it starts) instead: then the step fails, as if the process had ended there.

/// All steps, in the order in which a run comes to them.
pub const STEPS: [&str; 34] = [
    // A start (`recovery`).
    "claim.before",
    "claim.after",
    "recovery.publish",
    "recovery.staging",
    "recovery.live",
    "recovery.cut",
    "recovery.sweep",
    "recovery.bindings",
    "recovery.manifest",
    "recovery.done",
    // Files, each on its own thread (`history`, `checkpoint`).
    "history.close",
    "history.closed",
    "checkpoint.write",
    "checkpoint.sync",
    "checkpoint.rename",
    // A commit (`commit`).
    "final_files",
    "begin",
    "produce.before",
    "produce.between",
    "record",
    "commit.before",
    "commit.after",
    "publish.before",
    "publish.between",
    "publish.after",
    "manifest.before",
    "manifest.between",
    "manifest.rewrite",
    "manifest.after",
    "trim.before",
    "trim.between",
    "trim.after",
    // Compaction of a local topic (`live`).
    "compact.written",
    "compact.renamed",
];

/// The steps of [`crate::housekeeping`], which is another process.
pub const HOUSEKEEPING: [&str; 9] = [
    "housekeeping.written",
    "housekeeping.synced",
    "housekeeping.recorded",
    "housekeeping.linked",
    "housekeeping.deleted",
    "housekeeping.settled",
    "housekeeping.swept",
    "housekeeping.trim",
    "housekeeping.trimmed",
];

#[cfg(any(test, debug_assertions))]
pub use on::*;

#[cfg(not(any(test, debug_assertions)))]
pub use off::*;

#[cfg(any(test, debug_assertions))]
mod on {
    use super::{HOUSEKEEPING, STEPS};
    use crate::files::FileError;
    use std::cell::RefCell;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, OnceLock};

    /// What is to happen at one of the steps.
    pub struct Plan {
        step: String,
        /// From 1.
        nth: u64,
        reached: AtomicU64,
        action: Box<dyn Fn() -> std::io::Result<()> + Send + Sync>,
    }

    thread_local! {
        static CURRENT: RefCell<Option<Arc<Plan>>> = const { RefCell::new(None) };
    }

    impl Plan {
        /// Calls `action` when the step is reached for the `nth` time; what it returns is the step's result.
        pub fn new(
            step: &str,
            nth: u64,
            action: impl Fn() -> std::io::Result<()> + Send + Sync + 'static,
        ) -> Option<Arc<Plan>> {
            assert!(known(step), "there is no step {step:?}; the steps are {STEPS:?} and {HOUSEKEEPING:?}");
            Some(Arc::new(Plan { step: step.into(), nth, reached: AtomicU64::new(0), action: Box::new(action) }))
        }

        /// How often the step has been reached.
        pub fn reached(&self) -> u64 {
            self.reached.load(Ordering::Relaxed)
        }

        fn hit(&self, step: &str) -> std::io::Result<()> {
            if self.step == step && self.reached.fetch_add(1, Ordering::Relaxed) + 1 == self.nth {
                return (self.action)();
            }
            Ok(())
        }
    }

    fn known(step: &str) -> bool {
        STEPS.contains(&step) || HOUSEKEEPING.contains(&step)
    }

    /// `usual`, or in a test `often`: the threshold of a step that a test would not come to.
    pub fn threshold(usual: u64, often: u64) -> u64 {
        static OFTEN: OnceLock<bool> = OnceLock::new();
        let is_often = || cfg!(test) || std::env::var_os("DRIVETRAIN_OFTEN").is_some();
        if *OFTEN.get_or_init(is_often) { often } else { usual }
    }

    /// The plan of this thread, to be handed to a thread that it starts.
    pub fn current() -> Option<Arc<Plan>> {
        CURRENT.with_borrow(Clone::clone)
    }

    /// Sets the plan of this thread.
    pub fn adopt(plan: Option<Arc<Plan>>) {
        CURRENT.with_borrow_mut(|current| *current = plan);
    }

    /// The plan of the process, from its environment.
    fn of_process() -> Option<&'static Arc<Plan>> {
        static PLAN: OnceLock<Option<Arc<Plan>>> = OnceLock::new();
        PLAN.get_or_init(|| {
            let text = std::env::var("DRIVETRAIN_FAILPOINT").ok()?;
            let mut parts = text.split(':');
            let (step, nth) = (parts.next().unwrap_or(""), parts.next().and_then(|n| n.parse().ok()).unwrap_or(1));
            match parts.next() {
                Some("stop") => Plan::new(step, nth, stop),
                _ => Plan::new(step, nth, || std::process::abort()),
            }
        })
        .as_ref()
    }

    /// Stops the whole process (and with it whoever waits for the command); it goes on when it is continued.
    fn stop() -> std::io::Result<()> {
        let process = std::process::id().to_string();
        std::process::Command::new("kill").args(["-STOP", &process]).status().map(drop)
    }

    /// Notes the step for a test that kills the process at random and wants to know where.
    fn note(step: &str) {
        static FILE: OnceLock<Option<std::fs::File>> = OnceLock::new();
        let open = || std::fs::File::create(std::env::var_os("DRIVETRAIN_STEPS")?).ok();
        if let Some(file) = FILE.get_or_init(open) {
            // One write at one place: what is read is whole.
            let _ = std::os::unix::fs::FileExt::write_all_at(file, format!("{step:<24}\n").as_bytes(), 0);
        }
    }

    /// A step is reached.
    ///
    /// # Errors
    /// When a test has asked for it.
    pub fn hit(step: &'static str) -> Result<(), FileError> {
        debug_assert!(known(step), "{step}");
        note(step);
        let failed = |source| FileError { action: "a test ends it at", path: PathBuf::from(step), source };
        of_process().map_or(Ok(()), |plan| plan.hit(step)).map_err(failed)?;
        current().map_or(Ok(()), |plan| plan.hit(step)).map_err(failed)
    }
}

#[cfg(not(any(test, debug_assertions)))]
mod off {
    use crate::files::FileError;

    /// A step is reached; nothing happens.
    #[inline(always)]
    pub fn hit(_: &'static str) -> Result<(), FileError> {
        Ok(())
    }

    /// `usual`.
    #[inline(always)]
    pub fn threshold(usual: u64, _: u64) -> u64 {
        usual
    }

    #[inline(always)]
    pub fn current() {}

    #[inline(always)]
    pub fn adopt((): ()) {}
}
