//! What a user asks of the world in which processes run: names, limits, time.
//!
//! None of it is part of a cache key: it says how steps get at what they fetch and how much they may
//! use, like the proxies of the machine, and not what they make.

use std::net::IpAddr;
use std::time::Duration;

use formwork_sandbox::{Limits, NetworkMode, ProcessSpec, ResourceLimit, Uplink};

/// What a user asks of the world in which processes run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StepWorld {
    /// The network of processes that name none.
    pub network: StepNetwork,
    /// More lines of `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// What replaces parts of `/etc/resolv.conf`.
    pub dns: Dns,
    /// Limits of all processes together.
    pub limits: Limits,
    /// Limits of every process.
    pub resource_limits: Vec<ResourceLimit>,
    /// The size of `/dev/shm` in bytes, if not the usual one.
    pub shm_size: Option<u64>,
    /// How long a step may take.
    pub time_limit: Option<Duration>,
    /// How often a step that fails is run again.
    pub retries: u32,
}

/// The network of processes that name none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StepNetwork {
    /// The machine's, without power over it.
    #[default]
    Host,
    /// None.
    None,
    /// One of their own, each, with a way out.
    Private(Uplink),
}

/// What replaces parts of `/etc/resolv.conf`; what is empty replaces nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// The servers.
    pub servers: Vec<IpAddr>,
    /// The domains in which names are looked for; a lone `.` for none.
    pub search: Vec<String>,
    /// Options such as `ndots:2`.
    pub options: Vec<String>,
}

impl StepWorld {
    /// Makes a process find it.
    pub(crate) fn apply(&self, spec: &mut ProcessSpec) {
        (spec.network, spec.uplink) = match &self.network {
            StepNetwork::Host => (NetworkMode::Host, None),
            StepNetwork::None => (NetworkMode::None, None),
            StepNetwork::Private(uplink) => (NetworkMode::Private, Some(uplink.clone())),
        };
        spec.limits = self.limits;
        spec.resource_limits.clone_from(&self.resource_limits);
        spec.shm_size = self.shm_size.unwrap_or(spec.shm_size);
        spec.time_limit = self.time_limit;
    }

    /// `/etc/hosts`, which begins as BuildKit writes it.
    pub(crate) fn hosts(&self, hostname: &str) -> Vec<u8> {
        let mut text = format!("127.0.0.1\tlocalhost {hostname}\n");
        text += "::1\tlocalhost ip6-localhost ip6-loopback\n";
        for (name, address) in &self.hosts {
            text += &format!("{address}\t{name}\n");
        }
        text.into_bytes()
    }
}

impl Dns {
    /// `/etc/resolv.conf`, given that of the machine.
    pub(crate) fn resolv_conf(&self, machine: &[u8]) -> Vec<u8> {
        if *self == Self::default() {
            return machine.to_vec();
        }
        let replaced = |line: &str| match line.split_ascii_whitespace().next() {
            Some("nameserver") => !self.servers.is_empty(),
            Some("search" | "domain") => !self.search.is_empty(),
            Some("options") => !self.options.is_empty(),
            _ => false,
        };
        let machine = String::from_utf8_lossy(machine);
        // Only of the machine's own servers it is known that their word on DNSSEC can be trusted.
        let trusting = |line: &&str| !self.servers.is_empty() && line.starts_with("options");
        let kept = machine.lines().filter(|line| !replaced(line)).map(|line| match line {
            options if trusting(&options) => options.replace(" trust-ad", ""),
            line => line.to_owned(),
        });
        let servers = self.servers.iter().map(|server| format!("nameserver {server}"));
        let search = Some(&self.search).filter(|search| !search.is_empty() && *search != &["."]);
        let search = search.map(|search| format!("search {}", search.join(" ")));
        let options = Some(&self.options).filter(|options| !options.is_empty());
        let options = options.map(|options| format!("options {}", options.join(" ")));
        let lines = kept.chain(servers).chain(search).chain(options);
        lines.flat_map(|line| [line, "\n".to_owned()]).collect::<String>().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_behind_the_machines_own() {
        let hosts = vec![("db".to_owned(), "10.0.0.7".parse().unwrap())];
        let world = StepWorld { hosts, ..StepWorld::default() };
        let text = String::from_utf8(world.hosts("box")).unwrap();
        let expected = "127.0.0.1\tlocalhost box\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                        10.0.0.7\tdb\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_given_replaces_what_the_machine_has_of_it() {
        let machine = "# by hand\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch a b\n\
                       options edns0 trust-ad\n";
        let text = |dns: &Dns| String::from_utf8(dns.resolv_conf(machine.as_bytes())).unwrap();
        let mut dns = Dns::default();
        assert_eq!(text(&dns), machine);
        dns.servers = vec!["9.9.9.9".parse().unwrap(), "::1".parse().unwrap()];
        let expected = "# by hand\nsearch a b\noptions edns0\nnameserver 9.9.9.9\nnameserver ::1\n";
        assert_eq!(text(&dns), expected);
        dns.search = vec!["c".to_owned(), "d".to_owned()];
        dns.options = vec!["ndots:2".to_owned(), "rotate".to_owned()];
        let expected = "# by hand\nnameserver 9.9.9.9\nnameserver ::1\nsearch c d\n\
                        options ndots:2 rotate\n";
        assert_eq!(text(&dns), expected);
        dns.search = vec![".".to_owned()];
        assert!(!text(&dns).contains("search"));
    }
}
