//! From an archive of files to an image with one layer.

use std::io::{self, Read, Write};
use std::sync::Arc;

use formwork_content::Blob;
use formwork_diagnostics::{Diagnostic, EventSink, SourceFile};
use formwork_dockerfile::parse;
use formwork_frontend::{Options, ResolvedImages, lower};
use formwork_fs::FsError;
use formwork_image::{Assembly, BlobSource, Family, StoredImage, StoredLayer, assemble};
use formwork_layer::archive::is_archive;
use formwork_layer::compression::{Format, MAGIC_BYTES, reader};
use formwork_layer::{ApplyOptions, LayerError, index};
use formwork_oci::{
    Annotations, Descriptor, DiffId, History, ImageConfig, LayerCompression, MediaType, Platform,
    Reference, RuntimeConfig,
};
use formwork_solver::Cancel;

use crate::error::lack_of_machine;
use crate::step::step;
use crate::{BuildError, Host};

/// What becomes of an archive.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    /// What the archive is called in messages and in the history.
    pub source: String,
    /// The image's name.
    pub name: Option<Reference>,
    /// What it runs on.
    pub platform: Platform,
    /// Instructions of a Dockerfile that change nothing but the configuration.
    pub changes: Vec<String>,
    /// A remark for the history.
    pub message: Option<String>,
    /// When it is said to be made, as RFC 3339 text.
    pub created: String,
}

/// The instructions that change nothing but the configuration: those of `docker import`, and more
/// of the kind.
const CHANGES: [&str; 13] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Makes an image of the files in a tar archive, which may be compressed.
///
/// # Errors
///
/// Fails where it is no archive, or an instruction is wrong.
pub fn import(
    host: &Host,
    request: &ImportRequest,
    input: &mut dyn Read,
    events: &Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<StoredImage, BuildError> {
    let runtime = configured(request)?;
    step(format!("import {}", request.source), events, cancel, |_| {
        let layer = keep_layer(host, request, input)?;
        let mut config = ImageConfig::for_platform(&request.platform);
        config.config = runtime;
        config.created = Some(request.created.clone());
        config.rootfs.diff_ids = vec![layer.diff_id.clone()];
        config.history = vec![History {
            created: config.created.clone(),
            created_by: Some(format!("formwork import {}", request.source)),
            comment: request.message.clone(),
            ..History::default()
        }];
        keep_image(host, request, &config, layer)
    })
}

/// The configuration that the changes yield.
fn configured(request: &ImportRequest) -> Result<RuntimeConfig, BuildError> {
    if request.changes.is_empty() {
        return Ok(RuntimeConfig::default());
    }
    for change in &request.changes {
        let word = change.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if !CHANGES.contains(&&*word) || change.contains('\n') {
            let error = BuildError::input_error(format!("`--change {change}` is not possible"));
            return Err(error.with_help(&format!("there are {}", CHANGES.join(", "))));
        }
    }
    let text = format!("FROM scratch\n{}\n", request.changes.join("\n"));
    let parsed = parse(SourceFile::new("--change", text));
    if parsed.diagnostics.iter().any(Diagnostic::is_error) {
        return Err(BuildError::input(parsed.diagnostics));
    }
    let options = Options::new(request.platform.clone(), Platform::host());
    let lowered = lower(&parsed.dockerfile, &options, &ResolvedImages::default());
    Ok(lowered.map_err(BuildError::input)?.config.config)
}

/// Keeps the archive as a blob, in a format that layers may have.
fn keep_layer(
    host: &Host,
    request: &ImportRequest,
    input: &mut dyn Read,
) -> Result<StoredLayer, BuildError> {
    let unreadable = |error: io::Error| {
        let error = FsError::new("import", &request.source, error);
        match lack_of_machine(&error) {
            Some(_) => BuildError::store(error),
            None => BuildError::input_error(error),
        }
    };
    let mut start = Vec::new();
    input.take(MAGIC_BYTES as u64).read_to_end(&mut start).map_err(unreadable)?;
    let (compression, is_kept) = match Format::detect(&start) {
        Format::Plain => (LayerCompression::None, true),
        Format::Gzip => (LayerCompression::Gzip, true),
        Format::Zstd => (LayerCompression::Zstd, true),
        Format::Bzip2 | Format::Xz => (LayerCompression::None, false),
    };
    let whole = start.chain(input);
    let content = host.layers.content();
    let mut writer = content.writer().map_err(BuildError::store)?;
    let mut bytes: Box<dyn Read + '_> = match is_kept {
        true => Box::new(whole),
        false => reader(whole).map_err(|error| unreadable(io::Error::other(error)))?,
    };
    io::copy(&mut bytes, &mut writer).map_err(unreadable)?;
    writer.flush().map_err(unreadable)?;
    drop(bytes);
    let blob = writer.commit(None).map_err(BuildError::store)?;
    match examine(host, request, &blob) {
        Ok((diff_id, unpacked_size)) => {
            let media_type = MediaType::OciLayer(compression);
            let descriptor = Descriptor::new(media_type, blob.digest, blob.size);
            let blob = Some(descriptor);
            Ok(StoredLayer { diff_id, unpacked_size, blob, snapshot: None, origin: None })
        }
        Err(error) => {
            content.remove(&blob.digest).map_err(BuildError::store)?;
            Err(error)
        }
    }
}

/// The digest of the archive in a blob, and the number of bytes of its files.
fn examine(host: &Host, request: &ImportRequest, blob: &Blob) -> Result<(DiffId, u64), BuildError> {
    let failed = |error: LayerError| BuildError::worker(&error.into());
    if !is_archive(blob.open().map_err(BuildError::store)?).map_err(failed)? {
        let source = &request.source;
        return Err(BuildError::input_error(format!("`{source}` is no tar archive")));
    }
    let options = ApplyOptions { threads: host.layers.threads(), ..ApplyOptions::default() };
    let applied = index(blob.open().map_err(BuildError::store)?, &options).map_err(failed)?;
    Ok((applied.diff_id, applied.tree.size()))
}

fn keep_image(
    host: &Host,
    request: &ImportRequest,
    config: &ImageConfig,
    layer: StoredLayer,
) -> Result<StoredImage, BuildError> {
    let content = host.layers.content();
    let blobs = Arc::new(content.clone()) as Arc<dyn BlobSource>;
    let layers = layer.blob.iter().cloned().collect();
    let (family, annotations) = (Family::Oci, Annotations::new());
    let view = assemble(Assembly { config, layers, family, annotations }, blobs)
        .map_err(|error| BuildError::image(&error))?;
    content.insert(view.config_bytes()).map_err(BuildError::store)?;
    content.insert(view.manifest_bytes()).map_err(BuildError::store)?;
    let name = request.name.clone();
    let image = StoredImage { name, layers: vec![layer], ..StoredImage::of(&view) };
    host.images.put(&image).map_err(|error| BuildError::image(&error))?;
    Ok(image)
}
