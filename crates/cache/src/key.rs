//! The keys of steps. Pure: the table in the crate's documentation, as code.

use formwork_graph::{
    CopyOptions, CopySource, Exec, FileAction, FileOp, MountKind, MountSpec, Network, Op, OpId,
    Security,
};

use crate::{Components, Identity};

/// What is known about a step's inputs.
pub trait Inputs {
    /// The identity of an op's root file system; `None` for a context, which has none.
    fn root(&self, op: OpId) -> Option<Identity>;
    /// The identity of the files that a RUN's bind mount shows, by the mount's position; `None`
    /// where they have not been looked at.
    fn mounted(&self, mount: usize) -> Option<Identity>;
    /// The identity of what a file op yields; `None` where it has not been worked out. With
    /// `--link` that is the layer alone, else the whole root file system.
    fn result(&self) -> Option<Identity>;
}

/// The components of a step's definition key.
///
/// `None` for sources, which have no key, and for steps that take files from a context, which can
/// only be known by content.
pub fn definition_key(op: &Op, inputs: &dyn Inputs) -> Option<Components> {
    match op {
        Op::Source(_) => None,
        Op::Exec(exec) => exec_components(exec, inputs, &|_, from, source| {
            inputs.root(from).map(|root| format!("{root}:{source}"))
        }),
        Op::File(file) => file_components(file, inputs, &|root| Some(root?.to_string())),
    }
}

/// The components of a step's content key.
///
/// `None` for sources, and as long as something that the key needs has not been looked at.
pub fn content_key(op: &Op, inputs: &dyn Inputs) -> Option<Components> {
    match op {
        Op::Source(_) => None,
        Op::Exec(exec) => exec_components(exec, inputs, &|position, _, _| {
            inputs.mounted(position).map(|files| files.to_string())
        }),
        Op::File(_) => inputs.result().map(result_key),
    }
}

/// The components of the key under which a root file system itself is known, however it came to
/// be.
pub fn result_key(identity: Identity) -> Components {
    let mut components = Components::default();
    components.add("kind", "result");
    components.add("identity", identity.to_string());
    components
}

/// The components by which people know a step's inputs, as far as they are known. Never a key.
pub(crate) fn described_components(op: &Op, inputs: &dyn Inputs) -> Components {
    let known = match op {
        Op::Source(_) => None,
        Op::Exec(exec) => content_key(op, inputs)
            .or_else(|| exec_components(exec, inputs, &|_, _, source| Some(source.to_owned()))),
        Op::File(file) => file_components(file, inputs, &|root| {
            Some(root.map_or_else(|| "context".to_owned(), |root| root.to_string()))
        }),
    };
    known.unwrap_or_default()
}

fn exec_components(
    exec: &Exec,
    inputs: &dyn Inputs,
    bound: &dyn Fn(usize, OpId, &str) -> Option<String>,
) -> Option<Components> {
    let mut components = Components::default();
    components.add("kind", "exec");
    components.add("base", inputs.root(exec.rootfs)?.to_string());
    for (position, arg) in exec.args.iter().enumerate() {
        components.add(format!("argument {position}"), arg);
    }
    for (name, value) in &exec.env {
        components.add(format!("env {name}"), value);
    }
    components.add("working directory", &exec.cwd);
    components.add("user", &exec.user);
    components.add("host name", &exec.hostname);
    components.add("network", network(exec.network));
    components.add("security", security(exec.security));
    components.add("platform", exec.platform.to_string());
    for (position, mount) in exec.mounts.iter().enumerate() {
        let value = mount_value(mount, inputs, &|from, source| bound(position, from, source))?;
        components.add(format!("mount {}", mount.target), value);
    }
    Some(components)
}

