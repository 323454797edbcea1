//! `--cache-from`, `--cache-to` and their like: where steps and cache mounts travel. It only reads
//! what was said.

use std::collections::BTreeMap;
use std::time::Duration;

use formwork_build::{
    BucketConfig, BucketKeys, BucketPlace, CacheFrom, CacheMode, CachePlace, CacheTo,
};

use super::outputs;
use crate::amazon::{Surroundings, pair};
use crate::args::{Pairs, bytes, duration};
use crate::exit::Failure;
use crate::settings::{home, variable};

/// What a cache in a directory is called if nothing is said.
const DEFAULT_NAME: &str = "buildcache";
/// What may be said of a bucket: all that BuildKit knows, and `part_size`.
const BUCKET_KEYS: [&str; 17] = [
    "bucket",
    "region",
    "prefix",
    "blobs_prefix",
    "manifests_prefix",
    "name",
    "endpoint_url",
    "use_path_style",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "touch_refresh",
    "part_size",
    "upload_parallelism",
    "retry_mode",
    "retry_max_attempts",
    // For services that sign this header and then change it; there is none here.
    "disable_accept_encoding",
];
/// The smallest part of an object that S3 takes.
const SMALLEST_PART: u64 = 5 << 20;
/// How long the name of a cache may be: more is added to it, and a tag has at most 128 characters.
const LONGEST_NAME: usize = 80;

/// The caches to look into.
pub(super) fn cache_from(option: &str, all: &[Pairs]) -> Result<Vec<CacheFrom>, Failure> {
    let one = |pairs: &Pairs| {
        let keys = Keys { option, directory: "src", more: &["timeout"] };
        let timeout = timeout(pairs, CacheFrom::TIMEOUT)?;
        let places = keys.places(pairs)?.into_iter();
        Ok(places.map(|place| CacheFrom { place, timeout }).collect())
    };
    all.iter().map(one).collect::<Result<Vec<Vec<_>>, _>>().map(|all| all.concat())
}

/// The caches that get the steps.
pub(super) fn cache_to(option: &str, all: &[Pairs]) -> Result<Vec<CacheTo>, Failure> {
    let more =
        ["mode", "timeout", "ignore-error", "compression", "compression-level", "oci-mediatypes"];
    let one = |pairs: &Pairs| {
        let keys = Keys { option, directory: "dest", more: &more };
        let places = keys.places(pairs)?.into_iter();
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
        let to = |place| CacheTo { place, mode, compression, ignore_error, timeout };
        Ok(places.map(to).collect())
    };
    let elsewhere = all.iter().filter(|pairs| pairs.get("type") != Some("inline"));
    elsewhere.map(one).collect::<Result<Vec<Vec<_>>, _>>().map(|all| all.concat())
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
    let mut places = Keys { option, directory, more: &[] }.places(pairs)?;
    match (places.pop(), places.is_empty()) {
        (Some(place), true) => Ok(place),
        _ => Err(Failure::usage(format!("`{option}` takes one place, and one `name` of it"))),
    }
}

/// What an option may say.
struct Keys<'a> {
    option: &'a str,
    /// The key of a directory.
    directory: &'a str,
    more: &'a [&'a str],
}

