//! Contexts that do not lie on the user's disk: they are put into a directory of the store first.
//!
//! What comes from elsewhere is not trusted: names in it are looked up beneath its directory, so
//! that a link in it leads nowhere else.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formwork_content::StoreLayout;
use formwork_diagnostics::{Diagnostic, Event, EventSink, StepId};
use formwork_frontend::{GitLocation, http_source};
use formwork_fs::{Follow, RelPath, RootDir};
use formwork_graph::{RemoteSource, without_secrets};
use formwork_layer::{ApplyOptions, LayerError, Whiteouts, apply};
use formwork_remote::{Fetch, Material, Watch};
use formwork_solver::Cancel;
use formwork_worker::{Checkout, WorkerError};

use crate::error::{kind_of_worker_error, told};
use crate::step::step;
use crate::{BuildError, BuildRequest, Host};

/// How much of something is looked at to tell whether it is an archive: more than one block of any
/// compression that is understood.
const BEGINNING: u64 = 2 << 20;

/// A directory with a context, as long as this is held.
#[derive(Debug)]
pub struct FetchedContext {
    directory: PathBuf,
    material: Option<Material>,
}

/// What somebody sends instead of naming a directory.
pub enum Sent {
    /// An archive with a context, from its beginning.
    Archive(Box<dyn Read + Send>),
    /// Something else: the text of a Dockerfile, for a context without files.
    Other(Vec<u8>),
}

impl Sent {
    /// Tells what a stream holds. What is no archive may have at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// Fails where the stream cannot be read, and where it is neither an archive nor short.
    pub fn read(mut stream: impl Read + Send + 'static, limit: u64) -> std::io::Result<Self> {
        let mut beginning = Vec::new();
        stream.by_ref().take(BEGINNING).read_to_end(&mut beginning)?;
        let is_archive = formwork_layer::archive::is_archive(&*beginning);
        if is_archive.map_err(|error| std::io::Error::other(error.to_string()))? {
            return Ok(Self::Archive(Box::new(std::io::Cursor::new(beginning).chain(stream))));
        }
        stream.take(limit).read_to_end(&mut beginning)?;
        if beginning.len() as u64 > limit {
            let problem = "it is no archive, and too large to be a Dockerfile";
            return Err(std::io::Error::other(problem));
        }
        Ok(Self::Other(beginning))
    }
}

impl Sent {
    /// Fetches a file of a web server, with what a request says of secrets, and tells which it was.
    /// What is no archive may have at most `limit` bytes.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be had, and where it is neither an archive nor short.
    pub fn fetch(
        host: &Host,
        request: &BuildRequest,
        url: &str,
        limit: u64,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<(Self, Material), BuildError> {
        let authorization = request.secrets.authorization_for(url);
        let source = http_source(url);
        let blob = step(format!("fetch {}", without_secrets(url)), events, cancel, |step| {
            let label: Arc<str> = source.name.as_str().into();
            let progress = |current, total| {
                let label = Arc::clone(&label);
                events.emit(Event::StepProgress { step, label, current, total });
                !cancel.is_canceled()
            };
            let fetch = Fetch { authorization: authorization.as_deref(), progress: &progress };
            let blob = host.downloads()?.blob(&source, &fetch);
            blob.map_err(|error| failed(&WorkerError::Remote(error), cancel))
        })?;
        let file = blob.open().map_err(BuildError::store)?;
        let sent = Self::read(file, limit).map_err(|error| {
            let message = format!("`{}` cannot be used: {error}", without_secrets(url));
            BuildError::input(vec![Diagnostic::error("context", message)])
        })?;
        Ok((sent, Material::file(&source, &blob.digest)))
    }
}

impl std::fmt::Debug for Sent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Archive(_) => f.write_str("Archive"),
            Self::Other(bytes) => f.debug_tuple("Other").field(&bytes.len()).finish(),
        }
    }
}

impl FetchedContext {
    /// A context without files.
    ///
    /// # Errors
    ///
    /// Fails where the store cannot be written.
    pub fn empty(host: &Host) -> Result<Self, BuildError> {
        Ok(Self { directory: new_directory(&host.layout)?, material: None })
    }

