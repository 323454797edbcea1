//! RUN.

use formwork_diagnostics::{Diagnostic, Span};
use formwork_dockerfile::instruction::{self, Run, Script};
use formwork_dockerfile::{FileOwner, Instruction, Mount, MountSpec as Written, Sharing, Word};
use formwork_graph::{
    CacheSharing, Exec, MountKind, MountSpec, Network, Op, Place, Places, Security, Source,
};

use super::files::absolute_in;
use super::stage::StageLowerer;
use crate::{MAIN_CONTEXT, config};

/// The host name that a RUN sees, as with BuildKit.
const HOSTNAME: &str = "buildkitsandbox";
/// The variable in which programs find the socket of an SSH agent.
const AGENT_VARIABLE: &str = "SSH_AUTH_SOCK";
/// Where heredocs that are programs are put.
const PIPES: &str = "/dev/pipes";

impl StageLowerer<'_, '_> {
    pub(super) fn run(&mut self, instruction: &Instruction, run: &Run) {
        let mut mounts = Vec::new();
        let mut places = Places { account: self.state.user, ..Places::default() };
        for mount in &run.mounts {
            let resolved = mount.resolve(&self.source, &|word| self.try_expand(word));
            match resolved {
                Ok(written) => {
                    places.names.extend(self.place_of_mount(mount, &written));
                    self.mount(mount, written, &mut mounts);
                }
                Err(diagnostic) => self.report(*diagnostic),
            }
        }
        if self.take_environment(instruction.keyword_span).is_none() {
            return;
        }
        self.check_flags(run);
        let args = self.command(run, &mut mounts);
        let created_by = self.run_history(&args);
        let exec = Exec {
            rootfs: self.state.root,
            args,
            env: self.environment(&mounts),
            cwd: self.absolute(""),
            user: self.state.config.config.user.clone(),
            hostname: self.hostname(),
            mounts,
            network: run.network.map_or(self.lowering.options.network, |network| {
                match network.value {
                    instruction::Network::Default => self.lowering.options.network,
                    instruction::Network::None => Network::None,
                    instruction::Network::Host => Network::Host,
                }
            }),
            security: run.security.map_or(Security::Sandbox, |security| match security.value {
                instruction::Security::Sandbox => Security::Sandbox,
                instruction::Security::Insecure => Security::Insecure,
            }),
            platform: self.state.platform.clone(),
        };
        self.push(instruction, Op::Exec(exec), places, created_by);
    }

    /// What a mount looks for, and where that is written.
    fn place_of_mount(&self, mount: &Mount, written: &Written) -> Option<(String, Place)> {
        let (name, word) = match written {
            Written::Bind { source, .. } => (absolute_in("/", source), &mount.source),
            Written::Cache { source, from: Some(_), .. } => {
                (absolute_in("/", source), &mount.source)
            }
            Written::Secret { id, .. } | Written::Ssh { id, .. } => (id.clone(), &mount.id),
            Written::Cache { .. } | Written::Tmpfs { .. } => return None,
        };
        let span = word.as_ref().map_or(mount.span, Word::span);
        Some((name, self.part(span)?))
    }

    fn check_flags(&mut self, run: &Run) {
        let allowed = self.lowering.options.allowed;
        let insecure = run.security.filter(|given| given.value == instruction::Security::Insecure);
        let host = run.network.filter(|given| given.value == instruction::Network::Host);
        let insecure = insecure.filter(|_| !allowed.insecure).map(|given| given.span);
        let host = host.filter(|_| !allowed.host_network).map(|given| given.span);
        for (flag, span, name) in [
            ("--security=insecure", insecure, "security.insecure"),
            ("--network=host", host, "network.host"),
        ] {
            if let Some(span) = span {
                let message = format!("`{flag}` is not allowed");
                let help = format!("if you trust the Dockerfile, give `--allow {name}`");
                self.error("not-allowed", message, span, &help);
            }
        }
        for device in &run.devices {
            if !device.required {
                self.no_effect(
                    "--device",
                    Some(device.name.span()),
                    "formwork provides no devices",
                );
                continue;
            }
            let message = format!("the device `{}` is not available", device.name.text());
            self.error("no-device", message, device.name.span(), "formwork provides no devices");
        }
    }

