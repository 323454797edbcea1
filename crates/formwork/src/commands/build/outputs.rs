//! `--output`, `--push` and `--annotation`: where a result goes and in which form. It only reads
//! what was said; `formwork_build` writes.

use std::io::IsTerminal;
use std::path::Path;

use formwork_build::{Annotation, Compression, Destination, ImageForm, Output, StoreOptions};
use formwork_oci::{Platform, Reference};

use super::{annotations, engine, reference};
use crate::args::{BuildArgs, Pairs};
use crate::exit::Failure;

/// Where the result goes; into the store if nothing is said.
pub(super) fn outputs(
    args: &BuildArgs,
    platforms: &[Platform],
    epoch: Option<i64>,
    tags: &[Reference],
) -> Result<(Vec<Output>, Vec<Vec<Reference>>), Failure> {
    let annotations = annotations::of_options(&args.annotation)?;
    annotations::check(&annotations, platforms)?;
    let mut outputs = Vec::new();
    let may_delete = args.steps.may_delete();
    let asked = Asked { annotations: &annotations, platforms, epoch, may_delete };
    let mut names = Vec::new();
    for pairs in &args.output {
        let own = own_names(pairs)?;
        for output in asked.output(pairs)? {
            outputs.push(output);
            names.push(own.clone());
        }
    }
    let form = ImageForm { annotations, ..ImageForm::default() };
    if args.push {
        outputs.push(Output::Push { form: form.clone(), by_digest: false, insecure: false });
    }
    if args.load {
        if !form.annotations.is_empty() {
            return Err(no_annotations());
        }
        outputs.push(load(None)?);
    }
    if outputs.is_empty() && args.output.is_empty() {
        // An image that is only stored is not packed, unless that is how it gets its annotations.
        let form = (!form.annotations.is_empty()).then_some(form);
        outputs.push(Output::Store(StoreOptions { form, ..StoreOptions::default() }));
    }
    check_destinations(&outputs)?;
    for file in args.iidfile.iter().chain(&args.metadata_file) {
        check_directory_of(file)?;
    }
    names.resize(outputs.len(), Vec::new());
    let mut pushed = outputs.iter().zip(&names);
    let is_nameless = pushed.any(|(output, own)| {
        matches!(output, Output::Push { .. }) && own.is_empty() && tags.is_empty()
    });
    if is_nameless {
        return Err(Failure::usage("an image that is pushed needs a name")
            .with_help("name it with `--tag REGISTRY/NAME`"));
    }
    Ok((outputs, names))
}

/// The names that an output has of its own.
fn own_names(pairs: &Pairs) -> Result<Vec<Reference>, Failure> {
    let names = pairs.get("name").unwrap_or_default().split(',');
    names.filter(|name| !name.is_empty()).map(reference).collect()
}

/// Into the engine that is there.
fn load(context: Option<&str>) -> Result<Output, Failure> {
    let form = ImageForm { docker_types: true, ..ImageForm::default() };
    Ok(Output::Load { engine: engine::find(context)?, form })
}

fn no_annotations() -> Failure {
    Failure::usage("images with docker's media types have no annotations")
        .with_help("choose `type=oci`, or leave `oci-mediatypes=false` out")
}

/// Refuses two outputs to one place.
fn check_destinations(outputs: &[Output]) -> Result<(), Failure> {
    let mut places: Vec<Option<&Path>> = Vec::new();
    for output in outputs {
        let place = match output {
            Output::Store(_) | Output::Push { .. } | Output::Load { .. } => continue,
            Output::Archive { destination: Destination::File(file), .. }
            | Output::Tar { destination: Destination::File(file), .. } => {
                check_directory_of(file)?;
                Some(file.as_path())
            }
            Output::Layout { directory, .. } | Output::Files { directory, .. } => {
                Some(directory.as_path())
            }
            Output::Archive { .. } | Output::Tar { .. } => None,
        };
        if places.contains(&place) {
            let shown = place.map_or("standard output".to_owned(), |at| at.display().to_string());
            return Err(Failure::usage(format!("two outputs cannot both go to {shown}")));
        }
        places.push(place);
    }
    Ok(())
}