    /// A directory in a commit of a git repository, with what a request says of secrets and of git.
    ///
    /// # Errors
    ///
    /// Fails where the repository cannot be had, and where it has no such directory.
    pub fn git(
        host: &Host,
        request: &BuildRequest,
        location: &GitLocation,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<Self, BuildError> {
        let is_canceled = || cancel.is_canceled();
        let (git, secrets, source) = (&request.git, &request.secrets, &location.source);
        let name = format!("fetch {}", RemoteSource::Git(source.clone()));
        let (directory, material) = step(name, events, cancel, |step| {
            let label = Arc::from("received");
            let progress = |current| {
                let label = Arc::clone(&label);
                events.emit(Event::StepProgress { step, label, current, total: None });
            };
            let watch = Watch { is_canceled: &is_canceled, progress: &progress };
            let checkout = Checkout::of(&host.layers, git, secrets, source, watch);
            let checkout = checkout.map_err(|error| failed(&error, cancel))?;
            if let Some(warning) = checkout.warning() {
                events.emit(Event::Message(Box::new(warning)));
            }
            let directory = checkout.directory(&location.directory);
            let directory = directory.map_err(|error| failed(&error, cancel))?;
            Ok((directory, Material::clone(checkout.material())))
        })?;
        Ok(Self { directory, material: Some(material) })
    }

    /// Unpacks an archive, whatever its compression. `name` says where it comes from.
    ///
    /// # Errors
    ///
    /// Fails where it is none or is damaged, where an entry leads out of it, and where the store
    /// cannot be written.
    pub fn unpack(
        host: &Host,
        archive: impl Read + Send,
        name: &str,
        events: &Arc<dyn EventSink>,
        cancel: &Cancel,
    ) -> Result<Self, BuildError> {
        let context = Self::empty(host)?;
        let options = ApplyOptions {
            whiteouts: Whiteouts::Literal,
            threads: host.layers.threads(),
            ..ApplyOptions::default()
        };
        let root = RootDir::open(&context.directory).map_err(BuildError::store)?;
        step(format!("unpack the build context from {name}"), events, cancel, |step| {
            let archive = Counted { archive, step, events, read: 0, told: 0 };
            apply(archive, &root, &options).map_err(unusable)
        })?;
        Ok(context)
    }

    /// The same context, which came from a file of a web server.
    pub fn made_of(self, material: Material) -> Self {
        Self { material: Some(material), ..self }
    }

    /// What it was made of, if that has a name.
    pub fn material(&self) -> Option<&Material> {
        self.material.as_ref()
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The content of a file, which links do not lead out of the context; `None` where there is
    /// none.
    ///
    /// # Errors
    ///
    /// Fails for what is no regular file or has more than `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, BuildError> {
        let Ok(name) = RelPath::clean(path) else { return Ok(None) };
        let root = RootDir::open(&self.directory).map_err(BuildError::store)?;
        let wrong = |error: &dyn std::fmt::Display| {
            let message = format!("`{path}` of the build context cannot be read: {error}");
            BuildError::input(vec![Diagnostic::error("context", message)])
        };
        let file = match root.open_file(&name, Follow::InRoot) {
            Err(error) if error.is_not_found() => return Ok(None),
            file => file.map_err(|error| wrong(&error.source))?,
        };
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
        match bytes.len() as u64 > limit {
            true => Err(wrong(&"it is too large")),
            false => Ok(Some(bytes)),
        }
    }
}

/// Tells how much of an archive has been read.
struct Counted<'a, R> {
    archive: R,
    step: StepId,
    events: &'a Arc<dyn EventSink>,
    read: u64,
    told: u64,
}

/// After how many bytes a view is worth a change.
const WORTH_TELLING: u64 = 1 << 20;

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.archive.read(buffer)?;
        self.read += count as u64;
        if self.read >= self.told + WORTH_TELLING {
            self.told = self.read;
            let (step, label, current) = (self.step, "archive".into(), self.read);
            self.events.emit(Event::StepProgress { step, label, current, total: None });
        }
        Ok(count)
    }
}

/// Why an archive is not a context: mostly its own fault.
fn unusable(error: LayerError) -> BuildError {
    let error = WorkerError::Layer(error);
    let kind = kind_of_worker_error(&error);
    let mut diagnostic = told("context", &error);
    diagnostic.message = format!("the build context cannot be unpacked: {error}");
    BuildError::new(kind, diagnostic)
}

/// Whatever goes wrong after somebody has asked to stop, goes wrong because of that.
pub(crate) fn failed(error: &WorkerError, cancel: &Cancel) -> BuildError {
    if cancel.is_canceled() {
        return BuildError::canceled();
    }
    BuildError::new(kind_of_worker_error(error), told("context", error))
}

/// An empty directory that goes with the process.
fn new_directory(layout: &StoreLayout) -> Result<PathBuf, BuildError> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let scratch = layout.scratch().map_err(BuildError::store)?;
    let directory = scratch.join(format!("context-{number}"));
    fs_err::create_dir(&directory).map_err(BuildError::store)?;
    Ok(directory)
}