fn mount_value(
    mount: &MountSpec,
    inputs: &dyn Inputs,
    bound: &dyn Fn(OpId, &str) -> Option<String>,
) -> Option<Vec<u8>> {
    let text = match &mount.kind {
        MountKind::Bind { from, source, writable } => {
            format!("bind writable={writable} {}", bound(*from, source)?)
        }
        MountKind::Cache { id, from, subpath, sharing: _, read_only, mode: _, uid: _, gid: _ } => {
            let origin = match from {
                Some((from, source)) => format!("{}:{source}", inputs.root(*from)?),
                None => String::new(),
            };
            format!("cache read-only={read_only} origin={origin} path={subpath} id={id}")
        }
        MountKind::Tmpfs { size } => format!("tmpfs size={size:?}"),
        MountKind::Secret { id, required: _, mode, uid, gid } => {
            format!("secret mode={mode:o} owner={uid}:{gid} id={id}")
        }
        MountKind::SecretEnv { id, required: _ } => format!("secret variable id={id}"),
        MountKind::Ssh { id, required: _, mode, uid, gid } => {
            format!("ssh mode={mode:o} owner={uid}:{gid} id={id}")
        }
        MountKind::File { data, mode } => {
            let mut value = format!("file mode={mode:o} ").into_bytes();
            value.extend_from_slice(data);
            return Some(value);
        }
    };
    Some(text.into_bytes())
}

/// `from` is the value for the root file system that something is copied from.
fn file_components(
    file: &FileOp,
    inputs: &dyn Inputs,
    from: &dyn Fn(Option<Identity>) -> Option<String>,
) -> Option<Components> {
    let mut components = Components::default();
    components.add("kind", "file");
    if !file.link {
        components.add("base", inputs.root(file.base)?.to_string());
    }
    for action in &file.actions {
        match action {
            FileAction::MakeDirectory { path, owner } => {
                components.add("directory", path);
                components.add("owner", owner);
            }
            FileAction::Copy { sources, destination, into_directory, options } => {
                for source in sources {
                    add_source(&mut components, source, &|op| from(inputs.root(op)))?;
                }
                components.add("destination", destination);
                components.add("into directory", into_directory.to_string());
                add_options(&mut components, options);
            }
        }
    }
    Some(components)
}

fn add_source(
    components: &mut Components,
    source: &CopySource,
    root: &dyn Fn(OpId) -> Option<String>,
) -> Option<()> {
    match source {
        CopySource::Path { from, pattern } => {
            components.add("source root", root(*from)?);
            components.add("source", pattern);
        }
        CopySource::Inline { name, data } => components.add(format!("inline {name}"), data),
    }
    Some(())
}

fn add_options(components: &mut Components, options: &CopyOptions) {
    let CopyOptions { owner, mode, exclude, parents, unpack } = options;
    // Absent and empty differ: `--chown=` is not the same as no `--chown`.
    for (name, value) in [("owner", owner), ("mode", mode)] {
        if let Some(value) = value {
            components.add(name, value);
        }
    }
    for pattern in exclude {
        components.add("exclude", pattern);
    }
    components.add("parents", parents.to_string());
    components.add("unpack", unpack.to_string());
}

fn network(network: Network) -> &'static str {
    match network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
    }
}

fn security(security: Security) -> &'static str {
    match security {
        Security::Sandbox => "sandbox",
        Security::Insecure => "insecure",
    }
}

#[cfg(test)]
mod tests {
    use formwork_graph::{CacheSharing, GraphBuilder, Places, Source, Step};

    use super::*;
    use crate::CacheKey;

    /// Inputs as a test wants them: two roots, a context, and what was looked at.
    struct Known {
        roots: Vec<Option<Identity>>,
        mounted: Option<Identity>,
        result: Option<Identity>,
    }

    impl Inputs for Known {
        fn root(&self, op: OpId) -> Option<Identity> {
            self.roots[op.index()]
        }
        fn mounted(&self, _: usize) -> Option<Identity> {
            self.mounted
        }
        fn result(&self) -> Option<Identity> {
            self.result
        }
    }

    fn known() -> Known {
        Known {
            roots: vec![
                Some(Identity::scratch()),
                Some(Identity::scratch().with_layer(&[1; 32])),
                None,
            ],
            mounted: Some(Identity::files(&[2; 32])),
            result: Some(Identity::files(&[3; 32])),
        }
    }

