//! Where a job keeps what outlives it: its data directory, or an S3-like store (ADR 8).
//!
//! ```text
//!                 directory alone              with a store
//!  history/       <data>/history/…             s3://bucket/prefix/history/…
//!  staging/       <data>/staging/g<n>/…        being encoded: <data>/staging/g<n>/…; whole: the store's staging/g<n>/…
//!  checkpoints/   <data>/checkpoints/g<n>/…    the store's; <data>/checkpoints/g<n>/… holds copies for merging
//!  manifest/      g<n>.jsonl, appended         g<n>/<number>.json, one object a publication
//!  bindings/      g<n>.jsonl and segments      segments only
//!  catalogue      catalogue.json               catalogue/g<n>.json
//!  lock, live/, progress/                      <data>, as ever
//! ```
//!
//! With a store, and progress in Kafka, nothing below the data directory is needed by the next start.
//!
//! Contract: operations block until the store has answered, tried again for `storage.retry_for`; what they have written is
//! durable then, and seen by every reader. An error is a [`FileError`] that names the URL, never a credential, and a
//! remedy. Paths are relative to the store's URL, with `/`.

mod config;
mod conflict;
mod error;

pub use config::StorageConfig;
pub(crate) use error::is_of_store;

use crate::files::{At, FileError, create_dir, remove_file};
use crate::progress::data::{CATALOGUE, generation_of};
use bytes::Bytes;
use conflict::past_conflicts;
use error::explain;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use object_store::path::Path as Location;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, WriteMultipart};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::runtime::Runtime;

/// Requests under way at once, where there are many to make.
const AT_ONCE: usize = 16;
/// Files larger than this go up in parts of this size.
const PART: usize = 8 << 20;
/// Parts of a file under way at once.
const PARTS: usize = 4;

/// The data directory, and the store, if there is one.
#[derive(Clone, Debug)]
pub struct Storage {
    local: PathBuf,
    remote: Option<Remote>,
}

impl Storage {
    /// `remote`: where everything is that outlives the process.
    pub fn new(local: &Path, remote: Option<Remote>) -> Self {
        Self { local: local.to_path_buf(), remote }
    }

    /// What `--data` of a reader names: a directory, or a URL (`s3://bucket/prefix`) with everything else about the store
    /// from the environment.
    ///
    /// # Errors
    /// When the URL or the environment is wrong.
    pub fn named(data: &Path) -> Result<Self, String> {
        match data.to_str().filter(|text| text.contains("://")) {
            None => Ok(Self::new(data, None)),
            Some(url) => {
                let config = StorageConfig { url: Some(url.to_string()), ..StorageConfig::default() };
                Ok(Self::new(Path::new(""), config.open()?))
            }
        }
    }

    /// The data directory; empty for a reader of a store.
    pub fn local(&self) -> &Path {
        &self.local
    }

    pub fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// A path, or the URL in its place, for a message.
    pub fn place(&self, path: &str) -> PathBuf {
        match &self.remote {
            Some(remote) => remote.place(path),
            None => self.local.join(path),
        }
    }
}

impl From<&Path> for Storage {
    fn from(data: &Path) -> Self {
        Self::new(data, None)
    }
}

impl From<&PathBuf> for Storage {
    fn from(data: &PathBuf) -> Self {
        Self::new(data, None)
    }
}

impl From<&Storage> for Storage {
    fn from(storage: &Storage) -> Self {
        storage.clone()
    }
}

/// A store, below a URL. Cheap to clone.
#[derive(Clone)]
pub struct Remote(Arc<Inner>);

/// The store's own would show its credentials.
impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.url())
    }
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    /// Of all objects, within the bucket.
    prefix: Location,
    /// Without credentials, and without a `/` at its end.
    url: String,
}

