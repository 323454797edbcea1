//! `EXPOSE`: ports as the configuration has them.
//!
//! As docker's `nat` package normalises them: `8000-8002/TCP` becomes three entries with `/tcp`,
//! leading zeros go, the protocol is `tcp` where there is none, and whatever stands before the
//! last colon (an address, a port of the host) is dropped.

/// The entries of one word of `EXPOSE`.
///
/// # Errors
///
/// Says what is wrong, as the end of a sentence that begins with the word.
pub(crate) fn expand(word: &str) -> Result<Vec<String>, &'static str> {
    let (ports, protocol) = match word.rsplit_once('/') {
        Some((ports, protocol)) => (ports, protocol.to_ascii_lowercase()),
        None => (word, "tcp".to_owned()),
    };
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err("has a protocol that is none of tcp, udp and sctp");
    }
    let ports = ports.rsplit(':').next().unwrap_or(ports);
    let (first, last) = match ports.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(ports)?, port(ports)?),
    };
    if first > last {
        return Err("is a range whose end comes before its start");
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn port(text: &str) -> Result<u16, &'static str> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| text.trim_start_matches('0'));
    match number {
        Some("") => Ok(0),
        Some(digits) => digits.parse().map_err(|_| "is not a port between 0 and 65535"),
        None => Err("is not a port, a range of ports, or either with a protocol"),
    }
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn ports_are_normalised() {
        for (word, ports) in [
            ("80", "80/tcp"),
            ("0080", "80/tcp"),
            ("443/TCP", "443/tcp"),
            ("53/udp", "53/udp"),
            ("8000-8002", "8000/tcp 8001/tcp 8002/tcp"),
            ("127.0.0.1:80:8080", "8080/tcp"),
        ] {
            assert_eq!(expand(word).unwrap().join(" "), ports);
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for word in ["", "http", "80/", "80/icmp", "65536", "5-3", "-", "1-", "8 0", "+5"] {
            assert!(expand(word).is_err(), "{word}");
        }
    }
}
