//! What goes over a link: frames of a length (u32, little-endian) and a message in postcard's form.

use crate::source::RemoteChunk;
use drivetrain_schemas::reading::Origin;
use drivetrain_schemas::records::Records;
use drivetrain_sinks::checkpoint::PackedPart;
use drivetrain_sinks::message::Output;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// From the leader. A worker is named by its number among all workers.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToFollower {
    /// Some of what an operator of a worker begins with; large ones come in several pieces.
    Restore {
        worker: usize,
        operator: String,
        records: Records,
    },
    /// That was all of it: begin. Epochs up to this one were dealt with before a restart (-1: none).
    Begin {
        after: i64,
    },
    Chunk {
        worker: usize,
        epoch: i64,
        chunk: RemoteChunk,
    },
    Epoch {
        worker: usize,
        mark: EpochMark,
    },
    /// The worker's input has ended.
    Ended {
        worker: usize,
    },
}

/// [`crate::source::ToWorker::Epoch`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct EpochMark {
    pub(super) epoch: i64,
    pub(super) wall: i64,
    pub(super) idle: Vec<Arc<Origin>>,
    pub(super) flush: bool,
    pub(super) end: bool,
    pub(super) checkpoint: bool,
}

/// From a follower: what its workers say to the committer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToLeader {
    Output {
        epoch: i64,
        output: Output,
    },
    Part {
        epoch: i64,
        part: PackedPart,
    },
    Parts {
        epoch: i64,
        done: bool,
    },
    Frontier {
        worker: usize,
        epoch: i64,
    },
    Failed(String),
    /// All its workers have ended; nothing more will come.
    Done,
}

/// Writes frames; what is written goes out at the latest with [`Self::flush`].
pub(super) struct FrameWriter<W: Write> {
    to: io::BufWriter<W>,
    room: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to: io::BufWriter::with_capacity(1 << 16, to), room: Vec::new() }
    }

    /// # Errors
    /// The connection's, and a message of 4 GiB or more.
    pub(super) fn write<T: Serialize>(&mut self, message: &T) -> io::Result<()> {
        let mut room = std::mem::take(&mut self.room);
        room.clear();
        let room = postcard::to_extend(message, room).map_err(io::Error::other)?;
        let length = u32::try_from(room.len()).map_err(|_| io::Error::other("a message of 4 GiB or more"))?;
        self.to.write_all(&length.to_le_bytes())?;
        self.to.write_all(&room)?;
        // A large message is rare: its room is not kept.
        self.room = if room.capacity() > 1 << 22 { Vec::new() } else { room };
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Reads frames.
pub(super) struct FrameReader<R: Read> {
    from: io::BufReader<R>,
    room: Vec<u8>,
}

/// Why no message came.
pub(super) enum NoMessage {
    /// The connection was closed or broke.
    Lost(io::Error),
    /// The bytes are not a message.
    Garbled(String),
}

impl<R: Read> FrameReader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from: io::BufReader::with_capacity(1 << 16, from), room: Vec::new() }
    }

    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Result<T, NoMessage> {
        let mut length = [0; 4];
        self.from.read_exact(&mut length).map_err(NoMessage::Lost)?;
        let length = u32::from_le_bytes(length) as usize;
        if self.room.len() < length || self.room.len() > 1 << 22 {
            self.room = vec![0; length];
        }
        let frame = self.room.get_mut(..length).unwrap_or_default();
        self.from.read_exact(frame).map_err(NoMessage::Lost)?;
        postcard::from_bytes(frame).map_err(|e| NoMessage::Garbled(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivetrain_schemas::row::{Cell, Row};
    use drivetrain_schemas::table::TableId;

    /// Floats are compared bit for bit.
    #[test]
    fn messages_come_back_as_they_were() {
        let mut records = Records::keyed();
        records.put(b"v1", |out| out.extend_from_slice(&[0, 255]));
        records.remove(b"v2");
        let row = Row::new(&[
            Cell::Null,
            Cell::Text("a"),
            Cell::Int(i64::MIN),
            Cell::Time(-1),
            Cell::float(-0.0),
            Cell::float(0.1 + 0.2),
            Cell::Bool(true),
            Cell::Binary(&[0, 200]),
            Cell::Json("{}"),
        ]);
        let part = drivetrain_sinks::checkpoint::Part { operator: "sequence".into(), worker: 3, records }.into();
        let messages = [
            ToLeader::Output { epoch: 7, output: Output::Rows { table: TableId::Trips, rows: vec![(row, -1)] } },
            ToLeader::Part { epoch: 7, part },
            ToLeader::Parts { epoch: 7, done: true },
            ToLeader::Frontier { worker: 3, epoch: i64::MAX },
            ToLeader::Failed("ö".into()),
            ToLeader::Done,
        ];
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::new(&mut bytes);
        messages.iter().for_each(|message| writer.write(message).unwrap());
        writer.flush().unwrap();
        drop(writer);
        let mut reader = FrameReader::new(bytes.as_slice());
        for message in &messages {
            let came: ToLeader = reader.read().unwrap_or_else(|_| panic!("{message:?}"));
            assert_eq!(format!("{message:?}"), format!("{came:?}"));
        }
        assert!(matches!(reader.read::<ToLeader>(), Err(NoMessage::Lost(_))));
        let mut cut = FrameReader::new(&bytes[..bytes.len() - 1]);
        (0..messages.len() - 1).for_each(|_| drop(cut.read::<ToLeader>()));
        assert!(matches!(cut.read::<ToLeader>(), Err(NoMessage::Lost(_))));
        let mut wrong = FrameReader::new(&[1u8, 0, 0, 0, 99][..]);
        assert!(matches!(wrong.read::<ToLeader>(), Err(NoMessage::Garbled(_))));
    }
}
