//! Addresses of what lies elsewhere, as ADD and the command line have them.

use formwork_graph::HttpSource;

/// The name of a file whose address has none.
const UNNAMED: &str = "__unnamed__";

/// Whether a text is the address of a file of a web server.
pub fn is_http(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| matches!(&*scheme.to_ascii_lowercase(), "http" | "https"))
}

/// The file that an address leads to, called after the last part of its path as in BuildKit.
pub fn http_source(url: &str) -> HttpSource {
    let path = url.split_once("://").map_or("", |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.find('/').map_or("", |at| &path[at..]);
    let decoded = decode(path);
    let name = decoded.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let is_name = !name.is_empty() && !matches!(name, "." | "..") && !name.contains('\0');
    let name = if is_name && name.len() <= 255 { name } else { UNNAMED };
    HttpSource { url: url.to_owned(), name: name.to_owned(), checksum: None }
}

/// A text without percent-encoding; what would be no UTF-8 stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let digits = digits.filter(|pair| pair.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_called_after_their_addresses() {
        for (url, name) in [
            ("https://h/a/b.tar.gz?x=/y#/z", "b.tar.gz"),
            ("http://h/a%20b%2Fc", "c"),
            ("http://h/a%20b", "a b"),
            ("http://h/%zz%4", "%zz%4"),
            ("http://h/a/", "a"),
            ("http://h", UNNAMED),
            ("http://h/", UNNAMED),
            ("http://h/a/..", UNNAMED),
            ("http://h/a%00b", UNNAMED),
            ("http://h/%ff", "%ff"),
        ] {
            assert_eq!(http_source(url).name, name, "{url}");
        }
        assert!(is_http("HTTP://h") && !is_http("http:/h") && !is_http("ftp://h"));
    }
}
