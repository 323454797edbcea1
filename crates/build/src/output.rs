//! Taking a result where it should go.

mod files;

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use formwork_diagnostics::{EventSink, StepId};
use formwork_fs::{AtomicFile, FsError, RootDir};
use formwork_image::copy_blob;
use formwork_image::export::{self, Content, Form, Named, PushOptions};
use formwork_layer::{
    Compression, LayerError, MaterializeOptions, Ownership, PackOptions, Tree, materialize, pack,
};
use formwork_oci::Reference;
use formwork_solver::Cancel;
use formwork_worker::WorkerError;

use crate::result::{Built, BuiltImage};
use crate::step::{sending, step};
use crate::{BuildError, BuildRequest, Destination, Host, ImageForm, Output};

/// Takes what was built to all outputs.
pub(crate) fn deliver(
    host: &Host,
    request: &BuildRequest,
    built: &Built,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<(), BuildError> {
    for output in &request.outputs {
        step(title(output), events, cancel, |step| {
            Delivery { host, request, built, events, step }.deliver(output)
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
        Output::Store => "export to the local store".to_owned(),
        Output::Push { .. } => "push".to_owned(),
        Output::Archive { destination, .. } => format!("export to {}", show(destination)),
        Output::Layout { directory, .. } => format!("export to {}", directory.display()),
        Output::Files { directory, .. } => format!("export files to {}", directory.display()),
        Output::Tar { destination, .. } => format!("export files to {}", show(destination)),
    }
}

struct Delivery<'a> {
    host: &'a Host,
    request: &'a BuildRequest,
    built: &'a Built,
    events: &'a Arc<dyn EventSink>,
    step: StepId,
}

impl Delivery<'_> {
    fn deliver(&self, output: &Output) -> Result<(), BuildError> {
        match output {
            Output::Store => self.store(),
            Output::Push { form, by_digest } => self.push(form, *by_digest),
            Output::Archive { docker, destination, form } => {
                self.archive(*docker, destination, form)
            }
            Output::Layout { docker, directory, form } => self.layout(*docker, directory, form),
            Output::Files { directory, split } => self.files(directory, *split),
            Output::Tar { destination, split } => self.tar(destination, *split),
        }
    }

    fn content(&self, form: &ImageForm) -> Result<Content<'_>, BuildError> {
        let missing = || BuildError::internal("the image was not packed as the output needs it");
        self.built.content(form).ok_or_else(missing)
    }

    /// Keeps the image under its names, with everything that it takes to run it.
    fn store(&self) -> Result<(), BuildError> {
        for image in &self.built.images {
            self.store_parts(image)?;
        }
        let content = self.host.layers.content();
        if let Some((_, index)) = self.built.indexes.first() {
            content.insert(index.bytes()).map_err(BuildError::store)?;
        }
        let names = self.built.names().iter().cloned().map(Some);
        let names: Vec<_> = if names.len() == 0 { vec![None] } else { names.collect() };
        for stored in names.into_iter().filter_map(|name| self.built.stored(name)) {
            self.host.images.put(&stored).map_err(|error| BuildError::image(&error))?;
        }
        Ok(())
    }

    /// What it takes to run an image.
    fn store_parts(&self, image: &BuiltImage) -> Result<(), BuildError> {
        let content = self.host.layers.content();
        content.insert(&image.config_bytes).map_err(BuildError::store)?;
        for layer in image.root.layers() {
            // A planned copy has its bytes elsewhere, where they may change.
            if layer.base_descriptor().is_none() {
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
        if let Some((_, view)) = image.views.first() {
            content.insert(view.manifest_bytes()).map_err(BuildError::store)?;
        }
        Ok(())
    }

    fn push(&self, form: &ImageForm, by_digest: bool) -> Result<(), BuildError> {
        let content = self.content(form)?;
        let digest = match content {
            Content::Image(view) => &view.descriptor().digest,
            Content::Index(index) => &index.descriptor().digest,
        };
        let name = |name: &Reference| match by_digest {
            true => Reference::by_digest(name.repository().clone(), digest.clone()),
            false => name.clone(),
        };
        let names: Vec<Reference> = self.built.names().iter().map(name).collect();
        let client = self.host.registries.client();
        let client = client.map_err(|error| BuildError::image(&error.into()))?;
        let progress = sending(self.step, &**self.events);
        let options = PushOptions { origins: &BTreeMap::new(), progress: &progress };
        match content {
            Content::Image(view) => export::to_registry(client, view, &names, options),
            Content::Index(index) => export::index_to_registry(client, index, &names, options),
        }
        .map(drop)
        .map_err(|error| BuildError::image(&error))
    }

    fn archive(
        &self,
        docker: bool,
        destination: &Destination,
        how: &ImageForm,
    ) -> Result<(), BuildError> {
        let named = [Named::new(self.content(how)?, self.built.names())];
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
        let named = [Named::new(self.content(how)?, self.built.names())];
        make_directory(directory).map_err(BuildError::store)?;
        export::all_to_directory(&named, form(docker), directory)
            .map_err(|error| BuildError::image(&error))
    }

    /// All files as they are in the image, into a directory of the user's.
    fn files(&self, directory: &Path, split: Option<bool>) -> Result<(), BuildError> {
        let files = |place: &Path, tree: &Tree| -> Result<(), WorkerError> {
            make_directory(place)?;
            let options = MaterializeOptions {
                ownership: Ownership::Caller,
                threads: self.host.layers.threads(),
                ..MaterializeOptions::default()
            };
            materialize(tree, &RootDir::open(place)?, &options)?;
            Ok(())
        };
        for (name, tree) in files::trees(self.built, split)? {
            let place = name.map_or_else(|| directory.to_owned(), |name| directory.join(name));
            files(&place, &tree).map_err(|error| BuildError::worker(&error))?;
        }
        Ok(())
    }

    fn tar(&self, destination: &Destination, split: Option<bool>) -> Result<(), BuildError> {
        let tree = files::joined(files::trees(self.built, split)?)?;
        archive_files(&tree, self.request.epoch, destination)
            .map_err(|error| BuildError::worker(&error))
    }
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
        Destination::File(path) => {
            let mut file = AtomicFile::create(path)?;
            let mut writer = BufWriter::with_capacity(1 << 20, &mut file);
            pack(tree, options, &mut writer).map_err(|error| match error {
                LayerError::Write(error) => FsError::new("write", path, error).into(),
                other => WorkerError::from(other),
            })?;
            writer.flush().map_err(|error| FsError::new("write", path, error))?;
            drop(writer);
            file.commit()?;
        }
    }
    Ok(())
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
