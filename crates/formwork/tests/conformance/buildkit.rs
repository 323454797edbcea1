//! Cases in the hands of BuildKit.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::judge::{Outcome, call_lines};
use crate::peers::buildkit::BuildKit;
use crate::peers::compare::json;
use crate::scene::Scene;
use crate::support::Ran;

/// What BuildKit makes of a case; what it says if it fails.
pub(crate) fn outcome(buildkit: &BuildKit<'_>, scene: &Scene<'_>) -> Result<Outcome, String> {
    let case = scene.case;
    buildkit.write(&scene.dockerfile());
    let calls = case.expected.calls.iter();
    let calls = calls.map(|(method, _)| call(buildkit, scene, method)).collect();
    if case.is_only_looked_at() {
        return Ok(Outcome { calls, ..Outcome::default() });
    }
    let build = |arguments: &[String]| {
        let all = arguments_of(scene, arguments);
        buildkit.solve(&all.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let mut result = build(&case.arguments)?;
    let mut executed = Vec::new();
    for again in &case.again {
        scene.run(&again.change);
        result = build(&again.arguments)?;
        executed.push(steps(scene, &result.2));
    }
    let (tree, config, _) = result;
    Ok(Outcome { tree, config, executed, calls })
}

fn call(buildkit: &BuildKit<'_>, scene: &Scene<'_>, method: &str) -> Vec<String> {
    let request = match method {
        "check" => "lint",
        other => other,
    };
    let mut all = arguments_of(scene, &scene.case.arguments);
    all.extend(["--progress=quiet".to_owned(), format!("--opt=requestid=frontend.{request}")]);
    let ran: Ran = buildkit.ask(&all.iter().map(String::as_str).collect::<Vec<_>>());
    call_lines(method, &ran.stdout)
}

/// The steps that were carried out, sorted, from the events of a build.
fn steps(scene: &Scene<'_>, events: &str) -> Vec<String> {
    let (mut all, mut cached) = (BTreeSet::new(), BTreeSet::new());
    for line in events.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        for vertex in event["vertexes"].as_array().into_iter().flatten() {
            let name = vertex["name"].as_str().unwrap_or_default();
            let bare = name.split_once("] ").map_or("", |(_, bare)| bare);
            let instructions = ["RUN", "COPY", "ADD", "WORKDIR"];
            if instructions.iter().any(|word| bare.starts_with(word)) {
                all.insert(scene.without_addresses(bare));
                if vertex["cached"] == true {
                    cached.insert(scene.without_addresses(bare));
                }
            }
        }
    }
    all.difference(&cached).cloned().collect()
}

/// What means the same to `buildctl build` as a case's arguments to formwork.
fn arguments_of(scene: &Scene<'_>, arguments: &[String]) -> Vec<String> {
    let mut all = match scene.case.place.as_deref() {
        Some(".") => vec!["--local=context=.".to_owned(), "--local=dockerfile=.".to_owned()],
        None => vec!["--local=context=.".to_owned(), "--local=dockerfile=../file".to_owned()],
        Some(place) => vec![format!("--opt=context={}", scene.put_addresses(place))],
    };
    for (number, (name, ..)) in scene.case.given.images.iter().enumerate() {
        all.extend(layout(&format!("i{number}"), name, &format!("../images/{name}"), scene));
    }
    let arguments = scene.arguments(arguments);
    let mut rest = arguments.iter().map(String::as_str).enumerate();
    while let Some((number, argument)) = rest.next() {
        let (option, value) = match argument.split_once('=') {
            Some((option, value)) => (option, value),
            None => (argument, rest.next().map_or("", |(_, value)| value)),
        };
        match option {
            "--build-arg" => all.push(format!("--opt=build-arg:{value}")),
            "--label" => all.push(format!("--opt=label:{value}")),
            "--secret" | "--ssh" | "--allow" => all.extend([option.to_owned(), value.to_owned()]),
            "--build-context" => all.extend(context(number, value, scene)),
            "--no-cache-filter" => all.push(format!("--opt=no-cache={value}")),
            "--add-host" => all.push(format!("--opt=add-hosts={}", value.replacen(':', "=", 1))),
            "--network" => all.push(format!("--opt=force-network-mode={value}")),
            option => all.push(format!("--opt={}={value}", &option[2..])),
        }
    }
    all
}

/// `--build-context NAME=SOURCE`.
fn context(number: usize, value: &str, scene: &Scene<'_>) -> Vec<String> {
    let (name, source) = value.split_once('=').unwrap_or((value, ""));
    let id = format!("c{number}");
    if let Some(path) = source.strip_prefix("oci-layout://") {
        return layout(&id, name, path, scene);
    }
    if let Some(image) = source.strip_prefix("docker-image://") {
        let path = match image {
            "busybox" => "../base/images/busybox".to_owned(),
            image => format!("../images/{image}"),
        };
        return layout(&id, name, &path, scene);
    }
    if source.contains("://") {
        return vec![format!("--opt=context:{name}={source}")];
    }
    vec![format!("--local={id}={source}"), format!("--opt=context:{name}=local:{id}")]
}

fn layout(id: &str, name: &str, path: &str, scene: &Scene<'_>) -> Vec<String> {
    let index = json(scene.site.context(&format!("{path}/index.json")));
    let digest = index["manifests"][0]["digest"].as_str().unwrap_or_default();
    vec![
        format!("--oci-layout={id}={path}"),
        format!("--opt=context:{name}=oci-layout://{id}@{digest}"),
    ]
}