/// Refuses a file that nobody can make when everything has been built.
fn check_directory_of(place: &Path) -> Result<(), Failure> {
    let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty());
    match parent.is_none_or(Path::is_dir) {
        true => Ok(()),
        false => Err(Failure::input(format!(
            "`{}` cannot be made: the directory above it does not exist",
            place.display()
        ))),
    }
}

/// What an output of any type may say.
const OUTPUT_KEYS: [&str; 28] = [
    "type",
    "dest",
    "name",
    "tar",
    "context",
    "platform-split",
    "mode",
    "push",
    "push-by-digest",
    "registry.insecure",
    "store",
    "unpack",
    "name-canonical",
    "dangling-name-prefix",
    "dangling-name-empty-only",
    "danging-name-prefix",
    "danging-name-empty-only",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
    "source-date-epoch",
    "prefer-nondist-layers",
    "oci-artifact",
    "attestation-inline",
    "attestation-prefix",
    "annotation.NAME",
];

/// What only outputs of some types may say, with these types.
const OF_TYPES: [(&str, &[&str]); 22] = [
    ("dest", &["oci", "docker", "local", "tar"]),
    ("tar", &["oci", "docker"]),
    ("context", &["docker"]),
    ("platform-split", &["local", "tar"]),
    ("mode", &["local"]),
    ("push", &["image", "registry"]),
    ("push-by-digest", &["image", "registry"]),
    ("registry.insecure", &["image", "registry"]),
    ("store", &["image", "registry"]),
    ("unpack", &["image"]),
    ("name-canonical", &["image", "registry"]),
    ("dangling-name-prefix", &["image"]),
    ("dangling-name-empty-only", &["image"]),
    ("danging-name-prefix", &["image"]),
    ("danging-name-empty-only", &["image"]),
    ("compression", &["image", "registry", "oci", "docker"]),
    ("compression-level", &["image", "registry", "oci", "docker"]),
    ("force-compression", &["image", "registry", "oci", "docker"]),
    ("oci-mediatypes", &["image", "registry", "oci", "docker"]),
    ("prefer-nondist-layers", &["image", "registry", "oci", "docker"]),
    ("oci-artifact", &["image", "registry", "oci", "docker"]),
    ("attestation-prefix", &["local", "tar"]),
];

/// The types of outputs.
const TYPES: [&str; 7] = ["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];

/// What all outputs of a build have in common.
struct Asked<'a> {
    annotations: &'a [Annotation],
    platforms: &'a [Platform],
    /// The time that everything is said to be made at.
    epoch: Option<i64>,
    /// Whether an output may remove what was in its directory.
    may_delete: bool,
}

