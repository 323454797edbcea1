//! What the environment and the ecosystem's files say, as values.
//!
//! The only place of the program that reads environment variables, the home directory and the
//! machine's configuration.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::ValueEnum;
use formwork_build::{
    GitConfig, Host, HostTrust, Limits, ProxyConfig, RegistryFiles, StepNetwork, StepWorld, Uplink,
};
use formwork_sandbox::{Entered, Rung, RungChoice, SandboxError};

use crate::args::{
    GlobalArgs, Isolation, NetworkChoice, RegistryArgs, SpaceArgs, WorldArgs, bytes,
};
use crate::exit::Failure;
use crate::{render, stores, uplink};

/// Proxy variables, which programs read in either case.
const PROXIES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Where systems keep the certificates that they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What the environment says.
#[derive(Debug)]
pub(crate) struct Settings {
    root: PathBuf,
    home: Option<PathBuf>,
    registry: RegistryArgs,
    /// The number of processors.
    pub(crate) processors: usize,
    isolation: RungChoice,
    /// What the process has become.
    entered: OnceLock<Entered>,
}

impl Settings {
    /// Reads the environment. Must come before the program enters a user namespace, in which
    /// everybody is root.
    pub(crate) fn read(args: &GlobalArgs) -> Result<Self, Failure> {
        let home = home();
        let given = args.root.clone().or_else(|| path("FORMWORK_ROOT"));
        let root = match given {
            Some(root) => root,
            None if rustix::process::geteuid().is_root() => PathBuf::from("/var/lib/formwork"),
            None => data_directory(home.as_deref())?.join("formwork"),
        };
        let root = std::path::absolute(&root).map_err(Failure::machine)?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let isolation = match (args.isolation, variable("FORMWORK_ISOLATION")) {
            (Some(isolation), _) => isolation,
            (None, Some(name)) => Isolation::from_str(&name, true).map_err(|_| {
                Failure::usage(format!("FORMWORK_ISOLATION is `{name}`, which is no isolation"))
                    .with_help("`formwork --help` lists them at `--isolation`")
            })?,
            (None, None) => Isolation::Auto,
        };
        let isolation = rung_choice(isolation);
        let (registry, entered) = (args.registry.clone(), OnceLock::new());
        Ok(Self { root, home, registry, processors, isolation, entered })
    }

    /// Becomes root in a user namespace where the user is not root. Must come before any thread.
    pub(crate) fn enter(&self) -> Result<(), Failure> {
        let mut entered = formwork_sandbox::enter(self.isolation).map_err(Failure::machine)?;
        if let Some(lack) = self.lack_of_place(entered.rung) {
            (entered.rung, entered.lack) = (Rung::Chroot, Some(lack));
        }
        // Once for a process.
        let _ = self.entered.set(entered);
        Ok(())
    }

    /// Why root, who may mount, copies files all the same where nothing else is asked for.
    pub(crate) fn lack_of_place(&self, rung: Rung) -> Option<SandboxError> {
        let is_free = self.isolation == RungChoice::Auto && rung == Rung::Root;
        is_free.then(|| stores::needs_copies(&self.root)).flatten()
    }

    /// Warns who may mount that files are copied.
    pub(crate) fn warn_of_copies(&self) {
        let lack = self.entered.get().and_then(|entered| entered.lack.as_ref());
        let Some(lack) =
            lack.filter(|lack| stores::needs_copies(&self.root).as_ref() == Some(*lack))
        else {
            return;
        };
        render::warning(&format!(
            "{lack}: steps run in a chroot, and files are copied, which takes longer; give the \
             container a volume or a tmpfs for the store, or choose its place with `--root`"
        ));
    }

    /// Warns who asks for a size of `/dev/shm` where nothing of the kind can be mounted.
    pub(crate) fn warn_of_shared_memory(&self, args: &WorldArgs) {
        let is_plain = self.rung().is_some_and(|rung| rung.can_run() && !rung.can_mount());
        if is_plain && args.shm_size.is_some() {
            render::warning(
                "`--shm-size` has no effect: nothing can be mounted here, so `/dev/shm` is a \
                 directory of the store's file system, with all the room that is left there",
            );
        }
    }

    /// Where the store is, or will be, with what the user calls its place.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The rung that the process is on.
    pub(crate) fn rung(&self) -> Option<Rung> {
        self.entered.get().map(|entered| entered.rung)
    }

    /// Opens the store, and knows where registries are configured.
    pub(crate) fn host(&self) -> Result<Host, Failure> {
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let resolv_conf = fs_err::read("/etc/resolv.conf").unwrap_or_default();
        let registries = self.registries();
        let entered = self.entered.get().cloned().unwrap_or_else(Entered::nothing);
        let root = stores::of(&self.root, entered.rung)?;
        if let Some(parent) = root.parent() {
            fs_err::create_dir_all(parent).map_err(|error| {
                Failure::machine(error).with_help("choose a place for the store with `--root`")
            })?;
        }
        let (boot, processors) = (boot.trim(), self.processors);
        let host = Host::open(&root, boot, processors, registries, resolv_conf, entered)?;
        Ok(host.with_emulators(emulators()))
    }

