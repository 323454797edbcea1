//! Indexes of images that are there already.

use std::collections::BTreeMap;
use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_frontend::ImageLocation;
use formwork_image::export::Content;
use formwork_image::{Entry, Family, ImageIndex, Member};
use formwork_oci::{Annotations, Descriptor, Platform};
use formwork_solver::Cancel;

use super::elsewhere::{Opened, kind_of, open, put};
use super::whole::{Whole, whole};
use super::{CopyTarget, said};
use crate::request::annotations_of;
use crate::step::step;
use crate::{Annotation, AnnotationPlace, BuildError, Host};

/// An image that goes into an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IndexSource {
    /// One of the store, by a name or an id.
    Store(String),
    /// One that is elsewhere.
    Elsewhere(ImageLocation),
}

/// An index that is to be made.
#[derive(Clone, Debug)]
pub struct IndexRequest {
    /// The images; of an index, those that it has.
    pub sources: Vec<IndexSource>,
    /// Where the index goes; nowhere if it is only to be looked at.
    pub targets: Vec<CopyTarget>,
    /// The platforms whose images it has; all of the sources if there are none.
    pub platforms: Vec<Platform>,
    /// The annotations of the index and of its entries.
    pub annotations: Vec<Annotation>,
    /// Whether a later image takes the place of an earlier one for the same platform.
    pub replace: bool,
    /// Whether what is said about the images goes along.
    pub referrers: bool,
}

/// What is in an index, or in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The document itself.
    pub descriptor: Descriptor,
    /// What it is: an index or a manifest.
    pub kind: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it leads to.
    pub entries: Vec<Descriptor>,
    /// Its annotations.
    pub annotations: Annotations,
}

/// Makes an index of images and takes it to its targets.
///
/// # Errors
///
/// Fails where a source is missing, two images are for one platform, or a target cannot be written.
pub fn create_index(
    host: &Host,
    request: &IndexRequest,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Listed, BuildError> {
    let mut entries: Vec<Entry> = Vec::new();
    let (mut origins, mut said) = (BTreeMap::new(), Vec::new());
    for source in &request.sources {
        let opened = open_source(host, source, request.referrers, events, cancel)?;
        origins.extend(opened.origins.clone());
        said.extend(opened.said.clone());
        for entry in entries_of(&opened.whole) {
            add(&mut entries, entry, request);
        }
    }
    if entries.is_empty() {
        return Err(BuildError::input_error("no image is for a platform that is asked for"));
    }
    let annotations =
        |place, platform: Option<&Platform>| annotations_of(&request.annotations, place, platform);
    for entry in &mut entries {
        let platform = entry.platform.as_ref();
        entry.annotations.extend(annotations(AnnotationPlace::ManifestDescriptor, platform));
    }
    let own = annotations(AnnotationPlace::Index, None);
    let index = ImageIndex::assemble(entries, Family::Oci, own);
    let index = index.map_err(|error| BuildError::image(&error))?;
    let index = index.annotated(annotations(AnnotationPlace::IndexDescriptor, None));
    let opened = Opened { whole: Whole::Index(Box::new(index)), origins, said };
    for target in &request.targets {
        put(host, &opened, target, "write the index", events, cancel)?;
    }
    Ok(listed(&opened.whole))
}

/// Reads the index or the manifest that a name stands for.
///
/// # Errors
///
/// Fails where there is no such thing.
pub fn inspect_index(
    host: &Host,
    source: &IndexSource,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Listed, BuildError> {
    open_source(host, source, false, events, cancel).map(|opened| listed(&opened.whole))
}

fn open_source(
    host: &Host,
    source: &IndexSource,
    referrers: bool,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Opened, BuildError> {
    match source {
        IndexSource::Store(name) => {
            let image = host.images.resolve(name).map_err(|error| BuildError::image(&error))?;
            let whole = whole(host, &image, None, events, cancel)?;
            let said = match referrers {
                true => said::in_store(host, &image, &whole),
                false => Ok(Vec::new()),
            };
            let said = said.map_err(|error| BuildError::image(&error))?;
            Ok(Opened { whole, origins: image.origins(), said })
        }
        IndexSource::Elsewhere(location) => {
            step(format!("resolve {location}"), events, cancel, |_| {
                open(host, location, None, referrers, events, cancel)
            })
        }
    }
}

/// The images of a source, with what is said about them.
pub(super) fn entries_of(whole: &Whole) -> Vec<Entry> {
    match whole {
        Whole::Image(view) => vec![Entry::of((**view).clone())],
        Whole::Artifact(artifact) => vec![Entry {
            member: Member::Artifact(artifact.clone()),
            platform: None,
            annotations: Annotations::new(),
        }],
        Whole::Index(index) => {
            let described = index.index().manifests.iter().zip(index.members());
            let entry = |(entry, member): (&Descriptor, &Member)| Entry {
                member: member.clone(),
                platform: entry.platform.clone(),
                annotations: entry.annotations.clone(),
            };
            described.map(entry).collect()
        }
    }
}

/// Adds an image, if its platform is asked for. The same image is not there twice.
fn add(entries: &mut Vec<Entry>, entry: Entry, request: &IndexRequest) {
    let fits = |wanted: &Platform| {
        entry.platform.as_ref().is_some_and(|own| own.fitness(wanted) == Some(0))
    };
    if !request.platforms.is_empty() && !request.platforms.iter().any(fits) {
        return;
    }
    let digest = &entry.member.descriptor().digest;
    if entries.iter().any(|known| known.member.descriptor().digest == *digest) {
        return;
    }
    let is_runnable = entry.platform.as_ref().is_some_and(|platform| platform.os != "unknown");
    if request.replace && is_runnable {
        entries.retain(|known| known.platform != entry.platform);
    }
    entries.push(entry);
}

fn listed(whole: &Whole) -> Listed {
    match whole.content() {
        Content::Image(view) => Listed {
            descriptor: view.descriptor().clone(),
            kind: kind_of(&view.descriptor().media_type),
            bytes: view.manifest_bytes().to_vec(),
            entries: Vec::new(),
            annotations: view.manifest().annotations.clone(),
        },
        Content::Artifact(artifact) => Listed {
            descriptor: artifact.descriptor().clone(),
            kind: "artifact",
            bytes: artifact.bytes().to_vec(),
            entries: Vec::new(),
            annotations: artifact.manifest().annotations.clone(),
        },
        Content::Index(index) => Listed {
            descriptor: index.descriptor().clone(),
            kind: kind_of(&index.descriptor().media_type),
            bytes: index.bytes().to_vec(),
            entries: index.index().manifests.clone(),
            annotations: index.index().annotations.clone(),
        },
    }
}
