//! Batches of messages in librdkafka's own memory, and the queue of a partition that hands them out.
//!
//! All of this folder's dealings with raw pointers are here and in `topics`.

use super::client::Consumer;
use crate::source::chunk::{Chunk, ChunkData};
use crate::source::error::SourceError;
use crate::source::feed::{Fed, Feed};
use drivetrain_schemas::decode::{Body, CsvHeader, Record};
use drivetrain_schemas::prefetch::{prefetch, prefetch_slice};
use drivetrain_schemas::reading::Origin;
use rdkafka::bindings as rd;
use rdkafka::types::RDKafkaErrorCode;
use std::ffi::{CStr, CString, c_void};
use std::ops::Range;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::thread::Thread;

type Code = rd::rd_kafka_resp_err_t;

/// Consecutive messages of one partition. Owned: freed when dropped.
pub struct MessageBatch {
    /// Each from `rd_kafka_consume_batch_queue`, without an error, not null, and destroyed exactly once, here.
    messages: Vec<NonNull<rd::rd_kafka_message_t>>,
    wants_headers: bool,
    /// Messages must not outlive their client; fields are dropped after `Drop::drop` has freed the messages.
    consumer: Arc<Consumer>,
}

// SAFETY: a consumed message belongs to whoever got it; librdkafka counts its references to buffer and partition
// atomically and lets any thread read or destroy it. (Not `Sync`: reading headers parses them in place.)
unsafe impl Send for MessageBatch {}

impl Drop for MessageBatch {
    fn drop(&mut self) {
        for message in &self.messages {
            // SAFETY: owned and not destroyed before (see `messages`); the client is alive.
            unsafe { rd::rd_kafka_message_destroy(message.as_ptr()) }
        }
    }
}

impl std::fmt::Debug for MessageBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, last) = (self.position(0), self.position(self.len().saturating_sub(1)));
        write!(f, "MessageBatch({first:?}..={last:?})")
    }
}

impl MessageBatch {
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Offset of message `i`.
    pub fn position(&self, i: usize) -> Option<i64> {
        // SAFETY: the message is alive as long as `self`, and `offset` is only read.
        self.messages.get(i).map(|m| unsafe { (*m.as_ptr()).offset })
    }

    pub(crate) fn split_off(&mut self, n: usize) -> Self {
        let messages = self.messages.split_off(n.min(self.messages.len()));
        Self { messages, wants_headers: self.wants_headers, consumer: self.consumer.clone() }
    }

    /// Asks for the memory of the messages behind `i`: of a near one's value, and of a farther one's head.
    #[inline]
    fn ask(&self, i: usize) {
        if let Some(far) = self.messages.get(i + 8) {
            // SAFETY: messages are alive as long as `self`; nothing is read.
            prefetch(unsafe { far.as_ref() });
        }
        if let Some(near) = self.messages.get(i + 3) {
            // SAFETY: the same, and the fields read are set when it is made.
            let payload = unsafe { bytes(near.as_ref().payload, near.as_ref().len) };
            payload.into_iter().for_each(prefetch_slice);
        }
    }