    /// What git needs of the machine.
    pub(crate) fn git(&self) -> GitConfig {
        GitConfig {
            path: std::env::var_os("PATH").unwrap_or_default(),
            proxies: proxies(),
            certificates: path("SSL_CERT_FILE"),
            known_hosts: self.home.as_ref().map(|home| home.join(".ssh/known_hosts")),
            agent: None,
        }
    }

    /// The files that say how to speak to registries.
    pub(crate) fn registries(&self) -> RegistryFiles {
        let home = self.home.as_deref();
        let config = path("XDG_CONFIG_HOME").or_else(|| Some(home?.join(".config")));
        let containers = config.map(|config| config.join("containers"));
        let below = |directory: &Option<PathBuf>, name: &str| {
            directory.as_ref().map(|directory| directory.join(name))
        };
        let docker = path("DOCKER_CONFIG").or_else(|| Some(home?.join(".docker")));
        let runtime = path("XDG_RUNTIME_DIR").map(|runtime| runtime.join("containers"));
        let credentials = [
            self.registry.authfile.clone(),
            path("REGISTRY_AUTH_FILE"),
            below(&docker, "config.json"),
            below(&runtime, "auth.json"),
            below(&containers, "auth.json"),
        ];
        let etc = Path::new("/etc/containers");
        let own = below(&containers, "registries.conf").filter(|file| file.exists());
        let file = path("CONTAINERS_REGISTRIES_CONF").or(own);
        let file = file.or_else(|| Some(etc.join("registries.conf")).filter(|f| f.exists()));
        let drop_ins =
            [Some(etc.join("registries.conf.d")), below(&containers, "registries.conf.d")];
        let drop_ins = drop_ins.into_iter().flatten().collect();
        RegistryFiles {
            credentials: credentials.into_iter().flatten().collect(),
            helpers: std::env::split_paths(&variable("PATH").unwrap_or_default()).collect(),
            registries_conf: file.map(|file| (file, drop_ins)),
            certs_d: [
                self.registry.cert_dir.clone(),
                Some(PathBuf::from("/etc/docker/certs.d")),
                Some(etc.join("certs.d")),
                below(&containers, "certs.d"),
            ]
            .into_iter()
            .flatten()
            .collect(),
            bundle: path("SSL_CERT_FILE"),
            proxy: ProxyConfig {
                http: proxy("HTTP_PROXY").or_else(|| proxy("ALL_PROXY")),
                https: proxy("HTTPS_PROXY").or_else(|| proxy("ALL_PROXY")),
                no_proxy: proxy("NO_PROXY").unwrap_or_default(),
            },
            is_verified: self.registry.tls_verify.unwrap_or(true),
            retries: self.registry.registry_retry,
            first_delay: self.registry.registry_retry_delay,
        }
    }
}

/// What a command's options ask of the world of processes.
pub(crate) fn world(args: &WorldArgs) -> Result<StepWorld, Failure> {
    world_in(args, network(args.network)?)
}

/// What options ask of the world of a process whose ports are published: a network of its own where
/// that is possible and nothing else is said.
pub(crate) fn publishing_world(args: &WorldArgs, is_possible: bool) -> Result<StepWorld, Failure> {
    let is_open = is_possible
        && args.network == NetworkChoice::Default
        && variable("FORMWORK_NETWORK").is_none();
    match uplink() {
        Some(uplink @ Uplink::Pasta { .. }) if is_open => {
            world_in(args, StepNetwork::Private(uplink))
        }
        _ => world(args),
    }
}

/// What options ask of the world of processes in a network.
fn world_in(args: &WorldArgs, mut network: StepNetwork) -> Result<StepWorld, Failure> {
    let machine = match &mut network {
        StepNetwork::Private(uplink) if args.names_this_machine() => uplink::open(uplink)?,
        _ => Ipv4Addr::LOCALHOST,
    };
    let mut world = args.world(network, machine.into());
    if matches!(world.network, StepNetwork::Private(_)) && world.dns.servers.is_empty() {
        let text = |file| fs_err::read_to_string(file).unwrap_or_default();
        world.dns.servers = uplink::name_servers(text);
    }
    Ok(world)
}

/// The network of processes that name none: that of the option, or of `FORMWORK_NETWORK`.
fn network(choice: NetworkChoice) -> Result<StepNetwork, Failure> {
    let choice = match (choice, variable("FORMWORK_NETWORK")) {
        (NetworkChoice::Default, Some(text)) => {
            NetworkChoice::from_str(&text, false).map_err(|_| {
                Failure::usage(format!("FORMWORK_NETWORK is `{text}`"))
                    .with_help("it can be `host`, `private` or `none`")
            })?
        }
        (choice, _) => choice,
    };
    match choice {
        NetworkChoice::Default | NetworkChoice::Host => Ok(StepNetwork::Host),
        NetworkChoice::None => Ok(StepNetwork::None),
        NetworkChoice::Private => uplink().map(StepNetwork::Private).ok_or_else(|| {
            Failure::machine("a private network needs the program `pasta`, which is not installed")
                .with_help("it is in the package `passt`; or build with `--network=host` or `none`")
        }),
    }
}

