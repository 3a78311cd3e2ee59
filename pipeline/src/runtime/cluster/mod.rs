//! Several processes as one job (docs/adr/0005): process 0, the *leader*, reads, commits and owns the data directory; the
//! others, *followers*, only compute.
//!
//! ```text
//!                     leader                                        follower
//!  source ──► queues ─┬─► workers 0..W                ┌─► queues ─► workers W..2W
//!                     └─► link ══ chunks, epochs ═════┘                │
//!  committer ◄────────┬── workers                                      │
//!                     └── link ══ outputs, parts, frontiers ◄══════════┘
//!             control ══ heartbeats, stop, the end, why it failed ══ control
//!             timely  ══ exchanged data and progress (every two processes) ══ timely
//! ```
//!
//! Each process listens at one port, its own of `--hosts`, only while the cluster assembles. Three kinds of connection
//! begin there, each with a line that says who calls ([`hello`]): the control and link connections between the leader and
//! each follower, and timely's between every two. So nothing is exchanged between processes that differ in version,
//! configuration or shape.
//!
//! The contract:
//!
//! - *Order.* What a worker says goes through one channel and one link, so that [`drivetrain_sinks::message`]'s order
//!   holds: all outputs and parts of an epoch before the frontier that passes it. What the source says to a worker
//!   likewise.
//! - *Bounds.* The queue before a link and those behind it are as short as a local worker's. Who waits for whom has no
//!   cycle (source, link, worker, link, committer, disk), because each direction of a link has its own threads.
//! - *Life.* Heartbeats have a connection and a thread of their own, so that neither a full queue nor a busy worker
//!   delays them. A process that hears nothing of another for [`SILENCE`], or whose connection closes before the orderly
//!   end, ends with code 1 and one message that names it ([`fate`]). It does not matter what its other threads do.
//! - *Safety.* Only the leader writes, under the lock and generation of a job in one process. So a process that was
//!   stopped and continued can change nothing: a follower has nothing to write to, a leader is what a stopped single
//!   process is.

mod assemble;
mod control;
mod fate;
mod follower;
mod hello;
mod leader;
mod network;
mod wire;

pub(super) use follower::follow;
pub(super) use leader::Leader;
pub(super) use network::Network;

use std::fmt;
use std::time::Duration;
use thiserror::Error;

/// How often a process says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// A process that was not heard for that long is taken for dead. With what ending takes, less than 10 s.
const SILENCE: Duration = Duration::from_secs(6);
/// How long a process waits for the others at the start. Longer than what supervisors wait between two attempts.
const PATIENCE: Duration = Duration::from_mins(6);

/// The processes of a job, and which of them this is. At least two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// This one, from 0.
    pub process: usize,
    /// `host:port` of each process, in their order; the same for all of them.
    pub hosts: Vec<String>,
    /// Where this process listens, if not at its own entry of `hosts`.
    pub listen: Option<String>,
}

impl Shape {
    pub fn processes(&self) -> usize {
        self.hosts.len()
    }

    pub fn is_leader(&self) -> bool {
        self.process == 0
    }

    fn peer(&self, process: usize) -> Peer {
        Peer { process, host: self.hosts.get(process).cloned().unwrap_or_default() }
    }
}

/// Another process, for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub process: usize,
    pub host: String,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.process, self.host)
    }
}

/// Why the processes did not come together.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// They are not the same job. The text says in what they differ and how to mend it.
    #[error("{peer} {text}")]
    Differs { peer: Peer, text: String },
    #[error("{peer} refused this process: it {text}")]
    Refused { peer: Peer, text: String },
    #[error("two processes say that they are {0}; give each its own --process")]
    Twice(Peer),
    #[error("cannot listen at {address}: {error}; --listen names another address, and each process needs its own port")]
    Listen { address: String, error: std::io::Error },
    #[error("{} not come within {} s{}; start every process with the same --hosts", missing(.names), PATIENCE.as_secs(), because(.last))]
    Missing { names: Vec<Peer>, last: Option<String> },
    #[error("the connection to {peer}: {error}")]
    Connection { peer: Peer, error: std::io::Error },
    #[error("{peer} sent what cannot be read: {problem}; this is a bug")]
    Garbled { peer: Peer, problem: String },
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// By a signal, before the job began or while it had not begun here.
    #[error("stopped before the job began")]
    Stopped,
}

impl ClusterError {
    /// Whether the command line or the configuration is to be mended.
    pub fn is_usage(&self) -> bool {
        matches!(self, ClusterError::Differs { .. } | ClusterError::Refused { .. })
    }
}

fn missing(names: &[Peer]) -> String {
    let all: Vec<String> = names.iter().map(Peer::to_string).collect();
    format!("{} {}", all.join(", "), if all.len() == 1 { "has" } else { "have" })
}

fn because(last: &Option<String>) -> String {
    last.as_ref().map_or_else(String::new, |last| format!(" (last: {last})"))
}
