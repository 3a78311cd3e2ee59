//! The whole decoder against serde_json: the same verdict on each document, and the same values.
//!
//! `FUZZ` documents (100,000) of several sources, some whole and some damaged, go through one decoder a source, so that
//! what it remembers from one record to the next is tried, too. Each answer is compared with that of a plain decoder
//! that reads with serde_json ([`reference`]); every fourth time its tree is compared with serde_json's `Value`, too.
//! `FUZZ_SEED` makes another run of it:
//!
//! ```text
//! FUZZ=10000000 FUZZ_SEED=7 cargo test --release -p drivetrain-schemas --test decode_fuzz
//! ```
//!
//! Where the two differ by design, and the plain decoder follows ours:
//! - numbers beyond the doubles are numbers (serde_json calls `1e400` out of range; its own syntax check does not);
//! - 128 containers may be open at once (serde_json: 127);
//! - a text of ASCII white space only is `empty`, also one of form feeds;
//! - a record that is too large or no UTF-8 is rejected before it is looked at.
//!
//! An unpaired surrogate is an error to both, also in fields that nothing reads.

mod answer;
mod mutate;
mod random;
mod records;
mod reference;
mod scenarios;

use answer::{Answer, Collect};
use drivetrain_schemas::decode::{Body, Decoder, Record};
use drivetrain_schemas::reading::{IntakeCounts, NULL, Origin};
use random::Random;
use reference::Reference;
use scenarios::{SCENARIOS, Scenario};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How many records in a row are mostly of one source, with one order of fields.
const STRETCH: u64 = 40;
/// After how many records, on average, a decoder is replaced by a new one.
const LIFE: usize = 20_000;

/// The end of the two days of all records, µs.
const DAYS: i64 = records::DAY + 2 * 86_400_000_000;

/// A document with its circumstances.
struct Case {
    index: u64,
    scenario: usize,
    bytes: Vec<u8>,
    key: Option<Vec<u8>>,
    header: Option<Vec<u8>>,
    timestamp: Option<i64>,
    /// Ask for the time before.
    peek: bool,
    /// Begin with a new decoder.
    renew: bool,
}

impl Case {
    fn new(seed: u64, index: u64) -> Case {
        let mut stretch = Random::of(seed ^ 0x5eed, index / STRETCH);
        let (scenario, shape) = (stretch.below(SCENARIOS.len()), stretch.bits() % 64);
        let r = &mut Random::of(seed, index);
        // Records of another source or order stand in between.
        let strange = r.percent(3);
        let scenario = if strange { r.below(SCENARIOS.len()) } else { scenario };
        let shape = if strange { r.bits() } else { shape };
        let mut doc = records::record(r, &SCENARIOS[scenario], shape);
        while r.percent(35) {
            mutate::structure(r, &mut doc);
        }
        let mut bytes = Vec::new();
        let spaces = if r.percent(15) { r.below(40) } else { 0 };
        mutate::write(r, &doc, spaces, &mut bytes);
        if r.percent(40) {
            mutate::bytes(r, &mut bytes);
            while r.percent(25) {
                mutate::bytes(r, &mut bytes);
            }
        }
        let text = |r: &mut Random| match r.below(50) {
            0 => None,
            1 => Some(b"v\xff\xc3".to_vec()),
            2 => Some(Vec::new()),
            n => Some(format!("key-{n}").into_bytes()),
        };
        let late = DAYS + r.between(0, 60_000_000);
        let timestamp = match r.below(40) {
            0 => None,
            1 => Some(records::DAY + r.between(0, 86_400_000_000)),
            _ => Some(late),
        };
        let (key, header) = (text(r), text(r));
        Case { index, scenario, bytes, key, header, timestamp, peek: r.percent(5), renew: r.below(LIFE) == 0 }
    }

    fn with<T>(&self, bytes: &[u8], then: impl FnOnce(&Record<'_>) -> T) -> T {
        let origin = Arc::new(Origin { source: "fuzz".into(), name: "in/readings.jsonl.gz".into(), partition: 3 });
        let headers = [("trip", Some(b"first".as_slice())), ("trip", self.header.as_deref()), ("other", None)];
        then(&Record {
            origin: &origin,
            position: self.index as i64,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            headers: &headers,
            body: Body::Json(bytes),
        })
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |bytes: &Option<Vec<u8>>| bytes.as_deref().map(shown);
        writeln!(f, "key {:?}, header {:?}, timestamp {:?}", text(&self.key), text(&self.header), self.timestamp)?;
        f.write_str(&shown(&self.bytes))
    }
}

/// Bytes as a string of bytes in Rust.
fn shown(bytes: &[u8]) -> String {
    format!("b\"{}\"", bytes.escape_ascii())
}

/// A source's two decoders.
struct Pair {
    fresh: Decoder,
    decoder: Decoder,
    reference: Reference,
}

impl Pair {
    fn new(scenario: &Scenario) -> Result<Pair, String> {
        let context = scenario.context().map_err(|e| e.to_string())?;
        let catalogue = scenarios::catalogue().map_err(|e| e.to_string())?;
        let fresh = Decoder::new(&context, &catalogue).map_err(|e| e.to_string())?;
        let reference = Reference::new(&context, &catalogue).ok_or("the reference does not know this mapping")?;
        Ok(Pair { decoder: fresh.clone(), fresh, reference })
    }

