//! The progress bar of a replay; none when stderr is not a terminal.

use super::{JobOptions, Mode};
use crate::source::Progress;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the bar moves.
const TICK: Duration = Duration::from_millis(200);

/// A thread that shows how far reading has come.
pub(super) struct Bar {
    shown: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Bar {
    pub(super) fn start(options: &JobOptions, progress: Arc<Progress>) -> Self {
        let replay = matches!(options.mode, Mode::Replay { .. });
        if !replay || !options.progress || !std::io::stderr().is_terminal() {
            return Self { shown: None };
        }
        let done = Arc::new(AtomicBool::new(false));
        let stop = done.clone();
        let thread = std::thread::Builder::new().name("progress".into()).spawn(move || show(&progress, &stop));
        Self { shown: thread.ok().map(|thread| (done, thread)) }
    }

    pub(super) fn finish(self) {
        if let Some((done, thread)) = self.shown {
            done.store(true, Ordering::Relaxed);
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

fn show(progress: &Progress, done: &AtomicBool) {
    let bar = ProgressBar::new(progress.total_bytes.load(Ordering::Relaxed));
    // Of topics nobody knows how much there is to come.
    let files = progress.total_bytes.load(Ordering::Relaxed) > 0;
    let template = if files { "{wide_bar} {bytes}/{total_bytes} {msg} {eta}" } else { "{spinner} {msg} {elapsed}" };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    while !done.load(Ordering::Relaxed) {
        bar.set_length(progress.total_bytes.load(Ordering::Relaxed));
        bar.set_position(progress.bytes.load(Ordering::Relaxed));
        bar.set_message(format!("{} records", progress.records.load(Ordering::Relaxed)));
        std::thread::park_timeout(TICK);
    }
    bar.finish_and_clear();
}
