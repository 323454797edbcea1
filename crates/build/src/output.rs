//! Taking a result where it should go.

mod files;

use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use formwork_diagnostics::{Diagnostic, Event, EventSink, LogStream, StepId};
use formwork_fs::{AtomicFile, FsError, RootDir, Target, remove_tree};
use formwork_image::export::{self, Content, Form, Named, PushOptions};
use formwork_image::{ImageError, copy_blob};
use formwork_layer::{
    Compression, LayerError, MaterializeOptions, Omitted, Ownership, PackOptions, Tree,
    materialize, pack,
};
use formwork_oci::{Digest, Platform, Reference};
use formwork_solver::Cancel;
use formwork_worker::WorkerError;

use crate::engine::Loaded;
use crate::result::{Built, BuiltImage};
use crate::step::{sending, step};
use crate::{
    BuildError, BuildRequest, Destination, Engine, ErrorKind, Host, ImageForm, Output, StoreOptions,
};

/// Takes what was built to all outputs.
pub(crate) fn deliver(
    host: &Host,
    request: &BuildRequest,
    built: &Built,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    for (number, output) in request.outputs.iter().enumerate() {
        let own = request.output_names.get(number).filter(|names| !names.is_empty());
        let names = own.map_or(built.names(), Vec::as_slice);
        step(title(output), events, cancel, |step| {
            Delivery { host, request, built, names, events, step }.deliver(output)
        })?;
    }
    Ok(())
}

fn title(output: &Output) -> String {
    let show = |destination: &Destination| match destination {
        Destination::File(path) => path.display().to_string(),
        Destination::Stdout => "standard output".to_owned(),
    };
    match output {
        Output::Store(_) => "export to the local store".to_owned(),
        Output::Push { .. } => "push".to_owned(),
        Output::Archive { destination, .. } => format!("export to {}", show(destination)),
        Output::Layout { directory, .. } => format!("export to {}", directory.display()),
        Output::Load { engine, .. } => format!("load into {engine}"),
        Output::Files { directory, .. } => format!("export files to {}", directory.display()),
        Output::Tar { destination, .. } => format!("export files to {}", show(destination)),
    }
}

struct Delivery<'a> {
    host: &'a Host,
    request: &'a BuildRequest,
    built: &'a Built,
    /// The names that the result has there.
    names: &'a [Reference],
    events: &'a Arc<dyn EventSink>,
    step: StepId,
}

