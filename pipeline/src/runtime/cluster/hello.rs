//! The first line of each connection, and its answer.
//!
//! ```text
//!  caller:    drivetrain-cluster 1 <kind> <process> <processes> <workers> <version> <configuration> <run>
//!  answer:    welcome <run>  |  later <reason>  |  refused <reason>
//! ```
//!
//! It is text of a fixed form, so that processes of different versions understand each other's refusal. `run` is a number
//! that the leader draws at its start; a caller that does not know it yet says 0. It keeps apart what was left over from
//! before a restart: who is greeted with another run is told to call again later.

use super::ClusterError;
use super::{Peer, Shape};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Protocol of hello, control and link together.
const MAGIC: &str = "drivetrain-cluster 1";
/// A line is shorter than that.
const LONGEST: usize = 1024;
/// How long somebody who has called may take to say who he is: others wait meanwhile.
const SLOW: Duration = Duration::from_secs(2);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Follower to leader: heartbeats and the end.
    Control,
    /// Follower to leader: the workers' input and results.
    Link,
    /// Each process to those before it: timely's own.
    Data,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Control => "control",
            Kind::Link => "link",
            Kind::Data => "data",
        }
    }
}

/// What must be the same in all processes, and who this one is.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) shape: Shape,
    /// Of each process.
    pub(super) workers: usize,
    /// Hash of all that the workers' results and messages depend on.
    pub(super) config: String,
}

/// How a call went.
pub(super) enum Answer {
    Welcome { run: u64 },
    Later(String),
    Refused(String),
}

impl Identity {
    /// Says who calls and waits for the answer, as long as `going` says so.
    pub(super) fn call(
        &self,
        stream: &mut TcpStream,
        kind: Kind,
        run: u64,
        going: impl Fn() -> bool,
    ) -> io::Result<Answer> {
        let Self { shape, workers, config } = self;
        let (process, processes, version) = (shape.process, shape.processes(), env!("CARGO_PKG_VERSION"));
        let kind = kind.name();
        stream.write_all(
            format!("{MAGIC} {kind} {process} {processes} {workers} {version} {config} {run}\n").as_bytes(),
        )?;
        let line = read_line(stream, going)?;
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match (word, rest.parse()) {
            ("welcome", Ok(run)) => Ok(Answer::Welcome { run }),
            ("later", _) => Ok(Answer::Later(rest.to_string())),
            ("refused", _) => Ok(Answer::Refused(rest.to_string())),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "what answers there is not drivetrain")),
        }
    }

    /// Reads who calls and answers. `None`: it is no process of ours (a port scanner), or it is to call again.
    ///
    /// # Errors
    /// [`ClusterError::Differs`] when it is a process of this cluster that runs another job; it has been told.
    pub(super) fn answer(&self, stream: &mut TcpStream, run: u64) -> Result<Option<(Kind, usize)>, ClusterError> {
        let until = Instant::now() + SLOW;
        let Ok(line) = read_line(stream, || Instant::now() < until) else { return Ok(None) };
        let Some(rest) = line.strip_prefix("drivetrain-cluster ") else {
            tracing::debug!(line, "somebody called who is no process of this job");
            return Ok(None);
        };
        let words: Vec<&str> = rest.split(' ').collect();
        let number = |i: usize| words.get(i).and_then(|word| word.parse::<usize>().ok());
        let process = number(2).unwrap_or(usize::MAX);
        if let Some(text) = self.difference(&words, process) {
            let told = stream.write_all(format!("refused {}\n", text.1).as_bytes());
            drop(told);
            let host = stream.peer_addr().map_or_else(|_| "unknown".into(), |a| a.to_string());
            return Err(ClusterError::Differs { peer: Peer { process, host }, text: text.0 });
        }
        let kinds = [Kind::Control, Kind::Link, Kind::Data];
        let Some(kind) = kinds.into_iter().find(|kind| words.get(1) == Some(&kind.name())) else { return Ok(None) };
        // The first call is that for control, at the leader.
        let known = words.get(7).is_some_and(|word| *word == run.to_string());
        if !known && kind != Kind::Control {
            drop(stream.write_all(b"later another run is ending here\n"));
            return Ok(None);
        }
        let answered = stream.write_all(format!("welcome {run}\n").as_bytes());
        Ok(answered.is_ok().then_some((kind, process)))
    }

    /// In what a caller differs: said of it here, and said of this process there.
    fn difference(&self, words: &[&str], process: usize) -> Option<(String, String)> {
        let word = |i: usize| words.get(i).copied().unwrap_or("nothing");
        let (processes, workers) = (self.shape.processes().to_string(), self.workers.to_string());
        let checks = [
            ("speaks another protocol", 0, "1", "run the same version everywhere"),
            ("is of another version", 5, env!("CARGO_PKG_VERSION"), "run the same version everywhere"),
            ("counts other processes", 3, &processes, "give every process the same --processes and --hosts"),
            ("has another number of workers", 4, &workers, "give every process the same --workers"),
            ("runs another configuration", 6, &self.config, "give every process the same --config (and --at)"),
        ];
        for (what, place, ours, remedy) in checks {
            let theirs = word(place);
            if theirs != ours {
                let text = |one: &str, other: &str| format!("{what} ({one}, not {other}); {remedy}");
                return Some((text(theirs, ours), text(ours, theirs)));
            }
        }
        let wrong = process == 0 || process >= self.shape.processes();
        wrong.then(|| {
            let text = "is no process that may call here; give each its own --process, below --processes".to_string();
            (text.clone(), text)
        })
    }
}