    /// Ids of a base, of another stage and of a context, which have these numbers in `known`.
    fn ids() -> [OpId; 3] {
        let mut builder = GraphBuilder::default();
        let mut add = |op| {
            builder.add(Step {
                op,
                name: String::new(),
                location: None,
                places: Places::default(),
                no_cache: false,
                max_age: None,
            })
        };
        let context = |name: &str| Op::Source(Source::Context { name: name.to_owned() });
        [add(Op::Source(Source::Scratch)), add(context("stage")), add(context("context"))]
    }

    fn exec() -> Exec {
        Exec {
            rootfs: ids()[0],
            args: vec!["/bin/sh".into(), "-c".into(), "make".into()],
            env: vec![("PATH".into(), "/bin".into()), ("VERSION".into(), "1".into())],
            cwd: "/src".into(),
            user: "app".into(),
            hostname: "host".into(),
            mounts: Vec::new(),
            network: Network::Default,
            security: Security::Sandbox,
            platform: "linux/amd64".parse().unwrap(),
        }
    }

    fn keys(op: &Op, known: &Known) -> [Option<CacheKey>; 2] {
        [definition_key(op, known), content_key(op, known)].map(|key| key.map(|key| key.key()))
    }

    /// Asserts that a change of a RUN changes its definition key and its content key, or not.
    #[track_caller]
    fn check_exec(change: impl Fn(&mut Exec), definition: bool, content: bool) {
        check_exec_from(&exec(), change, definition, content);
    }

    #[track_caller]
    fn check_exec_from(from: &Exec, change: impl Fn(&mut Exec), definition: bool, content: bool) {
        let mut changed = from.clone();
        change(&mut changed);
        assert_ne!(&changed, from, "the change does nothing");
        let before = keys(&Op::Exec(from.clone()), &known());
        let after = keys(&Op::Exec(changed), &known());
        assert_eq!(before[0] != after[0], definition, "definition key");
        assert_eq!(before[1] != after[1], content, "content key");
    }

    fn with_mount(kind: MountKind) -> Exec {
        let mounts = vec![MountSpec { target: "/mnt".into(), kind }];
        Exec { mounts, ..exec() }
    }

    #[test]
    fn run_command_and_surroundings() {
        check_exec(|exec| exec.args[2] = "make all".into(), true, true);
        check_exec(|exec| exec.args = vec!["/bin/sh".into(), "-c make".into()], true, true);
        check_exec(|exec| exec.cwd = "/".into(), true, true);
        check_exec(|exec| exec.user = "root".into(), true, true);
        check_exec(|exec| exec.hostname = "other".into(), true, true);
    }

    #[test]
    fn run_environment() {
        check_exec(|exec| exec.env[1].1 = "2".into(), true, true);
        check_exec(|exec| exec.env[1].0 = "OTHER".into(), true, true);
        check_exec(|exec| exec.env.swap(0, 1), true, true);
        check_exec(|exec| drop(exec.env.pop()), true, true);
    }

    #[test]
    fn run_network_security_platform() {
        check_exec(|exec| exec.network = Network::None, true, true);
        check_exec(|exec| exec.security = Security::Insecure, true, true);
        check_exec(|exec| exec.platform = "linux/arm64".parse().unwrap(), true, true);
    }

    #[test]
    fn run_root_file_system() {
        check_exec(|exec| exec.rootfs = ids()[1], true, true);
        let context = Exec { rootfs: ids()[2], ..exec() };
        assert_eq!(keys(&Op::Exec(context), &known()), [None, None]);
    }

    fn bind(from: OpId, source: &str, writable: bool) -> MountKind {
        MountKind::Bind { from, source: source.to_owned(), writable }
    }

    #[test]
    fn run_bind_mount_from_a_stage() {
        let exec = with_mount(bind(ids()[1], "/a", false));
        let set = |kind: MountKind| move |exec: &mut Exec| exec.mounts[0].kind = kind.clone();
        check_exec_from(&exec, |exec| exec.mounts[0].target = "/other".into(), true, true);
        check_exec_from(&exec, set(bind(ids()[1], "/a", true)), true, true);
        // Another path or another stage with the same files: only the content key is the same.
        check_exec_from(&exec, set(bind(ids()[1], "/b", false)), true, false);
        check_exec_from(&exec, set(bind(ids()[0], "/a", false)), true, false);
    }

