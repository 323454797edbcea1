//! "Did you mean": the nearest of the names that would have been right.
//!
//! Only judges spelling; whether a suggestion makes sense is for the caller.

/// The candidate that is spelled most like `name`, if any is close enough to be a likely slip.
///
/// Close enough is at most one edit for every three characters of the name, and never more than
/// three. Letter case counts as no difference. Of equally close candidates the first is taken.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = fold(name);
    let limit = (name.len().div_ceil(3)).min(3);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let distance = edit_distance(&name, &fold(candidate), limit)?;
            Some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn fold(text: &str) -> Vec<char> {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// The optimal string alignment distance (a swap of neighbours is one edit), or `None` beyond the
/// limit.
fn edit_distance(a: &[char], b: &[char], limit: usize) -> Option<usize> {
    if a.len().abs_diff(b.len()) > limit {
        return None;
    }
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, y) in b.iter().enumerate() {
            let substitution = above[j] + usize::from(x != y);
            row[j + 1] = substitution.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    (above[b.len()] <= limit).then_some(above[b.len()])
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const WORDS: [&str; 4] = ["FROM", "RUN", "COPY", "ENTRYPOINT"];

    #[test]
    fn slips_find_their_word() {
        assert_eq!(nearest("FORM", WORDS), Some("FROM"));
        assert_eq!(nearest("copi", WORDS), Some("COPY"));
        assert_eq!(nearest("ENTRIPONT", WORDS), Some("ENTRYPOINT"));
        assert_eq!(nearest("run", WORDS), Some("RUN"));
    }

    #[test]
    fn strangers_find_nothing() {
        assert_eq!(nearest("LABEL", WORDS), None);
        assert_eq!(nearest("", WORDS), None);
        assert_eq!(nearest("X", WORDS), None);
    }
}
