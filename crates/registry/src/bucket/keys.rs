//! Credentials for buckets: those that somebody has, and those that are lent for some time to a
//! job of a CI, a container or a virtual machine. What is lent is asked for when it is needed, and
//! again before it ends.

use std::io::Read;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use ureq::SendBody;
use ureq::http::{self, StatusCode};

use super::{Bucket, elements, unescaped, words};
use crate::address::{encode, shown};
use crate::transport::{Patience, Site};
use crate::{Secret, text};

/// How long before their end lent credentials are asked for anew, in seconds.
const MARGIN: i64 = 300;
/// The most that an answer with credentials may have.
const LIMIT: u64 = 1 << 20;
/// How long the right to ask a virtual machine's service is asked for, in seconds.
const TOKEN_TIME: &str = "300";

/// Credentials for a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketKey {
    /// What they are called.
    pub id: String,
    /// What is secret about them.
    pub secret: Secret,
    /// What goes with temporary ones.
    pub session: Option<Secret>,
}

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BucketKeys {
    /// From nowhere: nobody in particular asks.
    None,
    /// Somebody has them.
    Own(BucketKey),
    /// A security token service lends them to whoever has a token of a web service that it trusts, such as
    /// a job of a CI (`AssumeRoleWithWebIdentity`).
    WebIdentity {
        /// The address of the service.
        service: String,
        /// The role that they are for.
        role: String,
        /// What the session is called.
        session: String,
        /// The file with the token.
        token: PathBuf,
    },
    /// A service beside the container has them.
    Container {
        /// The address.
        url: String,
        /// What is to be said to it.
        authorization: Option<ContainerToken>,
    },
    /// The service of the virtual machine has them, if there is one.
    Instance {
        /// The address.
        service: String,
    },
}

/// What a container says to the service beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContainerToken {
    /// The text itself.
    Text(Secret),
    /// The file with the text, which changes.
    File(PathBuf),
}

/// Credentials that were lent to this process, with what they were asked for by.
#[derive(Debug, Default)]
pub(crate) struct LentKeys(Mutex<Vec<(BucketKeys, Lent)>>);

#[derive(Clone, Debug)]
struct Lent {
    /// `None` where there is nobody who lends.
    key: Option<BucketKey>,
    /// When they end, in seconds since 1970.
    until: i64,
}

/// Credentials as the services beside containers and of virtual machines write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

