//! From a frame to a reading or a trip payload.

use super::Flaw;
use super::frame::{Frame, Kind, Slot};
use super::meta::{Candidate, END, NONE, texts, write_key};
use super::path::Where;
use super::plan::{Plain, Plan};
use super::quick::Reach;
use super::signals::{Outcome, SignalRule};
use super::staging::Staging;
use super::trie::{Pass, Trie};
use super::view::{MAX_ID, Raw, View};
use crate::json::Scanner;
use crate::mapping::Layout;
use crate::reading::{Head, NULL, TripPayload, TripSample};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What makes readings; its buffers serve every record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Maker {
    pub(crate) staged: Staging,
    tags: String,
}

/// A tag's value, and where it comes from.
enum TagValue<'a> {
    Slot(Slot),
    Text(Cow<'a, str>),
}

type Tags<'a> = SmallVec<[(&'a str, TagValue<'a>); 8]>;

/// Signals whose values were made null.
pub(crate) type Invalid = SmallVec<[u16; 4]>;

impl Maker {
    /// Stages one reading of the layouts `wide` and `long`; `invalid` counts its unusable values. After an error what was
    /// staged of it is to be taken back.
    ///
    /// # Errors
    /// [`Flaw`]: the record is to be rejected.
    #[inline]
    pub(crate) fn moment<'a>(
        &'a mut self,
        plan: &'a Plan,
        view: &View<'a>,
        element: u32,
        invalid: &mut i64,
    ) -> Result<(), Flaw> {
        let vehicle = vehicle(plan, view)?;
        let (at, sent) = moment_time(plan, view)?;
        let Maker { staged, tags: text } = self;
        let values = staged.room(plan.width);
        let mut candidate = Candidate { vehicle, ..Candidate::default() };
        let (mut tags, mut unusable) = (Tags::new(), Invalid::new());
        if plan.layout == Layout::Long {
            measurement(plan, view, at, values, &mut candidate, &mut tags, &mut unusable)?;
        } else {
            for i in 0..plan.signals.len() {
                read_signal(plan, i, view, at, values, &mut candidate.texts, &mut unusable);
            }
        }
        *invalid += unusable.len() as i64;
        candidate.driver = optional(view, &plan.driver, invalid);
        candidate.trip = optional(view, &plan.trip, invalid);
        candidate.fleet = optional(view, &plan.fleet, invalid);
        candidate.quality = optional(view, &plan.quality, invalid);
        if plan.tags && write_tags(view, tags, text) {
            candidate.tags = Some(text);
        }
        let head = Head { at, position: view.record.position, record_time: sent.unwrap_or(NULL), meta: 0, element };
        write_key(&candidate, staged.keys());
        staged.push(head, candidate.vehicle.as_bytes(), &unusable);
        Ok(())
    }

    /// The same of a whole record, the short way: ids that are plain texts or missing, a time of the most common form, no
    /// tags and no text among the signals. False: nothing has been staged; it is to go the long way, which knows what is wrong.
    #[inline]
    pub(crate) fn plain_moment(&mut self, plan: &Plan, places: &Plain, view: &View<'_>, invalid: &mut i64) -> bool {
        let before = self.staged.keys().len();
        let staged = self.try_plain_moment(plan, places, view, invalid).is_some();
        if !staged {
            self.staged.keys().truncate(before);
        }
        staged
    }

    #[inline]
    fn try_plain_moment(&mut self, plan: &Plan, places: &Plain, view: &View<'_>, invalid: &mut i64) -> Option<()> {
        let (frame, data, sent) = (view.outer, view.data.as_bytes(), view.record.timestamp);
        let (time, vehicle) = (frame.get(places.time), frame.get(places.vehicle));
        let id = 1..=MAX_ID;
        if time.kind != Kind::Text
            || vehicle.kind != Kind::Text
            || !id.contains(&vehicle.len())
            || !frame.tags.is_empty()
        {
            return None;
        }
        let at = plan.time.of_text(data.get(time.start()..time.end())?)?;
        if !plan.is_judged_well(at, sent) {
            return None;
        }
        let staged = &mut self.staged;
        let key = staged.keys();
        key.put(data, vehicle.start(), vehicle.end());
        key.push(END);
        for place in places.others {
            let text = frame.get(place);
            match text.kind {
                Kind::Text if id.contains(&text.len()) => key.put(data, text.start(), text.end()),
                Kind::Text if text.len() > MAX_ID => return None,
                Kind::Text | Kind::Missing | Kind::Null => key.push(NONE),
                _ => return None,
            }
            key.push(END);
        }
        // No tags.
        key.push(NONE);
        key.push(END);
        let values = staged.room(plan.width);
        let mut unusable = Invalid::new();
        for rule in &plan.signals {
            read_value(rule, view, at, values, &mut unusable);
        }
        *invalid += unusable.len() as i64;
        let head = Head { at, position: view.record.position, record_time: sent.unwrap_or(NULL), meta: 0, element: 0 };
        staged.push(head, data.get(vehicle.start()..vehicle.end())?, &unusable);
        Some(())
    }

    /// A trip payload. `span` is the trip's own text, from which its id is derived where it bears none; `samples`
    /// scans the samples.
    ///
    /// # Errors
    /// [`Flaw`]: the record is to be rejected.
    pub(crate) fn trip(
        &mut self,
        plan: &Plan,
        view: &View<'_>,
        span: &str,
        samples: &mut Samples<'_>,
        invalid: &mut i64,
    ) -> Result<TripPayload, Flaw> {
        let vehicle = vehicle(plan, view)?;
        let (record_time, sent) = trip_time(plan, view)?;
        let samples = samples.read(plan, view, record_time, sent, invalid)?;
        let owned = |id: Option<Cow<'_, str>>| id.map(|id| Arc::from(&*id));
        let trip_id = owned(optional(view, &plan.trip, invalid)).unwrap_or_else(|| derived_id(span, record_time));
        let tags = (plan.tags && write_tags(view, Tags::new(), &mut self.tags)).then(|| Arc::from(&*self.tags));
        Ok(TripPayload {
            trip_id,
            record_time,
            vehicle: Arc::from(&*vehicle),
            driver: owned(optional(view, &plan.driver, invalid)),
            fleet: owned(optional(view, &plan.fleet, invalid)),
            quality: owned(optional(view, &plan.quality, invalid)),
            tags,
            samples,
            origin: view.record.origin.clone(),
            position: view.record.position,
            sample_interval: plan.sample_interval,
        })
    }
}

