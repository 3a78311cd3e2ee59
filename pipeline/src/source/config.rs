//! `[sources.<name>]`: where records come from, what they look like, and which field is what.

use super::error::SourceError;
use drivetrain_schemas::decode::CsvHeader;
use drivetrain_schemas::mapping::{Fields, Layout, Mapping, SignalMapping};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line, or a Kafka message.
    Json,
    /// Delimited text with quotes (`"a ""b"", c"`, also over several lines).
    Csv,
    /// Delimited text without quotes.
    Txt,
    Parquet,
}

/// A source as configured. The fields from `layout` on are those of [`Mapping`], listed here because unknown fields
/// can only be denied without `flatten`.
///
/// ```toml
/// [sources.telemetry]
/// topics = ["sensor-readings"]
/// layout = "wide"
/// fields.vehicle = "vid"
/// ```
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SourceConfig {
    /// Kafka topics that `run` reads; `replay` reads the files given to it instead.
    pub topics: Vec<String>,
    /// `json`, `csv`, `txt` or `parquet`; default: by the file's name, and `json` for topics.
    pub format: Option<Format>,
    /// One character between columns, or `"\t"`; default `,` for csv, a space for txt (runs of spaces count as one).
    pub delimiter: Option<String>,
    /// Whether the first line names the columns; default true for csv; for txt true unless `columns` is given.
    pub header: Option<bool>,
    /// The columns' names where no header has them; default `c0`, `c1`, ….
    pub columns: Vec<String>,
    pub layout: Layout,
    pub each: Option<String>,
    pub sample_interval: Option<String>,
    pub fields: Fields,
    pub signals: BTreeMap<String, SignalMapping>,
    pub only_mapped: bool,
    pub ignore: Vec<String>,
    pub tags: Option<bool>,
}

impl SourceConfig {
    pub fn mapping(&self) -> Mapping {
        Mapping {
            layout: self.layout,
            each: self.each.clone(),
            sample_interval: self.sample_interval.clone(),
            fields: self.fields.clone(),
            signals: self.signals.clone(),
            only_mapped: self.only_mapped,
            ignore: self.ignore.clone(),
            tags: self.tags,
        }
    }
}

/// A source, resolved; its place in the job's list is [`super::Chunk::source`].
#[derive(Clone, Debug)]
pub struct SourceSpec {
    pub name: Arc<str>,
    pub topics: Vec<String>,
    pub format: Option<Format>,
    pub text: TextFormat,
    /// Whether the mapping looks at Kafka headers; they cost an allocation a record.
    pub wants_headers: bool,
}

/// How delimited text is cut.
#[derive(Clone, Debug, Default)]
pub struct TextFormat {
    pub(crate) delimiter: Option<u8>,
    pub(crate) header: Option<bool>,
    pub(crate) columns: Vec<String>,
}

impl SourceSpec {
    /// Checks a source's configuration.
    ///
    /// # Errors
    /// [`SourceError::Config`].
    pub fn new(name: &str, config: &SourceConfig) -> Result<Self, SourceError> {
        let error = |field, reason: String| SourceError::Config { from: name.to_string(), field, reason };
        let delimiter = match config.delimiter.as_deref() {
            None => None,
            Some("\\t" | "tab") => Some(b'\t'),
            Some(text) => match text.as_bytes() {
                [b] if b.is_ascii() && !matches!(b, b'\n' | b'\r' | b'"') => Some(*b),
                _ => return Err(error("delimiter", format!("{text:?} is not one ASCII character, such as \";\""))),
            },
        };
        if config.header == Some(true) && !config.columns.is_empty() {
            return Err(error(
                "columns",
                "header = true takes the names from the file; leave one of the two out".into(),
            ));
        }
        match config.format {
            Some(Format::Parquet) if !config.topics.is_empty() => {
                return Err(error("format", "a Kafka message is not a Parquet file; use json or csv".into()));
            }
            Some(Format::Csv | Format::Txt) if !config.topics.is_empty() && config.columns.is_empty() => {
                return Err(error("columns", "delimited Kafka messages have no header line; name the columns".into()));
            }
            _ => {}
        }
        // Field names of the mapping cannot hide `$header.` anywhere but in a path.
        let mapping = serde_json::to_string(&config.mapping()).unwrap_or_default();
        Ok(Self {
            name: name.into(),
            topics: config.topics.clone(),
            format: config.format,
            text: TextFormat { delimiter, header: config.header, columns: config.columns.clone() },
            wants_headers: mapping.contains("$header."),
        })
    }

    /// The header of Kafka messages that are delimited text.
    pub(crate) fn message_header(&self) -> Option<Arc<CsvHeader>> {
        match self.format {
            Some(format @ (Format::Csv | Format::Txt)) => self.text.fixed_header(format).map(Arc::new),
            _ => None,
        }
    }
}

impl TextFormat {
    pub(crate) fn delimiter(&self, format: Format) -> u8 {
        self.delimiter.unwrap_or(if format == Format::Txt { b' ' } else { b',' })
    }

    /// The header made of the configured columns; None when the file's first line is one.
    pub(crate) fn fixed_header(&self, format: Format) -> Option<CsvHeader> {
        if self.header == Some(true) || self.columns.is_empty() {
            return None;
        }
        let delimiter = self.delimiter(format);
        let header = CsvHeader { names: self.columns.clone(), ..CsvHeader::numbered(0, delimiter) };
        Some(unquote(header, format))
    }

    /// The header made of a file's first line, and whether that line is only a header.
    pub(crate) fn first_line(&self, format: Format, line: &[u8]) -> (CsvHeader, bool) {
        let delimiter = self.delimiter(format);
        let header = unquote(CsvHeader::parse(line, delimiter), format);
        match self.header {
            Some(false) => (unquote(CsvHeader::numbered(header.names.len(), delimiter), format), false),
            _ => (header, true),
        }
    }
}

fn unquote(header: CsvHeader, format: Format) -> CsvHeader {
    if format == Format::Txt { header.unquoted() } else { header }
}
