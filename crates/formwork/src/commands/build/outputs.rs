//! `--output`, `--push` and `--annotation`: where a result goes and in which form. It only reads
//! what was said; `formwork_build` writes.

use std::io::IsTerminal;

use formwork_build::{Annotation, Compression, Destination, ImageForm, Output};
use formwork_oci::{Platform, Reference};

use super::{annotations, reference};
use crate::args::{BuildArgs, Pairs};
use crate::exit::Failure;
use crate::settings::variable;

/// Where the result goes; into the store if nothing is said.
pub(super) fn outputs(
    args: &BuildArgs,
    platforms: &[Platform],
    tags: &mut Vec<Reference>,
) -> Result<Vec<Output>, Failure> {
    let annotations = annotations::of_options(&args.annotation)?;
    annotations::check(&annotations, platforms)?;
    let mut outputs = Vec::new();
    let mut asked = Asked { annotations: &annotations, platforms, tags };
    for pairs in &args.output {
        outputs.extend(asked.output(pairs)?);
    }
    if args.push {
        let form = ImageForm { annotations, ..ImageForm::default() };
        outputs.push(Output::Push { form, by_digest: false });
    }
    if outputs.is_empty() {
        if !args.annotation.is_empty() {
            return Err(nothing_to_annotate());
        }
        outputs.push(Output::Store);
    }
    let pushes = outputs.iter().any(|output| matches!(output, Output::Push { .. }));
    if pushes && tags.is_empty() {
        return Err(Failure::usage("an image that is pushed needs a name")
            .with_help("name it with `--tag REGISTRY/NAME`"));
    }
    Ok(outputs)
}

/// An image that is only stored is not packed, and so has no manifest yet.
fn nothing_to_annotate() -> Failure {
    Failure::usage("only an image that leaves the store has a manifest that could be annotated")
        .with_help("push it, or write it with `--output type=oci,dest=…`")
}

/// What an output of any type may say.
const OUTPUT_KEYS: [&str; 12] = [
    "type",
    "dest",
    "name",
    "push",
    "push-by-digest",
    "tar",
    "compression",
    "compression-level",
    "oci-mediatypes",
    "rewrite-timestamp",
    "platform-split",
    "annotation.NAME",
];

/// What all outputs of a build have in common.
struct Asked<'a> {
    annotations: &'a [Annotation],
    platforms: &'a [Platform],
    /// Outputs may add names.
    tags: &'a mut Vec<Reference>,
}

impl Asked<'_> {
    fn output(&mut self, pairs: &Pairs) -> Result<Vec<Output>, Failure> {
        output(pairs, self)
    }
}

fn output(pairs: &Pairs, asked: &mut Asked<'_>) -> Result<Vec<Output>, Failure> {
    if let Some(short) = pairs.single() {
        return Ok(vec![match short {
            "-" => Output::Tar { destination: Destination::Stdout, split: None },
            directory => Output::Files { directory: directory.into(), split: None },
        }]);
    }
    let is_known = |key: &str| OUTPUT_KEYS.contains(&key) || key.starts_with("annotation");
    if let Some(key) = pairs.keys().find(|key| !is_known(key)) {
        return Err(Failure::usage(format!("`--output` has no `{key}`"))
            .with_help(format!("it has {}", OUTPUT_KEYS.join(", "))));
    }
    for name in pairs.get("name").unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
        asked.tags.push(reference(name)?);
    }
    let flag = |key| pairs.flag(key).map_err(Failure::usage);
    if flag("rewrite-timestamp")? == Some(false) && variable("SOURCE_DATE_EPOCH").is_some() {
        return Err(Failure::usage("times of files always obey SOURCE_DATE_EPOCH"));
    }
    let form = image_form(pairs, asked)?;
    let by_digest = flag("push-by-digest")? == Some(true);
    let split = flag("platform-split")?;
    match pairs.get("type") {
        Some("image") if by_digest || flag("push")? == Some(true) => {
            Ok(vec![Output::Store, Output::Push { form, by_digest }])
        }
        Some("image") if !form.annotations.is_empty() => Err(nothing_to_annotate()),
        Some("image") => Ok(vec![Output::Store]),
        Some("registry") => Ok(vec![Output::Push { form, by_digest }]),
        Some("local") => match pairs.get("dest") {
            Some(directory) => Ok(vec![Output::Files { directory: directory.into(), split }]),
            None => Err(Failure::usage("`--output type=local` needs a `dest`")),
        },
        Some("tar") => Ok(vec![Output::Tar { destination: destination(pairs)?, split }]),
        Some("docker") if asked.platforms.len() > 1 => {
            Err(Failure::usage("docker's archives have room for one platform")
                .with_help("choose `type=oci`, or build one platform at a time"))
        }
        Some(kind @ ("oci" | "docker")) => {
            let docker = kind == "docker";
            if flag("tar")? == Some(false) {
                let directory = pairs.get("dest").ok_or_else(|| {
                    Failure::usage(format!("`--output type={kind},tar=false` needs a `dest`"))
                })?;
                return Ok(vec![Output::Layout { docker, directory: directory.into(), form }]);
            }
            Ok(vec![Output::Archive { docker, destination: destination(pairs)?, form }])
        }
        Some(other) => Err(Failure::usage(format!("there is no output type `{other}`"))
            .with_help("there are image, registry, oci, docker, local and tar")),
        None => Err(Failure::usage("`--output` needs a `type`")),
    }
}

