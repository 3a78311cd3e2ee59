//! A real S3 server for the tests: versitygw, which keeps objects as files, from the Go module proxy; on a port and in a
//! directory of its own.

use super::kafka::{cache, free_port, or_said, until_it_listens};
use super::set_variables;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const VERSION: &str = "v1.8.0";
const MODULE: &str = "github.com/versity/versitygw/cmd/versitygw";
pub const KEY: &str = "TESTKEY";
pub const SECRET: &str = "a-secret-that-nobody-may-print";
/// The only bucket.
pub const BUCKET: &str = "fleet-bucket";

/// A server; stopped when dropped, and when this process ends in whatever way.
pub struct S3 {
    port: u16,
    process: Option<Child>,
    directory: tempfile::TempDir,
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.stop();
    }
}

impl S3 {
    /// A server with an empty bucket, whose address and credentials every program that this test starts finds in its
    /// environment; or None (said loudly) where none can be had. With `DRIVETRAIN_REQUIRE_KAFKA=1` that is a failure.
    pub fn start() -> Option<S3> {
        let s3 = or_said("S3 server", S3::launch())?;
        set_variables(s3.variables(SECRET));
        Some(s3)
    }

    fn launch() -> Result<S3, String> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        std::fs::create_dir_all(directory.path().join("objects").join(BUCKET)).map_err(|e| e.to_string())?;
        let mut s3 = S3 { port: free_port()?, process: None, directory };
        s3.spawn()?;
        Ok(s3)
    }

    fn spawn(&mut self) -> Result<(), String> {
        let address = format!("127.0.0.1:{}", self.port);
        // When this process is gone, its end of the pipe is, too.
        let script = r#""$0" --port "$1" posix "$2" >"$3" 2>&1 & server=$!; cat >/dev/null; kill -9 $server; wait"#;
        let process = Command::new("sh")
            .args(["-c", script])
            .arg(server()?)
            .arg(&address)
            .arg(self.directory.path().join("objects"))
            .arg(self.directory.path().join("s3.log"))
            .env("ROOT_ACCESS_KEY", KEY)
            .env("ROOT_SECRET_KEY", SECRET)
            .stdin(Stdio::piped())
            .spawn()
            .map_err(|e| format!("sh: {e}"))?;
        self.process = Some(process);
        let log = || std::fs::read_to_string(self.directory.path().join("s3.log")).unwrap_or_default();
        until_it_listens(&address).map_err(|reason| format!("{reason}: {}", log()))
    }

    /// Kills the server; what it has stored stays.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.stdin.take());
            drop(process.wait());
        }
    }

    /// Starts it again on the same port and objects.
    pub fn again(&mut self) {
        self.spawn().unwrap();
    }

    /// What a program needs to find it.
    pub fn variables(&self, secret: &str) -> Vec<(String, String)> {
        let endpoint = format!("http://127.0.0.1:{}", self.port);
        [
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ENDPOINT_URL", &endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("NO_PROXY", "127.0.0.1"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into()
    }

    /// The URL of a prefix, in a place for paths.
    pub fn url(&self, prefix: &str) -> PathBuf {
        PathBuf::from(format!("s3://{BUCKET}/{prefix}"))
    }

    /// All objects below a prefix, as files.
    pub fn objects(&self, prefix: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.directory.path().join("objects").join(BUCKET).join(prefix), &mut found);
        found.sort();
        found
    }
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { collect(&path, found) } else { found.push(path) }
    }
}

/// The program, fetched and built once into the cache (`.ci/run` does it beforehand).
fn server() -> Result<PathBuf, String> {
    let directory = cache()?.join(format!("versitygw-{VERSION}"));
    let program = directory.join("versitygw");
    if program.exists() {
        return Ok(program);
    }
    let go = Command::new("go")
        .args(["install", &format!("{MODULE}@{VERSION}")])
        .env("GOBIN", &directory)
        .output()
        .map_err(|e| format!("go: {e}"))?;
    if !go.status.success() {
        return Err(format!("go install: {}", String::from_utf8_lossy(&go.stderr)));
    }
    Ok(program)
}
