//! The mapping, compiled once: paths to slots, names to indexes, texts to numbers.

use super::path::{self, Place, Where};
use super::signals::SignalRule;
use super::times::TimeRule;
use super::trie::Trie;
use super::{Flaw, MappingError, SourceContext};
use crate::catalogue::Catalogue;
use crate::mapping::{Layout, Mapping, SignalField, SignalMapping, TimeField};
use crate::time;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use smallvec::SmallVec;
use std::collections::BTreeMap;

/// A place and its name in the configuration, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) place: Where,
    pub(crate) name: String,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) layout: Layout,
    pub(crate) width: usize,
    pub(crate) tags: bool,
    pub(crate) each: Option<(u16, String)>,
    pub(crate) vehicle: Named,
    pub(crate) driver: Where,
    pub(crate) trip: Where,
    pub(crate) fleet: Where,
    pub(crate) quality: Where,
    pub(crate) time: TimeRule,
    pub(crate) record_time: Option<TimeRule>,
    /// Where the short way goes ([`super::make::Maker::plain_moment`]), if the mapping allows it.
    pub(crate) plain: Option<Plain>,
    /// In the layout `trip` their places are slots of a sample.
    pub(crate) signals: Vec<SignalRule>,
    /// Layout `long`: where the sensor's name and its value stand, and the rules by name.
    pub(crate) sensor: Named,
    pub(crate) value: Named,
    pub(crate) sensors: HashMap<String, SmallVec<[u16; 2]>, FixedState>,
    /// Layout `trip`: the slot of the samples, and the rule of their own time.
    pub(crate) samples: (u16, String),
    pub(crate) sample_time: TimeRule,
    pub(crate) sample_interval: i64,
    pub(crate) not_before: i64,
    pub(crate) not_after: i64,
    pub(crate) future_tolerance: i64,
    pub(crate) max_record: usize,
    pub(crate) max_elements: usize,
    pub(crate) replay_at: i64,
    /// What becomes of a column of this name: its slot, or whether it is ignored.
    pub(crate) columns: BTreeMap<String, (Option<u16>, bool)>,
}

/// The slots of what each reading of a plain mapping has: all of it stands in the record itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain {
    pub(crate) time: u16,
    pub(crate) vehicle: u16,
    /// Driver, trip, fleet, quality.
    pub(crate) others: [u16; 4],
}

impl Plain {
    fn of(plan: &Plan) -> Option<Self> {
        let slot = |place: &Where| match place {
            Where::Slot(slot) => Some(*slot),
            _ => None,
        };
        let whole = plan.layout == Layout::Wide && plan.each.is_none() && plan.record_time.is_none();
        if !whole || plan.signals.iter().any(SignalRule::is_text) {
            return None;
        }
        let others = [slot(&plan.driver)?, slot(&plan.trip)?, slot(&plan.fleet)?, slot(&plan.quality)?];
        Some(Plain { time: slot(&plan.time.place)?, vehicle: slot(&plan.vehicle.place)?, others })
    }
}

/// Paths on their way to slots.
struct Paths {
    trie: Trie,
    slots: BTreeMap<String, u16>,
    /// By slot: how many ask for it.
    asked: Vec<u32>,
    columns: BTreeMap<String, (Option<u16>, bool)>,
}

impl Paths {
    fn new() -> Self {
        Paths { trie: Trie::new(), slots: BTreeMap::new(), asked: Vec::new(), columns: BTreeMap::new() }
    }

    fn place(&mut self, text: &str, field: &str) -> Result<Where, MappingError> {
        match path::parse(text).map_err(|e| MappingError::new(field.to_string(), e))? {
            Place::Fixed(place) => Ok(place),
            Place::Path(steps) => Ok(Where::Slot(self.slot(&steps))),
        }
    }

    fn slot(&mut self, steps: &[path::Step]) -> u16 {
        let next = self.slots.len() as u16;
        let slot = *self.slots.entry(format!("{steps:?}")).or_insert(next);
        if slot == next {
            self.trie.add(steps, Some(slot));
            self.columns.insert(path::display(steps), (Some(slot), false));
            self.asked.push(0);
        }
        self.asked[slot as usize] += 1;
        slot
    }

    fn named(&mut self, text: Option<&str>, default: &str, field: &str) -> Result<Named, MappingError> {
        let name = text.unwrap_or(default);
        Ok(Named { place: self.place(name, field)?, name: name.to_string() })
    }

    fn time(&mut self, config: &TimeField, field: &str) -> Result<TimeRule, MappingError> {
        match config {
            TimeField::Path(text) => Ok(TimeRule::auto(self.place(text, field)?, text)),
            TimeField::Full(format) => {
                let place = self.place(&format.field, &format!("{field}.field"))?;
                TimeRule::new(place, format, field)
            }
        }
    }

