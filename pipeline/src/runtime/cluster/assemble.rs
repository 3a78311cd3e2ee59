//! The processes find each other: who listens, who calls, who is waited for.
//!
//! ```text
//!  follower j ──control, link, data──► leader
//!  follower j ──data──► follower i        (i < j)
//! ```
//!
//! They may start in any order and within [`PATIENCE`] of each other. From its control connection on, each of them is
//! watched: one that dies while others are still awaited ends all.

use super::control;
use super::fate::Fate;
use super::hello::{Answer, Identity, Kind};
use super::{ClusterError, PATIENCE, Peer};
use std::collections::BTreeMap;
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often somebody who waits looks again: for callers, for a signal and for what the control threads have heard.
const LOOK: Duration = Duration::from_millis(20);
/// How long to wait before calling again.
const AGAIN: Duration = Duration::from_millis(250);
/// How often to say for whom one waits.
const SAY: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(3);

/// All connections of a process.
pub(super) struct Connections {
    pub(super) controls: Vec<JoinHandle<()>>,
    /// By process: at the leader one for each follower, at a follower the leader's.
    pub(super) links: BTreeMap<usize, TcpStream>,
    /// By process; none to itself.
    pub(super) data: Vec<Option<TcpStream>>,
}

/// Who assembles.
pub(super) struct Assembly {
    pub(super) identity: Identity,
    pub(super) fate: Arc<Fate>,
    pub(super) stop: Arc<AtomicBool>,
    until: Instant,
    connections: Connections,
}

impl Assembly {
    pub(super) fn new(identity: Identity, fate: Arc<Fate>, stop: Arc<AtomicBool>) -> Self {
        let data = (0..identity.shape.processes()).map(|_| None).collect();
        let connections = Connections { controls: Vec::new(), links: BTreeMap::new(), data };
        Self { identity, fate, stop, until: Instant::now() + PATIENCE, connections }
    }

    /// The leader waits until all have called. `run` marks this start.
    ///
    /// # Errors
    /// When somebody does not come or is not of this job; those that came have been told.
    pub(super) fn gather(mut self, run: u64) -> Result<Connections, ClusterError> {
        let gathered = self.all_call(run);
        self.finish(gathered)
    }

    /// A follower calls the leader and the followers before it, and waits for those behind it.
    ///
    /// # Errors
    /// As of [`Self::gather`].
    pub(super) fn join(mut self) -> Result<Connections, ClusterError> {
        let joined = self.call_all();
        self.finish(joined)
    }

    fn finish(self, result: Result<(), ClusterError>) -> Result<Connections, ClusterError> {
        match result {
            Ok(()) => Ok(self.connections),
            Err(error) => {
                let stopped = matches!(error, ClusterError::Stopped);
                self.fate.conclude(if stopped { Ok(()) } else { Err(error.to_string()) });
                self.connections.controls.into_iter().for_each(|control| drop(control.join()));
                Err(error)
            }
        }
    }

    fn all_call(&mut self, run: u64) -> Result<(), ClusterError> {
        let listener = self.listen()?;
        let processes = self.identity.shape.processes();
        let mut controls = vec![false; processes];
        self.receive(&listener, run, |this, kind, process, stream| {
            let peer = this.fate.peer(process);
            let seat = match kind {
                Kind::Control => controls.get_mut(process).map(|seat| std::mem::replace(seat, true)),
                Kind::Link => Some(this.connections.links.contains_key(&process)),
                Kind::Data => this.connections.data.get(process).map(Option::is_some),
            };
            if seat != Some(false) {
                return Err(ClusterError::Twice(peer));
            }
            match kind {
                Kind::Control => this.control(peer, stream)?,
                Kind::Link => drop(this.connections.links.insert(process, stream)),
                Kind::Data => this.put(process, stream),
            }
            Ok(())
        })
    }

