//! `drivetrain live`: the newest value of each key of a live topic, from Kafka or from `<data>/live`.

pub mod kafka;

#[cfg(test)]
mod tests;

use drivetrain_schemas::table::Topic;
use drivetrain_sinks::live::{Follower, read_latest};
use drivetrain_sinks::progress::ProgressError;
use drivetrain_sinks::progress::data::has_data;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use thiserror::Error;

/// How often `--follow` looks at the local files, which tell nobody that they have grown.
const POLL: Duration = Duration::from_millis(200);

/// What can go wrong, in words for the person at the command line.
#[derive(Debug, Error)]
pub enum LiveError {
    #[error("there is no topic {name}{hint}\ntopics: {known}")]
    UnknownTopic { name: String, hint: String, known: String },
    #[error("{}: there is no such data directory; --data names the one given to `drivetrain run`, `replay` or `demo`", .0.display())]
    NoData(PathBuf),
    #[error("{}: no job has written here; --data names the directory given to `drivetrain run`, `replay` or `demo`", .0.display())]
    NotData(PathBuf),
    #[error("{brokers} has no topic {topic}; `--topic-prefix` names the job's prefix, if it has one")]
    NoTopic { brokers: String, topic: String },
    #[error("{topic} has no key {key}")]
    NoKey { topic: &'static str, key: String },
    #[error("{place}: {problem}")]
    Read { place: String, problem: String },
    #[error("the output was closed")]
    Closed,
}

impl LiveError {
    /// 2: the command line is wrong; 1: reading failed or the key isn't there; 0: nobody reads any more.
    pub fn exit_code(&self) -> u8 {
        match self {
            LiveError::UnknownTopic { .. } | LiveError::NoData(_) | LiveError::NotData(_) => 2,
            LiveError::Closed => 0,
            _ => 1,
        }
    }
}

impl From<io::Error> for LiveError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => LiveError::Closed,
            _ => LiveError::Read { place: "standard output".into(), problem: error.to_string() },
        }
    }
}

/// Shows the newest value of each key of a live topic, a line a key: the key, a tab, the JSON document.
///
/// Topics: driver_scores, trip_scores, fleet_aggregates, vehicle_state, anomalies_active.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("from").required(true).args(["data", "brokers"])))]
pub struct LiveArgs {
    /// The job's data directory (a job without Kafka).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Kafka's bootstrap servers, host:port,…
    #[arg(long)]
    pub brokers: Option<String>,
    /// Prefix of the topics in Kafka.
    #[arg(long, default_value = "", requires = "brokers")]
    pub topic_prefix: String,
    /// The topic, such as driver_scores.
    pub topic: String,
    /// Only this key, as indented JSON.
    pub key: Option<String>,
    /// Go on with each change, until interrupted; a key that ceases to exist has no document.
    #[arg(long)]
    pub follow: bool,
}

/// Runs the command.
///
/// # Errors
/// See [`LiveError`]; its exit code is [`LiveError::exit_code`].
pub fn run(args: &LiveArgs) -> Result<(), LiveError> {
    match run_all(args) {
        // Who has closed the pipe has seen enough.
        Err(LiveError::Closed) => Ok(()),
        done => done,
    }
}

fn run_all(args: &LiveArgs) -> Result<(), LiveError> {
    let topic = topic(&args.topic)?;
    let mut out = io::BufWriter::new(io::stdout());
    match (&args.brokers, &args.data) {
        (Some(brokers), _) => from_kafka(args, topic, brokers, &mut out),
        (None, Some(data)) => from_files(args, topic, data, &mut out),
        // The command line has one of them.
        (None, None) => Ok(()),
    }
}

fn from_kafka(args: &LiveArgs, topic: Topic, brokers: &str, out: &mut impl Write) -> Result<(), LiveError> {
    let mut reader = kafka::Reader::open(brokers, &format!("{}{}", args.topic_prefix, topic.name()))?;
    let mut latest = BTreeMap::new();
    reader.read_to_end(|key, value| keep(&mut latest, key, value))?;
    show(&latest, topic, args.key.as_deref(), args.follow, out)?;
    if !args.follow {
        return Ok(out.flush()?);
    }
    loop {
        out.flush()?;
        reader.wait(|key, value| change(args.key.as_deref(), key, value, out))?;
    }
}

