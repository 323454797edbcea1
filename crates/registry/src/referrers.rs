//! What a registry has that says something about a manifest: signatures, provenance, inventories
//! (distribution specification, "Listing Referrers").
//!
//! A registry that does not know such lists has an index in their place, under a tag that is the
//! subject's digest; whoever adds a referrer keeps it.

use std::collections::BTreeSet;

use formwork_oci::{Descriptor, Digest, Index, Manifest, MediaType, Repository, to_json};
use ureq::http::{HeaderName, HeaderValue, Method, header};

use crate::client::Errand;
use crate::document;
use crate::endpoint::Pull;
use crate::pull::{MANIFEST_LIMIT, Name, manifest};
use crate::push::{check_stored, put_request};
use crate::session::{Request, Session};
use crate::{RegistryClient, RegistryError, address};

/// How many pages of a list are read.
const PAGES: usize = 64;

/// Says that the registry has put a manifest into the list of its subject.
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

impl RegistryClient {
    /// What a repository has that says something about a manifest, of one type or of all.
    ///
    /// # Errors
    ///
    /// All that may go wrong with a registry, but not that there is no such manifest.
    pub fn referrers(
        &self,
        repository: &Repository,
        subject: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let shown = format!("{repository}@{subject}");
        let errand = Errand { action: "list what refers to", subject: &shown };
        let mut found = self.pull(errand, repository, Pull::ByDigest, &mut |session| {
            listed(session, subject, artifact_type)
        })?;
        found.retain(|entry| {
            artifact_type.is_none_or(|kind| entry.artifact_type.as_deref() == Some(kind))
        });
        Ok(found)
    }

    /// Puts a manifest that says something about another one, its `subject`, under its own digest,
    /// and sees to it that the list of its subject has it.
    ///
    /// # Errors
    ///
    /// [`RegistryError::Unsupported`] for a manifest without a subject.
    pub fn put_referrer(
        &self,
        repository: &Repository,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Result<Descriptor, RegistryError> {
        let digest = Digest::of(bytes);
        let shown = format!("{repository}@{digest}");
        let errand = Errand { action: "push", subject: &shown };
        self.push(errand, repository, None, &mut |session| {
            let read: Manifest = document::json(session, "manifest", bytes)?;
            let Some(subject) = &read.subject else {
                return Err(
                    session.unsupported("no use for a referrer without a subject".to_owned())
                );
            };
            let answer =
                session.send(&put_request(session, digest.as_str(), media_type, bytes)?)?;
            check_stored(session, &answer, &digest)?;
            let mut entry = Descriptor::new(media_type.clone(), digest.clone(), bytes.len() as u64);
            entry.artifact_type =
                read.artifact_type.clone().or_else(|| Some(read.config.media_type.to_string()));
            entry.annotations = read.annotations.clone();
            if answer.header(SUBJECT).is_none() {
                add_to_tag(session, &subject.digest, &entry)?;
            }
            Ok(entry)
        })
    }
}

/// All pages of the list, or what stands in its place.
fn listed(
    session: &Session<'_>,
    subject: &Digest,
    artifact_type: Option<&str>,
) -> Result<Vec<Descriptor>, RegistryError> {
    let mut url = session.url(&format!("referrers/{subject}"))?;
    if let Some(kind) = artifact_type {
        url = address::with_param(&url, "artifactType", kind);
    }
    let accepted = HeaderValue::from_static("application/vnd.oci.image.index.v1+json");
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for page in 0..PAGES {
        if !seen.insert(url.clone()) {
            return Err(session.invalid("a list of referrers whose pages lead in a circle"));
        }
        let request = Request::new(Method::GET, url.clone()).with(header::ACCEPT, accepted.clone());
        let answer = match session.send(&request) {
            Err(RegistryError::NotFound { .. }) if page == 0 => {
                return Ok(tagged(session, subject)?.manifests);
            }
            result => result?,
        };
        let next = answer.header(header::LINK).and_then(next_page).map(str::to_owned);
        let bytes = answer.document(session, "a list of referrers", MANIFEST_LIMIT)?;
        let index: Index = document::json(session, "list of referrers", &bytes)?;
        found.extend(index.manifests);
        match next {
            Some(next) => url = session.resolve(&url, &next)?,
            None => return Ok(found),
        }
    }
    Err(session.invalid(format!("a list of referrers with more than {PAGES} pages")))
}

/// The index under the tag that stands for a list; an empty one if there is none.
fn tagged(session: &Session<'_>, subject: &Digest) -> Result<Index, RegistryError> {
    match manifest(session, &Name::Tag(tag_of(subject))) {
        Ok(document) if document.descriptor.media_type.is_index() => {
            document::json(session, "list of referrers", &document.bytes)
        }
        Ok(_) => Err(session.invalid("a manifest where a list of referrers should be")),
        Err(RegistryError::NotFound { .. }) => Ok(Index::oci(Vec::new())),
        Err(error) => Err(error),
    }
}

fn add_to_tag(
    session: &Session<'_>,
    subject: &Digest,
    entry: &Descriptor,
) -> Result<(), RegistryError> {
    let mut index = tagged(session, subject)?;
    if index.manifests.iter().any(|own| own.digest == entry.digest) {
        return Ok(());
    }
    index.manifests.push(entry.clone());
    let bytes = to_json(&index);
    let answer =
        session.send(&put_request(session, &tag_of(subject), &MediaType::OciIndex, &bytes)?)?;
    check_stored(session, &answer, &Digest::of(&bytes))
}

fn tag_of(subject: &Digest) -> String {
    subject.as_str().replacen(':', "-", 1)
}

/// The address in `Link: <address>; rel="next"` (RFC 8288).
pub(crate) fn next_page(link: &str) -> Option<&str> {
    let (address, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    parameters.contains("next").then_some(address)
}
