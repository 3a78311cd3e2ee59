//! What a record came to, in a form that two decoders can be compared by.

use drivetrain_schemas::reading::{Accept, Head, IntakeCounts, Interned, Meta, Reject, TripPayload};

/// One reading. `meta` bears the texts, ids and tags; `invalid` the signals whose values were made null.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Reading {
    pub(crate) at: i64,
    pub(crate) record_time: i64,
    pub(crate) position: i64,
    pub(crate) element: u32,
    pub(crate) meta: Meta,
    pub(crate) values: Vec<i64>,
    pub(crate) invalid: Vec<u16>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// `invalid` counts unusable ids, too.
    Accepted { readings: Vec<Reading>, trips: Vec<TripPayload>, invalid: i64 },
    /// The reason.
    Rejected(String),
}

/// Collects what the decoder hands out for one record.
#[derive(Debug, Default)]
pub(crate) struct Collect {
    readings: Vec<Reading>,
    trips: Vec<TripPayload>,
    rejects: Vec<Reject>,
    /// What must never be, whatever the record.
    broken: Vec<String>,
}

impl Accept for Collect {
    fn reading(&mut self, head: Head, Interned { meta, hash, .. }: Interned<'_>, values: &[i64], invalid: &[u16]) {
        if hash != drivetrain_schemas::key::hash(&meta.vehicle) {
            self.broken.push(format!("{hash:x} is not the hash of {:?}", meta.vehicle));
        }
        let Head { at, position, record_time, meta: _, element } = head;
        let (meta, values, invalid) = ((**meta).clone(), values.to_vec(), invalid.to_vec());
        self.readings.push(Reading { at, record_time, position, element, meta, values, invalid });
    }
    fn trip(&mut self, trip: TripPayload) {
        self.trips.push(trip);
    }
    fn reject(&mut self, reject: Reject) {
        self.rejects.push(reject);
    }
}

impl Collect {
    /// The answer to the record `payload`, for which the decoder added `counts`.
    ///
    /// # Errors
    /// What contradicts itself in it.
    pub(crate) fn answer(mut self, payload: &[u8], counts: &IntakeCounts) -> Result<Answer, String> {
        let made = (self.readings.len() + self.trips.len()) as i64;
        let rejected = self.rejects.len() as i64;
        if (counts.records, counts.decoded + counts.rejected, counts.rejected) != (1, 1, rejected) {
            self.broken.push(format!("one record is counted as {counts:?}"));
        }
        if counts.readings != made || (rejected > 0 && (made > 0 || counts.invalid_values > 0)) {
            self.broken.push(format!("{made} readings and {rejected} rejects are counted as {counts:?}"));
        }
        let reject = self.rejects.pop();
        if reject.as_ref().is_some_and(|r| r.payload.as_deref() != Some(payload) || r.detail.is_empty()) {
            self.broken.push(format!("{reject:?} has not kept the record, or says nothing"));
        }
        if !self.broken.is_empty() {
            return Err(self.broken.join("; "));
        }
        Ok(match reject {
            Some(reject) => Answer::Rejected(reject.reason.to_string()),
            None => Answer::Accepted { readings: self.readings, trips: self.trips, invalid: counts.invalid_values },
        })
    }
}
