//! The value of `RUN --mount=`.

use super::csv;
use super::report::{Report, excerpt, suggest};
use crate::Word;
use crate::instruction::Spanned;
use crate::mount::{Access, Mount};

/// What a key may be called.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "id",
    "sharing",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
];

/// Reads a mount. What is wrong with a key is reported, and the key left out; the whole mount is
/// checked if its values are known.
pub(super) fn parse(word: &Word, report: &mut Report<'_>) -> Option<Mount> {
    let mut mount = Mount { span: word.span(), ..Mount::default() };
    let mut is_sound = true;
    for field in csv::fields(word, report)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (field, None),
        };
        is_sound &= set(&mut mount, &key, value, report);
    }
    if is_sound && mount.is_literal() {
        let literal = |word: &Word| Ok(word.text().to_owned());
        if let Err(error) = mount.resolve(report.source(), &literal) {
            report.add(*error);
        }
    }
    Some(mount)
}

/// Sets a key; `false` after reporting that it cannot be.
fn set(mount: &mut Mount, key: &Word, value: Option<Word>, report: &mut Report<'_>) -> bool {
    let name = key.text().to_ascii_lowercase();
    match name.as_str() {
        "readonly" | "ro" | "readwrite" | "rw" => {
            let writable = matches!(name.as_str(), "readwrite" | "rw");
            mount.access = Some(Access { writable, value });
            return true;
        }
        "required" => {
            mount.required = Some(Spanned { span: key.span(), value });
            return true;
        }
        _ => {}
    }
    if name.is_empty() && value.is_none() {
        let error = report.error("bad-mount", "nothing stands behind the comma", key.span());
        report.add(
            error.with_help("leave it out, and write the options without blanks between them"),
        );
        return false;
    }
    let Some(slot) = slot(mount, &name) else {
        let message = format!("a mount has no `{}`", excerpt(key.text()));
        let error = report.error("unknown-mount-key", message, key.span());
        report.add(suggest(error, &name, &KEYS));
        return false;
    };
    let Some(value) = value else {
        let message = format!("`{name}` needs a value");
        let error = report.error("bad-mount", message, key.span());
        report.add(error.with_help(format!("write `{name}=…`")));
        return false;
    };
    if name == "from" && has_variable(&value) {
        report_variable(&value, report);
        return false;
    }
    *slot = Some(value);
    true
}

fn slot<'m>(mount: &'m mut Mount, key: &str) -> Option<&'m mut Option<Word>> {
    match key {
        "type" => Some(&mut mount.kind),
        "from" => Some(&mut mount.from),
        "source" | "src" => Some(&mut mount.source),
        "target" | "dst" | "destination" => Some(&mut mount.target),
        "id" => Some(&mut mount.id),
        "sharing" => Some(&mut mount.sharing),
        "size" => Some(&mut mount.size),
        "mode" => Some(&mut mount.mode),
        "uid" => Some(&mut mount.uid),
        "gid" => Some(&mut mount.gid),
        "env" => Some(&mut mount.env),
        _ => None,
    }
}

/// Whether there is a `$` with something behind it.
fn has_variable(value: &Word) -> bool {
    value.text().trim_end_matches('$').contains('$')
}

fn report_variable(value: &Word, report: &mut Report<'_>) {
    let error = report.error("variable-in-from", "`from` takes no variables", value.span());
    report.add(error.with_help(format!(
        "name a stage: write `FROM {} AS name` with an `ARG` before the first `FROM`, and \
         `from=name` here",
        excerpt(value.text())
    )));
}

#[cfg(test)]
mod tests {
    use crate::testing::{check_said, check_stage};

    #[test]
    fn mounts_have_keys() {
        check_stage(
            "RUN --mount=type=cache,id=$id,target=/a,sharing=locked,mode=0700,uid=1,gid=$g,from=b,source=c a",
            r#"RUN "a" mount(type=cache from=b source=c target=/a id=$id sharing=locked mode=0700 uid=1 gid=$g)"#,
        );
        check_stage(
            "RUN --mount=TYPE=secret,id=a,env=B,required --mount=type=ssh,required=false a",
            r#"RUN "a" mount(type=secret required id=a env=B) mount(type=ssh required=false)"#,
        );
        check_stage(
            "RUN --mount=src=a,dst=b,rw --mount=destination=c,readonly=0 --mount=type=$t,ro,size=1 a",
            r#"RUN "a" mount(source=a target=b rw) mount(target=c ro=0) mount(type=$t ro size=1)"#,
        );
        check_stage(
            r#"RUN --mount='type=tmpfs,"target=/a,b ""c""",size=1' --mount=target="/d e" a"#,
            r#"RUN "a" mount(type=tmpfs target="/a,b \"c\"" size=1) mount(target="/d e")"#,
        );
        check_stage(
            "RUN --mount=target=/a,target=/b,from=a$ a",
            r#"RUN "a" mount(from=a$ target=/b)"#,
        );
    }

    #[test]
    fn blanks_end_a_mount() {
        check_said(
            "FROM a\nRUN --mount=type=cache, target=/x a",
            "
            RUN --mount=type=cache, target=/x a
                                   ^
            error[bad-mount]: nothing stands behind the comma
              help: leave it out, and write the options without blanks between them
            ",
        );
    }

    #[test]
    fn wrong_keys_are_told() {
        check_said(
            "FROM a\nRUN --mount=tagret=/a,colour=red,target,from=$x a",
            "
            RUN --mount=tagret=/a,colour=red,target,from=$x a
                        ^^^^^^
            error[unknown-mount-key]: a mount has no `tagret`
              help: did you mean `target`?
            RUN --mount=tagret=/a,colour=red,target,from=$x a
                                  ^^^^^^
            error[unknown-mount-key]: a mount has no `colour`
              help: it can be `type`, `from`, `source`, `src`, `target`, `dst`, `destination`, `readonly`, `ro`, `readwrite`, `rw`, `required`, `id`, `sharing`, `size`, `mode`, `uid`, `gid`, `env`
            RUN --mount=tagret=/a,colour=red,target,from=$x a
                                             ^^^^^^
            error[bad-mount]: `target` needs a value
              help: write `target=…`
            RUN --mount=tagret=/a,colour=red,target,from=$x a
                                                         ^^
            error[variable-in-from]: `from` takes no variables
              help: name a stage: write `FROM $x AS name` with an `ARG` before the first `FROM`, and `from=name` here
            ",
        );
    }

    #[test]
    fn values_are_checked_as_far_as_they_are_known() {
        check_said(
            "FROM a\nRUN --mount=type=cahce,target=/a --mount=type=$t,target=/a,mode=x --mount=type=secret a",
            "
            RUN --mount=type=cahce,target=/a --mount=type=$t,target=/a,mode=x --mount=type=secret a
                             ^^^^^
            error[bad-mount]: `cahce` is no type of mount
              help: did you mean `cache`?
            RUN --mount=type=cahce,target=/a --mount=type=$t,target=/a,mode=x --mount=type=secret a
                                                                                      ^^^^^^^^^^^
            error[bad-mount]: a secret has neither an `id` nor a `target`
              help: write `--mount=type=secret,id=…`
            ",
        );
    }
}