    /// The program and its arguments; a heredoc that is a program becomes a mounted file.
    fn command(&mut self, run: &Run, mounts: &mut Vec<MountSpec>) -> Vec<String> {
        let text = match run.script() {
            Script::Exec([]) => return self.with_shell(""),
            Script::Exec(words) => return words.iter().map(|w| w.text().to_owned()).collect(),
            Script::Shell(text) => text.into_owned(),
            Script::File { name, content } => {
                let target = format!("{PIPES}/{name}");
                let data = content.into_owned().into_bytes();
                let kind = MountKind::File { data, mode: 0o755 };
                mounts.push(MountSpec { target: target.clone(), kind });
                target
            }
        };
        self.with_shell(&text)
    }

    fn with_shell(&self, text: &str) -> Vec<String> {
        config::with_shell(&self.state.config, text)
    }

    /// All variables, with a search path where the image has none, and where programs find the
    /// first SSH agent.
    fn environment(&self, mounts: &[MountSpec]) -> Vec<(String, String)> {
        let mut env = self.state.scope.variables().to_vec();
        if self.state.scope.get("PATH").is_none() {
            env.push(("PATH".to_owned(), config::DEFAULT_PATH.to_owned()));
        }
        let mut agents = mounts.iter().filter(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
        if let (Some(agent), None) = (agents.next(), self.state.scope.get(AGENT_VARIABLE)) {
            env.push((AGENT_VARIABLE.to_owned(), agent.target.clone()));
        }
        env
    }

    fn hostname(&self) -> String {
        let given = self.lowering.options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME");
        given.cloned().unwrap_or_else(|| HOSTNAME.to_owned())
    }

    /// The command with the arguments that it saw in front, as docker's history has it.
    fn run_history(&self, args: &[String]) -> String {
        let shown = self.state.scope.shown_args();
        let mut parts = vec!["RUN".to_owned()];
        if !shown.is_empty() {
            parts.push(format!("|{}", shown.len()));
            parts.extend(shown);
        }
        parts.extend(args.iter().cloned());
        parts.join(" ")
    }

    /// What several steps do that want a cache mount at once. Those of package managers that lock
    /// their directory, and fail instead of waiting, wait here, unless something else is said.
    fn sharing(&mut self, written: Option<Sharing>, target: &str) -> CacheSharing {
        match written {
            None if is_locked_by_default(target) => {
                self.lowering.locked_by_default.push(target.to_owned());
                CacheSharing::Locked
            }
            None | Some(Sharing::Shared) => CacheSharing::Shared,
            Some(Sharing::Private) => CacheSharing::Private,
            Some(Sharing::Locked) => CacheSharing::Locked,
        }
    }

    /// The id of a cache mount in the store: in the namespace that `BUILDKIT_CACHE_MOUNT_NS` names,
    /// as in BuildKit, and for other platforms than the machine's apart, since what is cached is
    /// mostly compiled.
    fn cache_id(&self, id: &str) -> String {
        let options = self.lowering.options;
        let namespace = options.build_args.get("BUILDKIT_CACHE_MOUNT_NS").map(String::as_str);
        let namespace = namespace.filter(|namespace| !namespace.is_empty());
        let id = match namespace {
            Some(namespace) => format!("{namespace}/{}", id.trim_start_matches('/')),
            None => id.to_owned(),
        };
        let platform = &self.state.platform;
        match *platform == options.build_platform {
            true => id,
            false => format!("{id}@{platform}"),
        }
    }

    fn mount(&mut self, mount: &Mount, written: Written, mounts: &mut Vec<MountSpec>) {
        let span = mount.span;
        match written {
            Written::Bind { from: _, source, target, read_only } => {
                let Some(target) = self.target(&target, span) else { return };
                let Some(from) = self.mounted_from(mount) else { return };
                let source = absolute_in("/", &source);
                let kind = MountKind::Bind { from, source, writable: !read_only };
                mounts.push(MountSpec { target, kind });
            }
            Written::Cache { id, from, source, target, read_only, sharing, owner } => {
                let id = id.unwrap_or_else(|| clean(&target));
                let Some(target) = self.target(&target, span) else { return };
                let path = absolute_in("/", &source);
                let (from, subpath) = match from {
                    None => (None, path),
                    Some(_) => {
                        let Some(from) = self.mounted_from(mount) else { return };
                        (Some((from, path)), "/".to_owned())
                    }
                };
                let sharing = self.sharing(sharing, &target);
                let id = self.cache_id(&id);
                let (mode, uid, gid) = with_defaults(owner, 0o755);
                let kind =
                    MountKind::Cache { id, sharing, from, subpath, read_only, mode, uid, gid };
                mounts.push(MountSpec { target, kind });
            }
            Written::Tmpfs { target, size, read_only } => {
                let Some(target) = self.target(&target, span) else { return };
                if read_only {
                    // Nothing can ever be in it.
                    let from = self.lowering.source(Source::Scratch, "scratch", None);
                    let source = "/".to_owned();
                    let kind = MountKind::Bind { from, source, writable: false };
                    mounts.push(MountSpec { target, kind });
                    return;
                }
                let size = (size > 0).then_some(size);
                mounts.push(MountSpec { target, kind: MountKind::Tmpfs { size } });
            }
            Written::Secret { id, target, env, required, owner } => {
                self.secret(id, target, env, required, owner, mounts);
            }
            Written::Ssh { id, target, required, owner } => {
                self.ssh(id, target, required, owner, mounts, span);
            }
        }
    }

    fn secret(
        &self,
        id: String,
        target: Option<String>,
        env: Option<String>,
        required: bool,
        owner: FileOwner,
        mounts: &mut Vec<MountSpec>,
    ) {
        let default = || {
            let name = id.trim_end_matches('/').rsplit('/').next().unwrap_or(&id);
            env.is_none().then(|| format!("/run/secrets/{name}"))
        };
        if let Some(target) = target.or_else(default) {
            let (mode, uid, gid) = with_defaults(owner, 0o400);
            let kind = MountKind::Secret { id: id.clone(), required, mode, uid, gid };
            mounts.push(MountSpec { target: self.absolute(&target), kind });
        }
        if let Some(name) = env {
            mounts.push(MountSpec { target: name, kind: MountKind::SecretEnv { id, required } });
        }
    }

    /// The socket of an SSH agent, by default under the name that BuildKit gives it.
    fn ssh(
        &mut self,
        id: String,
        target: Option<String>,
        required: bool,
        owner: FileOwner,
        mounts: &mut Vec<MountSpec>,
        span: Span,
    ) {
        let is_ssh = |mount: &&MountSpec| matches!(mount.kind, MountKind::Ssh { .. });
        let number = mounts.iter().filter(is_ssh).count();
        let target = target.filter(|target| !target.is_empty());
        let target = target.unwrap_or_else(|| format!("/run/buildkit/ssh_agent.{number}"));
        let Some(target) = self.target(&target, span) else { return };
        let (mode, uid, gid) = with_defaults(owner, 0o600);
        mounts.push(MountSpec { target, kind: MountKind::Ssh { id, required, mode, uid, gid } });
    }

    fn mounted_from(&mut self, mount: &Mount) -> Option<formwork_graph::OpId> {
        match mount.from.as_ref().filter(|word| !word.is_empty()) {
            Some(word) => self.reference(word),
            None => Some(self.lowering.context(MAIN_CONTEXT)),
        }
    }

    /// The absolute path of a mount's target; `None` after reporting one that cannot be.
    fn target(&mut self, written: &str, span: Span) -> Option<String> {
        let target = clean(&self.absolute(written));
        if target == "/" {
            let missing = if written.is_empty() { ": the mount has no `target`" } else { "" };
            let message = format!("nothing can be mounted on `/`{missing}");
            let diagnostic = Diagnostic::error("bad-mount", message)
                .at(&self.source, span, "")
                .with_help("give a `target` other than the root");
            self.report(diagnostic);
            return None;
        }
        Some(target)
    }
}

/// Whether a directory is one in which apt, dnf or their kin keep what they have fetched.
fn is_locked_by_default(target: &str) -> bool {
    const LOCKED: [&str; 7] = [
        "/var/cache/apt",
        "/var/lib/apt",
        "/var/lib/dpkg",
        "/var/cache/dnf",
        "/var/cache/libdnf5",
        "/var/lib/dnf",
        "/var/cache/yum",
    ];
    let is_below = |rest: &str| rest.is_empty() || rest.starts_with('/');
    LOCKED.iter().any(|directory| target.strip_prefix(directory).is_some_and(is_below))
}

fn with_defaults(owner: FileOwner, mode: u32) -> (u32, u32, u32) {
    (owner.mode.unwrap_or(mode), owner.uid.unwrap_or(0), owner.gid.unwrap_or(0))
}

/// A path cleaned by its text, as Go's `path.Clean` does.
pub(super) fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut components: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." if components.last().is_some_and(|last| *last != "..") => drop(components.pop()),
            ".." if is_absolute => {}
            name => components.push(name),
        }
    }
    let joined = components.join("/");
    match (is_absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_are_cleaned_as_in_go() {
        for (path, cleaned) in [
            ("/a//b/./c/", "/a/b/c"),
            ("/../a", "/a"),
            ("a/../../b", "../b"),
            ("", "."),
            ("/", "/"),
            ("./x", "x"),
        ] {
            assert_eq!(clean(path), cleaned);
        }
    }
}
