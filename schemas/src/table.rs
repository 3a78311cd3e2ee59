//! The result tables (DESIGN §6): names, keys, columns, and how rows become Arrow and JSON.

use crate::catalogue::{Catalogue, SignalType};
use serde::{Deserialize, Serialize};

/// A history table. The order is that of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableId {
    Readings,
    Windows,
    Events,
    Trips,
    DriverScores,
    FleetAggregates,
    Anomalies,
    Quality,
    ReferenceProblems,
    Intake,
    Late,
    Rejects,
}

/// What a column holds. Arrow: Utf8, Int64, Timestamp(µs, UTC), Float64, Boolean, Binary, and Utf8 for JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int,
    Time,
    Float,
    Bool,
    Binary,
    Json,
}

#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
    pub nullable: bool,
    /// One sentence, with the unit.
    pub doc: String,
}

/// A table's definition; the history form adds `epoch` and `diff` (Int64, not null) behind the columns, and the
/// partition column `date` (in the path only) where [`Table::date`] is set.
#[derive(Clone, Debug)]
pub struct Table {
    pub id: TableId,
    pub name: &'static str,
    /// Key columns. Rows are sorted by them, then by `epoch`.
    pub key: &'static [&'static str],
    /// The time column whose UTC day is the partition `date=YYYY-MM-DD`.
    pub date: Option<&'static str>,
    pub doc: &'static str,
    pub columns: Vec<Column>,
}

/// A compacted topic of live answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    DriverScores,
    TripScores,
    FleetAggregates,
    VehicleState,
    AnomaliesActive,
}

impl Topic {
    pub const ALL: [Topic; 5] =
        [Topic::DriverScores, Topic::TripScores, Topic::FleetAggregates, Topic::VehicleState, Topic::AnomaliesActive];

    pub fn name(self) -> &'static str {
        match self {
            Topic::DriverScores => "driver_scores",
            Topic::TripScores => "trip_scores",
            Topic::FleetAggregates => "fleet_aggregates",
            Topic::VehicleState => "vehicle_state",
            Topic::AnomaliesActive => "anomalies_active",
        }
    }
}

/// The topic of rejected records: not compacted.
pub const DEAD_LETTER: &str = "dead_letter";

impl TableId {
    pub const ALL: [TableId; 12] = [
        TableId::Readings,
        TableId::Windows,
        TableId::Events,
        TableId::Trips,
        TableId::DriverScores,
        TableId::FleetAggregates,
        TableId::Anomalies,
        TableId::Quality,
        TableId::ReferenceProblems,
        TableId::Intake,
        TableId::Late,
        TableId::Rejects,
    ];

    pub fn name(self) -> &'static str {
        match self {
            TableId::Readings => "readings",
            TableId::Windows => "windows",
            TableId::Events => "events",
            TableId::Trips => "trips",
            TableId::DriverScores => "driver_scores",
            TableId::FleetAggregates => "fleet_aggregates",
            TableId::Anomalies => "anomalies",
            TableId::Quality => "quality",
            TableId::ReferenceProblems => "reference_problems",
            TableId::Intake => "intake",
            TableId::Late => "late",
            TableId::Rejects => "rejects",
        }
    }

    pub fn by_name(name: &str) -> Option<TableId> {
        TableId::ALL.into_iter().find(|t| t.name() == name)
    }
}

/// Shorthand of the definitions below: `name: kind[?] = "doc"`; `?` = nullable.
macro_rules! columns {
    ($($name:ident : $kind:ident $($null:literal)? = $doc:literal;)*) => {
        vec![$(Column {
            name: stringify!($name).to_string(),
            kind: Kind::$kind,
            nullable: columns!(@null $($null)?),
            doc: $doc.to_string(),
        }),*]
    };
    (@null) => { false };
    (@null $null:literal) => { true };
}

