//! Reading the file: syntax, unknown fields with a suggestion, environment overrides.

use super::Config;
use serde::Deserialize;
use std::path::Path;
use thiserror::Error;

/// What is wrong with a configuration; exit code 2.
#[derive(Debug, Error)]
pub enum ConfigError {
    #[error("{path}: {reason}")]
    Unreadable { path: String, reason: String },
    #[error("{path}:{line}: {message}")]
    Syntax { path: String, line: usize, message: String },
    #[error("environment variable {name}: {message}")]
    Environment { name: String, message: String },
    #[error("{path}{}: {message}", line.map_or_else(String::new, |line| format!(":{line}")))]
    Meaning { path: String, line: Option<usize>, message: String },
    #[error("{0}")]
    Argument(String),
}

const PREFIX: &str = "DRIVETRAIN_";

/// Reads a file and applies `DRIVETRAIN_SECTION__FIELD` from the environment; a property of librdkafka is written with
/// underscores for its dots (`DRIVETRAIN_KAFKA__PROPERTIES__SASL_PASSWORD` is `sasl.password`).
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable {
        path: shown.clone(),
        reason: match e.kind() {
            std::io::ErrorKind::NotFound => "no such configuration file; ready ones are under configs/".into(),
            std::io::ErrorKind::IsADirectory => "a directory; name the configuration file in it".into(),
            std::io::ErrorKind::InvalidData => "not UTF-8 text; a configuration is a TOML file".into(),
            _ => e.to_string(),
        },
    })?;
    let overrides = std::env::vars().filter(|(name, _)| name.starts_with(PREFIX) && name.contains("__"));
    parse(&shown, &text, overrides)
}

/// Parses a configuration; `path` is for messages only.
pub fn parse(path: &str, text: &str, overrides: impl Iterator<Item = (String, String)>) -> Result<Config, ConfigError> {
    // First as it stands, so that an error has its line.
    let config: Config = toml::from_str(text).map_err(|e| syntax(path, text, &e))?;
    let mut overrides: Vec<_> = overrides.collect();
    if overrides.is_empty() {
        return Ok(config);
    }
    overrides.sort();
    let mut table: toml::Table = toml::from_str(text).map_err(|e| syntax(path, text, &e))?;
    for (name, value) in &overrides {
        let mut keys: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        // Properties are texts: a password of digits is no number (and is not quoted by an error about its type).
        let property = keys.starts_with(&["kafka".into(), "properties".into()]);
        // Shells export no name with a dot, and no property of librdkafka has an underscore.
        keys.iter_mut().skip(2).filter(|_| property).for_each(|key| *key = key.replace('_', "."));
        let quoted = (property && keys.len() > 2).then(|| text_of(value));
        set(&mut table, &keys, quoted.as_deref().unwrap_or(value))
            .map_err(|message| ConfigError::Environment { name: name.clone(), message })?;
        Config::deserialize(table.clone())
            .map_err(|e| if property { discreet(e.message()) } else { suggest(e.message()) })
            .map_err(|message| ConfigError::Environment { name: name.clone(), message })?;
    }
    Config::deserialize(table).map_err(|e| syntax(path, text, &e))
}

/// A text as a TOML string. What already stands in quotes stays.
fn text_of(value: &str) -> String {
    let is_text = |t: &toml::Table| matches!(t.get("v"), Some(toml::Value::String(_)));
    match toml::from_str::<toml::Table>(&format!("v = {value}")) {
        Ok(table) if is_text(&table) && table.len() == 1 => value.to_string(),
        _ => toml::Value::String(value.to_string()).to_string(),
    }
}

fn syntax(path: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |s| s.start.min(text.len()));
    let before = text.get(..offset).unwrap_or("");
    let line = before.matches('\n').count() + 1;
    // What stands in [kafka.properties] may be a secret, and a message about a type quotes it.
    let here = text.lines().nth(line - 1).unwrap_or("");
    let section = before.lines().rev().find(|l| l.trim_start().starts_with('[')).unwrap_or("");
    let property = section.contains("properties") || here.contains("properties");
    let message = if property { discreet(error.message()) } else { suggest(error.message()) };
    ConfigError::Syntax { path: path.into(), line, message }
}

/// The message about a value of `[kafka.properties]`, without the value.
fn discreet(message: &str) -> String {
    match message.starts_with("invalid ") {
        true => {
            "properties of librdkafka are strings in quotes (what stands here is not shown: it may be a secret)".into()
        }
        false => suggest(message),
    }
}

/// An error of meaning: `message` begins with the field (`policy.events[0].signal: …`). It bears the field's line, or
/// the name of the environment variable that has set it.
pub(super) fn meaning(path: &Path, message: String) -> ConfigError {
    let end = message.find(|c: char| !(c.is_ascii_alphanumeric() || "_.[]-".contains(c))).unwrap_or(message.len());
    let field = &message[..end];
    let variable = match field.strip_prefix("kafka.properties.") {
        Some(property) => format!("{PREFIX}KAFKA__PROPERTIES__{}", property.to_uppercase().replace('.', "_")),
        None => format!("{PREFIX}{}", field.to_uppercase().replace('.', "__")),
    };
    if field.contains('.') && std::env::var_os(&variable).is_some() {
        return ConfigError::Environment { name: variable, message };
    }
    let line = std::fs::read_to_string(path).ok().and_then(|text| line_of(&text, field));
    ConfigError::Meaning { path: path.display().to_string(), line, message }
}

