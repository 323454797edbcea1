//! `WWW-Authenticate`: how a registry says which credentials it wants.
//!
//! RFC 9110 §11.2, §11.6.1 and §5.6. A header may hold several challenges, there may be several
//! headers, and commas separate challenges as well as parameters.

/// One way to authenticate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The scheme in lower case, such as `bearer`.
    pub(crate) scheme: String,
    /// The parameters, their names in lower case.
    params: Vec<(String, String)>,
}

impl Challenge {
    /// The value of a parameter; of several with the same name the first counts.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// Reads the value of one header.
///
/// `None` where it does not follow the grammar; nothing of such a header is used.
pub(crate) fn parse(header: &str) -> Option<Vec<Challenge>> {
    let mut reader = Reader { rest: header };
    let mut challenges: Vec<Challenge> = Vec::new();
    reader.skip_separators();
    while !reader.rest.is_empty() {
        let word = reader.token()?;
        let spaces = reader.skip_spaces();
        match challenges.last_mut() {
            // `name=value` belongs to the challenge before it, a bare word begins another.
            Some(challenge) if reader.take('=') => {
                reader.skip_spaces();
                let value = reader.value()?;
                challenge.params.push((word.to_ascii_lowercase(), value));
            }
            _ => {
                let scheme = word.to_ascii_lowercase();
                challenges.push(Challenge { scheme, params: Vec::new() });
                if spaces {
                    reader.skip_token68();
                }
                // The first parameter follows without a comma.
                if !reader.at_end_of_element() {
                    continue;
                }
            }
        }
        reader.end_of_element()?;
    }
    Some(challenges)
}

/// What is left of a header's value.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn take(&mut self, wanted: char) -> bool {
        let rest = self.rest.strip_prefix(wanted);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !belongs(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn skip_spaces(&mut self) -> bool {
        !self.take_while(|c| c == ' ' || c == '\t').is_empty()
    }

    /// Empty elements of a list are allowed: `a, , b`.
    fn skip_separators(&mut self) {
        self.take_while(|c| matches!(c, ' ' | '\t' | ','));
    }

    fn at_end_of_element(&self) -> bool {
        let rest = self.rest.trim_start_matches([' ', '\t']);
        rest.is_empty() || rest.starts_with(',')
    }

    fn end_of_element(&mut self) -> Option<()> {
        self.at_end_of_element().then(|| self.skip_separators())
    }

    fn token(&mut self) -> Option<&'a str> {
        let token = self.take_while(is_token);
        (!token.is_empty()).then_some(token)
    }

    fn value(&mut self) -> Option<String> {
        if self.take('"') { self.quoted() } else { self.token().map(str::to_owned) }
    }

    /// The rest of a quoted string, behind its first quotation mark.
    fn quoted(&mut self) -> Option<String> {
        let mut value = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(value);
                }
                '\\' => value.push(chars.next()?.1),
                c => value.push(c),
            }
        }
        None
    }

    /// Credentials in one piece (`Negotiate YWJj==`), which no scheme that we speak has.
    fn skip_token68(&mut self) {
        let start = self.rest;
        let is_letter = |c: char| c.is_ascii_alphanumeric() || "-._~+/".contains(c);
        let letters = self.take_while(is_letter);
        self.take_while(|c| c == '=');
        if letters.is_empty() || !self.at_end_of_element() {
            self.rest = start;
        }
    }
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Each challenge as `scheme name=value …`.
    fn read(header: &str) -> Option<Vec<String>> {
        let shown = |challenge: &Challenge| {
            let params = challenge.params.iter().map(|(name, value)| format!(" {name}={value}"));
            format!("{}{}", challenge.scheme, params.collect::<String>())
        };
        Some(parse(header)?.iter().map(shown).collect())
    }

    #[test]
    fn challenges_are_read_by_the_book() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![
                    "bearer realm=https://auth.docker.io/token service=registry.docker.io scope=repository:a/b:pull,push",
                ],
            ),
            ("Basic realm=\"x y\"", vec!["basic realm=x y"]),
            ("BASIC", vec!["basic"]),
            (
                "basic Realm = \"a\\\"b\\\\c\" , charset=UTF-8",
                vec!["basic realm=a\"b\\c charset=UTF-8"],
            ),
            (
                r#"Newauth realm="apps", type=1, title="Login to \"apps\"", Basic realm="simple""#,
                vec!["newauth realm=apps type=1 title=Login to \"apps\"", "basic realm=simple"],
            ),
            ("Negotiate YWJjZA==, Basic realm=a", vec!["negotiate", "basic realm=a"]),
            ("Negotiate, Bearer realm=a", vec!["negotiate", "bearer realm=a"]),
            (", , Bearer realm=a, ,service=b,", vec!["bearer realm=a service=b"]),
            ("", vec![]),
            (r#"Bearer realm="ä,=""#, vec!["bearer realm=ä,="]),
            (r#"Bearer realm="""#, vec!["bearer realm="]),
        ] {
            let expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
            assert_eq!(read(header), Some(expected), "{header}");
        }
    }

    #[test]
    fn what_breaks_the_grammar_is_not_used_at_all() {
        for header in [
            r#"Bearer realm="open"#,
            r#"Bearer realm="a" service="b""#,
            "Bearer service=a,realm=,",
            "Bearer realm=\"a\",service=",
            "Bearer =a",
            "realm=\"a\"",
            "Bearer realm=a b=c",
            "\"Bearer\"",
            "Bearer realm=\"a\\",
            "Bearer\u{0}",
        ] {
            assert_eq!(read(header), None, "{header}");
        }
    }

    #[test]
    fn the_first_of_equal_parameters_counts() {
        let challenges = parse("Bearer realm=a,REALM=b").unwrap();
        assert_eq!(challenges[0].param("realm"), Some("a"));
        assert_eq!(challenges[0].param("service"), None);
    }

    proptest! {
        #[test]
        fn whatever_is_quoted_is_read_back(values in vec("[ -~]{0,20}", 1..4)) {
            let quote = |value: &String| value.replace('\\', "\\\\").replace('"', "\\\"");
            let params = values.iter().enumerate().map(|(at, value)| {
                format!("p{at}=\"{}\"", quote(value))
            });
            let header = format!("Bearer {}", params.collect::<Vec<_>>().join(", "));
            let challenges = parse(&header).unwrap();
            prop_assert_eq!(challenges.len(), 1);
            for (at, value) in values.iter().enumerate() {
                prop_assert_eq!(challenges[0].param(&format!("p{at}")), Some(value.as_str()));
            }
        }

        #[test]
        fn no_header_makes_it_panic(header in "(Bearer|[a-z]|[ ,=\"\\\\]|.){0,40}") {
            parse(&header);
        }
    }
}
