//! Filters of images as docker has them: `dangling=true`, `label=KEY=VALUE`, `reference=PATTERN`.

use std::str::FromStr;

/// A condition on images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageFilter {
    /// Whether it has no name.
    Dangling(bool),
    /// It has the label, with the value if one is given.
    Label(String, Option<String>),
    /// Its name fits the pattern.
    Reference(Pattern),
    /// It is older than another image.
    Before(String),
    /// It is newer than another image.
    Since(String),
}

/// A pattern for names: `*` stands for anything but `/`, `?` for one letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(pub(crate) String);

impl FromStr for ImageFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            let known = "dangling, label, reference, before and since";
            format!("there is no filter `{text}`; there are {known}, each with `=` and a value")
        };
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        Ok(match (key, value) {
            ("dangling", "true" | "1") => Self::Dangling(true),
            ("dangling", "false" | "0") => Self::Dangling(false),
            ("label", label) => match label.split_once('=') {
                Some((key, value)) => Self::Label(key.to_owned(), Some(value.to_owned())),
                None => Self::Label(label.to_owned(), None),
            },
            ("reference", pattern) => Self::Reference(Pattern(pattern.to_owned())),
            ("before", image) => Self::Before(image.to_owned()),
            ("since", image) => Self::Since(image.to_owned()),
            _ => return Err(wrong()),
        })
    }
}

impl Pattern {
    /// Whether a name fits: with its tag or without, as docker has it.
    pub(crate) fn fits(&self, repository: &str, tag: &str) -> bool {
        let pattern: Vec<char> = self.0.chars().collect();
        let whole: Vec<char> = format!("{repository}:{tag}").chars().collect();
        let bare: Vec<char> = repository.chars().collect();
        fits(&pattern, &whole) || fits(&pattern, &bare)
    }
}

/// Tries each length of the last star in turn, which needs no recursion.
fn fits(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p + 1, t));
                p += 1;
            }
            Some('?') if text[t] != '/' => (p, t) = (p + 1, t + 1),
            Some(letter) if *letter == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((behind, from)) if text[from] != '/' => {
                    star = Some((behind, from + 1));
                    (p, t) = (behind, from + 1);
                }
                _ => return false,
            },
        }
    }
    pattern[p..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_patterns_as_with_docker() {
        for (pattern, expected) in [
            ("team/app", true),
            ("team/app:1.2", true),
            ("app", false),
            ("team/app:1", false),
            ("team/*", true),
            ("*", false),
            ("*/*", true),
            ("*/*:1.*", true),
            ("te*m/a?p", true),
            ("team?app", false),
            ("", false),
        ] {
            assert_eq!(Pattern(pattern.to_owned()).fits("team/app", "1.2"), expected, "{pattern}");
        }
        assert!(Pattern("*".to_owned()).fits("app", "1"));
        let hard = Pattern("*a".repeat(50));
        assert!(!hard.fits(&"a".repeat(40), "b"));
    }

    #[test]
    fn filters_are_those_of_docker() {
        assert_eq!("dangling=true".parse(), Ok(ImageFilter::Dangling(true)));
        let label = ImageFilter::Label("a".to_owned(), Some("b=c".to_owned()));
        assert_eq!("label=a=b=c".parse(), Ok(label));
        assert_eq!("label=a".parse(), Ok(ImageFilter::Label("a".to_owned(), None)));
        for wrong in ["", "dangling", "dangling=maybe", "color=red"] {
            assert!(wrong.parse::<ImageFilter>().is_err(), "{wrong}");
        }
    }
}