/// Layout `long`: the one value, or two tags when the catalogue does not know the sensor.
fn measurement<'a>(
    plan: &'a Plan,
    view: &View<'a>,
    at: i64,
    values: &mut [i64],
    candidate: &mut Candidate<'a>,
    tags: &mut Tags<'a>,
    invalid: &mut Invalid,
) -> Result<(), Flaw> {
    let named = |reason, problem: &str| {
        let shown = view.raw(&plan.sensor.place).show();
        Flaw::new(reason, || format!("{}: {shown} {problem}", plan.sensor.name))
    };
    let sensor = match view.raw(&plan.sensor.place) {
        Raw::Missing | Raw::Null => return Err(named("no_sensor", "stands where the sensor's name is expected")),
        Raw::Text(text) if text.is_empty() => return Err(named("no_sensor", "is no sensor's name")),
        Raw::Text(text) => text,
        Raw::Cell(text) | Raw::Number(text) => Cow::Borrowed(text),
        _ => return Err(named("bad_sensor", "is no sensor's name, which is a text")),
    };
    match plan.sensors.get(&*sensor) {
        Some(rules) => {
            for rule in rules {
                read_signal(plan, *rule as usize, view, at, values, &mut candidate.texts, invalid);
            }
        }
        None => {
            tags.push((&plan.sensor.name, TagValue::Text(sensor)));
            match &plan.value.place {
                Where::Slot(slot) => tags.push((&plan.value.name, TagValue::Slot(view.slot(*slot)))),
                other => {
                    if let Raw::Text(text) = view.raw(other) {
                        tags.push((&plan.value.name, TagValue::Text(text)));
                    }
                }
            }
        }
    }
    Ok(())
}

/// XXH3-128 of the payload and its record time (little endian), in hexadecimal.
fn derived_id(span: &str, record_time: i64) -> Arc<str> {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(span.as_bytes());
    hash.update(&record_time.to_le_bytes());
    Arc::from(format!("{:032x}", hash.digest128()))
}

/// (the reading's event time, when the record was sent), of the layouts `wide` and `long`.
#[inline]
pub(crate) fn moment_time(plan: &Plan, view: &View<'_>) -> Result<(i64, Option<i64>), Flaw> {
    let sent = sent(plan, view)?;
    let at = plan
        .time
        .read(view)?
        .ok_or_else(|| Flaw::new("no_time", || format!("{}: the record bears no time there", plan.time.name)))?;
    if plan.time.is_read() {
        plan.judge(at, sent, &plan.time.name)?;
    }
    Ok((at, sent))
}

