//! Reads a record of any form into a frame.

use super::columns::{self, Leaf};
use super::csv::{self, Column, CsvHeader};
use super::frame::Frame;
use super::plan::{Compiled, Plan};
use super::quick::Reach;
use super::trie::{Pass, Trie};
use super::view::clip;
use super::{Body, Flaw, Record};
use crate::json::Scanner;
use crate::reading::{NULL, Reject};
use crate::scan;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use std::sync::Arc;

#[derive(Clone, Debug)]
pub(crate) struct Intake {
    pub(crate) trie: Trie,
    /// The record itself, and one element of it.
    pub(crate) outer: Frame,
    pub(crate) inner: Frame,
    /// The samples of a trip payload.
    pub(crate) samples: Trie,
    pub(crate) sample: Frame,
    /// Texts that do not stand in the record as they are.
    pub(crate) scratch: String,
    cells: Vec<(usize, usize)>,
    header: Option<(Arc<CsvHeader>, Vec<Column>)>,
    schema: Option<(SchemaRef, Vec<Leaf>)>,
}

impl Intake {
    pub(crate) fn new(compiled: Compiled) -> (Plan, Self) {
        let ((trie, slots), (samples, sample_slots)) = (compiled.records, compiled.samples);
        let intake = Intake {
            trie,
            outer: Frame::new(slots),
            inner: Frame::new(slots),
            samples,
            sample: Frame::new(sample_slots),
            scratch: String::new(),
            cells: Vec::new(),
            header: None,
            schema: None,
        };
        (compiled.plan, intake)
    }

    /// Fills `outer`. The text that its spans refer to, or None where that is `scratch`.
    ///
    /// # Errors
    /// [`Flaw`]: the record is to be rejected.
    #[inline]
    pub(crate) fn load<'a>(&mut self, plan: &Plan, record: &Record<'a>, tags: bool) -> Result<Option<&'a str>, Flaw> {
        self.outer.reset();
        match record.body {
            Body::Tombstone => Err(Flaw::new("tombstone", || "the record has no value".into())),
            Body::Json(bytes) => {
                let text = text(plan, bytes)?;
                self.json(text, tags)?;
                Ok(Some(text))
            }
            Body::Csv { header, line } => self.line(plan, header, text(plan, line)?, tags),
            Body::Columns { batch, row } => {
                self.row(plan, batch, row, tags);
                Ok(None)
            }
        }
    }

    #[inline]
    fn json(&mut self, text: &str, tags: bool) -> Result<(), Flaw> {
        let mut scanner = Scanner::new(text);
        if scanner.peek() != b'{' {
            return Err(no_object(text));
        }
        let reach = Reach::new(text);
        let mut pass = Pass { trie: &mut self.trie, text, reach: &reach, frame: &mut self.outer, tags };
        match pass.run(&mut scanner, 0).and_then(|()| scanner.finish()) {
            Ok(()) => Ok(()),
            Err(e) => Err(Flaw::new("not_json", || {
                let near = text.get(e.offset..).map(clip).unwrap_or("");
                format!("{e}, near {near:?}")
            })),
        }
    }

    fn line<'a>(
        &mut self,
        plan: &Plan,
        header: &Arc<CsvHeader>,
        line: &'a str,
        tags: bool,
    ) -> Result<Option<&'a str>, Flaw> {
        if line.trim_ascii().is_empty() {
            return Err(Flaw::new("empty", || "the line is empty".into()));
        }
        if !matches!(&self.header, Some((known, _)) if Arc::ptr_eq(known, header) || known == header) {
            self.header = Some((header.clone(), header.names.iter().map(|name| bind(plan, name.clone())).collect()));
        }
        let columns = self.header.as_ref().map(|(_, columns)| columns.as_slice()).unwrap_or_default();
        csv::load(line, header, columns, &mut self.scratch, &mut self.cells, &mut self.outer, tags)
            .map(|in_scratch| (!in_scratch).then_some(line))
            .map_err(|problem| Flaw::new("bad_csv", || problem))
    }

    fn row(&mut self, plan: &Plan, batch: &RecordBatch, row: usize, tags: bool) {
        let schema = batch.schema_ref();
        if !matches!(&self.schema, Some((known, _)) if Arc::ptr_eq(known, schema)) {
            self.schema = Some((schema.clone(), columns::leaves(schema, &|name| bind(plan, name))));
        }
        let leaves = self.schema.as_ref().map(|(_, leaves)| leaves.as_slice()).unwrap_or_default();
        columns::load(batch, row, leaves, &mut self.scratch, &mut self.outer, tags);
    }
}

fn bind(plan: &Plan, name: String) -> Column {
    let (slot, ignore) = plan.columns.get(&name).copied().unwrap_or((None, false));
    Column { name, slot, ignore }
}

#[inline(always)]
fn text<'a>(plan: &Plan, bytes: &'a [u8]) -> Result<&'a str, Flaw> {
    match scan::ascii(bytes) {
        Some(text) if bytes.len() <= plan.max_record => Ok(text),
        _ => unusual_text(plan, bytes),
    }
}

#[inline(never)]
fn unusual_text<'a>(plan: &Plan, bytes: &'a [u8]) -> Result<&'a str, Flaw> {
    if bytes.len() > plan.max_record {
        return Err(Flaw::new("too_large", || {
            format!("{} bytes are more than the {} of limits.max_record", bytes.len(), plan.max_record)
        }));
    }
    std::str::from_utf8(bytes).map_err(|e| {
        let at = e.valid_up_to();
        let byte = bytes.get(at).copied().unwrap_or(0);
        Flaw::new("not_utf8", || format!("byte {at} is 0x{byte:02x}, which is no UTF-8 there"))
    })
}

#[cold]
fn no_object(text: &str) -> Flaw {
    if text.trim_ascii().is_empty() {
        return Flaw::new("empty", || "the record has no bytes but white space".into());
    }
    match crate::json::validate(text.as_bytes()) {
        Ok(_) => Flaw::new("not_object", || format!("{} is no JSON object", clip(text.trim_ascii()))),
        Err(e) => Flaw::new("not_json", || {
            let near = text.get(e.offset..).map(clip).unwrap_or("");
            format!("{e}, near {near:?}")
        }),
    }
}

/// The rejection of a record, with its raw bytes (of a row of a columnar file: as JSON).
#[cold]
pub(crate) fn rejected(record: &Record<'_>, Flaw(flaw): Flaw) -> Reject {
    let (reason, detail) = *flaw;
    Reject {
        origin: record.origin.clone(),
        position: record.position,
        record_time: record.timestamp.unwrap_or(NULL),
        reason: reason.into(),
        detail,
        payload: match record.body {
            Body::Tombstone => None,
            Body::Json(bytes) | Body::Csv { line: bytes, .. } => Some(bytes.to_vec()),
            Body::Columns { batch, row } => Some(columns::row_json(batch, row).into_bytes()),
        },
    }
}
