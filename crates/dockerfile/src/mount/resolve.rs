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
        let from = self.text(self.mount.from.as_ref())?;
        Ok(MountSpec::Bind {
            from: (!from.is_empty()).then_some(from),
            source: self.text(self.mount.source.as_ref())?,
            target: self.text(self.mount.target.as_ref())?,
            read_only: self.read_only(true)?,
        })
    }

    fn cache(&self) -> Resolved<MountSpec> {
        self.refuse("a cache", &["required", "size"])?;
        let (id, from) = (&self.mount.id, &self.mount.from);
        let given = |text: String| (!text.is_empty()).then_some(text);
        Ok(MountSpec::Cache {
            id: given(self.text(id.as_ref())?),
            from: given(self.text(from.as_ref())?),
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
        let mut names = [&self.mount.id, &self.mount.source].into_iter().flatten();
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
        let env = self.text(self.mount.env.as_ref())?;
        Ok(MountSpec::Secret {
            id,
            target: (!target.is_empty()).then_some(target),
            env: (!env.is_empty()).then_some(env),
            required: self.required()?,
            owner: self.owner()?,
        })
    }

    fn ssh(&self) -> Resolved<MountSpec> {
        self.refuse("an SSH socket", &["source", "sharing", "size"])?;
        let id = self.text(self.mount.id.as_ref())?;
        let target = self.text(self.mount.target.as_ref())?;
        Ok(MountSpec::Ssh {
            id: if id.is_empty() { "default".to_owned() } else { id },
            target: (!target.is_empty()).then_some(target),
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

    fn sharing(&self) -> Resolved<Sharing> {
        let sharing = self.text(self.mount.sharing.as_ref())?.to_ascii_lowercase();
        match sharing.as_str() {
            "" | "shared" => Ok(Sharing::Shared),
            "private" => Ok(Sharing::Private),
            "locked" => Ok(Sharing::Locked),
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
