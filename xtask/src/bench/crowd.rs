//! A store in which much has been built: records and blobs that no case uses. Blobs are sparse, so
//! they take no space.

use std::path::Path;

use anyhow::{Context, Result};

use super::random::Random;

/// How many records there are.
const RECORDS: usize = 10_000;
/// How many blobs, and how large they say they are: 100 GB in all.
const BLOBS: usize = 1000;
const BLOB_SIZE: u64 = 100_000_000;

/// Fills a store.
pub(crate) fn fill(store: &Path) -> Result<()> {
    let mut random = Random::new(11);
    let index = store.join("index-v1");
    let record = fs_err::read(any_record(&index)?)?;
    for _ in 0..RECORDS {
        let name = hex(&mut random);
        let (directory, rest) = name.split_at(2);
        fs_err::create_dir_all(index.join(directory))?;
        fs_err::write(index.join(directory).join(rest), &record)?;
    }
    let blobs = store.join("content/blobs/sha256");
    for _ in 0..BLOBS {
        let file = fs_err::File::create(blobs.join(hex(&mut random)))?;
        file.set_len(BLOB_SIZE)?;
    }
    Ok(())
}

fn any_record(index: &Path) -> Result<std::path::PathBuf> {
    for directory in fs_err::read_dir(index)? {
        if let Some(record) = fs_err::read_dir(directory?.path())?.next() {
            return Ok(record?.path());
        }
    }
    None.context("the store has no record")
}

/// A name of 64 digits.
fn hex(random: &mut Random) -> String {
    (0..4).map(|_| format!("{:016x}", random.below(u64::MAX))).collect()
}
