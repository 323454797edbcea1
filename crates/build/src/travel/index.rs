//! The index of a build that looks into caches elsewhere, or is to be sent to one: the store's own,
//! completed from there, which notes what the build uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use formwork_cache::{CacheError, CacheIndex, CacheKey, CacheRecord, Claimed, DirIndex};

use super::{Imports, Uploads};

/// The store's index, completed from caches elsewhere.
pub(crate) struct TravelIndex {
    local: DirIndex,
    imports: Arc<Imports>,
    used: Mutex<Used>,
    /// The layers that go to caches elsewhere while the build runs.
    pub(crate) uploads: Uploads,
}

/// What a build has used or made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Used {
    pub(crate) records: BTreeMap<CacheKey, CacheRecord>,
    /// The keys of the records, in the order in which they came.
    pub(crate) order: Vec<CacheKey>,
    /// The last run of each step, by its name.
    pub(crate) runs: BTreeMap<String, CacheRecord>,
    /// The keys whose records came from elsewhere.
    foreign: BTreeSet<CacheKey>,
}

impl TravelIndex {
    pub(crate) fn new(local: &DirIndex, imports: &Arc<Imports>, uploads: Uploads) -> Self {
        Self { local: local.clone(), imports: Arc::clone(imports), used: Mutex::default(), uploads }
    }

    /// What the build has used or made.
    pub(crate) fn used(&self) -> Used {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, key: &CacheKey, record: &CacheRecord) {
        let mut used = self.lock();
        if used.records.insert(*key, record.clone()).is_none() {
            used.order.push(*key);
        }
        used.foreign.remove(key);
    }
}

impl CacheIndex for TravelIndex {
    fn find(&self, key: &CacheKey) -> Result<Option<CacheRecord>, CacheError> {
        if let Some(record) = self.local.find(key)? {
            self.note(key, &record);
            return Ok(Some(record));
        }
        let Some(record) = self.imports.find(key) else { return Ok(None) };
        self.local.store(key, &record)?;
        self.note(key, &record);
        self.lock().foreign.insert(*key);
        Ok(Some(record))
    }

    fn store(&self, key: &CacheKey, record: &CacheRecord) -> Result<(), CacheError> {
        self.note(key, record);
        self.uploads.add(&record.layer);
        self.local.store(key, record)
    }

    fn try_claim(&self, key: &CacheKey) -> Result<Claimed, CacheError> {
        self.local.try_claim(key)
    }

    fn forget(&self, key: &CacheKey) -> Result<(), CacheError> {
        let mut used = self.lock();
        used.records.remove(key);
        // What the store has lost may still be had from elsewhere, but what is of no use there is
        // not asked for again.
        let is_foreign = used.foreign.remove(key);
        drop(used);
        if is_foreign {
            self.imports.forget(key);
        }
        self.local.forget(key)
    }

    fn runs(&self, step: &CacheKey) -> Vec<CacheRecord> {
        self.local.runs(step)
    }

    fn add_run(&self, step: &CacheKey, run: &CacheRecord) -> Result<(), CacheError> {
        self.lock().runs.insert(run.step.clone(), run.clone());
        self.local.add_run(step, run)
    }

    fn foreign_runs(&self) -> Vec<CacheRecord> {
        self.imports.runs()
    }
}