fn from_files(args: &LiveArgs, topic: Topic, data: &Path, out: &mut impl Write) -> Result<(), LiveError> {
    if !data.is_dir() {
        return Err(LiveError::NoData(data.to_path_buf()));
    }
    if !has_data(data) {
        return Err(LiveError::NotData(data.to_path_buf()));
    }
    let mut follower = Follower::new(data, topic.name());
    let mut latest = BTreeMap::new();
    for record in follower.poll().map_err(|e| unreadable(data, &e))? {
        keep(&mut latest, record.key, record.value)?;
    }
    show(&latest, topic, args.key.as_deref(), args.follow, out)?;
    if !args.follow {
        return Ok(out.flush()?);
    }
    loop {
        out.flush()?;
        pause();
        for record in follower.poll().map_err(|e| unreadable(data, &e))? {
            change(args.key.as_deref(), record.key, record.value, out)?;
        }
    }
}

/// The newest committed value of each key of a topic of a job without Kafka; empty when nothing was written to it.
///
/// # Errors
/// A damaged or unreadable file.
pub fn latest(data: &Path, topic: &str) -> Result<BTreeMap<String, String>, LiveError> {
    read_latest(data, topic).map_err(|e| unreadable(data, &e))
}

fn unreadable(data: &Path, error: &ProgressError) -> LiveError {
    LiveError::Read { place: data.display().to_string(), problem: error.to_string() }
}

#[allow(clippy::disallowed_methods, reason = "files tell nobody that they have grown")]
fn pause() {
    std::thread::sleep(POLL);
}

/// The topic of this name.
///
/// # Errors
/// [`LiveError::UnknownTopic`], with the nearest name and the list.
pub fn topic(name: &str) -> Result<Topic, LiveError> {
    if let Some(topic) = Topic::ALL.into_iter().find(|t| t.name() == name) {
        return Ok(topic);
    }
    let names: Vec<&str> = Topic::ALL.iter().map(|t| t.name()).collect();
    let near = names.iter().map(|n| (strsim::damerau_levenshtein(n, name), *n)).min().filter(|(d, _)| *d <= 5);
    let hint = near.map_or(String::new(), |(_, n)| format!("; did you mean {n}?"));
    Err(LiveError::UnknownTopic { name: name.into(), hint, known: names.join(", ") })
}

/// Takes a change in; no value: the key is gone.
fn keep(latest: &mut BTreeMap<String, String>, key: String, value: Option<String>) -> Result<(), LiveError> {
    match value {
        Some(value) => latest.insert(key, value),
        None => latest.remove(&key),
    };
    Ok(())
}

fn show(
    latest: &BTreeMap<String, String>,
    topic: Topic,
    key: Option<&str>,
    follow: bool,
    out: &mut impl Write,
) -> Result<(), LiveError> {
    match key {
        None => latest.iter().try_for_each(|(key, value)| writeln!(out, "{key}\t{value}"))?,
        Some(key) => match latest.get(key) {
            Some(value) => writeln!(out, "{}", pretty(value))?,
            None if follow => {}
            None => return Err(LiveError::NoKey { topic: topic.name(), key: key.into() }),
        },
    }
    Ok(())
}

fn change(wanted: Option<&str>, key: String, value: Option<String>, out: &mut impl Write) -> Result<(), LiveError> {
    match wanted {
        Some(wanted) if wanted != key => {}
        Some(_) => writeln!(out, "{}", value.as_deref().map_or("null".into(), pretty))?,
        None => writeln!(out, "{key}\t{}", value.unwrap_or_default())?,
    }
    Ok(())
}

/// Indented, or as it is when it isn't JSON. Fields keep their order.
fn pretty(value: &str) -> String {
    let mut out = String::with_capacity(value.len() * 2);
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let mut chars = value.chars().filter(|c| !c.is_ascii_control()).peekable();
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth));
    };
    while let Some(c) = chars.next() {
        if quoted {
            out.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '{' | '[' if matches!(chars.peek(), Some('}' | ']')) => out.push(c),
            '}' | ']' if out.ends_with(['{', '[']) => out.push(c),
            '{' | '[' => {
                depth += 1;
                out.push(c);
                line(&mut out, depth);
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            ' ' => {}
            _ => {
                quoted = c == '"';
                out.push(c);
            }
        }
    }
    out
}
