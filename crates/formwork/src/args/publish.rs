//! `--publish [ADDRESS:]PORT:PORT[/udp]`, as docker has it.

use std::net::IpAddr;
use std::str::FromStr;

use formwork_build::Port;

/// Ports of this machine that lead to ports of a container; several if they are ranges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published(pub(crate) Vec<Port>);

impl FromStr for Published {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not [ADDRESS:]PORT:PORT[/udp]");
        let (ports, udp) = match text.rsplit_once('/') {
            None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), false),
            Some((ports, "udp")) => (ports, true),
            Some(_) => return Err(wrong()),
        };
        let (outside, inside) = ports
            .rsplit_once(':')
            .ok_or_else(|| format!("{}; say which port of this machine: PORT:{ports}", wrong()))?;
        let (address, outside) = match outside.rsplit_once(':') {
            None => (None, outside),
            Some((address, outside)) => {
                let address = address.trim_start_matches('[').trim_end_matches(']');
                (Some(address.parse::<IpAddr>().map_err(|_| wrong())?), outside)
            }
        };
        let (outside, inside) = (range(outside), range(inside));
        let (Some(outside), Some(inside)) = (outside, inside) else { return Err(wrong()) };
        if outside.len() != inside.len() {
            return Err(format!("{}: the ranges have different lengths", wrong()));
        }
        let pairs = outside.into_iter().zip(inside);
        let port = |(outside, inside)| Port { address, outside, inside, udp };
        Ok(Self(pairs.map(port).collect()))
    }
}

/// The numbers of `80` or `8000-8010`.
fn range(text: &str) -> Option<Vec<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    (first > 0 && first <= last).then(|| (first..=last).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_for_docker() {
        let port = |address: Option<&str>, outside, inside, udp| Port {
            address: address.map(|address| address.parse().unwrap()),
            outside,
            inside,
            udp,
        };
        for (text, ports) in [
            ("8080:80", vec![port(None, 8080, 80, false)]),
            ("8080:80/tcp", vec![port(None, 8080, 80, false)]),
            ("127.0.0.1:53:5353/udp", vec![port(Some("127.0.0.1"), 53, 5353, true)]),
            ("[::1]:1:2", vec![port(Some("::1"), 1, 2, false)]),
            ("5-6:7-8", vec![port(None, 5, 7, false), port(None, 6, 8, false)]),
        ] {
            assert_eq!(text.parse(), Ok(Published(ports)), "{text}");
        }
        for text in ["", "80", "80:", ":80", "0:1", "5-4:5-4", "1-2:1", "x:1:1", "1:2/sctp"] {
            assert!(text.parse::<Published>().is_err(), "{text}");
        }
    }
}
