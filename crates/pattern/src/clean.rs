//! Paths brought into their shortest form by their text alone, as Go's `path.Clean` does.

/// Drops doubled slashes and `.`, resolves `..` where a component stands before it, and removes a
/// slash at the end. A leading slash stays; what would be empty becomes `.`.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => match components.last() {
                Some(last) if *last != b".." => drop(components.pop()),
                _ if rooted => {}
                _ => components.push(component),
            },
            name => components.push(name),
        }
    }
    let mut clean = if rooted { b"/".to_vec() } else { Vec::new() };
    clean.extend(components.join(&b'/'));
    if clean.is_empty() {
        clean.push(b'.');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn paths_become_as_short_as_they_can() {
        for (path, shortest) in [
            ("", "."),
            (".", "."),
            ("a/", "a"),
            ("a//b/./c", "a/b/c"),
            ("a/../b", "b"),
            ("a/..", "."),
            ("../a", "../a"),
            ("../../a", "../../a"),
            ("a/../../b", "../b"),
            ("/", "/"),
            ("//a", "/a"),
            ("/../a", "/a"),
            ("/a/b/..", "/a"),
        ] {
            assert_eq!(clean(path.as_bytes()), shortest.as_bytes(), "{path}");
        }
    }
}
