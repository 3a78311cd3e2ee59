//! What a store's errors mean to a person. What it says in full is not shown: it may repeat the request's credentials.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

/// A store's problem with its remedy, within an [`io::Error`].
#[derive(Debug)]
struct Problem(String);

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Problem {}

/// Whether an error is of a store: it has its remedy within.
pub(crate) fn is_of_store(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Problem>())
}

const AGAIN: &str = "then start again: nothing is lost";

/// What went wrong, as an error whose kind is what the same thing would be on a disk. What may pass by itself is
/// [`ErrorKind::TimedOut`].
pub(super) fn explain(error: &object_store::Error) -> io::Error {
    use object_store::Error as E;
    let said = chain(error);
    let code = code(&said);
    let named = code.map_or(String::new(), |code| format!(" ({code})"));
    let (kind, text) = match (error, code) {
        _ if is_bucket(error) => (
            ErrorKind::NotFound,
            format!("there is no such bucket. Create it, or correct `storage.url`; {AGAIN}"),
        ),
        (E::Unauthenticated { .. }, _) | (_, Some("InvalidAccessKeyId" | "SignatureDoesNotMatch")) | (
            _,
            Some("ExpiredToken" | "InvalidToken" | "InvalidAccessKey"),
        ) => (
            ErrorKind::PermissionDenied,
            format!(
                "the store does not accept the credentials{named}. Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                 the file that `storage.credentials` names; {AGAIN}"
            ),
        ),
        (E::PermissionDenied { .. }, _) => (
            ErrorKind::PermissionDenied,
            format!(
                "the store forbids it{named}. The credentials need s3:ListBucket on the bucket, and s3:GetObject, \
                 s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on what is below the URL; {AGAIN}"
            ),
        ),
        (_, Some("PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException")) => (
            ErrorKind::InvalidInput,
            format!("the bucket is in another region{named}. Set `storage.region` (or AWS_REGION); {AGAIN}"),
        ),
        (E::NotFound { .. }, _) => (ErrorKind::NotFound, format!("there is no such object{named}")),
        (E::AlreadyExists { .. } | E::Precondition { .. }, _) if !is_conflict(error) => (
            ErrorKind::AlreadyExists,
            "it is there already. Another process writes there under our generation: stop it, or use another prefix in \
             `storage.url`; then start again: nothing is lost"
                .to_string(),
        ),
        _ if said.contains("redirect without LOCATION") => (
            ErrorKind::InvalidInput,
            format!("the bucket is in another region. Set `storage.region` (or AWS_REGION); {AGAIN}"),
        ),
        _ if said.contains("URL scheme is not allowed") => (
            ErrorKind::InvalidInput,
            "the endpoint is http, not https. Set `storage.allow_http = true` (or AWS_ALLOW_HTTP=true)".to_string(),
        ),
        (E::NotImplemented { .. } | E::NotSupported { .. }, _) | (_, Some("NotImplemented")) => (
            ErrorKind::Unsupported,
            "the store lacks what is needed: docs/operations.md, \"Storage on S3\", says what that is".to_string(),
        ),
        _ => (
            ErrorKind::TimedOut,
            format!(
                "{}. Check the store, the network, and `storage.endpoint` (or AWS_ENDPOINT_URL); {AGAIN}",
                cause(error, code, &said)
            ),
        ),
    };
    io::Error::new(kind, Problem(text))
}

/// Whether a bucket is missing, not an object.
pub(super) fn is_bucket(error: &object_store::Error) -> bool {
    code(&chain(error)) == Some("NoSuchBucket")
}

/// Whether the store says that something else is in the request's way (status 409). That an object is there which must not
/// be is another status (412).
pub(super) fn is_conflict(error: &object_store::Error) -> bool {
    chain(error).contains("non-2xx status code: 409")
}

/// All that the error and its causes say.
fn chain(error: &object_store::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push('\n');
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// The code in the XML of an S3 answer.
fn code(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("<Code>")?;
    rest.split_once("</Code>").map(|(code, _)| code)
}

/// What lies at the root: the status of the last answer, or why there was none.
fn cause(error: &object_store::Error, code: Option<&str>, said: &str) -> String {
    let status = said.split_once("non-2xx status code: ").map(|(_, rest)| rest);
    let status = status.and_then(|rest| rest.split([':', '\n']).next());
    if let Some(status) = status {
        return format!("the store answers {status}{}", code.map_or(String::new(), |code| format!(" ({code})")));
    }
    let mut root: &dyn Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    let root = root.to_string();
    let line = root.lines().next().unwrap_or_default();
    format!("the store cannot be reached: {}", line.chars().take(200).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> object_store::Error {
        object_store::Error::Generic { store: "S3", source: text.to_string().into() }
    }

    #[test]
    fn each_cause_has_its_remedy_and_no_error_repeats_a_credential() {
        let body = |code: &str| {
            format!(
                "Server returned non-2xx status code: 403 Forbidden: <Error><Code>{code}</Code><AWSAccessKeyId>AKIAEXAMPLE\
                 </AWSAccessKeyId><StringToSign>AWS4-HMAC</StringToSign></Error>"
            )
        };
        let denied = |code: &str| object_store::Error::PermissionDenied { path: "x".into(), source: body(code).into() };
        let exists = |status: &str| object_store::Error::AlreadyExists {
            path: "x".into(),
            source: format!("Server returned non-2xx status code: {status}").into(),
        };
        let gone = |code: &str| object_store::Error::NotFound { path: "x".into(), source: body(code).into() };
        for (error, kind, part) in [
            (denied("AccessDenied"), ErrorKind::PermissionDenied, "s3:ListBucket"),
            (denied("SignatureDoesNotMatch"), ErrorKind::PermissionDenied, "AWS_SECRET_ACCESS_KEY"),
            (denied("InvalidAccessKeyId"), ErrorKind::PermissionDenied, "AWS_ACCESS_KEY_ID"),
            (gone("NoSuchBucket"), ErrorKind::NotFound, "Create it"),
            (gone("NoSuchKey"), ErrorKind::NotFound, "no such object (NoSuchKey)"),
            (generic(&body("SlowDown")), ErrorKind::TimedOut, "answers 403 Forbidden (SlowDown)"),
            (
                exists("409 Conflict: <Error><Code>OperationAborted</Code>"),
                ErrorKind::TimedOut,
                "409 Conflict (OperationAborted)",
            ),
            (exists("412 Precondition Failed: x"), ErrorKind::AlreadyExists, "Another process"),
            (generic("tcp connect error\nmore"), ErrorKind::TimedOut, "storage.endpoint"),
            (generic("URL scheme is not allowed"), ErrorKind::InvalidInput, "storage.allow_http"),
        ] {
            let explained = explain(&error);
            let text = explained.to_string();
            assert!(explained.kind() == kind && text.contains(part), "{kind:?} {part}: {text}");
            assert!(!text.contains("AKIA") && !text.contains("HMAC"), "{text}");
            assert!(is_of_store(&explained));
        }
        assert!(!is_of_store(&io::Error::other("x")));
    }
}
