//! The section `[storage]` of the configuration.

use super::Remote;
use crate::units::Span;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{BackoffConfig, RetryConfig};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where history, checkpoints, manifest and bindings are kept, if not in the data directory.
///
/// ```toml
/// [storage]
/// url = "s3://fleet-bucket/drivetrain"
/// region = "eu-central-1"
/// ```
///
/// Credentials are no field of it: they come from the environment (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
/// `AWS_SESSION_TOKEN`, a web identity, the machine's role), or from a file that it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StorageConfig {
    /// `s3://BUCKET/PREFIX`: one job's own. None (default): the data directory.
    pub url: Option<String>,
    /// Where the store answers, such as `https://s3.example:9000`. Default: AWS, or `AWS_ENDPOINT_URL`.
    pub endpoint: Option<String>,
    /// The bucket's region. Default: `AWS_REGION`, else `us-east-1`.
    pub region: Option<String>,
    /// Let the endpoint be `http://…`; default false.
    pub allow_http: bool,
    /// Address the bucket as `https://BUCKET.endpoint/…` and not as `https://endpoint/BUCKET/…`; default false.
    pub virtual_hosted: bool,
    /// A file with `aws_access_key_id = …` and `aws_secret_access_key = …`, as the AWS tools have it; its section
    /// `[default]` counts. Relative to the configuration. Default: the environment.
    pub credentials: Option<PathBuf>,
    /// How long a request is made again while the store does not answer, before the job ends; `"60s"` by default, at most
    /// `"4m"`.
    pub retry_for: Span,
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            url: None,
            endpoint: None,
            region: None,
            allow_http: false,
            virtual_hosted: false,
            credentials: None,
            retry_for: Span(60_000_000),
        }
    }
}

impl StorageConfig {
    /// Nothing is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Paths start from this directory.
    #[must_use]
    pub fn based_on(mut self, directory: &Path) -> Self {
        self.credentials = self.credentials.map(|path| directory.join(path));
        self
    }

    /// What contradicts itself, with its remedy.
    pub fn validate(&self) -> Result<(), String> {
        if let Some(url) = &self.url {
            split(url)?;
        } else if !self.is_default() {
            return Err(
                "storage: `url` is not set; set it, such as \"s3://bucket/prefix\", or leave [storage] out".into()
            );
        }
        if self.retry_for.0 < 0 || self.retry_for.0 > 240_000_000 {
            return Err("storage.retry_for: choose a time up to \"4m\"; requests are signed for not much longer".into());
        }
        let http = self.endpoint.as_ref().is_some_and(|e| e.starts_with("http://"));
        if http && !self.allow_http {
            return Err(
                "storage.endpoint: http:// is not encrypted; use https://, or set storage.allow_http = true".into()
            );
        }
        match &self.endpoint {
            Some(endpoint) if endpoint.contains('@') => Err(NO_SECRETS.replace("{}", "storage.endpoint")),
            Some(endpoint) if !http && !endpoint.starts_with("https://") => {
                Err(format!("storage.endpoint {endpoint:?}: write https://HOST:PORT"))
            }
            _ => Ok(()),
        }
    }

    /// The store; `None` without a URL. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When a field, the environment or the file of credentials is wrong.
    pub fn open(&self) -> Result<Option<Remote>, String> {
        self.validate()?;
        let Some(url) = &self.url else { return Ok(None) };
        let (bucket, prefix) = split(url)?;
        let retry = RetryConfig {
            backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() },
            max_retries: 10_000,
            retry_timeout: Duration::from_micros(self.retry_for.0.unsigned_abs()),
        };
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        }
        if self.allow_http {
            builder = builder.with_allow_http(true);
        }
        if self.virtual_hosted {
            builder = builder.with_virtual_hosted_style_request(true);
        }
        if let Some(path) = &self.credentials {
            for (key, value) in credentials(path)? {
                builder = builder.with_config(key, value);
            }
        }
        let store = builder.build().map_err(|e| format!("storage: {e}"))?;
        Ok(Some(Remote::new(Arc::new(store), prefix, url)))
    }
}

const NO_SECRETS: &str = "{}: credentials do not belong there, but into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or into \
                          the file that storage.credentials names";

