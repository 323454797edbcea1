//! Addresses that a registry gives: where to go on, where to send a blob.

use ureq::http::Uri;

use crate::text;

/// An address that may be relative to another (RFC 3986 §5.2, as far as servers use it).
pub(crate) fn resolve(base: &str, location: &str) -> String {
    if location.contains("://") {
        return location.to_owned();
    }
    let (scheme, rest) = base.split_once("://").unwrap_or(("https", base));
    let path_at = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(path_at);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    match location.as_bytes() {
        [b'/', b'/', ..] => format!("{scheme}:{location}"),
        [b'/', ..] => format!("{scheme}://{host}{location}"),
        [b'?', ..] => format!("{scheme}://{host}{path}{location}"),
        _ => {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            format!("{scheme}://{host}{parent}/{location}")
        }
    }
}

/// An address with another parameter in its query.
pub(crate) fn with_param(url: &str, name: &str, value: &str) -> String {
    let url = url.split('#').next().unwrap_or_default();
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{name}={}", encode(value))
}

/// A text as it may stand in a query or a form.
pub(crate) fn encode(text: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, KEPT).to_string()
}

/// An address for a message: the host and the path, but not the query, in which storage services
/// have signatures, nor a user.
pub(crate) fn shown(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return "(unreadable)".to_owned() };
    let scheme = uri.scheme_str().map(|scheme| format!("{scheme}://")).unwrap_or_default();
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    text::printable(&format!("{scheme}{}{port}{}", uri.host().unwrap_or_default(), uri.path()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn locations_are_resolved() {
        let base = "https://r.example:5000/v2/a/blobs/uploads/?mount=x";
        for (location, address) in [
            ("https://cdn.example/x?y", "https://cdn.example/x?y"),
            ("//cdn.example/x", "https://cdn.example/x"),
            (
                "/v2/a/blobs/uploads/1?_state=b",
                "https://r.example:5000/v2/a/blobs/uploads/1?_state=b",
            ),
            ("1", "https://r.example:5000/v2/a/blobs/uploads/1"),
            ("?x=1", "https://r.example:5000/v2/a/blobs/uploads/?x=1"),
        ] {
            assert_eq!(resolve(base, location), address);
        }
        assert_eq!(resolve("http://r.example", "x"), "http://r.example/x");
    }

    #[test]
    fn parameters_are_added_to_whatever_there_is() {
        for (url, expected) in [
            ("http://r/x", "http://r/x?digest=sha256%3A0"),
            ("http://r/x?a=b", "http://r/x?a=b&digest=sha256%3A0"),
            ("http://r/x#y", "http://r/x?digest=sha256%3A0"),
        ] {
            assert_eq!(with_param(url, "digest", "sha256:0"), expected);
        }
        assert_eq!(encode("a b&c=ä/-._~"), "a%20b%26c%3D%C3%A4%2F-._~");
    }

    #[test]
    fn signatures_and_users_are_not_shown() {
        for (url, expected) in [
            ("https://cdn.example:8443/x/y?X-Amz-Signature=secret", "https://cdn.example:8443/x/y"),
            ("https://user:secret@cdn.example/x#secret", "https://cdn.example/x"),
            ("secret\u{1b}", "(unreadable)"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    proptest! {
        #[test]
        fn no_address_makes_it_panic(base in ANY, location in ANY) {
            let resolved = resolve(&base, &location);
            shown(&with_param(&resolved, "digest", &location));
        }
    }

    const ANY: &str = "(https?://|//|[a-z@:.]|[/?#&=\\[\\]]|.){0,20}";
}