    /// The answer of both.
    ///
    /// # Errors
    /// How they differ.
    fn answer(&mut self, case: &Case) -> Result<Answer, String> {
        if case.renew {
            self.decoder = self.fresh.clone();
        }
        let expected = case.with(&case.bytes, |record| self.reference.answer(record));
        // The plain decoder is judged as well; now and then is enough.
        if case.index.is_multiple_of(4)
            && std::str::from_utf8(&case.bytes).is_ok_and(|text| !reference::tree::is_faithful(text))
        {
            return Err("the reference does not read what serde_json reads".into());
        }
        if case.peek {
            let times = case.with(&case.bytes, |r| (self.decoder.peek_time(r), self.reference.peek(r)));
            if times.0 != times.1 {
                return Err(format!("peek_time: {:?}\nexpected:  {:?}", times.0, times.1));
            }
        }
        match decode(&mut self.decoder, case, &case.bytes)? {
            answer if answer == expected => Ok(answer),
            answer => Err(format!("decoder:  {answer:?}\nexpected: {expected:?}")),
        }
    }

    /// A smaller document on which a decoder without memory is wrong as well, or None where it is not.
    fn smaller(&self, case: &Case) -> Option<Vec<u8>> {
        let wrong = |bytes: &[u8]| {
            let expected = case.with(bytes, |record| self.reference.answer(record));
            decode(&mut self.fresh.clone(), case, bytes) != Ok(expected)
        };
        let mut bytes = case.bytes.clone();
        if !wrong(&bytes) {
            return None;
        }
        let mut length = bytes.len();
        while length > 0 {
            let mut at = 0;
            while at + length <= bytes.len() {
                let shorter = [&bytes[..at], &bytes[at + length..]].concat();
                if wrong(&shorter) { bytes = shorter } else { at += 1 }
            }
            length /= 2;
        }
        Some(bytes)
    }
}

fn decode(decoder: &mut Decoder, case: &Case, bytes: &[u8]) -> Result<Answer, String> {
    let (mut counts, mut out) = (IntakeCounts::default(), Collect::default());
    case.with(bytes, |record| decoder.decode(record, &mut counts, &mut out));
    out.answer(bytes, &counts)
}

/// What the documents came to, so that the test cannot pass by trying nothing.
#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    rejected: BTreeMap<String, u64>,
    values: u64,
    nulled: u64,
    texts: u64,
    tags: u64,
    trips: u64,
    spread: u64,
}

impl Tally {
    fn add(&mut self, answer: &Answer) {
        let (readings, trips, invalid) = match answer {
            Answer::Rejected(reason) => {
                *self.rejected.entry(reason.clone()).or_default() += 1;
                return;
            }
            Answer::Accepted { readings, trips, invalid } => (readings, trips, invalid),
        };
        self.accepted += 1;
        self.nulled += *invalid as u64;
        self.trips += trips.len() as u64;
        self.spread += u64::from(readings.len() > 1);
        for reading in readings {
            self.values += reading.values.iter().filter(|v| **v != NULL).count() as u64;
            self.texts += reading.meta.texts.len() as u64;
            self.tags += u64::from(reading.meta.tags.is_some());
        }
    }

    /// Each verdict has its share of `n` documents.
    fn check(&self, n: u64) {
        let rejected: u64 = self.rejected.values().sum();
        assert_eq!(self.accepted + rejected, n);
        assert!(self.accepted > n / 3 && rejected > n / 5, "{self:#?}");
        for (what, count) in [("values", self.values), ("tags", self.tags), ("nulled", self.nulled)] {
            assert!(count > n / 10, "{what}: {self:#?}");
        }
        for (what, count) in [("texts", self.texts), ("trips", self.trips), ("spread", self.spread)] {
            assert!(count > n / 50, "{what}: {self:#?}");
        }
        let reasons = "not_json not_utf8 not_object empty too_large no_vehicle bad_vehicle no_time bad_time \
                       time_implausible time_in_future no_sensor bad_sensor no_elements no_samples bad_element \
                       too_many_elements";
        for reason in reasons.split_whitespace() {
            assert!(self.rejected.get(reason).is_some_and(|count| *count >= n / 20_000), "{reason}: {self:#?}");
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn the_decoder_agrees_with_serde_json() {
    let (n, seed) = (number("FUZZ", 100_000), number("FUZZ_SEED", 1));
    let mut pairs: Vec<Pair> = SCENARIOS.iter().map(|s| Pair::new(s).unwrap()).collect();
    let mut tally = Tally::default();
    for index in 0..n {
        let case = Case::new(seed, index);
        let pair = &mut pairs[case.scenario];
        match pair.answer(&case) {
            Ok(answer) => tally.add(&answer),
            Err(difference) => {
                let smaller = match pair.smaller(&case) {
                    Some(bytes) => format!("a smaller document that shows it:\n{}", shown(&bytes)),
                    None => "a new decoder agrees: it is what came before".into(),
                };
                let name = SCENARIOS[case.scenario].name;
                panic!("FUZZ_SEED={seed}, document {index}, {name}: {case}\n{difference}\n{smaller}");
            }
        }
    }
    println!("{n} documents with seed {seed}: {tally:#?}");
    if n >= 50_000 {
        tally.check(n);
    }
}