impl Keys<'_> {
    /// The places that somebody names; more than one in a bucket, if it has several names there.
    fn places(&self, pairs: &Pairs) -> Result<Vec<CachePlace>, Failure> {
        if let Some(name) = pairs.single() {
            return Ok(vec![self.registry(name)?]);
        }
        let needs = |key: &str| {
            let kind = pairs.get("type").unwrap_or_default();
            Failure::usage(format!("`{} type={kind}` needs a `{key}`", self.option))
        };
        let (places, own): (_, &[&str]) = match pairs.get("type") {
            Some("registry") => {
                (vec![self.registry(pairs.get("ref").ok_or_else(|| needs("ref"))?)?], &["ref"])
            }
            Some("local") => {
                let directory = pairs.get(self.directory).filter(|path| !path.is_empty());
                let directory = directory.ok_or_else(|| needs(self.directory))?;
                let name = pairs.get("tag").unwrap_or(DEFAULT_NAME);
                self.check_name(name)?;
                let place = CachePlace::Directory(directory.into(), name.to_owned());
                (vec![place], &["src", "dest", "tag"])
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
            None => Ok(places),
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

    /// A bucket, under each of the names there; what is not said is taken from where Amazon's tools
    /// take it.
    fn bucket(&self, pairs: &Pairs) -> Result<Vec<CachePlace>, Failure> {
        let own = |key: &str| pairs.get(key).map(str::to_owned).filter(|value| !value.is_empty());
        let needs =
            |key: &str| Failure::usage(format!("`{} type=s3` needs a `{key}`", self.option));
        let home = home();
        let around = Surroundings { variable: &variable, home: home.as_deref() };
        let profile = around.profile()?;
        let region = own("region")
            .or_else(|| around.first(&["AWS_REGION", "AWS_DEFAULT_REGION"]))
            .or_else(|| profile.get("region"))
            .ok_or_else(|| needs("region"))?;
        let endpoint = own("endpoint_url")
            .or_else(|| around.first(&["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]))
            .or_else(|| profile.get("endpoint_url"));
        let key = pair(own("access_key_id"), own("secret_access_key"), own("session_token"))?;
        let keys = match key {
            Some(key) => BucketKeys::Own(key),
            None => around.keys(&profile, &region, endpoint.is_some())?,
        };
        let bucket = own("bucket").or_else(|| variable("AWS_BUCKET"));
        let bucket = BucketConfig {
            endpoint,
            region,
            bucket: bucket.ok_or_else(|| needs("bucket"))?,
            path_style: pairs.flag("use_path_style").map_err(Failure::usage)? == Some(true),
            keys,
            part_size: part_size(pairs)?,
            parallel: number(pairs, "upload_parallelism")?.unwrap_or(BucketConfig::PARALLEL),
            attempts: number(pairs, "retry_max_attempts")?,
        };
        if let Some(mode) =
            own("retry_mode").filter(|mode| mode != "standard" && mode != "adaptive")
        {
            return Err(Failure::usage(format!("there is no `retry_mode={mode}`"))
                .with_help("there are standard and adaptive"));
        }
        let refresh = pairs.get("touch_refresh").map(duration).transpose();
        let refresh_after = refresh.map_err(Failure::usage)?.unwrap_or(BucketPlace::REFRESH_AFTER);
        let part = |key: &str| own(key).unwrap_or_default();
        let place = |name: &str| {
            self.check_name(name)?;
            Ok(CachePlace::Bucket(Box::new(BucketPlace {
                bucket: bucket.clone(),
                prefix: part("prefix"),
                blobs_prefix: part("blobs_prefix"),
                manifests_prefix: part("manifests_prefix"),
                refresh_after,
                name: name.to_owned(),
            })))
        };
        let names = own("name").unwrap_or_else(|| DEFAULT_NAME.to_owned());
        names.split(';').map(place).collect()
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

fn part_size(pairs: &Pairs) -> Result<u64, Failure> {
    let given = pairs.get("part_size").map(bytes).transpose().map_err(Failure::usage)?;
    let size = given.unwrap_or(BucketConfig::PART_SIZE);
    if size < SMALLEST_PART {
        return Err(Failure::usage("`part_size` is at least 5MB, which is what S3 takes"));
    }
    Ok(size)
}

/// A number from 1 on.
fn number<T: std::str::FromStr + PartialOrd + From<u8>>(
    pairs: &Pairs,
    key: &str,
) -> Result<Option<T>, Failure> {
    let Some(text) = pairs.get(key) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| *number >= T::from(1));
    let number = number.ok_or_else(|| Failure::usage(format!("`{key}={text}` is no number")))?;
    Ok(Some(number))
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
        let named = |text: &str| -> Vec<String> {
            let names = from(text).unwrap().into_iter().map(|from| match from.place {
                CachePlace::Bucket(bucket) => bucket.name,
                other => panic!("{other:?}"),
            });
            names.collect()
        };
        assert_eq!(named(s3), ["buildcache"]);
        let full = "name=one;two,blobs_prefix=b/,manifests_prefix=m/,touch_refresh=1h,part_size=8MB,\
                    upload_parallelism=2,retry_mode=standard,retry_max_attempts=3";
        assert_eq!(named(&format!("{s3},{full}")), ["one", "two"]);
        for wrong in ["part_size=1MB", "upload_parallelism=0", "retry_mode=x", "name=a;../b"] {
            assert!(from(&format!("{s3},{wrong}")).is_err(), "{wrong}");
        }
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
