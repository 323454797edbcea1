//! What is said about images where they are: signatures, provenance, inventories.
//!
//! That is what refers to them by its `subject`, and what lies under a tag that is made of their
//! digest (`sha256-….sig`), as cosign has it. It may be said about in turn.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use formwork_image::{Artifact, ImageError, StoredImage};
use formwork_oci::{ANNOTATION_REF_NAME, Descriptor, Digest};
use formwork_registry::{Document, RegistryError};

use super::elsewhere::OfRegistry;
use super::whole::Whole;
use crate::Host;

/// How much may be said about one image.
const LIMIT: usize = 1000;

/// The digests that something may be said about.
pub(super) fn subjects(whole: &Whole) -> Vec<Digest> {
    match whole {
        Whole::Image(view) => vec![view.descriptor().digest.clone()],
        Whole::Artifact(artifact) => vec![artifact.descriptor().digest.clone()],
        Whole::Index(index) => {
            let members = index.members().iter().map(|member| member.descriptor());
            std::iter::once(index.descriptor())
                .chain(members)
                .map(|one| one.digest.clone())
                .collect()
        }
    }
}

/// What the store knows to be said about an image in the form in which it leaves; what was said
/// about it in another form is not about that.
pub(super) fn in_store(
    host: &Host,
    image: &StoredImage,
    whole: &Whole,
) -> Result<Vec<Artifact>, ImageError> {
    let subjects = subjects(whole);
    let mut found = Vec::new();
    for said in image.platforms().flat_map(|one| &one.attached) {
        let content = Arc::new(host.layers.content().clone());
        let artifact = Artifact::open(said.clone(), content)?;
        let subject = artifact.manifest().subject.as_ref();
        if subject.is_some_and(|subject| subjects.contains(&subject.digest)) {
            found.push(artifact);
        }
    }
    Ok(found)
}

impl OfRegistry<'_> {
    /// All that the repository has about something, in an order in which subjects go first.
    pub(super) fn said(&self, subjects: Vec<Digest>) -> Result<Vec<Artifact>, ImageError> {
        let (client, repository) = (self.host.registries.client()?, self.name.repository());
        let tags = client.tags(repository)?;
        let mut known: BTreeSet<Digest> = subjects.iter().cloned().collect();
        let mut queue: VecDeque<Digest> = subjects.into();
        let mut found = Vec::new();
        while let Some(subject) = queue.pop_front() {
            let prefix = format!("{}.", subject.as_str().replacen(':', "-", 1));
            let mut documents: Vec<(Document, Option<&String>)> = Vec::new();
            for referrer in client.referrers(repository, &subject, None)? {
                match client.manifest(repository, &referrer.digest) {
                    Ok(document) => documents.push((document, None)),
                    // A list may name what has been removed.
                    Err(RegistryError::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            for tag in tags.iter().filter(|tag| tag.starts_with(&prefix)) {
                let name = format!("{repository}:{tag}").parse();
                let name = name.map_err(|_| unsupported(format!("the tag `{tag}`")))?;
                documents.push((client.document(&name)?, Some(tag)));
            }
            for (document, tag) in documents {
                if known.insert(document.descriptor.digest.clone()) {
                    queue.push_back(document.descriptor.digest.clone());
                    found.push(self.artifact(document, tag)?);
                }
            }
            if found.len() > LIMIT {
                return Err(unsupported(format!("more than {LIMIT} artifacts about one image")));
            }
        }
        Ok(found)
    }

    /// The artifact of a document, called like its tag if it has one.
    fn artifact(&self, document: Document, tag: Option<&String>) -> Result<Artifact, ImageError> {
        // What is read from the store is verified there.
        self.host.layers.content().insert(&document.bytes)?;
        let name = |tag: &String| (ANNOTATION_REF_NAME.to_owned(), tag.clone());
        let annotations = tag.map(name).into_iter().collect();
        let descriptor = Descriptor { annotations, ..document.descriptor };
        Artifact::open(descriptor, self.blobs_of(&document.bytes))
    }
}

fn unsupported(what: String) -> ImageError {
    ImageError::Unsupported { what, reason: "copy the image without `--referrers`".to_owned() }
}
