//! A decoder that is slow and plain: serde_json reads the document into a tree, and each part of a reading is looked up
//! in it as the mapping's documentation says. It keeps nothing from one record to the next.
//!
//! ```text
//!  bytes ──serde_json──► Node ──place──► Raw ──time, signal, id──► Answer
//! ```

pub(crate) mod number;
pub(crate) mod place;
pub(crate) mod signal;
pub(crate) mod time;
pub(crate) mod tree;
mod trip;

use crate::answer::{Answer, Reading};
use drivetrain_schemas::catalogue::Catalogue;
use drivetrain_schemas::decode::{Body, Record, SourceContext};
use drivetrain_schemas::mapping::{Layout, SignalField, SignalMapping, TimeField};
use drivetrain_schemas::reading::{Meta, NULL};
use place::{Place, Raw, Step, View};
use signal::Value;
use std::sync::Arc;
use tree::Node;

/// The reason for which a record is rejected.
type Reason = &'static str;

#[derive(Clone, Debug)]
pub(crate) struct Reference {
    layout: Layout,
    width: usize,
    tags: bool,
    each: Option<Vec<Step>>,
    vehicle: Place,
    /// driver, trip, fleet, quality
    ids: [Place; 4],
    time: time::Rule,
    record_time: Option<time::Rule>,
    /// Each with the name by which the layout `long` calls it.
    signals: Vec<(String, signal::Rule)>,
    /// Layout `long`: name of the place, place.
    sensor: (String, Place),
    value: (String, Place),
    samples: Vec<Step>,
    sample_interval: i64,
    /// Of a record, the paths that are mapped or ignored: no tag stands there.
    named: Vec<Vec<Step>>,
    not_before: i64,
    not_after: i64,
    future_tolerance: i64,
    max_record: usize,
    max_elements: usize,
    replay_at: i64,
}

impl Reference {
    /// None: a mapping that these tests do not know.
    pub(crate) fn new(ctx: &SourceContext, catalogue: &Catalogue) -> Option<Reference> {
        let (mapping, fields, limits) = (&ctx.mapping, &ctx.mapping.fields, &ctx.limits);
        let place = |text: &Option<String>, default: &str| Place::parse(text.as_deref().unwrap_or(default));
        let named = |text: &Option<String>, default: &str| {
            let name = text.as_deref().unwrap_or(default);
            Some((name.to_string(), Place::parse(name)?))
        };
        let at = TimeField::Path("at".into());
        let mut reference = Reference {
            layout: mapping.layout,
            width: catalogue.width(),
            tags: mapping.tags.unwrap_or(true),
            each: mapping.each.as_deref().and_then(place::steps),
            vehicle: place(&fields.vehicle, "vehicle_id")?,
            ids: [
                place(&fields.driver, "driver_id")?,
                place(&fields.trip, "trip_id")?,
                place(&fields.fleet, "fleet_id")?,
                place(&fields.quality, "quality")?,
            ],
            time: time::Rule::new(fields.time.as_ref().unwrap_or(&at))?,
            record_time: match &fields.record_time {
                Some(config) => Some(time::Rule::new(config)?),
                None => None,
            },
            signals: Vec::new(),
            sensor: named(&fields.sensor, "sensor_type")?,
            value: named(&fields.value, "value")?,
            samples: place::steps(fields.samples.as_deref().unwrap_or("data"))?,
            sample_interval: drivetrain_schemas::time::parse_duration(
                mapping.sample_interval.as_deref().unwrap_or("1s"),
            )
            .ok()?,
            named: mapping.ignore.iter().map(|path| place::steps(path)).collect::<Option<_>>()?,
            not_before: time::rfc3339(&limits.not_before, None)?,
            not_after: limits.not_after.as_deref().map_or(Some(i64::MAX), |t| time::rfc3339(t, None))?,
            future_tolerance: drivetrain_schemas::time::parse_duration(&limits.future_tolerance).ok()?,
            max_record: limits.max_record,
            max_elements: limits.max_elements,
            replay_at: ctx.replay_at.unwrap_or(0),
        };
        reference.add_signals(ctx, catalogue)?;
        reference.add_named();
        Some(reference)
    }

    fn add_signals(&mut self, ctx: &SourceContext, catalogue: &Catalogue) -> Option<()> {
        for (i, declared) in catalogue.signals.iter().enumerate() {
            let config = match ctx.mapping.signals.get(&declared.name) {
                Some(SignalMapping::Path(path)) => SignalField { field: Some(path.clone()), ..SignalField::default() },
                Some(SignalMapping::Full(field)) => field.clone(),
                None if ctx.mapping.only_mapped => continue,
                None => SignalField::default(),
            };
            let field = config.field.clone().unwrap_or_else(|| declared.name.clone());
            let place = if self.layout == Layout::Long { self.value.1.clone() } else { Place::parse(&field)? };
            self.signals.push((field, signal::Rule::new(i as u16, place, declared, &config)?));
        }
        Some(())
    }