    /// Has the numbers of signals be read where they are found, if nothing else asks for them.
    fn fix(&mut self, rules: &[SignalRule]) {
        for rule in rules {
            if let (Where::Slot(slot), Some(decimals)) = (&rule.place, rule.plain_decimals())
                && self.asked.get(*slot as usize) == Some(&1)
            {
                self.trie.fix(*slot, decimals);
            }
        }
    }

    fn ignore(&mut self, paths: &[String], field: &str) -> Result<(), MappingError> {
        for text in paths {
            let steps = path::parse_path(text).map_err(|e| MappingError::new(field.to_string(), e))?;
            self.trie.add(&steps, None);
            self.columns.entry(path::display(&steps)).or_insert((None, true));
        }
        Ok(())
    }
}

/// The compiled plan with the tries of records and of a trip payload's samples, and their numbers of slots.
pub(crate) struct Compiled {
    pub(crate) plan: Plan,
    pub(crate) records: (Trie, usize),
    pub(crate) samples: (Trie, usize),
}

/// # Errors
/// [`MappingError`] for the first field that cannot be used.
pub(crate) fn compile(ctx: &SourceContext, catalogue: &Catalogue) -> Result<Compiled, MappingError> {
    let (mapping, fields) = (&ctx.mapping, &ctx.mapping.fields);
    let at = |field: &str| format!("sources.{}.{field}", ctx.name);
    let (mut outer, mut sample) = (Paths::new(), Paths::new());
    let each = match &mapping.each {
        None => None,
        Some(text) => {
            let steps = path::parse_path(text).map_err(|e| MappingError::new(at("each"), e))?;
            Some((outer.slot(&steps), text.clone()))
        }
    };
    let default_time = TimeField::Path("at".into());
    let time_field = fields.time.as_ref().unwrap_or(&default_time);
    let time = outer.time(time_field, &at("fields.time"))?;
    let sample_time = sample.time(time_field, &at("fields.time"))?;
    let record_time = match &fields.record_time {
        None => None,
        Some(config) => Some(outer.time(config, &at("fields.record_time"))?),
    };
    let vehicle = outer.named(fields.vehicle.as_deref(), "vehicle_id", &at("fields.vehicle"))?;
    let mut other = |config: &Option<String>, default: &str, field: &str| {
        outer.named(config.as_deref(), default, &at(field)).map(|n| n.place)
    };
    let driver = other(&fields.driver, "driver_id", "fields.driver")?;
    let trip = other(&fields.trip, "trip_id", "fields.trip")?;
    let fleet = other(&fields.fleet, "fleet_id", "fields.fleet")?;
    let quality = other(&fields.quality, "quality", "fields.quality")?;
    let nowhere = || Named { place: Where::Const("".into()), name: String::new() };
    let (mut sensor, mut value, mut samples) = (nowhere(), nowhere(), (0, String::new()));
    match mapping.layout {
        Layout::Wide => {}
        Layout::Long => {
            sensor = outer.named(fields.sensor.as_deref(), "sensor_type", &at("fields.sensor"))?;
            value = outer.named(fields.value.as_deref(), "value", &at("fields.value"))?;
        }
        Layout::Trip => {
            let text = fields.samples.as_deref().unwrap_or("data");
            let steps = path::parse_path(text).map_err(|e| MappingError::new(at("fields.samples"), e))?;
            samples = (outer.slot(&steps), text.to_string());
        }
    }
    let signals =
        signals(ctx, catalogue, if mapping.layout == Layout::Trip { &mut sample } else { &mut outer }, &value)?;
    outer.ignore(&mapping.ignore, &at("ignore"))?;
    sample.ignore(&mapping.ignore, &at("ignore"))?;
    let limits = Limits::new(ctx)?;
    let interval = mapping.sample_interval.as_deref().unwrap_or("1s");
    let mut plan = Plan {
        layout: mapping.layout,
        width: catalogue.width(),
        tags: mapping.tags.unwrap_or(true),
        each,
        vehicle,
        driver,
        trip,
        fleet,
        quality,
        time,
        record_time,
        plain: None,
        sensors: by_sensor(mapping, catalogue, &signals),
        signals,
        sensor,
        value,
        samples,
        sample_time,
        sample_interval: time::parse_duration(interval)
            .map_err(|e| MappingError::new(at("sample_interval"), e.to_string()))?,
        not_before: limits.not_before,
        not_after: limits.not_after,
        future_tolerance: limits.future_tolerance,
        max_record: ctx.limits.max_record.min(u32::MAX as usize / 2),
        max_elements: ctx.limits.max_elements,
        replay_at: ctx.replay_at.unwrap_or(0),
        columns: outer.columns,
    };
    plan.plain = Plain::of(&plan);
    let finish = |p: Trie, slots: &BTreeMap<String, u16>| (p.finish(), slots.len());
    Ok(Compiled { plan, records: finish(outer.trie, &outer.slots), samples: finish(sample.trie, &sample.slots) })
}

