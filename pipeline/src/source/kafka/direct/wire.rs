//! The little of Kafka's protocol that reading takes: ApiVersions 0 and Fetch 13 (KIP-516: topics by their ids).
//!
//! ```text
//! frame     length i32 | header | body
//! request   key i16 | version i16 | correlation i32 | client id | tags (Fetch)
//! answer    correlation i32 | tags (Fetch)
//! ```
//!
//! Field by field as in Kafka's `FetchRequest.json` and `FetchResponse.json`. Whatever does not have that form is [`Malformed`].

/// An answer that is not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

pub(super) const FETCH: i16 = 1;
/// The first version that names topics by their ids: what comes is never of a namesake.
pub(super) const FETCH_VERSION: i16 = 13;
const API_VERSIONS: i16 = 18;
const CLIENT: &str = "drivetrain";
const READ_COMMITTED: u8 = 1;

/// 16 bytes, as they stand in the protocol.
pub(super) type TopicId = [u8; 16];

/// A partition to fetch from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) topic: TopicId,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// How much is asked for, and for how long the broker may wait until there is something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) wait_ms: i32,
    /// Of a partition, compressed.
    pub(super) partition_bytes: i32,
}

/// All that one answer may hold, compressed.
const MOST: i32 = 64 << 20;

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as i16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The length of an array of the newer versions, which is written plus one.
fn put_length(out: &mut Vec<u8>, length: usize) {
    let mut rest = length + 1;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn framed(key: i16, version: i16, correlation: i32, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&correlation.to_be_bytes());
    put_string(&mut out, CLIENT);
    body(&mut out);
    let length = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

pub(super) fn ask_versions(correlation: i32) -> Vec<u8> {
    framed(API_VERSIONS, 0, correlation, |_| ())
}

/// The largest version of Fetch that the broker knows; None: it knows none. Of an answer without its length.
pub(super) fn fetch_version(answer: &[u8], correlation: i32) -> Result<Option<i16>, Malformed> {
    let mut rest = Reader(answer);
    if rest.i32()? != correlation || rest.i16()? != 0 {
        return Err(Malformed);
    }
    for _ in 0..rest.i32()? {
        let (key, _least, most) = (rest.i16()?, rest.i16()?, rest.i16()?);
        if key == FETCH {
            return Ok(Some(most));
        }
    }
    Ok(None)
}

/// `asked`: partitions of one topic one after the other.
pub(super) fn fetch(correlation: i32, limits: Limits, asked: &[Ask]) -> Vec<u8> {
    framed(FETCH, FETCH_VERSION, correlation, |out| {
        out.push(0);
        out.extend_from_slice(&(-1i32).to_be_bytes());
        out.extend_from_slice(&limits.wait_ms.to_be_bytes());
        out.extend_from_slice(&1i32.to_be_bytes());
        out.extend_from_slice(&MOST.to_be_bytes());
        out.push(READ_COMMITTED);
        // No session: each request says all.
        out.extend_from_slice(&0i32.to_be_bytes());
        out.extend_from_slice(&(-1i32).to_be_bytes());
        put_length(out, asked.chunk_by(|a, b| a.topic == b.topic).count());
        for topic in asked.chunk_by(|a, b| a.topic == b.topic) {
            topic.first().into_iter().for_each(|ask| out.extend_from_slice(&ask.topic));
            put_length(out, topic.len());
            for ask in topic {
                out.extend_from_slice(&ask.partition.to_be_bytes());
                out.extend_from_slice(&(-1i32).to_be_bytes());
                out.extend_from_slice(&ask.offset.to_be_bytes());
                out.extend_from_slice(&(-1i32).to_be_bytes());
                out.extend_from_slice(&(-1i64).to_be_bytes());
                out.extend_from_slice(&limits.partition_bytes.to_be_bytes());
                out.push(0);
            }
            out.push(0);
        }
        put_length(out, 0);
        put_length(out, 0);
        out.push(0);
    })
}

/// What an answer says of one partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fetched<'a> {
    pub(super) topic: TopicId,
    pub(super) partition: i32,
    pub(super) error: i16,
    /// Behind the last record that may be read.
    pub(super) stable: i64,
    /// (producer, first offset) of the transactions that were aborted, ascending by offset.
    pub(super) aborted: Vec<(i64, i64)>,
    /// Record batches, of which the last may be cut off.
    pub(super) records: &'a [u8],
}

