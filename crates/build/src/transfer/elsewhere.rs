//! Images in registries, image layouts and archives, opened where they are.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_frontend::ImageLocation;
use formwork_image::export::{self, Named, PushOptions};
use formwork_image::{
    Artifact, BlobSource, Choice, ImageError, ImageIndex, ImageView, Location, Member, source,
};
use formwork_oci::{
    Descriptor, Digest, Manifest, MediaType, Platform, Reference, Repository, from_json,
};
use formwork_registry::Document;
use formwork_solver::Cancel;

use super::CopyTarget;
use super::said::subjects;
use super::whole::Whole;
use crate::blobs::PulledBlobs;
use crate::output::{form, make_directory};
use crate::resolve::choice_of;
use crate::step::{sending, step};
use crate::{BuildError, Host};

/// An image as it is somewhere.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) whole: Whole,
    /// The repositories that have its blobs, by their digests.
    pub(super) origins: BTreeMap<Digest, Repository>,
    /// What is said about it, if that was asked for.
    pub(super) said: Vec<Artifact>,
}

/// Opens an image: all that its name stands for, or what that is on a platform; with what is said
/// about it if `referrers` are asked for.
pub(super) fn open(
    host: &Host,
    from: &ImageLocation,
    platform: Option<&Platform>,
    referrers: bool,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Opened, BuildError> {
    let location = |path: &str, selector: &Option<String>| {
        // A path that leads nowhere is the user's mistake.
        fs_err::metadata(path).map_err(BuildError::input_error)?;
        let choice = selector.as_deref().map_or(Choice::Only, choice_of);
        Ok(Location { path: path.into(), choice })
    };
    let machine = Platform::host();
    let one = platform.unwrap_or(&machine);
    let whole = match from {
        ImageLocation::Named(name) => {
            let registry = OfRegistry { host, name, events, cancel };
            return registry.open(platform, referrers);
        }
        ImageLocation::OciLayout { path, selector } => {
            let location = location(path, selector)?;
            let is_directory = location.path.is_dir();
            let index = match platform {
                None => source::oci_index(&location, is_directory, one),
                Some(_) => Ok(None),
            };
            match index.map_err(|error| BuildError::image(&error))? {
                Some(index) => Ok(Whole::Index(Box::new(index))),
                None => source::oci_member(&location, is_directory, one).map(Whole::from),
            }
        }
        ImageLocation::DockerArchive { path, selector } => {
            source::docker_archive(&location(path, selector)?).map(Whole::of)
        }
    };
    let whole = whole.map_err(|error| BuildError::image(&error))?;
    let said = match (from, referrers) {
        (ImageLocation::OciLayout { path, .. }, true) => {
            source::said(Path::new(path), &subjects(&whole))
        }
        _ => Ok(Vec::new()),
    };
    let said = said.map_err(|error| BuildError::image(&error))?;
    Ok(Opened { whole, origins: BTreeMap::new(), said })
}

/// Writes or sends an image; returns the descriptor of its manifest or index there.
pub(super) fn put(
    host: &Host,
    opened: &Opened,
    to: &CopyTarget,
    title: &str,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Descriptor, BuildError> {
    let Opened { whole, origins, said } = opened;
    step(title, events, cancel, |step| match to {
        CopyTarget::Registry(name) => {
            let client =
                host.registries.client().map_err(|error| BuildError::image(&error.into()))?;
            let options = PushOptions { origins, progress: &sending(step, &**events) };
            let names = std::slice::from_ref(name);
            let report = export::content_to_registry(client, whole.content(), names, options);
            let report = report.map_err(|error| BuildError::image(&error))?;
            for artifact in said {
                export::artifact_to_registry(client, artifact, name.repository())
                    .map_err(|error| BuildError::image(&error))?;
            }
            Ok(report.manifest)
        }
        CopyTarget::Layout { path, directory, docker, name } => {
            let named = Named::new(whole.content(), name.as_slice()).with_attached(said);
            let form = form(*docker);
            if *directory {
                make_directory(path).map_err(BuildError::store)?;
                export::all_to_directory(&[named], form, path)
            } else {
                export::all_to_file(&[named], form, path)
            }
            .and_then(|()| named.descriptor(form))
            .map_err(|error| BuildError::image(&error))
        }
    })
}

/// An image of a registry.
pub(super) struct OfRegistry<'a> {
    pub(super) host: &'a Host,
    pub(super) name: &'a Reference,
    events: &'a Arc<dyn EventSink>,
    cancel: &'a Cancel,
}

impl OfRegistry<'_> {
    fn open(&self, platform: Option<&Platform>, referrers: bool) -> Result<Opened, BuildError> {
        let failed = |error| BuildError::image(&error);
        let opened = match platform {
            Some(platform) => self.one(platform),
            None => self.all(),
        };
        let opened = opened.map_err(failed)?;
        let said = match referrers {
            true => self.said(subjects(&opened.whole)).map_err(failed)?,
            false => Vec::new(),
        };
        Ok(Opened { said, ..opened })
    }

    fn one(&self, platform: &Platform) -> Result<Opened, ImageError> {
        let resolved = self.host.registries.client()?.resolve(self.name, platform)?;
        let origins = self.origins(&resolved.manifest);
        let blobs = self.blobs(&origins);
        let (manifest, config) = (resolved.document.bytes, resolved.config_bytes);
        let view = ImageView::new(resolved.document.descriptor, manifest, config, blobs)?;
        Ok(Opened { whole: Whole::of(view), origins, said: Vec::new() })
    }

    fn all(&self) -> Result<Opened, ImageError> {
        let client = self.host.registries.client()?;
        let top = client.document(self.name)?;
        if !top.descriptor.media_type.is_index() {
            return self.lone(top);
        }
        let mut origins = BTreeMap::new();
        let index = ImageIndex::read(top.descriptor, top.bytes, |entry| {
            let document = client.manifest(self.name.repository(), &entry.digest)?;
            self.member(entry, document, &mut origins)
        })?;
        Ok(Opened { whole: Whole::Index(Box::new(index)), origins, said: Vec::new() })
    }

    /// What has no platforms to choose from: an image, or another artifact.
    fn lone(&self, top: Document) -> Result<Opened, ImageError> {
        let mut origins = BTreeMap::new();
        let entry = top.descriptor.clone();
        let whole = Whole::from(self.member(&entry, top, &mut origins)?);
        Ok(Opened { whole, origins, said: Vec::new() })
    }

    fn member(
        &self,
        entry: &Descriptor,
        document: Document,
        origins: &mut BTreeMap<Digest, Repository>,
    ) -> Result<Member, ImageError> {
        // What is read from the store is verified there.
        self.host.layers.content().insert(&document.bytes)?;
        let own = self.origins_in(&document.bytes);
        origins.extend(own.clone());
        Member::open(entry, &self.blobs(&own))
    }

    /// The blobs that a manifest names.
    pub(super) fn blobs_of(&self, manifest: &[u8]) -> Arc<dyn BlobSource> {
        self.blobs(&self.origins_in(manifest))
    }

    fn origins_in(&self, manifest: &[u8]) -> BTreeMap<Digest, Repository> {
        match from_json::<Manifest>("manifest", manifest) {
            Ok(manifest) => self.origins(&manifest),
            // Told where it is opened.
            Err(_) => BTreeMap::new(),
        }
    }

    fn origins(&self, manifest: &Manifest) -> BTreeMap<Digest, Repository> {
        let blobs = manifest.layers.iter().chain(std::iter::once(&manifest.config));
        blobs.map(|blob| (blob.digest.clone(), self.name.repository().clone())).collect()
    }

    fn blobs(&self, origins: &BTreeMap<Digest, Repository>) -> Arc<dyn BlobSource> {
        Arc::new(PulledBlobs {
            content: self.host.layers.content().clone(),
            layout: self.host.layout.clone(),
            registries: Arc::clone(&self.host.registries),
            events: Arc::clone(self.events),
            cancel: self.cancel.clone(),
            origins: origins.clone(),
        })
    }
}

/// What a document of a registry or a layout is called for people.
pub(super) fn kind_of(media_type: &MediaType) -> &'static str {
    if media_type.is_index() { "index" } else { "manifest" }
}
