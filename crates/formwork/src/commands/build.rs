//! `formwork build`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use formwork_build::{
    BuildOutcome, BuildRequest, Compression, Destination, Host, HostTrust, ImageForm, Options,
    Output, Recorder, Secrets, build,
};
use formwork_diagnostics::SourceFile;
use formwork_oci::{Platform, Reference};

use crate::args::{BuildArgs, Method, Pairs};
use crate::commands::{self, call, work};
use crate::exit::Failure;
use crate::inputs::Inputs;
use crate::progress::Mode;
use crate::settings::{Settings, host_trust, limits, ssh_agent, variable};

/// Builds an image.
pub(crate) fn run(args: &BuildArgs, settings: &Settings) -> Result<(), Failure> {
    let mut inputs = Inputs::of(args)?;
    let pending = std::mem::take(&mut inputs.pending);
    let mut request = request(args, settings, inputs)?;
    if pending.needs_ssh() {
        request.git.agent = ssh_agent();
    }
    request.git.agent = request.agents.get("default").cloned().or(request.git.agent);
    let outputs = request.outputs.clone();
    let host = commands::open(settings)?;
    if args.method() != Method::Build {
        return call::run(args, &host, request, pending);
    }
    let recorder = Recorder::default();
    let recording = recorder.clone();
    let result = work::shown(&host, args.progress_mode(), move |host, events, cancel| {
        let _held = pending.complete(host, &mut request, cancel)?;
        build(host, &request, &recording.before(events), cancel).map_err(Failure::from)
    });
    explain(args, &host, &recorder);
    report(args, &outputs, &result?)
}

/// Keeps what the steps did and why, for `formwork explain`, and tells it if that is asked for.
fn explain(args: &BuildArgs, host: &Host, recorder: &Recorder) {
    let title = format!("formwork build {}", args.context.display());
    let explanation = recorder.explanation(title, jiff::Timestamp::now().as_second());
    // Without it nothing but `formwork explain` is worse off.
    let _ = explanation.save(host);
    // Programs have the reasons among the events.
    if args.explain && args.progress_mode() != Mode::Json {
        let _ = write!(anstream::stderr(), "\n{}", commands::explain::told(&explanation));
    }
}

/// Writes down what was built, where the user asks for it.
fn report(args: &BuildArgs, outputs: &[Output], outcome: &BuildOutcome) -> Result<(), Failure> {
    let id = outcome.id.as_str();
    if let Some(file) = &args.iidfile {
        fs_err::write(file, id).map_err(Failure::machine)?;
    }
    if let Some(file) = &args.metadata_file {
        let text = metadata(outcome);
        fs_err::write(file, text).map_err(Failure::machine)?;
    }
    let stdout_is_taken = outputs.iter().any(|output| {
        matches!(
            output,
            Output::Tar(Destination::Stdout)
                | Output::Archive { destination: Destination::Stdout, .. }
        )
    });
    if stdout_is_taken { Ok(()) } else { commands::print(&format!("{id}\n")) }
}

/// The digests and names of the result, under the keys that buildx uses.
fn metadata(outcome: &BuildOutcome) -> String {
    let mut object = serde_json::Map::new();
    object.insert("containerimage.config.digest".into(), outcome.id.as_str().into());
    if let Some(manifest) = &outcome.manifest {
        let descriptor = serde_json::to_value(manifest).unwrap_or_default();
        object.insert("containerimage.descriptor".into(), descriptor);
        object.insert("containerimage.digest".into(), manifest.digest.as_str().into());
    }
    if !outcome.names.is_empty() {
        let names: Vec<String> = outcome.names.iter().map(Reference::to_string).collect();
        object.insert("image.name".into(), names.join(",").into());
    }
    let mut text = serde_json::to_string_pretty(&object).unwrap_or_default();
    text.push('\n');
    text
}

