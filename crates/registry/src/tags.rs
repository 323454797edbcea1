//! The tags of a repository: which there are, and removing a manifest with those that it has.

use std::collections::BTreeSet;

use formwork_oci::{Digest, Repository};
use serde::Deserialize;
use ureq::http::{Method, header};

use crate::client::Errand;
use crate::document;
use crate::endpoint::Pull;
use crate::pull::MANIFEST_LIMIT;
use crate::referrers::next_page;
use crate::session::{Request, Session};
use crate::{RegistryClient, RegistryError, address};

/// How many tags a page is asked to have.
const PAGE: &str = "1000";
/// How many pages of a list are read.
const PAGES: usize = 1024;

#[derive(Deserialize)]
struct TagList {
    /// Go writes `null` for an empty list.
    tags: Option<Vec<String>>,
}

impl RegistryClient {
    /// The tags of a repository; none where there is no such repository.
    ///
    /// # Errors
    ///
    /// All else that may go wrong with a registry.
    pub fn tags(&self, repository: &Repository) -> Result<Vec<String>, RegistryError> {
        let errand = Errand { action: "list the tags of", subject: repository };
        match self.pull(errand, repository, Pull::ByTag, &mut tags) {
            Err(RegistryError::NotFound { .. }) => Ok(Vec::new()),
            result => result,
        }
    }

    /// Removes a manifest, with all tags that stand for it; whether it was there. Registries free
    /// the space of its blobs in their own time.
    ///
    /// # Errors
    ///
    /// All else that may go wrong with a registry; many allow nobody to remove anything.
    pub fn delete_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, RegistryError> {
        let subject = format!("{repository}@{digest}");
        let errand = Errand { action: "remove", subject: &subject };
        let deleted = self.push(errand, repository, None, &mut |session| {
            let url = session.url(&format!("manifests/{digest}"))?;
            session.send(&Request::new(Method::DELETE, url)).map(drop)
        });
        match deleted {
            Ok(()) => Ok(true),
            Err(RegistryError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn tags(session: &Session<'_>) -> Result<Vec<String>, RegistryError> {
    let mut url = address::with_param(&session.url("tags/list")?, "n", PAGE);
    let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
    for _ in 0..PAGES {
        if !seen.insert(url.clone()) {
            return Err(session.invalid("a list of tags whose pages lead in a circle"));
        }
        let answer = session.send(&Request::new(Method::GET, url.clone()))?;
        let next = answer.header(header::LINK).and_then(next_page).map(str::to_owned);
        let bytes = answer.document(session, "a list of tags", MANIFEST_LIMIT)?;
        let list: TagList = document::json(session, "list of tags", &bytes)?;
        found.extend(list.tags.unwrap_or_default());
        match next {
            Some(next) => url = session.resolve(&url, &next)?,
            None => return Ok(found),
        }
    }
    Err(session.invalid(format!("a list of tags with more than {PAGES} pages")))
}