    pub(crate) fn visit(
        &self,
        range: Range<usize>,
        origin: &Arc<Origin>,
        csv: Option<&Arc<CsvHeader>>,
        f: &mut impl FnMut(Record<'_>),
    ) {
        let mut headers = Vec::new();
        let messages = self.messages.get(range.start..range.end.min(self.len())).unwrap_or_default();
        for (i, message) in (range.start..).zip(messages) {
            self.ask(i);
            // SAFETY: the message is alive as long as `self`, nobody else refers to it (the batch is not `Sync`), and
            // the fields read here are set when it is made.
            let m = unsafe { message.as_ref() };
            // SAFETY: librdkafka's pointer and length of a key or payload, which live as long as the message.
            let (key, payload) = unsafe { (bytes(m.key, m.key_len), bytes(m.payload, m.len)) };
            headers.clear();
            if self.wants_headers {
                read_headers(m, &mut headers);
            }
            let body = Body::of_message(payload, csv);
            let timestamp = timestamp(m);
            f(Record { origin, position: m.offset, timestamp, key, headers: &headers, body });
        }
    }
}

/// # Safety
/// `data` is null or points to `len` bytes that live as long as `'a`.
unsafe fn bytes<'a>(data: *mut c_void, len: usize) -> Option<&'a [u8]> {
    // SAFETY: as promised by the caller.
    (!data.is_null()).then(|| unsafe { std::slice::from_raw_parts(data.cast::<u8>().cast_const(), len) })
}

/// The message's timestamp, µs.
fn timestamp(message: &rd::rd_kafka_message_t) -> Option<i64> {
    let mut kind = rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is valid, and `kind` is a place for the answer.
    let millis = unsafe { rd::rd_kafka_message_timestamp(message, &mut kind) };
    let known = kind != rd::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && millis >= 0;
    known.then(|| millis.saturating_mul(1000))
}

fn read_headers<'a>(message: &'a rd::rd_kafka_message_t, headers: &mut Vec<(&'a str, Option<&'a [u8]>)>) {
    let mut list = null_mut();
    // SAFETY: the message is valid; the list stays the message's own and lives as long as it.
    let code = unsafe { rd::rd_kafka_message_headers(message, &mut list) };
    if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR || list.is_null() {
        return;
    }
    for i in 0.. {
        let (mut name, mut value, mut len) = (std::ptr::null(), std::ptr::null(), 0);
        // SAFETY: `list` is valid, and the three are places for the answer.
        let code = unsafe { rd::rd_kafka_header_get_all(list, i, &mut name, &mut value, &mut len) };
        if code != Code::RD_KAFKA_RESP_ERR_NO_ERROR || name.is_null() {
            return;
        }
        // SAFETY: names end with a zero byte; values have `len` bytes; both live as long as the message.
        let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value.cast_mut(), len)) };
        // A name that is not UTF-8 can't be asked for in a mapping.
        if let Ok(name) = name.to_str() {
            headers.push((name, value));
        }
    }
}

/// The queue of one partition, cut off from the consumer's common one.
pub(crate) struct PartitionFeed {
    topic: CString,
    queue: NonNull<rd::rd_kafka_queue_t>,
    /// What librdkafka's callback unparks; boxed, so that its address stays.
    wake: Box<Thread>,
    source: u16,
    origin: Arc<Origin>,
    header: Option<Arc<CsvHeader>>,
    wants_headers: bool,
    /// Room for the pointers of a batch.
    room: Vec<*mut rd::rd_kafka_message_t>,
    consumer: Arc<Consumer>,
}

// SAFETY: librdkafka's queues may be used from any thread; the raw pointers in `room` are only scratch space.
unsafe impl Send for PartitionFeed {}