impl Remote {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, prefix: &str, url: &str) -> Self {
        let url = url.trim_end_matches('/').to_string();
        Self(Arc::new(Inner { store, prefix: Location::from(prefix), url }))
    }

    /// Such as `s3://bucket/prefix`.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// For DataFusion: the store and the URL of its bucket, such as `s3://bucket`.
    pub fn bucket(&self) -> (Arc<dyn ObjectStore>, String) {
        let (scheme, rest) = self.0.url.split_once("://").unwrap_or(("s3", &self.0.url));
        let bucket = rest.split('/').next().unwrap_or_default();
        (self.0.store.clone(), format!("{scheme}://{bucket}"))
    }

    /// Where an object is within its bucket.
    pub fn location(&self, path: &str) -> Location {
        Location::from_iter(self.0.prefix.parts().chain(Location::from(path).parts()))
    }

    /// The URL of an object, in a place for paths.
    pub fn place(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("{}/{path}", self.0.url))
    }

    fn error(&self, action: &'static str, path: &str, error: &object_store::Error) -> FileError {
        FileError { action, path: self.place(path), source: explain(error) }
    }

    /// That the store answers and lets us list, asked before anything is done.
    ///
    /// # Errors
    /// What is wrong with the URL, the credentials, or the network.
    pub fn probe(&self) -> Result<(), FileError> {
        self.list("manifest").map(drop)
    }

    /// Creates an object. That it is there already with just this content is no error: a request whose answer was lost is
    /// made again.
    pub(crate) fn create(&self, path: &str, content: Vec<u8>) -> Result<(), FileError> {
        let (store, location) = (self.0.store.clone(), self.location(path));
        let content = Bytes::from(content);
        let done = self.wait(async move {
            let create = || store.put_opts(&location, content.clone().into(), PutMode::Create.into());
            match past_conflicts(create).await {
                Err(error @ object_store::Error::AlreadyExists { .. }) => {
                    let there = store.get(&location).await?.bytes().await?;
                    if there == content { Ok(()) } else { Err(error) }
                }
                done => done.map(drop),
            }
        })?;
        done.map_err(|e| self.error("cannot create", path, &e))
    }

    /// Writes files to objects that nobody else writes (their names have our generation). Durable when it returns.
    pub(crate) fn upload(&self, files: Vec<(PathBuf, String)>) -> Result<(), FileError> {
        let one = |(file, path): (PathBuf, String)| {
            let remote = self.clone();
            async move {
                let location = remote.location(&path);
                match past_conflicts(|| put_file(&remote.0.store, &file, &location)).await {
                    Err(PutError::File(source)) => Err(FileError { action: "cannot read", path: file, source }),
                    Err(PutError::Store(e)) => Err(remote.error("cannot write", &path, &e)),
                    Ok(()) => Ok(()),
                }
            }
            .boxed()
        };
        let uploads: Vec<_> = files.into_iter().map(one).collect();
        self.wait(async move { stream::iter(uploads).buffer_unordered(AT_ONCE).try_collect::<()>().await })?
    }

    /// An object's content; `None` when it is not there.
    pub fn read(&self, path: &str) -> Result<Option<Bytes>, FileError> {
        Ok(self.read_all(&[path.to_string()])?.pop().flatten())
    }

    /// The content of each of these objects, in their order, many at once; `None` for those that are not there.
    pub(crate) fn read_all(&self, paths: &[String]) -> Result<Vec<Option<Bytes>>, FileError> {
        let one = |path: &String| {
            let (remote, path) = (self.clone(), path.clone());
            async move {
                match remote.0.store.get(&remote.location(&path)).await {
                    Ok(found) => found.bytes().await.map(Some),
                    Err(e) if is_gone(&e) => Ok(None),
                    Err(e) => Err(e),
                }
                .map_err(|e| remote.error("cannot read", &path, &e))
            }
            .boxed()
        };
        let reads: Vec<_> = paths.iter().map(one).collect();
        self.wait(async move { stream::iter(reads).buffered(AT_ONCE).try_collect().await })?
    }

    /// The last bytes of each of these objects (path, size), in their order, many at once: where Parquet files say what
    /// they hold.
    pub fn read_ends(&self, objects: &[(String, u64)], bytes: u64) -> Result<Vec<Bytes>, FileError> {
        let one = |(path, size): &(String, u64)| {
            let (remote, path, range) = (self.clone(), path.clone(), size.saturating_sub(bytes)..*size);
            async move {
                let read = remote.0.store.get_range(&remote.location(&path), range).await;
                read.map_err(|e| remote.error("cannot read", &path, &e))
            }
            .boxed()
        };
        let reads: Vec<_> = objects.iter().map(one).collect();
        self.wait(async move { stream::iter(reads).buffered(AT_ONCE).try_collect().await })?
    }

    /// Copies an object to a file, whole or not at all. False when there is no such object.
    pub(crate) fn download(&self, path: &str, file: &Path) -> Result<bool, FileError> {
        use std::io::Write;
        if let Some(dir) = file.parent() {
            create_dir(dir)?;
        }
        let tmp = file.with_extension("download");
        let (remote, target, path) = (self.clone(), tmp.clone(), path.to_string());
        let found = self.wait(async move {
            let failed = |e| remote.error("cannot read", &path, &e);
            let mut content = match remote.0.store.get(&remote.location(&path)).await {
                Ok(found) => found.into_stream(),
                Err(e) if is_gone(&e) => return Ok(false),
                Err(e) => return Err(failed(e)),
            };
            let mut copy = std::fs::File::create(&target).at("cannot create", &target)?;
            while let Some(bytes) = content.next().await {
                copy.write_all(&bytes.map_err(failed)?).at("cannot write", &target)?;
            }
            Ok(true)
        })??;
        if found {
            std::fs::rename(&tmp, file).at("cannot rename to", file)?;
        }
        Ok(found)
    }

    /// All objects below a directory, in byte order; none when there are none.
    pub fn list(&self, dir: &str) -> Result<Vec<String>, FileError> {
        let (store, below) = (self.0.store.clone(), self.location(dir));
        let listed = self.wait(async move {
            let mut names = Vec::new();
            let mut list = store.list(Some(&below));
            while let Some(object) = list.next().await {
                names.push(object?.location);
            }
            Ok(names)
        })?;
        let listed: Vec<Location> = listed.map_err(|e| self.error("cannot list", dir, &e))?;
        let start = self.0.prefix.as_ref().len();
        let relative = |l: &Location| l.as_ref().get(start..).map(|name| name.trim_start_matches('/').to_string());
        let mut names: Vec<String> = listed.iter().filter_map(relative).collect();
        names.sort();
        Ok(names)
    }

    /// Gives objects a second name (old, new), many at once. Where the old name is gone and the new one there, it has been
    /// done before.
    pub(crate) fn copy(&self, pairs: &[(String, String)]) -> Result<(), FileError> {
        let one = |(from, to): &(String, String)| {
            let (remote, from, to) = (self.clone(), self.location(from), to.clone());
            async move {
                let target = remote.location(&to);
                match past_conflicts(|| remote.0.store.copy(&from, &target)).await {
                    Err(error) if is_gone(&error) => {
                        let there = remote.0.store.head(&target).await.is_ok();
                        if there { Ok(()) } else { Err(remote.error("cannot publish as", &to, &error)) }
                    }
                    done => done.map_err(|e| remote.error("cannot publish as", &to, &e)),
                }
            }
            .boxed()
        };
        let copies: Vec<_> = pairs.iter().map(one).collect();
        self.wait(async move { stream::iter(copies).buffer_unordered(AT_ONCE).try_collect::<()>().await })?
    }

    /// Deletes objects, which may be gone already.
    pub(crate) fn delete(&self, paths: Vec<String>) -> Result<(), FileError> {
        let (store, first) = (self.0.store.clone(), paths.first().cloned().unwrap_or_default());
        let locations: Vec<object_store::Result<Location>> = paths.iter().map(|p| Ok(self.location(p))).collect();
        let done = self.wait(async move {
            let mut deleted = store.delete_stream(stream::iter(locations).boxed());
            while let Some(one) = deleted.next().await {
                match one {
                    Err(e) if !is_gone(&e) => return Err(e),
                    _ => {}
                }
            }
            Ok(())
        })?;
        done.map_err(|e| self.error("cannot delete", &first, &e))
    }

    /// Keeps the signals' types of a generation, for readers, in place of those of earlier ones.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn save_catalogue(&self, generation: u64, text: String) -> Result<(), FileError> {
        let own = catalogue_path(generation);
        self.create(&own, text.into_bytes())?;
        let older = |path: &String| catalogue_generation(path).is_some_and(|g| g + 1 < generation);
        self.delete(self.list(CATALOGUE)?.into_iter().filter(older).collect())
    }

    /// The signals' types that a generation has kept; that of the generation before where it has not come to it yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn catalogue(&self, generation: u64) -> Result<Option<Bytes>, FileError> {
        let newest =
            self.list(CATALOGUE)?.iter().filter_map(|p| catalogue_generation(p)).filter(|g| *g <= generation).max();
        newest.map_or(Ok(None), |generation| self.read(&catalogue_path(generation)))
    }

    /// Runs a request on the storage's own threads. Works on any thread, those of another runtime included.
    fn wait<T: Send + 'static>(&self, request: impl Future<Output = T> + Send + 'static) -> Result<T, FileError> {
        let failed = |problem: &str| FileError {
            action: "cannot reach",
            path: self.place(""),
            source: std::io::Error::other(problem.to_string()),
        };
        let (outbox, inbox) = crossbeam_channel::bounded(1);
        let answer = async move { _ = outbox.send(request.await) };
        runtime().as_ref().map_err(|e| failed(e))?.spawn(answer);
        inbox.recv().map_err(|_| failed("a request ended without an answer"))
    }
}