    #[test]
    fn run_bind_mount_content() {
        let op = Op::Exec(with_mount(bind(ids()[1], "/a", false)));
        let other = Known { mounted: Some(Identity::files(&[9; 32])), ..known() };
        let (before, after) = (keys(&op, &known()), keys(&op, &other));
        assert_eq!(before[0], after[0]);
        assert_ne!(before[1], after[1]);
        let unknown = Known { mounted: None, ..known() };
        assert_eq!(keys(&op, &unknown)[1], None);
    }

    #[test]
    fn run_bind_mount_from_a_context() {
        let op = Op::Exec(with_mount(bind(ids()[2], "/a", false)));
        assert_eq!(keys(&op, &known())[0], None);
        assert!(keys(&op, &known())[1].is_some());
    }

    fn cache(id: &str, from: Option<(OpId, String)>) -> MountKind {
        MountKind::Cache {
            id: id.to_owned(),
            sharing: CacheSharing::Shared,
            from,
            subpath: "/".to_owned(),
            read_only: false,
            mode: 0o755,
            uid: 0,
            gid: 0,
        }
    }

    #[test]
    fn run_cache_mount() {
        let exec = with_mount(cache("apt", None));
        let set = |kind: MountKind| move |exec: &mut Exec| exec.mounts[0].kind = kind.clone();
        check_exec_from(&exec, set(cache("dnf", None)), true, true);
        check_exec_from(&exec, set(cache("apt", Some((ids()[1], "/".into())))), true, true);
        let other = MountKind::Cache {
            id: "apt".into(),
            sharing: CacheSharing::Locked,
            from: None,
            subpath: "/".into(),
            read_only: false,
            mode: 0o700,
            uid: 5,
            gid: 5,
        };
        check_exec_from(&exec, set(other), false, false);
    }

    #[test]
    fn run_tmpfs() {
        let exec = with_mount(MountKind::Tmpfs { size: None });
        check_exec_from(&exec, |exec| exec.mounts[0].target = "/t".into(), true, true);
        let sized = MountKind::Tmpfs { size: Some(9) };
        check_exec_from(&exec, |exec| exec.mounts[0].kind = sized.clone(), true, true);
    }

    #[test]
    fn run_secret() {
        let secret = |id: &str, required, mode| MountKind::Secret {
            id: id.to_owned(),
            required,
            mode,
            uid: 0,
            gid: 0,
        };
        let exec = with_mount(secret("token", false, 0o400));
        let set = |kind: MountKind| move |exec: &mut Exec| exec.mounts[0].kind = kind.clone();
        check_exec_from(&exec, set(secret("other", false, 0o400)), true, true);
        check_exec_from(&exec, set(secret("token", false, 0o444)), true, true);
        check_exec_from(&exec, set(secret("token", true, 0o400)), false, false);
        let variable = MountKind::SecretEnv { id: "token".into(), required: false };
        check_exec_from(&exec, set(variable), true, true);
    }

    #[test]
    fn run_ssh() {
        let ssh = |id: &str, required, mode| MountKind::Ssh {
            id: id.to_owned(),
            required,
            mode,
            uid: 0,
            gid: 0,
        };
        let exec = with_mount(ssh("default", false, 0o600));
        let set = |kind: MountKind| move |exec: &mut Exec| exec.mounts[0].kind = kind.clone();
        check_exec_from(&exec, set(ssh("other", false, 0o600)), true, true);
        check_exec_from(&exec, set(ssh("default", false, 0o666)), true, true);
        check_exec_from(&exec, set(ssh("default", true, 0o600)), false, false);
    }