impl Asked<'_> {
    fn output(&self, pairs: &Pairs) -> Result<Vec<Output>, Failure> {
        if let Some(short) = pairs.single() {
            return Ok(vec![match short {
                "-" => Output::Tar { destination: Destination::Stdout, split: None },
                directory => {
                    Output::Files { directory: directory.into(), split: None, delete: false }
                }
            }]);
        }
        let kind = check_keys(pairs)?;
        self.check_values(pairs)?;
        match kind {
            "image" | "registry" => self.image(pairs, kind),
            "local" => self.local(pairs),
            "tar" => {
                let split = flag(pairs, "platform-split")?;
                Ok(vec![Output::Tar { destination: destination(pairs)?, split }])
            }
            "docker" if self.platforms.len() > 1 && pairs.get("dest").is_some() => {
                Err(Failure::usage("docker's archives have room for one platform")
                    .with_help("choose `type=oci`, or build one platform at a time"))
            }
            "oci" | "docker" => self.archive(pairs, kind),
            _ => Ok(Vec::new()),
        }
    }

    /// Refuses values of attributes that formwork does not have, with the reason.
    fn check_values(&self, pairs: &Pairs) -> Result<(), Failure> {
        if flag(pairs, "rewrite-timestamp")? == Some(false) && self.epoch.is_some() {
            return Err(Failure::usage("times of files always obey SOURCE_DATE_EPOCH"));
        }
        if let Some(text) = pairs.get("source-date-epoch")
            && text.parse() != Ok(self.epoch.unwrap_or(i64::MIN))
        {
            return Err(Failure::usage(format!(
                "`source-date-epoch={text}`: the time holds for the whole build, not for one output"
            ))
            .with_help(format!("build with `--source-date-epoch={text}`")));
        }
        if flag(pairs, "prefer-nondist-layers")? == Some(false) {
            return Err(Failure::usage(
                "`prefer-nondist-layers=false`: layers that may not be passed on stay where their \
                 addresses say",
            ));
        }
        if pairs.get("attestation-prefix").is_some_and(|prefix| !prefix.is_empty()) {
            return Err(Failure::usage(
                "an attestation among files is called as its attribute says",
            )
            .with_help("say its whole name: `--provenance=filename=NAME`"));
        }
        if flag(pairs, "attestation-inline")? == Some(true)
            || flag(pairs, "oci-artifact")? == Some(false)
        {
            return Err(Failure::usage(
                "attestations are artifacts that refer to the image: they never change what the \
                 image's name leads to",
            ));
        }
        Ok(())
    }

    /// Into the store, to a registry, or both.
    fn image(&self, pairs: &Pairs, kind: &str) -> Result<Vec<Output>, Failure> {
        let by_digest = flag(pairs, "push-by-digest")? == Some(true);
        let pushes = match flag(pairs, "push")? {
            Some(false) if kind == "registry" || by_digest => {
                return Err(Failure::usage("`push=false` contradicts the rest of the output"));
            }
            push => push == Some(true) || kind == "registry" || by_digest,
        };
        let insecure = flag(pairs, "registry.insecure")? == Some(true);
        let form = image_form(pairs, self)?;
        let stores = flag(pairs, "store")?.unwrap_or(kind == "image");
        let mut outputs = Vec::new();
        if stores {
            outputs.push(Output::Store(store_options(pairs, &form)?));
        }
        if pushes {
            outputs.push(Output::Push { form, by_digest, insecure });
        }
        match outputs.is_empty() {
            true => Err(Failure::usage("`store=false` without `push=true` leaves nothing to do")
                .with_help("a build without any result is `--output type=cacheonly`")),
            false => Ok(outputs),
        }
    }

    fn local(&self, pairs: &Pairs) -> Result<Vec<Output>, Failure> {
        let Some(directory) = pairs.get("dest") else {
            return Err(Failure::usage("`--output type=local` needs a `dest`"));
        };
        let delete = match pairs.get("mode") {
            None | Some("copy") => false,
            Some("delete") if self.may_delete => true,
            Some("delete") => {
                return Err(Failure::usage(
                    "`mode=delete` removes all that is in the directory and not in the result",
                )
                .with_help("allow that with `--allow buildx.local.delete`"));
            }
            Some(other) => {
                return Err(Failure::usage(format!("there is no mode `{other}`"))
                    .with_help("there are copy and delete"));
            }
        };
        let split = flag(pairs, "platform-split")?;
        Ok(vec![Output::Files { directory: directory.into(), split, delete }])
    }

    fn archive(&self, pairs: &Pairs, kind: &str) -> Result<Vec<Output>, Failure> {
        let (docker, form) = (kind == "docker", image_form(pairs, self)?);
        // As buildx has it: without a place to write to it goes into docker.
        if docker && pairs.get("dest").is_none() && flag(pairs, "tar")? != Some(false) {
            let engine = engine::find(pairs.get("context"))?;
            return Ok(vec![Output::Load {
                engine,
                form: ImageForm { docker_types: true, ..form },
            }]);
        }
        if pairs.get("context").is_some() {
            return Err(Failure::usage("`context` is for an image that is loaded, not written")
                .with_help("leave `dest` out"));
        }
        if flag(pairs, "tar")? == Some(false) {
            let directory = pairs.get("dest").ok_or_else(|| {
                Failure::usage(format!("`--output type={kind},tar=false` needs a `dest`"))
            })?;
            return Ok(vec![Output::Layout { docker, directory: directory.into(), form }]);
        }
        Ok(vec![Output::Archive { docker, destination: destination(pairs)?, form }])
    }
}

