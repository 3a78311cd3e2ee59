//! The command line. Results on stdout, logs on stderr; exit code 0 done, 1 the job failed, 2 the command line or the
//! configuration is wrong.

use crate::commands::{bench, check, compact, demo, replay, run};
use crate::simulate;
use clap::{Args, Parser, Subcommand, ValueEnum};
use drivetrain_query::{live, schema, sql};
use std::io::IsTerminal;
use std::process::ExitCode;

/// Turns the sensor topics of a fleet into windows, anomalies, driver scores and fleet aggregates, incrementally and
/// exactly once.
#[derive(Debug, Parser)]
#[command(name = "drivetrain", version, max_term_width = 110, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Debug, Args)]
struct LogArgs {
    /// How much to log (on stderr): error, warn, info, debug, trace, or a filter such as `info,rdkafka=debug`.
    #[arg(long, global = true, default_value = "info", env = "DRIVETRAIN_LOG")]
    log_level: String,
    /// Form of the log.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// An embedded broker, a simulated fleet, the whole graph; prints what it does and what to try next.
    Demo(demo::DemoArgs),
    /// Kafka to Kafka and Parquet, until SIGTERM or Ctrl-C.
    Run(run::RunArgs),
    /// Files through the same graph, in order, without a broker; then everything closes; prints intake. Or a recorded
    /// run once more (--bindings).
    Replay(replay::ReplayArgs),
    /// Writes the records of a simulated fleet to a file or a topic.
    Simulate(simulate::command::SimulateArgs),
    /// SQL over the history and the live topics.
    Sql(sql::SqlArgs),
    /// The newest value of each key of a live topic.
    Live(live::LiveArgs),
    /// Housekeeping of the history: merges small files, takes away what is old. Safe while a job runs.
    Compact(compact::CompactArgs),
    /// Checks a configuration; with --input shows what it makes of some records. Writes nothing.
    Check(check::CheckArgs),
    /// How fast this machine is at it: decoding, kernels and the whole job on simulated readings; a table, JSON, a chart.
    Bench(bench::BenchArgs),
    /// What the tables, topics and documents are.
    Schema(schema::SchemaArgs),
}

/// A failed command: what to say, and with which code to exit.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub message: String,
}

impl Failure {
    /// The command line or the configuration is wrong.
    pub fn usage(message: impl std::fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }

    /// The job failed.
    pub fn job(message: impl std::fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }
}

/// Parses the command line, runs the command, says what went wrong.
pub fn main() -> ExitCode {
    end_when_nobody_reads();
    let result = match Cli::try_parse() {
        Ok(cli) => start_logging(&cli.log).and_then(|()| dispatch(cli.command)),
        // --help and --version.
        Err(told) if !told.use_stderr() => told.exit(),
        Err(wrong) => {
            let text = wrong.to_string();
            Err(Failure::usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end()))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code: 0, .. }) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            eprintln!("drivetrain: {message}");
            ExitCode::from(code)
        }
    }
}

/// Where `println!` would panic since the reader is gone (`… | head`), the program ends, and well.
fn end_when_nobody_reads() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let said = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        if said.starts_with("failed printing to stdout") {
            std::process::exit(0);
        }
        before(info);
    }));
}

fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::demo(args),
        Command::Run(args) => run::run(args),
        Command::Replay(args) => replay::replay(args),
        Command::Simulate(args) => {
            simulate::command::run(&args).map_err(|e| Failure { code: e.exit_code(), message: e.to_string() })
        }
        Command::Sql(args) => sql::run(&args).map_err(|e| Failure { code: e.exit_code(), message: e.to_string() }),
        Command::Live(args) => live::run(&args).map_err(|e| Failure { code: e.exit_code(), message: e.to_string() }),
        Command::Compact(args) => compact::compact(args),
        Command::Check(args) => check::check(args),
        Command::Bench(args) => bench::bench(args),
        Command::Schema(args) => {
            schema::run(&args).map_err(|e| Failure { code: e.exit_code(), message: e.to_string() })
        }
    }
}

fn start_logging(args: &LogArgs) -> Result<(), Failure> {
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log_level).map_err(|e| {
        let level = &args.log_level;
        Failure::usage(format!(
            "--log-level {level:?}: {e}; use error, warn, info, debug, trace, or a filter such as info,rdkafka=debug"
        ))
    })?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let started = match args.log_format {
        LogFormat::Text => subscriber.with_target(false).try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    };
    // A second start (in a test of this crate) keeps the first one's logging.
    drop(started);
    Ok(())
}
