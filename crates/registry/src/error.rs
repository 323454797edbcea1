//! What can go wrong with a registry, and the way out of it.
//!
//! No message ever contains a password, a token, or the query of an address (which carries the
//! signature of a storage service).

use std::fmt;
use std::io;
use std::time::Duration;

use formwork_oci::Platform;

use crate::text;

/// What is done by somebody who logs in.
pub(crate) const LOGIN: &str = "log in to";

/// Why a registry could not be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A configuration file or a setting that cannot be used.
    Config {
        /// The file or setting.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// `registries.conf` forbids the registry.
    Blocked {
        /// The repository that was asked for.
        repository: String,
        /// The entry's prefix.
        prefix: String,
        /// The file with the entry.
        file: String,
    },
    /// The registry cannot be reached, or the connection broke and could not be mended.
    Connection {
        /// What was tried.
        attempt: Box<Attempt>,
        /// What happened, such as `the connection was refused`.
        problem: String,
        /// What the user can do.
        way_out: String,
        /// Whether there was a connection at all.
        established: bool,
    },
    /// The registry's certificate cannot be trusted, or there is no common ground for TLS.
    Tls {
        /// What was tried.
        attempt: Box<Attempt>,
        /// What is wrong.
        problem: String,
        /// What the user can do.
        way_out: String,
    },
    /// 401 or 403: the registry wants other credentials, or hides what is not there.
    Unauthorized {
        /// What was tried.
        attempt: Box<Attempt>,
        /// What the registry said.
        answer: Answer,
        /// Where credentials were looked for, and what came of it, a clause each.
        credentials: Vec<String>,
    },
    /// 404: the registry has no such thing.
    NotFound {
        /// What was tried.
        attempt: Box<Attempt>,
        /// What the registry said.
        answer: Answer,
    },
    /// 429: the registry wants to be asked less often.
    RateLimited {
        /// What was tried.
        attempt: Box<Attempt>,
        /// What the registry said.
        answer: Answer,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// Whether the request carried no credentials.
        anonymous: bool,
    },
    /// Any other status that is no success.
    Status {
        /// What was tried.
        attempt: Box<Attempt>,
        /// What the registry said.
        answer: Answer,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The registry sent something that it must not send: wrong bytes, too many, no JSON.
    Invalid {
        /// What was tried.
        attempt: Box<Attempt>,
        /// What is wrong with it.
        problem: String,
    },
    /// The image exists, though not for the platform.
    NoPlatform {
        /// What was tried.
        attempt: Box<Attempt>,
        /// The platform that was asked for.
        wanted: Box<Platform>,
        /// The platforms that there are.
        available: Vec<Platform>,
    },
    /// The registry has something under the name that is no image which formwork can use.
    Unsupported {
        /// What was tried.
        attempt: Box<Attempt>,
        /// What it is.
        problem: String,
    },
    /// The caller's side failed: what was pulled could not be written, what was to be pushed could
    /// not be read.
    Local {
        /// What was tried.
        attempt: Box<Attempt>,
        /// What failed.
        source: io::Error,
    },
}

/// What was tried, and with whom.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What was tried, as an infinitive such as `pull`.
    pub action: &'static str,
    /// On what: an image, or a layer of a repository.
    pub subject: String,
    /// The registry that was asked: a host, with its port if it is not the standard one.
    pub registry: String,
    /// Which part the one who answered has in it, such as `a mirror of docker.io`; `None` for the
    /// registry itself.
    pub role: Option<String>,
    /// How the mirrors that were asked before failed, a clause each.
    pub mirrors: Vec<String>,
}

/// What a registry said to a request that it did not fulfil.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The registry's own words, without control characters and of bounded length; may be empty.
    pub text: String,
}

impl RegistryError {
    /// Whether the same request may well succeed a little later: a broken connection, 408, 429 and
    /// most of 5xx.
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::RateLimited { .. } => true,
            Self::Status { answer, .. } => {
                answer.status == 408 || (answer.status >= 500 && answer.status != 501)
            }
            _ => false,
        }
    }

    /// Whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// How long the registry asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Status { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }

    /// What was tried, unless the configuration forbade to try.
    pub fn attempt(&self) -> Option<&Attempt> {
        match self {
            Self::Config { .. } | Self::Blocked { .. } => None,
            Self::Connection { attempt, .. }
            | Self::Tls { attempt, .. }
            | Self::Unauthorized { attempt, .. }
            | Self::NotFound { attempt, .. }
            | Self::RateLimited { attempt, .. }
            | Self::Status { attempt, .. }
            | Self::Invalid { attempt, .. }
            | Self::NoPlatform { attempt, .. }
            | Self::Unsupported { attempt, .. }
            | Self::Local { attempt, .. } => Some(attempt),
        }
    }

    /// The cause alone, without what was tried and without the way out.
    pub(crate) fn cause(&self) -> String {
        match self {
            Self::Config { what, problem } => format!("cannot use {what}: {problem}"),
            Self::Blocked { repository, prefix, file } => format!(
                "`{repository}` is blocked: the entry for `{prefix}` in {file} has `blocked = true`"
            ),
            Self::Connection { problem, .. } | Self::Tls { problem, .. } => problem.clone(),
            Self::Unauthorized { answer, .. }
            | Self::NotFound { answer, .. }
            | Self::RateLimited { answer, .. }
            | Self::Status { answer, .. } => format!("answered {answer}"),
            Self::Invalid { problem, .. } => format!("sent {problem}"),
            Self::NoPlatform { wanted, available, .. } => match available.as_slice() {
                [] => "has an index without any image".to_owned(),
                some => format!("has no image for {wanted}, only for {}", list(some)),
            },
            Self::Unsupported { problem, .. } => format!("has {problem}"),
            Self::Local { source, .. } => source.to_string(),
        }
    }

    fn way_out(&self) -> String {
        match self {
            Self::Config { .. } | Self::Unsupported { .. } | Self::Local { .. } => String::new(),
            Self::Blocked { .. } => {
                "remove the line if the registry is meant to be used".to_owned()
            }
            Self::Connection { way_out, .. } | Self::Tls { way_out, .. } => way_out.clone(),
            Self::Unauthorized { attempt, credentials, .. } => unauthorized(attempt, credentials),
            Self::NotFound { attempt, .. } => not_found(attempt).to_owned(),
            Self::RateLimited { attempt, retry_after, anonymous, .. } => {
                rate_limited(attempt, *retry_after, *anonymous)
            }
            Self::Status { answer, .. } => for_status(answer.status).to_owned(),
            Self::Invalid { .. } => "something between here and the registry may have changed it: \
                                     try again, or ask whoever runs the registry"
                .to_owned(),
            Self::NoPlatform { available, .. } if available.is_empty() => {
                "check the name and the tag".to_owned()
            }
            Self::NoPlatform { .. } => {
                "choose one of these with `--platform`, or another image".to_owned()
            }
        }
    }
}

