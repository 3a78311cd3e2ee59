use super::*;
use arrow::array::{Int64Array, RecordBatch};
use std::io::Write;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bodies(outcome: &Outcome) -> Vec<(i64, String)> {
    outcome.records().into_iter().map(|(_, position, body)| (position, body)).collect()
}

fn read(name: &str, bytes: impl AsRef<[u8]>, config: &str) -> Vec<(i64, String)> {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), name, bytes);
    bodies(&replay(job(vec![source("s", config)], &[path])))
}

fn fails(name: &str, bytes: impl AsRef<[u8]>, config: &str) -> SourceError {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), name, bytes);
    let (outcome, result) = launch(job(vec![source("s", config)], &[path])).finish(|_| false);
    let error = result.unwrap_err();
    assert_eq!(outcome.failed, Some(error.to_string()), "the committer is told");
    assert!(!outcome.tickets.iter().any(|t| t.end));
    error
}

fn text(lines: &[(i64, &str)]) -> Vec<(i64, String)> {
    lines.iter().map(|(n, s)| (*n, s.to_string())).collect()
}

#[test]
fn json_lines_blank_lines_line_ends_and_a_missing_last_one() {
    let expected = text(&[(1, "{1}"), (3, "{3}"), (5, "{5}")]);
    for name in ["a.jsonl", "a.ndjson", "a.json"] {
        assert_eq!(read(name, "\u{feff}{1}\r\n\n{3}\n  \t\n{5}", ""), expected);
    }
    assert_eq!(read("a.jsonl", "", ""), vec![]);
}

#[test]
fn gzip_of_several_members_and_zstd_of_several_frames() {
    let members = [gzip(b"{1}\n{"), gzip(b"2}\n"), gzip(b"{3}")].concat();
    let expected = text(&[(1, "{1}"), (2, "{2}"), (3, "{3}")]);
    assert_eq!(read("a.jsonl.gz", members, ""), expected);
    let frames = [&b"{1}\n{"[..], b"2}\n{3}"].map(|b| zstd::encode_all(b, 1).unwrap()).concat();
    assert_eq!(read("a.jsonl.zst", frames, ""), expected);
}

#[test]
fn a_broken_gzip_names_the_file_and_what_was_read() {
    // In the first block of 256 KiB and beyond it, within a line.
    for lines in [1_000, 50_000] {
        let text: String = (0..lines).map(|n| format!("{{{}}}\n", n * 7919 % 65_521)).collect();
        let mut packed = gzip(text.as_bytes());
        packed.truncate(packed.len() / 2);
        let mut came = Vec::new();
        std::io::copy(&mut flate2::read::GzDecoder::new(packed.as_slice()), &mut came).unwrap_err();
        let whole = came.iter().filter(|byte| **byte == b'\n').count();
        assert!((lines / 4..lines).contains(&whole), "{whole} of {lines}");
        let error = fails("broken.jsonl.gz", packed, "").to_string();
        assert!(error.contains("broken.jsonl.gz") && error.contains(&format!("after line {whole} ")), "{error}");
    }
}

#[test]
fn csv_with_quotes_over_lines_and_stray_quotes() {
    let csv = "a,b\n1,\"x\n\"\"y\"\",\n\"\n2,5\" pipe\n\n3,\"\"\n\"q\",4\n";
    let expected = text(&[
        (2, "[\"a\", \"b\"] 1,\"x\n\"\"y\"\",\n\""),
        (5, "[\"a\", \"b\"] 2,5\" pipe"),
        (7, "[\"a\", \"b\"] 3,\"\""),
        (8, "[\"a\", \"b\"] \"q\",4"),
    ]);
    assert_eq!(read("a.csv", csv, ""), expected);
}

#[test]
fn an_open_quote_does_not_swallow_the_file() {
    let mut csv = String::from("a\n\"open\n");
    (0..2000).for_each(|i| csv.push_str(&format!("{i}\n")));
    let records = read("a.csv", &csv, "");
    assert_eq!(records.len(), 2001);
    assert_eq!(records.last().unwrap(), &(2002, "[\"a\"] 1999".to_string()));
}

#[test]
fn text_with_a_delimiter_and_configured_columns() {
    assert_eq!(
        read("a.txt", "1  2 \n3 4\n", "columns = ['x', 'y']"),
        text(&[(1, "[\"x\", \"y\"] 1  2 "), (2, "[\"x\", \"y\"] 3 4")])
    );
    assert_eq!(read("a.txt", "1;2\n", "delimiter = ';'\nheader = false"), text(&[(1, "[\"c0\", \"c1\"] 1;2")]));
    assert_eq!(read("a.data", "x;y\n1;2\n", "format = 'csv'\ndelimiter = ';'"), text(&[(2, "[\"x\", \"y\"] 1;2")]));
}

#[test]
fn a_long_line_is_one_record_cut_behind_the_limit() {
    for long in [999, 1000, 1001, 1002, 300_000, 262_144, 1_000_000] {
        let records = read("a.jsonl", format!("{{1}}\n{}\n{{3}}\n", "x".repeat(long)), "");
        assert_eq!(records.len(), 3, "{long}");
        assert_eq!(records[1], (2, "x".repeat(long.min(1001))));
        assert_eq!(records[2], (3, "{3}".to_string()));
        let last = read("a.jsonl", "x".repeat(long), "");
        assert_eq!(last, vec![(1, "x".repeat(long.min(1001)))]);
    }
}

