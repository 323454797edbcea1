//! Which host is asked for through which proxy.
//!
//! The rules are those of curl and of Go's `httpproxy`, which every peer follows.

use std::net::IpAddr;

use crate::{ProxyConfig, RegistryError, endpoint};

/// The proxy for a host, if it is to be asked for through one.
///
/// # Errors
///
/// [`RegistryError::Config`] where the proxy's address cannot be understood.
pub(crate) fn proxy_for(
    config: &ProxyConfig,
    is_tls: bool,
    host: &str,
) -> Result<Option<ureq::Proxy>, RegistryError> {
    let Some(url) = url_for(config, is_tls, host) else { return Ok(None) };
    ureq::Proxy::new(url).map(Some).map_err(|_| RegistryError::Config {
        what: format!("the proxy `{}`", without_password(url)),
        problem: "expected `http://[user:password@]host[:port]`, `https://…`, `socks5://…`, \
                  `socks4://…` or `socks4a://…`"
            .to_owned(),
    })
}

/// The proxy for a host as it may be shown.
pub(crate) fn name_for(config: &ProxyConfig, is_tls: bool, host: &str) -> Option<String> {
    url_for(config, is_tls, host).map(without_password)
}

fn url_for<'a>(config: &'a ProxyConfig, is_tls: bool, host: &str) -> Option<&'a str> {
    let (url, standard_port) = if is_tls { (&config.https, 443) } else { (&config.http, 80) };
    let url = url.as_deref().filter(|url| !url.is_empty())?;
    let port = port_of(host).unwrap_or(standard_port);
    (!is_direct(&config.no_proxy, endpoint::host_name(host), port)).then_some(url)
}

/// An address without the user and the password in it.
pub(crate) fn without_password(url: &str) -> String {
    let (scheme, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let hidden = if host.len() < rest.len() { "***@" } else { "" };
    format!("{scheme}{hidden}{host}")
}

fn port_of(host: &str) -> Option<u16> {
    host[endpoint::host_name(host).len()..].strip_prefix(':')?.parse().ok()
}

/// Whether a host is asked for without a proxy.
fn is_direct(no_proxy: &str, name: &str, port: u16) -> bool {
    let name = name.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    endpoint::is_loopback(&name)
        || no_proxy.split(',').map(str::trim).any(|rule| covers(rule, &name, port))
}

fn covers(rule: &str, name: &str, port: u16) -> bool {
    let rule = rule.to_ascii_lowercase();
    if rule == "*" {
        return true;
    }
    let address: Option<IpAddr> = name.parse().ok();
    if let (Some(address), Some((network, length))) = (address, rule.split_once('/')) {
        return is_within(address, network, length);
    }
    let (rule_name, rule_port) = split_port(&rule);
    if rule_name.is_empty() || rule_port.is_some_and(|own| own != port) {
        return false;
    }
    if address.is_some() {
        return rule_name.parse().ok() == address;
    }
    let domain = rule_name.strip_prefix('*').unwrap_or(rule_name);
    match domain.strip_prefix('.') {
        Some(_) => name.ends_with(domain),
        None => name == domain || name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.')),
    }
}

/// A rule's host without brackets, and its port. A colon in a bare IPv6 address begins no port.
fn split_port(rule: &str) -> (&str, Option<u16>) {
    if rule.parse::<IpAddr>().is_ok() {
        return (rule, None);
    }
    let (name, port) = match rule.rsplit_once(':') {
        Some((name, port)) => (name, port.parse().ok()),
        None => (rule, None),
    };
    (name.trim_start_matches('[').trim_end_matches(']'), port)
}

fn is_within(address: IpAddr, network: &str, length: &str) -> bool {
    let Ok(length) = length.parse::<u32>() else { return false };
    let same = |own: u128, other: u128, bits: u32| {
        length <= bits && (own ^ other).checked_shr(bits - length).unwrap_or(0) == 0
    };
    match (address, network.parse()) {
        (IpAddr::V4(own), Ok(IpAddr::V4(net))) => {
            same(u32::from(own).into(), u32::from(net).into(), 32)
        }
        (IpAddr::V6(own), Ok(IpAddr::V6(net))) => same(own.into(), net.into(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_proxy_is_read_as_everywhere() {
        for (no_proxy, host, direct) in [
            ("", "example.com", false),
            ("*", "example.com", true),
            ("example.com", "example.com", true),
            ("example.com", "a.example.com", true),
            ("example.com", "badexample.com", false),
            (".example.com", "example.com", false),
            (".example.com", "a.example.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("x, EXAMPLE.com ", "Example.COM", true),
            ("example.com:5000", "example.com:5000", true),
            ("example.com:5000", "example.com", false),
            ("example.com:443", "example.com", true),
            ("10.0.0.0/8", "10.1.2.3:5000", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/33", "10.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("10.1.2.3", "10.1.2.3:80", true),
            ("fd00::/8", "[fd00::1]:5000", true),
            ("fd00::1", "[fd00::1]", true),
            ("[fd00::1]:80", "[fd00::1]:5000", false),
            ("::/0", "10.1.2.3", false),
            ("", "localhost:5000", true),
            ("", "127.0.0.2", true),
            ("", "[::1]:5000", true),
        ] {
            let proxy = "http://proxy.example:3128".to_owned();
            let config =
                ProxyConfig { https: Some(proxy), no_proxy: no_proxy.to_owned(), http: None };
            let found = proxy_for(&config, true, host).unwrap();
            assert_eq!(found.is_none(), direct, "{host} with `{no_proxy}`");
            assert!(proxy_for(&config, false, host).unwrap().is_none());
        }
    }

    #[test]
    fn passwords_of_proxies_stay_hidden() {
        for (url, shown) in [
            ("http://u:p@q@proxy:3128", "http://***@proxy:3128"),
            ("u:p@proxy", "***@proxy"),
            ("socks5://proxy", "socks5://proxy"),
        ] {
            assert_eq!(without_password(url), shown);
        }
        let config = ProxyConfig { https: Some("ftp://u:p@x".to_owned()), ..Default::default() };
        let error = proxy_for(&config, true, "example.com").unwrap_err();
        assert!(error.to_string().contains("`ftp://***@x`"), "{error}");
        assert!(!format!("{config:?}").contains("u:p"));
    }

    proptest! {
        #[test]
        fn no_setting_makes_it_panic(url in ANY, no_proxy in ANY, host in ANY) {
            let config = ProxyConfig { http: Some(url.clone()), https: Some(url), no_proxy };
            let _ = proxy_for(&config, true, &host);
            without_password(&host);
        }
    }

    const ANY: &str = "(https?://|socks5://|[a-f0-9@:.,*]|[/?#\\[\\]]|.){0,20}";
}
