//! What Amazon's tools know of the user of a bucket: variables, and the profiles of `~/.aws`.
//!
//! Looks where those tools look, in their order: the options, the environment, a token of a CI
//! (`AWS_WEB_IDENTITY_TOKEN_FILE`), the profile, the service beside the container, that of the
//! virtual machine. Nothing is asked of a service here.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use formwork_build::{BucketKey, BucketKeys, ContainerToken, Secret};
use serde_json::Value;

use crate::exit::Failure;

/// The service beside a container of Amazon's.
const CONTAINER: &str = "http://169.254.170.2";
/// The service of a virtual machine of Amazon's.
const INSTANCE: &str = "http://169.254.169.254";

/// What there is to look at.
pub(crate) struct Surroundings<'a> {
    /// A variable of the environment, if it is set and not empty.
    pub(crate) variable: &'a dyn Fn(&str) -> Option<String>,
    /// The user's own directory.
    pub(crate) home: Option<&'a Path>,
}

/// The settings of a profile.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    name: String,
    settings: BTreeMap<String, String>,
}

impl Surroundings<'_> {
    /// The profile that is chosen; an empty one if there is none.
    pub(crate) fn profile(&self) -> Result<Profile, Failure> {
        let chosen = self.first(&["AWS_PROFILE", "AWS_DEFAULT_PROFILE"]);
        let name = chosen.clone().unwrap_or_else(|| "default".to_owned());
        let heading = if name == "default" { name.clone() } else { format!("profile {name}") };
        let config = self.file("AWS_CONFIG_FILE", "config")?;
        let credentials = self.file("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let parts = [section(&config, &heading), section(&credentials, &name)];
        if let Some(name) = chosen.filter(|_| parts.iter().all(Option::is_none)) {
            return Err(Failure::usage(format!(
                "there is no profile `{name}` for Amazon's services"
            ))
            .with_help("AWS_PROFILE names one of `~/.aws/config` or `~/.aws/credentials`"));
        }
        Ok(Profile { name, settings: parts.into_iter().flatten().flatten().collect() })
    }

    /// Where the credentials are; the profile is the last place for those that somebody has.
    /// `is_elsewhere` says that the service is not Amazon's own.
    pub(crate) fn keys(
        &self,
        profile: &Profile,
        region: &str,
        is_elsewhere: bool,
    ) -> Result<BucketKeys, Failure> {
        let variable = |name: &str| (self.variable)(name);
        let (id, secret) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
        if let Some(key) = pair(id, secret, variable("AWS_SESSION_TOKEN"))? {
            return Ok(BucketKeys::Own(key));
        }
        let token = variable("AWS_WEB_IDENTITY_TOKEN_FILE");
        if let Some((token, role)) = token.zip(variable("AWS_ROLE_ARN")) {
            let session = variable("AWS_ROLE_SESSION_NAME");
            return Ok(self.web_identity(token.into(), role, session, region));
        }
        if let Some(keys) = self.keys_of(profile, region)? {
            return Ok(keys);
        }
        let address = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
            .map(|path| format!("{CONTAINER}{path}"))
            .or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"));
        if let Some(url) = address {
            let file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
            let file = file.map(|path| ContainerToken::File(path.into()));
            let text = || variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
            let text = || text().map(|text| ContainerToken::Text(Secret::new(text)));
            return Ok(BucketKeys::Container { url, authorization: file.or_else(text) });
        }
        let service = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let is_off = variable("AWS_EC2_METADATA_DISABLED")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Ok(match service {
            _ if is_off => BucketKeys::None,
            Some(service) => {
                BucketKeys::Instance { service: service.trim_end_matches('/').to_owned() }
            }
            // Elsewhere there is no such service, and nobody wants to wait for it.
            None if is_elsewhere => BucketKeys::None,
            None => BucketKeys::Instance { service: INSTANCE.to_owned() },
        })
    }

    fn keys_of(&self, profile: &Profile, region: &str) -> Result<Option<BucketKeys>, Failure> {
        let get = |name: &str| profile.get(name);
        let (id, secret) = (get("aws_access_key_id"), get("aws_secret_access_key"));
        if let Some(key) = pair(id, secret, get("aws_session_token"))? {
            return Ok(Some(BucketKeys::Own(key)));
        }
        if let Some((token, role)) = get("web_identity_token_file").zip(get("role_arn")) {
            let session = get("role_session_name");
            return Ok(Some(self.web_identity(token.into(), role, session, region)));
        }
        if let Some(command) = get("credential_process") {
            return of_process(&command).map(|key| Some(BucketKeys::Own(key)));
        }
        let strange = ["sso_session", "sso_start_url", "role_arn", "credential_source"];
        match strange.into_iter().find(|name| get(name).is_some()) {
            None => Ok(None),
            Some(setting) => {
                let name = &profile.name;
                let message =
                    format!("the profile `{name}` has `{setting}`, which is not understood");
                Err(Failure::usage(message).with_help(format!(
                    "let Amazon's program find the credentials: `credential_process = aws configure \
                     export-credentials --profile {name}` in a profile of its own, or `eval \"$(aws \
                     configure export-credentials --profile {name} --format env)\"`"
                )))
            }
        }
    }

    fn web_identity(
        &self,
        token: PathBuf,
        role: String,
        session: Option<String>,
        region: &str,
    ) -> BucketKeys {
        let service = self.first(&["AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL"]);
        BucketKeys::WebIdentity {
            service: service.unwrap_or_else(|| format!("https://sts.{region}.amazonaws.com/")),
            role,
            session: session.unwrap_or_else(|| "formwork".to_owned()),
            token,
        }
    }

    /// The first of some variables that is set.
    pub(crate) fn first(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| (self.variable)(name))
    }

    /// A file that a variable names, or else one of `~/.aws`; empty if it is not there.
    fn file(&self, variable: &str, name: &str) -> Result<String, Failure> {
        let own = || self.home.map(|home| home.join(".aws").join(name));
        let Some(path) = (self.variable)(variable).map(PathBuf::from).or_else(own) else {
            return Ok(String::new());
        };
        match fs_err::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            result => result.map_err(Failure::usage_error),
        }
    }
}

