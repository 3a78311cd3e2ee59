//! The control connection between the leader and a follower: who lives, who wants to stop, how it ended.
//!
//! ```text
//!  B                 I live (each second, both ways)
//!  S                 follower ► leader: a signal asked me to stop; stop the job
//!  E                 leader ► follower: everything is done, end well
//!  F <len u16> text  both ways: I end, and this is why
//! ```
//!
//! It has one thread, which does nothing that can wait: reads have a timeout, and what is written is a few bytes.

use super::fate::{End, Fate, RESTART};
use super::hello::is_timeout;
use super::{BEAT, Peer, SILENCE};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the thread waits for something to read.
const TICK: Duration = Duration::from_millis(100);
/// How long the other side may take to close at the orderly end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Starts the thread. It ends with the orderly end; otherwise the process does. `leads`: the peer is the leader, which is
/// told when `stop` is set; else `stop` is set when the peer wants it.
pub(super) fn start(
    fate: &Arc<Fate>,
    peer: Peer,
    stream: TcpStream,
    stop: Arc<AtomicBool>,
) -> std::io::Result<JoinHandle<()>> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TICK))?;
    stream.set_write_timeout(Some(TICK))?;
    fate.attend(stream.try_clone()?);
    let control = Control { fate: fate.clone(), leads: peer.process == 0, peer, stream, stop, told: Vec::new() };
    std::thread::Builder::new().name("control".into()).spawn(move || control.run())
}

/// Tells the other side how this process ends, if it can be told.
pub(super) fn tell(mut stream: &TcpStream, end: &End) {
    let bytes = match end {
        Ok(()) => vec![b'E'],
        Err(text) => {
            let text = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
            let mut bytes = vec![b'F'];
            bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
            bytes.extend_from_slice(text);
            bytes
        }
    };
    // Whoever is gone has reasons of its own.
    drop(stream.write_all(&bytes));
}

struct Control {
    fate: Arc<Fate>,
    peer: Peer,
    leads: bool,
    stream: TcpStream,
    stop: Arc<AtomicBool>,
    /// Bytes that were read and not understood yet.
    told: Vec<u8>,
}

impl Control {
    fn run(mut self) {
        let mut heard = Instant::now();
        let mut beaten: Option<Instant> = None;
        let mut turn = Instant::now();
        let mut asked = false;
        loop {
            if let Some(end) = self.fate.end().cloned() {
                return self.part(&end);
            }
            if beaten.is_none_or(|at| at.elapsed() >= BEAT) {
                // When it fails, reading finds out why.
                drop(self.stream.write_all(b"B"));
                beaten = Some(Instant::now());
            }
            if self.leads && !asked && self.stop.load(Ordering::Relaxed) {
                asked = self.stream.write_all(b"S").is_ok();
            }
            let came = self.read();
            // A process that was itself stopped, or its machine, has heard nothing meanwhile: that is nobody's silence.
            let pause = turn.elapsed();
            turn = Instant::now();
            if pause > BEAT {
                heard += pause;
            }
            match came {
                Some(true) => heard = Instant::now(),
                Some(false) if heard.elapsed() > SILENCE => self.silent(),
                Some(false) => {}
                None if self.fate.end().is_some() => return,
                None => self.gone(),
            }
        }
    }

    /// Whether something was heard; `None`: the connection is closed.
    fn read(&mut self) -> Option<bool> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => None,
            Ok(n) => {
                self.told.extend_from_slice(bytes.get(..n).unwrap_or_default());
                self.understand();
                Some(true)
            }
            Err(e) if is_timeout(&e) || e.kind() == std::io::ErrorKind::Interrupted => Some(false),
            Err(_) => None,
        }
    }

    fn understand(&mut self) {
        for said in parse(&mut self.told) {
            match said {
                Said::Lives => {}
                Said::Stop => self.stop.store(true, Ordering::Relaxed),
                Said::End => self.fate.conclude(Ok(())),
                Said::Failed(text) => self.failed(&text),
            }
        }
    }

    /// Says how it ended and waits until the other side has closed: before that it may not have read it.
    fn part(&mut self, end: &End) {
        tell(&self.stream, end);
        drop(self.stream.shutdown(Shutdown::Write));
        let until = Instant::now() + FAREWELL;
        let mut bytes = [0; 256];
        while Instant::now() < until {
            match self.stream.read(&mut bytes) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if is_timeout(&e) => {}
                Err(_) => return,
            }
        }
    }

    fn failed(&self, text: &str) {
        self.fate.fail(&format!("{} ended: {text}", self.peer))
    }

    fn gone(&self) {
        self.fate
            .fail(&format!("{} has gone: it was killed, or its machine or the network is down; {RESTART}", self.peer))
    }

    fn silent(&self) {
        let seconds = SILENCE.as_secs();
        self.fate.fail(&format!(
            "{} was not heard for {seconds} s: it is stopped, or the network is cut; {RESTART}",
            self.peer
        ))
    }
}

/// What stands on a control connection.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Lives,
    Stop,
    End,
    Failed(String),
}

/// Takes what is complete out of the bytes that have come.
fn parse(told: &mut Vec<u8>) -> Vec<Said> {
    let (mut said, mut rest) = (Vec::new(), told.as_slice());
    while let Some((tag, behind)) = rest.split_first() {
        rest = match tag {
            b'S' => {
                said.push(Said::Stop);
                behind
            }
            b'E' => {
                said.push(Said::End);
                behind
            }
            b'F' => {
                let Some((text, behind)) = text(behind) else { break };
                said.push(Said::Failed(text));
                behind
            }
            _ => {
                said.push(Said::Lives);
                behind
            }
        };
    }
    *told = rest.to_vec();
    said
}

/// A text behind its length, and what stands behind it.
fn text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((String::from_utf8_lossy(text).into_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the network cuts it.
    #[test]
    fn what_is_said_is_understood_in_any_pieces() {
        let bytes = b"BSF\0\x03EBSBE";
        let expected = [Said::Lives, Said::Stop, Said::Failed("EBS".into()), Said::Lives, Said::End];
        for size in 1..=bytes.len() {
            let (mut told, mut said) = (Vec::new(), Vec::new());
            for piece in bytes.chunks(size) {
                told.extend_from_slice(piece);
                said.extend(parse(&mut told));
            }
            assert_eq!(said, expected, "pieces of {size}");
            assert!(told.is_empty());
        }
    }
}