/// (the record's time, when it was sent). The record's own `at` is judged even where another time comes first.
pub(crate) fn trip_time(plan: &Plan, view: &View<'_>) -> Result<(i64, Option<i64>), Flaw> {
    let sent = sent(plan, view)?;
    if let (Some(sent), Some(rule)) = (sent, &plan.record_time)
        && rule.is_read()
        && rule.read(view)?.is_some()
    {
        plan.judge(sent, None, &rule.name)?;
    }
    let at = plan.time.read(view)?;
    if let Some(at) = at.filter(|_| plan.time.is_read()) {
        plan.judge(at, sent, &plan.time.name)?;
    }
    Ok((sent.or(at).unwrap_or(plan.replay_at), sent))
}

/// When the record was sent: the mapped field, else Kafka's timestamp.
#[inline]
fn sent(plan: &Plan, view: &View<'_>) -> Result<Option<i64>, Flaw> {
    match &plan.record_time {
        None => Ok(view.record.timestamp),
        Some(rule) => Ok(rule.read(view)?.or(view.record.timestamp)),
    }
}

#[inline]
fn vehicle<'a>(plan: &'a Plan, view: &View<'a>) -> Result<Cow<'a, str>, Flaw> {
    let name = &plan.vehicle.name;
    match view.id(&plan.vehicle.place) {
        Ok(Some(id)) => Ok(id),
        Ok(None) => Err(Flaw::new("no_vehicle", || {
            let shown = view.raw(&plan.vehicle.place).show();
            format!("{name}: the vehicle's id is expected there, but {shown} is")
        })),
        Err(problem) => Err(Flaw::new("bad_vehicle", || {
            format!("{name}: {} cannot be used; {problem}", view.raw(&plan.vehicle.place).show())
        })),
    }
}

/// An id that may be missing; one that cannot be used counts as invalid.
#[inline]
fn optional<'a>(view: &View<'a>, place: &'a Where, invalid: &mut i64) -> Option<Cow<'a, str>> {
    view.id(place).unwrap_or_else(|_| {
        *invalid += 1;
        None
    })
}

#[inline]
fn read_signal<'a>(
    plan: &'a Plan,
    rule: usize,
    view: &View<'a>,
    at: i64,
    values: &mut [i64],
    texts: &mut SmallVec<[(u16, Cow<'a, str>); 2]>,
    invalid: &mut Invalid,
) {
    let Some(rule) = plan.signals.get(rule) else { return };
    // The rules are in the order of the catalogue, and so are the texts.
    if let Some(text) = read_value(rule, view, at, values, invalid) {
        texts.push((rule.signal, text));
    }
}

/// Reads a signal's number into its place, or says its text.
#[inline]
fn read_value<'a>(
    rule: &'a SignalRule,
    view: &View<'a>,
    at: i64,
    values: &mut [i64],
    invalid: &mut Invalid,
) -> Option<Cow<'a, str>> {
    let outcome = match &rule.place {
        // Nearly all values are numbers of JSON; they need no detour.
        Where::Slot(slot) => match view.slot(*slot) {
            found if found.kind == Kind::Fixed => rule.judged(Ok(found.fixed())),
            Slot { kind: Kind::Missing | Kind::Null, .. } => return None,
            found if found.kind == Kind::Number && rule.is_number() => rule.json_number(view.data, found, at),
            found => rule.read(view.raw_slot(found), at),
        },
        place => rule.read(view.raw(place), at),
    };
    match outcome {
        Outcome::Null => {}
        Outcome::Invalid => invalid.push(rule.signal),
        Outcome::Value(v) => {
            if let Some(value) = values.get_mut(rule.signal as usize) {
                *value = v;
            }
        }
        Outcome::Text(text) => return Some(text),
    }
    None
}

/// Writes the fields that nothing maps, and `extra`, as one JSON object with its keys in byte order; of equal keys
/// the last one stays, and an element's before its parent's. False: there are none.
fn write_tags<'a>(view: &View<'a>, extra: Tags<'a>, out: &mut String) -> bool {
    if extra.is_empty() && view.outer.tags.is_empty() && view.inner.is_none_or(|f| f.tags.is_empty()) {
        return false;
    }
    let mut all = Tags::new();
    for frame in [Some(view.outer), view.inner].into_iter().flatten() {
        all.extend(frame.tags.iter().map(|t| (frame.name(t), TagValue::Slot(t.value))));
    }
    all.extend(extra);
    all.sort_by_key(|(name, _)| *name);
    out.clear();
    for (i, (name, value)) in all.iter().enumerate() {
        if all.get(i + 1).is_some_and(|(next, _)| next == name) {
            continue;
        }
        out.push(if out.is_empty() { '{' } else { ',' });
        crate::json::quote(name, out);
        out.push(':');
        match value {
            TagValue::Slot(slot) => slot.write_json(view.data, out),
            TagValue::Text(text) => crate::json::quote(text, out),
        }
    }
    out.push('}');
    true
}

