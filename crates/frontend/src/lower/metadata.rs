//! Instructions that change the configuration and make no layer.

use formwork_dockerfile::instruction::{Arg, CommandLine, HealthCommand, Healthcheck, Pairs};
use formwork_dockerfile::{Instruction, InstructionKind, Word};

use super::stage::StageLowerer;
use crate::{config, ports};

/// About how many bytes a port takes, in the configuration and the history.
const COST: usize = 64;

impl StageLowerer<'_, '_> {
    /// Lowers any instruction that makes no layer.
    pub(super) fn metadata(&mut self, instruction: &Instruction) {
        match &instruction.kind {
            InstructionKind::Arg(arg) => self.arg(arg),
            InstructionKind::Env(pairs) => self.env(pairs),
            InstructionKind::Label(pairs) => self.label(pairs),
            InstructionKind::Cmd(command) => self.cmd(command),
            InstructionKind::Entrypoint(command) => self.entrypoint(command),
            InstructionKind::Expose(words) => self.expose(words),
            InstructionKind::Volume(words) => self.volume(words),
            InstructionKind::User(word) => self.user(word),
            InstructionKind::Shell(words) => {
                let shell = texts(words);
                self.note(format!("SHELL {}", json(&shell)));
                self.state.config.config.shell = Some(shell);
            }
            InstructionKind::Stopsignal(word) => self.stop_signal(word),
            InstructionKind::Healthcheck(check) => self.healthcheck(instruction, check),
            InstructionKind::Onbuild(onbuild) => {
                self.note(format!("ONBUILD {}", onbuild.expression));
                self.state.config.config.on_build.push(onbuild.expression.clone());
            }
            InstructionKind::Maintainer(author) => {
                self.note(format!("MAINTAINER {}", author.text()));
                self.state.config.author = Some(author.text().to_owned());
            }
            // These make a layer and never come here.
            InstructionKind::Run(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Add(_)
            | InstructionKind::Workdir(_) => {}
        }
    }

    fn arg(&mut self, arg: &Arg) {
        let mut shown = vec!["ARG".to_owned()];
        for variable in &arg.variables {
            let name = variable.name.text();
            let given = self.lowering.options.build_args.get(name).cloned();
            let value = match (given, &variable.default) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => {
                    let Some(value) = self.expand(default) else { continue };
                    Some(value)
                }
                (None, None) => self.lowering.plan.global.get(name).map(str::to_owned),
            };
            self.state.scope.declare(name, value.as_deref());
            shown.push(value.map_or_else(|| name.to_owned(), |value| format!("{name}={value}")));
        }
        self.note(shown.join(" "));
    }

    /// All pairs of an instruction see the values from before it.
    fn pairs(&mut self, pairs: &Pairs) -> Vec<(String, String)> {
        let mut expanded = Vec::new();
        for pair in &pairs.pairs {
            if let (Some(key), Some(value)) = (self.expand(&pair.key), self.expand(&pair.value)) {
                expanded.push((key, value));
            }
        }
        expanded
    }

    fn env(&mut self, pairs: &Pairs) {
        let pairs = self.pairs(pairs);
        for (name, value) in &pairs {
            self.state.scope.set(name, value);
            self.state.config.config.set_env(name, value);
        }
        self.note(format!("ENV {}", shown_pairs(&pairs)));
    }

    fn label(&mut self, pairs: &Pairs) {
        let pairs = self.pairs(pairs);
        self.note(format!("LABEL {}", shown_pairs(&pairs)));
        self.state.config.config.labels.extend(pairs);
    }

    fn cmd(&mut self, command: &CommandLine) {
        let args = self.arguments(command);
        self.note(format!("CMD {}", json(&args)));
        config::set_command(&mut self.state.config, args);
        self.state.has_own_command = true;
    }

    fn entrypoint(&mut self, command: &CommandLine) {
        let args = self.arguments(command);
        self.note(format!("ENTRYPOINT {}", json(&args)));
        let has_own_command = self.state.has_own_command;
        config::set_entrypoint(&mut self.state.config, args, has_own_command);
    }

    fn arguments(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => texts(words),
            CommandLine::Shell(text) => config::with_shell(&self.state.config, text.text()),
        }
    }

    fn expose(&mut self, words: &[Word]) {
        let mut all = Vec::new();
        for word in words {
            for text in self.expand_words(word).unwrap_or_default() {
                match ports::expand(&text) {
                    // A few letters can stand for all ports, in the configuration and the history.
                    Ok(ports) => {
                        let taken = self.lowering.budget.take(ports.len() * COST, word.span());
                        if self.report_expansion(taken).is_none() {
                            return;
                        }
                        all.extend(ports);
                    }
                    Err(problem) => {
                        let message = format!("`{text}` {problem}");
                        let help = "write a port such as `8080` or `53/udp`, or a range";
                        self.error("bad-port", message, word.span(), help);
                    }
                }
            }
        }
        self.note(format!("EXPOSE {}", all.join(" ")));
        self.state.config.config.exposed_ports.extend(all);
    }

    fn volume(&mut self, words: &[Word]) {
        let mut paths = Vec::new();
        for word in words {
            let Some(path) = self.expand(word) else { continue };
            if path.is_empty() {
                self.error("empty-path", "the path is empty".to_owned(), word.span(), "");
            }
            paths.push(path);
        }
        self.note(format!("VOLUME {}", json(&paths)));
        self.state.config.config.volumes.extend(paths);
    }

    fn user(&mut self, word: &Word) {
        let Some(user) = self.expand(word) else { return };
        self.note(format!("USER {user}"));
        self.state.config.config.user = user;
        self.state.user = self.part(word.span());
    }

    fn stop_signal(&mut self, word: &Word) {
        let Some(signal) = self.expand(word) else { return };
        if !config::is_signal(&signal) {
            let message = format!("`{signal}` is not a signal");
            self.error("bad-signal", message, word.span(), "write `SIGTERM` or a number");
            return;
        }
        self.note(format!("STOPSIGNAL {signal}"));
        self.state.config.config.stop_signal = Some(signal);
    }

    fn healthcheck(&mut self, instruction: &Instruction, check: &Healthcheck) {
        self.note(instruction.text.clone());
        let healthcheck = match check {
            Healthcheck::None => config::no_healthcheck(),
            Healthcheck::Command(command) => health_command(command),
        };
        self.state.config.config.healthcheck = Some(healthcheck);
    }
}

fn health_command(command: &HealthCommand) -> formwork_oci::Healthcheck {
    let (kind, args) = match &command.command {
        CommandLine::Exec(words) => ("CMD", texts(words)),
        CommandLine::Shell(text) => ("CMD-SHELL", vec![text.text().to_owned()]),
    };
    formwork_oci::Healthcheck {
        test: std::iter::once(kind.to_owned()).chain(args).collect(),
        interval: config::nanoseconds(command.interval),
        timeout: config::nanoseconds(command.timeout),
        start_period: config::nanoseconds(command.start_period),
        start_interval: config::nanoseconds(command.start_interval),
        retries: command.retries.map(u64::from).filter(|retries| *retries > 0),
    }
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.text().to_owned()).collect()
}

fn shown_pairs(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(" ")
}

/// A list as JSON, as docker's history shows commands.
fn json(texts: &[String]) -> String {
    String::from_utf8(formwork_oci::to_json(&texts)).unwrap_or_default()
}
