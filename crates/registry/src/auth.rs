//! Authentication to one host: which way it wants, and the tokens that it gave.
//!
//! The distribution project's token specification, its OAuth2 variant, and RFC 7617 (Basic).
//! Credentials are looked for when the host first answers 401, and are sent only to that host and
//! to the token server that it names; never to storage that it redirects to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use ureq::http::{HeaderMap, HeaderValue, Method, header};

use crate::challenge::{self, Challenge};
use crate::credentials::{Credential, Search, Secret};
use crate::endpoint::Endpoint;
use crate::session::{Payload, Request, Session};
use crate::{RegistryError, address, text};

/// The name that token servers see; the specification wants one.
const CLIENT_ID: &str = "formwork";

/// How long a token holds whose server does not say so (token specification, `expires_in`).
const DEFAULT_LIFETIME: u64 = 60;

/// How much earlier than it says a token is renewed, so that it does not expire on its way.
const MARGIN: Duration = Duration::from_secs(10);

/// The most that a token server may answer.
const TOKEN_LIMIT: u64 = 1 << 20;

/// What is known about authenticating to one host.
#[derive(Debug, Default)]
pub(crate) struct Auth {
    scheme: Mutex<Option<Scheme>>,
    /// What was found for which path.
    searches: Mutex<HashMap<String, Arc<Search>>>,
    /// Each behind a lock of its own, so that one thread asks for a token and the others wait.
    tokens: Mutex<HashMap<Scope, Arc<Mutex<Option<Token>>>>>,
    /// Who refused which credentials.
    refusals: Mutex<Vec<(String, String)>>,
}

/// What a token is to allow.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Scope {
    /// The repository's path.
    pub(crate) path: String,
    /// Whether to push as well as to pull.
    pub(crate) push: bool,
    /// A repository to mount a blob from.
    pub(crate) mount_from: Option<String>,
}

/// The way that a host wants.
#[derive(Clone, Debug)]
enum Scheme {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

#[derive(Clone, Debug)]
struct Token {
    value: HeaderValue,
    expires: Instant,
}

impl Scope {
    /// What a token server is asked for; nothing for who only wants to be known.
    fn words(&self) -> Vec<String> {
        if self.path.is_empty() {
            return Vec::new();
        }
        let actions = if self.push { "pull,push" } else { "pull" };
        let own = format!("repository:{}:{actions}", self.path);
        let from = self.mount_from.as_ref().map(|path| format!("repository:{path}:pull"));
        [own].into_iter().chain(from).collect()
    }
}

impl Auth {
    /// The `Authorization` of a request, as far as can be told before the host answers.
    pub(crate) fn authorization(
        &self,
        session: &Session<'_>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let scheme = lock(&self.scheme).clone();
        match scheme {
            None => Ok(None),
            Some(Scheme::Basic) => self.basic(session),
            Some(Scheme::Bearer { realm, service }) => {
                let server = TokenServer { auth: self, session, realm, service };
                self.token(&server, &[], None).map(Some)
            }
        }
    }

    /// The `Authorization` that a 401 asks for; `None` where there is none but the one that was
    /// `used` in vain.
    pub(crate) fn answer(
        &self,
        session: &Session<'_>,
        headers: &HeaderMap,
        used: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let challenges = challenges(session, headers)?;
        let bearer = challenges.iter().find(|challenge| challenge.scheme == "bearer");
        let basic = challenges.iter().any(|challenge| challenge.scheme == "basic");
        let authorization = match bearer {
            Some(bearer) => {
                let server = TokenServer::of(self, session, bearer)?;
                *lock(&self.scheme) = Some(server.scheme());
                let scopes: Vec<&str> =
                    bearer.param("scope").unwrap_or_default().split_whitespace().collect();
                Some(self.token(&server, &scopes, used)?)
            }
            None if basic => {
                *lock(&self.scheme) = Some(Scheme::Basic);
                self.basic(session)?
            }
            None => return Err(unknown_scheme(session, &challenges)),
        };
        let is_new = authorization.as_ref() != used;
        if !is_new {
            self.note_refusal(session, &session.endpoint.registry)?;
        }
        Ok(authorization.filter(|_| is_new))
    }

    /// Where credentials were looked for, and what came of it, a clause each.
    pub(crate) fn notes(&self, endpoint: &Endpoint) -> Vec<String> {
        let Some(search) = lock(&self.searches).get(&endpoint.path).cloned() else {
            return Vec::new();
        };
        let Some((_, origin)) = &search.found else { return search.notes.clone() };
        let refusals = lock(&self.refusals);
        let own = refusals.iter().filter(|(_, refused)| refused == origin);
        let notes: Vec<String> = own.map(|(by, _)| format!("{by} refused {origin}")).collect();
        if notes.is_empty() { vec![format!("{origin} do not allow it")] } else { notes }
    }

    /// Whether there are credentials that were sent.
    pub(crate) fn has_credential(&self, endpoint: &Endpoint) -> bool {
        let searches = lock(&self.searches);
        searches.get(&endpoint.path).is_some_and(|search| search.found.is_some())
    }

