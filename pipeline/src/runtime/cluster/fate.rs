//! How a process of a cluster ends when it is not by itself: one message, code 1, at once.
//!
//! A process that is gone is noticed in many places within milliseconds: its control connection, its link, timely's
//! threads (which panic). The control connection knows best why, so that the others wait a moment for it
//! ([`Fate::lost`]); whoever speaks first is the only one who speaks.

use super::control;
use super::{Peer, Shape};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the control connection has to say why another connection was lost.
const GRACE: Duration = Duration::from_millis(1500);
/// What ending in an orderly way may take; then it is done by force.
const STUBBORN: Duration = Duration::from_secs(2);

/// The orderly end: well, or with an error that the other processes are told.
pub(super) type End = Result<(), String>;

/// Shared by all threads that have to do with other processes.
pub(super) struct Fate {
    shape: Shape,
    /// Somebody is ending the process.
    over: AtomicBool,
    /// The orderly end is under way: connections may close.
    end: OnceLock<End>,
    /// Where to tell the others why.
    controls: Mutex<Vec<TcpStream>>,
}

impl Fate {
    pub(super) fn new(shape: Shape) -> Arc<Self> {
        Arc::new(Self { shape, over: AtomicBool::new(false), end: OnceLock::new(), controls: Mutex::default() })
    }

    /// Another process that is to hear why this one ends.
    pub(super) fn attend(&self, control: TcpStream) {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner).push(control);
    }

    /// From here on connections may close. The first call counts.
    pub(super) fn conclude(&self, end: End) {
        drop(self.end.set(end));
    }

    pub(super) fn end(&self) -> Option<&End> {
        self.end.get()
    }

    /// Ends the process with this message, and tells the others. Returns never: of two callers the second waits for the
    /// first.
    pub(super) fn fail(&self, message: &str) -> ! {
        if self.over.swap(true, Ordering::AcqRel) {
            loop {
                std::thread::park();
            }
        }
        eprintln!("drivetrain: {message}");
        // What runs at a process's exit may wait for threads that hang.
        let by_force = || {
            let began = Instant::now();
            while began.elapsed() < STUBBORN {
                std::thread::park_timeout(STUBBORN);
            }
            std::process::abort()
        };
        drop(std::thread::Builder::new().spawn(by_force));
        if let Ok(controls) = self.controls.try_lock() {
            controls.iter().for_each(|control| control::tell(control, &Err(message.to_string())));
        }
        std::process::exit(1)
    }

    /// A connection to another process was lost. Returns when that was in order.
    pub(super) fn lost(&self, process: usize, what: &str) {
        let began = Instant::now();
        while began.elapsed() < GRACE {
            if self.end().is_some() {
                return;
            }
            // The thread may be one of timely's, which has no place to be woken from here.
            std::thread::park_timeout(GRACE / 30);
        }
        self.fail(&format!("{} has gone ({what}); {RESTART}", self.peer(process)))
    }

    pub(super) fn peer(&self, process: usize) -> Peer {
        self.shape.peer(process)
    }

    /// timely's threads panic when a connection is lost, and a worker that panics leaves the others waiting for ever:
    /// both end the process.
    pub(super) fn watch_panics(self: &Arc<Self>) {
        let fate = self.clone();
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or_default();
            let connection = name.strip_prefix("timely:send-").or_else(|| name.strip_prefix("timely:recv-"));
            let text = info.payload_as_str().unwrap_or("it panicked");
            match connection.and_then(|process| process.parse().ok()) {
                Some(process) => fate.lost(process, text.trim_start_matches("timely communication error: ")),
                None if name.starts_with("timely:") => {
                    before(info);
                    fate.fail(&format!("a worker failed: {text}"))
                }
                None => before(info),
            }
        }));
    }
}

/// What to do when a process has gone.
pub(super) const RESTART: &str = "this process ends, too: start all of them again, they go on where they were";