impl Delivery<'_> {
    fn deliver(&self, output: &Output) -> Result<(), BuildError> {
        match output {
            Output::Store(options) => self.store(options),
            Output::Push { form, by_digest, insecure } => self.push(form, *by_digest, *insecure),
            Output::Archive { docker, destination, form } => {
                self.archive(*docker, destination, form)
            }
            Output::Layout { docker, directory, form } => self.layout(*docker, directory, form),
            Output::Load { engine, form } => self.load(engine, form),
            Output::Files { directory, split, delete } => self.files(directory, *split, *delete),
            Output::Tar { destination, split } => self.tar(destination, *split),
        }
    }

    fn content(&self, form: &ImageForm) -> Result<Content<'_>, BuildError> {
        let missing = || BuildError::internal("the image was not packed as the output needs it");
        self.built.content(form).ok_or_else(missing)
    }

    /// Keeps the image under its names, with everything that it takes to run it.
    fn store(&self, options: &StoreOptions) -> Result<(), BuildError> {
        for image in &self.built.images {
            self.store_parts(image, options)?;
        }
        let content = self.host.layers.content();
        let form = options.form.as_ref();
        let index = match form {
            Some(form) => self.built.index(form),
            None => self.built.indexes.first().map(|(_, index)| index),
        };
        if let Some(index) = index {
            content.insert(index.bytes()).map_err(BuildError::store)?;
        }
        let names = self.stored_names(options)?;
        for stored in names.into_iter().filter_map(|name| self.built.stored(name, form)) {
            self.host.images.put(&stored).map_err(|error| BuildError::image(&error))?;
        }
        Ok(())
    }

    /// The names under which the store keeps the image: those that were given, and those that its
    /// digest makes.
    fn stored_names(&self, options: &StoreOptions) -> Result<Vec<Option<Reference>>, BuildError> {
        let mut names: Vec<Reference> = self.names.to_vec();
        let digest = options.form.as_ref().and_then(|form| self.built.content(form)).map(digest_of);
        if let (Some(digest), true) = (digest, options.canonical) {
            let given = names.clone();
            let canonical =
                |name: &Reference| Reference::by_digest(name.repository().clone(), digest.clone());
            names.extend(given.iter().map(canonical));
        }
        if let (Some(digest), Some(prefix)) = (digest, &options.dangling_prefix)
            && (!options.dangling_only || self.names.is_empty())
        {
            let name = format!("{prefix}@{digest}").parse();
            names.push(name.map_err(BuildError::input_error)?);
        }
        Ok(match names.is_empty() {
            true => vec![None],
            false => names.into_iter().map(Some).collect(),
        })
    }

    /// What it takes to run an image.
    fn store_parts(&self, image: &BuiltImage, options: &StoreOptions) -> Result<(), BuildError> {
        let content = self.host.layers.content();
        content.insert(&image.config_bytes).map_err(BuildError::store)?;
        for layer in image.root.layers() {
            // A planned copy has its bytes elsewhere, where they may change. What came packed can be
            // unpacked at any time.
            let came_packed = layer.base_descriptor().is_some() || layer.imported().is_some();
            if options.unpack || !came_packed {
                layer.directory().map_err(|error| BuildError::worker(&error))?;
            }
        }
        for layer in image.layers.iter().filter(|layer| layer.origin.is_none()) {
            // One that came with an image which was no registry's, and may go away.
            if let Some(blob) = &layer.blob {
                copy_blob(&*image.blobs, blob, content)
                    .map_err(|error| BuildError::image(&error))?;
            }
        }
        let view = match &options.form {
            Some(form) => image.view(form),
            None => image.views.first().map(|(_, view)| view),
        };
        if let Some(view) = view {
            content.insert(view.manifest_bytes()).map_err(BuildError::store)?;
        }
        Ok(())
    }

    fn push(&self, form: &ImageForm, by_digest: bool, insecure: bool) -> Result<(), BuildError> {
        let content = self.content(form)?;
        let digest = digest_of(content);
        let name = |name: &Reference| match by_digest {
            true => Reference::by_digest(name.repository().clone(), digest.clone()),
            false => name.clone(),
        };
        let names: Vec<Reference> = self.names.iter().map(name).collect();
        let own = match insecure {
            true => Some(self.host.registries.insecure(&names)),
            false => None,
        };
        let client = match own {
            Some(client) => &client.map_err(|error| BuildError::image(&error.into()))?,
            None => {
                let client = self.host.registries.client();
                client.map_err(|error| BuildError::image(&error.into()))?
            }
        };
        let progress = sending(self.step, &**self.events);
        let origins = self.built.origins();
        let options = PushOptions { origins: &origins, progress: &progress };
        export::content_to_registry(client, content, &names, options)
            .and_then(|_| {
                let said = self.built.attached(form);
                let repositories: BTreeSet<_> = names.iter().map(Reference::repository).collect();
                for (repository, artifact) in repositories
                    .into_iter()
                    .flat_map(|one| said.iter().map(move |said| (one, said)))
                {
                    export::artifact_to_registry(client, artifact, repository)?;
                }
                Ok(())
            })
            .map_err(|error| self.kept(form, by_digest, &error))
    }

    /// Keeps what a registry did not take, so that nothing needs to be built again.
    fn kept(&self, form: &ImageForm, by_digest: bool, failure: &ImageError) -> BuildError {
        let options = StoreOptions { form: Some(form.clone()), ..StoreOptions::default() };
        let error = BuildError::image(failure);
        let Some(name) = self.name_in(failure).or(self.names.first()) else { return error };
        if error.kind != ErrorKind::Registry || self.store(&options).is_err() {
            return error;
        }
        match by_digest {
            true => error.with_help("the image is in the local store: build again to go on"),
            false => error.with_help(&format!(
                "the image is in the local store: `formwork push {}` goes on",
                name.familiar()
            )),
        }
    }

    /// Which of several names a failure is about: the others may have been pushed.
    fn name_in(&self, failure: &ImageError) -> Option<&Reference> {
        let ImageError::Registry(failure) = failure else { return None };
        let subject = &*failure.attempt()?.subject;
        let repository = subject.split_once('@').map(|(repository, _)| repository);
        self.names.iter().find(|name| {
            name.to_string() == subject
                || repository.is_some_and(|it| name.repository().to_string() == it)
        })
    }

    /// Gives the image to a container engine: with all its platforms, or the one for this machine
    /// if the engine keeps no more.
    fn load(&self, engine: &Engine, form: &ImageForm) -> Result<(), BuildError> {
        let mut remark = String::new();
        if let Some(index) = self.built.index(form) {
            let layers = index.images().map(|(_, view)| view.layers().len()).sum();
            if let Some(loaded) = engine.load_several(index, self.names)? {
                self.say(&told(loaded, layers));
                return Ok(());
            }
            remark = ", for this machine's platform alone: docker keeps several if its images are \
                      in containerd, and podman if they have a name"
                .to_owned();
        }
        let machine = Platform::host();
        let fitness = |image: &&BuiltImage| image.platform.fitness(&machine);
        let image = match &*self.built.images {
            [only] => only,
            several => several
                .iter()
                .filter(|image| fitness(image).is_some())
                .min_by_key(fitness)
                .ok_or_else(|| {
                    let message = format!("no image is for {machine}, and {engine} takes one");
                    BuildError::input_error(message).with_help("build one platform at a time")
                })?,
        };
        let view = image.view(form);
        let view = view.ok_or_else(|| BuildError::internal("the image was not packed"))?;
        let loaded = engine.load(Named::image(view, self.names))?;
        self.say(&format!("{}{remark}", told(loaded, view.layers().len())));
        Ok(())
    }

    fn say(&self, line: &str) {
        let data = format!("{line}\n").into_bytes();
        let (step, stream) = (self.step, LogStream::Stdout);
        self.events.emit(Event::StepLog { step, stream, data });
    }

    fn archive(
        &self,
        docker: bool,
        destination: &Destination,
        how: &ImageForm,
    ) -> Result<(), BuildError> {
        let said = self.built.attached(how);
        let named = Named::new(self.content(how)?, self.names);
        let named = [named.with_attached(&said)];
        match destination {
            Destination::File(path) => export::all_to_file(&named, form(docker), path),
            Destination::Stdout => {
                let stdout = stdout().map_err(BuildError::store)?;
                export::all_to_stream(&named, form(docker), &stdout)
            }
        }
        .map_err(|error| BuildError::image(&error))
    }

    fn layout(&self, docker: bool, directory: &Path, how: &ImageForm) -> Result<(), BuildError> {
        let said = self.built.attached(how);
        let named = Named::new(self.content(how)?, self.names);
        let named = [named.with_attached(&said)];
        make_directory(directory).map_err(BuildError::store)?;
        export::all_to_directory(&named, form(docker), directory)
            .map_err(|error| BuildError::image(&error))
    }

    /// All files as they are in the image, into a directory of the user's.
    fn files(&self, directory: &Path, split: Option<bool>, delete: bool) -> Result<(), BuildError> {
        let files = |place: &Path, tree: &Tree| -> Result<(), WorkerError> {
            make_directory(place)?;
            if delete {
                clear(place)?;
            }
            let options = MaterializeOptions {
                ownership: Ownership::Caller,
                threads: self.host.layers.threads(),
                ..MaterializeOptions::default()
            };
            let omitted = materialize(tree, &RootDir::open(place)?, &options)?;
            tell_of_omitted(place, omitted, self.events);
            Ok(())
        };
        for (name, tree) in files::trees(self.built, split, self.request.provenance.as_ref())? {
            let place = name.map_or_else(|| directory.to_owned(), |name| directory.join(name));
            files(&place, &tree).map_err(|error| BuildError::worker(&error))?;
        }
        Ok(())
    }

    fn tar(&self, destination: &Destination, split: Option<bool>) -> Result<(), BuildError> {
        let tree =
            files::joined(files::trees(self.built, split, self.request.provenance.as_ref())?)?;
        archive_files(&tree, self.request.epoch, destination)
            .map_err(|error| BuildError::worker(&error))
    }
}

