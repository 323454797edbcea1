//! `formwork login`.

use std::io::{BufRead, IsTerminal, Read, Write};

use formwork_build::{Kept, Login, Secret, log_in};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::args::{LoginArgs, bare_registry};
use crate::commands;
use crate::exit::Failure;
use crate::render;
use crate::settings::Settings;

/// The longest password that is read.
const LIMIT: u64 = 1 << 20;

/// Logs in to a registry: asks it, and keeps the login where docker and podman find it.
pub(crate) fn run(args: &LoginArgs, settings: &Settings) -> Result<(), Failure> {
    let registry = bare_registry(&args.registry).to_owned();
    let username = match &args.username {
        Some(name) => name.clone(),
        None => asked("Username: ", "--username", false)?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => piped()?,
        None => asked("Password: ", "--password-stdin", true)?,
    };
    if username.is_empty() || password.is_empty() || username.contains(':') {
        return Err(Failure::usage("a login has a name, without a colon, and a password"));
    }
    let login = Login { registry, username, password: Secret::new(password) };
    if let Kept::File(path) = log_in(&settings.registries(), &login)? {
        render::warning(&format!(
            "the password is kept in `{}`, where it is not encrypted; a credential helper \
             (`credsStore`) would keep it safe",
            path.display()
        ));
    }
    commands::print("Login Succeeded\n")
}

/// Standard input without the line break at its end.
fn piped() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin().lock().take(LIMIT).read_to_string(&mut text).map_err(Failure::input)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Asks at the terminal, where what is secret is not shown while it is typed.
fn asked(question: &str, option: &str, is_secret: bool) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(
            Failure::usage("there is no terminal to ask at").with_help(format!("use `{option}`"))
        );
    }
    let before = tcgetattr(&stdin).map_err(Failure::machine)?;
    if is_secret {
        let mut silent = before.clone();
        silent.local_modes -= LocalModes::ECHO;
        silent.local_modes |= LocalModes::ECHONL;
        tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(Failure::machine)?;
    }
    let mut line = String::new();
    let mut stderr = std::io::stderr();
    let asked = write!(stderr, "{question}").and_then(|()| stderr.flush());
    let read = asked.and_then(|()| stdin.lock().take(LIMIT).read_line(&mut line));
    tcsetattr(&stdin, OptionalActions::Now, &before).map_err(Failure::machine)?;
    read.map_err(Failure::machine)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