impl Bucket<'_> {
    /// The credentials, or in words why they cannot be had.
    pub(super) fn key(&self) -> Result<Option<BucketKey>, String> {
        let keys = &self.config.keys;
        let borrow = || match keys {
            BucketKeys::None | BucketKeys::Own(_) => Ok(Lent { key: None, until: i64::MAX }),
            BucketKeys::WebIdentity { service, role, session, token } => {
                self.of_web_identity(service, role, session, token)
            }
            BucketKeys::Container { url, authorization } => {
                self.of_container(url, authorization.as_ref())
            }
            BucketKeys::Instance { service } => self.of_instance(service),
        };
        if let BucketKeys::Own(key) = keys {
            return Ok(Some(key.clone()));
        }
        // Whoever asks at the same time waits for the same answer.
        let mut lent = self.client.lent_keys().0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = jiff::Timestamp::now().as_second();
        if let Some((_, known)) = lent.iter().find(|(by, _)| by == keys)
            && now < known.until.saturating_sub(MARGIN)
        {
            return Ok(known.key.clone());
        }
        let new = borrow().map_err(|problem| format!("no credentials: {problem}"))?;
        lent.retain(|(by, _)| by != keys);
        lent.push((keys.clone(), new.clone()));
        Ok(new.key)
    }

    fn of_web_identity(
        &self,
        service: &str,
        role: &str,
        session: &str,
        token: &PathBuf,
    ) -> Result<Lent, String> {
        let token = fs_err::read_to_string(token).map_err(|error| error.to_string())?;
        let form = [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", "2011-06-15"),
            ("RoleArn", role),
            ("RoleSessionName", session),
            ("WebIdentityToken", token.trim()),
        ];
        let form = form.map(|(name, value)| format!("{name}={}", encode(value))).join("&");
        let kind = ("content-type", "application/x-www-form-urlencoded");
        let (status, answer) = self.ask("POST", service, &[kind], &form, Patience::Usual)?;
        let part = |name| elements(&answer, name).next().map(unescaped);
        let told = || {
            let told = part("Message").or_else(|| part("Code")).unwrap_or_default();
            format!("{} answered {status} {}", shown(service), text::printable(&told))
        };
        let key = || {
            let (id, secret) = (part("AccessKeyId")?, Secret::new(part("SecretAccessKey")?));
            Some(BucketKey { id, secret, session: part("SessionToken").map(Secret::new) })
        };
        let key = key().filter(|_| status.is_success()).ok_or_else(told)?;
        Ok(Lent { key: Some(key), until: seconds(part("Expiration").as_deref()) })
    }

    fn of_container(
        &self,
        url: &str,
        authorization: Option<&ContainerToken>,
    ) -> Result<Lent, String> {
        let token = match authorization {
            None => None,
            Some(ContainerToken::Text(text)) => Some(text.expose().to_owned()),
            Some(ContainerToken::File(path)) => {
                let token = fs_err::read_to_string(path).map_err(|error| error.to_string())?;
                Some(token.trim().to_owned())
            }
        };
        let headers: Vec<_> = token.iter().map(|token| ("authorization", &**token)).collect();
        let (status, answer) = self.ask("GET", url, &headers, "", Patience::Near)?;
        lent(&answer)
            .filter(|_| status.is_success())
            .ok_or_else(|| format!("{} answered {status} and no credentials", shown(url)))
    }

    /// The credentials of a virtual machine (its service, version 2), if there is one that has any.
    fn of_instance(&self, service: &str) -> Result<Lent, String> {
        let nobody = Ok(Lent { key: None, until: i64::MAX });
        let time = [("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_TIME)];
        let token = format!("{service}/latest/api/token");
        let token = match self.ask("PUT", &token, &time, "", Patience::Near) {
            Ok((StatusCode::OK, token)) => token,
            // No such service, or it is switched off.
            _ => return nobody,
        };
        let base = format!("{service}/latest/meta-data/iam/security-credentials/");
        let said = [("x-aws-ec2-metadata-token", token.trim())];
        let (status, roles) = self.ask("GET", &base, &said, "", Patience::Near)?;
        let Some(role) = roles.lines().next().filter(|_| status.is_success()) else {
            return nobody;
        };
        let url = format!("{base}{}", encode(role.trim()));
        let (status, answer) = self.ask("GET", &url, &said, "", Patience::Near)?;
        lent(&answer).ok_or_else(|| format!("{} answered {status} and no credentials", shown(&url)))
    }

    /// Sends a request to a service that lends; its answer, whatever that says.
    fn ask(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
        patience: Patience,
    ) -> Result<(StatusCode, String), String> {
        let unusable = || format!("{} cannot be asked", shown(url));
        let site = url.parse().ok().and_then(|uri| Site::of(&uri)).ok_or_else(unusable)?;
        let mut request = http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if method != "GET" {
            request = request.header(http::header::CONTENT_LENGTH, body.len());
        }
        let send = |body: SendBody<'_>| {
            let request = request.body(body).map_err(|_| unusable())?;
            let answer = self.client.transport().send(&site, request, patience);
            answer.map_err(|trouble| format!("{}: {}", shown(url), words(trouble)))
        };
        let answer = match method {
            "GET" => send(SendBody::none())?,
            _ => send(SendBody::from_reader(&mut body.as_bytes()))?,
        };
        let status = answer.status();
        let mut told = String::new();
        let read = answer.into_body().into_reader().take(LIMIT).read_to_string(&mut told);
        read.map_err(|error| format!("{}: {error}", shown(url)))?;
        Ok((status, told))
    }
}

fn lent(json: &str) -> Option<Lent> {
    let document: Document = serde_json::from_str(json).ok()?;
    let Document { access_key_id: id, secret_access_key, token, expiration } = document;
    let (secret, session) = (Secret::new(secret_access_key), token.map(Secret::new));
    let until = seconds(expiration.as_deref());
    Some(Lent { key: Some(BucketKey { id, secret, session }), until })
}

/// When something ends, in seconds since 1970.
fn seconds(time: Option<&str>) -> i64 {
    let time = time.and_then(|text| text.parse::<jiff::Timestamp>().ok());
    time.map_or(i64::MAX, jiff::Timestamp::as_second)
}
