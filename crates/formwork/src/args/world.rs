//! Options about the world of processes: names, limits, time.

use std::net::IpAddr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use formwork_build::{
    Allowed, Dns, ProcessLimits, Resource, ResourceLimit, StepNetwork, StepWorld,
};

use super::{bytes, duration};

/// What `docker run` and `docker build` have both.
#[derive(Debug, Args)]
pub(crate) struct WorldArgs {
    /// Another line of /etc/hosts; the address `host-gateway` means this machine, which a private
    /// network reaches only then, with all that listens here; may be repeated
    #[arg(long, value_name = "NAME:ADDRESS", value_parser = host)]
    pub(crate) add_host: Vec<(String, HostAddress)>,
    /// Server that is asked for names, instead of this machine's; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Vec<IpAddr>,
    /// Domain in which names are looked for, instead of this machine's; `.` for none
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) dns_search: Vec<String>,
    /// Option of /etc/resolv.conf, such as ndots:2, instead of this machine's
    #[arg(long, value_name = "OPTION")]
    pub(crate) dns_option: Vec<String>,
    /// Limit of each process, such as nofile=1024:4096; -1 for none; may be repeated
    #[arg(long, value_name = "NAME=SOFT[:HARD]", value_parser = resource_limit)]
    pub(crate) ulimit: Vec<ResourceLimit>,
    /// Memory that all processes of a step may have together, such as 2g
    #[arg(short, long, value_name = "SIZE", value_parser = memory)]
    pub(crate) memory: Option<u64>,
    /// Processors that all processes of a step may use together, such as 1.5
    #[arg(long, value_name = "NUMBER", value_parser = thousandths)]
    pub(crate) cpus: Option<u32>,
    /// Processes and threads that a step may have at one time
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) pids_limit: Option<u64>,
    /// Network of the processes that name none
    #[arg(long, value_enum, value_name = "NETWORK", default_value_t)]
    pub(crate) network: NetworkChoice,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub(crate) shm_size: Option<u64>,
}

/// What only steps of a build have.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// Allow what nothing may do by itself: RUN --network=host, RUN --security=insecure,
    /// --output=type=local,mode=delete
    #[arg(long, value_enum, value_name = "ENTITLEMENT", value_delimiter = ',')]
    pub(crate) allow: Vec<Entitlement>,
    /// How long a RUN may take, such as 10m; then it is stopped, and fails
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) step_timeout: Option<Duration>,
    /// Run a RUN that fails again, up to N times, such as for flaky servers
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) retry: u32,
}

/// What a Dockerfile may not do unless the user allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Entitlement {
    /// RUN --network=host
    #[value(name = "network.host")]
    NetworkHost,
    /// RUN --security=insecure
    #[value(name = "security.insecure")]
    SecurityInsecure,
    /// --output=type=local,mode=delete
    #[value(name = "buildx.local.delete")]
    LocalDelete,
}

/// The network of processes that name none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkChoice {
    /// $FORMWORK_NETWORK, or else this machine's, without power over it
    #[default]
    Default,
    /// This machine's; also allows RUN --network=host
    Host,
    /// One of their own, from which this machine's services cannot be reached, with a way out
    #[value(alias = "bridge")]
    Private,
    /// None
    None,
}

/// What a name of `/etc/hosts` means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostAddress {
    /// An address.
    Known(IpAddr),
    /// This machine, by the address that it has in the processes' network (`host-gateway`).
    ThisMachine,
}

impl WorldArgs {
    /// Whether the processes are to reach this machine by a name.
    pub(crate) fn names_this_machine(&self) -> bool {
        self.add_host.iter().any(|(_, address)| *address == HostAddress::ThisMachine)
    }

    /// What these options ask for, in a network in which this machine has an address.
    pub(crate) fn world(&self, network: StepNetwork, machine: IpAddr) -> StepWorld {
        let address = |address: &HostAddress| match address {
            HostAddress::Known(address) => *address,
            HostAddress::ThisMachine => machine,
        };
        StepWorld {
            network,
            hosts: self.add_host.iter().map(|(name, it)| (name.clone(), address(it))).collect(),
            dns: Dns {
                servers: self.dns.clone(),
                search: self.dns_search.clone(),
                options: self.dns_option.clone(),
            },
            limits: ProcessLimits { memory: self.memory, cpus: self.cpus, pids: self.pids_limit },
            resource_limits: self.ulimit.clone(),
            shm_size: self.shm_size,
            ..StepWorld::default()
        }
    }
}

impl StepArgs {
    /// What these options ask for, with those for all processes.
    pub(crate) fn add_to(&self, world: StepWorld) -> StepWorld {
        StepWorld { time_limit: self.step_timeout, retries: self.retry, ..world }
    }