fn catalogue_path(generation: u64) -> String {
    format!("{CATALOGUE}/g{generation}.json")
}

fn catalogue_generation(path: &str) -> Option<u64> {
    path.strip_prefix("catalogue/g")?.strip_suffix(".json")?.parse().ok()
}

/// Never ended: connections live in it.
fn runtime() -> &'static Result<Runtime, String> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("storage").enable_all().build().map_err(|e| e.to_string())
    })
}

/// Whether an object is not there (and not the whole bucket).
fn is_gone(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. }) && !error::is_bucket(error)
}

/// Why a file did not come into the store.
#[derive(Debug)]
enum PutError {
    File(std::io::Error),
    Store(object_store::Error),
}

impl From<std::io::Error> for PutError {
    fn from(error: std::io::Error) -> Self {
        Self::File(error)
    }
}

impl From<object_store::Error> for PutError {
    fn from(error: object_store::Error) -> Self {
        Self::Store(error)
    }
}

impl conflict::Answer for PutError {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_conflict())
    }
}

/// Writes a file to an object, in parts if it is large.
async fn put_file(store: &Arc<dyn ObjectStore>, file: &Path, location: &Location) -> Result<(), PutError> {
    let mut content = std::fs::File::open(file)?;
    let mut part = vec![0; PART];
    let length = fill(&mut content, &mut part)?;
    part.truncate(length);
    if length < PART {
        store.put(location, part.into()).await?;
        return Ok(());
    }
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(location).await?, PART);
    while !part.is_empty() {
        upload.wait_for_capacity(PARTS).await?;
        upload.put(part.into());
        part = vec![0; PART];
        let length = fill(&mut content, &mut part)?;
        part.truncate(length);
    }
    upload.finish().await?;
    Ok(())
}

fn fill(file: &mut std::fs::File, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(n) => length += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(length)
}

/// Removes from the data directory what runs up to this generation have left of their work: all of it is in the store.
pub(crate) fn clear_local(data: &Path, generation: u64) -> Result<(), FileError> {
    for parent in ["staging", "checkpoints"] {
        let dir = data.join(parent);
        for name in crate::files::list(&dir)? {
            let older = generation_of(&name).is_some_and(|g| g <= generation);
            let path = dir.join(&name);
            match if older { std::fs::remove_dir_all(&path) } else { Ok(()) } {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                // An instance that was overtaken may still write there.
                Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {}
                done => done.at("cannot delete", &path)?,
            }
        }
        _ = std::fs::remove_dir(&dir);
    }
    Ok(())
}

/// Removes a file whose content the store has.
pub(crate) fn forget(file: &Path) {
    if let Err(error) = remove_file(file) {
        tracing::warn!(%error, "a local copy stays until the next start");
    }
}

#[cfg(test)]
mod tests;
