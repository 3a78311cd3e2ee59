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
    #[error("{path}: {message}")]
    Meaning { path: String, message: String },
}

const PREFIX: &str = "DRIVETRAIN_";

/// Reads a file and applies `DRIVETRAIN_SECTION__FIELD` from the environment.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::Unreadable {
        path: shown.clone(),
        reason: match e.kind() {
            std::io::ErrorKind::NotFound => "no such configuration file; ready ones are under configs/".into(),
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
        let keys: Vec<String> = name[PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        set(&mut table, &keys, value).map_err(|message| ConfigError::Environment { name: name.clone(), message })?;
        Config::deserialize(table.clone())
            .map_err(|e| ConfigError::Environment { name: name.clone(), message: suggest(e.message()) })?;
    }
    Config::deserialize(table).map_err(|e| syntax(path, text, &e))
}

fn syntax(path: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let offset = error.span().map_or(0, |s| s.start.min(text.len()));
    let line = text[..offset].matches('\n').count() + 1;
    ConfigError::Syntax { path: path.into(), line, message: suggest(error.message()) }
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
        _ => message.trim_end().to_string(),
    }
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
        let vars = [("DRIVETRAIN_JOB__WORKRES".to_string(), "3".to_string())];
        let error = parse("f.toml", "", vars.into_iter()).unwrap_err().to_string();
        assert!(error.contains("DRIVETRAIN_JOB__WORKRES") && error.contains("`workers`?"), "{error}");
    }
}
