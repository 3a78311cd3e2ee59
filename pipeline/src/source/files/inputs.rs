//! Which files are meant by the inputs of a command line, and what is in them.

use crate::source::config::{Format, SourceSpec};
use crate::source::error::SourceError;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// One file to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInput {
    /// Index of its source.
    pub source: u16,
    pub path: PathBuf,
    pub(crate) format: Format,
    pub(crate) packing: Packing,
    /// Size on disk.
    pub size: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// Finds the files behind `inputs`: files, directories (recursively, sorted by name) or `SOURCE=PATH`. Files in a
/// directory that are hidden or bear no known extension are passed over.
///
/// # Errors
/// What is missing, unreadable, ambiguous or not what its name says.
pub fn resolve(inputs: &[String], sources: &[SourceSpec]) -> Result<Vec<FileInput>, SourceError> {
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    for input in inputs {
        let (source, path) = assign(input, sources)?;
        let spec = sources.get(usize::from(source)).ok_or(SourceError::NoSource)?;
        let before = files.len();
        let directory = std::fs::metadata(&path).map_err(|e| io(&path, &e))?.is_dir();
        if directory {
            for path in walk(&path)? {
                match kind(&path, spec) {
                    Some(kind) => files.push(examine(path, kind, source)?),
                    None => tracing::info!(path = %path.display(), "passed over: not a data file by its name"),
                }
            }
            if files.len() == before {
                return Err(SourceError::EmptyDirectory { path });
            }
        } else {
            let kind = kind(&path, spec)
                .ok_or_else(|| SourceError::Extension { path: path.clone(), from: spec.name.to_string() })?;
            files.push(examine(path, kind, source)?);
        }
        for file in files.get(before..).unwrap_or_default() {
            let canonical = file.path.canonicalize().unwrap_or_else(|_| file.path.clone());
            if !seen.insert((file.source, canonical)) {
                return Err(SourceError::Twice { path: file.path.clone() });
            }
        }
    }
    Ok(files)
}

fn assign(input: &str, sources: &[SourceSpec]) -> Result<(u16, PathBuf), SourceError> {
    if let Some((name, path)) = input.split_once('=')
        && let Some(index) = sources.iter().position(|s| *s.name == *name)
    {
        return Ok((index as u16, PathBuf::from(path)));
    }
    match sources {
        [] => Err(SourceError::NoSource),
        [_] => Ok((0, PathBuf::from(input))),
        _ => {
            let names: Vec<&str> = sources.iter().map(|s| &*s.name).collect();
            Err(SourceError::Ambiguous { input: input.to_string(), sources: names.join(", ") })
        }
    }
}

fn io(path: &Path, error: &std::io::Error) -> SourceError {
    match error.kind() {
        std::io::ErrorKind::NotFound => SourceError::Missing { path: path.to_path_buf() },
        _ => SourceError::Unreadable { path: path.to_path_buf(), reason: error.to_string() },
    }
}

/// All files below a directory, in byte order of their paths' components.
fn walk(directory: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let mut files = Vec::new();
    let mut open = vec![directory.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).map_err(|e| io(&directory, &e))? {
            let path = entry.map_err(|e| io(&directory, &e))?.path();
            let hidden = path.file_name().is_some_and(|n| matches!(n.as_encoded_bytes().first(), Some(b'.' | b'_')));
            let is_directory = std::fs::metadata(&path).map_err(|e| io(&path, &e))?.is_dir();
            match (hidden, is_directory) {
                (true, _) => {}
                (false, true) => open.push(path),
                (false, false) => files.push(path),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Format and packing by the name; the source's own `format` wins over the extension.
fn kind(path: &Path, spec: &SourceSpec) -> Option<(Format, Packing)> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    let (stem, packing) = match name.rsplit_once('.') {
        Some((stem, "gz")) => (stem, Packing::Gzip),
        Some((stem, "zst" | "zstd")) => (stem, Packing::Zstd),
        _ => (name.as_str(), Packing::Plain),
    };
    let known = match stem.rsplit_once('.').map(|(_, extension)| extension) {
        Some("jsonl" | "ndjson" | "json") => Some(Format::Json),
        Some("csv") => Some(Format::Csv),
        Some("txt") => Some(Format::Txt),
        Some("parquet") => Some(Format::Parquet),
        _ => None,
    };
    spec.format.or(known).map(|format| (format, packing))
}

/// Opens the file and looks at its first bytes, so that a mistake shows before anything is written. What can be read only
/// once (a pipe) is left as it is.
fn examine(path: PathBuf, kind: (Format, Packing), source: u16) -> Result<FileInput, SourceError> {
    let (format, packing) = kind;
    if !std::fs::metadata(&path).map_err(|e| io(&path, &e))?.is_file() {
        return match format {
            Format::Parquet => {
                let reason = "Parquet is read from its end, and a pipe has none; write it to a file".into();
                Err(SourceError::Form { path, form: "Parquet", reason })
            }
            _ => Ok(FileInput { source, path, format, packing, size: 0 }),
        };
    }
    let mut file = File::open(&path).map_err(|e| io(&path, &e))?;
    let size = file.metadata().map_err(|e| io(&path, &e))?.len();
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic).map_err(|e| io(&path, &e))?;
    let (form, fits) = match (format, packing) {
        (Format::Parquet, Packing::Plain) => ("Parquet", magic == b"PAR1"),
        (Format::Parquet, _) => {
            let reason = "Parquet is compressed inside; unpack it".into();
            return Err(SourceError::Form { path, form: "plain Parquet", reason });
        }
        (_, Packing::Gzip) => ("gzip", magic.starts_with(&[0x1f, 0x8b]) || magic.is_empty()),
        (_, Packing::Zstd) => ("zstd", magic == [0x28, 0xb5, 0x2f, 0xfd] || is_skippable(&magic) || magic.is_empty()),
        (_, Packing::Plain) => ("text", true),
    };
    if !fits {
        let reason = format!("it begins with {magic:02x?}; rename it, or write it again");
        return Err(SourceError::Form { path, form, reason });
    }
    Ok(FileInput { source, path, format, packing, size })
}

/// The magic of a skippable zstd frame (RFC 8878, 3.1.2), with which `pzstd` begins.
fn is_skippable(magic: &[u8]) -> bool {
    matches!(magic, [0x50..=0x5f, 0x2a, 0x4d, 0x18])
}