/// Reads up to the line's end and not a byte further: what follows is another's.
fn read_line(stream: &mut TcpStream, going: impl Fn() -> bool) -> io::Result<String> {
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let (mut line, mut byte) = (Vec::new(), [0]);
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) => line.push(byte[0]),
            Err(e) if is_timeout(&e) && going() => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if line.len() > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    stream.set_read_timeout(None)?;
    String::from_utf8(line).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Whether a read has only found nothing yet.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn identity(process: usize) -> Identity {
        let shape = Shape { process, hosts: vec!["a:1".into(), "b:1".into()], listen: None };
        Identity { shape, workers: 2, config: "c0ffee".into() }
    }

    /// What the leader of run 7 makes of a caller, and what that one gets to read.
    fn called(call: impl FnOnce(&mut TcpStream) + Send) -> (Result<Option<(Kind, usize)>, ClusterError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut here, _) = listener.accept().unwrap();
        call(&mut caller);
        let answer = identity(0).answer(&mut here, 7);
        drop(here);
        let mut text = String::new();
        drop(caller.read_to_string(&mut text));
        (answer, text)
    }

    #[test]
    fn members_are_greeted_and_what_follows_is_left_alone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut here, _) = listener.accept().unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| identity(1).call(&mut caller, Kind::Control, 0, || true).unwrap());
            assert_eq!(identity(0).answer(&mut here, 7).unwrap(), Some((Kind::Control, 1)));
            here.write_all(b"more").unwrap();
            assert!(matches!(thread.join().unwrap(), Answer::Welcome { run: 7 }));
        });
        drop(here);
        let mut rest = String::new();
        caller.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "more");
    }

    #[test]
    fn strangers_and_leftovers_are_sent_away() {
        let line = |kind: &str, process: usize, run: u64| {
            format!("{MAGIC} {kind} {process} 2 2 {} c0ffee {run}\n", env!("CARGO_PKG_VERSION"))
        };
        for (said, answer) in [
            ("GET / HTTP/1.1\r\n\r\n".to_string(), ""),
            ("\u{0}".repeat(5000), ""),
            (String::new(), ""),
            (line("link", 1, 6), "later"),
            (line("data", 1, 0), "later"),
            (line("gossip", 1, 7), ""),
        ] {
            let (came, text) = called(|caller| drop(caller.write_all(said.as_bytes())));
            assert!(matches!(came, Ok(None)), "{said:?}: {came:?}");
            assert!(if answer.is_empty() { text.is_empty() } else { text.starts_with(answer) }, "{said:?}: {text:?}");
        }
        for (said, ours, theirs) in [
            (line("control", 1, 0).replace("c0ffee", "beef"), "(beef, not c0ffee)", "(c0ffee, not beef)"),
            (line("control", 1, 0).replace("cluster 1", "cluster 2"), "(2, not 1)", "(1, not 2)"),
            (line("control", 2, 0), "give each its own --process", "give each its own --process"),
            (line("control", 0, 0), "give each its own --process", "give each its own --process"),
        ] {
            let (came, text) = called(|caller| caller.write_all(said.as_bytes()).unwrap());
            let error = came.unwrap_err().to_string();
            assert!(error.contains(ours) && text.starts_with("refused ") && text.contains(theirs), "{error}; {text}");
        }
    }
}
