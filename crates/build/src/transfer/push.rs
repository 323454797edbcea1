//! From the store to a registry.

use std::sync::Arc;

use formwork_diagnostics::EventSink;
use formwork_image::StoredImage;
use formwork_image::export::{self, PushOptions, PushReport};
use formwork_layer::Compression;
use formwork_oci::Reference;
use formwork_solver::Cancel;

use super::said;
use super::whole::whole;
use crate::step::{sending, step};
use crate::{BuildError, Host};

/// Sends an image to a registry under a name. What the registry has is not sent; layers that came
/// from another repository of the same registry are taken over there.
///
/// Without a `compression` the image goes as it is, packed with gzip if it was never packed.
///
/// # Errors
///
/// Fails where the image is not complete any more, and where the registry does not take it.
pub fn push(
    host: &Host,
    image: &StoredImage,
    name: &Reference,
    compression: Option<Compression>,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<PushReport, BuildError> {
    let whole = whole(host, image, compression, events, cancel)?;
    step(format!("push {name}"), events, cancel, |step| {
        let client = host.registries.client().map_err(|error| BuildError::image(&error.into()))?;
        let origins = image.origins();
        let options = PushOptions { origins: &origins, progress: &sending(step, &**events) };
        let names = std::slice::from_ref(name);
        export::content_to_registry(client, whole.content(), names, options)
            .and_then(|report| {
                for artifact in said::in_store(host, image, &whole)? {
                    export::artifact_to_registry(client, &artifact, name.repository())?;
                }
                Ok(report)
            })
            .map_err(|error| BuildError::image(&error))
    })
}
