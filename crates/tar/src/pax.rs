//! PAX records: `length key=value` lines before an entry.
//!
//! Values may hold any byte, line feeds and NULs included, so records are cut by their lengths.

use formwork_fs::Timestamp;

/// What the records before an entry say. An empty value means that the header's own counts.
#[derive(Debug, Default)]
pub(crate) struct Records {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link_path: Option<Vec<u8>>,
    pub(crate) size: Option<i64>,
    pub(crate) uid: Option<i64>,
    pub(crate) gid: Option<i64>,
    pub(crate) mtime: Option<Timestamp>,
    pub(crate) xattrs: formwork_fs::Xattrs,
    pub(crate) sparse: SparseRecords,
}

/// What the records say about a sparse file, in any of the three versions of GNU tar's format.
#[derive(Debug, Default)]
pub(crate) struct SparseRecords {
    pub(crate) major: Vec<u8>,
    pub(crate) minor: Vec<u8>,
    pub(crate) name: Vec<u8>,
    /// Version 0.1: offsets and lengths, separated by commas. Version 0.0 has a record for each
    /// of them, which are joined to this.
    pub(crate) map: Vec<u8>,
    pub(crate) real_size: Option<i64>,
}

/// The prefix of the keys of extended attributes.
const XATTR: &[u8] = b"SCHILY.xattr.";

impl Records {
    /// Reads the records; of several with one key the last one counts.
    pub(crate) fn parse(mut data: &[u8]) -> Result<Self, &'static str> {
        let mut records = Self::default();
        let mut offsets_and_lengths: Vec<&[u8]> = Vec::new();
        while !data.is_empty() {
            let (key, value, rest) = split_record(data).ok_or("a PAX record has a wrong form")?;
            data = rest;
            match key {
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    let is_turn = (key == b"GNU.sparse.offset")
                        == offsets_and_lengths.len().is_multiple_of(2);
                    if !is_turn || value.contains(&b',') {
                        return Err("the PAX records of a sparse file are out of order");
                    }
                    offsets_and_lengths.push(value);
                }
                _ => records.set(key, value)?,
            }
        }
        if !offsets_and_lengths.is_empty() {
            records.sparse.map = offsets_and_lengths.join(&b',');
        }
        Ok(records)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        match key {
            b"path" => self.path = name(value)?,
            b"linkpath" => self.link_path = name(value)?,
            b"size" => self.size = number(value)?,
            b"uid" => self.uid = number(value)?,
            b"gid" => self.gid = number(value)?,
            b"mtime" if value.is_empty() => self.mtime = None,
            b"mtime" => self.mtime = Some(parse_time(value).ok_or("a PAX time is no number")?),
            b"GNU.sparse.major" => self.sparse.major = value.to_vec(),
            b"GNU.sparse.minor" => self.sparse.minor = value.to_vec(),
            b"GNU.sparse.name" => self.sparse.name = name(value)?.unwrap_or_default(),
            b"GNU.sparse.map" => self.sparse.map = value.to_vec(),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = number(value)?,
            _ => {
                if let Some(attribute) = key.strip_prefix(XATTR) {
                    self.xattrs.push((attribute.into(), value.into()));
                }
            }
        }
        Ok(())
    }
}

/// The key and the value of the first record, and what follows it.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    // A length of more digits would be beyond any limit.
    let space = data.iter().take(9).position(|byte| *byte == b' ')?;
    let length = usize::try_from(digits(&data[..space])?).ok()?;
    let (record, rest) = data.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then_some((key, value, rest))
}

fn name(value: &[u8]) -> Result<Option<Vec<u8>>, &'static str> {
    if value.contains(&0) {
        return Err("a PAX path contains a NUL byte");
    }
    Ok((!value.is_empty()).then(|| value.to_vec()))
}

fn number(value: &[u8]) -> Result<Option<i64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    let (negative, magnitude) = sign(value);
    let magnitude = digits(magnitude).ok_or("a PAX number is no number")?;
    Ok(Some(if negative { -magnitude } else { magnitude }))
}

fn sign(value: &[u8]) -> (bool, &[u8]) {
    value.strip_prefix(b"-").map_or((false, value), |rest| (true, rest))
}

/// A number of digits and nothing else, also not nothing at all.
pub(crate) fn digits(text: &[u8]) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0i64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(i64::from(digit))
    })
}