    fn add_named(&mut self) {
        let mut places: Vec<&Place> = vec![&self.vehicle, &self.time.place];
        places.extend(&self.ids);
        places.extend(self.record_time.iter().map(|rule| &rule.place));
        match self.layout {
            Layout::Wide => places.extend(self.signals.iter().map(|(_, rule)| &rule.place)),
            Layout::Long => places.extend([&self.sensor.1, &self.value.1]),
            Layout::Trip => {}
        }
        let path = |place: &Place| match place {
            Place::Path(path) => Some(path.clone()),
            _ => None,
        };
        let mut paths: Vec<_> = places.into_iter().filter_map(path).collect();
        paths.extend(self.each.clone());
        paths.extend((self.layout == Layout::Trip).then(|| self.samples.clone()));
        self.named.extend(paths);
    }

    /// What the record comes to.
    pub(crate) fn answer(&self, record: &Record<'_>) -> Answer {
        let mut invalid = 0;
        let made = self.root(record).and_then(|(text, root)| match self.layout {
            Layout::Trip => Ok((Vec::new(), self.trips(record, text, &root, &mut invalid)?)),
            _ => Ok((self.readings(record, &root, &mut invalid)?, Vec::new())),
        });
        match made {
            Ok((readings, trips)) => Answer::Accepted { readings, trips, invalid },
            Err(reason) => Answer::Rejected(reason.into()),
        }
    }

    /// The time that `Decoder::peek_time` promises.
    pub(crate) fn peek(&self, record: &Record<'_>) -> Option<i64> {
        let (_, root) = self.root(record).ok()?;
        let mut view = View { record, outer: &root, inner: None };
        if let Some(path) = &self.each {
            view.inner = Some(element(self.items(&view, path, "").ok()?.first()?).ok()?);
        }
        match self.layout {
            Layout::Trip => self.trip_time(&view).ok().map(|(time, _)| time),
            _ => self.moment_time(&view).ok().map(|(at, _)| at),
        }
    }