/// The type of an output, all whose attributes fit it.
fn check_keys(pairs: &Pairs) -> Result<&str, Failure> {
    let is_known = |key: &str| OUTPUT_KEYS.contains(&key) || key.starts_with("annotation");
    if let Some(key) = pairs.keys().find(|key| !is_known(key)) {
        return Err(Failure::usage(format!("`--output` has no `{key}`"))
            .with_help(format!("it has {}", OUTPUT_KEYS.join(", "))));
    }
    let Some(kind) = pairs.get("type") else {
        return Err(Failure::usage("`--output` needs a `type`"));
    };
    if !TYPES.contains(&kind) {
        return Err(Failure::usage(format!("there is no output type `{kind}`"))
            .with_help(format!("there are {}", TYPES.join(", "))));
    }
    for key in pairs.keys() {
        let types = OF_TYPES.iter().find(|(known, _)| *known == key).map(|(_, types)| *types);
        if let Some(types) = types.filter(|types| !types.contains(&kind)) {
            return Err(Failure::usage(format!(
                "`{key}` means nothing for an output of type `{kind}`, only for {}",
                types.join(", ")
            )));
        }
    }
    Ok(kind)
}

fn flag(pairs: &Pairs, key: &str) -> Result<Option<bool>, Failure> {
    pairs.flag(key).map_err(Failure::usage)
}

/// How the store keeps the image. It is packed only where somebody says how, or needs its digest.
fn store_options(pairs: &Pairs, form: &ImageForm) -> Result<StoreOptions, Failure> {
    let prefix = pairs.get("dangling-name-prefix").or_else(|| pairs.get("danging-name-prefix"));
    // BuildKit lacks a letter there.
    let only = match flag(pairs, "dangling-name-empty-only")? {
        None => flag(pairs, "danging-name-empty-only")?,
        given => given,
    };
    let canonical = flag(pairs, "name-canonical")? == Some(true);
    let is_packed = *form != ImageForm::default()
        || ["compression", "compression-level"].iter().any(|key| pairs.get(key).is_some())
        || canonical
        || prefix.is_some();
    Ok(StoreOptions {
        form: is_packed.then(|| form.clone()),
        unpack: flag(pairs, "unpack")? == Some(true),
        canonical,
        dangling_prefix: prefix.map(str::to_owned),
        dangling_only: only == Some(true),
    })
}

/// How an image is packed. What cannot be together is refused: docker's media types have neither
/// annotations nor zstd.
fn image_form(pairs: &Pairs, asked: &Asked<'_>) -> Result<ImageForm, Failure> {
    let own = annotations::of_output(pairs)?;
    annotations::check(&own, asked.platforms)?;
    let annotations = [asked.annotations, &own].concat();
    let oci = flag(pairs, "oci-mediatypes")?;
    let (kind, docker_types) = (pairs.get("type"), oci == Some(false));
    if kind == Some("docker") && oci == Some(true) || kind == Some("oci") && docker_types {
        return Err(Failure::usage("`type` and `oci-mediatypes` contradict each other"));
    }
    let has_docker_types = docker_types || kind == Some("docker");
    if has_docker_types && !annotations.is_empty() {
        return Err(no_annotations());
    }
    let compression = compression(pairs)?;
    if has_docker_types && matches!(compression, Compression::Zstd { .. }) {
        return Err(Failure::usage("docker's media types have none for zstd")
            .with_help("choose `type=oci`, or compress with gzip"));
    }
    let force_compression = flag(pairs, "force-compression")? == Some(true);
    Ok(ImageForm { compression, force_compression, docker_types, annotations })
}

