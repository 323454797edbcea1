//! The way out through a pair of interfaces with address translation, for real root.
//!
//! A process of ours makes the pair and the packet filter, and stays: the kernel removes the filter
//! with the process (`NFT_TABLE_F_OWNER`, Linux 5.12) and the pair with the network namespace, so
//! nothing of it outlives the sandbox, whatever is killed. Routing between interfaces has to be
//! switched on already: that is for the machine's owner to decide. IPv6 comes along where the machine
//! has it and routes it, too.

mod addresses;
mod filter;
mod interfaces;

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink as protocols;
use rustix::process::{Pid, Signal};

use super::netlink::Netlink;
use super::{Connected, GO, HOST};
use crate::sys::{self, Fork};
use crate::{SandboxError, Stage};
use addresses::Ends;

/// What begins the names of our interfaces on this machine.
const PREFIX: &str = "fwk";
/// The name of the interface in the sandbox.
const INSIDE: &str = "eth0";

/// Starts it for the network namespace of a process, which it tells when it is ready.
pub(super) fn start(host: bool, pid: Pid, tell: OwnedFd) -> Result<Connected, SandboxError> {
    let parent = rustix::process::getpid();
    let fork =
        sys::fork(0).map_err(|errno| SandboxError::setup(Stage::Network, "the way out", errno))?;
    match fork {
        Fork::Parent(pid, process) => Ok(Connected { pid, process }),
        Fork::Child => {
            serve(host, pid, (parent, tell));
            sys::exit(0)
        }
    }
}

fn serve(host: bool, pid: Pid, (parent, tell): (Pid, OwnedFd)) {
    let bound = sys::end_with(parent, Signal::KILL);
    if bound.is_err() || sys::close_all_but(&[tell.as_fd()]).is_err() {
        return;
    }
    let connected = connect(host, pid);
    let word = match &connected {
        Ok(_) => vec![GO],
        Err(problem) => problem.clone().into_bytes(),
    };
    let _ = rustix::io::write(&tell, &word);
    drop(tell);
    // The filter lasts as long as the connection that has made it.
    while connected.is_ok() {
        rustix::event::pause();
    }
}

/// Makes the way out; returns what has to be kept for it.
fn connect(host: bool, pid: Pid) -> Result<Netlink, String> {
    if !is_on("/proc/sys/net/ipv4/ip_forward") {
        return Err(
            "without `pasta`, a private network needs routing between interfaces, which is \
                    switched off here: install the package `passt`, or set the sysctl \
                    net.ipv4.ip_forward to 1"
                .to_owned(),
        );
    }
    let failed = |what: &'static str| {
        move |errno: Errno| {
            format!("cannot {what} of a private network ({errno}); install the package `passt`")
        }
    };
    let number = rustix::process::getpid().as_raw_nonzero().get().unsigned_abs();
    let name = format!("{PREFIX}{number}");
    let routes = fs_err::read_to_string("/proc/net/route").unwrap_or_default();
    let four = addresses::free(&routes, number)
        .ok_or("this machine has routes to all networks that a private one could be")?;
    let six = has_ipv6().then(|| four.sixth());
    let (filter, six) = make_filter(&name, four, six).map_err(failed("make the filter"))?;
    let ends: Vec<Ends> = [Some(four), six].into_iter().flatten().collect();
    let outside = interfaces::open().map_err(failed("make the interfaces"))?;
    outside.make_pair(&name, pid).map_err(failed("make the interfaces"))?;
    let mut addresses: Vec<(IpAddr, u8)> = ends.iter().map(Ends::outer).collect();
    addresses.extend(host.then_some((HOST.into(), 32)));
    outside.set_up(&name, &addresses).map_err(failed("set up the outer interface"))?;
    interfaces::enter(pid).map_err(failed("enter the namespace"))?;
    let inside = interfaces::open().map_err(failed("set up the interface"))?;
    let addresses: Vec<(IpAddr, u8)> = ends.iter().map(Ends::inner).collect();
    inside.set_up(INSIDE, &addresses).map_err(failed("set up the interface"))?;
    for end in &ends {
        inside.lead_to(INSIDE, end.outside).map_err(failed("set up the route"))?;
    }
    Ok(filter)
}

/// Makes the filter, also for IPv6 if the kernel can; returns for which ends that is.
fn make_filter(
    name: &str,
    four: Ends,
    six: Option<Ends>,
) -> Result<(Netlink, Option<Ends>), Errno> {
    let make = |ends: &[Ends]| {
        let filter = Netlink::open(Some(protocols::NETFILTER))?;
        let (rules, answers) = filter::rules(name, ends);
        filter.order(rules, answers).map(|()| filter)
    };
    match six.map(|six| make(&[four, six])) {
        Some(Ok(filter)) => Ok((filter, six)),
        // Its part for the translation of IPv6 may be missing.
        Some(Err(_)) | None => Ok((make(&[four])?, None)),
    }
}

/// Whether this machine has an address in the world of IPv6, and routes between interfaces there.
fn has_ipv6() -> bool {
    let known = fs_err::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    is_on("/proc/sys/net/ipv6/conf/all/forwarding") && addresses::reach_the_world(&known)
}

/// Whether a switch of the kernel's is on.
fn is_on(path: &str) -> bool {
    fs_err::read(path).unwrap_or_default().starts_with(b"1")
}
