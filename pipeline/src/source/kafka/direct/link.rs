//! A connection to one broker, and the thread that fetches from it.
//!
//! ```text
//!  ask ─► answer ─► where each partition goes on ─► ask for more ─► unpack, queue ─► the next answer …
//! ```
//!
//! So the broker works on the next answer while this one is unpacked. A partition whose queue is full is not asked for.

use super::batch::{Aborted, Batch, batches, committed};
use super::wire::{self, Ask, FETCH_VERSION, Fetched, Limits};
use super::{Partition, Shared};
use crate::source::error::SourceError;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a broker may be silent beyond what it was allowed to wait.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a thread that reads looks whether it is to stop.
const GLANCE: Duration = Duration::from_millis(250);
const CONNECT: Duration = Duration::from_secs(5);
/// How long a broker waits at most that was not asked for all partitions, because some were full: they may have room soon.
const SOON_MS: i32 = 2;
/// Longest pause before it is tried again.
const LONGEST: Duration = Duration::from_secs(1);
/// Unpacked bytes from which on a block is full.
const FULL: usize = 4 << 20;
/// Nothing that a broker says is longer.
const LARGEST: usize = 1 << 30;

/// Host and port.
pub(super) type Address = (String, u16);

/// A broker that listens.
pub(super) struct Connection {
    stream: TcpStream,
    correlation: i32,
    /// The last answer.
    answer: Vec<u8>,
    /// The largest version of Fetch that it knows; -1: none.
    pub(super) fetch_version: i16,
}

impl Connection {
    pub(super) fn open(address: &Address, timeout: Duration) -> io::Result<Self> {
        let mut last = io::Error::new(ErrorKind::NotFound, "the broker's name has no address");
        for address in (address.0.as_str(), address.1).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => return Self::greet(stream, timeout),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn greet(stream: TcpStream, timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(GLANCE))?;
        stream.set_write_timeout(Some(timeout))?;
        let mut connection = Self { stream, correlation: 0, answer: Vec::new(), fetch_version: -1 };
        connection.send(&wire::ask_versions(0))?;
        let size = connection.receive(timeout, || false)?;
        let known = wire::fetch_version(connection.answer.get(..size).unwrap_or_default(), 0);
        connection.fetch_version = known.map_err(malformed)?.unwrap_or(-1);
        Ok(connection)
    }

    fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)
    }

    /// Reads one answer and gives its length.
    fn receive(&mut self, patience: Duration, stop: impl Fn() -> bool) -> io::Result<usize> {
        let until = Instant::now() + patience;
        let mut length = [0; 4];
        fill(&mut self.stream, &mut length, until, &stop)?;
        let size = usize::try_from(i32::from_be_bytes(length)).ok().filter(|size| *size <= LARGEST);
        let size = size.ok_or_else(|| malformed(wire::Malformed))?;
        if self.answer.len() < size {
            self.answer.resize(size, 0);
        }
        fill(&mut self.stream, self.answer.get_mut(..size).unwrap_or_default(), until, &stop)?;
        Ok(size)
    }
}

fn malformed(_: wire::Malformed) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, "what the broker says is not Kafka's protocol")
}