/// A file, or standard output where nobody looks at it.
fn destination(pairs: &Pairs) -> Result<Destination, Failure> {
    match pairs.get("dest") {
        Some(file) if file != "-" => Ok(Destination::File(file.into())),
        _ if std::io::stdout().is_terminal() => {
            Err(Failure::usage("an archive is not written to a terminal")
                .with_help("name a file: `dest=image.tar`"))
        }
        _ => Ok(Destination::Stdout),
    }
}

pub(super) fn compression(pairs: &Pairs) -> Result<Compression, Failure> {
    let level = pairs.get("compression-level").map(str::parse::<i32>).transpose();
    let level = level.map_err(|_| Failure::usage("`compression-level` is not a number"))?;
    match (pairs.get("compression"), level) {
        (None | Some("gzip"), None) => Ok(Compression::default()),
        (None | Some("gzip"), Some(level @ 0..=9)) => {
            Ok(Compression::Gzip { level: level.unsigned_abs() })
        }
        // For libzstd, too, 0 means its usual level.
        (Some("zstd"), None | Some(0)) => Ok(Compression::ZSTD),
        (Some("zstd"), Some(level @ 1..=22)) => Ok(Compression::Zstd { level }),
        (Some("uncompressed"), None) => Ok(Compression::None),
        (Some("gzip" | "zstd" | "uncompressed") | None, Some(level)) => {
            Err(Failure::usage(format!("there is no compression level {level} here")))
        }
        (Some(lazy @ ("estargz" | "nydus" | "overlaybd" | "zstd:chunked")), _) => {
            Err(Failure::usage(format!(
                "`compression={lazy}` is for nodes that fetch files of an image one by one, which \
                 formwork does not write"
            ))
            .with_help("there are gzip, zstd and uncompressed, which every node reads"))
        }
        (Some(other), _) => Err(Failure::usage(format!("there is no compression `{other}`"))
            .with_help("there are gzip, zstd and uncompressed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Output>, Failure> {
        for_platforms(text, &["linux/amd64".parse().unwrap()])
    }

    fn for_platforms(text: &str, platforms: &[Platform]) -> Result<Vec<Output>, Failure> {
        let asked = Asked { annotations: &[], platforms, epoch: Some(7), may_delete: false };
        asked.output(&text.parse().unwrap())
    }

    fn files(directory: &str, split: Option<bool>) -> Output {
        Output::Files { directory: directory.into(), split, delete: false }
    }

    #[test]
    fn outputs_are_those_of_buildx() {
        let file = |path: &str| Destination::File(path.into());
        let gzip = ImageForm::default();
        assert_eq!(parse("out").unwrap(), [files("out", None)]);
        assert_eq!(parse("type=local,dest=out").unwrap(), [files("out", None)]);
        assert_eq!(
            parse("type=local,dest=out,platform-split=false").unwrap(),
            [files("out", Some(false))]
        );
        let tar = Output::Tar { destination: file("a.tar"), split: None };
        assert_eq!(parse("type=tar,dest=a.tar").unwrap(), [tar]);
        assert_eq!(
            parse("type=oci,dest=a.tar,compression=zstd").unwrap(),
            [Output::Archive {
                docker: false,
                destination: file("a.tar"),
                form: ImageForm { compression: Compression::ZSTD, ..ImageForm::default() }
            }]
        );
        assert_eq!(
            parse("type=docker,dest=dir,tar=false").unwrap(),
            [Output::Layout { docker: true, directory: "dir".into(), form: gzip.clone() }]
        );
        let stored = Output::Store(StoreOptions::default());
        let push = Output::Push { form: gzip.clone(), by_digest: false, insecure: false };
        let both = [stored, push];
        assert_eq!(parse("type=image").unwrap(), both[..1]);
        assert_eq!(parse("type=image,push=true").unwrap(), both);
        assert_eq!(parse("type=image,push=true,store=false").unwrap(), both[1..]);
        assert_eq!(parse("type=registry,store=true").unwrap(), both);
        assert_eq!(parse("type=cacheonly").unwrap(), []);
        assert!(parse("type=oci,dest=x,source-date-epoch=7").is_ok());

        for wrong in [
            "type=local",
            "type=zip",
            "dest=x",
            "type=oci,dest=x,speed=9",
            "type=oci,dest=x,compression=lzma",
            "type=docker,dest=x,compression=zstd",
            "type=image,push=true,oci-mediatypes=false,compression=zstd",
            "type=docker,dest=x,annotation.a=b",
            "type=oci,dest=x,oci-mediatypes=false",
            "type=oci,dest=x,annotation-index.a=b",
            "type=oci,dest=x,annotation-manifest-descriptor[linux/arm64].a=b",
            "type=oci,dest=x,annotation=b",
            "type=image,store=false",
            "type=registry,push=false",
            "type=oci,dest=x,compression=estargz",
            "type=oci,dest=x,push=true",
            "type=local,dest=x,compression=zstd",
            "type=local,dest=x,mode=delete",
            "type=local,dest=x,mode=move",
            "type=oci,dest=x,source-date-epoch=8",
            "type=oci,dest=x,rewrite-timestamp=false",
            "type=oci,dest=x,prefer-nondist-layers=false",
            "type=image,attestation-inline=true",
            "type=oci,dest=x,compression=gzip,compression-level=99",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn attributes_say_how_an_image_is_packed() {
        let text = "type=registry,push-by-digest=true,annotation.a.b=c";
        let annotation = Annotation {
            place: formwork_build::AnnotationPlace::Manifest,
            platform: None,
            name: "a.b".to_owned(),
            value: "c".to_owned(),
        };
        let form = ImageForm { annotations: vec![annotation], ..ImageForm::default() };
        let (by_digest, insecure) = (true, false);
        assert_eq!(parse(text).unwrap(), [Output::Push { form, by_digest, insecure }]);
        let form = ImageForm { docker_types: true, ..ImageForm::default() };
        assert_eq!(
            parse("type=registry,oci-mediatypes=false,registry.insecure=true").unwrap(),
            [Output::Push { form, by_digest: false, insecure: true }]
        );
        let text = "type=image,unpack=true,name-canonical=true,dangling-name-prefix=a,\
                    danging-name-empty-only=true";
        let options = StoreOptions {
            form: Some(ImageForm::default()),
            unpack: true,
            canonical: true,
            dangling_prefix: Some("a".to_owned()),
            dangling_only: true,
        };
        assert_eq!(parse(text).unwrap(), [Output::Store(options)]);
    }

    #[test]
    fn a_place_has_room_for_one_output() {
        let check = |texts: [&str; 2]| {
            let outputs: Vec<Output> = texts.iter().flat_map(|one| parse(one).unwrap()).collect();
            check_destinations(&outputs)
        };
        assert!(check(["type=oci,dest=a", "type=docker,dest=a"]).is_err());
        assert!(check(["-", "type=oci,dest=-"]).is_err());
        assert!(check(["type=oci,dest=a", "type=docker,dest=b"]).is_ok());
    }

    #[test]
    fn docker_archives_are_for_one_platform() {
        let two = ["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()];
        assert!(for_platforms("type=docker,dest=x", &two).is_err());
        assert!(for_platforms("type=oci,dest=x,annotation-index.a=b", &two).is_ok());
    }

    #[test]
    fn outputs_have_names_of_their_own() {
        let names = |text: &str| own_names(&text.parse().unwrap()).unwrap();
        let both = names("type=image,\"name=a:1,b:2\"");
        assert_eq!(both.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert!(names("type=image").is_empty());
    }
}
