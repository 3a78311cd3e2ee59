//! Where a part of a record stands: a path into it, or one of its circumstances.

use std::sync::Arc;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(u32),
}

/// A compiled place. `Slot` is a number that the plan gives to each distinct path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    Slot(u16),
    Const(Arc<str>),
    Key,
    Header(String),
    Topic,
    Partition,
    Timestamp,
    File,
}

/// A place as configured, before its path has a slot.
pub(crate) enum Place {
    Path(Vec<Step>),
    Fixed(Where),
}

/// Parses `gps.coords[0]`, `["key.with.dots"]`, `$key`, `$header.x`, `$topic`, `$partition`, `$timestamp`, `$file` or
/// `=text`.
pub(crate) fn parse(text: &str) -> Result<Place, String> {
    if let Some(constant) = text.strip_prefix('=') {
        return Ok(Place::Fixed(Where::Const(constant.into())));
    }
    if !text.starts_with('$') {
        return parse_path(text).map(Place::Path);
    }
    let fixed = match text {
        "$key" => Where::Key,
        "$topic" => Where::Topic,
        "$partition" => Where::Partition,
        "$timestamp" => Where::Timestamp,
        "$file" => Where::File,
        _ => match text.strip_prefix("$header.") {
            Some(name) if !name.is_empty() => Where::Header(name.to_string()),
            _ => {
                return Err(format!(
                    "{text:?} is unknown; there are $key, $header.<name>, $topic, $partition, $timestamp and $file"
                ));
            }
        },
    };
    Ok(Place::Fixed(fixed))
}

/// Parses a path.
pub(crate) fn parse_path(text: &str) -> Result<Vec<Step>, String> {
    let wrong = |why: &str| format!("{text:?} is not a path such as gps.coords[0]: {why}");
    let mut steps = Vec::new();
    let mut rest = text;
    let mut name = true;
    while name || !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let (step, after) = match inner.strip_prefix('"') {
                Some(quoted) => {
                    let (key, after) = quoted.split_once("\"]").ok_or_else(|| wrong("\"] is missing"))?;
                    (Step::Key(key.to_string()), after)
                }
                None => {
                    let (index, after) = inner.split_once(']').ok_or_else(|| wrong("] is missing"))?;
                    (Step::Index(index.parse().map_err(|_| wrong("an index is a whole number"))?), after)
                }
            };
            steps.push(step);
            rest = after;
        } else {
            let rest_of = if name { rest } else { rest.strip_prefix('.').ok_or_else(|| wrong("expected . or ["))? };
            let end = rest_of.find(['.', '[']).unwrap_or(rest_of.len());
            let (key, after) = rest_of.split_at(end);
            if key.is_empty() {
                return Err(wrong("a name is empty"));
            }
            steps.push(Step::Key(key.to_string()));
            rest = after;
        }
        name = false;
    }
    Ok(steps)
}

/// The name of a column or tag for a path: keys joined by dots, indexes in brackets.
pub(crate) fn display(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(key);
            }
            Step::Index(i) => out.push_str(&format!("[{i}]")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let show = |text| parse_path(text).map(|s| display(&s));
        assert_eq!(show("gps.coords[0]").as_deref(), Ok("gps.coords[0]"));
        assert_eq!(show("[\"a.b\"].c").as_deref(), Ok("a.b.c"));
        assert_eq!(parse_path("[\"a.b\"]").unwrap(), [Step::Key("a.b".into())]);
        assert_eq!(parse_path("[1][2]").unwrap(), [Step::Index(1), Step::Index(2)]);
        for bad in ["", "a..b", "a.", ".a", "a[", "a[x]", "a[0]b", "a[-1]"] {
            assert!(parse_path(bad).is_err(), "{bad}");
        }
        assert!(parse("$keys").is_err());
        assert!(matches!(parse("=x"), Ok(Place::Fixed(Where::Const(c))) if &*c == "x"));
    }
}
