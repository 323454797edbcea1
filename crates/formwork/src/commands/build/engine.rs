//! `--load`: the container engine of this machine.
//!
//! Where docker's own program would look: `DOCKER_HOST`, docker's contexts, the usual sockets; then
//! podman's, and podman's program.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use formwork_build::{Engine, EngineAddress, PodmanProcess, usual_sockets};
use formwork_oci::Digest;

use crate::exit::Failure;
use crate::settings::variable;

/// What says where the engine is.
#[derive(Debug, Default)]
pub(super) struct Hints {
    /// `DOCKER_HOST`.
    host: Option<String>,
    /// The context that is asked for, or the one that is in use.
    context: Option<String>,
    /// Docker's directory of configuration.
    docker: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    runtime: Option<PathBuf>,
    /// Where programs are looked for.
    path: Vec<PathBuf>,
}

/// The engine that is there; `context` is one of docker's contexts.
pub(super) fn find(context: Option<&str>) -> Result<Engine, Failure> {
    let home = variable("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let docker = variable("DOCKER_CONFIG").map(PathBuf::from).or(home);
    let host = variable("DOCKER_HOST").or_else(|| variable("CONTAINER_HOST"));
    let current = || docker.as_deref().and_then(current_context);
    let named = context.map(str::to_owned);
    Hints {
        context: named.or_else(|| variable("DOCKER_CONTEXT")).or_else(current),
        host: host.filter(|_| context.is_none()),
        docker,
        runtime: variable("XDG_RUNTIME_DIR").map(PathBuf::from),
        path: std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect(),
    }
    .engine()
}

impl Hints {
    fn engine(&self) -> Result<Engine, Failure> {
        if let Some(host) = &self.host {
            return address(host).map(Engine::Daemon);
        }
        if let Some(context) = self.context.as_deref().filter(|name| *name != "default") {
            return self.of_context(context).map(Engine::Daemon);
        }
        let sockets = usual_sockets(self.runtime.clone()).into_iter();
        let mut daemons = sockets.filter(|path| path.exists()).map(EngineAddress::Unix);
        if let Some(daemon) = daemons.find(Engine::answers) {
            return Ok(Engine::Daemon(daemon));
        }
        if self.path.iter().any(|directory| directory.join("podman").is_file()) {
            let podman = PodmanProcess::start().map_err(Failure::machine)?;
            return Ok(Engine::Podman(Arc::new(podman)));
        }
        Err(Failure::machine(
            "there is nobody to load the image: no docker daemon answers (DOCKER_HOST, docker's \
             contexts, /var/run/docker.sock), and there is no podman",
        )
        .with_help(
            "start docker or install podman, or write `--output type=docker,dest=image.tar`",
        ))
    }

    /// Where docker's own program finds the daemon of a context.
    fn of_context(&self, name: &str) -> Result<EngineAddress, Failure> {
        let missing = || {
            Failure::usage(format!("docker has no context `{name}`"))
                .with_help("`docker context ls` lists those that there are")
        };
        let directory = self.docker.as_ref().ok_or_else(missing)?;
        let id = Digest::of(name.as_bytes());
        let file = directory.join("contexts/meta").join(id.hex()).join("meta.json");
        let bytes = fs_err::read(file).map_err(|_| missing())?;
        let meta: serde_json::Value = serde_json::from_slice(&bytes).map_err(Failure::machine)?;
        let host = meta["Endpoints"]["docker"]["Host"].as_str().ok_or_else(missing)?;
        address(host)
    }
}

/// The context that docker's configuration says is in use.
fn current_context(docker: &Path) -> Option<String> {
    let bytes = fs_err::read(docker.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    config["currentContext"].as_str().filter(|name| !name.is_empty()).map(str::to_owned)
}

/// `unix://PATH` or `tcp://HOST:PORT`.
fn address(host: &str) -> Result<EngineAddress, Failure> {
    if let Some(path) = host.strip_prefix("unix://") {
        return Ok(EngineAddress::Unix(path.into()));
    }
    let is_plain = variable("DOCKER_TLS_VERIFY").is_none();
    match host.strip_prefix("tcp://") {
        Some(address) if is_plain && address.contains(':') => {
            Ok(EngineAddress::Tcp(address.to_owned()))
        }
        Some(_) if !is_plain => Err(Failure::usage(format!(
            "a daemon behind TLS (`{host}`, DOCKER_TLS_VERIFY) cannot be loaded into"
        ))
        .with_help("pipe the image to it: `formwork build -o type=docker,dest=- . | docker load`")),
        _ => Err(Failure::usage(format!("`{host}` is neither unix://PATH nor tcp://HOST:PORT"))
            .with_help(
                "pipe the image to it: `formwork build -o type=docker,dest=- . | docker load`",
            )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_docker() {
        let unix = EngineAddress::Unix("/run/d.sock".into());
        assert_eq!(address("unix:///run/d.sock").unwrap(), unix);
        let tcp = EngineAddress::Tcp("localhost:2375".to_owned());
        assert_eq!(address("tcp://localhost:2375").unwrap(), tcp);
        for wrong in ["ssh://host", "tcp://localhost", "fd://"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_context_says_where_its_daemon_is() {
        let docker = tempfile::tempdir().unwrap();
        let id = Digest::of(b"mine");
        let directory = docker.path().join("contexts/meta").join(id.hex());
        fs_err::create_dir_all(&directory).unwrap();
        let meta = r#"{"Name":"mine","Endpoints":{"docker":{"Host":"unix:///run/mine.sock"}}}"#;
        fs_err::write(directory.join("meta.json"), meta).unwrap();
        let config = r#"{"currentContext":"mine"}"#;
        fs_err::write(docker.path().join("config.json"), config).unwrap();
        let context = current_context(docker.path());
        let hints = Hints { context, docker: Some(docker.path().into()), ..Hints::default() };
        let daemon = Engine::Daemon(EngineAddress::Unix("/run/mine.sock".into()));
        assert_eq!(hints.engine().unwrap(), daemon);
        let unknown = Hints { context: Some("other".to_owned()), ..hints };
        assert!(unknown.engine().is_err());
    }
}
