//! From a mount's words to what they mean.
//!
//! The rules are those of BuildKit's `parseMount`, except that the order of the keys never matters.

use formwork_diagnostics::{Diagnostic, SourceFile, Span, nearest};

use super::{FileOwner, Mount, MountSpec, Sharing};
use crate::{ExpandError, Word};

/// The words for kinds of mounts.
const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
/// The words for ways to share a cache.
const SHARINGS: [&str; 3] = ["shared", "private", "locked"];
/// What [`parse_bool`] reads.
const TRUTH: &str = "`true` or `false`";

type Resolved<T> = Result<T, Box<Diagnostic>>;

/// A mount whose values get known.
pub(super) struct Resolver<'a> {
    pub(super) mount: &'a Mount,
    pub(super) source: &'a SourceFile,
    pub(super) expand: &'a dyn Fn(&Word) -> Result<String, ExpandError>,
}

impl Resolver<'_> {
    pub(super) fn resolve(&self) -> Resolved<MountSpec> {
        let kind = self.text(self.mount.kind.as_ref())?.to_ascii_lowercase();
        match kind.as_str() {
            "" | "bind" => self.bind(),
            "cache" => self.cache(),
            "tmpfs" => self.tmpfs(),
            "secret" => self.secret(),
            "ssh" => self.ssh(),
            _ => self.unknown("type of mount", &kind, self.mount.kind.as_ref(), &KINDS),
        }
    }

    fn bind(&self) -> Resolved<MountSpec> {
        self.refuse("a bind mount", &["mode", "uid", "gid", "sharing", "required", "size"])?;
        Ok(MountSpec::Bind {
            from: self.given(self.mount.from.as_ref())?,
            source: self.text(self.mount.source.as_ref())?,
            target: self.text(self.mount.target.as_ref())?,
            read_only: self.read_only(true)?,
        })
    }

    fn cache(&self) -> Resolved<MountSpec> {
        self.refuse("a cache", &["required", "size"])?;
        Ok(MountSpec::Cache {
            id: self.given(self.mount.id.as_ref())?,
            from: self.given(self.mount.from.as_ref())?,
            source: self.text(self.mount.source.as_ref())?,
            target: self.text(self.mount.target.as_ref())?,
            read_only: self.read_only(false)?,
            sharing: self.sharing()?,
            owner: self.owner()?,
        })
    }

    fn tmpfs(&self) -> Resolved<MountSpec> {
        self.refuse("a tmpfs", &["mode", "uid", "gid", "sharing", "required"])?;
        let size = self.parsed(self.mount.size.as_ref(), "a size such as `64m`", parse_size)?;
        Ok(MountSpec::Tmpfs {
            target: self.text(self.mount.target.as_ref())?,
            size: size.unwrap_or_default(),
            read_only: self.read_only(false)?,
        })
    }

    fn secret(&self) -> Resolved<MountSpec> {
        self.refuse("a secret", &["from", "sharing", "size"])?;
        let names = [&self.mount.id, &self.mount.source].into_iter().flatten();
        let mut names = names.filter(|name| !name.is_empty());
        let (name, another) = (names.next(), names.next());
        if let Some(another) = another {
            let message = "a secret has both an `id` and a `source`, which mean the same";
            return Err(self.error(message, another.span()).into());
        }
        let target = self.text(self.mount.target.as_ref())?;
        let id = match self.text(name)? {
            id if id.is_empty() => base_name(&target).to_owned(),
            id => id,
        };
        if id.is_empty() {
            let error = self.error("a secret has neither an `id` nor a `target`", self.mount.span);
            return Err(error.with_help("write `--mount=type=secret,id=…`").into());
        }
        Ok(MountSpec::Secret {
            id,
            target: (!target.is_empty()).then_some(target),
            env: self.given(self.mount.env.as_ref())?,
            required: self.required()?,
            owner: self.owner()?,
        })
    }

    fn ssh(&self) -> Resolved<MountSpec> {
        self.refuse("an SSH socket", &["source", "sharing", "size"])?;
        let id = self.given(self.mount.id.as_ref())?;
        Ok(MountSpec::Ssh {
            id: id.unwrap_or_else(|| "default".to_owned()),
            target: self.given(self.mount.target.as_ref())?,
            required: self.required()?,
            owner: self.owner()?,
        })
    }

    /// Fails if one of the keys is given, which this type of mount has no use for.
    fn refuse(&self, kind: &str, keys: &[&str]) -> Resolved<()> {
        let mount = self.mount;
        let place = |word: &Option<Word>| word.as_ref().map(Word::span);
        let given = [
            ("from", place(&mount.from)),
            ("source", place(&mount.source)),
            ("required", mount.required.as_ref().map(|required| required.span)),
            ("sharing", place(&mount.sharing)),
            ("size", place(&mount.size)),
            ("mode", place(&mount.mode)),
            ("uid", place(&mount.uid)),
            ("gid", place(&mount.gid)),
        ];
        for (key, span) in given {
            if let Some(span) = span.filter(|_| keys.contains(&key)) {
                return Err(self.error(format!("{kind} has no `{key}`"), span).into());
            }
        }
        Ok(())
    }

    /// A value, unless it is empty, which means the same as none.
    fn given(&self, word: Option<&Word>) -> Resolved<Option<String>> {
        self.text(word).map(|text| (!text.is_empty()).then_some(text))
    }

    fn text(&self, word: Option<&Word>) -> Resolved<String> {
        let Some(word) = word else { return Ok(String::new()) };
        (self.expand)(word).map_err(|error| error.to_diagnostic(self.source).into())
    }

    /// The meaning of a value, if it is given.
    fn parsed<T>(
        &self,
        word: Option<&Word>,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Resolved<Option<T>> {
        let Some(word) = word else { return Ok(None) };
        let text = self.text(Some(word))?;
        let message = || format!("`{text}` is not {expected}");
        parse(&text).map(Some).ok_or_else(|| self.error(message(), word.span()).into())
    }

    fn read_only(&self, default: bool) -> Resolved<bool> {
        let Some(access) = &self.mount.access else { return Ok(default) };
        let holds = self.parsed(access.value.as_ref(), TRUTH, parse_bool)?.unwrap_or(true);
        Ok(holds != access.writable)
    }

    fn required(&self) -> Resolved<bool> {
        let Some(required) = &self.mount.required else { return Ok(false) };
        Ok(self.parsed(required.value.as_ref(), TRUTH, parse_bool)?.unwrap_or(true))
    }

    fn sharing(&self) -> Resolved<Option<Sharing>> {
        let sharing = self.text(self.mount.sharing.as_ref())?.to_ascii_lowercase();
        match sharing.as_str() {
            "" => Ok(None),
            "shared" => Ok(Some(Sharing::Shared)),
            "private" => Ok(Some(Sharing::Private)),
            "locked" => Ok(Some(Sharing::Locked)),
            _ => {
                let word = self.mount.sharing.as_ref();
                self.unknown("way to share a cache", &sharing, word, &SHARINGS)
            }
        }
    }

    fn owner(&self) -> Resolved<FileOwner> {
        let mount = self.mount;
        let number = |text: &str| parse_digits(text, 10);
        Ok(FileOwner {
            mode: self.parsed(mount.mode.as_ref(), "an octal mode such as `0755`", |text| {
                parse_digits(text, 8)
            })?,
            uid: self.parsed(mount.uid.as_ref(), "the number of a user", number)?,
            gid: self.parsed(mount.gid.as_ref(), "the number of a group", number)?,
        })
    }

    fn unknown<T>(
        &self,
        what: &str,
        text: &str,
        word: Option<&Word>,
        known: &[&str],
    ) -> Resolved<T> {
        let span = word.map_or(self.mount.span, Word::span);
        let error = self.error(format!("`{text}` is no {what}"), span);
        Err(match nearest(text, known.iter().copied()) {
            Some(name) => error.with_help(format!("did you mean `{name}`?")).into(),
            None => error.with_help(format!("it can be `{}`", known.join("`, `"))).into(),
        })
    }

    fn error(&self, message: impl Into<String>, span: Span) -> Diagnostic {
        Diagnostic::error("bad-mount", message).at(self.source, span, "")
    }
}