/// The way out of private networks: the program that changes nothing on this machine, or else, for
/// root, what the kernel has.
fn uplink() -> Option<Uplink> {
    let pasta = programs("pasta").next();
    let pasta = pasta.map(|program| Uplink::Pasta { program, ports: Vec::new(), host: None });
    pasta.or_else(|| is_real_root().then_some(Uplink::Veth { host: false }))
}

/// Whether this is the machine's root, and not one of a user namespace.
fn is_real_root() -> bool {
    let ids = fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && ids.contains("4294967295")
}

/// The programs with a name along the PATH.
pub(crate) fn programs(name: &str) -> impl Iterator<Item = PathBuf> {
    let directories = variable("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&directories).collect();
    let found = places.into_iter().map(move |directory| directory.join(name));
    found.filter(|program| program.is_absolute() && program.is_file())
}

/// Where emulators of other machines are looked for: along the PATH.
fn emulators() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).filter(|directory| directory.is_absolute()).collect()
}

fn rung_choice(isolation: Isolation) -> RungChoice {
    match isolation {
        Isolation::Auto => RungChoice::Auto,
        Isolation::Root => RungChoice::Only(Rung::Root),
        Isolation::SubordinateIds => RungChoice::Only(Rung::SubordinateIds),
        Isolation::SingleId => RungChoice::Only(Rung::SingleId),
        Isolation::Chroot => RungChoice::Only(Rung::Chroot),
        Isolation::Traced => RungChoice::Only(Rung::Traced),
        Isolation::CopyOnly => RungChoice::Only(Rung::CopyOnly),
    }
}

/// The certificates and proxies that reach RUN.
pub(crate) fn host_trust() -> HostTrust {
    let bundles = path("SSL_CERT_FILE").into_iter().chain(SYSTEM_BUNDLES.map(PathBuf::from));
    let certificates = bundles.into_iter().find_map(|bundle| fs_err::read(bundle).ok());
    HostTrust { certificates: certificates.unwrap_or_default(), proxies: proxies() }
}

/// The proxy variables that are set.
fn proxies() -> Vec<(String, String)> {
    let names = PROXIES.into_iter().flat_map(|name| [name.to_owned(), name.to_ascii_lowercase()]);
    names.filter_map(|name| Some((name.clone(), variable(&name)?))).collect()
}

/// Proxies that are given as build arguments reach RUN without an `ARG` in either case, and no
/// cache key.
pub(crate) fn with_given_proxies(trust: &mut HostTrust, build_args: &BTreeMap<String, String>) {
    for upper in PROXIES {
        let lower = upper.to_ascii_lowercase();
        let (own, other) = (build_args.get(upper), build_args.get(&lower));
        for (name, value) in [(upper, own.or(other)), (lower.as_str(), other.or(own))] {
            if let Some(value) = value {
                trust.proxies.retain(|(known, _)| known != name);
                trust.proxies.push((name.to_owned(), value.clone()));
            }
        }
    }
}

/// The socket of the user's SSH agent.
pub(crate) fn ssh_agent() -> Option<PathBuf> {
    path("SSH_AUTH_SOCK")
}

/// How much space the store may take, by options and else by the environment.
pub(crate) fn limits(args: &SpaceArgs) -> Result<Limits, Failure> {
    let or_variable = |given: Option<u64>, name: &str| match (given, variable(name)) {
        (None, Some(text)) => {
            bytes(&text).map(Some).map_err(|error| Failure::usage(format!("{name}: {error}")))
        }
        _ => Ok(given),
    };
    Ok(Limits {
        reserved: or_variable(args.reserved_space, "FORMWORK_RESERVED_SPACE")?,
        max_used: or_variable(args.max_used_space, "FORMWORK_MAX_USED_SPACE")?,
        min_free: or_variable(args.min_free_space, "FORMWORK_MIN_FREE_SPACE")?,
    })
}

/// The value of an environment variable, unless it is empty or no text.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The user's own directory.
pub(crate) fn home() -> Option<PathBuf> {
    path("HOME")
}

fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A proxy's address, by the variable in lower case first, as curl has it.
fn proxy(name: &str) -> Option<String> {
    variable(&name.to_ascii_lowercase()).or_else(|| variable(name))
}

fn data_directory(home: Option<&Path>) -> Result<PathBuf, Failure> {
    let own = path("XDG_DATA_HOME").or_else(|| Some(home?.join(".local/share")));
    own.ok_or_else(|| {
        Failure::usage("there is no place for the store: HOME is not set")
            .with_help("name one with --root or FORMWORK_ROOT")
    })
}
