//! What a piece of work has taken of the machine.

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use std::time::Instant;

/// A stopwatch for wall and CPU time of this process, all its threads together.
#[derive(Debug)]
pub(super) struct Watch {
    began: Instant,
    cpu: Option<f64>,
}

impl Watch {
    pub(super) fn start() -> Self {
        Self { cpu: cpu(), began: Instant::now() }
    }

    /// Wall and CPU time since the start, s.
    pub(super) fn read(&self) -> (f64, Option<f64>) {
        let wall = self.began.elapsed().as_secs_f64();
        (wall, cpu().zip(self.cpu).map(|(now, before)| now - before))
    }
}

fn usage() -> Option<Usage> {
    getrusage(UsageWho::RUSAGE_SELF).ok()
}

/// User and system time so far, s.
fn cpu() -> Option<f64> {
    let usage = usage()?;
    Some((usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6)
}

/// The most memory that was resident at once, bytes.
pub(super) fn peak() -> Option<u64> {
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    u64::try_from(usage()?.max_rss()).ok().map(|n| n * unit)
}