#[test]
fn blocks_cut_nothing() {
    let lines: Vec<String> = (0..60_000).map(|i| format!("{{\"t\":{i},\"pad\":\"{}\"}}", "p".repeat(i % 37))).collect();
    let records = read("a.jsonl", lines.join("\n"), "");
    assert_eq!(records.len(), lines.len());
    let mut sorted = records;
    sorted.sort();
    assert!(sorted.iter().zip(&lines).enumerate().all(|(i, (r, l))| r.0 == i as i64 + 1 && r.1 == *l));
}

fn parquet(rows: std::ops::Range<i64>) -> Vec<u8> {
    let batch =
        RecordBatch::try_from_iter([("t", Arc::new(Int64Array::from_iter_values(rows)) as arrow::array::ArrayRef)])
            .unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn parquet_rows() {
    let records = read("a.parquet", parquet(0..9000), "");
    assert_eq!(records.len(), 9000);
    assert!(records.iter().any(|(n, body)| *n == 4097 && body.contains("4096")));
    assert!(fails_to_resolve("a.parquet", "no", "").contains("Parquet"));
}

fn fails_to_resolve(name: &str, bytes: &str, config: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = write(directory.path(), name, bytes);
    let error = super::super::files::resolve(&[path], &[source("s", config)]).unwrap_err();
    assert!(error.is_usage());
    error.to_string()
}

#[test]
fn mistakes_in_the_inputs_show_before_anything_is_read() {
    assert!(fails_to_resolve("a.xyz", "", "").contains("`format`"));
    assert!(fails_to_resolve("a.csv.gz", "plain", "").contains("gzip"));
    assert!(fails_to_resolve("a.csv.zst", "plain", "").contains("zstd"));
    let directory = tempfile::tempdir().unwrap();
    let file = write(directory.path(), "a.csv", "x\n1\n");
    let two = [source("one", ""), source("two", "")];
    let error = |inputs: &[&str]| {
        let inputs: Vec<String> = inputs.iter().map(|s| s.to_string()).collect();
        super::super::files::resolve(&inputs, &two).unwrap_err()
    };
    assert!(matches!(error(&["one=/nowhere/at/all"]), SourceError::Missing { .. }));
    assert!(error(&[&file]).to_string().contains("one, two"));
    assert!(matches!(error(&[&format!("one={file}"), &format!("one={file}")]), SourceError::Twice { .. }));
    let empty = directory.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(matches!(error(&[&format!("two={}", empty.display())]), SourceError::EmptyDirectory { .. }));
    assert!(super::super::files::resolve(&[format!("one={file}"), format!("two={file}")], &two).is_ok());
}

#[test]
fn a_directory_is_read_in_order_as_one_partition_with_an_origin_a_file() {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("b/2.csv", "x\n3\n"),
        ("b/1.csv", "x\n2\n"),
        ("a.csv", "x\n1\n"),
        ("README.md", "no"),
        (".hidden.csv", "x\n9\n"),
    ] {
        write(directory.path(), name, text);
    }
    let input = directory.path().to_string_lossy().to_string();
    let outcome = replay(job(vec![source("s", "")], &[input]));
    let bound: Vec<_> = outcome.tickets.iter().flat_map(|t| &t.bindings).map(|b| (&*b.origin.name, b.end)).collect();
    let names: Vec<_> = bound.iter().map(|(n, _)| n.rsplit_once('/').unwrap().1).collect();
    assert_eq!(names, ["a.csv", "1.csv", "2.csv"]);
    assert!(bound.iter().all(|(_, end)| *end == 2));
    assert!(outcome.tickets.last().unwrap().end);
    assert_eq!(&*outcome.tickets.last().unwrap().idle[0].name, "*");
}

#[test]
fn unknown_fields_of_a_source_are_denied_and_mistakes_named() {
    assert!(toml::from_str::<SourceConfig>("topic = 'x'").is_err());
    let config: SourceConfig = toml::from_str("delimiter = 'ab'").unwrap();
    assert!(SourceSpec::new("s", &config).unwrap_err().to_string().starts_with("sources.s.delimiter"));
    let config: SourceConfig = toml::from_str("layout = 'trip'\nfields.vehicle = '$header.v'").unwrap();
    assert!(SourceSpec::new("s", &config).unwrap().wants_headers);
    assert_eq!(config.mapping().fields.vehicle.as_deref(), Some("$header.v"));
}

/// What can be read only once is read once, from its first byte.
#[cfg(unix)]
#[test]
fn a_pipe_is_read_from_its_first_byte() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe.jsonl");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let job = job(vec![source("s", "")], &[path.display().to_string()]);
    let writer = std::thread::spawn(move || std::fs::write(path, "{1}\n{2}\n").unwrap());
    assert_eq!(bodies(&replay(job)), text(&[(1, "{1}"), (2, "{2}")]));
    writer.join().unwrap();
    let fifo = directory.path().join("pipe.parquet");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let sources = [source("s", "")];
    let error = super::super::files::resolve(&[fifo.display().to_string()], &sources).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("write it to a file"), "{error}");
}
