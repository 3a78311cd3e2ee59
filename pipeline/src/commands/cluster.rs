//! The options that make several processes one job.

use crate::cli::Failure;
use crate::runtime::cluster::Shape;
use clap::Args;
use std::collections::BTreeSet;
use std::path::Path;

/// Where processes are on one machine if nothing else is said: this port and those behind it.
const FIRST_PORT: usize = 2101;

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// Processes that are one job, each with --workers workers; results do not depend on it. Default: as many as --hosts
    /// names, else 1.
    #[arg(long, value_name = "N", env = "DRIVETRAIN_PROCESSES")]
    processes: Option<usize>,
    /// Which of them this is, from 0. Process 0 reads, commits and has the data directory; the others only compute.
    #[arg(long, value_name = "I", env = "DRIVETRAIN_PROCESS")]
    process: Option<usize>,
    /// `host:port` of each process, in order, with commas between; or a file with one on each line (the first N count).
    /// The same for all of them. Default: localhost:2101, localhost:2102, …
    #[arg(long, value_name = "HOSTS", env = "DRIVETRAIN_HOSTS")]
    hosts: Option<String>,
    /// Where this process listens for the others, such as 0.0.0.0:2101. Default: its own entry of --hosts.
    #[arg(long, value_name = "ADDRESS", env = "DRIVETRAIN_LISTEN")]
    listen: Option<String>,
}

/// Whether another process leads.
pub(crate) fn is_follower(cluster: &Option<Shape>) -> bool {
    cluster.as_ref().is_some_and(|shape| !shape.is_leader())
}

impl ClusterArgs {
    /// The processes; `None`: this one alone.
    pub(crate) fn shape(&self) -> Result<Option<Shape>, Failure> {
        let mut hosts = self.hosts.as_deref().map(hosts).transpose()?;
        let processes = self.processes.or(hosts.as_ref().map(Vec::len)).unwrap_or(1);
        let process = match (self.process, processes) {
            (_, 0) => return Err(Failure::usage("--processes 0: there is at least one")),
            (process, 1) => process.unwrap_or(0),
            (Some(process), _) => process,
            (None, n) => {
                let last = n - 1;
                return Err(Failure::usage(format!("which of the {n} processes is this? Give --process, 0 to {last}")));
            }
        };
        if process >= processes {
            let text = "they are counted from 0, and --processes or --hosts says how many there are";
            return Err(Failure::usage(format!("--process {process} of {processes}: {text}")));
        }
        if let Some(hosts) = &mut hosts {
            if hosts.len() < processes {
                let named = hosts.len();
                return Err(Failure::usage(format!(
                    "--hosts names {named} of {processes} processes; name each of them"
                )));
            }
            hosts.truncate(processes);
            check(hosts)?;
        }
        if processes == 1 {
            return Ok(None);
        }
        let local = || (0..processes).map(|i| format!("localhost:{}", FIRST_PORT + i)).collect();
        Ok(Some(Shape { process, hosts: hosts.unwrap_or_else(local), listen: self.listen.clone() }))
    }
}

/// The value of `--hosts`: a list, or a file.
fn hosts(text: &str) -> Result<Vec<String>, Failure> {
    let trimmed = |parts: std::str::Split<'_, char>| -> Vec<String> {
        let lines = parts.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::to_string).collect()
    };
    let path = Path::new(text);
    if path.is_file() {
        let text = std::fs::read_to_string(path).map_err(|e| Failure::usage(format!("--hosts {text}: {e}")))?;
        return Ok(trimmed(text.split('\n')));
    }
    if !text.contains(':') {
        return Err(Failure::usage(format!("--hosts {text}: neither a file nor a list such as a:2101,b:2101")));
    }
    Ok(trimmed(text.split(',')))
}

fn check(hosts: &[String]) -> Result<(), Failure> {
    let mut seen = BTreeSet::new();
    for host in hosts {
        let port = host.rsplit_once(':').and_then(|(name, port)| (!name.is_empty()).then_some(port));
        if port.and_then(|port| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
            return Err(Failure::usage(format!("--hosts: {host:?} is not host:port, such as node-1:2101")));
        }
        if !seen.insert(host) {
            return Err(Failure::usage(format!(
                "--hosts: {host} is there twice; each process needs a port of its own"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(processes: Option<usize>, process: Option<usize>, hosts: Option<&str>) -> Result<Option<Shape>, String> {
        let args = ClusterArgs { processes, process, hosts: hosts.map(str::to_string), listen: None };
        args.shape().map_err(|failure| failure.message)
    }

    #[test]
    fn one_process_is_no_cluster() {
        for (processes, process, hosts) in
            [(None, None, None), (Some(1), None, None), (None, Some(0), None), (Some(1), Some(0), Some("a:1,b:1"))]
        {
            assert_eq!(shape(processes, process, hosts), Ok(None));
        }
    }

    #[test]
    fn hosts_are_a_list_or_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "# all\na:1\n b:2 \n\nc:3\n").unwrap();
        let path = file.path().to_str().unwrap();
        for (processes, hosts, expected) in
            [(None, "a:1, b:2", 2), (Some(2), path, 2), (None, path, 3), (Some(2), "a:1,b:2,c:3", 2)]
        {
            let shape = shape(processes, Some(1), Some(hosts)).unwrap().unwrap();
            assert_eq!((shape.process, shape.processes()), (1, expected), "{hosts}");
            assert_eq!(shape.hosts[..2], ["a:1", "b:2"]);
        }
        let local = shape(Some(2), Some(0), None).unwrap().unwrap();
        assert_eq!(local.hosts, ["localhost:2101", "localhost:2102"]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (processes, process, hosts, expected) in [
            (Some(0), None, None, "at least one"),
            (Some(2), None, None, "which of the 2 processes"),
            (None, Some(1), None, "--process 1 of 1"),
            (Some(2), Some(2), None, "--process 2 of 2"),
            (Some(3), Some(1), Some("a:1,b:2"), "names 2 of 3"),
            (None, Some(1), Some("a:1,b"), "\"b\" is not host:port"),
            (None, Some(1), Some("a:1,b:x"), "\"b:x\" is not host:port"),
            (None, Some(1), Some("a:1,a:1"), "a:1 is there twice"),
            (None, Some(1), Some("nowhere"), "neither a file nor a list"),
        ] {
            let error = shape(processes, process, hosts).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