    fn call_all(&mut self) -> Result<(), ClusterError> {
        let (me, last) = (self.identity.shape.process, self.identity.shape.processes() - 1);
        // Before anybody can know of it.
        let listener = if me < last { Some(self.listen()?) } else { None };
        let (control, run) = self.call(0, Kind::Control, 0)?;
        self.control(self.fate.peer(0), control)?;
        let (link, _) = self.call(0, Kind::Link, run)?;
        self.connections.links.insert(0, link);
        for process in 0..me {
            let (stream, _) = self.call(process, Kind::Data, run)?;
            self.put(process, stream);
        }
        if let Some(listener) = listener {
            self.receive(&listener, run, |this, kind, process, stream| {
                if kind != Kind::Data || this.connections.data.get(process).is_none_or(Option::is_some) {
                    return Err(ClusterError::Twice(this.fate.peer(process)));
                }
                this.put(process, stream);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn put(&mut self, process: usize, stream: TcpStream) {
        if let Some(place) = self.connections.data.get_mut(process) {
            *place = Some(stream);
        }
    }

    fn control(&mut self, peer: Peer, stream: TcpStream) -> Result<(), ClusterError> {
        let started = control::start(&self.fate, peer, stream, self.stop.clone());
        self.connections.controls.push(started.map_err(ClusterError::Thread)?);
        Ok(())
    }

    /// Processes whose data connection (which each opens last) is missing.
    fn missing(&self) -> Vec<Peer> {
        let me = self.identity.shape.process;
        let data = self.connections.data.iter().enumerate();
        data.filter(|(process, stream)| *process != me && stream.is_none()).map(|(p, _)| self.fate.peer(p)).collect()
    }

    /// Takes calls until nobody is missing.
    fn receive(
        &mut self,
        listener: &TcpListener,
        run: u64,
        mut take: impl FnMut(&mut Self, Kind, usize, TcpStream) -> Result<(), ClusterError>,
    ) -> Result<(), ClusterError> {
        let mut said = Instant::now();
        loop {
            let missing = self.missing();
            if missing.is_empty() {
                return Ok(());
            }
            if said.elapsed() >= SAY {
                said = Instant::now();
                tracing::info!("waiting for {}", super::missing(&missing));
            }
            self.going(|| ClusterError::Missing { names: missing, last: None })?;
            match listener.accept() {
                Ok((mut stream, _)) => {
                    let called = stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true));
                    if called.is_ok()
                        && let Some((kind, process)) = self.identity.answer(&mut stream, run)?
                    {
                        take(self, kind, process, stream)?;
                    }
                }
                // Also a connection that has gone meanwhile.
                Err(_) => std::thread::park_timeout(LOOK),
            }
        }
    }

    /// Calls until the other process answers.
    fn call(&self, process: usize, kind: Kind, run: u64) -> Result<(TcpStream, u64), ClusterError> {
        let peer = self.fate.peer(process);
        let mut said = Instant::now();
        loop {
            let last = match self.attempt(&peer, kind, run) {
                Ok((stream, Answer::Welcome { run })) => return Ok((stream, run)),
                Ok((_, Answer::Refused(text))) => return Err(ClusterError::Refused { peer, text }),
                Ok((_, Answer::Later(reason))) => reason,
                Err(error) => error.to_string(),
            };
            if said.elapsed() >= SAY {
                said = Instant::now();
                tracing::info!("waiting for {peer} ({last})");
            }
            self.going(|| ClusterError::Missing { names: vec![peer.clone()], last: Some(last) })?;
            std::thread::park_timeout(AGAIN);
        }
    }

    fn attempt(&self, peer: &Peer, kind: Kind, run: u64) -> io::Result<(TcpStream, Answer)> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        // A name is looked up each time: where processes move, so do their addresses.
        for address in peer.host.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(mut stream) => {
                    stream.set_nodelay(true)?;
                    let answer =
                        self.identity.call(&mut stream, kind, run, || self.going(|| ClusterError::Stopped).is_ok())?;
                    return Ok((stream, answer));
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// # Errors
    /// When the wait is over: by a signal, by the leader's word, or by `late`.
    fn going(&self, late: impl FnOnce() -> ClusterError) -> Result<(), ClusterError> {
        let told = self.fate.end().is_some();
        // A follower with a control connection asks the leader to stop, and waits for its word.
        let leads = self.identity.shape.is_leader();
        if told || (self.stop.load(Ordering::Relaxed) && (leads || self.connections.controls.is_empty())) {
            return Err(ClusterError::Stopped);
        }
        if Instant::now() > self.until { Err(late()) } else { Ok(()) }
    }

    fn listen(&self) -> Result<TcpListener, ClusterError> {
        let shape = &self.identity.shape;
        let own = shape.listen.as_ref().or_else(|| shape.hosts.get(shape.process)).cloned().unwrap_or_default();
        loop {
            match TcpListener::bind(own.as_str()).and_then(|l| l.set_nonblocking(true).map(|()| l)) {
                Ok(listener) => return Ok(listener),
                // A process's own name may become known a little later than it starts.
                Err(error) if is_name(&error) => {
                    self.going(|| ClusterError::Listen { address: own.clone(), error })?;
                    std::thread::park_timeout(AGAIN);
                }
                Err(error) => return Err(ClusterError::Listen { address: own, error }),
            }
        }
    }
}

/// Whether a name could not be looked up: the standard library has no kind of its own for it.
fn is_name(error: &io::Error) -> bool {
    error.raw_os_error().is_none() && error.kind() != io::ErrorKind::InvalidInput
}
