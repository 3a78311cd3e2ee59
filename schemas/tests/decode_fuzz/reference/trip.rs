//! The layout `trip`: one record, or one element of it, is a whole trip.

use super::place::View;
use super::signal::Value;
use super::tree::Node;
use super::{Reason, Reference, element};
use drivetrain_schemas::decode::Record;
use drivetrain_schemas::reading::{Meta, NULL, TripPayload, TripSample};

impl Reference {
    pub(super) fn trips(
        &self,
        record: &Record<'_>,
        text: &str,
        root: &Node<'_>,
        invalid: &mut i64,
    ) -> Result<Vec<TripPayload>, Reason> {
        let view = View { record, outer: root, inner: None };
        let Some(path) = &self.each else { return Ok(vec![self.trip(&view, text, invalid)?]) };
        let mut trips = Vec::new();
        for item in self.items(&view, path, "no_elements")? {
            let Node::Object(own, _) = element(item)? else { return Err("bad_element") };
            trips.push(self.trip(&View { inner: Some(item), ..view }, own, invalid)?);
        }
        Ok(trips)
    }

    /// (the record's time, when it was sent)
    pub(super) fn trip_time(&self, view: &View<'_>) -> Result<(i64, Option<i64>), Reason> {
        let sent = self.sent(view)?;
        if let (Some(sent), Some(rule)) = (sent, &self.record_time)
            && rule.place.is_read()
            && rule.read(&view.raw(&rule.place))?.is_some()
        {
            self.judge(sent, None)?;
        }
        let at = self.time.read(&view.raw(&self.time.place))?;
        if let Some(at) = at.filter(|_| self.time.place.is_read()) {
            self.judge(at, sent)?;
        }
        Ok((sent.or(at).unwrap_or(self.replay_at), sent))
    }

    /// `text` is the trip's own, with which a trip without an id is named.
    fn trip(&self, view: &View<'_>, text: &str, invalid: &mut i64) -> Result<TripPayload, Reason> {
        let vehicle = self.vehicle(view)?;
        let (record_time, sent) = self.trip_time(view)?;
        let samples = self.samples(view, record_time, sent, invalid)?;
        let Meta { vehicle, driver, trip, fleet, quality, tags, texts: _ } =
            self.meta(view, vehicle, Vec::new(), invalid);
        let derived = || {
            let bytes = [text.as_bytes(), &record_time.to_le_bytes()].concat();
            format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes)).into()
        };
        Ok(TripPayload {
            trip_id: trip.unwrap_or_else(derived),
            record_time,
            vehicle,
            driver,
            fleet,
            quality,
            tags,
            samples,
            origin: view.record.origin.clone(),
            position: view.record.position,
            sample_interval: self.sample_interval,
        })
    }

    fn samples(
        &self,
        view: &View<'_>,
        record_time: i64,
        sent: Option<i64>,
        invalid: &mut i64,
    ) -> Result<Vec<TripSample>, Reason> {
        let items = self.items(view, &self.samples, "no_samples")?;
        let mut samples = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let own = View { record: view.record, outer: element(item)?, inner: None };
            let at = match self.time.read(&own.raw(&self.time.place))? {
                Some(at) => {
                    if self.time.place.is_read() {
                        self.judge(at, sent)?;
                    }
                    at
                }
                None => record_time - (items.len() - 1 - i) as i64 * self.sample_interval,
            };
            let mut sample = TripSample { at, values: vec![NULL; self.width], texts: Vec::new() };
            for (_, rule) in &self.signals {
                match rule.read(&own.raw(&rule.place), at) {
                    Value::Null => {}
                    Value::Invalid => *invalid += 1,
                    Value::Fixed(v) => sample.values[rule.signal as usize] = v,
                    Value::Text(text) => sample.texts.push((rule.signal, text.into())),
                }
            }
            samples.push(sample);
        }
        samples.sort_by_key(|s| s.at);
        Ok(samples)
    }
}
