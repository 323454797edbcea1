//! From an archive or a directory into the store.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_fs::FsError;
use formwork_image::source::{Found, all_images};
use formwork_image::{StoredImage, export};
use formwork_layer::compression::{Format, MAGIC_BYTES, reader};
use formwork_oci::{Platform, Reference};
use formwork_solver::Cancel;

use super::whole::stored;
use crate::error::lack_of_machine;
use crate::step::step;
use crate::{BuildError, Host};

/// What is called the place of an archive that comes through a pipe.
const SPOOLED: &str = "loaded.tar";

/// Keeps all images of an archive or an image layout under the names that they have there; one for
/// several platforms whole as far as it is there, or as the image for `platform` if one is asked for.
/// An archive may be compressed as a whole.
///
/// `input` is what is read where there is no `path`.
///
/// # Errors
///
/// Fails where there is no image that can be read, and where the store cannot be written.
pub fn load(
    host: &Host,
    path: Option<&Path>,
    input: &mut dyn Read,
    platform: Option<&Platform>,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Vec<StoredImage>, BuildError> {
    let title = match path {
        Some(path) => format!("load {}", path.display()),
        None => "load from standard input".to_owned(),
    };
    step(title, events, cancel, |_| {
        let spooled = spool_if_needed(host, path, input)?;
        let place = spooled.as_deref().or(path).unwrap_or(Path::new(SPOOLED));
        let machine = Platform::host();
        let found = all_images(place, platform.unwrap_or(&machine));
        let found = found.map_err(|error| named_as(BuildError::image(&error), place, path))?;
        let mut loaded = Vec::new();
        for mut found in found {
            found.index = found.index.filter(|_| platform.is_none());
            loaded.extend(keep(host, &found)?);
        }
        if let Some(spooled) = &spooled {
            // Otherwise it goes with the process.
            let _ = fs_err::remove_file(spooled);
        }
        Ok(loaded)
    })
}

/// Puts what cannot be read in any order into a file: a pipe, or a compressed archive.
fn spool_if_needed(
    host: &Host,
    path: Option<&Path>,
    input: &mut dyn Read,
) -> Result<Option<PathBuf>, BuildError> {
    match path {
        None => spool(host, input, Path::new("standard input")).map(Some),
        Some(path) if path.is_dir() => Ok(None),
        Some(path) => {
            let failed = |error| BuildError::input_error(FsError::new("read", path, error));
            let mut file = fs_err::File::open(path).map_err(BuildError::input_error)?;
            let mut start = Vec::new();
            (&mut file).take(MAGIC_BYTES as u64).read_to_end(&mut start).map_err(failed)?;
            let is_file = file.metadata().map_err(failed)?.is_file();
            if is_file && Format::detect(&start) == Format::Plain {
                return Ok(None);
            }
            spool(host, &mut start.chain(file), path).map(Some)
        }
    }
}

/// Writes an archive, decompressed, into a file that goes with the process.
fn spool(host: &Host, input: &mut dyn Read, shown: &Path) -> Result<PathBuf, BuildError> {
    let target = host.layout.scratch().map_err(BuildError::store)?.join(SPOOLED);
    let failed = |error: io::Error| {
        let error = FsError::new("unpack into the store", shown, error);
        match lack_of_machine(&error) {
            Some(_) => BuildError::store(error),
            None => BuildError::input_error(error),
        }
    };
    let mut file = fs_err::File::create(&target).map_err(BuildError::store)?;
    let mut plain = reader(input).map_err(|error| failed(io::Error::other(error)))?;
    io::copy(&mut plain, &mut file).map_err(failed)?;
    Ok(target)
}

/// An error about an archive that came through a pipe, whose place nobody knows.
fn named_as(mut error: BuildError, place: &Path, path: Option<&Path>) -> BuildError {
    let shown = path.map_or("standard input".into(), Path::to_string_lossy);
    for diagnostic in &mut error.diagnostics {
        diagnostic.message = diagnostic.message.replace(&*place.to_string_lossy(), &shown);
    }
    error
}

/// Copies an image into the store and writes down its names.
fn keep(host: &Host, found: &Found) -> Result<Vec<StoredImage>, BuildError> {
    let Found { view, index, names } = found;
    let (content, failed) = (host.layers.content(), |error| BuildError::image(&error));
    let several = index.as_ref().filter(|index| index.images().count() > 0);
    let image = match several {
        Some(index) => {
            export::copy_index(index, content).map_err(failed)?;
            stored(index)
        }
        None => {
            export::copy_blobs(view, content).map_err(failed)?;
            Some(StoredImage::of(view))
        }
    };
    keep_under(host, &image.unwrap_or_else(|| StoredImage::of(view)), names)
}

/// Writes an image down under each of its names, or without one.
fn keep_under(
    host: &Host,
    image: &StoredImage,
    names: &[Reference],
) -> Result<Vec<StoredImage>, BuildError> {
    let names: Vec<Option<Reference>> = match names {
        [] => vec![None],
        names => names.iter().cloned().map(Some).collect(),
    };
    let mut kept = Vec::new();
    for name in names {
        let image = StoredImage { name, ..image.clone() };
        host.images.put(&image).map_err(|error| BuildError::image(&error))?;
        kept.push(image);
    }
    Ok(kept)
}