/// Reads so many bytes; looks up now and then.
fn fill(stream: &mut TcpStream, mut into: &mut [u8], until: Instant, stop: &impl Fn() -> bool) -> io::Result<()> {
    while !into.is_empty() {
        match stream.read(into) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(n) => into = &mut into[n..],
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if stop() || Instant::now() >= until {
                    return Err(ErrorKind::TimedOut.into());
                }
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Starts the thread that fetches from a broker.
pub(super) fn start(shared: &Arc<Shared>, broker: i32) -> io::Result<()> {
    let link = Link { shared: shared.clone(), broker, connection: None, asked: Vec::new(), failures: 0 };
    std::thread::Builder::new().name(format!("kafka-link-{broker}")).spawn(move || link.run()).map(drop)
}

struct Link {
    shared: Arc<Shared>,
    broker: i32,
    connection: Option<Connection>,
    /// What the broker has been asked for and has not answered yet.
    asked: Vec<Arc<Partition>>,
    failures: u32,
}

impl Link {
    fn run(mut self) {
        while !self.shared.has_stopped() {
            let led = self.shared.led_by(self.broker);
            if self.asked.is_empty() && !led.iter().any(|p| p.has_room(&self.shared.options)) {
                let (broker, options) = (self.broker, self.shared.options);
                self.shared.wait_for_room(|p| p.leader() == broker && p.has_room(&options));
                continue;
            }
            match self.round() {
                Ok(()) => self.failures = 0,
                Err(_) if self.shared.has_stopped() => return,
                Err(error) => self.pause(&error),
            }
        }
    }

    /// The broker is gone, or says what it should not: later, and wherever the partitions are led then.
    fn pause(&mut self, error: &io::Error) {
        let broker = self.broker;
        match self.failures {
            0 => tracing::debug!(broker, %error, "kafka: the link to a broker has ended"),
            3 => tracing::warn!(broker, %error, "kafka: a broker cannot be reached; trying again"),
            _ => {}
        }
        self.connection = None;
        self.asked.clear();
        self.shared.lost(&self.shared.led_by(broker));
        let pause = Duration::from_millis(50) * 2u32.pow(self.failures.min(5));
        self.failures += 1;
        std::thread::park_timeout(pause.min(LONGEST));
    }

    fn connect(&mut self) -> io::Result<()> {
        if self.connection.is_none() {
            let address = self.shared.addresses().get(&self.broker).cloned();
            let address = address.ok_or_else(|| io::Error::new(ErrorKind::NotFound, "its address is not known"))?;
            let connection = Connection::open(&address, CONNECT)?;
            if connection.fetch_version < FETCH_VERSION {
                let (host, port) = address;
                let problem = format!(
                    "broker {host}:{port} is older than Kafka 3.1 and does not know topic ids; set kafka.reader = \"librdkafka\""
                );
                self.shared.led_by(self.broker).iter().for_each(|p| p.fail(SourceError::Client(problem.clone())));
            }
            self.connection = Some(connection);
        }
        Ok(())
    }

    /// Sends the next request, if anything has room. `coming`: partitions that have something that is not queued yet.
    fn ask(&mut self, coming: &[(Arc<Partition>, usize)]) -> io::Result<()> {
        let options = self.shared.options;
        let led = self.shared.led_by(self.broker);
        let all = led.len();
        let has_room = |p: &Arc<Partition>| {
            let more = coming.iter().find(|(other, _)| Arc::ptr_eq(other, p)).map_or(0, |(_, bytes)| *bytes);
            more < options.queue_bytes && p.has_room(&options)
        };
        let mut asked: Vec<Arc<Partition>> = led.into_iter().filter(has_room).collect();
        if asked.is_empty() {
            return Ok(());
        }
        asked.sort_by_key(|p| (p.topic, p.origin.partition));
        let wait_ms = if asked.len() == all { options.wait_ms } else { options.wait_ms.min(SOON_MS) };
        let limits = Limits { wait_ms, partition_bytes: options.partition_bytes };
        let asks: Vec<Ask> = asked.iter().map(ask_for).collect();
        let Some(connection) = &mut self.connection else { return Ok(()) };
        connection.correlation = connection.correlation.wrapping_add(1);
        connection.send(&wire::fetch(connection.correlation, limits, &asks))?;
        self.asked = asked;
        Ok(())
    }

    /// Takes one answer.
    fn round(&mut self) -> io::Result<()> {
        self.connect()?;
        if self.asked.is_empty() {
            self.ask(&[])?;
        }
        let asked = std::mem::take(&mut self.asked);
        let Some(connection) = self.connection.as_mut().filter(|_| !asked.is_empty()) else { return Ok(()) };
        let shared = self.shared.clone();
        let size = connection.receive(PATIENCE, || shared.has_stopped())?;
        let correlation = connection.correlation;
        // Taken out, so that the next request can be sent while it is read.
        let answer = std::mem::take(&mut connection.answer);
        let result = self.answered(answer.get(..size).unwrap_or_default(), correlation, &asked);
        if let Some(connection) = &mut self.connection {
            connection.answer = answer;
        }
        result
    }

    fn answered(&mut self, answer: &[u8], correlation: i32, asked: &[Arc<Partition>]) -> io::Result<()> {
        let (error, fetched) = wire::fetched(answer, correlation).map_err(malformed)?;
        if error != 0 {
            return Err(io::Error::other(format!("the broker answers with error {error}")));
        }
        let mut parts = Vec::new();
        for part in fetched {
            let of = |p: &&Arc<Partition>| p.topic == part.topic && p.origin.partition == part.partition;
            if let Some(partition) = asked.iter().find(of) {
                parts.extend(self.part(partition, part));
            }
        }
        // About three times as many bytes, unpacked.
        let coming: Vec<_> = parts.iter().map(|p| (p.partition.clone(), 3 * p.bytes)).collect();
        self.ask(&coming)?;
        let mut woken = None;
        for part in parts {
            let wake = part.partition.wake.clone();
            part.queue(&self.shared);
            woken = Some(wake);
        }
        woken.into_iter().for_each(|thread| thread.unpark());
        Ok(())
    }

    /// Where a partition goes on after this answer; None when it does not, or is to be asked for elsewhere.
    fn part<'a>(&self, partition: &Arc<Partition>, fetched: Fetched<'a>) -> Option<Part<'a>> {
        let from = partition.next.load(Ordering::Relaxed);
        if fetched.error != 0 {
            match refusal(partition, fetched.error, from) {
                Some(error) => partition.fail(error),
                None => self.shared.lost([partition]),
            }
            return None;
        }
        partition.stable.store(fetched.stable, Ordering::Relaxed);
        let batches = match batches(fetched.records) {
            Ok(batches) => batches,
            Err(damage) => {
                partition.fail(damaged(partition, from, &damage));
                return None;
            }
        };
        let next = batches.last().map_or(from, |last| last.end.max(from));
        partition.next.store(next, Ordering::Relaxed);
        let (aborted, bytes) = (Aborted::new(fetched.aborted), fetched.records.len());
        let caught_up = next >= fetched.stable;
        Some(Part { partition: partition.clone(), from, batches, aborted, bytes, caught_up })
    }
}

