//! Ports of this machine that lead to other ports of it, for containers that share its network.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Shutdown, TcpListener, TcpStream};

use formwork_build::Port;

use crate::exit::Failure;

/// Listens on the ports as long as the program runs. A port that leads to itself needs nobody.
pub(crate) fn forward(ports: &[Port]) -> Result<(), Failure> {
    for port in ports.iter().filter(|port| port.outside != port.inside) {
        if port.udp {
            return Err(Failure::usage("a UDP port can only be published on a private network")
                .with_help("install `pasta` (package `passt`), and leave out `--network=host`"));
        }
        let address = port.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let listener = TcpListener::bind((address, port.outside)).map_err(|error| {
            Failure::machine(format!("cannot publish the port {}: {error}", port.outside))
        })?;
        let inside = port.inside;
        let serve = move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away, or a service that is not there, concerns nobody else.
                // So does one for whom the machine has no thread.
                let _ = std::thread::Builder::new().spawn(move || drop(join(stream, inside)));
            }
        };
        std::thread::Builder::new().spawn(serve).map_err(Failure::without_threads)?;
    }
    Ok(())
}

/// Passes on what both sides of a connection say, until both have ended.
fn join(outer: TcpStream, port: u16) -> io::Result<()> {
    let inner = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    let (from, to) = (outer.try_clone()?, inner.try_clone()?);
    let there = std::thread::Builder::new().spawn(move || pass(from, to))?;
    let back = pass(inner, outer);
    drop(there.join());
    back
}

fn pass(mut from: TcpStream, mut to: TcpStream) -> io::Result<()> {
    io::copy(&mut from, &mut to)?;
    to.flush()?;
    to.shutdown(Shutdown::Write)
}
