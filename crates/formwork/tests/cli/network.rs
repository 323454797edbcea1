//! Networks of processes: what they reach, and what they do not.
//!
//! A private network needs `pasta`, and ordinary users need `/dev/net/tun` for it.

use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use formwork_testing::{is_root, program, skipped};

use crate::support::{Ran, Site, on_each_rung_with_namespaces};

/// Runs a test on each rung that can have a private network.
fn where_private(test: impl Fn(&Site)) {
    if program("pasta").is_none() {
        return;
    }
    let tun = Path::new("/dev/net/tun");
    if is_root() && tun.exists() {
        // As distributions have it.
        fs_err::set_permissions(tun, PermissionsExt::from_mode(0o666)).unwrap();
    }
    on_each_rung_with_namespaces(|site| {
        let may_use = fs_err::OpenOptions::new().read(true).write(true).open(tun).is_ok();
        if !may_use {
            return skipped("/dev/net/tun cannot be used");
        }
        if site.make_busybox() {
            test(site);
        }
    });
}

/// The address by which this machine reaches others; nothing is sent.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().unwrap().ip())
}

#[test]
fn a_private_network_is_one_of_its_own_with_a_way_out() {
    if own_address().is_none() {
        return skipped("this machine has no network");
    }
    where_private(|site| {
        let look = "readlink /proc/self/ns/net; ls /sys/class/net; grep -c ^[^I] /proc/net/route";
        let ran = site.run(&["run", "--network=private", "busybox", "sh", "-c", look]);
        let lines: Vec<&str> = ran.lines().collect();
        let ours = fs_err::read_link("/proc/self/ns/net").unwrap();
        assert_ne!(lines[0], ours.to_str().unwrap());
        assert!(lines.len() == 4 && lines[2] == "lo", "{lines:?}");
        // Steps have it, too, also by the environment.
        let dockerfile = "FROM busybox\nRUN readlink /proc/self/ns/net; touch /x\n";
        let mut command = site.build_command(&[], dockerfile);
        let ran = Ran::of(command.env("FORMWORK_NETWORK", "private")).succeeded();
        assert!(!ran.stderr.contains(ours.to_str().unwrap()));
        assert!(site.build(&["--network=private"], dockerfile).executed().is_empty());
    });
}

#[test]
fn what_listens_on_this_machine_cannot_be_reached_from_a_private_network() {
    let name = format!("formwork-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _abstract = UnixListener::bind_addr(&address).unwrap();
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Who has gone away has not reached it.
            let _ = stream.unwrap().write_all(b"reached\n");
        }
    });
    where_private(|site| {
        let own = own_address().map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string());
        let look = format!(
            "gateway=$(route -n | awk '$1 == \"0.0.0.0\" {{ print $2 }}'); \
             for a in 127.0.0.1 {own} $gateway; do nc -w 1 $a {port} </dev/null; done; \
             grep -c {name} /proc/net/unix"
        );
        let script = ["sh", "-c", &look];
        let seen = |network: &str| {
            let run = [&["run", network, "busybox"][..], &script].concat();
            Ran::of(&mut site.formwork(&run)).stdout
        };
        assert_eq!(seen("--network=private"), "0\n");
        assert_eq!(seen("--network=none"), "0\n");
        // The test itself sees what there is to see.
        assert!(seen("--network=host").contains("reached"));
    });
}

#[test]
fn a_private_network_reaches_this_machine_by_the_name_that_the_user_gives_it() {
    if own_address().is_none() {
        return skipped("this machine has no network");
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"reached\n");
        }
    });
    where_private(|site| {
        // Old versions of pasta may lose the end of a connection, or send bytes twice.
        let look = format!(
            "for a in machine 127.0.0.1; do \
             timeout 3 nc -w 3 $a {port} </dev/null 2>/dev/null | grep -q reached && echo $a; done; :"
        );
        for (network, expected) in [("private", "machine\n"), ("host", "machine\n127.0.0.1\n")] {
            let network = format!("--network={network}");
            let options = ["run", &network, "--add-host=machine:host-gateway", "busybox"];
            let ran = Ran::of(&mut site.formwork(&[&options[..], &["sh", "-c", &look]].concat()));
            assert_eq!(ran.stdout, expected, "{network}: {}", ran.stderr);
        }
    });
}