    fn root<'a>(&self, record: &Record<'a>) -> Result<(&'a str, Node<'a>), Reason> {
        let Body::Json(bytes) = record.body else { return Err("tombstone") };
        if bytes.len() > self.max_record {
            return Err("too_large");
        }
        let text = std::str::from_utf8(bytes).map_err(|_| "not_utf8")?;
        if text.trim_ascii().is_empty() {
            return Err("empty");
        }
        match tree::parse(text) {
            None => Err("not_json"),
            Some(root @ Node::Object(..)) => Ok((text, root)),
            Some(_) => Err("not_object"),
        }
    }

    fn readings(&self, record: &Record<'_>, root: &Node<'_>, invalid: &mut i64) -> Result<Vec<Reading>, Reason> {
        let view = View { record, outer: root, inner: None };
        let Some(path) = &self.each else { return Ok(vec![self.reading(&view, 0, invalid)?]) };
        let items = self.items(&view, path, "no_elements")?;
        let each = |(i, item)| self.reading(&View { inner: Some(element(item)?), ..view }, i as u32, invalid);
        items.iter().enumerate().map(each).collect()
    }

    /// The elements of an array.
    fn items<'a>(&self, view: &View<'a>, path: &[Step], missing: Reason) -> Result<&'a [Node<'a>], Reason> {
        match view.node(path) {
            None | Some(Node::Null) => Err(missing),
            Some(Node::Array(items)) if items.is_empty() => Err(missing),
            Some(Node::Array(items)) if items.len() > self.max_elements => Err("too_many_elements"),
            Some(Node::Array(items)) => Ok(items),
            Some(_) => Err("bad_element"),
        }
    }

    fn moment_time(&self, view: &View<'_>) -> Result<(i64, Option<i64>), Reason> {
        let sent = self.sent(view)?;
        let at = self.time.read(&view.raw(&self.time.place))?.ok_or("no_time")?;
        if self.time.place.is_read() {
            self.judge(at, sent)?;
        }
        Ok((at, sent))
    }

    fn reading(&self, view: &View<'_>, element: u32, invalid: &mut i64) -> Result<Reading, Reason> {
        let vehicle = self.vehicle(view)?;
        let (at, sent) = self.moment_time(view)?;
        let (mut signals, mut extra) = (self.signals.iter().map(|(_, rule)| rule).collect::<Vec<_>>(), Vec::new());
        if self.layout == Layout::Long {
            let sensor = self.sensor_name(view)?;
            signals = self.signals.iter().filter(|(name, _)| *name == sensor).map(|(_, rule)| rule).collect();
            if signals.is_empty() {
                extra = self.unknown_sensor(view, &sensor);
            }
        }
        let mut reading = Reading {
            at,
            record_time: sent.unwrap_or(NULL),
            position: view.record.position,
            element,
            meta: self.meta(view, vehicle, extra, invalid),
            values: vec![NULL; self.width],
            invalid: Vec::new(),
        };
        for rule in signals {
            match rule.read(&view.raw(&rule.place), at) {
                Value::Null => {}
                Value::Invalid => reading.invalid.push(rule.signal),
                Value::Fixed(v) => reading.values[rule.signal as usize] = v,
                Value::Text(text) => reading.meta.texts.push((rule.signal, text.into())),
            }
        }
        *invalid += reading.invalid.len() as i64;
        Ok(reading)
    }

    fn sensor_name(&self, view: &View<'_>) -> Result<String, Reason> {
        match view.raw(&self.sensor.1) {
            Raw::Missing | Raw::Null => Err("no_sensor"),
            Raw::Text(text) if text.is_empty() => Err("no_sensor"),
            Raw::Text(text) => Ok(text.into_owned()),
            Raw::Cell(text) | Raw::Number(text) => Ok(text.to_string()),
            _ => Err("bad_sensor"),
        }
    }

    /// A sensor that the catalogue does not know is kept as two tags.
    fn unknown_sensor(&self, view: &View<'_>, sensor: &str) -> Vec<(String, String)> {
        let mut value = String::new();
        match &self.value.1 {
            Place::Path(path) => view.node(path).unwrap_or(&Node::Null).write(&mut value),
            place => match view.raw(place) {
                Raw::Text(text) => value = quoted(&text),
                _ => return vec![(self.sensor.0.clone(), quoted(sensor))],
            },
        }
        vec![(self.sensor.0.clone(), quoted(sensor)), (self.value.0.clone(), value)]
    }

    fn vehicle(&self, view: &View<'_>) -> Result<String, Reason> {
        view.id(&self.vehicle).map_err(|()| "bad_vehicle")?.ok_or("no_vehicle")
    }

    fn sent(&self, view: &View<'_>) -> Result<Option<i64>, Reason> {
        let own = match &self.record_time {
            Some(rule) => rule.read(&view.raw(&rule.place))?,
            None => None,
        };
        Ok(own.or(view.record.timestamp))
    }

    fn judge(&self, at: i64, sent: Option<i64>) -> Result<(), Reason> {
        if at < self.not_before || at >= self.not_after {
            return Err("time_implausible");
        }
        match sent {
            Some(sent) if at - sent > self.future_tolerance => Err("time_in_future"),
            _ => Ok(()),
        }
    }

    /// All but the texts of signals.
    fn meta(&self, view: &View<'_>, vehicle: String, extra: Vec<(String, String)>, invalid: &mut i64) -> Meta {
        let [driver, trip, fleet, quality] = self.ids.each_ref().map(|place| {
            let id = view.id(place);
            *invalid += i64::from(id.is_err());
            id.ok().flatten().map(Arc::from)
        });
        let tags = if self.tags { self.tags(view, extra) } else { None };
        Meta { vehicle: vehicle.into(), texts: Vec::new(), driver, trip, fleet, quality, tags: tags.map(Arc::from) }
    }

    /// One JSON object, its keys in byte order; of equal ones the last stays.
    fn tags(&self, view: &View<'_>, extra: Vec<(String, String)>) -> Option<String> {
        let mut all = Vec::new();
        for node in [Some(view.outer), view.inner].into_iter().flatten() {
            self.strays(node, &mut Vec::new(), &mut all);
        }
        all.extend(extra);
        let sorted: std::collections::BTreeMap<String, String> = all.into_iter().collect();
        let members: Vec<String> = sorted.iter().map(|(key, value)| format!("{}:{value}", quoted(key))).collect();
        (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
    }

    /// The fields below `node`, which stands at `path`, that nothing names. Only containers with a named path below
    /// them are taken apart.
    fn strays(&self, node: &Node<'_>, path: &mut Vec<Step>, out: &mut Vec<(String, String)>) {
        let below: Vec<(Step, &Node<'_>)> = match node {
            Node::Array(items) => items.iter().enumerate().map(|(i, item)| (Step::Index(i), item)).collect(),
            Node::Object(_, members) => {
                let last = |i: usize| !members[i + 1..].iter().any(|later| later.key == members[i].key);
                let members = members.iter().enumerate().filter(|(i, _)| last(*i));
                members.map(|(_, m)| (Step::Key(m.key.clone()), &m.value)).collect()
            }
            _ => Vec::new(),
        };
        for (step, value) in below {
            path.push(step);
            let longer = |p: &&Vec<Step>| p.len() > path.len() && p.starts_with(path);
            let entered = self.named.iter().filter(longer).any(|p| match p[path.len()] {
                Step::Key(_) => matches!(value, Node::Object(..)),
                Step::Index(_) => matches!(value, Node::Array(..)),
            });
            if entered {
                self.strays(value, path, out);
            } else if !self.named.contains(path) {
                let mut text = String::new();
                value.write(&mut text);
                out.push((place::display(path), text));
            }
            path.pop();
        }
    }
}

fn element<'a>(item: &'a Node<'a>) -> Result<&'a Node<'a>, Reason> {
    if matches!(item, Node::Object(..)) { Ok(item) } else { Err("bad_element") }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
