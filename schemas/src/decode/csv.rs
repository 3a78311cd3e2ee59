//! Delimited text: a header's names, and the cells of a line.
//!
//! Quotes are those of RFC 4180: a cell that begins with `"` ends at the next single `"`, and `""` inside is one
//! quote. With a space as delimiter a run of spaces counts as one and there are no quotes.

use super::frame::{Frame, Kind, Slot};

/// The names of the columns of delimited text, and how its lines are cut.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CsvHeader {
    pub names: Vec<String>,
    pub delimiter: u8,
    /// Whether cells may be quoted.
    pub quotes: bool,
}

impl CsvHeader {
    /// Reads a header line (a byte order mark and the line end are left out; bytes that are not UTF-8 become U+FFFD).
    pub fn parse(line: &[u8], delimiter: u8) -> CsvHeader {
        let text = String::from_utf8_lossy(line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line));
        let text = trim_end(&text);
        let (mut cells, mut scratch) = (Vec::new(), String::new());
        let names = match split(text, delimiter, true, &mut scratch, &mut cells) {
            Ok(unquoted) => {
                let data = if unquoted { scratch.as_str() } else { text };
                cells.iter().map(|(a, b)| data.get(*a..*b).unwrap_or("").trim().to_string()).collect()
            }
            Err(_) => text.split(delimiter as char).map(|name| name.trim().to_string()).collect(),
        };
        CsvHeader { names, delimiter, quotes: delimiter != b' ' }
    }

    /// For text without a header: `c0`, `c1`, …
    pub fn numbered(columns: usize, delimiter: u8) -> CsvHeader {
        let names = (0..columns).map(|i| format!("c{i}")).collect();
        CsvHeader { names, delimiter, quotes: delimiter != b' ' }
    }

    /// The same without quotes.
    pub fn unquoted(self) -> CsvHeader {
        CsvHeader { quotes: false, ..self }
    }
}

fn trim_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// Cuts a line into the spans of its cells. True: the spans are in `scratch`, where quotes have been taken off.
///
/// # Errors
/// What is wrong with its quotes.
pub(crate) fn split(
    line: &str,
    delimiter: u8,
    quotes: bool,
    scratch: &mut String,
    cells: &mut Vec<(usize, usize)>,
) -> Result<bool, &'static str> {
    cells.clear();
    let bytes = line.as_bytes();
    if delimiter == b' ' {
        let mut from = 0;
        for (i, b) in bytes.iter().chain(b" ").enumerate() {
            if *b == b' ' {
                if i > from {
                    cells.push((from, i));
                }
                from = i + 1;
            }
        }
        return Ok(false);
    }
    if quotes && bytes.contains(&b'"') {
        scratch.clear();
        return split_quoted(line, delimiter, scratch, cells).map(|()| true);
    }
    let mut from = 0;
    for (i, b) in bytes.iter().enumerate() {
        if *b == delimiter {
            cells.push((from, i));
            from = i + 1;
        }
    }
    cells.push((from, bytes.len()));
    Ok(false)
}

fn split_quoted(
    line: &str,
    delimiter: u8,
    scratch: &mut String,
    cells: &mut Vec<(usize, usize)>,
) -> Result<(), &'static str> {
    let delimiter = delimiter as char;
    let mut rest = line;
    loop {
        let start = scratch.len();
        if let Some(mut inner) = rest.strip_prefix('"') {
            loop {
                let (text, after) = inner.split_once('"').ok_or("a quote is not closed")?;
                scratch.push_str(text);
                match after.strip_prefix('"') {
                    Some(more) => {
                        scratch.push('"');
                        inner = more;
                    }
                    None => {
                        rest = after;
                        break;
                    }
                }
            }
            if !rest.is_empty() && !rest.starts_with(delimiter) {
                return Err("something follows a closing quote");
            }
        } else {
            let end = rest.find(delimiter).unwrap_or(rest.len());
            let (text, after) = rest.split_at(end);
            scratch.push_str(text);
            rest = after;
        }
        cells.push((start, scratch.len()));
        match rest.strip_prefix(delimiter) {
            Some(after) => rest = after,
            None => return Ok(()),
        }
    }
}

/// What becomes of a column: the slot of its path, or a tag, or nothing.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) slot: Option<u16>,
    pub(crate) ignore: bool,
}

impl Column {
    /// Puts a value of this column into the frame.
    #[inline]
    pub(crate) fn put(&self, frame: &mut Frame, value: Slot, tags: bool) {
        match self.slot {
            Some(slot) => frame.set(slot, value),
            None if tags && !self.ignore && value.kind != Kind::Null => frame.tag(0, &[&self.name], value),
            None => {}
        }
    }
}

/// Reads one line into the frame. True: the frame's spans are in `scratch`.
///
/// # Errors
/// What is wrong with the line, for a person.
pub(crate) fn load(
    line: &str,
    header: &CsvHeader,
    columns: &[Column],
    scratch: &mut String,
    cells: &mut Vec<(usize, usize)>,
    frame: &mut Frame,
    tags: bool,
) -> Result<bool, String> {
    let in_scratch = split(trim_end(line), header.delimiter, header.quotes, scratch, cells)?;
    if cells.len() != columns.len() {
        return Err(format!("the line has {} cells, the header {}", cells.len(), columns.len()));
    }
    for (column, (start, end)) in columns.iter().zip(cells.iter()) {
        let kind = if start == end { Kind::Null } else { Kind::Cell };
        column.put(frame, Slot::new(kind, *start, *end), tags);
    }
    Ok(in_scratch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells(line: &str, delimiter: u8) -> Result<Vec<String>, &'static str> {
        let (mut scratch, mut cells) = (String::new(), Vec::new());
        let moved = split(line, delimiter, true, &mut scratch, &mut cells)?;
        let data = if moved { &scratch } else { line };
        Ok(cells.iter().map(|(a, b)| data[*a..*b].to_string()).collect())
    }

    #[test]
    fn cells_of_a_line() {
        assert_eq!(cells("a,,c", b',').unwrap(), ["a", "", "c"]);
        assert_eq!(cells("\"a,\"\"b\"\"\",c\"d,\"\"", b',').unwrap(), ["a,\"b\"", "c\"d", ""]);
        assert_eq!(cells(" 1  2.5 x  ", b' ').unwrap(), ["1", "2.5", "x"]);
        assert_eq!(cells("\"a\nb\";c", b';').unwrap(), ["a\nb", "c"]);
        assert!(cells("\"a,b", b',').is_err());
        assert!(cells("\"a\"b,c", b',').is_err());
    }

    #[test]
    fn headers() {
        let h = CsvHeader::parse(b"\xEF\xBB\xBFvehicle_id, \"at\" ,speed\r\n", b',');
        assert_eq!(h.names, ["vehicle_id", "\"at\"", "speed"]);
        assert_eq!(CsvHeader::parse(b"\"a,b\",c", b',').names, ["a,b", "c"]);
        assert_eq!(CsvHeader::numbered(2, b' ').names, ["c0", "c1"]);
    }
}
