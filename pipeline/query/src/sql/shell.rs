//! The interactive form of `drivetrain sql`.

use super::{Database, Format, QueryError, write};
use rustyline::error::ReadlineError;
use std::io::{Write, stdout};
use tokio::runtime::Runtime;

const HELP: &str = "\
Statements end with ; and may span lines.
\\d          lists the tables
\\d TABLE    describes a table
\\q          quits (also Ctrl-D)";

/// Reads statements and commands from the terminal until the end. A failing statement is reported and the session
/// goes on.
///
/// # Errors
/// The terminal can't be used.
pub(super) fn interact(database: &Database, runtime: &Runtime, format: Option<Format>) -> Result<(), QueryError> {
    let mut editor = rustyline::DefaultEditor::new().map_err(|e| QueryError::Failed(format!("the terminal: {e}")))?;
    eprintln!("drivetrain sql: \\d lists the tables, \\? helps, \\q quits");
    let mut pending = String::new();
    loop {
        let prompt = if pending.is_empty() { "drivetrain> " } else { "        ..> " };
        let line = match editor.readline(prompt) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                pending.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(e) => return Err(QueryError::Failed(format!("the terminal: {e}"))),
        };
        let Some(step) = step(&mut pending, &line) else { continue };
        // A line that can't be remembered can still be run.
        let _ = editor.add_history_entry(line.as_str());
        let result = match step {
            Step::Quit => return Ok(()),
            Step::Help => {
                println!("{HELP}");
                Ok(())
            }
            Step::List => {
                database.names().iter().for_each(|name| println!("{name}"));
                Ok(())
            }
            Step::Describe(table) => runtime.block_on(describe(database, &table)),
            Step::Run(sql) => runtime.block_on(statements(database, &sql, format.unwrap_or_default())),
        };
        if let Err(e) = result {
            eprintln!("{e}");
        }
    }
}

/// What a line comes to.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Quit,
    Help,
    List,
    Describe(String),
    Run(String),
}

/// Takes a line in; `None` while a statement is not finished.
fn step(pending: &mut String, line: &str) -> Option<Step> {
    let trimmed = line.trim();
    if pending.is_empty() {
        match trimmed.split_whitespace().collect::<Vec<_>>()[..] {
            [] => return None,
            ["\\q" | "quit" | "exit"] => return Some(Step::Quit),
            ["\\d"] => return Some(Step::List),
            ["\\d", table] => return Some(Step::Describe(table.trim_end_matches(';').to_string())),
            [word, ..] if word.starts_with('\\') => return Some(Step::Help),
            _ => {}
        }
    }
    pending.push_str(line);
    pending.push('\n');
    trimmed.ends_with(';').then(|| Step::Run(std::mem::take(pending)))
}

async fn statements(database: &Database, sql: &str, format: Format) -> Result<(), QueryError> {
    for statement in Database::parse(sql)? {
        write(format, database.run(statement).await?, &mut stdout()).await?;
    }
    Ok(())
}

async fn describe(database: &Database, table: &str) -> Result<(), QueryError> {
    let columns = database.describe(table).await?;
    let width = columns.iter().map(|(name, ..)| name.len()).max().unwrap_or(0);
    let mut out = stdout();
    for (name, kind, nullable) in columns {
        let null = if nullable { "" } else { " not null" };
        writeln!(out, "{name:width$}  {kind}{null}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_span_lines() {
        let mut pending = String::new();
        assert_eq!(step(&mut pending, "\\d"), Some(Step::List));
        assert_eq!(step(&mut pending, "\\d trips;"), Some(Step::Describe("trips".into())));
        assert_eq!(step(&mut pending, "select 1"), None);
        assert_eq!(step(&mut pending, "\\d"), None);
        assert_eq!(step(&mut pending, ", 2;"), Some(Step::Run("select 1\n\\d\n, 2;\n".into())));
        assert_eq!(step(&mut pending, "  "), None);
        assert_eq!(step(&mut pending, "\\q"), Some(Step::Quit));
    }
}