    fn basic(&self, session: &Session<'_>) -> Result<Option<HeaderValue>, RegistryError> {
        let search = self.search(session)?;
        let Some((credential, _)) = &search.found else { return Ok(None) };
        match credential {
            Credential::RegistryToken(token) => header(session, "Bearer ", token).map(Some),
            other => other.basic().map(|basic| header(session, "", &basic)).transpose(),
        }
    }

    fn search(&self, session: &Session<'_>) -> Result<Arc<Search>, RegistryError> {
        let Endpoint { registry, path, .. } = &session.endpoint;
        // Held during the search, so that no helper is asked twice.
        let mut searches = lock(&self.searches);
        if let Some(search) = searches.get(path) {
            return Ok(search.clone());
        }
        let search = Arc::new(session.config.credentials.search(registry, path)?);
        searches.insert(path.clone(), search.clone());
        Ok(search)
    }

    fn note_refusal(&self, session: &Session<'_>, by: &str) -> Result<(), RegistryError> {
        if let Some((_, origin)) = &self.search(session)?.found {
            let refusal = (by.to_owned(), origin.clone());
            let mut refusals = lock(&self.refusals);
            if !refusals.contains(&refusal) {
                refusals.push(refusal);
            }
        }
        Ok(())
    }

    /// A token that is not the `stale` one, from an earlier request or from the server.
    fn token(
        &self,
        server: &TokenServer<'_>,
        more_scopes: &[&str],
        stale: Option<&HeaderValue>,
    ) -> Result<HeaderValue, RegistryError> {
        let slot = lock(&self.tokens).entry(server.session.scope.clone()).or_default().clone();
        let mut slot = lock(&slot);
        match &*slot {
            Some(token) if Some(&token.value) != stale && token.expires > Instant::now() => {
                Ok(token.value.clone())
            }
            _ => {
                let token = server.ask(more_scopes)?;
                Ok(slot.insert(token).value.clone())
            }
        }
    }
}

/// Who gives tokens for a host.
struct TokenServer<'a> {
    auth: &'a Auth,
    session: &'a Session<'a>,
    realm: String,
    service: Option<String>,
}

impl<'a> TokenServer<'a> {
    fn of(
        auth: &'a Auth,
        session: &'a Session<'a>,
        bearer: &Challenge,
    ) -> Result<Self, RegistryError> {
        let realm = bearer.param("realm").unwrap_or_default();
        // Checked here, so that no later step sends a credential anywhere unsafe.
        session.site_of(realm, &session.site()?)?;
        let service = bearer.param("service").map(str::to_owned);
        Ok(Self { auth, session, realm: realm.to_owned(), service })
    }

    fn scheme(&self) -> Scheme {
        Scheme::Bearer { realm: self.realm.clone(), service: self.service.clone() }
    }

    /// The server's host.
    fn host(&self) -> String {
        let uri = self.realm.parse::<ureq::http::Uri>().ok();
        uri.and_then(|uri| uri.authority().map(ToString::to_string)).unwrap_or_default()
    }

    fn ask(&self, more_scopes: &[&str]) -> Result<Token, RegistryError> {
        let mut scopes = self.session.scope.words();
        let more = more_scopes.iter().map(|scope| (*scope).to_owned());
        scopes.extend(more.filter(|scope| !scopes.contains(scope)).collect::<Vec<_>>());
        let search = self.auth.search(self.session)?;
        let with_credential = match &search.found {
            None => return self.get(&scopes, None),
            Some((Credential::RegistryToken(token), _)) => return self.given(token),
            Some((credential @ Credential::Login { .. }, _)) => {
                self.get(&scopes, credential.basic().as_ref())
            }
            Some((credential @ Credential::IdentityToken { token, .. }, _)) => {
                self.refresh(&scopes, token, credential.basic().as_ref())
            }
        };
        match with_credential {
            Err(error) if is_refusal(&error) => self.refused(error, &scopes),
            result => result,
        }
    }

    /// Goes on without credentials that were refused: old ones are no reason not to pull what
    /// everybody may pull.
    fn refused(&self, error: RegistryError, scopes: &[String]) -> Result<Token, RegistryError> {
        self.auth.note_refusal(self.session, &self.host())?;
        let error = match error {
            RegistryError::Unauthorized { answer, attempt, .. } => {
                let credentials = self.auth.notes(&self.session.endpoint);
                RegistryError::Unauthorized { answer, attempt, credentials }
            }
            other => other,
        };
        match self.session.scope.push {
            true => Err(error),
            false => self.get(scopes, None).map_err(|_| error),
        }
    }

    /// The token specification's way.
    fn get(&self, scopes: &[String], basic: Option<&Secret>) -> Result<Token, RegistryError> {
        let mut url = self.realm.clone();
        if let Some(service) = &self.service {
            url = address::with_param(&url, "service", service);
        }
        for scope in scopes {
            url = address::with_param(&url, "scope", scope);
        }
        if basic.is_some() {
            url = address::with_param(&url, "client_id", CLIENT_ID);
        }
        let basic = basic.map(|basic| header(self.session, "", basic)).transpose()?;
        self.send(&Request::new(Method::GET, url), basic.as_ref())
    }

