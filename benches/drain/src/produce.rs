//! Kafka's Produce request (version 7, acks of all replicas) over a connection of its own, for batches that are packed
//! already. The broker answers in order; an error ends the program's run.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

const PRODUCE: i16 = 0;
const VERSION: i16 = 7;
const TIMEOUT_MS: i32 = 30_000;
const CLIENT: &str = "pace";
/// Bytes of a partition's answer: its number, error, offset, time, and the log's start.
const ANSWER: usize = 4 + 2 + 8 + 8 + 8;

/// Writes requests; does not wait for answers.
pub struct Sender {
    connection: TcpStream,
    topic: String,
    request: Vec<u8>,
}

impl Sender {
    /// `broker` is the address of the broker that leads all partitions.
    pub fn connect(broker: &str, topic: &str) -> Result<Self, String> {
        let connection = TcpStream::connect(broker).map_err(|e| format!("{broker}: {e}"))?;
        connection.set_nodelay(true).map_err(|e| e.to_string())?;
        Ok(Self { connection, topic: topic.into(), request: Vec::new() })
    }

    pub fn answers(&self) -> Result<Answers, String> {
        Ok(Answers { connection: self.connection.try_clone().map_err(|e| e.to_string())? })
    }

    /// Ends the connection, and so the reading of answers.
    pub fn close(&self) {
        let _ = self.connection.shutdown(Shutdown::Both);
    }

    /// Sends a batch to each partition that has one. Blocks while the broker takes no more.
    pub fn send(&mut self, batches: &[Vec<u8>]) -> Result<(), String> {
        let there = batches.iter().filter(|batch| !batch.is_empty()).count();
        let request = &mut self.request;
        request.clear();
        request.extend([0; 4]);
        request.extend(PRODUCE.to_be_bytes());
        request.extend(VERSION.to_be_bytes());
        request.extend(0_i32.to_be_bytes());
        text(request, CLIENT);
        // No transaction, acks of all.
        request.extend([0xff; 4]);
        request.extend(TIMEOUT_MS.to_be_bytes());
        request.extend(1_i32.to_be_bytes());
        text(request, &self.topic);
        request.extend(length(there));
        for (partition, batch) in batches.iter().enumerate().filter(|(_, batch)| !batch.is_empty()) {
            request.extend(length(partition));
            request.extend(length(batch.len()));
            request.extend(batch);
        }
        let size = length(request.len() - 4);
        for (to, from) in request.iter_mut().zip(size) {
            *to = from;
        }
        self.connection.write_all(request).map_err(|e| format!("sending: {e}"))
    }
}

fn length(n: usize) -> [u8; 4] {
    i32::try_from(n).unwrap_or(i32::MAX).to_be_bytes()
}

fn text(into: &mut Vec<u8>, text: &str) {
    into.extend(i16::try_from(text.len()).unwrap_or(i16::MAX).to_be_bytes());
    into.extend(text.as_bytes());
}

/// Reads the answers.
pub struct Answers {
    connection: TcpStream,
}

impl Answers {
    /// Waits for one answer; says which error it has.
    pub fn next(&mut self) -> Result<(), String> {
        let mut size = [0; 4];
        self.connection.read_exact(&mut size).map_err(|e| format!("the broker's answer: {e}"))?;
        let mut answer = vec![0; u32::from_be_bytes(size) as usize];
        self.connection.read_exact(&mut answer).map_err(|e| format!("the broker's answer: {e}"))?;
        match error(&answer) {
            Some(0) => Ok(()),
            Some(code) => Err(format!("the broker answered with error {code}")),
            None => Err("the broker's answer is too short".into()),
        }
    }
}

/// The first error of an answer, 0 when there is none; None when it is too short.
fn error(answer: &[u8]) -> Option<i16> {
    // Correlation, one topic, its name, its partitions.
    let name = usize::from(u16::from_be_bytes(answer.get(8..10)?.try_into().ok()?));
    let rest = answer.get(10 + name..)?;
    let count = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?) as usize;
    for partition in 0..count {
        let code = rest.get(4 + ANSWER * partition + 4..)?.get(..2)?;
        let code = i16::from_be_bytes(code.try_into().ok()?);
        if code != 0 {
            return Some(code);
        }
    }
    Some(0)
}