/// Bucket and prefix.
fn split(url: &str) -> Result<(&str, &str), String> {
    if url.contains('@') {
        return Err(NO_SECRETS.replace("{}", "storage.url"));
    }
    let rest = url.strip_prefix("s3://").ok_or_else(|| {
        format!("storage.url {url:?}: write s3://BUCKET/PREFIX; other kinds of stores are not supported yet")
    })?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    if bucket.is_empty() || prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.contains("//") {
        return Err(format!("storage.url {url:?}: write s3://BUCKET/PREFIX"));
    }
    Ok((bucket, prefix))
}

/// What a file of credentials says. Its content is in no error.
fn credentials(path: &Path) -> Result<Vec<(AmazonS3ConfigKey, String)>, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("storage.credentials: {}: {e}; name a file that drivetrain may read", path.display()))?;
    let (mut found, mut counts) = (Vec::new(), true);
    for line in text.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            counts = section.trim_end_matches(']').trim() == "default";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| counts && !line.starts_with('#')) {
            let key = match key.trim() {
                "aws_access_key_id" => AmazonS3ConfigKey::AccessKeyId,
                "aws_secret_access_key" => AmazonS3ConfigKey::SecretAccessKey,
                "aws_session_token" => AmazonS3ConfigKey::Token,
                _ => continue,
            };
            found.push((key, value.trim().trim_matches('"').to_string()));
        }
    }
    if found.len() < 2 {
        return Err(format!(
            "storage.credentials: {}: aws_access_key_id and aws_secret_access_key are not both there",
            path.display()
        ));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(url: &str) -> StorageConfig {
        StorageConfig { url: Some(url.into()), ..StorageConfig::default() }
    }

    #[test]
    fn a_url_is_a_bucket_and_a_prefix() {
        assert_eq!(split("s3://b/p/q/"), Ok(("b", "p/q")));
        assert_eq!(split("s3://b"), Ok(("b", "")));
        for wrong in ["gs://b/p", "b/p", "s3://", "s3:///p", "s3://b/../p", "s3://b/a//p"] {
            assert!(with(wrong).validate().unwrap_err().contains("s3://BUCKET/PREFIX"), "{wrong}");
        }
        let error = with("s3://key:secret@b/p").validate().unwrap_err();
        assert!(error.contains("AWS_ACCESS_KEY_ID") && !error.contains("secret@"), "{error}");
    }

    #[test]
    fn what_contradicts_itself_is_said() {
        let endpoint = |e: &str| StorageConfig { endpoint: Some(e.into()), ..with("s3://b/p") };
        assert!(endpoint("http://h:1").validate().unwrap_err().contains("allow_http"));
        assert!(endpoint("h:1").validate().unwrap_err().contains("https://"));
        assert!(!endpoint("https://k:s3cret@h").validate().unwrap_err().contains("s3cret"));
        assert_eq!(StorageConfig { allow_http: true, ..endpoint("http://h:1") }.validate(), Ok(()));
        assert!(StorageConfig { url: None, ..endpoint("https://h") }.validate().unwrap_err().contains("`url`"));
        assert!(StorageConfig { retry_for: Span(300_000_000), ..with("s3://b") }.validate().is_err());
        assert_eq!(StorageConfig::default().validate(), Ok(()));
    }

    #[test]
    fn a_file_of_credentials_is_read_and_never_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let text = "# mine\n[other]\naws_access_key_id = o\n[default]\naws_access_key_id = AKIA\naws_secret_access_key = \"s=1\"\n";
        std::fs::write(&path, text).unwrap();
        let found = credentials(&path).unwrap();
        assert_eq!(
            found,
            [
                (AmazonS3ConfigKey::AccessKeyId, "AKIA".to_string()),
                (AmazonS3ConfigKey::SecretAccessKey, "s=1".to_string())
            ]
        );
        std::fs::write(&path, "aws_secret_access_key = s3cret\n").unwrap();
        let config = StorageConfig { credentials: Some("credentials".into()), ..with("s3://b") }.based_on(dir.path());
        let error = config.open().unwrap_err();
        assert!(error.contains("not both there") && !error.contains("s3cret"), "{error}");
    }
}
