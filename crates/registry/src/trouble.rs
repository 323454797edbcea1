//! What an error of HTTP means to the user, in words.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use rustls::CertificateError;
use ureq::Timeout;

use crate::error::Attempt;
use crate::{RegistryError, Timeouts, text, tls};

/// Why there is no answer, or not the whole of it.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// No connection, or no more.
    Connection { problem: String, way_out: String, established: bool },
    /// No TLS, or not with whom it should be.
    Tls { problem: String, way_out: String },
    /// An answer that is no HTTP, or says what it must not.
    Invalid { problem: String },
    /// The request could not even be tried.
    Config(RegistryError),
}

/// What one has to know to explain an error.
#[derive(Debug)]
pub(crate) struct Circumstances<'a> {
    /// The host that was spoken to.
    pub(crate) host: &'a str,
    /// The proxy that it was spoken to through, without its password.
    pub(crate) proxy: Option<String>,
    /// The file in which a certificate for the host belongs.
    pub(crate) certificate: String,
    /// How long was waited.
    pub(crate) timeouts: Timeouts,
}

impl Trouble {
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
    pub(crate) fn broken(problem: impl Into<String>) -> Self {
        Self::Connection {
            problem: problem.into(),
            way_out: "the network or the registry is in trouble: try again later".to_owned(),
            established: true,
        }
    }
}

impl Circumstances<'_> {
    /// What an error means under these circumstances.
    pub(crate) fn explain(&self, error: ureq::Error) -> Trouble {
        match error {
            ureq::Error::Timeout(timeout) => self.timeout(timeout),
            ureq::Error::Io(error) => self.io(&error),
            ureq::Error::HostNotFound => self.unresolved("there is no address for it"),
            ureq::Error::Other(error) => match error.downcast_ref() {
                Some(error) => self.tls(error),
                None => self.unreachable(&error.to_string()),
            },
            ureq::Error::ConnectProxyFailed(problem) => self.unreachable(&problem),
            error => {
                let problem = text::printable(&error.to_string());
                Trouble::Invalid { problem: format!("an answer that is no HTTP: {problem}") }
            }
        }
    }

    fn timeout(&self, timeout: Timeout) -> Trouble {
        let seconds = |wait: Duration| format!("{} s", wait.as_secs_f32());
        let connect = seconds(self.timeouts.connect);
        match timeout {
            Timeout::Resolve => self.unresolved(&format!("there was no answer within {connect}")),
            Timeout::Connect => {
                self.unreachable(&format!("there was no connection within {connect}"))
            }
            _ => Trouble::broken(format!("said nothing for {}", seconds(self.timeouts.silence))),
        }
    }

    fn io(&self, error: &io::Error) -> Trouble {
        use io::ErrorKind as Kind;
        if let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
            return self.tls(error);
        }
        // The standard library has no kind for this.
        let message = error.to_string();
        if let Some(reason) = message.strip_prefix("failed to lookup address information: ") {
            return self.unresolved(reason);
        }
        match error.kind() {
            Kind::ConnectionRefused
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::AddrNotAvailable
            | Kind::NetworkDown => self.unreachable(&reason(error)),
            Kind::UnexpectedEof
            | Kind::ConnectionReset
            | Kind::ConnectionAborted
            | Kind::BrokenPipe
            | Kind::NotConnected => Trouble::broken("broke off the connection"),
            _ => Trouble::broken(format!("cannot be spoken to any more: {}", reason(error))),
        }
    }

    fn unreachable(&self, reason: &str) -> Trouble {
        let reason = text::printable(reason);
        let (problem, way_out) = match &self.proxy {
            Some(proxy) => (
                format!("cannot be reached through the proxy `{proxy}`: {reason}"),
                "check the proxy, or except the registry from it (NO_PROXY)",
            ),
            None => (
                format!("cannot be reached: {reason}"),
                "check its name and port, the network, and whether a proxy is needed (HTTPS_PROXY)",
            ),
        };
        Trouble::Connection { problem, way_out: way_out.to_owned(), established: false }
    }

    /// With a proxy, it is the proxy's name that was looked for.
    fn unresolved(&self, reason: &str) -> Trouble {
        self.unreachable(&format!("the name cannot be resolved (DNS): {reason}"))
    }

    fn tls(&self, error: &rustls::Error) -> Trouble {
        use rustls::Error as Tls;
        let (problem, way_out) = match error {
            Tls::InvalidCertificate(_) if tls::is_authority(error) => (
                "has the certificate of an authority (CA:TRUE) as its own".to_owned(),
                format!("put that certificate into `{}`, {OR_INSECURE}", self.certificate),
            ),
            Tls::InvalidCertificate(certificate) => self.certificate(certificate),
            Tls::InvalidMessage(_) => (
                "does not answer in TLS".to_owned(),
                format!("if it speaks plain HTTP, {INSECURE}"),
            ),
            Tls::AlertReceived(alert) => (
                format!("refuses the TLS connection: {alert:?}"),
                format!(
                    "it may want a client certificate (`client.cert` and `client.key` beside \
                     `{}`), or be too old",
                    self.certificate
                ),
            ),
            error => (
                format!("cannot be spoken to in TLS: {}", text::printable(&error.to_string())),
                "the registry, or a proxy before it, may be too old".to_owned(),
            ),
        };
        Trouble::Tls { problem, way_out }
    }

    fn certificate(&self, error: &CertificateError) -> (String, String) {
        match error {
            CertificateError::UnknownIssuer => (
                "has a certificate of an authority that is not trusted".to_owned(),
                format!(
                    "put the authority's certificate into `{}` or into the file that \
                     SSL_CERT_FILE names, {OR_INSECURE}",
                    self.certificate
                ),
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (
                    format!("has a certificate that is not for the name `{}`", self.host),
                    "use the name that the certificate is for, or have one made for this name"
                        .to_owned(),
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                "has a certificate that has expired".to_owned(),
                "have it renewed, and check this machine's clock".to_owned(),
            ),
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
                "has a certificate that is not valid yet".to_owned(),
                "check this machine's clock".to_owned(),
            ),
            error => (
                format!(
                    "has a certificate that is not valid: {}",
                    text::printable(&error.to_string())
                ),
                format!("have it renewed, {OR_INSECURE}"),
            ),
        }
    }
}

const INSECURE: &str = "declare it insecure (`insecure = true` in registries.conf)";
const OR_INSECURE: &str = "or declare the registry insecure (`insecure = true` in registries.conf)";

/// The message of an error without the number at its end.
fn reason(error: &io::Error) -> String {
    let message = error.to_string();
    let bare = message.split(" (os error").next().unwrap_or_default();
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    text::printable(&format!("{bare}{cause}").to_lowercase())
}
