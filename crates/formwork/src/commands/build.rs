//! `formwork build`.

pub(crate) mod annotations;
mod attest;
pub(crate) mod caches;
mod engine;
mod epoch;
mod outputs;
pub(crate) mod secrets;

use std::collections::BTreeMap;
use std::io::Write;

use formwork_build::{
    BuildOutcome, BuildRequest, Destination, Host, HostTrust, Network, Options, Output, Recorder,
    StepNetwork, build, forecast, settle_epoch,
};
use formwork_diagnostics::SourceFile;
use formwork_oci::{Platform, Reference};

use crate::args::{BuildArgs, Method};
use crate::commands::{self, call, work};
use crate::exit::Failure;
use crate::inputs::{Inputs, Pending};
use crate::progress::Mode;
use crate::settings::{
    Settings, host_trust, limits, ssh_agent, variable, with_given_proxies, world,
};

/// Builds an image.
pub(crate) fn run(args: &BuildArgs, settings: &Settings) -> Result<(), Failure> {
    let result = build_image(args, settings);
    match args.progress_mode() {
        Mode::Json => result.map_err(Failure::told_to_programs),
        _ => result,
    }
}

fn build_image(args: &BuildArgs, settings: &Settings) -> Result<(), Failure> {
    let mut inputs = Inputs::of(args)?;
    let pending = std::mem::take(&mut inputs.pending);
    let mut request = request(args, settings, inputs)?;
    if pending.needs_ssh() {
        request.git.agent = ssh_agent();
    }
    let agents = secrets::agents(&args.ssh)?;
    let outputs = request.outputs.clone();
    let host = commands::open(settings)?;
    settings.warn_of_copies();
    settings.warn_of_shared_memory(&args.world);
    let _agents = secrets::serve(agents, &host, &mut request.agents)?;
    request.git.agent = request.agents.get("default").cloned().or(request.git.agent);
    if args.method() != Method::Build {
        return call::run(args, &host, request, pending);
    }
    if args.dry_run {
        return dry_run(args, &host, request, pending);
    }
    let recorder = Recorder::default();
    let recording = recorder.clone();
    let result = work::shown(&host, args.progress_mode(), move |host, events, cancel| {
        let _held = pending.complete(host, &mut request, events, cancel)?;
        settle_epoch(host, &mut request, events, cancel)?;
        build(host, &request, &recording.before(events), cancel).map_err(Failure::from)
    });
    explain(args, &host, &recorder);
    report(args, &outputs, &result?)
}

/// Tells what a build would do.
fn dry_run(
    args: &BuildArgs,
    host: &Host,
    mut request: BuildRequest,
    pending: Pending,
) -> Result<(), Failure> {
    let forecast = work::shown(host, args.progress_mode(), move |host, events, cancel| {
        let _held = pending.complete(host, &mut request, events, cancel)?;
        settle_epoch(host, &mut request, events, cancel)?;
        forecast(host, &request, events, cancel).map_err(Failure::from)
    })?;
    let is_json = args.progress_mode() == Mode::Json;
    let wanted = args.foreseen.as_deref().unwrap_or_default();
    if !wanted.is_empty() && !forecast.steps.iter().any(|step| step.name.contains(wanted)) {
        return Err(Failure::input(format!("the build has no step with `{wanted}` in it")));
    }
    commands::print(&commands::explain::foretold(&forecast, wanted, is_json))
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
    // What names an image for several platforms as a whole is its index.
    let index = outcome.manifest.as_ref().filter(|_| outcome.is_index);
    let id = index.map_or(&outcome.id, |index| &index.digest).as_str();
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
            Output::Tar { destination: Destination::Stdout, .. }
                | Output::Archive { destination: Destination::Stdout, .. }
        )
    });
    if stdout_is_taken { Ok(()) } else { commands::print(&format!("{id}\n")) }
}

/// The digests and names of the result, under the keys that buildx uses.
fn metadata(outcome: &BuildOutcome) -> String {
    let mut object = serde_json::Map::new();
    if !outcome.is_index {
        object.insert("containerimage.config.digest".into(), outcome.id.as_str().into());
    }
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
    let mut build_args = build_args(&args.build_arg);
    if let Some(epoch) = &args.source_date_epoch {
        build_args.insert(epoch::NAME.to_owned(), epoch.clone());
    }
    let inline_cache = caches::is_inline(&args.cache_to, &build_args);
    let epoch = epoch::given(&build_args)?;
    let tags = args.tag.iter().map(|tag| reference(tag)).collect::<Result<Vec<_>, _>>()?;
    let platforms = commands::platforms(&args.platform)?;
    let (mut outputs, output_names) = outputs::outputs(args, &platforms, epoch, &tags)?;
    let provenance = attest::provenance(args, &mut outputs)?;
    let world = args.steps.add_to(world(&args.world)?);
    let mut trust = if args.no_host_trust { HostTrust::default() } else { host_trust() };
    with_given_proxies(&mut trust, &build_args);
    Ok(BuildRequest {
        dockerfile: inputs.dockerfile.unwrap_or_else(|| SourceFile::new("Dockerfile", "")),
        options: Options {
            target: args.target.clone().filter(|target| !target.is_empty()),
            build_args,
            labels: pairs(&args.label, "--label")?,
            contexts: inputs.named,
            target_platform: platforms.first().cloned().unwrap_or_else(Platform::host),
            build_platform: Platform::host(),
            several_platforms: false,
            no_cache: args.no_cache,
            no_cache_filter: args.no_cache_filter.iter().cloned().collect(),
            all_stages: false,
            allowed: args.steps.allowed(args.world.network),
            // What has no network shows in the image's identity; which one it has, does not.
            network: match world.network {
                StepNetwork::Host | StepNetwork::Private(_) => Network::Default,
                StepNetwork::None => Network::None,
            },
        },
        platforms: if platforms.len() > 1 { platforms } else { Vec::new() },
        contexts: inputs.contexts,
        materials: Vec::new(),
        dockerfile_from: None,
        pull: args.pull.into(),
        jobs: args.jobs.map_or(settings.processors, usize::from),
        secrets: secrets::secrets(&args.secret)?,
        agents: BTreeMap::new(),
        git: settings.git(),
        trust,
        world,
        tags,
        outputs,
        output_names,
        provenance,
        cache_from: caches::cache_from("--cache-from", &args.cache_from)?,
        cache_to: caches::cache_to("--cache-to", &args.cache_to)?,
        inline_cache,
        mounts_from: caches::cache_from("--cache-mounts-from", &args.cache_mounts_from)?,
        mounts_to: caches::cache_to("--cache-mounts-to", &args.cache_mounts_to)?,
        limits: limits(&args.space)?,
        epoch,
    })
}

/// Values of `ARG`s: given, or taken from the environment.
fn build_args(texts: &[String]) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    if let Some(epoch) = variable(epoch::NAME) {
        args.insert(epoch::NAME.to_owned(), epoch);
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