/// What is asked for, as far as it is known before contexts from elsewhere are there.
fn request(args: &BuildArgs, settings: &Settings, inputs: Inputs) -> Result<BuildRequest, Failure> {
    let build_args = build_args(&args.build_arg);
    let epoch = epoch(&build_args)?;
    let mut tags = args.tag.iter().map(|tag| reference(tag)).collect::<Result<Vec<_>, _>>()?;
    let outputs = outputs(args, &mut tags)?;
    let mut trust = if args.no_host_trust { HostTrust::default() } else { host_trust() };
    trust.proxies.extend(proxy_args(&build_args));
    Ok(BuildRequest {
        dockerfile: inputs.dockerfile.unwrap_or_else(|| SourceFile::new("Dockerfile", "")),
        options: Options {
            target: args.target.clone().filter(|target| !target.is_empty()),
            build_args,
            labels: pairs(&args.label, "--label")?,
            contexts: inputs.named,
            target_platform: platform(args.platform.as_deref())?,
            build_platform: Platform::host(),
            no_cache: args.no_cache,
            no_cache_stages: args.no_cache_filter.iter().cloned().collect(),
            all_stages: false,
        },
        contexts: inputs.contexts,
        pull: args.pull.into(),
        jobs: args.jobs.map_or(settings.processors, usize::from),
        secrets: secrets(&args.secret)?,
        agents: agents(&args.ssh)?,
        git: settings.git(),
        trust,
        tags,
        outputs,
        limits: limits(&args.space)?,
        epoch,
    })
}

/// Values of `ARG`s: given, or taken from the environment.
fn build_args(texts: &[String]) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    if let Some(epoch) = variable("SOURCE_DATE_EPOCH") {
        args.insert("SOURCE_DATE_EPOCH".to_owned(), epoch);
    }
    for text in texts {
        match text.split_once('=') {
            Some((name, value)) => drop(args.insert(name.to_owned(), value.to_owned())),
            None => {
                if let Ok(value) = std::env::var(text) {
                    args.insert(text.clone(), value);
                }
            }
        }
    }
    args
}

/// Proxies that are given as build arguments reach RUN without an `ARG`, and no cache key.
fn proxy_args(build_args: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let is_proxy = |name: &str| {
        let upper = name.to_ascii_uppercase();
        let names = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
        names.contains(&upper.as_str())
    };
    let given = build_args.iter().filter(|(name, _)| is_proxy(name));
    given.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn epoch(build_args: &BTreeMap<String, String>) -> Result<Option<i64>, Failure> {
    let Some(text) = build_args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = || {
        Failure::usage(format!("SOURCE_DATE_EPOCH is `{text}`, not a number of seconds"))
            .with_help("for example `SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)`")
    };
    text.parse().map(Some).map_err(|_| wrong())
}

fn pairs(texts: &[String], option: &str) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(Failure::usage(format!("`{option} {text}` is not NAME=VALUE"))),
    };
    texts.iter().map(pair).collect()
}

fn reference(text: &str) -> Result<Reference, Failure> {
    text.parse().map_err(|error| Failure::usage(format!("`--tag {text}`: {error}")))
}

fn platform(text: Option<&str>) -> Result<Platform, Failure> {
    if text.is_some_and(|text| text.contains(',')) {
        return Err(Failure::usage("several platforms in one build are not supported yet")
            .with_help("build one platform at a time"));
    }
    commands::platform(text)
}

/// `id=ID[,src=FILE|,env=VARIABLE]`; without either, a variable of that name, else a file.
fn secrets(given: &[Pairs]) -> Result<Secrets, Failure> {
    let mut secrets = Secrets::default();
    for pairs in given {
        if let Some(key) = pairs.unknown(&["id", "src", "source", "env", "type"]) {
            return Err(Failure::usage(format!("`--secret` has no `{key}`")));
        }
        let id = pairs.get("id").filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| Failure::usage("`--secret` needs an `id`"))?;
        let file = pairs.get("src").or_else(|| pairs.get("source"));
        let value = match (file, pairs.get("env")) {
            (Some(file), _) if pairs.get("type") != Some("env") => secret_file(id, file)?,
            (file, name) => match (name.or(file), variable(id)) {
                (Some(name), _) => variable(name).map(String::into_bytes).ok_or_else(|| {
                    Failure::input(format!("the variable `{name}` of the secret `{id}` is not set"))
                })?,
                (None, Some(value)) => value.into_bytes(),
                (None, None) => secret_file(id, id)?,
            },
        };
        secrets.insert(id, value);
    }
    Ok(secrets)
}