impl Drop for PartitionFeed {
    fn drop(&mut self) {
        // SAFETY: the queue is ours until here. Disabling the event first means that no callback runs when `wake`,
        // which it points to, is dropped (librdkafka holds the queue's lock for both).
        unsafe {
            rd::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, null_mut());
            rd::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

unsafe extern "C" fn wake_up(_client: *mut rd::rd_kafka_t, thread: *mut c_void) {
    // SAFETY: the pointer given with this callback is a `Thread` that lives until the callback is disabled.
    unsafe { (*thread.cast::<Thread>()).unpark() }
}

impl PartitionFeed {
    /// Cuts the partition's queue off from the common one. To be done before the partition is assigned: then
    /// librdkafka leaves it so, and no message ever goes astray.
    pub(crate) fn split(
        consumer: &Arc<Consumer>,
        source: u16,
        origin: Arc<Origin>,
        header: Option<Arc<CsvHeader>>,
        wants_headers: bool,
        wake: Thread,
    ) -> Result<Self, SourceError> {
        let name = CString::new(&*origin.name).map_err(|e| SourceError::Client(format!("topic name: {e}")))?;
        let client = consumer.native();
        // SAFETY: the client is alive; the name ends with a zero byte and is only read during the call.
        let queue = unsafe { rd::rd_kafka_queue_get_partition(client, name.as_ptr(), origin.partition) };
        let queue = NonNull::new(queue)
            .ok_or_else(|| SourceError::Client(format!("{}/{}: no such partition", origin.name, origin.partition)))?;
        let wake = Box::new(wake);
        // SAFETY: the queue is valid; `wake` is boxed and outlives the callback (see `drop`); the callback does not call
        // librdkafka.
        unsafe {
            rd::rd_kafka_queue_forward(queue.as_ptr(), null_mut());
            let thread = std::ptr::from_ref::<Thread>(&wake).cast_mut().cast::<c_void>();
            rd::rd_kafka_queue_cb_event_enable(queue.as_ptr(), Some(wake_up), thread);
        }
        let consumer = consumer.clone();
        Ok(Self { topic: name, queue, wake, source, origin, header, wants_headers, room: Vec::new(), consumer })
    }

    /// What a message that is not one says. True when the partition has been read to its end for now.
    fn event(&self, message: &rd::rd_kafka_message_t) -> Result<bool, SourceError> {
        // SAFETY: the message is valid; its text lives as long as it and ends with a zero byte.
        let text = unsafe {
            let text = rd::rd_kafka_message_errstr(message);
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        };
        let (topic, partition) = (self.origin.name.to_string(), self.origin.partition);
        match message.err {
            Code::RD_KAFKA_RESP_ERR__PARTITION_EOF => return Ok(true),
            Code::RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET | Code::RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE => {
                return Err(SourceError::Truncated { topic, partition, offset: message.offset, reason: text });
            }
            Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC
            | Code::RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION
            | Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART => return Err(SourceError::UnknownTopic { topic }),
            Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED => {
                return Err(SourceError::Client(format!("{topic}: {text}; allow the client to read the topic")));
            }
            code => {
                let code = RDKafkaErrorCode::from(code);
                tracing::warn!(topic, partition, ?code, text, "kafka: passing trouble, retried by the client");
            }
        }
        Ok(false)
    }
}

impl Feed for PartitionFeed {
    fn next(&mut self, max: usize) -> Result<Fed, SourceError> {
        self.room.resize(max.max(1), null_mut());
        // SAFETY: `room` has that many places; what is written there is ours to destroy.
        let n = unsafe {
            rd::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, self.room.as_mut_ptr(), self.room.len())
        };
        let got = usize::try_from(n).unwrap_or(0);
        let mut batch = MessageBatch {
            messages: Vec::with_capacity(got),
            wants_headers: self.wants_headers,
            consumer: self.consumer.clone(),
        };
        let (mut caught_up, mut failed) = (false, None);
        for pointer in self.room.iter().take(got) {
            let Some(message) = NonNull::new(*pointer) else { continue };
            // SAFETY: just handed to us and valid.
            let m = unsafe { message.as_ref() };
            if m.err == Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                caught_up = false;
                batch.messages.push(message);
                continue;
            }
            match self.event(m) {
                Ok(end) => caught_up |= end,
                Err(error) => failed = failed.or(Some(error)),
            }
            // SAFETY: ours, and not put into the batch.
            unsafe { rd::rd_kafka_message_destroy(message.as_ptr()) }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        if batch.is_empty() {
            return Ok(if caught_up { Fed::CaughtUp } else { Fed::Nothing });
        }
        let data = ChunkData::Kafka { messages: batch, header: self.header.clone() };
        let origin = self.origin.clone();
        Ok(Fed::Chunk {
            chunk: Chunk { source: self.source, partition: origin.clone(), origin, data },
            last: caught_up,
        })
    }

    /// As of the broker's last answer.
    fn known_end(&self) -> Option<i64> {
        let (client, partition) = (self.consumer.native(), self.origin.partition);
        let (mut low, mut high) = (0, 0);
        // SAFETY: the client is alive, the name ends with a zero byte, the two are places for the answer. No request is made.
        let code =
            unsafe { rd::rd_kafka_get_watermark_offsets(client, self.topic.as_ptr(), partition, &mut low, &mut high) };
        (code == Code::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0).then_some(high)
    }
}

impl std::fmt::Debug for PartitionFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PartitionFeed({:?}, wakes {:?})", self.origin, self.wake.id())
    }
}