/// Scans the samples of trip payloads.
pub(crate) struct Samples<'d> {
    pub(crate) trie: &'d mut Trie,
    pub(crate) frame: &'d mut Frame,
    /// Counts the fields that nothing maps, where that is wanted.
    pub(crate) unmapped: Option<&'d mut BTreeMap<String, u64>>,
}

impl Samples<'_> {
    fn read(
        &mut self,
        plan: &Plan,
        view: &View<'_>,
        record_time: i64,
        sent: Option<i64>,
        invalid: &mut i64,
    ) -> Result<Vec<TripSample>, Flaw> {
        let (slot, name) = &plan.samples;
        let spans = elements(plan, view, *slot, name, "no_samples")?;
        let mut samples = Vec::with_capacity(spans.len());
        for (i, span) in spans.iter().enumerate() {
            scan_element(self.trie, self.frame, view.data, *span, self.unmapped.is_some(), name, i)?;
            if let Some(unmapped) = &mut self.unmapped {
                for tag in &self.frame.tags {
                    *unmapped.entry(format!("{name}[].{}", self.frame.name(tag))).or_default() += 1;
                }
            }
            let own = View { record: view.record, data: view.data, outer: self.frame, inner: None };
            let named = |flaw: Flaw| flaw.within(&format!("{name}[{i}]."));
            let at = match plan.sample_time.read(&own).map_err(named)? {
                Some(at) => {
                    if plan.sample_time.is_read() {
                        plan.judge(at, sent, &plan.sample_time.name).map_err(named)?;
                    }
                    at
                }
                None => {
                    let before = (spans.len() - 1 - i) as i64;
                    record_time.saturating_sub(before.saturating_mul(plan.sample_interval))
                }
            };
            let (mut values, mut found, mut unusable) = (vec![NULL; plan.width], SmallVec::new(), Invalid::new());
            for rule in 0..plan.signals.len() {
                read_signal(plan, rule, &own, at, &mut values, &mut found, &mut unusable);
            }
            *invalid += unusable.len() as i64;
            samples.push(TripSample { at, values, texts: texts(&found) });
        }
        samples.sort_by_key(|s| s.at);
        Ok(samples)
    }
}

/// The spans of an array's elements; the array has been validated with its record.
///
/// # Errors
/// `missing` when there is none, `bad_element` when it is no array, `too_many_elements`.
pub(crate) fn elements(
    plan: &Plan,
    view: &View<'_>,
    slot: u16,
    name: &str,
    missing: &'static str,
) -> Result<Vec<Slot>, Flaw> {
    let found = view.slot(slot);
    match view.raw_slot(found) {
        Raw::Missing | Raw::Null => return Err(Flaw::new(missing, || format!("{name}: the record has no such array"))),
        Raw::Container(text) if text.starts_with('[') => {}
        other => return Err(Flaw::new("bad_element", || format!("{name}: {} is no array", other.show()))),
    }
    let broken = |e: crate::json::JsonError| Flaw::new("not_json", || e.to_string());
    let mut scanner = Scanner::at(view.data, found.start());
    let mut out = Vec::new();
    let mut more = scanner.open(b'[', b']').map_err(broken)?;
    while more {
        if out.len() >= plan.max_elements {
            let limit = plan.max_elements;
            return Err(Flaw::new("too_many_elements", || format!("{name}: more than {limit} (limits.max_elements)")));
        }
        out.push(Slot::from(scanner.value(1).map_err(broken)?));
        more = scanner.next(b']').map_err(broken)?;
    }
    if out.is_empty() {
        return Err(Flaw::new(missing, || format!("{name}: the array is empty")));
    }
    Ok(out)
}

/// Scans one element of an array into `frame`.
///
/// # Errors
/// `bad_element` when it is no object.
pub(crate) fn scan_element(
    trie: &mut Trie,
    frame: &mut Frame,
    data: &str,
    span: Slot,
    tags: bool,
    name: &str,
    index: usize,
) -> Result<(), Flaw> {
    let mut scanner = Scanner::at(data, span.start());
    frame.reset();
    // Not by its first byte: the span of a text begins behind the quote.
    if span.kind != Kind::Object {
        let shown = super::view::clip(span.text(data));
        return Err(Flaw::new("bad_element", || format!("{name}[{index}]: {shown} is no object")));
    }
    Pass { trie, text: data, reach: &Reach::new(data), frame, tags }
        .run(&mut scanner, 1)
        .map_err(|e| Flaw::new("not_json", || format!("{name}[{index}]: {e}")))
}