/// The line of a field, or of the innermost section around it that stands in the file.
fn line_of(text: &str, field: &str) -> Option<usize> {
    let document = toml::de::DeTable::parse(text).ok()?;
    let (mut table, mut found) = (document.get_ref(), None);
    let mut rest = field;
    'fields: while !rest.is_empty() {
        // A property's name has dots of its own.
        if let Some((name, _)) = table.get_key_value(rest) {
            found = Some(name.span().start);
            break;
        }
        let (key, behind) = rest.split_once('.').unwrap_or((rest, ""));
        rest = behind;
        let (key, indices) = key.split_once('[').map_or((key, ""), |(key, rest)| (key, rest));
        let Some((name, mut value)) = table.get_key_value(key) else { break };
        found = Some(name.span().start);
        for index in indices.split_terminator(']').filter_map(|i| i.trim_start_matches('[').parse::<usize>().ok()) {
            let Some(inner) = value.get_ref().as_array().and_then(|a| a.get(index)) else { break 'fields };
            found = Some(inner.span().start);
            value = inner;
        }
        match value.get_ref().as_table() {
            Some(inner) => table = inner,
            None => break,
        }
    }
    Some(text.get(..found?)?.matches('\n').count() + 1)
}

/// Adds the nearest known name to serde's "unknown field" message.
fn suggest(message: &str) -> String {
    let mut quoted = message.split('`').skip(1).step_by(2);
    match (message.starts_with("unknown "), quoted.next()) {
        (true, Some(wrong)) => {
            let best = quoted.max_by(|a, b| strsim::jaro(wrong, a).total_cmp(&strsim::jaro(wrong, b)));
            match best {
                Some(best) if strsim::jaro(wrong, best) > 0.7 => format!("{message}; did you mean `{best}`?"),
                _ => message.to_string(),
            }
        }
        _ => in_words(message.trim_end()),
    }
}

/// serde names Rust's types; a person writes numbers and texts.
fn in_words(message: &str) -> String {
    let types = [
        ("expected usize", "expected a whole number, 0 or more"),
        ("expected u64", "expected a whole number, 0 or more"),
        ("expected u32", "expected a whole number, 0 or more"),
        ("expected u8", "expected a whole number, 0 or more"),
        ("expected i64", "expected a whole number"),
        ("expected i32", "expected a whole number"),
        ("expected f64", "expected a number"),
        ("expected a boolean", "expected true or false"),
    ];
    let named =
        types.iter().find_map(|(rust, words)| message.strip_suffix(rust).map(|start| format!("{start}{words}")));
    named.unwrap_or_else(|| message.to_string())
}

/// Sets a nested value: TOML where the text is TOML, else a string.
fn set(table: &mut toml::Table, keys: &[String], value: &str) -> Result<(), String> {
    let [key, rest @ ..] = keys else { return Err("names no field".into()) };
    if rest.is_empty() {
        let parsed = toml::from_str::<toml::Table>(&format!("v = {value}")).ok().and_then(|mut t| t.remove("v"));
        table.insert(key.clone(), parsed.unwrap_or_else(|| toml::Value::String(value.to_string())));
        return Ok(());
    }
    let inner = table.entry(key.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
    match inner {
        toml::Value::Table(inner) => set(inner, rest, value),
        _ => Err(format!("`{key}` is a value, not a section")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> impl Iterator<Item = (String, String)> {
        std::iter::empty()
    }

    #[test]
    fn unknown_field_has_its_line_and_a_suggestion() {
        let error = parse("f.toml", "[job]\nname = \"a\"\nworkres = 2\n", none()).unwrap_err().to_string();
        assert!(error.starts_with("f.toml:3: unknown field `workres`"), "{error}");
        assert!(error.ends_with("did you mean `workers`?"), "{error}");
    }

    #[test]
    fn environment_overrides() {
        let vars = [("DRIVETRAIN_JOB__WORKERS".to_string(), "3".to_string())];
        let config = parse("f.toml", "[job]\nname = \"a\"\n", vars.into_iter()).unwrap();
        assert_eq!((config.job.workers, config.job.name.as_str()), (Some(3), "a"));
        for name in ["DRIVETRAIN_KAFKA__PROPERTIES__SASL_PASSWORD", "DRIVETRAIN_KAFKA__PROPERTIES__SASL.PASSWORD"] {
            let config = parse("f.toml", "", [(name.to_string(), "12".to_string())].into_iter()).unwrap();
            assert_eq!(
                config.kafka.properties.into_iter().collect::<Vec<_>>(),
                [("sasl.password".into(), "12".into())]
            );
        }
        let vars = [("DRIVETRAIN_JOB__WORKRES".to_string(), "3".to_string())];
        let error = parse("f.toml", "", vars.into_iter()).unwrap_err().to_string();
        assert!(error.contains("DRIVETRAIN_JOB__WORKRES") && error.contains("`workers`?"), "{error}");
    }
}