impl Table {
    /// The definition of a table; `readings` has a column for each signal of the catalogue.
    pub fn new(id: TableId, catalogue: &Catalogue) -> Table {
        let (key, date, doc, columns): (&'static [&'static str], _, _, _) = match id {
            TableId::Readings => (
                &["vehicle_id", "at"],
                Some("at"),
                "What the vehicles reported: one row a record, cleaned, without duplicates and late ones.",
                readings(catalogue),
            ),
            TableId::Windows => (
                &["vehicle_id", "signal", "resolution", "window_start"],
                Some("window_start"),
                "Statistics of each signal of each vehicle over minutes, hours and days of event time.",
                windows(),
            ),
            TableId::Events => {
                (&["event_id"], Some("started_at"), "Excursions beyond the active policy's thresholds.", events())
            }
            TableId::Trips => {
                (&["trip_id"], Some("started_at"), "Trips with their score and what it rests on.", trips())
            }
            TableId::DriverScores => {
                (&["driver_id", "policy_id"], None, "A driver's score over the rolling horizon of a policy.", drivers())
            }
            TableId::FleetAggregates => {
                (&["fleet_id"], None, "Sums and scores of a fleet with all its descendants.", fleets())
            }
            TableId::Anomalies => (
                &["anomaly_id"],
                Some("started_at"),
                "Signals that left what is normal, until they returned.",
                anomalies(),
            ),
            TableId::Quality => (
                &["vehicle_id", "signal", "window_start"],
                Some("window_start"),
                "Data quality, by the hour.",
                quality(),
            ),
            TableId::ReferenceProblems => (
                &["document"],
                None,
                "Control documents that contradict each other; a row disappears when the problem is mended.",
                columns! {
                    document: Text = "Kind and key of the document, such as `fleets/f1`.";
                    problem: Text = "What is wrong with it, and what was done instead.";
                },
            ),
            TableId::Intake => {
                (&["source", "origin", "partition"], None, "What became of every record read.", intake())
            }
            TableId::Late => (
                &["origin", "partition", "position"],
                Some("record_time"),
                "Readings that came after the horizon; `backfill` folds them in.",
                rejects(),
            ),
            TableId::Rejects => (
                &["origin", "partition", "position"],
                Some("record_time"),
                "Records that could not be used, with the reason and their raw bytes.",
                rejects(),
            ),
        };
        Table { id, name: id.name(), key, date, doc, columns }
    }

    /// Index of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name == name)
    }
}

fn readings(catalogue: &Catalogue) -> Vec<Column> {
    let mut columns = columns! {
        vehicle_id: Text = "The vehicle.";
        at: Time = "Event time.";
        driver_id: Text "?" = "The driver, as in the record.";
        trip_id: Text "?" = "The trip, as in the record.";
        fleet_id: Text "?" = "The fleet, as in the record.";
    };
    for s in &catalogue.signals {
        let kind = match s.kind {
            SignalType::Number => Kind::Float,
            SignalType::Bool => Kind::Bool,
            SignalType::Text => Kind::Text,
        };
        let unit = s.unit.as_deref().map_or(String::new(), |u| format!(", in {u}"));
        let vss = s.vss.as_deref().map_or(String::new(), |v| format!(" ({v})"));
        columns.push(Column { name: s.name.clone(), kind, nullable: true, doc: format!("Signal{unit}{vss}.") });
    }
    columns.extend(columns! {
        quality: Text "?" = "The record's own word on its quality.";
        tags: Json "?" = "Fields of the record that no mapping names, as a JSON object.";
    });
    columns
}

fn windows() -> Vec<Column> {
    columns! {
        vehicle_id: Text = "The vehicle.";
        signal: Text = "The signal's name.";
        resolution: Text = "`1m`, `1h` or `1d`.";
        window_start: Time = "Start of the window, inclusive, aligned to UTC.";
        window_end: Time = "End of the window, exclusive.";
        count: Int = "Known values.";
        sum: Float = "Their sum, in the signal's unit.";
        mean: Float = "Arithmetic mean.";
        min: Float = "Smallest.";
        max: Float = "Largest.";
        stddev: Float = "Population standard deviation.";
        first: Float = "The earliest.";
        last: Float = "The latest.";
        p50: Float "?" = "Median, where the signal asks for quantiles.";
        p95: Float "?" = "95th percentile, likewise.";
        p99: Float "?" = "99th percentile, likewise.";
    }
}

fn events() -> Vec<Column> {
    columns! {
        event_id: Text = "`<trip or vehicle>:<kind>:<start in µs>`.";
        vehicle_id: Text = "The vehicle.";
        driver_id: Text "?" = "The driver at its start.";
        trip_id: Text "?" = "The trip, as in `trips`.";
        kind: Text = "harsh_braking, rapid_acceleration, harsh_cornering, speeding, collision or idling.";
        started_at: Time = "Its first sample.";
        ended_at: Time = "Its last sample.";
        samples: Int = "Samples beyond the threshold.";
        peak: Float = "The value furthest from zero, in the signal's unit.";
        severity: Text = "low, medium or high.";
        lat: Float "?" = "Latitude at its start, degrees.";
        lon: Float "?" = "Longitude at its start, degrees.";
    }
}

