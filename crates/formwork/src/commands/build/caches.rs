//! `--cache-from`, `--cache-to` and their like: where steps and cache mounts travel. It only reads
//! what was said.

use std::collections::BTreeMap;
use std::time::Duration;

use formwork_build::{
    BucketConfig, BucketKey, BucketPlace, CacheFrom, CacheMode, CachePlace, CacheTo, Secret,
};

use super::outputs;
use crate::args::{Pairs, duration};
use crate::exit::Failure;
use crate::settings::variable;

/// What a cache in a directory is called if nothing is said.
const DEFAULT_NAME: &str = "buildcache";
/// What may be said of a bucket.
const BUCKET_KEYS: [&str; 9] = [
    "bucket",
    "region",
    "prefix",
    "name",
    "endpoint_url",
    "use_path_style",
    "access_key_id",
    "secret_access_key",
    "session_token",
];
/// How long the name of a cache may be: more is added to it, and a tag has at most 128 characters.
const LONGEST_NAME: usize = 80;

/// The caches to look into.
pub(super) fn cache_from(option: &str, all: &[Pairs]) -> Result<Vec<CacheFrom>, Failure> {
    let one = |pairs: &Pairs| {
        let keys = Keys { option, directory: "src", more: &["timeout"] };
        let place = keys.place(pairs)?;
        Ok(CacheFrom { place, timeout: timeout(pairs, CacheFrom::TIMEOUT)? })
    };
    all.iter().map(one).collect()
}

/// The caches that get the steps.
pub(super) fn cache_to(option: &str, all: &[Pairs]) -> Result<Vec<CacheTo>, Failure> {
    let more =
        ["mode", "timeout", "ignore-error", "compression", "compression-level", "oci-mediatypes"];
    let one = |pairs: &Pairs| {
        let keys = Keys { option, directory: "dest", more: &more };
        let place = keys.place(pairs)?;
        let mode = match pairs.get("mode") {
            None | Some("min") => CacheMode::Min,
            Some("max") => CacheMode::Max,
            Some(other) => {
                return Err(Failure::usage(format!("there is no mode `{other}` of a cache"))
                    .with_help("there are min and max"));
            }
        };
        if pairs.flag("oci-mediatypes").map_err(Failure::usage)? == Some(false) {
            return Err(Failure::usage("a cache always has OCI media types"));
        }
        let is_packed_so = pairs.keys().any(|key| key.starts_with("compression"));
        let compression = is_packed_so.then(|| outputs::compression(pairs)).transpose()?;
        let ignore_error = pairs.flag("ignore-error").map_err(Failure::usage)?.unwrap_or(true);
        let timeout = timeout(pairs, CacheTo::TIMEOUT)?;
        Ok(CacheTo { place, mode, compression, ignore_error, timeout })
    };
    all.iter().filter(|pairs| pairs.get("type") != Some("inline")).map(one).collect()
}

/// Whether the image itself is to get the steps: asked for by `type=inline`, or by BuildKit's
/// argument.
pub(super) fn is_inline(all: &[Pairs], build_args: &BTreeMap<String, String>) -> bool {
    let argument = build_args.get("BUILDKIT_INLINE_CACHE");
    all.iter().any(|pairs| pairs.get("type") == Some("inline"))
        || argument.is_some_and(|value| matches!(value.as_str(), "1" | "true"))
}

/// A place that gets or gives one thing, as `formwork mounts` has it.
pub(crate) fn place(option: &str, directory: &str, pairs: &Pairs) -> Result<CachePlace, Failure> {
    Keys { option, directory, more: &[] }.place(pairs)
}

/// What an option may say.
struct Keys<'a> {
    option: &'a str,
    /// The key of a directory.
    directory: &'a str,
    more: &'a [&'a str],
}

