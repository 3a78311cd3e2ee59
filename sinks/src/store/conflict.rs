//! Requests that a store answers with 409: something else is in their way, and nobody is at fault.
//!
//! S3 says so (`OperationAborted`, `ConditionalRequestConflict`) when two requests for one name are under way, one of them
//! perhaps of a connection that is gone. Stores above a file system say so when one request removes the directory that
//! another has just made: of versitygw 1.8.0, each upload that meets a deletion beside it may get `ExistingObjectIsDirectory`.
//! The client library does not try again then, as it does after a 503.

use super::error;
use std::time::Duration;

/// Requests in all, before the store is believed. The waits between them are 3.2 s together.
const TRIES: u32 = 8;
const FIRST_WAIT: Duration = Duration::from_millis(25);

/// An error that may be an answer 409.
pub(super) trait Answer {
    fn is_conflict(&self) -> bool;
}

impl Answer for object_store::Error {
    fn is_conflict(&self) -> bool {
        error::is_conflict(self)
    }
}

/// Makes a request, and again while the answer is a 409. The request must be one that may be made twice.
pub(super) async fn past_conflicts<T, E, F>(mut request: impl FnMut() -> F) -> Result<T, E>
where
    E: Answer,
    F: Future<Output = Result<T, E>>,
{
    let mut wait = FIRST_WAIT;
    for _ in 1..TRIES {
        match request().await {
            Err(error) if error.is_conflict() => tokio::time::sleep(wait).await,
            done => return done,
        }
        wait *= 2;
    }
    request().await
}

#[cfg(test)]
mod tests {
    use crate::store::Remote;
    use object_store::RetryConfig;
    use object_store::aws::AmazonS3Builder;
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const CONFLICT: &str = "<Error><Code>ExistingObjectIsDirectory</Code></Error>";

    /// Reads a request. None: the connection has ended.
    fn read(stream: &TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
            if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
        }
        reader.read_exact(&mut vec![0; length]).ok()
    }

    /// A store that answers the first requests with 409, and the count of what it was asked.
    fn in_conflict(conflicts: usize) -> (Remote, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, counted) = (stream.unwrap(), counted.clone());
                std::thread::spawn(move || {
                    while read(&stream).is_some() {
                        let (status, body) = match counted.fetch_add(1, Ordering::SeqCst) < conflicts {
                            true => ("409 Conflict", CONFLICT),
                            false => ("200 OK", ""),
                        };
                        let length = body.len();
                        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nETag: \"1\"\r\n\r\n");
                        stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice()).unwrap();
                    }
                });
            }
        });
        let store = AmazonS3Builder::new().with_bucket_name("b").with_endpoint(endpoint).with_allow_http(true);
        let store = store.with_access_key_id("k").with_secret_access_key("s").with_retry(RetryConfig::default());
        (Remote::new(Arc::new(store.build().unwrap()), "p", "s3://b/p"), requests)
    }

    #[test]
    fn a_request_in_conflict_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "content").unwrap();
        type Request = Box<dyn Fn(&Remote) -> Result<(), crate::files::FileError>>;
        let requests: [(&str, Request); 2] = [
            ("create", Box::new(|remote: &Remote| remote.create("x", b"1".to_vec()))),
            ("upload", Box::new(move |remote: &Remote| remote.upload(vec![(file.clone(), "x".into())]))),
        ];
        for (name, request) in requests {
            let (remote, asked) = in_conflict(2);
            request(&remote).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(asked.load(Ordering::SeqCst), 3, "{name}");
        }
    }

    #[test]
    fn a_conflict_that_stays_is_told_as_what_it_is() {
        let (remote, _) = in_conflict(usize::MAX);
        let error = remote.create("x", b"1".to_vec()).unwrap_err();
        assert!(
            error.is_retryable() && error.to_string().contains("409 Conflict (ExistingObjectIsDirectory)"),
            "{error}"
        );
    }
}