    /// Whether an output may remove what was in its directory.
    pub(crate) fn may_delete(&self) -> bool {
        self.allow.contains(&Entitlement::LocalDelete)
    }

    /// What the Dockerfile may ask for. Who builds in the machine's network by their own choice
    /// has nothing against a step that does.
    pub(crate) fn allowed(&self, network: NetworkChoice) -> Allowed {
        let has = |entitlement| self.allow.contains(&entitlement);
        Allowed {
            host_network: has(Entitlement::NetworkHost) || network == NetworkChoice::Host,
            insecure: has(Entitlement::SecurityInsecure),
        }
    }
}

/// `NAME:ADDRESS`, or with an equals sign between; IPv6 addresses may be in brackets.
fn host(text: &str) -> Result<(String, HostAddress), String> {
    let wrong = || format!("`{text}` is not NAME:ADDRESS, such as db:10.0.0.7");
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(is_name) {
        return Err(wrong());
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare.unwrap_or(address) {
        "host-gateway" => HostAddress::ThisMachine,
        address => HostAddress::Known(address.parse().map_err(|_| wrong())?),
    };
    Ok((name.to_owned(), address))
}

/// A size that a process can live in: docker's least.
fn memory(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 6 << 20;
    match bytes(text)? {
        less if less < LEAST => Err(format!("`{text}` is less than 6m, in which nothing runs")),
        size => Ok(size),
    }
}

/// A number with up to three digits behind the point.
fn thousandths(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is no number of processors such as 2 or 1.5");
    let number: f64 = text.parse().map_err(|_| wrong())?;
    if !(0.01..=100_000.0).contains(&number) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let thousandths = (number * 1000.0).round() as u32;
    Ok(thousandths)
}

/// `NAME=SOFT[:HARD]`, as docker has it.
fn resource_limit(text: &str) -> Result<ResourceLimit, String> {
    let wrong = || format!("`{text}` is not NAME=SOFT[:HARD], such as nofile=1024:4096");
    let (name, values) = text.split_once('=').ok_or_else(wrong)?;
    let Some(resource) = Resource::named(name) else {
        let names = Resource::ALL.map(|(name, _)| name).join(", ");
        return Err(format!("there is no limit `{name}`; there are {names}"));
    };
    let value = |text: &str| match text {
        "-1" | "unlimited" => Ok(None),
        _ => text.parse().map(Some).map_err(|_| wrong()),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let (soft, hard) = (value(soft)?, value(hard)?);
    let is_above = match (soft, hard) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(soft), Some(hard)) => soft > hard,
    };
    if is_above {
        Err(format!("`{text}`: the soft limit is above the hard one"))
    } else {
        Ok(ResourceLimit { resource, soft, hard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        for (text, name, address) in [
            ("db:10.0.0.7", "db", "10.0.0.7"),
            ("db=10.0.0.7", "db", "10.0.0.7"),
            ("db:::1", "db", "::1"),
            ("db:[fd00::1]", "db", "fd00::1"),
        ] {
            let address = HostAddress::Known(address.parse().unwrap());
            assert_eq!(host(text), Ok((name.to_owned(), address)), "{text}");
        }
        let (name, address) = host("host.docker.internal:host-gateway").unwrap();
        assert_eq!((&*name, address), ("host.docker.internal", HostAddress::ThisMachine));
        for wrong in ["", "db", ":1.2.3.4", "db:", "db:x", "a b:1.2.3.4", "a\nb:1.2.3.4", "db:[::1"]
        {
            assert!(host(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn limits_are_those_of_docker() {
        let limit = |resource, soft, hard| Ok(ResourceLimit { resource, soft, hard });
        let parse = resource_limit;
        assert_eq!(parse("nofile=1024"), limit(Resource::Nofile, Some(1024), Some(1024)));
        assert_eq!(parse("nofile=10:20"), limit(Resource::Nofile, Some(10), Some(20)));
        assert_eq!(parse("core=0:-1"), limit(Resource::Core, Some(0), None));
        assert_eq!(parse("memlock=-1:-1"), limit(Resource::Memlock, None, None));
        for wrong in ["", "nofile", "nofile=", "nofile=x", "nofile=20:10", "nofile=-1:5", "x=1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_and_processors() {
        assert_eq!(memory("2g"), Ok(2 << 30));
        assert!(memory("1m").unwrap_err().contains("6m"));
        assert_eq!(thousandths("1.5"), Ok(1500));
        assert_eq!(thousandths("2"), Ok(2000));
        for wrong in ["", "0", "-1", "x", "NaN", "inf", "0.0001", "1e9"] {
            assert!(thousandths(wrong).is_err(), "{wrong}");
        }
    }
}