/// Reads a truth value as Go's `strconv.ParseBool` does.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "True" | "TRUE" => Some(true),
        "0" | "f" | "F" | "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

fn parse_digits(text: &str, radix: u32) -> Option<u32> {
    let no_sign = text.starts_with(|first: char| first.is_digit(radix));
    u32::from_str_radix(text, radix).ok().filter(|_| no_sign)
}

/// Reads a number of bytes as docker's `units.RAMInBytes` does: `1.5g`, `64 MiB`, `4096`.
fn parse_size(text: &str) -> Option<u64> {
    let number_ends =
        text.rfind(|last: char| last.is_ascii_digit() || matches!(last, '.' | ' '))?;
    let (number, unit) = text.split_at(number_ends + 1);
    let number: f64 = number.strip_suffix(' ').unwrap_or(number).parse().ok()?;
    let power = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        "p" | "pb" | "pib" => 5,
        _ => return None,
    };
    let bytes = number * 1024_f64.powi(power);
    // Beyond 2^53 a size is no longer exact, and no machine has that much memory anyway.
    let in_range = (0.0..=9_007_199_254_740_992.0).contains(&bytes);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    in_range.then_some(bytes as u64)
}

fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::only_instruction;
    use crate::{InstructionKind, expand};

    /// What a mount means where `$x` is `1` and `$t` is `secret`.
    fn resolve(mount: &str) -> Result<MountSpec, String> {
        let text = format!("RUN --mount={mount} a");
        let InstructionKind::Run(run) = only_instruction(&text) else { panic!("{text}") };
        let variables = |name: &str| match name {
            "x" => Some("1".to_owned()),
            "t" => Some("secret".to_owned()),
            _ => None,
        };
        let expand = |word: &Word| expand(word, '\\', &variables).map(|expanded| expanded.text);
        let source = SourceFile::new("Dockerfile", text.as_str());
        run.mounts[0].resolve(&source, &expand).map_err(|diagnostic| diagnostic.message)
    }

    fn given(text: &str) -> Option<String> {
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn owner(mode: Option<u32>, uid: Option<u32>, gid: Option<u32>) -> FileOwner {
        FileOwner { mode, uid, gid }
    }

    #[test]
    fn a_bind_mount_is_read_only_unless_it_says_otherwise() {
        let bind = |from: &str, source: &str, target: &str, read_only| MountSpec::Bind {
            from: given(from),
            source: source.to_owned(),
            target: target.to_owned(),
            read_only,
        };
        for (mount, spec) in [
            ("target=/a", bind("", "", "/a", true)),
            ("type=bind,src=b$x,dst=/a$x", bind("", "b1", "/a1", true)),
            ("from=c,source=\\\\\\$x,target=/a,rw", bind("c", "$x", "/a", false)),
            ("target=/a,ro=false", bind("", "", "/a", false)),
            ("target=/a,rw=$x", bind("", "", "/a", false)),
            ("target=/a,readwrite=0", bind("", "", "/a", true)),
            ("TYPE=Bind,from=", bind("", "", "", true)),
        ] {
            assert_eq!(resolve(mount), Ok(spec), "{mount}");
        }
    }

    #[test]
    fn a_cache_can_be_written_to() {
        let plain = resolve("type=cache,target=/a");
        assert_eq!(
            plain,
            Ok(MountSpec::Cache {
                id: None,
                from: None,
                source: String::new(),
                target: "/a".to_owned(),
                read_only: false,
                sharing: None,
                owner: FileOwner::default(),
            })
        );
        let full =
            "uid=$x,gid=2,mode=0700,sharing=LOCKED,ro,from=f,source=s,id=i$x,target=/a,type=cache";
        assert_eq!(
            resolve(full),
            Ok(MountSpec::Cache {
                id: given("i1"),
                from: given("f"),
                source: "s".to_owned(),
                target: "/a".to_owned(),
                read_only: true,
                sharing: Some(Sharing::Locked),
                owner: owner(Some(0o700), Some(1), Some(2)),
            })
        );
    }

    #[test]
    fn secrets_and_sockets_have_names() {
        let secret = |id: &str, target: &str, env: &str, required, owner| MountSpec::Secret {
            id: id.to_owned(),
            target: given(target),
            env: given(env),
            required,
            owner,
        };
        let nobody = FileOwner::default();
        for (mount, spec) in [
            ("type=secret,id=a", secret("a", "", "", false, nobody)),
            ("type=secret,source=a,env=B", secret("a", "", "B", false, nobody)),
            ("type=secret,id=,source=a", secret("a", "", "", false, nobody)),
            ("type=secret,target=/x/a/", secret("a", "/x/a/", "", false, nobody)),
            ("required,type=$t,id=a,target=/b", secret("a", "/b", "", true, nobody)),
            (
                "type=secret,id=a,required=$x,mode=0440",
                secret("a", "", "", true, owner(Some(0o440), None, None)),
            ),
        ] {
            assert_eq!(resolve(mount), Ok(spec), "{mount}");
        }
        let ssh = |id: &str, target: &str, required| MountSpec::Ssh {
            id: id.to_owned(),
            target: given(target),
            required,
            owner: nobody,
        };
        assert_eq!(resolve("type=ssh"), Ok(ssh("default", "", false)));
        assert_eq!(resolve("type=ssh,id=a,target=/s,required"), Ok(ssh("a", "/s", true)));
    }

    #[test]
    fn memory_has_a_size() {
        for (size, bytes) in [
            ("", 0),
            ("4096", 4096),
            ("128m", 128 << 20),
            ("1.5 GiB", 3 << 29),
            ("1KB", 1024),
            ("7b", 7),
            (".5k", 512),
        ] {
            let mount =
                format!("type=tmpfs,target=/a{}", if size.is_empty() { "" } else { ",size=" });
            let tmpfs = MountSpec::Tmpfs { target: "/a".to_owned(), size: bytes, read_only: false };
            assert_eq!(resolve(&format!("'{mount}{size}'")), Ok(tmpfs), "{size}");
        }
        for size in ["", "x", "1x", "1kbb", "-1", "1e400", "99999999p", "inf", "nan", "1.2.3"] {
            assert_eq!(parse_size(size), None, "{size}");
        }
    }

    #[test]
    fn what_does_not_belong_is_refused() {
        // The variable keeps the parser from finding the mistake before.
        for (mount, message) in [
            ("type=x$x", "`x1` is no type of mount"),
            ("target=$x,mode=1", "a bind mount has no `mode`"),
            ("target=$x,sharing=shared", "a bind mount has no `sharing`"),
            ("target=$x,required", "a bind mount has no `required`"),
            ("target=$x,size=1", "a bind mount has no `size`"),
            ("type=tmpfs,target=$x,uid=1", "a tmpfs has no `uid`"),
            ("type=cache,target=$x,required", "a cache has no `required`"),
            ("type=secret,id=$x,from=a", "a secret has no `from`"),
            (
                "type=secret,id=$x,source=a",
                "a secret has both an `id` and a `source`, which mean the same",
            ),
            ("type=secret,id=$n", "a secret has neither an `id` nor a `target`"),
            ("type=ssh,id=$x,source=a", "an SSH socket has no `source`"),
            ("type=cache,target=$x,sharing=some", "`some` is no way to share a cache"),
            ("type=cache,target=$x,mode=8", "`8` is not an octal mode such as `0755`"),
            ("type=cache,target=$x,mode=+7", "`+7` is not an octal mode such as `0755`"),
            ("type=cache,target=$x,uid=a", "`a` is not the number of a user"),
            ("type=cache,target=$x,gid=4294967296", "`4294967296` is not the number of a group"),
            ("target=$x,ro=yes", "`yes` is not `true` or `false`"),
            ("target=${y?}", "y: the variable must be set"),
        ] {
            assert_eq!(resolve(mount), Err(message.to_owned()), "{mount}");
        }
    }
}
