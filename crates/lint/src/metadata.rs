//! What goes into the configuration: ARG, ENV, LABEL, EXPOSE.

use formwork_diagnostics::Span;
use formwork_dockerfile::instruction::Pair;
use formwork_dockerfile::{InstructionKind, Stage, Word};

use crate::Findings;

/// Parts of a name, between underscores, that tell of something secret.
const SECRET: [&str; 10] = [
    "apikey",
    "auth",
    "credential",
    "credentials",
    "key",
    "passwd",
    "password",
    "pword",
    "secret",
    "token",
];
/// Parts of a name that tell the contrary.
const HARMLESS: [&str; 3] = ["file", "public", "version"];

pub(crate) fn check(stage: &Stage, findings: &mut Findings<'_>) {
    for instruction in &stage.instructions {
        match &instruction.kind {
            InstructionKind::Arg(arg) => {
                for variable in &arg.variables {
                    secret("ARG", variable.name.text(), variable.name.span(), findings);
                }
            }
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
                let name = instruction.kind.name();
                if pairs.is_legacy {
                    let message = format!(
                        "\"{name} key=value\" should be used instead of legacy \"{name} key \
                         value\" format"
                    );
                    let has_sign = |pair: &Pair| pair.value.text().starts_with('=');
                    let help = match pairs.pairs.iter().any(has_sign) {
                        true => "leave out the blanks around `=`, which is part of the value now",
                        false => "",
                    };
                    findings.add_with_help("LegacyKeyValueFormat", message, instruction.span, help);
                }
                for pair in pairs.pairs.iter().filter(|_| name == "ENV") {
                    secret(name, pair.key.text(), pair.key.span(), findings);
                }
            }
            InstructionKind::Expose(words) => {
                words.iter().for_each(|word| port(word, findings));
            }
            _ => {}
        }
    }
}

fn secret(keyword: &str, name: &str, span: Span, findings: &mut Findings<'_>) {
    let lower = name.to_ascii_lowercase();
    let has = |parts: &[&str]| lower.split('_').any(|part| parts.contains(&part));
    if has(&SECRET) && !has(&HARMLESS) {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({keyword} \"{name}\")");
        let help = "everybody who has the image can read it; use `RUN --mount=type=secret`";
        findings.add_with_help("SecretsUsedInArgOrEnv", message, span, help);
    }
}

fn port(word: &Word, findings: &mut Findings<'_>) {
    let text = word.text();
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, ""));
    if text.contains('$') {
        return;
    }
    if ports.contains(':') {
        let message = format!(
            "EXPOSE instruction should not define an IP address or host-port mapping, found \
             '{text}'"
        );
        findings.add("ExposeInvalidFormat", message, word.span());
    }
    if protocol.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let message =
            format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
        findings.add("ExposeProtoCasing", message, word.span());
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::findings;

    #[test]
    fn secrets_are_told_by_their_names() {
        for name in ["TOKEN", "API_KEY", "x_password_y", "GIT_AUTH_TOKEN", "KEY_PATH"] {
            for line in [format!("ARG {name}"), format!("ENV {name}=1"), format!("ENV A=1 {name}=")]
            {
                let found = findings(&format!("FROM a\n{line}\n"));
                let expected = format!("2 `{name}` SecretsUsedInArgOrEnv: ");
                assert!(found.starts_with(&expected), "{line}: {found}");
            }
        }
        for name in
            ["PUBLIC_KEY", "TOKEN_FILE", "KEYS", "MONKEY", "SECRETFILE", "AUTHOR", "AUTH_VERSION"]
        {
            assert_eq!(findings(&format!("FROM a\nENV {name}=1\n")), "");
        }
    }

    #[test]
    fn keys_and_values_have_an_equals_sign() {
        assert_eq!(findings("FROM a\nENV b=c\nLABEL d=e\n"), "");
        let found = findings("FROM a\nENV b c\n");
        let expected = "2 `ENV b c` LegacyKeyValueFormat: \"ENV key=value\" should be used instead \
                        of legacy \"ENV key value\" format\n";
        assert_eq!(found, expected);
    }

    #[test]
    fn ports_are_numbers_with_a_protocol() {
        assert_eq!(findings("FROM a\nEXPOSE 80 53/udp 8000-8010/tcp $P/TCP\n"), "");
        let found = findings("FROM a\nEXPOSE 80/TCP\nEXPOSE 127.0.0.1:80:80\n");
        let expected = "\
            2 `80/TCP` ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase\n\
            3 `127.0.0.1:80:80` ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'\n";
        assert_eq!(found, expected);
    }
}