impl Profile {
    /// A setting, if it is there and not empty.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.settings.get(name).filter(|value| !value.is_empty()).cloned()
    }
}

/// Credentials of which both halves are there; neither, if none is.
pub(crate) fn pair(
    id: Option<String>,
    secret: Option<String>,
    session: Option<String>,
) -> Result<Option<BucketKey>, Failure> {
    match (id, secret) {
        (Some(id), Some(secret)) => {
            let (secret, session) = (Secret::new(secret), session.map(Secret::new));
            Ok(Some(BucketKey { id, secret, session }))
        }
        (None, None) => Ok(None),
        _ => Err(Failure::usage("of the credentials for S3 one half is missing")
            .with_help("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")),
    }
}

/// The settings of a section, if there is one of that name. Those of settings, which are indented,
/// are left out.
fn section(text: &str, name: &str) -> Option<BTreeMap<String, String>> {
    let mut found = None;
    let mut is_here = false;
    for line in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        if let Some(heading) = line.trim().strip_prefix('[') {
            let heading = heading.split(']').next().unwrap_or_default();
            is_here = heading.split_whitespace().eq(name.split_whitespace());
            if is_here {
                found.get_or_insert_with(BTreeMap::new);
            }
        } else if let (true, Some((key, value))) = (is_here, line.split_once('='))
            && !line.starts_with([' ', '\t'])
            && let Some(found) = &mut found
        {
            found.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

/// The credentials that a program of the user's prints.
fn of_process(command: &str) -> Result<BucketKey, Failure> {
    let failed = |problem: String| {
        Failure::usage(format!("`credential_process` gives no credentials: {problem}"))
    };
    let output = Command::new("sh").args(["-c", command]).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let told = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}, {}", output.status, told.trim())));
    }
    let said: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| failed(format!("it prints no JSON ({error})")))?;
    let part = |name: &str| said[name].as_str().map(str::to_owned);
    let key = pair(part("AccessKeyId"), part("SecretAccessKey"), part("SessionToken"))?;
    key.ok_or_else(|| failed("there are none in what it prints".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where credentials come from, with some variables and files in `~/.aws`.
    fn found(
        variables: &[(&str, &str)],
        config: &str,
        credentials: &str,
    ) -> Result<String, Failure> {
        let home = tempfile::tempdir().unwrap();
        fs_err::create_dir(home.path().join(".aws")).unwrap();
        fs_err::write(home.path().join(".aws/config"), config).unwrap();
        fs_err::write(home.path().join(".aws/credentials"), credentials).unwrap();
        let variable = |name: &str| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let around = Surroundings { variable: &variable, home: Some(home.path()) };
        let profile = around.profile()?;
        let region = profile.get("region").unwrap_or_else(|| "eu-1".to_owned());
        Ok(match around.keys(&profile, &region, false)? {
            BucketKeys::None => "none".to_owned(),
            BucketKeys::Own(key) => {
                let session = key.session.as_ref().map(Secret::expose).unwrap_or_default();
                format!("{} {} {session}", key.id, key.secret.expose())
            }
            BucketKeys::WebIdentity { service, role, session, token } => {
                format!("{service} {role} {session} {}", token.display())
            }
            BucketKeys::Container { url, authorization } => format!("{url} {authorization:?}"),
            BucketKeys::Instance { service } => service,
        })
    }

    const CONFIG: &str = "\
# a comment\n[default]\nregion = eu-2\n[profile work]\nregion=us-1\ns3 =\n  region = no\n\
[profile ci]\nrole_arn = arn:role\nweb_identity_token_file = /token\n\
[profile process]\ncredential_process = echo '{\"Version\": 1, \"AccessKeyId\": \"p\", \"SecretAccessKey\": \"q\"}'\n\
[profile broken]\ncredential_process = echo no >&2; exit 3\n\
[profile sso]\nsso_session = company\n";
    const CREDENTIALS: &str = "\
[default]\naws_access_key_id = a\naws_secret_access_key = b\n\
[ work ]\naws_access_key_id = c\naws_secret_access_key = d\naws_session_token = e\n";

    #[test]
    fn credentials_are_found_where_amazons_tools_find_them() {
        let (id, secret) = (("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y"));
        let token = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/t"), ("AWS_ROLE_ARN", "arn:r")];
        let sts = ("AWS_ENDPOINT_URL_STS", "http://sts");
        for (variables, expected) in [
            (&[][..], "a b "),
            (&[id, secret], "x y "),
            (&[id, secret, ("AWS_SESSION_TOKEN", "z")], "x y z"),
            (&[("AWS_PROFILE", "work")], "c d e"),
            (&[("AWS_PROFILE", "work"), id, secret], "x y "),
            (&token, "https://sts.eu-2.amazonaws.com/ arn:r formwork /t"),
            (&[token[0], token[1], sts], "http://sts arn:r formwork /t"),
            (&[("AWS_PROFILE", "ci")], "https://sts.eu-1.amazonaws.com/ arn:role formwork /token"),
            (&[("AWS_PROFILE", "process")], "p q "),
        ] {
            let keys = found(variables, CONFIG, CREDENTIALS).unwrap();
            assert_eq!(keys, expected, "{variables:?}");
        }
        let off = ("AWS_EC2_METADATA_DISABLED", "true");
        for (variables, expected) in [
            (&[][..], INSTANCE),
            (&[off], "none"),
            (&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://here/")], "http://here"),
            (&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/me")], "http://169.254.170.2/me None"),
            (
                &[
                    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://pod/me"),
                    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/t"),
                ],
                "http://pod/me Some(File(\"/t\"))",
            ),
        ] {
            assert_eq!(found(variables, "", "").unwrap(), expected, "{variables:?}");
        }
    }

    #[test]
    fn what_is_half_there_is_told() {
        for variables in [
            [("AWS_ACCESS_KEY_ID", "x")],
            [("AWS_PROFILE", "absent")],
            [("AWS_PROFILE", "broken")],
            [("AWS_PROFILE", "sso")],
        ] {
            assert!(found(&variables, CONFIG, CREDENTIALS).is_err(), "{variables:?}");
        }
    }
}