fn unauthorized(attempt: &Attempt, credentials: &[String]) -> String {
    let host = &attempt.registry;
    let searched = credentials.join("; ");
    let separator = if searched.is_empty() { "" } else { "; " };
    if attempt.action == LOGIN {
        return format!("{searched}{separator}check the user and the password");
    }
    format!(
        "{searched}{separator}log in with `formwork login {host}`, or check the name: registries \
         also answer like this where there is no such repository"
    )
}

fn not_found(attempt: &Attempt) -> &'static str {
    match attempt.subject.contains('@') {
        true => "it may have been deleted, or be in another repository",
        false => {
            "check the name and the tag; a private repository also answers like this to somebody \
             who may not read it"
        }
    }
}

fn rate_limited(attempt: &Attempt, retry_after: Option<Duration>, anonymous: bool) -> String {
    let wait = match retry_after {
        Some(wait) => format!("it asks to wait {} s", wait.as_secs()),
        None => "it does not say how long to wait".to_owned(),
    };
    let host = &attempt.registry;
    match anonymous {
        true => format!(
            "{wait}; log in with `formwork login {host}`, which raises the limit, or name a mirror \
             in registries.conf"
        ),
        false => format!("{wait}; try again later, or name a mirror in registries.conf"),
    }
}

fn for_status(status: u16) -> &'static str {
    match status {
        413 => {
            "the registry, or a proxy before it, limits the size of a blob: raise that limit \
             (`client_max_body_size` in nginx)"
        }
        400 | 405 | 415 => "the registry may be too old for what was sent, or be no registry",
        401 | 403 => {
            "the address that the registry gave for it is not accepted: check this machine's \
             clock, and try again"
        }
        501 => "the registry does not know how to do this",
        500.. => "the registry is in trouble: try again later",
        _ => "ask whoever runs the registry",
    }
}

fn list(platforms: &[Platform]) -> String {
    let shown = |platform: &Platform| text::printable(&platform.to_string());
    platforms.iter().map(shown).collect::<Vec<_>>().join(", ")
}

impl Attempt {
    /// The same, with another part of the registry.
    pub(crate) fn in_role(&self, role: String) -> Self {
        Self { role: Some(role), ..self.clone() }
    }

    /// Who was asked.
    fn asked(&self) -> String {
        match &self.role {
            Some(role) => format!("{} ({role})", self.registry),
            None => self.registry.clone(),
        }
    }
}

impl fmt::Display for RegistryError {
    /// What was tried, the cause, the way out, and what mirrors had said before.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, self.attempt()) {
            (Self::Local { .. }, Some(attempt)) => write!(f, "{attempt}: ")?,
            (_, Some(attempt)) => write!(f, "{attempt}: {} ", attempt.asked())?,
            (_, None) => {}
        }
        f.write_str(&self.cause())?;
        match self.way_out() {
            way_out if way_out.is_empty() => {}
            way_out => write!(f, "; {way_out}")?,
        }
        match self.attempt().map(|attempt| attempt.mirrors.as_slice()) {
            None | Some([]) => Ok(()),
            Some(mirrors) => write!(f, " (before that: {})", mirrors.join("; ")),
        }
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} `{}`", self.action, self.subject)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        let status = ureq::http::StatusCode::from_u16(self.status).ok();
        if let Some(reason) = status.and_then(|status| status.canonical_reason()) {
            write!(f, " {reason}")?;
        }
        if self.text.is_empty() { Ok(()) } else { write!(f, ": {}", self.text) }
    }
}

#[cfg(test)]
impl Attempt {
    /// Some attempt.
    pub(crate) fn for_tests() -> Self {
        Self {
            action: "pull",
            subject: "r.example/app:1".to_owned(),
            registry: "r.example".to_owned(),
            role: None,
            mirrors: Vec::new(),
        }
    }
}