/// How an image is packed. What cannot be together is refused: docker's media types have neither
/// annotations nor zstd.
fn image_form(pairs: &Pairs, asked: &Asked<'_>) -> Result<ImageForm, Failure> {
    let own = annotations::of_output(pairs)?;
    annotations::check(&own, asked.platforms)?;
    let annotations = [asked.annotations, &own].concat();
    let oci = pairs.flag("oci-mediatypes").map_err(Failure::usage)?;
    let (kind, docker_types) = (pairs.get("type"), oci == Some(false));
    if kind == Some("docker") && oci == Some(true) || kind == Some("oci") && docker_types {
        return Err(Failure::usage("`type` and `oci-mediatypes` contradict each other"));
    }
    let has_docker_types = docker_types || kind == Some("docker");
    if has_docker_types && !annotations.is_empty() {
        return Err(Failure::usage("images with docker's media types have no annotations")
            .with_help("choose `type=oci`, or leave `oci-mediatypes=false` out"));
    }
    let compression = compression(pairs)?;
    if has_docker_types && matches!(compression, Compression::Zstd { .. }) {
        return Err(Failure::usage("docker's media types have none for zstd")
            .with_help("choose `type=oci`, or compress with gzip"));
    }
    Ok(ImageForm { compression, docker_types, annotations })
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

fn compression(pairs: &Pairs) -> Result<Compression, Failure> {
    let level = pairs.get("compression-level").map(str::parse::<i32>).transpose();
    let level = level.map_err(|_| Failure::usage("`compression-level` is not a number"))?;
    match (pairs.get("compression"), level) {
        (None | Some("gzip"), None) => Ok(Compression::default()),
        (None | Some("gzip"), Some(level @ 0..=9)) => {
            Ok(Compression::Gzip { level: level.unsigned_abs() })
        }
        (Some("zstd"), None) => Ok(Compression::ZSTD),
        (Some("zstd"), Some(level @ 1..=22)) => Ok(Compression::Zstd { level }),
        (Some("uncompressed"), None) => Ok(Compression::None),
        (Some("gzip" | "zstd" | "uncompressed") | None, Some(level)) => {
            Err(Failure::usage(format!("there is no compression level {level} here")))
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
        let mut asked = Asked { annotations: &[], platforms, tags: &mut Vec::new() };
        asked.output(&text.parse().unwrap())
    }

    fn files(directory: &str, split: Option<bool>) -> Output {
        Output::Files { directory: directory.into(), split }
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
        assert_eq!(parse("type=image").unwrap(), [Output::Store]);
        assert_eq!(
            parse("type=image,push=true").unwrap(),
            [Output::Store, Output::Push { form: gzip.clone(), by_digest: false }]
        );
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
            "type=image,annotation.a=b",
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
        assert_eq!(parse(text).unwrap(), [Output::Push { form, by_digest: true }]);
        let form = ImageForm { docker_types: true, ..ImageForm::default() };
        assert_eq!(
            parse("type=registry,oci-mediatypes=false").unwrap(),
            [Output::Push { form, by_digest: false }]
        );
    }

    #[test]
    fn docker_archives_are_for_one_platform() {
        let two = ["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()];
        assert!(for_platforms("type=docker,dest=x", &two).is_err());
        assert!(for_platforms("type=oci,dest=x,annotation-index.a=b", &two).is_ok());
    }

    #[test]
    fn names_of_outputs_are_tags() {
        let mut tags = Vec::new();
        let pairs = "type=image,\"name=a:1,b:2\"".parse().unwrap();
        let platforms = ["linux/amd64".parse().unwrap()];
        let mut asked = Asked { annotations: &[], platforms: &platforms, tags: &mut tags };
        asked.output(&pairs).unwrap();
        assert_eq!(tags.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:1", "b:2"]);
    }
}
