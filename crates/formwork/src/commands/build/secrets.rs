//! `--secret` and `--ssh`: what single steps may see and no image keeps.

use std::collections::BTreeMap;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use formwork_build::Secrets;

use crate::args::Pairs;
use crate::exit::Failure;
use crate::settings::{ssh_agent, variable};

/// `id=ID[,src=FILE|,env=VARIABLE]`; without either, a variable of that name, else a file.
pub(super) fn secrets(given: &[Pairs]) -> Result<Secrets, Failure> {
    let mut secrets = Secrets::default();
    for pairs in given {
        if let Some(key) = pairs.unknown(&["id", "src", "source", "env", "type"]) {
            return Err(Failure::usage(format!("`--secret` has no `{key}`")));
        }
        let id = pairs.get("id").filter(|id| !id.is_empty());
        let id = id.ok_or_else(|| Failure::usage("`--secret` needs an `id`"))?;
        let file = pairs.get("src").or_else(|| pairs.get("source"));
        let value = match (file, pairs.get("env")) {
            (Some(file), _) if pairs.get("type") != Some("env") => secret_file(id, file)?,
            (file, name) => match (name.or(file), variable(id)) {
                (Some(name), _) => variable(name).map(String::into_bytes).ok_or_else(|| {
                    Failure::input(format!("the variable `{name}` of the secret `{id}` is not set"))
                })?,
                (None, Some(value)) => value.into_bytes(),
                (None, None) => secret_file(id, id)?,
            },
        };
        secrets.insert(id, value);
    }
    Ok(secrets)
}

/// `ID[=SOCKET]`; without a socket, that of the user's own agent.
pub(super) fn agents(given: &[String]) -> Result<BTreeMap<String, PathBuf>, Failure> {
    let agent = |text: &String| {
        let (id, socket) = match text.split_once('=') {
            Some((id, socket)) => (id, Some(PathBuf::from(socket))),
            None => (text.as_str(), ssh_agent()),
        };
        let socket = socket.ok_or_else(|| {
            Failure::input(format!(
                "`--ssh {text}`: there is no SSH agent: SSH_AUTH_SOCK is not set"
            ))
            .with_help("start one with `eval $(ssh-agent)`, and add keys with `ssh-add`")
        })?;
        let path = std::path::absolute(socket).map_err(Failure::machine)?;
        let kind = fs_err::metadata(&path)
            .map_err(|error| Failure::input(format!("`--ssh {text}`: {error}")))?
            .file_type();
        match kind.is_socket() {
            true => Ok((id.to_owned(), path)),
            false => {
                let path = path.display();
                Err(Failure::input(format!("`--ssh {text}`: `{path}` is no socket of an agent"))
                    .with_help(format!("formwork forwards agents only: add a key to yours with `ssh-add {path}`, and give `--ssh {id}`")))
            }
        }
    };
    given.iter().map(agent).collect()
}

fn secret_file(id: &str, path: &str) -> Result<Vec<u8>, Failure> {
    fs_err::read(path).map_err(|error| Failure::input(format!("the secret `{id}`: {error}")))
}