/// The mapping of a signal with its defaults.
fn field_of(mapping: &Mapping, name: &str) -> Option<SignalField> {
    match mapping.signals.get(name) {
        Some(SignalMapping::Path(path)) => Some(SignalField { field: Some(path.clone()), ..SignalField::default() }),
        Some(SignalMapping::Full(field)) => Some(field.clone()),
        None => (!mapping.only_mapped).then(SignalField::default),
    }
}

fn signals(
    ctx: &SourceContext,
    catalogue: &Catalogue,
    paths: &mut Paths,
    value: &Named,
) -> Result<Vec<SignalRule>, MappingError> {
    for name in ctx.mapping.signals.keys() {
        if catalogue.index(name).is_none() {
            let field = format!("sources.{}.signals.{name}", ctx.name);
            return Err(MappingError::new(field, unknown_signal(name, catalogue)));
        }
    }
    let mut rules = Vec::new();
    for (i, declared) in catalogue.signals.iter().enumerate() {
        let Some(config) = field_of(&ctx.mapping, &declared.name) else { continue };
        let at = format!("sources.{}.signals.{}", ctx.name, declared.name);
        let place = match ctx.mapping.layout {
            Layout::Long => value.place.clone(),
            _ => paths.place(config.field.as_deref().unwrap_or(&declared.name), &at)?,
        };
        rules.push(SignalRule::new(i as u16, place, declared, &config, &at)?);
    }
    if ctx.mapping.layout != Layout::Long {
        paths.fix(&rules);
    }
    Ok(rules)
}

fn by_sensor(
    mapping: &Mapping,
    catalogue: &Catalogue,
    rules: &[SignalRule],
) -> HashMap<String, SmallVec<[u16; 2]>, FixedState> {
    let mut sensors: HashMap<String, SmallVec<[u16; 2]>, FixedState> = HashMap::default();
    for (i, rule) in rules.iter().enumerate() {
        let Some(declared) = catalogue.signals.get(rule.signal as usize) else { continue };
        let field = field_of(mapping, &declared.name).and_then(|f| f.field);
        sensors.entry(field.unwrap_or_else(|| declared.name.clone())).or_default().push(i as u16);
    }
    sensors
}

fn unknown_signal(name: &str, catalogue: &Catalogue) -> String {
    let nearest = catalogue
        .signals
        .iter()
        .map(|s| (strsim::damerau_levenshtein(&s.name, name), s.name.as_str()))
        .min()
        .filter(|(distance, _)| *distance <= name.len() / 2);
    match nearest {
        Some((_, nearest)) => format!("the catalogue has no signal {name:?}; did you mean {nearest:?}?"),
        None => format!("the catalogue has no signal {name:?}; declare it under [signals.{name}]"),
    }
}

struct Limits {
    not_before: i64,
    not_after: i64,
    future_tolerance: i64,
}

impl Limits {
    fn new(ctx: &SourceContext) -> Result<Self, MappingError> {
        let time = |text: &str, field: &str| {
            time::parse_rfc3339(text).map_err(|e| MappingError::new(format!("limits.{field}"), e.to_string()))
        };
        Ok(Limits {
            not_before: time(&ctx.limits.not_before, "not_before")?,
            not_after: match &ctx.limits.not_after {
                Some(text) => time(text, "not_after")?,
                None => i64::MAX,
            },
            future_tolerance: time::parse_duration(&ctx.limits.future_tolerance)
                .map_err(|e| MappingError::new("limits.future_tolerance".into(), e.to_string()))?,
        })
    }
}

impl Plan {
    /// Whether [`Plan::judge`] finds nothing.
    #[inline]
    pub(crate) fn is_judged_well(&self, at: i64, sent: Option<i64>) -> bool {
        let ahead = sent.is_some_and(|sent| at.saturating_sub(sent) > self.future_tolerance);
        (self.not_before..self.not_after).contains(&at) && !ahead
    }

    /// Judges a time that was read from the data; `sent` is when the record was sent, where that is known.
    #[inline]
    pub(crate) fn judge(&self, at: i64, sent: Option<i64>, name: &str) -> Result<(), Flaw> {
        if self.is_judged_well(at, sent) {
            return Ok(());
        }
        if at < self.not_before || at >= self.not_after {
            return Err(Flaw::new("time_implausible", || {
                let (side, limit, field) = if at < self.not_before {
                    ("before", self.not_before, "not_before")
                } else {
                    ("not before", self.not_after, "not_after")
                };
                let (at, limit) = (time::format_rfc3339(at), time::format_rfc3339(limit));
                format!("{name}: {at} is {side} {limit} (limits.{field})")
            }));
        }
        Err(Flaw::new("time_in_future", || {
            let at = time::format_rfc3339(at);
            let sent = sent.map_or_else(String::new, time::format_rfc3339);
            format!("{name}: {at} is beyond limits.future_tolerance after the record was sent, {sent}")
        }))
    }
}