fn ask_for(partition: &Arc<Partition>) -> Ask {
    let offset = partition.next.load(Ordering::Relaxed);
    Ask { topic: partition.topic, partition: partition.origin.partition, offset }
}

fn damaged(partition: &Partition, offset: i64, damage: &str) -> SourceError {
    let origin = &partition.origin;
    SourceError::Client(format!("{}/{}, offset {offset}: {damage}", origin.name, origin.partition))
}

/// What is the end of the job; None: it passes, or somebody else leads now.
fn refusal(partition: &Partition, error: i16, offset: i64) -> Option<SourceError> {
    const OFFSET_OUT_OF_RANGE: i16 = 1;
    const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
    let origin = &partition.origin;
    let topic = origin.name.to_string();
    match error {
        OFFSET_OUT_OF_RANGE => {
            let reason = "the broker has no such offset".into();
            Some(SourceError::Truncated { topic, partition: origin.partition, offset, reason })
        }
        TOPIC_AUTHORIZATION_FAILED => {
            Some(SourceError::Client(format!("{topic}: not authorized; allow the client to read the topic")))
        }
        _ => {
            tracing::debug!(topic, partition = origin.partition, error, "kafka: passing trouble");
            None
        }
    }
}

/// What an answer has of one partition.
struct Part<'a> {
    partition: Arc<Partition>,
    from: i64,
    batches: Vec<Batch<'a>>,
    aborted: Aborted,
    /// Compressed.
    bytes: usize,
    caught_up: bool,
}

impl Part<'_> {
    /// Unpacks it, and puts it where the source thread finds it.
    fn queue(mut self, shared: &Shared) {
        let mut blocks = Vec::new();
        let mut rest = self.batches.as_slice();
        while !rest.is_empty() {
            let mut block = shared.pool.take();
            let (mut packed, mut count) = (0, 0);
            while let Some(batch) = rest.get(count)
                && (count == 0 || packed < FULL / 3)
            {
                packed += batch.packed();
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            rest = later;
            if let Err((offset, damage)) =
                committed(now, &mut self.aborted, self.from, shared.options.check, &mut block)
            {
                self.partition.fail(damaged(&self.partition, offset, &damage));
                return;
            }
            if !block.places.is_empty() {
                blocks.push(block);
            }
        }
        let mut queue = self.partition.queue();
        queue.bytes += blocks.iter().map(|block| block.buffer.len()).sum::<usize>();
        queue.blocks.extend(blocks);
        queue.caught_up = self.caught_up;
    }
}