/// Warns who could not be given all that an image has.
pub(crate) fn tell_of_omitted(place: &Path, omitted: Omitted, events: &Arc<dyn EventSink>) {
    let devices = match omitted.devices {
        0 => return,
        1 => "a device of the image is".to_owned(),
        devices => format!("{devices} devices of the image are"),
    };
    let message = format!("{devices} not in `{}`: only root may make them", place.display());
    let warning = Diagnostic::warning("devices", message)
        .with_help("an archive has them: `--output type=tar`, or `-` in the place of a path");
    events.emit(Event::Message(Box::new(warning)));
}

/// The digest of what names lead to.
fn digest_of(content: Content<'_>) -> &Digest {
    match content {
        Content::Image(view) => &view.descriptor().digest,
        Content::Index(index) => &index.descriptor().digest,
        Content::Artifact(artifact) => &artifact.descriptor().digest,
    }
}

/// Removes all that is in a directory.
fn clear(directory: &Path) -> Result<(), FsError> {
    let root = RootDir::open(directory)?;
    let failed = |error| FsError::new("list the directory", directory, error);
    for entry in fs_err::read_dir(directory).map_err(failed)? {
        remove_tree(&root, entry.map_err(failed)?.file_name().as_encoded_bytes())?;
    }
    Ok(())
}