/// `ID[=SOCKET]`; without a socket, that of the user's own agent.
fn agents(given: &[String]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let agent = |text: &String| {
        let (id, socket) = match text.split_once('=') {
            Some((id, socket)) => (id, Some(PathBuf::from(socket))),
            None => (text.as_str(), ssh_agent()),
        };
        let socket = socket.ok_or_else(|| {
            Failure::input(format!(
                "`--ssh {text}`: there is no SSH agent: SSH_AUTH_SOCK is not set"
            ))
            .with_help("start one with `eval $(ssh-agent)`, and add keys with `ssh-add`")
        })?;
        let path = std::path::absolute(socket).map_err(Failure::machine)?;
        let kind = fs_err::metadata(&path)
            .map_err(|error| Failure::input(format!("`--ssh {text}`: {error}")))?
            .file_type();
        match kind.is_socket() {
            true => Ok((id.to_owned(), path)),
            false => {
                let path = path.display();
                Err(Failure::input(format!("`--ssh {text}`: `{path}` is no socket of an agent"))
                    .with_help(format!("formwork forwards agents only: add a key to yours with `ssh-add {path}`, and give `--ssh {id}`")))
            }
        }
    };
    given.iter().map(agent).collect()
}

fn secret_file(id: &str, path: &str) -> Result<Vec<u8>, Failure> {
    fs_err::read(path).map_err(|error| Failure::input(format!("the secret `{id}`: {error}")))
}

