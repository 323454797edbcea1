//! `--secret` and `--ssh`: what single steps may see and no image keeps.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use formwork_build::{Host, KeyAgent, PrivateKey, Secrets};

use crate::args::Pairs;
use crate::exit::Failure;
use crate::settings::{ssh_agent, variable};

/// The most that is read of the file of a key.
const KEY_LIMIT: u64 = 1 << 20;

/// `id=ID[,src=FILE|,env=VARIABLE]`; without either, a variable of that name, else a file.
pub(crate) fn secrets(given: &[Pairs]) -> Result<Secrets, Failure> {
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

/// What `--ssh` names: the socket of an agent, or keys.
pub(super) enum GivenAgent {
    Socket(PathBuf),
    Keys(Vec<PrivateKey>),
}

/// `ID[=SOCKET|KEY[,KEY…]]`; without either, the socket of the user's own agent.
pub(super) fn agents(given: &[String]) -> Result<BTreeMap<String, GivenAgent>, Failure> {
    given.iter().map(|text| agent(text)).collect()
}

/// Makes an agent for the keys that are given, as long as what is returned is held; adds all
/// sockets to `sockets`.
pub(super) fn serve(
    given: BTreeMap<String, GivenAgent>,
    host: &Host,
    sockets: &mut BTreeMap<String, PathBuf>,
) -> Result<Vec<KeyAgent>, Failure> {
    let mut serving = Vec::new();
    for (id, agent) in given {
        let socket = match agent {
            GivenAgent::Socket(socket) => socket,
            GivenAgent::Keys(keys) => {
                let agent = host.serve_keys(keys)?;
                let socket = agent.path();
                serving.push(agent);
                socket
            }
        };
        sockets.insert(id, socket);
    }
    Ok(serving)
}

fn agent(text: &str) -> Result<(String, GivenAgent), Failure> {
    let (id, files) = match text.split_once('=') {
        Some((id, files)) => (id, files.split(',').map(PathBuf::from).collect()),
        None => (text, ssh_agent().into_iter().collect::<Vec<_>>()),
    };
    if files.is_empty() {
        let problem = format!("`--ssh {text}`: there is no SSH agent: SSH_AUTH_SOCK is not set");
        return Err(Failure::input(problem)
            .with_help("start one with `eval $(ssh-agent)`, and add keys with `ssh-add`")
            .with_help(format!("or name the file of a key: `--ssh {id}=$HOME/.ssh/id_ed25519`")));
    }
    let wrong = |path: &Path, problem: &dyn std::fmt::Display| {
        Failure::input(format!("`--ssh {text}`: `{}`: {problem}", path.display()))
    };
    let mut keys = Vec::new();
    for path in &files {
        let path = std::path::absolute(path).map_err(Failure::machine)?;
        let kind = fs_err::metadata(&path)
            .map_err(|error| Failure::input(format!("`--ssh {text}`: {error}")))?
            .file_type();
        if kind.is_socket() {
            return match files.len() {
                1 => Ok((id.to_owned(), GivenAgent::Socket(path))),
                _ => Err(wrong(&path, &"an agent goes alone")),
            };
        }
        let mut file = Vec::new();
        let opened = fs_err::File::open(&path).map_err(Failure::input)?;
        opened.take(KEY_LIMIT).read_to_end(&mut file).map_err(Failure::input)?;
        keys.push(PrivateKey::parse(&file).map_err(|problem| wrong(&path, &problem))?);
    }
    Ok((id.to_owned(), GivenAgent::Keys(keys)))
}

fn secret_file(id: &str, path: &str) -> Result<Vec<u8>, Failure> {
    fs_err::read(path).map_err(|error| Failure::input(format!("the secret `{id}`: {error}")))
}