/// Writes files as a plain tar archive, with no time after the given one.
pub(crate) fn archive_files(
    tree: &Tree,
    latest_mtime: Option<i64>,
    destination: &Destination,
) -> Result<(), WorkerError> {
    let options =
        PackOptions { compression: Compression::None, latest_mtime, ..PackOptions::default() };
    archive(tree, &options, destination)
}

/// Writes files as a tar archive.
pub(crate) fn archive(
    tree: &Tree,
    options: &PackOptions,
    destination: &Destination,
) -> Result<(), WorkerError> {
    match destination {
        Destination::Stdout => {
            pack(tree, options, stdout()?)?;
        }
        Destination::File(path) => match Target::of(path)? {
            Target::Special(file) => pack_to(tree, options, path, file)?,
            Target::File(path) => {
                let mut file = AtomicFile::create(&path)?;
                pack_to(tree, options, &path, &mut file)?;
                file.commit()?;
            }
        },
    }
    Ok(())
}

fn pack_to(
    tree: &Tree,
    options: &PackOptions,
    path: &Path,
    target: impl Write,
) -> Result<(), WorkerError> {
    let failed = |error| FsError::new("write", path, error);
    let mut writer = BufWriter::with_capacity(1 << 20, target);
    pack(tree, options, &mut writer).map_err(|error| match error {
        LayerError::Write(error) => failed(error).into(),
        other => WorkerError::from(other),
    })?;
    Ok(writer.flush().map_err(failed)?)
}

/// Makes a directory of the user's, and those above it, unless it is there.
pub(crate) fn make_directory(directory: &Path) -> Result<(), FsError> {
    // The error names the path, so it need not come from `fs_err`.
    let made = std::fs::DirBuilder::new().recursive(true).create(directory);
    made.map_err(|error| FsError::new("create the directory", directory, error))
}

pub(crate) fn form(docker: bool) -> Form {
    if docker { Form::Docker } else { Form::Oci }
}

pub(crate) fn stdout() -> Result<std::fs::File, FsError> {
    let stdout: OwnedFd = std::io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| FsError::new("write to", "standard output", error))?;
    Ok(stdout.into())
}

/// What came of a load of an image with so many layers.
fn told(loaded: Loaded, layers: usize) -> String {
    match loaded {
        Loaded { sent: 0, .. } => "the image was there, nothing was sent".to_owned(),
        Loaded { sent, present: 0 } => format!("{sent} bytes were sent"),
        Loaded { sent, present } => {
            format!("{sent} bytes were sent; {present} of {layers} layers were there")
        }
    }
}