/// Where the result goes; into the store if nothing is said.
fn outputs(args: &BuildArgs, tags: &mut Vec<Reference>) -> Result<Vec<Output>, Failure> {
    let annotations = annotations(&args.annotation)?;
    let mut outputs = Vec::new();
    for pairs in &args.output {
        outputs.extend(output(pairs, &annotations, tags)?);
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

/// `[manifest:]NAME=VALUE`.
fn annotations(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let bare = |text: &String| match text.split_once(':') {
        Some(("manifest", bare)) => Ok(bare.to_owned()),
        Some((place, _)) if is_elsewhere(place) => Err(no_index(&format!("--annotation {text}"))),
        _ => Ok(text.clone()),
    };
    let bare = texts.iter().map(bare).collect::<Result<Vec<_>, _>>()?;
    pairs(&bare, "--annotation")
}

/// Whether annotations of this kind belong to an index or to its entries.
fn is_elsewhere(place: &str) -> bool {
    let place = place.split('[').next().unwrap_or_default();
    ["index", "index-descriptor", "manifest-descriptor"].contains(&place)
}

fn no_index(given: &str) -> Failure {
    Failure::usage(format!("`{given}`: an image for one platform has no index"))
        .with_help("annotate its manifest")
}

/// An image that is only stored is not packed, and so has no manifest yet.
fn nothing_to_annotate() -> Failure {
    Failure::usage("only an image that leaves the store has a manifest that could be annotated")
        .with_help("push it, or write it with `--output type=oci,dest=…`")
}

/// What an output of any type may say.
const OUTPUT_KEYS: [&str; 11] = [
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
    "annotation.NAME",
];

fn output(
    pairs: &Pairs,
    annotations: &BTreeMap<String, String>,
    tags: &mut Vec<Reference>,
) -> Result<Vec<Output>, Failure> {
    if let Some(short) = pairs.single() {
        return Ok(vec![match short {
            "-" => Output::Tar(Destination::Stdout),
            directory => Output::Files(directory.into()),
        }]);
    }
    let is_known = |key: &str| OUTPUT_KEYS.contains(&key) || key.starts_with("annotation");
    if let Some(key) = pairs.keys().find(|key| !is_known(key)) {
        return Err(Failure::usage(format!("`--output` has no `{key}`"))
            .with_help(format!("it has {}", OUTPUT_KEYS.join(", "))));
    }
    for name in pairs.get("name").unwrap_or_default().split(',').filter(|name| !name.is_empty()) {
        tags.push(reference(name)?);
    }
    let flag = |key| pairs.flag(key).map_err(Failure::usage);
    if flag("rewrite-timestamp")? == Some(false) && variable("SOURCE_DATE_EPOCH").is_some() {
        return Err(Failure::usage("times of files always obey SOURCE_DATE_EPOCH"));
    }
    let form = image_form(pairs, annotations)?;
    let by_digest = flag("push-by-digest")? == Some(true);
    match pairs.get("type") {
        Some("image") if by_digest || flag("push")? == Some(true) => {
            Ok(vec![Output::Store, Output::Push { form, by_digest }])
        }
        Some("image") if !form.annotations.is_empty() => Err(nothing_to_annotate()),
        Some("image") => Ok(vec![Output::Store]),
        Some("registry") => Ok(vec![Output::Push { form, by_digest }]),
        Some("local") => match pairs.get("dest") {
            Some(directory) => Ok(vec![Output::Files(directory.into())]),
            None => Err(Failure::usage("`--output type=local` needs a `dest`")),
        },
        Some("tar") => Ok(vec![Output::Tar(destination(pairs)?)]),
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
fn image_form(pairs: &Pairs, annotations: &BTreeMap<String, String>) -> Result<ImageForm, Failure> {
    let mut annotations = annotations.clone();
    for key in pairs.keys().filter(|key| key.starts_with("annotation")) {
        let (place, name) = key.split_once('.').unwrap_or((key, ""));
        let place = place.strip_prefix("annotation-").unwrap_or_default();
        if is_elsewhere(place) {
            return Err(no_index(key));
        }
        if name.is_empty() || !(place.is_empty() || place == "manifest") {
            return Err(Failure::usage(format!("`--output` has no `{key}`"))
                .with_help("an annotation is written `annotation.NAME=VALUE`"));
        }
        annotations.insert(name.to_owned(), pairs.get(key).unwrap_or_default().to_owned());
    }
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
        output(&text.parse().unwrap(), &BTreeMap::new(), &mut Vec::new())
    }

    #[test]
    fn outputs_are_those_of_buildx() {
        let file = |path: &str| Destination::File(path.into());
        let gzip = ImageForm::default();
        assert_eq!(parse("out").unwrap(), [Output::Files("out".into())]);
        assert_eq!(parse("type=local,dest=out").unwrap(), [Output::Files("out".into())]);
        assert_eq!(parse("type=tar,dest=a.tar").unwrap(), [Output::Tar(file("a.tar"))]);
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
            "type=oci,dest=x,annotation-manifest-descriptor[linux/amd64].a=b",
            "type=oci,dest=x,annotation=b",
            "type=image,annotation.a=b",
            "type=oci,dest=x,compression=gzip,compression-level=99",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn attributes_say_how_an_image_is_packed() {
        let annotated = |names: &[(&str, &str)]| ImageForm {
            annotations: names.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
            ..ImageForm::default()
        };
        let text = "type=registry,push-by-digest=true,annotation.a.b=c,annotation-manifest.d=e";
        let form = annotated(&[("a.b", "c"), ("d", "e")]);
        assert_eq!(parse(text).unwrap(), [Output::Push { form, by_digest: true }]);
        let form = ImageForm { docker_types: true, ..ImageForm::default() };
        assert_eq!(
            parse("type=registry,oci-mediatypes=false").unwrap(),
            [Output::Push { form, by_digest: false }]
        );
        let given = ["a=b", "manifest:c=d:e"].map(str::to_owned);
        assert_eq!(
            annotations(&given).unwrap(),
            annotated(&[("a", "b"), ("c", "d:e")]).annotations
        );
        assert!(annotations(&["index:a=b".to_owned()]).is_err());
        assert!(annotations(&["a".to_owned()]).is_err());
    }

    #[test]
    fn names_of_outputs_are_tags() {
        let mut tags = Vec::new();
        let pairs = "type=image,\"name=a:1,b:2\"".parse().unwrap();
        output(&pairs, &BTreeMap::new(), &mut tags).unwrap();
        assert_eq!(tags.iter().map(Reference::familiar).collect::<Vec<_>>(), ["a:1", "b:2"]);
    }

    #[test]
    fn an_epoch_is_a_number() {
        let with = |text: &str| BTreeMap::from([("SOURCE_DATE_EPOCH".to_owned(), text.to_owned())]);
        assert_eq!(epoch(&with("17")).unwrap(), Some(17));
        assert_eq!(epoch(&with("")).unwrap(), None);
        assert!(epoch(&with("today")).is_err());
    }
}