    /// The OAuth2 way, for refresh tokens. A server that does not know it is given the token as a
    /// password, which those servers take.
    fn refresh(
        &self,
        scopes: &[String],
        token: &Secret,
        basic: Option<&Secret>,
    ) -> Result<Token, RegistryError> {
        let service = self.service.as_deref().unwrap_or_default();
        let form = [
            ("grant_type", "refresh_token"),
            ("service", service),
            ("client_id", CLIENT_ID),
            ("scope", &scopes.join(" ")),
            ("refresh_token", token.expose()),
        ]
        .map(|(name, value)| format!("{name}={}", address::encode(value)))
        .join("&");
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        let request = Request::new(Method::POST, self.realm.clone())
            .with(header::CONTENT_TYPE, kind)
            .sending(Payload::Bytes(form.as_bytes()));
        match (self.send(&request, None), basic) {
            (Err(error), Some(basic)) if is_refusal(&error) => {
                self.get(scopes, Some(basic)).map_err(|_| error)
            }
            (result, _) => result,
        }
    }

    /// A token that the user has already.
    fn given(&self, token: &Secret) -> Result<Token, RegistryError> {
        let value = header(self.session, "Bearer ", token)?;
        // The host itself tells when it is over.
        Ok(Token { value, expires: Instant::now() + Duration::from_secs(86_400) })
    }

    fn send(
        &self,
        request: &Request<'_>,
        basic: Option<&HeaderValue>,
    ) -> Result<Token, RegistryError> {
        let session = self.session.in_role(format!("its token server {}", self.host()));
        let origin = session.site_of(&self.realm, &session.site()?)?;
        let response = session.follow(request, &origin, basic)?;
        if !response.status.is_success() {
            return Err(session.refused(response));
        }
        let bytes = response.document(&session, "a token", TOKEN_LIMIT)?;
        read_token(&session, &bytes)
    }
}

/// Whether a token server does not like what it was given.
fn is_refusal(error: &RegistryError) -> bool {
    match error {
        RegistryError::Unauthorized { .. } | RegistryError::NotFound { .. } => true,
        RegistryError::Status { answer, .. } => (400..500).contains(&answer.status),
        _ => false,
    }
}

/// Reads a token server's answer. The message about a broken one must not quote it.
fn read_token(session: &Session<'_>, bytes: &[u8]) -> Result<Token, RegistryError> {
    #[derive(Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<Value>,
    }
    let answer: Option<Answer> = serde_json::from_slice(bytes).ok();
    let given = |token: Option<String>| token.filter(|token| !token.is_empty());
    let (token, lifetime) = answer
        .and_then(|answer| {
            let token = given(answer.token).or(given(answer.access_token))?;
            Some((Secret::new(token), answer.expires_in))
        })
        .ok_or_else(|| session.invalid("an answer without a token"))?;
    // Some servers write the number as a fraction, or as text.
    let lifetime = match &lifetime {
        Some(Value::Number(seconds)) => seconds.as_f64().map(|seconds| seconds as u64),
        Some(Value::String(seconds)) => seconds.parse().ok(),
        _ => None,
    };
    let lifetime = lifetime.filter(|seconds| *seconds > 0).unwrap_or(DEFAULT_LIFETIME);
    let lifetime = Duration::from_secs(lifetime.min(86_400));
    let margin = MARGIN.min(lifetime / 2);
    let value = header(session, "Bearer ", &token)?;
    Ok(Token { value, expires: Instant::now() + lifetime - margin })
}

/// The challenges of an answer. A header that cannot be read is passed over if another one can.
fn challenges(session: &Session<'_>, headers: &HeaderMap) -> Result<Vec<Challenge>, RegistryError> {
    let mut challenges = Vec::new();
    let mut unreadable = None;
    for value in headers.get_all(header::WWW_AUTHENTICATE) {
        match value.to_str().ok().and_then(challenge::parse) {
            Some(read) => challenges.extend(read),
            None => unreadable = Some(String::from_utf8_lossy(value.as_bytes())),
        }
    }
    match unreadable {
        Some(header) if challenges.is_empty() => Err(session.invalid(format!(
            "an unreadable header: `WWW-Authenticate: {}`",
            text::printable(&header)
        ))),
        _ => Ok(challenges),
    }
}

fn unknown_scheme(session: &Session<'_>, challenges: &[Challenge]) -> RegistryError {
    let schemes: Vec<String> = challenges
        .iter()
        .map(|challenge| format!("`{}`", text::printable(&challenge.scheme)))
        .collect();
    match schemes.is_empty() {
        true => session.invalid("401 without saying how to authenticate (WWW-Authenticate)"),
        false => session.invalid(format!(
            "a demand to authenticate by {}, of which only `bearer` and `basic` are possible",
            schemes.join(", ")
        )),
    }
}

/// A header's value that is not shown in messages.
fn header(
    session: &Session<'_>,
    prefix: &str,
    secret: &Secret,
) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::from_str(&format!("{prefix}{}", secret.expose()))
        .map_err(|_| session.invalid("a token with characters that no header may have"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole at any moment, also if another thread panicked.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