impl Keys<'_> {
    fn place(&self, pairs: &Pairs) -> Result<CachePlace, Failure> {
        if let Some(name) = pairs.single() {
            return self.registry(name);
        }
        let needs = |key: &str| {
            let kind = pairs.get("type").unwrap_or_default();
            Failure::usage(format!("`{} type={kind}` needs a `{key}`", self.option))
        };
        let (place, own): (_, &[&str]) = match pairs.get("type") {
            Some("registry") => {
                (self.registry(pairs.get("ref").ok_or_else(|| needs("ref"))?)?, &["ref"])
            }
            Some("local") => {
                let directory = pairs.get(self.directory).filter(|path| !path.is_empty());
                let directory = directory.ok_or_else(|| needs(self.directory))?;
                let name = pairs.get("tag").unwrap_or(DEFAULT_NAME);
                self.check_name(name)?;
                let place = CachePlace::Directory(directory.into(), name.to_owned());
                (place, &["src", "dest", "tag"])
            }
            Some("s3") => (self.bucket(pairs)?, &BUCKET_KEYS),
            Some(other) => {
                let message = format!("there is no type `{other}` of `{}`", self.option);
                return Err(Failure::usage(message).with_help("there are registry, local and s3"));
            }
            None => return Err(Failure::usage(format!("`{}` needs a `type`", self.option))),
        };
        let known: Vec<&str> = ["type"].iter().chain(own).chain(self.more).copied().collect();
        match pairs.unknown(&known) {
            None => Ok(place),
            Some(key) => Err(Failure::usage(format!("`{}` has no `{key}` here", self.option))
                .with_help(format!("it has {}", known.join(", ")))),
        }
    }

    fn registry(&self, name: &str) -> Result<CachePlace, Failure> {
        let wrong =
            |problem: String| Failure::usage(format!("`{} {name}`: {problem}", self.option));
        let reference: formwork_oci::Reference =
            name.parse().map_err(|error| wrong(format!("{error}")))?;
        if reference.digest().is_some() {
            return Err(wrong("a cache changes, so it has no digest".to_owned()));
        }
        self.check_name(reference.tag().unwrap_or_default())?;
        Ok(CachePlace::Registry(reference))
    }

    /// A bucket; what is not said is taken from the environment, as Amazon's tools do.
    fn bucket(&self, pairs: &Pairs) -> Result<CachePlace, Failure> {
        let given = |key: &str, variables: &[&str]| {
            let own = pairs.get(key).map(str::to_owned).filter(|value| !value.is_empty());
            own.or_else(|| variables.iter().find_map(|name| variable(name)))
        };
        let needs =
            |key: &str| Failure::usage(format!("`{} type=s3` needs a `{key}`", self.option));
        let region = given("region", &["AWS_REGION", "AWS_DEFAULT_REGION"]);
        let id = given("access_key_id", &["AWS_ACCESS_KEY_ID"]);
        let secret = given("secret_access_key", &["AWS_SECRET_ACCESS_KEY"]);
        let session = given("session_token", &["AWS_SESSION_TOKEN"]).map(Secret::new);
        let key = match (id, secret) {
            (Some(id), Some(secret)) => {
                Some(BucketKey { id, secret: Secret::new(secret), session })
            }
            (None, None) => None,
            _ => {
                return Err(Failure::usage("of the credentials for S3 one half is missing")
                    .with_help("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
            }
        };
        let name = pairs.get("name").unwrap_or(DEFAULT_NAME).to_owned();
        self.check_name(&name)?;
        let bucket = BucketConfig {
            endpoint: given("endpoint_url", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]),
            region: region.ok_or_else(|| needs("region"))?,
            bucket: given("bucket", &["AWS_BUCKET"]).ok_or_else(|| needs("bucket"))?,
            path_style: pairs.flag("use_path_style").map_err(Failure::usage)? == Some(true),
            key,
        };
        let prefix = pairs.get("prefix").unwrap_or_default().to_owned();
        Ok(CachePlace::Bucket(BucketPlace { bucket, prefix, name }))
    }

    /// The name of a cache becomes the beginning of tags, and of names of files.
    fn check_name(&self, name: &str) -> Result<(), Failure> {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.len() <= LONGEST_NAME && name.chars().all(is_fine) && !name.starts_with(['.', '-'])
        {
            return Ok(());
        }
        Err(Failure::usage(format!("`{}`: the name `{name}` cannot be used", self.option))
            .with_help(format!("a name has at most {LONGEST_NAME} letters, digits, `_`, `.`, `-`")))
    }
}

fn timeout(pairs: &Pairs, default: Duration) -> Result<Duration, Failure> {
    let given = pairs.get("timeout").map(duration).transpose();
    Ok(given.map_err(Failure::usage)?.unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> Result<Vec<CacheFrom>, Failure> {
        cache_from("--cache-from", &[text.parse().unwrap()])
    }

    fn to(text: &str) -> Result<Vec<CacheTo>, Failure> {
        cache_to("--cache-to", &[text.parse().unwrap()])
    }

    #[test]
    fn caches_are_named_as_buildx_names_them() {
        let registry = CachePlace::Registry("example.com/a:b".parse().unwrap());
        assert_eq!(from("type=registry,ref=example.com/a:b").unwrap()[0].place, registry);
        assert_eq!(from("example.com/a:b").unwrap()[0].place, registry);
        let local = CachePlace::Directory("d".into(), "buildcache".into());
        assert_eq!(from("type=local,src=d,timeout=5s").unwrap()[0].place, local);
        let sent = to("type=local,dest=d,mode=max,compression=zstd,ignore-error=false").unwrap();
        assert_eq!((&sent[0].place, sent[0].mode), (&local, CacheMode::Max));
        assert!(sent[0].compression.is_some() && !sent[0].ignore_error);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let s3 =
            "type=s3,bucket=b,region=r,access_key_id=i,secret_access_key=s,use_path_style=true";
        assert!(matches!(from(s3).unwrap()[0].place, CachePlace::Bucket(_)));
        for text in [
            "type=gha",
            "type=s3,bucket=b,region=r,access_key_id=i",
            "type=registry",
            "type=registry,ref=a@sha256:b",
            "type=local,dest=d",
            "type=local,src=d,tag=../x",
            "type=registry,ref=a,src=d",
            "ref=a",
            "type=local,src=d,timeout=soon",
        ] {
            assert!(from(text).is_err(), "{text}");
        }
        for text in ["type=local,dest=d,mode=all", "type=local,dest=d,oci-mediatypes=false"] {
            assert!(to(text).is_err(), "{text}");
        }
    }
}