    #[test]
    fn run_heredoc_file() {
        let file = |data: &[u8], mode| MountKind::File { data: data.to_vec(), mode };
        let exec = with_mount(file(b"#!/bin/sh", 0o755));
        let set = |kind: MountKind| move |exec: &mut Exec| exec.mounts[0].kind = kind.clone();
        check_exec_from(&exec, set(file(b"#!/bin/sh\xff", 0o755)), true, true);
        check_exec_from(&exec, set(file(b"#!/bin/sh", 0o700)), true, true);
    }

    fn copy(from: OpId, change: impl Fn(&mut FileOp)) -> Op {
        let mut op = FileOp {
            base: ids()[0],
            link: false,
            actions: vec![FileAction::Copy {
                sources: vec![CopySource::Path { from, pattern: "/a".into() }],
                destination: "/dst".into(),
                into_directory: false,
                options: CopyOptions::default(),
            }],
        };
        change(&mut op);
        Op::File(op)
    }

    /// Asserts that a change of a COPY changes its definition key; its content key is the result's
    /// affair and stays.
    #[track_caller]
    fn check_copy(change: impl Fn(&mut FileOp)) {
        let before = keys(&copy(ids()[1], |_| {}), &known());
        let after = keys(&copy(ids()[1], change), &known());
        assert_ne!(before[0], after[0], "definition key");
        assert_eq!(before[1], after[1], "content key");
    }

    fn options(change: impl Fn(&mut CopyOptions)) -> impl Fn(&mut FileOp) {
        move |op| {
            if let FileAction::Copy { options, .. } = &mut op.actions[0] {
                change(options);
            }
        }
    }

    #[test]
    fn copy_parameters() {
        check_copy(options(|options| options.owner = Some(String::new())));
        check_copy(options(|options| options.mode = Some("644".into())));
        check_copy(options(|options| options.exclude.push("*.md".into())));
        check_copy(options(|options| options.parents = true));
        check_copy(options(|options| options.unpack = true));
        check_copy(|op| op.link = true);
        check_copy(|op| {
            op.actions.push(FileAction::MakeDirectory { path: "/d".into(), owner: "5".into() });
        });
        check_copy(|op| {
            if let FileAction::Copy { destination, .. } = &mut op.actions[0] {
                *destination = "/elsewhere".into();
            }
        });
        check_copy(|op| {
            if let FileAction::Copy { into_directory, .. } = &mut op.actions[0] {
                *into_directory = true;
            }
        });
        check_copy(|op| {
            if let FileAction::Copy { sources, .. } = &mut op.actions[0] {
                sources.push(CopySource::Inline { name: "x".into(), data: b"y".to_vec() });
            }
        });
    }

    #[test]
    fn copy_layers_below() {
        check_copy(|op| op.base = ids()[1]);
        let linked = |base| copy(ids()[1], move |op| (op.link, op.base) = (true, base));
        assert_eq!(keys(&linked(ids()[0]), &known()), keys(&linked(ids()[1]), &known()));
    }

    #[test]
    fn copy_from_a_stage() {
        let before = keys(&copy(ids()[1], |_| {}), &known());
        let mut other = known();
        other.roots[1] = Some(Identity::scratch().with_layer(&[8; 32]));
        let after = keys(&copy(ids()[1], |_| {}), &other);
        assert_ne!(before[0], after[0]);
        assert_eq!(before[1], after[1]);
    }

    #[test]
    fn copy_content() {
        let op = copy(ids()[1], |_| {});
        let other = Known { result: Some(Identity::files(&[9; 32])), ..known() };
        assert_eq!(keys(&op, &known())[0], keys(&op, &other)[0]);
        assert_ne!(keys(&op, &known())[1], keys(&op, &other)[1]);
        assert_eq!(keys(&op, &Known { result: None, ..known() })[1], None);
    }

    #[test]
    fn copy_from_a_context() {
        let op = copy(ids()[2], |_| {});
        assert_eq!(keys(&op, &known())[0], None);
        assert!(keys(&op, &known())[1].is_some());
    }

    #[test]
    fn sources_have_no_key() {
        assert_eq!(keys(&Op::Source(Source::Scratch), &known()), [None, None]);
    }
}