/// Seconds with any number of decimals, of which nine are kept.
fn parse_time(value: &[u8]) -> Option<Timestamp> {
    let (negative, magnitude) = sign(value);
    let (seconds, fraction) = match magnitude.iter().position(|byte| *byte == b'.') {
        Some(point) => (&magnitude[..point], &magnitude[point + 1..]),
        None => (magnitude, &b""[..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = digits(seconds)?;
    let padded = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanoseconds = padded.fold(0, |value, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanoseconds) {
        (false, nanoseconds) => Timestamp { seconds, nanoseconds },
        (true, 0) => Timestamp { seconds: -seconds, nanoseconds: 0 },
        (true, nanoseconds) => {
            let nanoseconds = 1_000_000_000 - nanoseconds;
            Timestamp { seconds: (-seconds).checked_sub(1)?, nanoseconds }
        }
    })
}

/// A time as a record's value: decimals only as far as there are any.
pub(crate) fn format_time(time: Timestamp) -> String {
    if time.nanoseconds == 0 {
        return time.seconds.to_string();
    }
    // Before 1970 the fraction counts back from the next second.
    let (sign, seconds, nanoseconds) = if time.seconds < 0 {
        ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - time.nanoseconds)
    } else {
        ("", time.seconds.unsigned_abs(), time.nanoseconds)
    };
    let decimals = format!("{nanoseconds:09}");
    format!("{sign}{seconds}.{}", decimals.trim_end_matches('0'))
}

/// Adds a record. Its length counts its own digits, too.
pub(crate) fn put_record(output: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Space, equals sign, line feed.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + decimal_digits(rest);
    if decimal_digits(length) > decimal_digits(rest) {
        length += 1;
    }
    output.extend_from_slice(format!("{length} ").as_bytes());
    output.extend_from_slice(key);
    output.push(b'=');
    output.extend_from_slice(value);
    output.push(b'\n');
}

/// Adds the record of an extended attribute.
pub(crate) fn put_xattr(output: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    put_record(output, &[XATTR, name].concat(), value);
}

fn decimal_digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(seconds: i64, nanoseconds: u32) -> Timestamp {
        Timestamp { seconds, nanoseconds }
    }

    #[test]
    fn times_have_any_number_of_decimals_and_either_sign() {
        for (text, expected) in [
            ("0", Some(time(0, 0))),
            ("1350244992.023960108", Some(time(1_350_244_992, 23_960_108))),
            ("1350244992.0239601089999", Some(time(1_350_244_992, 23_960_108))),
            ("5.", Some(time(5, 0))),
            ("5.5", Some(time(5, 500_000_000))),
            ("-1", Some(time(-1, 0))),
            ("-0.1", Some(time(-1, 900_000_000))),
            ("-1.5", Some(time(-2, 500_000_000))),
            ("9223372036854775807", Some(time(i64::MAX, 0))),
            ("9223372036854775808", None),
            ("-9223372036854775807.9", Some(time(i64::MIN, 100_000_000))),
            (".5", None),
            ("", None),
            ("1e9", None),
            ("1.-5", None),
            ("--1", None),
        ] {
            assert_eq!(parse_time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn records_are_cut_by_their_lengths() {
        let mut data = Vec::new();
        put_xattr(&mut data, b"security.capability", b"\x01\n\0=\n12 path=x\n");
        put_record(&mut data, b"path", b"first");
        put_record(&mut data, b"path", "last/\u{e4}".as_bytes());
        put_record(&mut data, b"size", b"77");
        put_record(&mut data, b"VENDOR.thing", b"ignored");
        let records = Records::parse(&data).unwrap();
        assert_eq!(records.path.as_deref(), Some("last/\u{e4}".as_bytes()));
        assert_eq!(records.size, Some(77));
        let expected: formwork_fs::Xattrs =
            vec![(b"security.capability"[..].into(), b"\x01\n\0=\n12 path=x\n"[..].into())];
        assert_eq!(records.xattrs, expected);
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let mut data = Vec::new();
        put_record(&mut data, b"path", b"name");
        put_record(&mut data, b"path", b"");
        put_record(&mut data, b"mtime", b"5");
        put_record(&mut data, b"mtime", b"");
        let records = Records::parse(&data).unwrap();
        assert_eq!((records.path, records.mtime), (None, None));
    }

    #[test]
    fn records_of_a_wrong_form_are_refused() {
        for data in [
            "x",
            "11 path=ab",
            "11 path=abX",
            "99999999999999999999 path=a\n",
            "6 a=\n",
            "3 a\n",
            "0 a=b\n",
            "-6 a=b\n",
            "6 =ab\n",
            "9 a\0b=cd\n",
            "11 path=a\0\n",
            "10 size=x\n",
            "11 uid=1.5\n",
            "11 mtime=x\n",
            " 6 a=b\n",
        ] {
            assert!(Records::parse(data.as_bytes()).is_err(), "{data:?}");
        }
        assert!(Records::parse(b"").is_ok());
    }

    #[test]
    fn old_sparse_records_alternate() {
        let parse = |records: &[(&str, &str)]| {
            let mut data = Vec::new();
            for (key, value) in records {
                put_record(&mut data, key.as_bytes(), value.as_bytes());
            }
            Records::parse(&data).map(|records| records.sparse.map)
        };
        let (offset, length) = ("GNU.sparse.offset", "GNU.sparse.numbytes");
        let good = parse(&[(offset, "0"), (length, "5"), (offset, "9"), (length, "1")]);
        assert_eq!(good.unwrap(), b"0,5,9,1");
        assert!(parse(&[(length, "0"), (offset, "5")]).is_err());
        assert!(parse(&[(offset, "0,5"), (length, "1")]).is_err());
    }

    proptest! {
        #[test]
        fn a_record_comes_back(key in "[a-zA-Z.]{1,20}", value in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut data = Vec::new();
            put_record(&mut data, key.as_bytes(), &value);
            prop_assert_eq!(split_record(&data), Some((key.as_bytes(), &*value, &b""[..])));
        }

        #[test]
        fn a_time_comes_back(seconds in any::<i64>(), nanoseconds in 0u32..1_000_000_000) {
            prop_assume!(seconds > i64::MIN);
            let time = Timestamp { seconds, nanoseconds };
            prop_assert_eq!(parse_time(format_time(time).as_bytes()), Some(time));
        }

        #[test]
        fn nothing_makes_the_parser_panic(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Records::parse(&data);
        }
    }
}
