//! Threads whose work nobody waits for: encoding Parquet, writing and merging checkpoints.

/// How much the calling thread steps back where others want the cores. A step is about a tenth less of the time: at 10 it
/// gets a tenth of what a worker gets, and all of it on an idle core.
#[cfg(target_os = "linux")]
const STEPS: i32 = 10;

/// Lets workers, the source and the committer go first from now on: a row group that is encoded on one of two cores would
/// else make records wait that have just come. (What waits for this thread is bounded, so that it never starves.)
#[cfg(target_os = "linux")]
pub(crate) fn yield_to_others() {
    // SAFETY: neither call takes a pointer. On Linux the id of a thread stands for that thread alone.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS, libc::gettid() as libc::id_t, STEPS) };
    if done != 0 {
        tracing::debug!("a background thread keeps its priority");
    }
}

/// Nothing: only Linux gives a thread a priority of its own.
#[cfg(not(target_os = "linux"))]
pub(crate) fn yield_to_others() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #[test]
    fn only_the_calling_thread_steps_back() {
        let priority = || {
            // SAFETY: as above.
            unsafe { libc::getpriority(libc::PRIO_PROCESS, libc::gettid() as libc::id_t) }
        };
        let before = priority();
        let there = std::thread::spawn(move || {
            super::yield_to_others();
            priority()
        });
        assert_eq!(there.join().unwrap(), super::STEPS.max(before));
        assert_eq!(priority(), before);
    }
}
