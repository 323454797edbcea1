//! What an error of HTTP means to the user, in words.

use std::error::Error as _;
use std::io;

use rustls::CertificateError;
use ureq::Timeout;

use crate::error::Attempt;
use crate::transport::Site;
use crate::{RegistryConfig, RegistryError, proxy, text, tls};

/// Why there is no answer, or not the whole of it.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// No connection, or no more.
    Connection { problem: String, way_out: String, established: bool },
    /// No TLS, or not with whom it should be.
    Tls { problem: String, way_out: String },
    /// An answer that is no HTTP.
    Invalid { problem: String },
    /// The request could not even be tried.
    Config(RegistryError),
}

impl Trouble {
    /// What an error means that a site caused. `place` is where a certificate for it belongs.
    pub(crate) fn of(
        error: ureq::Error,
        site: &Site,
        config: &RegistryConfig,
        place: &str,
    ) -> Self {
        match error {
            ureq::Error::Timeout(timeout) => of_timeout(timeout, config),
            ureq::Error::Io(error) => of_io(error, site, config, place),
            ureq::Error::HostNotFound => unresolved("there is no address for it", config),
            ureq::Error::Other(error) => match error.downcast_ref() {
                Some(error) => of_tls(error, site, place),
                None => unreachable(error.to_string()),
            },
            ureq::Error::ConnectProxyFailed(problem) => {
                let problem = text::printable(&problem);
                Self::Connection {
                    problem: format!(
                        "is not let through by {}: {problem}",
                        proxy_name(site, config)
                    ),
                    way_out: "check the proxy, or add the registry to NO_PROXY".to_owned(),
                    established: false,
                }
            }
            ureq::Error::BadUri(uri) => Self::Invalid {
                problem: format!("an address that is none: `{}`", text::printable(&uri)),
            },
            error => {
                let problem = text::printable(&error.to_string());
                Self::Invalid { problem: format!("an answer that is no HTTP: {problem}") }
            }
        }
    }

    /// The error of an attempt.
    pub(crate) fn during(self, attempt: Attempt) -> RegistryError {
        let attempt = Box::new(attempt);
        match self {
            Self::Connection { problem, way_out, established } => {
                RegistryError::Connection { attempt, problem, way_out, established }
            }
            Self::Tls { problem, way_out } => RegistryError::Tls { attempt, problem, way_out },
            Self::Invalid { problem } => RegistryError::Invalid { attempt, problem },
            Self::Config(error) => error,
        }
    }

    /// A connection that broke after it had been made.
    pub(crate) fn broken(problem: String) -> Self {
        Self::Connection {
            problem,
            way_out: "the network or the registry is in trouble: try again later".to_owned(),
            established: true,
        }
    }
}

fn of_timeout(timeout: Timeout, config: &RegistryConfig) -> Trouble {
    let limits = config.timeouts;
    match timeout {
        Timeout::Resolve => {
            let seconds = limits.connect.as_secs_f32();
            unresolved(&format!("there was no answer within {seconds} s"), config)
        }
        Timeout::Connect => {
            let seconds = limits.connect.as_secs_f32();
            unreachable(format!("there was no connection within {seconds} s"))
        }
        _ => Trouble::broken(format!("said nothing for {} s", limits.silence.as_secs_f32())),
    }
}

fn of_io(error: io::Error, site: &Site, config: &RegistryConfig, place: &str) -> Trouble {
    use io::ErrorKind as Kind;
    if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        return of_tls(error, site, place);
    }
    // The standard library has no kind for this.
    let message = error.to_string();
    if let Some(reason) = message.strip_prefix("failed to lookup address information: ") {
        return unresolved(reason, config);
    }
    match error.kind() {
        Kind::ConnectionRefused
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::AddrNotAvailable
        | Kind::NetworkDown => unreachable(reason(&error)),
        Kind::UnexpectedEof
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::NotConnected => Trouble::broken("broke off the connection".to_owned()),
        _ => Trouble::broken(format!("cannot be spoken to any more: {}", reason(&error))),
    }
}

/// The message of an error without the number at its end.
fn reason(error: &io::Error) -> String {
    let message = error.to_string();
    let bare = message.split(" (os error").next().unwrap_or_default();
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    text::printable(&format!("{bare}{cause}").to_lowercase())
}

fn unreachable(reason: String) -> Trouble {
    Trouble::Connection {
        problem: format!("cannot be reached: {reason}"),
        way_out: "check its name and port, the network, and whether a proxy is needed \
                  (HTTPS_PROXY)"
            .to_owned(),
        established: false,
    }
}

fn unresolved(reason: &str, config: &RegistryConfig) -> Trouble {
    let proxied = config.proxy.https.is_some() || config.proxy.http.is_some();
    let way_out = match proxied {
        true => "check its name, the name of the proxy, and the network (DNS)",
        false => {
            "check its name and the network (DNS), and whether a proxy is needed (HTTPS_PROXY)"
        }
    };
    Trouble::Connection {
        problem: format!(
            "cannot be found: its name cannot be resolved: {}",
            text::printable(reason)
        ),
        way_out: way_out.to_owned(),
        established: false,
    }
}

fn proxy_name(site: &Site, config: &RegistryConfig) -> String {
    let url = if site.is_tls { &config.proxy.https } else { &config.proxy.http };
    let url = url.as_deref().map(proxy::without_password);
    url.map_or("the proxy".to_owned(), |url| format!("the proxy `{url}`"))
}

fn of_tls(error: &rustls::Error, site: &Site, place: &str) -> Trouble {
    use rustls::Error as Tls;
    let host = &site.host;
    let or_insecure = "or declare the registry insecure (`insecure = true` in registries.conf)";
    let (problem, way_out) = match error {
        Tls::InvalidCertificate(certificate) if !tls::is_authority(error) => {
            of_certificate(certificate, host, place, or_insecure)
        }
        Tls::InvalidCertificate(_) => (
            "has the certificate of an authority (CA:TRUE) as its own".to_owned(),
            format!("put that certificate into `{place}`, {or_insecure}"),
        ),
        Tls::InvalidMessage(_) => (
            "does not answer in TLS".to_owned(),
            "if it speaks plain HTTP, declare it insecure (`insecure = true` in registries.conf)"
                .to_owned(),
        ),
        Tls::AlertReceived(alert) => (
            format!("refuses the TLS connection: {alert:?}"),
            "it may want a client certificate, or be too old".to_owned(),
        ),
        error => (
            format!("cannot be spoken to in TLS: {}", text::printable(&error.to_string())),
            "the registry, or a proxy before it, may be too old".to_owned(),
        ),
    };
    Trouble::Tls { problem, way_out }
}

fn of_certificate(
    error: &CertificateError,
    host: &str,
    place: &str,
    or_insecure: &str,
) -> (String, String) {
    match error {
        CertificateError::UnknownIssuer => (
            "has a certificate of an authority that is not trusted".to_owned(),
            format!(
                "put the authority's certificate into `{place}` or into the file that \
                 SSL_CERT_FILE names, {or_insecure}"
            ),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            format!("has a certificate that is not for the name `{host}`"),
            "use the name that the certificate is for, or have one made for this name".to_owned(),
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            "has a certificate that has expired".to_owned(),
            "have it renewed, and check this machine's clock".to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            "has a certificate that is not valid yet".to_owned(),
            "check this machine's clock".to_owned(),
        ),
        error => (
            format!("has a certificate that is not valid: {}", text::printable(&error.to_string())),
            format!("have it renewed, {or_insecure}"),
        ),
    }
}