/// An answer to [`fetch`], without its length. The error code is that of the whole answer.
pub(super) fn fetched(answer: &[u8], correlation: i32) -> Result<(i16, Vec<Fetched<'_>>), Malformed> {
    let mut rest = Reader(answer);
    if rest.i32()? != correlation {
        return Err(Malformed);
    }
    rest.tags()?;
    let (_throttled, error, _session) = (rest.i32()?, rest.i16()?, rest.i32()?);
    let mut all = Vec::new();
    for _ in 0..rest.length()?.unwrap_or(0) {
        let topic = rest.take(16)?.try_into().map_err(|_| Malformed)?;
        for _ in 0..rest.length()?.unwrap_or(0) {
            all.push(rest.partition(topic)?);
        }
        rest.tags()?;
    }
    Ok((error, all))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    fn unsigned(&mut self) -> Result<usize, Malformed> {
        let mut value = 0usize;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }

    /// None: null.
    fn length(&mut self) -> Result<Option<usize>, Malformed> {
        Ok(self.unsigned()?.checked_sub(1))
    }

    /// Fields that a newer version may have put here.
    fn tags(&mut self) -> Result<(), Malformed> {
        for _ in 0..self.unsigned()? {
            self.unsigned()?;
            let size = self.unsigned()?;
            self.take(size)?;
        }
        Ok(())
    }

    fn partition(&mut self, topic: TopicId) -> Result<Fetched<'a>, Malformed> {
        let (partition, error) = (self.i32()?, self.i16()?);
        let (_high, stable, _start) = (self.i64()?, self.i64()?, self.i64()?);
        let mut aborted = Vec::new();
        for _ in 0..self.length()?.unwrap_or(0) {
            aborted.push((self.i64()?, self.i64()?));
            self.tags()?;
        }
        aborted.sort_unstable_by_key(|(_, first)| *first);
        let _replica = self.i32()?;
        let size = self.length()?.unwrap_or(0);
        let records = self.take(size)?;
        self.tags()?;
        Ok(Fetched { topic, partition, error, stable, aborted, records })
    }
}

/// The 16 bytes of an id as Kafka prints it: 22 characters of base64, of either alphabet.
pub(super) fn topic_id(text: &str) -> Option<TopicId> {
    let mut bits = 0u128;
    let text = text.trim_end_matches('=').as_bytes();
    if text.len() != 22 {
        return None;
    }
    for (i, c) in text.iter().enumerate() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        // 22 characters have four bits too many; they are the last.
        bits = if i == 21 { bits << 2 | u128::from(six >> 4) } else { bits << 6 | u128::from(six) };
    }
    Some(bits.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_read_as_kafka_prints_it() {
        // Kafka's `Uuid.toString` of 0123456789abcdef fedcba9876543210.
        let id = 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210u128.to_be_bytes();
        assert_eq!(topic_id("ASNFZ4mrze_-3LqYdlQyEA"), Some(id));
        assert_eq!(topic_id("ASNFZ4mrze/+3LqYdlQyEA=="), Some(id));
        assert_eq!(topic_id("ASNFZ4mrze/+3LqYdlQyE"), None);
    }

    /// Number, aborted transactions, records.
    type Answered = (i32, Vec<(i64, i64)>, Vec<u8>);

    /// An answer as a broker writes it, with tagged fields that we do not know.
    fn answer(partitions: &[Answered]) -> Vec<u8> {
        let mut out = 7i32.to_be_bytes().to_vec();
        out.push(0);
        out.extend([0; 4 + 2 + 4]);
        put_length(&mut out, 1);
        out.extend([9; 16]);
        put_length(&mut out, partitions.len());
        for (partition, aborted, records) in partitions {
            out.extend(partition.to_be_bytes());
            out.extend(0i16.to_be_bytes());
            [50i64, 40, 0].iter().for_each(|n| out.extend(n.to_be_bytes()));
            put_length(&mut out, aborted.len());
            for (producer, first) in aborted {
                out.extend(producer.to_be_bytes());
                out.extend(first.to_be_bytes());
                out.push(0);
            }
            out.extend((-1i32).to_be_bytes());
            put_length(&mut out, records.len());
            out.extend(records);
            out.extend([1, 1, 3, 7, 7, 7]);
        }
        out.extend([0, 0]);
        out
    }

    proptest! {
        #[test]
        fn an_answer_is_read_and_a_part_of_it_is_malformed(
            partitions in prop::collection::vec(
                (0i32..9, prop::collection::vec((0i64..9, 0i64..99), 0..3), prop::collection::vec(any::<u8>(), 0..200)),
                0..4,
            ),
            cut in any::<prop::sample::Index>(),
        ) {
            let bytes = answer(&partitions);
            let (error, read) = fetched(&bytes, 7).unwrap();
            prop_assert_eq!(error, 0);
            prop_assert_eq!(read.len(), partitions.len());
            for (read, (partition, aborted, records)) in read.iter().zip(&partitions) {
                let mut aborted = aborted.clone();
                aborted.sort_by_key(|(_, first)| *first);
                prop_assert_eq!((read.partition, read.stable, read.topic), (*partition, 40, [9; 16]));
                prop_assert_eq!(&read.aborted, &aborted);
                prop_assert_eq!(read.records, &records[..]);
            }
            // The last byte is a count of tags that nobody needs.
            let cut = cut.index(bytes.len() - 1);
            prop_assert_eq!(fetched(&bytes[..cut], 7).err(), Some(Malformed));
            prop_assert_eq!(fetched(&bytes, 8).err(), Some(Malformed));
        }

        #[test]
        fn damage_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = fetched(&bytes, 0);
            let _ = fetch_version(&bytes, 0);
        }
    }

    #[test]
    fn a_request_names_each_topic_once() {
        let ask = |topic: u8, partition| Ask { topic: [topic; 16], partition, offset: 5 };
        let limits = Limits { wait_ms: 100, partition_bytes: 1000 };
        let one = fetch(1, limits, &[ask(1, 0), ask(1, 1)]);
        let two = fetch(1, limits, &[ask(1, 0), ask(2, 1)]);
        assert_eq!(two.len() - one.len(), 16 + 1 + 1);
        for request in [one, two] {
            assert_eq!(request[..4], (request.len() as i32 - 4).to_be_bytes());
        }
    }
}