#[test]
fn steps_side_by_side_have_a_private_network_each() {
    where_private(|site| {
        // None ends before all have begun: the kernel gives the numbers of namespaces anew.
        let step = |n| {
            format!(
                "RUN --mount=type=cache,target=/met readlink /proc/self/ns/net > /ns; : > /met/{n}; \
                 grep -q ^[^I] /proc/net/route || exit 1; for turn in $(seq 2000); do \
                 [ $(ls /met | wc -l) -ge 4 ] && exit 0; sleep 0.01; done; false"
            )
        };
        let stages = (0..4).map(|n| format!("FROM busybox AS s{n}\n{}\n", step(n)));
        let copies = (0..4).map(|n| format!("COPY --from=s{n} /ns /{n}\n"));
        let dockerfile = stages.chain(["FROM busybox\n".to_owned()]).chain(copies);
        site.build(
            &["--network=private", "--jobs=4", "-t", "all"],
            &dockerfile.collect::<String>(),
        );
        let seen = site.run(&["run", "all", "sh", "-c", "cat /0 /1 /2 /3"]);
        let different: std::collections::BTreeSet<&str> = seen.lines().collect();
        assert_eq!(different.len(), 4, "{seen}");
    });
}

#[test]
fn what_connects_a_private_network_goes_with_it() {
    where_private(|site| {
        // By another name, since other tests have theirs.
        let own = site.context("../own");
        fs_err::create_dir(&own).unwrap();
        symlink(program("pasta").unwrap(), own.join("pasta")).unwrap();
        let processes = || {
            let all = fs_err::read_dir("/proc").unwrap();
            let commands =
                all.filter_map(|entry| fs_err::read(entry.unwrap().path().join("cmdline")).ok());
            commands.filter(|command| command.starts_with(own.to_str().unwrap().as_bytes())).count()
        };
        let mut command = site.formwork(&[
            "run",
            "--network=private",
            "busybox",
            "sh",
            "-c",
            "echo up; sleep 60",
        ]);
        command.env("PATH", &own).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        assert_ne!(processes(), 0);
        child.kill().unwrap();
        child.wait().unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while processes() > 0 {
            assert!(std::time::Instant::now() < end, "pasta still runs");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}

/// Two machines: one with the program, and behind it one that the first has no route back to. The
/// program is run with the arguments; `pasta` is nowhere.
const MACHINES: &str = "\
ip link set lo up
unshare -n sleep 60 >/dev/null 2>&1 & machine=$!
while [ $(readlink /proc/$machine/ns/net) = $(readlink /proc/self/ns/net) ]; do sleep 0.01; done
ip link add w0 type veth peer name h0 netns $machine
ip addr add 198.51.100.1/24 dev w0
ip link set w0 up
on() { nsenter -t $machine -n \"$@\"; }
on ip link set lo up
on ip addr add 198.51.100.2/24 dev h0
on ip link set h0 up
on ip route add default via 198.51.100.1
if [ -e /proc/sys/net/ipv6 ]; then
    ip addr add 2001:db8::1/64 dev w0 nodad
    on ip addr add 2001:db8::2/64 dev h0 nodad
    on ip route add default via 2001:db8::1
fi
busybox nc -ll -p 7777 -e echo reached >/dev/null 2>&1 &
on busybox nc -ll -p 7777 -e echo machine >/dev/null 2>&1 &
for switch in $FORWARD; do on sh -c \"echo 1 > /proc/sys/net/$switch\"; done
on env PATH=/nowhere \"$@\"
code=$?
for i in $(seq 200); do on ip -o link | grep -q fwk || break; sleep 0.02; done
on ip -o link | grep fwk
exit $code
";

/// Routing between interfaces, as a file below `/proc/sys/net`.
const FORWARD: &str = "ipv4/ip_forward";
const FORWARD_SIX: &str = "ipv6/conf/all/forwarding";

/// A run of the program on the machine of [`MACHINES`].
fn on_a_machine(site: &Site, forward: &str, arguments: &[&str]) -> Option<Ran> {
    for needed in ["ip", "unshare", "nsenter", "busybox"] {
        program(needed)?;
    }
    let formwork = site.formwork(&[]);
    let name = formwork.get_program().to_str().unwrap().to_owned();
    // What is left at the end goes with the namespace of processes.
    let script =
        ["-n", "-p", "--fork", "--kill-child", "--mount-proc", "sh", "-c", MACHINES, "sh", &name];
    let mut command = site.command("unshare", &[&script, arguments].concat());
    command.env("FORWARD", forward).env("FORMWORK_ROOT", site.store());
    Some(Ran::of(&mut command))
}

#[test]
fn root_has_a_private_network_without_pasta_where_the_machine_routes() {
    let Some(site) = Site::as_root() else { return };
    let site = site.with_busybox();
    let look = "nc -w 5 198.51.100.1 7777 </dev/null; \
                gateway=$(route -n | awk '$1 == \"0.0.0.0\" { print $2 }'); \
                for a in 127.0.0.1 198.51.100.2 $gateway; do nc -w 1 $a 7777 </dev/null; done; \
                ls /sys/class/net | tr '\\n' ' '; echo over";
    let run = ["run", "--network=private", "busybox", "sh", "-c", look];
    let Some(ran) = on_a_machine(&site, FORWARD, &run) else { return };
    assert_eq!(ran.succeeded().stdout, "reached\neth0 lo over\n");
    let look = "nc -w 5 machine 7777 </dev/null; nc -w 1 127.0.0.1 7777 </dev/null; echo over";
    let options = ["run", "--network=private", "--add-host=machine:host-gateway"];
    let named = [&options[..], &["busybox", "sh", "-c", look]].concat();
    let Some(ran) = on_a_machine(&site, FORWARD, &named) else { return };
    assert_eq!(ran.succeeded().stdout, "machine\nover\n");
    let Some(ran) = on_a_machine(&site, "", &run) else { return };
    ran.failed(125, "install the package `passt`, or set the sysctl net.ipv4.ip_forward to 1");
}

#[test]
fn a_private_network_of_roots_has_ipv6_where_the_machine_has_and_routes_it() {
    let Some(site) = Site::as_root() else { return };
    if !Path::new("/proc/sys/net/ipv6").exists() {
        return skipped("this kernel has no IPv6");
    }
    let site = site.with_busybox();
    // All that listens on the next link is asked for its address, too: that is this machine.
    let look = "nc -w 5 2001:db8::1 7777 </dev/null; \
                for a in 2001:db8::2 $(ip -6 route | awk '$1 == \"default\" { print $3 }') \
                    $(ping -c 2 -w 1 ff02::1%eth0 | sed -n 's/.* from \\(fe80[0-9a-f:]*\\): seq.*/\\1%eth0/p'); \
                do nc -w 1 $a 7777 </dev/null; done; \
                ip -6 addr show dev eth0 | grep -c fd66; echo over";
    let run = ["run", "--network=private", "busybox", "sh", "-c", look];
    let forward = format!("{FORWARD} {FORWARD_SIX}");
    let Some(ran) = on_a_machine(&site, &forward, &run) else { return };
    assert_eq!(ran.succeeded().stdout, "reached\n1\nover\n");
    let Some(ran) = on_a_machine(&site, FORWARD, &run) else { return };
    assert_eq!(ran.succeeded().stdout, "0\nover\n");
}

#[test]
fn a_private_network_that_cannot_be_is_refused() {
    on_each_rung_with_namespaces(|site| {
        if site.user().is_some() && site.make_busybox() {
            let mut command = site.formwork(&["run", "--network=private", "busybox", "true"]);
            let ran = Ran::of(command.env("PATH", "/nowhere"));
            ran.failed(125, "needs the program `pasta`");
        }
    });
    let site = Site::new().with_busybox();
    let broken = site.context("../bin");
    fs_err::create_dir(&broken).unwrap();
    fs_err::write(broken.join("pasta"), "#!/bin/sh\necho no tap device >&2; exit 3\n").unwrap();
    fs_err::set_permissions(broken.join("pasta"), PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = site.formwork(&["run", "--network=private", "busybox", "true"]);
    let ran = Ran::of(command.env("PATH", &broken));
    ran.failed(125, "makes no private network (exit status: 3): no tap device");
    let mut command = site.formwork(&["run", "busybox", "true"]);
    Ran::of(command.env("FORMWORK_NETWORK", "bridged")).failed(125, "FORMWORK_NETWORK");
}