fn trips() -> Vec<Column> {
    columns! {
        trip_id: Text = "The record's trip id where it is unique, else `<vehicle>:<trip>:<date of start>`.";
        vehicle_id: Text = "The vehicle.";
        driver_id: Text "?" = "The driver with most samples.";
        fleet_id: Text "?" = "The vehicle's fleet at the start, else the record's.";
        status: Text = "PROCESSING (open), PENDING (ended, no policy applies) or COMPLETED.";
        started_at: Time = "Its first sample.";
        ended_at: Time "?" = "Its last sample; null while open.";
        samples: Int "?" = "Readings; null while open.";
        duration_s: Float "?" = "From the first to the last sample plus one sample interval, s; null while open.";
        distance_km: Float "?" = "Distance, km; null while open or not known.";
        max_speed_kmh: Float "?" = "Highest speed, km/h; null while open or not known.";
        harsh_braking: Int = "As the policy counts it.";
        rapid_acceleration: Int = "As the policy counts it.";
        harsh_cornering: Int = "As the policy counts it.";
        speeding_s: Float "?" = "Time above the policy's speed, s; null while open or where no policy says.";
        safety_score: Float "?" = "The policy's score, 0 to its base; while open, the score so far.";
        policy_id: Text "?" = "The policy that governs it.";
        policy_version: Int "?" = "Its version.";
        excluded: Bool = "A correction excludes it from its driver's score.";
    }
}

fn drivers() -> Vec<Column> {
    columns! {
        driver_id: Text = "The driver.";
        policy_id: Text = "The policy.";
        score: Float "?" = "Mean of the trips' scores, weighted as the policy says; null with no exposure.";
        band: Text "?" = "The policy's band of the score.";
        trips: Int = "Trips that count.";
        distance_km: Float "?" = "Their distance, km.";
        duration_s: Float = "Their duration, s.";
        harsh_braking: Int = "Sum over the trips.";
        rapid_acceleration: Int = "Sum over the trips.";
        harsh_cornering: Int = "Sum over the trips.";
        speeding_s: Float "?" = "Sum over the trips, s.";
        fleet_id: Text "?" = "The fleet of the newest trip.";
        status: Text = "active or shadow.";
    }
}

fn fleets() -> Vec<Column> {
    columns! {
        fleet_id: Text = "The fleet.";
        parent_id: Text "?" = "The fleet above it.";
        depth: Int = "0 for a root.";
        vehicles: Int = "Distinct vehicles of the trips that count.";
        drivers: Int = "Distinct drivers of the trips that count.";
        trips: Int = "Trips that count in drivers' horizons.";
        distance_km: Float "?" = "Their distance, km.";
        duration_s: Float = "Their duration, s.";
        harsh_events: Int = "Their harsh braking, rapid acceleration and harsh cornering.";
        score: Float "?" = "Mean of the trips' scores, weighted by exposure.";
        score_min: Float "?" = "Lowest score of its drivers.";
        score_p50: Float "?" = "Median (the lower one) of its drivers' scores.";
        worst_drivers: Json = "The five lowest drivers, `[{\"driver_id\":…,\"score\":…}]`, ties by id.";
        anomalies_active: Int = "Open anomalies of its vehicles.";
    }
}

fn anomalies() -> Vec<Column> {
    columns! {
        anomaly_id: Text = "`<vehicle>:<signal>:<detector>:<start in µs>`.";
        vehicle_id: Text = "The vehicle.";
        signal: Text = "The signal.";
        detector: Text = "range, zscore or stuck.";
        kind: Text = "high, low, spike or stuck.";
        severity: Text = "low, medium or high.";
        started_at: Time = "First abnormal reading.";
        ended_at: Time "?" = "First normal reading after it; null while open.";
        score: Float = "How abnormal at its worst: see the detector.";
        observed: Float = "The worst value, in the signal's unit.";
        expected: Float "?" = "What would have been normal then.";
    }
}

fn quality() -> Vec<Column> {
    columns! {
        vehicle_id: Text = "The vehicle.";
        signal: Text = "The signal.";
        window_start: Time = "Start of the hour.";
        expected: Int "?" = "Values expected by the sampling interval.";
        received: Int = "Known values.";
        invalid: Int = "Values made null.";
        duplicates: Int = "Duplicate readings.";
        late: Int = "Late readings.";
        completeness: Float "?" = "received / expected, at most 1.";
        validity: Float "?" = "received / (received + invalid).";
        timeliness: Float "?" = "received / (received + late).";
    }
}

fn intake() -> Vec<Column> {
    columns! {
        source: Text = "The source.";
        origin: Text = "Topic or file.";
        partition: Int = "Partition; 0 for files.";
        records: Int = "Records read: decoded + rejected.";
        readings: Int = "What the decoded expand to: used + duplicates + late.";
        decoded: Int = "Records that could be read.";
        rejected: Int = "Records that could not; see `rejects`.";
        used: Int = "Readings that count.";
        duplicates: Int = "Readings that were there already.";
        late: Int = "Readings behind the horizon; see `late`.";
        invalid_values: Int = "Values made null.";
    }
}

fn rejects() -> Vec<Column> {
    columns! {
        origin: Text = "Topic or file.";
        partition: Int = "Partition; 0 for files.";
        position: Int = "Offset, or line.";
        record_time: Time "?" = "Kafka's timestamp or the mapped record time.";
        reason: Text = "A short stable word.";
        detail: Text = "What was wrong, for a person.";
        payload: Binary "?" = "The raw bytes.";
    }
}
